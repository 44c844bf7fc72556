"""Controls: the counterfactual with neutral words in place of its cue, and every other token unchanged.

A model's response to "not" is a response to negation only so far as it differs from the response to "now".
"""

from collections.abc import Iterator
from dataclasses import replace

from transformers import PreTrainedTokenizerBase

from negprobe.base.arguments import checked
from negprobe.statements.cues import Cue
from negprobe.statements.pair import Span, StatementPair
from negprobe.statements.tokens import TokenizedStatement, tokenize

NEUTRAL = {
    "not": ("now", "really", "also", "now really"),
    "never": ("always", "often", "now", "now really"),
    "no longer": ("now really", "really now", "now", "now really quite"),
    "n't": (" now", " really", " now really", "", " now really quite"),
    "cannot": ("can", "will", "can now", "can really", "can now really"),
    "no": ("some", "the", "this", "some of the"),
    "none": ("some", "all", "many"),
    "nobody": ("somebody", "everybody", "someone"),
    "nothing": ("something", "everything", "this"),
    "nowhere": ("somewhere", "everywhere", "here"),
    "neither": ("both", "either"),
    "nor": ("and", "or"),
    "without": ("with", "within", "having"),
    "hardly": ("really", "clearly", "surely", "now", "now really"),
    "barely": ("really", "clearly", "surely", "now", "now really"),
    "scarcely": ("really", "clearly", "surely", "now really", "now really quite"),
}
"""For each kind of cue, the words that can replace it without negating, best first.

Those for "n't" follow its auxiliary: "isn't" -> "is now really".
"""

_AUXILIARY = {"ca": "can", "wo": "will", "sha": "shall", "ai": "is"}


@checked
def length_matched_control(counterfactual: str, cue: Cue, tokenizer: PreTrainedTokenizerBase) -> str | None:
    """The counterfactual with its cue replaced by neutral words of the same number of tokens; None if none fit.

    Outside the cue (for "n't", outside the whole word that it ends) the tokens of control and counterfactual are equal.

    Example:
        >>> from negprobe import HookedEncoder
        >>> from negprobe.statements import find_cues, length_matched_control
        >>> tokenizer = HookedEncoder.from_pretrained("tiny-negation").tokenizer
        >>> text = "The door isn't open."
        >>> length_matched_control(text, find_cues(text)[0], tokenizer)
        'The door is now really open.'
    """
    return next(length_matched_controls(counterfactual, cue, tokenizer), None)


@checked
def from_control(pair: StatementPair) -> StatementPair:
    """The pair with its control as the original, so that both statements have equal length; unchanged without one.

    Example:
        >>> from negprobe.statements import StatementPair, from_control
        >>> pair = StatementPair("The door is open.", "The door is not open.", control="The door is now open.")
        >>> from_control(pair).original
        'The door is now open.'
    """
    return pair if pair.control is None else replace(pair, original=pair.control)


def is_from_control(pair: StatementPair) -> bool:
    """Whether the pair's control replaces its original, as `from_control` does."""
    return pair.control is not None and pair.original == pair.control


def length_matched_controls(counterfactual: str, cue: Cue, tokenizer: PreTrainedTokenizerBase) -> Iterator[str]:
    """All controls that fit, best first; see `length_matched_control`."""
    statement = tokenize(counterfactual, tokenizer)
    start, end = _replaced_span(counterfactual, cue)
    stem = counterfactual[start : cue.span[0]]
    stem = _AUXILIARY.get(stem.lower(), stem)
    for words in NEUTRAL.get(cue.kind, ()):
        neutral = _cased_like(counterfactual[start:end], (stem + words).strip())
        text = counterfactual[:start] + neutral + counterfactual[end:]
        if neutral and _differs_only_in(statement, (start, end), tokenize(text, tokenizer), tokenizer):
            yield text


def _replaced_span(text: str, cue: Cue) -> Span:
    """The span to replace: the cue and, for "n't", the auxiliary that it is attached to."""
    start, end = cue.span
    while cue.kind == "n't" and start > 0 and text[start - 1].isalpha():
        start -= 1
    return start, end


def _cased_like(model: str, words: str) -> str:
    if model.isupper():
        return words.upper()
    return words[:1].upper() + words[1:] if model[:1].isupper() else words


def _differs_only_in(
    statement: TokenizedStatement, span: Span, control: TokenizedStatement, tokenizer: PreTrainedTokenizerBase
) -> bool:
    """Whether the control has the same tokens outside the span and, inside it, the same number of known ones."""
    positions = statement.positions(span)
    begin, end = positions[0], positions[-1] + 1
    return (
        len(control) == len(statement)
        and control.ids[:begin] == statement.ids[:begin]
        and control.ids[end:] == statement.ids[end:]
        and tokenizer.unk_token_id not in control.ids[begin:end]
    )
