"""Statements that end in a gap, as psycholinguists ask them, and the pairs that can be made of them."""

from dataclasses import dataclass

from negprobe.base.errors import StatementError
from negprobe.base.texts import quoted
from negprobe.statements.pair import StatementPair

EITHER_ARTICLE = "(a|an)"
"""How a statement leaves open which article stands before the gap."""


@dataclass(frozen=True)
class Cloze:
    """An affirmative statement and its negation, each with `[MASK]` for its last word.

    Attributes:
        affirmative: The affirmative, with `(a|an)` where the article before the gap goes.
        negated: The same with a negation.
        target: The word that makes the affirmative true.
        foil: The word that makes the negation true.
        articles: What stands in the place of `(a|an)` before the target and before the foil; empty where none does.
        category: What the statements are about.
        places: Which of the data set's statements the affirmative and the negation are, from 0, in the order in which
            they were published.
        problem: Why affirmative and negation are no pair to compare, if they are published as one: another subject, a
            typing error, the same last word. Empty if they are.
    """

    affirmative: str
    negated: str
    target: str
    foil: str
    articles: tuple[str, str]
    category: str
    places: tuple[int, int]
    problem: str = ""

    @property
    def one_article(self) -> bool:
        """Whether target and foil can stand in one and the same statement."""
        return EITHER_ARTICLE not in self.affirmative + self.negated or self.articles[0] == self.articles[1]

    def for_target(self, context: str) -> str:
        """One of the two statements with the target's article."""
        return context.replace(EITHER_ARTICLE, self.articles[0])

    def for_foil(self, context: str) -> str:
        """One of the two statements with the foil's article."""
        return context.replace(EITHER_ARTICLE, self.articles[1])


def cloze_pair(cloze: Cloze, source: str) -> StatementPair:
    """The affirmative and the negation with both words as their answers.

    Raises:
        StatementError: if the two are no pair to compare, or if their words want different articles, for then either
            article gives the answer away.
    """
    if cloze.problem:
        raise StatementError(cloze.problem)
    if not cloze.one_article:
        raise StatementError(
            f"the target {quoted(cloze.target)} wants {quoted(cloze.articles[0])} and the foil {quoted(cloze.foil)} "
            f"{quoted(cloze.articles[1])}, so either article would give the answer away."
        )
    return StatementPair(
        cloze.for_target(cloze.affirmative),
        cloze.for_target(cloze.negated),
        cloze.target,
        cloze.foil,
        category=cloze.category,
        source=source,
    )
