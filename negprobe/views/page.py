"""Attention of a statement and its counterfactual as one self-contained, interactive HTML page.

The maps are circuitsvis' `AttentionHeads`. Its bundle is inlined once, whatever the number of pairs, and the
page's content-security policy allows no other script and no network.
"""

import base64
import hashlib
import html
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from string import Template

from jaxtyping import Float
from torch import Tensor

from negprobe.attention import Comparison, StatementAttention
from negprobe.errors import ViewError

MEASURES = ("raw", "norm", "similarity")
"""The maps of a `StatementAttention` that the page can show."""


@dataclass(frozen=True)
class PageParts:
    """The interactive views, to be put into a page: `head` goes into `<head>`, `body` anywhere into `<body>`.

    A page holds them once. `head` carries the content-security policy, which allows the scripts in `body`,
    inline styles and `data:` images, and nothing else.
    """

    head: str
    body: str


def comparison_page(comparisons: Sequence[Comparison], *, title: str) -> str:
    """One self-contained HTML page with the attention of every pair, layer and head.

    Raises:
        ViewError: as `page_parts`.
    """
    parts = page_parts(comparisons)
    return Template(_asset("page.html")).substitute(
        title=html.escape(title), head=parts.head, style=_asset("page.css"), body=parts.body
    )


def write_page(comparisons: Sequence[Comparison], path: str | Path, *, title: str) -> Path:
    """Write `comparison_page` to `path` and return it.

    Raises:
        ViewError: as `page_parts`.
    """
    path = Path(path)
    path.write_text(comparison_page(comparisons, title=title), encoding="utf-8")
    return path


def page_parts(comparisons: Sequence[Comparison]) -> PageParts:
    """The interactive views of some comparisons of one model, with their style, data and scripts.

    Raises:
        ViewError: if there is nothing to show, the comparisons differ in layers or heads, a map does not fit
            its tokens, a value is not a finite number, or no tokens are aligned.
    """
    scripts = [_circuitsvis(), _asset("views.js")]
    data = [
        f'<script type="application/json" id="negprobe-pair-{index}">{_json(_pair_data(comparison))}</script>'
        for index, comparison in enumerate(comparisons)
    ]
    layers, heads = _layers_and_heads(comparisons)
    views = Template(_asset("views.html")).substitute(
        pairs=_options(_pair_name(comparison) for comparison in comparisons),
        layers=_options(str(layer) for layer in range(layers)),
        heads=_options(str(head) for head in range(heads)),
    )
    return PageParts(
        head=f"{_content_security_policy(scripts)}\n<style>\n{_asset('views.css')}</style>",
        body="\n".join([views, *data, *(f"<script>{script}</script>" for script in scripts)]),
    )


def _layers_and_heads(comparisons: Sequence[Comparison]) -> tuple[int, int]:
    if not comparisons:
        raise ViewError("There is no comparison to show; give the page at least one.")
    sides = [side for comparison in comparisons for side in (comparison.original, comparison.counterfactual)]
    shapes = sorted({tuple(getattr(side, measure).shape[:2]) for side in sides for measure in MEASURES})
    if len(shapes) > 1:
        raise ViewError(
            f"A page shows one model, but the comparisons have different (layers, heads): {shapes}; "
            "write a page for each model."
        )
    layers, heads = shapes[0]
    return layers, heads


def _pair_data(comparison: Comparison) -> dict[str, object]:
    alignment = comparison.alignment
    if not alignment.original:
        raise ViewError(
            f"No token of {comparison.pair.original!r} is aligned with one of "
            f"{comparison.pair.counterfactual!r}; leave this pair out."
        )
    return {
        "original": _side_data(comparison.original),
        "counterfactual": _side_data(comparison.counterfactual) | {"cue": comparison.cue_positions},
        "aligned": [alignment.original, alignment.counterfactual],
    }


def _side_data(attention: StatementAttention) -> dict[str, object]:
    maps = {measure: _rounded(attention, measure) for measure in MEASURES}
    return {"tokens": attention.statement.tokens, **maps}


def _rounded(attention: StatementAttention, measure: str) -> list[list[list[list[float]]]]:
    """A map to four decimals, checked here because circuitsvis would draw a wrong one without a word."""
    values: Float[Tensor, "layer head query key"] = getattr(attention, measure).detach().cpu().double()
    tokens, text = len(attention.statement.tokens), attention.statement.text
    if values.ndim != 4 or 0 in values.shape or values.shape[2:] != (tokens, tokens):
        raise ViewError(
            f"The {measure} map of {text!r} has shape {tuple(values.shape)}; its {tokens} tokens need "
            f"(layer, head, {tokens}, {tokens})."
        )
    if not values.isfinite().all():
        layer, head = (int(index) for index in (~values.isfinite()).nonzero()[0, :2])
        raise ViewError(
            f"The {measure} map of {text!r} has a value that is not a finite number, first at layer {layer}, "
            f"head {head}; look at the model's activations there, or leave this pair out."
        )
    return (values.round(decimals=4) + 0.0).tolist()


def _json(data: object) -> str:
    # Inside a script element only "<" can start something else than text.
    return json.dumps(data, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")


def _pair_name(comparison: Comparison) -> str:
    return f"{comparison.pair.original} → {comparison.pair.counterfactual}"


def _options(names: Iterable[str]) -> str:
    return "".join(f'<option value="{i}">{html.escape(name)}</option>' for i, name in enumerate(names))


def _circuitsvis() -> str:
    bundle = files("circuitsvis").joinpath("dist", "cdn", "iife.js").read_text(encoding="utf-8")
    # The source map is not here to be fetched, and "</script" in one of its strings would end the element.
    code = bundle.partition("//# sourceMappingURL=")[0]
    return code.replace("</script", "<\\/script")


def _content_security_policy(scripts: Sequence[str]) -> str:
    hashes = " ".join(f"'sha256-{_sha256(script)}'" for script in scripts)
    policy = (
        f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )
    return f'<meta http-equiv="Content-Security-Policy" content="{policy}">'


def _sha256(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def _asset(name: str) -> str:
    return files("negprobe.views").joinpath("assets", name).read_text(encoding="utf-8")
