"""Notes on pairs that are accepted unchanged but look like mistakes."""

from collections.abc import Sequence

from negprobe.base.arguments import checked
from negprobe.base.texts import quoted
from negprobe.statements.cues import find_cues
from negprobe.statements.pair import StatementPair

# Only '"' quotes a cell of a .csv file.
_OTHER_QUOTES = (("'", "'"), ("\u2018", "\u2019"), ("\u201c", "\u201d"), ("`", "`"))


@checked
def pair_notes(pairs: Sequence[StatementPair]) -> tuple[str, ...]:
    """A sentence for each likely mistake, with the number of affected pairs and the first of them.

    - The original has a negation and the counterfactual has none, as if the two columns were swapped.
    - Both statements are in quotation marks, which count as part of the text.
    - The pairs have extra columns, which are kept but not used.

    Example:
        >>> from negprobe.statements import StatementPair, pair_notes
        >>> pair_notes([StatementPair("It is open.", "It is not open.", extra=(("id", 7),))])
        ("Extra columns, kept but not used: 'id'.",)
    """
    notes = []
    for found, what in (
        (
            [pair for pair in pairs if is_reversed(pair)],
            "have the negation in the original and none in the counterfactual; give the affirmative as the original",
        ),
        (
            [pair for pair in pairs if _in_other_quotes(pair)],
            "have both statements in quotation marks, which count as part of the text",
        ),
    ):
        if found:
            notes.append(f"{len(found)} of {len(pairs)} pairs {what} (the first: {quoted(found[0].original)}).")
    # A column that clusters were formed by is used.
    names = sorted({name for pair in pairs for name, value in pair.extra if str(value) != pair.cluster})
    if names:
        notes.append(f"Extra columns, kept but not used: {quoted(', '.join(names))}.")
    return tuple(notes)


@checked
def is_reversed(pair: StatementPair) -> bool:
    """Whether the original has a negation cue, and the counterfactual neither a cue nor a marked span."""
    return not pair.cue_spans and bool(find_cues(pair.original)) and not find_cues(pair.counterfactual)


def _in_other_quotes(pair: StatementPair) -> bool:
    return any(
        text.startswith(opening) and text.endswith(closing) and other.startswith(opening) and other.endswith(closing)
        for text, other in [(pair.original.strip(), pair.counterfactual.strip())]
        for opening, closing in _OTHER_QUOTES
    )
