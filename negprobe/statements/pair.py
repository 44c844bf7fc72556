"""A statement, its negated counterfactual, and what makes the two measurable."""

from dataclasses import dataclass

from negprobe.errors import StatementError

Span = tuple[int, int]
"""Half-open character range in a statement."""


@dataclass(frozen=True)
class StatementPair:
    """An original statement and its counterfactual, which differ by a negation.

    Attributes:
        original: The statement as it is.
        counterfactual: The statement with its negation changed, usually with a cue put in.
        target: The word (or class label) that is right for the original.
        foil: The word (or class label) that is right for the counterfactual. The logit difference of a
            pair is always `target - foil`: positive where the original is understood, negative where the
            counterfactual is.
        control: The counterfactual with its cue replaced by neutral words of the same number of tokens
            ("not" -> "now"): it shares every position with the counterfactual and the meaning of the original.
        cue: The kind of negation that was changed: "not", "n't", "no longer", ...
        cue_span: Where that cue stands, in characters of the counterfactual.
        affected_span: Where the word the cue acts on stands, in characters of the counterfactual.
        category: What the pair is about, for grouping.

    Raises:
        StatementError: for an empty statement, or a span that is not inside the counterfactual.
    """

    original: str
    counterfactual: str
    target: str | None = None
    foil: str | None = None
    control: str | None = None
    cue: str | None = None
    cue_span: Span | None = None
    affected_span: Span | None = None
    category: str = ""

    def __post_init__(self) -> None:
        for name in ("original", "counterfactual", "control"):
            text = getattr(self, name)
            if text is not None and not text.strip():
                raise StatementError(f"The {name} of a pair is empty; give it at least one word.")
        for name in ("cue_span", "affected_span"):
            span = getattr(self, name)
            if span is not None and not 0 <= span[0] < span[1] <= len(self.counterfactual):
                raise StatementError(
                    f"{name} {span} is not a range inside the counterfactual, which has "
                    f"{len(self.counterfactual)} characters: {self.counterfactual!r}."
                )
