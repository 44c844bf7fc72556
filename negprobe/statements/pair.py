"""A statement, its negated counterfactual, and what makes the two measurable."""

from dataclasses import dataclass, fields

from negprobe.base.arguments import checked
from negprobe.base.errors import StatementError
from negprobe.base.reprs import short_repr
from negprobe.base.texts import is_utf8, quoted

Span = tuple[int, int]
"""Half-open character range in a statement."""

Extra = str | int | float | bool
"""A value of an extra column."""


@checked
@dataclass(frozen=True, repr=False)
class StatementPair:
    """An original statement and its counterfactual, which differ by a negation.

    A statement of two texts, such as a premise and a hypothesis, is written with ` [SEP] ` between them.

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
        cue_spans: Where the cues that were put in stand, in characters of the counterfactual: one, or one each in a
            premise and a hypothesis.
        affected_spans: Where the words these cues act on stand, in characters of the counterfactual.
        category: What the pair is about, for grouping.
        source: The data set it is from, so that results can be compared over data sets; "" if it has no name.
        extra: Names and values of extra columns, such as an `id`: kept in tables but not used. `dict(pair.extra)` makes
            them a dictionary.

    Raises:
        StatementError: for an empty statement, a text that UTF-8 cannot write, a span that is not inside the
            counterfactual, or an extra name that is a duplicate or the name of a field.
    """

    original: str
    counterfactual: str
    target: str | None = None
    foil: str | None = None
    control: str | None = None
    cue: str | None = None
    cue_spans: tuple[Span, ...] = ()
    affected_spans: tuple[Span, ...] = ()
    category: str = ""
    source: str = ""
    extra: tuple[tuple[str, Extra], ...] = ()

    __repr__ = short_repr

    def __post_init__(self) -> None:
        for name in ("original", "counterfactual", "control"):
            text = getattr(self, name)
            if text is not None and not text.strip():
                raise StatementError(f"The {name} of a pair is empty; give it at least one word.")
        texts = ("original", "counterfactual", "target", "foil", "control", "cue", "category", "source")
        names = [name for name, _ in self.extra]
        for name in names:
            if not is_utf8(name) or names.count(name) > 1 or name in {field.name for field in fields(self)}:
                raise StatementError(
                    f"The extra name {quoted(name)} of a pair is a duplicate, the name of a field, or not UTF-8; "
                    "choose another."
                )
        for name, text in (*((name, getattr(self, name)) for name in texts), *self.extra):
            if isinstance(text, str) and not is_utf8(text):
                raise StatementError(
                    f"The {name} of a pair, {quoted(text)}, is not text that UTF-8 can write; correct it."
                )
        for name in ("cue_spans", "affected_spans"):
            for span in getattr(self, name):
                if not 0 <= span[0] < span[1] <= len(self.counterfactual):
                    raise StatementError(
                        f"{span} of {name} is not a range inside the counterfactual, which has "
                        f"{len(self.counterfactual)} characters: {quoted(self.counterfactual)}."
                    )
