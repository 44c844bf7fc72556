"""`StatementPair`: a statement, its negated counterfactual, and what is needed to compare the two."""

from dataclasses import dataclass, fields

from negprobe.base.arguments import checked
from negprobe.base.errors import StatementError
from negprobe.base.reprs import short_repr
from negprobe.base.texts import is_utf8, quoted

Span = tuple[int, int]
"""A range of characters in a statement, the end not included."""

Extra = str | int | float | bool
"""A value of an extra column."""


@checked
@dataclass(frozen=True, repr=False)
class StatementPair:
    """An original statement and its counterfactual, which differ by a negation.

    A statement of two texts, such as a premise and a hypothesis or a query and a document (see `document_pair`), is
    written with ` [SEP] ` between them.

    Attributes:
        original: The original statement, usually affirmative.
        counterfactual: The statement with its negation changed, usually by inserting a cue.
        target: The correct word (or class label, or document) for the original.
        foil: The correct word (or class label, or document) for the counterfactual. The logit difference of a pair is
            always `target - foil`: positive if the model answers correctly for the original, negative if it answers
            correctly for the counterfactual.
        control: The counterfactual with its cue replaced by neutral words of the same number of tokens ("not" ->
            "now"). It has the positions of the counterfactual and the meaning of the original.
        cue: The kind of negation that was changed: "not", "n't", "no longer", ...
        cue_spans: The characters of the inserted cues in the counterfactual: one span, or one each in a premise and a
            hypothesis.
        affected_spans: The characters, in the counterfactual, of the words that these cues act on.
        category: What the pair is about, for grouping results.
        source: The name of the data set that the pair is from, for grouping results; "" if it has none.
        cluster: A label that is shared by pairs that share material (a source sentence, a noun, a template), because
            they are not independent; "" for a pair that shares nothing.
        extra: Names and values of extra columns, such as an `id`, which are kept in tables but not used.
            `dict(pair.extra)` makes a dictionary of them.

    Raises:
        StatementError: for an empty statement, text that is not valid UTF-8, a span that is not inside the
            counterfactual, or an extra name that is a duplicate or the name of a field.

    Example:
        >>> from negprobe import StatementPair
        >>> StatementPair("The door is open.", "The door is not open.", cue_spans=((12, 15),)).cue_spans
        ((12, 15),)
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
    cluster: str = ""
    extra: tuple[tuple[str, Extra], ...] = ()

    __repr__ = short_repr

    def __post_init__(self) -> None:
        for name in ("original", "counterfactual", "control"):
            text = getattr(self, name)
            if text is not None and not text.strip():
                raise StatementError(f"The {name} of a pair is empty; give it at least one word.")
        texts = ("original", "counterfactual", "target", "foil", "control", "cue", "category", "source", "cluster")
        names = [name for name, _ in self.extra]
        for name in names:
            if not is_utf8(name) or names.count(name) > 1 or name in {field.name for field in fields(self)}:
                raise StatementError(
                    f"The extra name {quoted(name)} of a pair is a duplicate, the name of a field, or not valid UTF-8; "
                    "choose another."
                )
        for name, text in (*((name, getattr(self, name)) for name in texts), *self.extra):
            if isinstance(text, str) and not is_utf8(text):
                raise StatementError(f"The {name} of a pair, {quoted(text)}, is not valid UTF-8 text; correct it.")
        for name in ("cue_spans", "affected_spans"):
            for span in getattr(self, name):
                if not 0 <= span[0] < span[1] <= len(self.counterfactual):
                    raise StatementError(
                        f"{name} contains {span}, which is not a range inside the counterfactual of "
                        f"{len(self.counterfactual)} characters, {quoted(self.counterfactual)}; give start and end "
                        f"with 0 <= start < end <= {len(self.counterfactual)}."
                    )
