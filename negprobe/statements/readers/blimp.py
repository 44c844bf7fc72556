"""BLiMP as published (Warstadt et al. 2020, doi:10.1162/tacl_a_00321): an acceptable and an unacceptable sentence.

The sets about negation test that a negative polarity item ("ever") occurs only where something licenses it. Two
sentences that differ by a negation become a pair: in sentential_negation_npi_licensor_present, "Teresa had probably
ever sold a theater" and "Teresa had not ever sold a theater". In sentential_negation_npi_scope both are negated, in
npi_present_1 neither is, and in only_npi_licensor_present "only" is compared with "even", neither of which is a cue.
These sets give no pairs, but can be scored.
"""

from dataclasses import dataclass

from negprobe.base.errors import StatementError
from negprobe.statements.cues import added_cues, find_cues
from negprobe.statements.pair import StatementPair
from negprobe.statements.readers.records import ParsedRows, Row, Table, parse_rows, required_text, stripped_text

COLUMNS = frozenset({"sentence_good", "sentence_bad"})


@dataclass(frozen=True)
class MinimalPair:
    """An acceptable and an unacceptable sentence that differ in one grammatical property.

    Attributes:
        good: The acceptable sentence.
        bad: The unacceptable sentence.
        phenomenon: The name of the set ("npi_present_1").
    """

    good: str
    bad: str
    phenomenon: str


def blimp_minimal_pairs(table: Table) -> ParsedRows[MinimalPair]:
    """The two sentences of each row."""
    return parse_rows(table, lambda row, _: _minimal_pair(row, table.name))


def blimp_pairs(table: Table) -> ParsedRows[StatementPair]:
    """A pair for each row: the sentence without the negation and the one with it, without target and foil.

    The category is the name of the set. One of the two sentences is not acceptable English, which the set tests.
    """
    return parse_rows(table, lambda row, _: _pair(_minimal_pair(row, table.name)))


def _minimal_pair(row: Row, name: str) -> MinimalPair:
    good, bad = required_text(row, "sentence_good"), required_text(row, "sentence_bad")
    return MinimalPair(good, bad, stripped_text(row, "uid") or name)


def _pair(sentences: MinimalPair) -> StatementPair:
    for original, counterfactual in (
        (sentences.bad, sentences.good),
        (sentences.good, sentences.bad),
    ):
        if added_cues(original, counterfactual):
            return StatementPair(original, counterfactual, category=sentences.phenomenon, source="BLiMP")
    if not find_cues(sentences.good + sentences.bad):
        raise StatementError("neither sentence has a negation.")
    raise StatementError("both sentences have the same negations, so neither is the affirmative.")
