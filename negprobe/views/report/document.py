"""The building blocks of reports as HTML: a page with a table of contents, sections, tables, figures and lists."""

import base64
import html
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from string import Template
from typing import Any

import pandas as pd
from matplotlib.figure import Figure
from PIL import Image

from negprobe.views.figures.drawing import fix_layout

NO_SCRIPTS = (
    "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'; "
    "img-src data:; base-uri 'none'; form-action 'none'\">"
)
"""The content-security policy of a page without scripts."""

_DPI = 180
_CSS_PIXELS = 96  # per inch
_MANY_COLUMNS = 12  # in a table with more columns, headings are rotated in print
_WIDE = 600  # CSS pixels; on a phone, wider figures scroll instead of shrinking


@dataclass(frozen=True)
class Section:
    """A part of a page with its own heading and entry in the table of contents; `body` is HTML."""

    id: str
    title: str
    body: str


@dataclass(frozen=True)
class Picture:
    """A figure of a page.

    Attributes:
        png: The image.
        alt: What it shows and its main number, as alternative text.
        caption: How to read it.
    """

    png: bytes
    alt: str
    caption: str


@dataclass(frozen=True)
class Topic:
    """Figures under one heading.

    Attributes:
        heading: The heading.
        shown: The names of the figures.
        more: The names of less important figures, which are folded.
        reading: How to read the figures.
        missing: The text if there are no figures.
        below: HTML below the figures.
    """

    heading: str
    shown: Sequence[str]
    more: Sequence[str] = ()
    reading: str = ""
    missing: str = ""
    below: str = ""


def document(title: str, lead: str, sections: Sequence[Section], *, head: str) -> str:
    """A complete HTML page.

    Args:
        title: The title and only first-level heading, as text.
        lead: A sentence below the title, as text.
        sections: The sections; those without a body are left out.
        head: HTML for the head: the content-security policy, and styles.
    """
    shown = [section for section in sections if section.body]
    contents = "".join(f'<li><a href="#{section.id}">{html.escape(section.title)}</a></li>' for section in shown)
    parts = "".join(
        f'<section id="{section.id}" aria-labelledby="{section.id}-title">'
        f'<h2 id="{section.id}-title">{html.escape(section.title)}</h2>\n{section.body}</section>\n'
        for section in shown
    )
    return Template(asset("report.html")).substitute(
        title=html.escape(title),
        lead=html.escape(lead),
        head=head,
        style=asset("page.css") + asset("report.css"),
        contents=contents,
        sections=parts,
    )


def in_words(name: str) -> str:
    """A metric's or a column's name without underscores."""
    return name.replace("_", " ")


def bullets(sentences: Iterable[str]) -> str:
    """A list of sentences; empty if there are none."""
    items = "".join(f"<li>{html.escape(sentence)}</li>" for sentence in sentences)
    return f"<ul>{items}</ul>" if items else ""


def paragraph(text: str) -> str:
    """A paragraph of text; empty for an empty text."""
    return f"<p>{html.escape(text)}</p>" if text else ""


def folded(summary: str, body: str) -> str:
    """A folded part, which is open in print; empty for an empty body."""
    return f"<details><summary>{html.escape(summary)}</summary>\n{body}</details>" if body else ""


def answer_box(sentences: Iterable[str], note: str) -> str:
    """A highlighted box with the answer and a note on how to read it."""
    return f'<div class="answer">{bullets(sentences)}{paragraph(note)}</div>'


def png(figure: Figure) -> bytes:
    """A figure as PNG, at the resolution of a report."""
    data = io.BytesIO()
    fix_layout(figure)
    figure.savefig(data, format="png", dpi=_DPI)
    return data.getvalue()


