"""Clusters of pairs: which pairs share material, and so are not independent."""

from collections.abc import Sequence
from dataclasses import replace

from negprobe.base.arguments import checked
from negprobe.base.errors import StatementError
from negprobe.base.texts import quoted
from negprobe.statements.completion import complete
from negprobe.statements.pair import StatementPair

_FIELDS = ("original", "target", "cue", "category", "source", "cluster")


@checked
def clustered_by(pairs: Sequence[StatementPair], column: str) -> tuple[StatementPair, ...]:
    """The pairs with the values of a column as their clusters; a pair without a value stands alone.

    Args:
        pairs: The pairs.
        column: "original", "target", "cue", "category", "source", "cluster" or the name of an extra column. Cues that
            are missing are searched for.

    Raises:
        StatementError: if no pair has a value in this column.

    Example:
        >>> from negprobe import builtin_pairs
        >>> from negprobe.statements import clustered_by
        >>> {pair.cluster for pair in clustered_by(builtin_pairs()[:3], "cue")} == {"not", "n't", "never"}
        True
    """
    labelled = tuple(replace(pair, cluster=_label(pair, column)) for pair in pairs)
    if not any(pair.cluster for pair in labelled):
        extra = dict.fromkeys(name for pair in pairs for name, _ in pair.extra)
        raise StatementError(
            f"No pair has a value in the column {quoted(column)} to form clusters by; choose one of "
            f"{quoted(', '.join((*_FIELDS, *extra)))}."
        )
    return labelled


def _label(pair: StatementPair, column: str) -> str:
    if column == "cue":
        pair = complete(pair)
    value = getattr(pair, column) if column in _FIELDS else dict(pair.extra).get(column)
    return "" if value is None else str(value)
