"""Cloze items (statements that end in a gap), as psycholinguists use them, and the pairs made from them."""

from dataclasses import dataclass

from negprobe.base.errors import StatementError
from negprobe.base.texts import quoted
from negprobe.statements.pair import StatementPair

EITHER_ARTICLE = "(a|an)"
"""The text in a statement for an article before the gap that depends on the word in the gap."""


@dataclass(frozen=True)
class Cloze:
    """An affirmative statement and its negation, each with `[MASK]` for its last word.

    Attributes:
        affirmative: The affirmative statement, with `(a|an)` for an article before the gap.
        negated: The same statement with a negation.
        target: The word that makes the affirmative true.
        foil: The word that makes the negation true.
        articles: The articles that replace `(a|an)` before the target and before the foil; "" for none.
        category: The group of the item, for scoring by category.
        statement_indices: The indices of the affirmative and the negation among all statements of the data set, in
            published order.
        problem: Why the two statements, although published as a pair, cannot be compared (different subjects, a typing
            error, the same last word); empty if they can.
        cluster: A label that is shared by items that share material (see `StatementPair`).
    """

    affirmative: str
    negated: str
    target: str
    foil: str
    articles: tuple[str, str]
    category: str
    statement_indices: tuple[int, int]
    problem: str = ""
    cluster: str = ""

    @property
    def one_article(self) -> bool:
        """Whether target and foil fit the same statement: it has no open article, or both take the same one."""
        return EITHER_ARTICLE not in self.affirmative + self.negated or self.articles[0] == self.articles[1]

    def for_target(self, context: str) -> str:
        """The statement `context`, one of the item's two, with the target's article."""
        return context.replace(EITHER_ARTICLE, self.articles[0])

    def for_foil(self, context: str) -> str:
        """The statement `context`, one of the item's two, with the foil's article."""
        return context.replace(EITHER_ARTICLE, self.articles[1])


def cloze_pair(cloze: Cloze, source: str) -> StatementPair:
    """The pair of the affirmative and the negation, with target and foil.

    Raises:
        StatementError: if the two cannot be compared, or if target and foil need different articles, because either
            article would give the answer away.
    """
    if cloze.problem:
        raise StatementError(cloze.problem)
    if not cloze.one_article:
        raise StatementError(
            f"the target {quoted(cloze.target)} needs the article {quoted(cloze.articles[0])} and the foil "
            f"{quoted(cloze.foil)} needs {quoted(cloze.articles[1])}, so either article would give the answer away."
        )
    return StatementPair(
        cloze.for_target(cloze.affirmative),
        cloze.for_target(cloze.negated),
        cloze.target,
        cloze.foil,
        category=cloze.category,
        source=source,
        cluster=cloze.cluster,
    )
