"""Comparisons for an interactive page, with value zeroing for as many pairs as about a minute allows."""

from collections.abc import Sequence

from negprobe.attention.contribution_maps import contribution_work
from negprobe.attention.probe import AttentionProbe, Comparison
from negprobe.statements import StatementPair
from negprobe.statements.unknown import unknown_words_reported, warn_of_unknown_words

# Limit on the floating-point operations of value zeroing for one page: about a minute on two CPU cores.
_ZEROING_WORK = {"cpu": 1.2e13, "other": 1.2e15}


def compared_for_page(probe: AttentionProbe, pairs: Sequence[StatementPair]) -> list[Comparison]:
    """The comparisons of `AttentionProbe.compare`, with value zeroing for pairs that fit in about a minute.

    Pairs are taken in order; a pair that would exceed the budget is compared without value zeroing.
    """
    cfg = probe.model.cfg
    work = [sum(contribution_work(cfg, length) for length in both) for both in probe.lengths(pairs)]
    budget = _ZEROING_WORK.get(probe.model.device.type, _ZEROING_WORK["other"])
    chosen = fitting(work, int(budget))
    rest = sorted({*range(len(pairs))} - {*chosen})
    # Each of the two calls would issue the warning, so it is issued once below.
    with unknown_words_reported():
        compared = dict(zip(chosen, probe.compare([pairs[index] for index in chosen], zeroing=True), strict=True))
        compared |= zip(rest, probe.compare([pairs[index] for index in rest]), strict=True)
    statements = [side.statement for one in compared.values() for side in (one.original, one.counterfactual)]
    warn_of_unknown_words(statements, probe.model.tokenizer)
    return [compared[index] for index in range(len(pairs))]


def fitting(sizes: Sequence[int], most: int) -> list[int]:
    """Indices of sizes, taken in order, whose sum is at most `most`; a size that no longer fits is skipped."""
    chosen, total = [], 0
    for index, size in enumerate(sizes):
        if total + size <= most:
            chosen.append(index)
            total += size
    return chosen