def topics(ordered: Sequence[Topic], drawn: Mapping[str, Picture]) -> str:
    """Figures under their headings, numbered in the order of the page.

    Args:
        ordered: The topics; one without figures shows its text `missing`, or is left out if that is empty.
        drawn: Figures by name; names in a topic without a figure are ignored.
    """
    names = [name for topic in ordered for name in (*topic.shown, *topic.more) if name in drawn]
    numbers = {name: number for number, name in enumerate(names, start=1)}
    parts = []
    for topic in ordered:
        shown, more = ([name for name in part if name in drawn] for part in (topic.shown, topic.more))
        text = topic.reading if shown or more else topic.missing
        if not (shown or more or text or topic.below):
            continue
        rest = folded(
            "1 more figure" if len(more) == 1 else f"{len(more)} more figures", _pictures(more, drawn, numbers)
        )
        parts.append(f"<h3>{html.escape(topic.heading)}</h3>{paragraph(text)}{_pictures(shown, drawn, numbers)}{rest}")
        parts.append(topic.below)
    return "".join(parts)


def _pictures(names: Sequence[str], drawn: Mapping[str, Picture], numbers: Mapping[str, int]) -> str:
    """Figures, side by side if they fit."""
    shown = "".join(_picture(drawn[name], numbers[name]) for name in names)
    return f'<div class="figures">{shown}</div>' if shown else ""


def _picture(picture: Picture, number: int) -> str:
    with Image.open(io.BytesIO(picture.png)) as image:
        (width, height), (dpi, _) = image.size, image.info["dpi"]
    shown = round(width / dpi * _CSS_PIXELS)
    data = base64.b64encode(picture.png).decode()
    drawn = (
        f'<img src="data:image/png;base64,{data}" alt="{html.escape(picture.alt)}" width="{width}" height="{height}">'
    )
    if shown > _WIDE:
        drawn = f'<div class="scroll" tabindex="0" role="group" aria-label="Figure {number}">{drawn}</div>'
    return (
        f'<figure style="width:{shown}px">{drawn}'
        f"<figcaption><b>Figure {number}.</b> {html.escape(picture.caption)}</figcaption></figure>"
    )


def table(frame: pd.DataFrame, caption: str, *, decimals: int) -> str:
    """An HTML table with the first column as row headings, numbers rounded to `decimals`, and a dash for NaN."""
    head = "".join(f'<th scope="col"{_kind(frame[column])}>{html.escape(str(column))}</th>' for column in frame.columns)
    kinds = [_kind(frame[column]) for column in frame.columns]
    rows = []
    for name, *values in frame.itertuples(index=False, name=None):
        cells = "".join(
            f"<td{kind}>{html.escape(_cell(value, decimals))}</td>"
            for value, kind in zip(values, kinds[1:], strict=True)
        )
        rows.append(f'<tr><th scope="row">{html.escape(_cell(name, decimals))}</th>{cells}</tr>')
    return _scrolled(
        f"<thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody>", caption, len(kinds) > _MANY_COLUMNS
    )


def facts(values: Mapping[str, Any], caption: str) -> str:
    """A table of named values: one line per nested value, and the length of a list."""
    rows = "".join(
        f'<tr><th scope="row">{html.escape(name)}</th><td class="text">{_fact(value)}</td></tr>'
        for name, value in values.items()
    )
    return _scrolled(f"<tbody>{rows}</tbody>", caption)


def _fact(value: object) -> str:
    if isinstance(value, Mapping):
        return "<br>".join(f"{html.escape(str(name).replace('_', ' '))}: {_fact(part)}" for name, part in value.items())
    return html.escape(str(len(value) if isinstance(value, list) else value))


def _scrolled(rows: str, caption: str, is_wide: bool = False) -> str:
    named = html.escape(caption)
    kind = ' class="wide"' if is_wide else ""
    return (
        f'<div class="scroll" tabindex="0" role="group" aria-label="{named}">'
        f"<table{kind}><caption><span>{named}</span></caption>{rows}</table></div>"
    )


def _kind(column: pd.Series) -> str:
    is_number = pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column)
    return "" if is_number else ' class="text"'


def _cell(value: object, decimals: int) -> str:
    if isinstance(value, float):
        # Adding 0.0 turns -0.0 into 0.0.
        return "–" if pd.isna(value) else f"{round(value, decimals) + 0.0:.{decimals}f}".replace("-", "−")
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)


def asset(name: str) -> str:
    """The text of a file in `assets`."""
    return files("negprobe.views").joinpath("assets", name).read_text(encoding="utf-8")
