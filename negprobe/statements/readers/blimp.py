"""BLiMP as published (Warstadt et al. 2020, doi:10.1162/tacl_a_00321): an acceptable and an unacceptable sentence.

The sets about negation ask for a negative polarity item ("ever") only where something licenses it. A pair is made where
the two sentences differ by a negation: in sentential_negation_npi_licensor_present, "Teresa had probably ever sold a
theater" and "Teresa had not ever sold a theater". In sentential_negation_npi_scope both are negated, in npi_present_1
neither is, and in only_npi_licensor_present "only" stands against "even", which is no cue: these give no pairs and can
be scored.
"""

from dataclasses import dataclass

from negprobe.base.errors import StatementError
from negprobe.statements.cues import added_cues, find_cues
from negprobe.statements.pair import StatementPair
from negprobe.statements.readers.records import Read, Row, Table, each, label, needed

COLUMNS = frozenset({"sentence_good", "sentence_bad"})


@dataclass(frozen=True)
class MinimalPair:
    """Two sentences that differ in one point of grammar.

    Attributes:
        good: The acceptable one.
        bad: The unacceptable one.
        phenomenon: The name of the set ("npi_present_1").
    """

    good: str
    bad: str
    phenomenon: str


def blimp_minimal_pairs(table: Table) -> Read[MinimalPair]:
    """The two sentences of each row."""
    return each(table, lambda row, _: _minimal_pair(row, table.name))


def blimp_pairs(table: Table) -> Read[StatementPair]:
    """The sentence without the negation and the one with it; there is no target and no foil.

    The category is the name of the set. One of the two is not acceptable English, which is what the set is about.
    """
    return each(table, lambda row, _: _pair(_minimal_pair(row, table.name)))


def _minimal_pair(row: Row, name: str) -> MinimalPair:
    return MinimalPair(needed(row, "sentence_good"), needed(row, "sentence_bad"), label(row, "uid") or name)


def _pair(sentences: MinimalPair) -> StatementPair:
    for original, counterfactual in (
        (sentences.bad, sentences.good),
        (sentences.good, sentences.bad),
    ):
        if added_cues(original, counterfactual):
            return StatementPair(original, counterfactual, category=sentences.phenomenon, source="BLiMP")
    if not find_cues(sentences.good + sentences.bad):
        raise StatementError("neither sentence has a negation.")
    raise StatementError("both sentences have the same negations, if in other places, so neither is the affirmative.")
