"""The output of `negprobe pairs`: each pair with what was found in it, and a summary."""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from negprobe.base.files import whole_file
from negprobe.base.texts import shown
from negprobe.statements import PairOverview, Span, StatementPair, to_dataframe

_CUE, _AFFECTED = "bold red", "underline"
_LARGEST = 5


def pair_block(number: int, found: PairOverview) -> RenderableType:
    """A pair and what was found in it, a line each; the cue is red and the affected word underlined."""
    pair = found.pair
    labels = [f"cluster {pair.cluster}" if pair.cluster else "", pair.category, pair.source]
    title = Text(shown(" · ".join((f"pair {number}", *filter(None, labels)))), "bold")
    lines = Table.grid(padding=(0, 2))
    for name, text in _lines(found):
        lines.add_row(f"  {name}", text)
    return Group(title, lines, Text())


def _lines(found: PairOverview) -> Iterator[tuple[str, Text]]:
    pair = found.pair
    yield "original", Text(shown(pair.original))
    yield "counterfactual", _marked(pair)
    if found.unmeasurable:
        yield "left out", Text(shown(found.unmeasurable))
        return
    cues = ", ".join(repr(pair.counterfactual[start:end]) for start, end in pair.cue_spans)
    yield "cue", Text(shown(f"{pair.cue}: {cues}" if cues else "none found"))
    affected = ", ".join(repr(pair.counterfactual[start:end]) for start, end in pair.affected_spans)
    yield "affected", Text(shown(affected or "none found"))
    linked = "; ".join(f"{one!r} with {other!r} ({kind})" for one, other, kind in found.linked)
    if linked:
        yield "aligned", Text(shown(linked))
    unmatched = [
        f"{', '.join(map(repr, words))} of the {side}"
        for side, words in (
            ("original", found.unmatched_original),
            ("counterfactual", found.unmatched_counterfactual),
        )
        if words
    ]
    yield "unmatched", Text(shown("; ".join(unmatched) or "none"))
    if found.invalid_control:
        yield "given control", Text(shown(f"not valid: {found.invalid_control}"))
    yield "control", Text(shown(pair.control or "none"))


def _marked(pair: StatementPair) -> Text:
    """The counterfactual with its cues and affected words marked."""
    text = Text()
    at = 0
    styles: list[tuple[Span, str]] = [(span, _CUE) for span in pair.cue_spans]
    styles += [(span, _AFFECTED) for span in pair.affected_spans]
    for (start, end), style in sorted(styles):
        start = max(start, at)
        text.append(shown(pair.counterfactual[at:start]))
        text.append(shown(pair.counterfactual[start:end]), style)
        at = max(at, end)
    return text.append(shown(pair.counterfactual[at:]))


def summary_tables(found: Sequence[PairOverview]) -> list[Table]:
    """Tables of what was found in all pairs: shares, kinds of cue, and sizes of clusters."""
    pairs = [one.pair for one in found if not one.unmeasurable]
    n = len(found)
    shares = Table("", "pairs", "share", title="Found")
    for name, count in (
        ("all", n),
        ("measurable", len(pairs)),
        ("with a cue", sum(bool(pair.cue_spans) for pair in pairs)),
        ("with an affected word", sum(bool(pair.affected_spans) for pair in pairs)),
        ("with an affected word that is aligned", sum(bool(one.affected_is_aligned) for one in found)),
        ("with a control", sum(pair.control is not None for pair in pairs)),
    ):
        shares.add_row(name, str(count), f"{count / n:.1%}")
    kinds = Counter(pair.cue for pair in pairs if pair.cue_spans)
    controlled = Counter(pair.cue for pair in pairs if pair.cue_spans and pair.control is not None)
    cues = Table("cue", "pairs", "with a control", title="Cues by kind")
    for kind, count in kinds.most_common():
        cues.add_row(str(kind), str(count), str(controlled[kind]))
    return [shares, *([cues] if kinds else []), _cluster_table(pairs)]


def _cluster_table(pairs: Sequence[StatementPair]) -> Table:
    sizes = Counter(pair.cluster for pair in pairs if pair.cluster)
    table = Table("cluster", "pairs", title=f"Clusters: {len(sizes)}")
    for cluster, size in sizes.most_common(_LARGEST):
        table.add_row(cluster, str(size))
    if len(sizes) > _LARGEST:
        table.add_row(f"{len(sizes) - _LARGEST} smaller ones", str(sum(sorted(sizes.values())[:-_LARGEST])))
    table.add_row("pairs that stand alone", str(sum(not pair.cluster for pair in pairs)))
    return table


def write_pairs(pairs: Sequence[StatementPair], path: Path) -> None:
    """Write pairs as a .jsonl file, which `load_pairs` reads back as they are.

    Raises:
        OSError: if it cannot be written.
    """
    rows = to_dataframe(pairs).to_dict("records")
    with whole_file(path) as part:
        part.write_text("".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in rows), encoding="utf-8")
