"""Controls: a counterfactual with neutral words where its cue was, and every other token where it stood.

What an encoder does at "not" is only about negation as far as it does not do it at "now" as well.
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
"""Words that can take a cue's place without negating, for each kind of cue, the best first.

Those for "n't" go behind its auxiliary: "isn't" -> "is now really".
"""

_AUXILIARY = {"ca": "can", "wo": "will", "sha": "shall", "ai": "is"}


@checked
def length_matched_control(counterfactual: str, cue: Cue, tokenizer: PreTrainedTokenizerBase) -> str | None:
    """The counterfactual with its cue replaced by neutral words that leave every other token in place.

    The control has as many tokens as the counterfactual, and outside the cue (for "n't" the whole word it
    ends) the same ones. None where no candidate fits, which is for the caller to count.
    """
    return next(length_matched_controls(counterfactual, cue, tokenizer), None)


@checked
def from_control(pair: StatementPair) -> StatementPair:
    """The pair from its control to its counterfactual, where the cue has a partner; the pair itself without one."""
    return pair if pair.control is None else replace(pair, original=pair.control)


def is_from_control(pair: StatementPair) -> bool:
    """Whether the pair's control replaces its original, as `from_control` does."""
    return pair.control is not None and pair.original == pair.control


def length_matched_controls(counterfactual: str, cue: Cue, tokenizer: PreTrainedTokenizerBase) -> Iterator[str]:
    """Every control that fits, the best first; see `length_matched_control`."""
    statement = tokenize(counterfactual, tokenizer)
    start, end = _stretch(counterfactual, cue)
    stem = counterfactual[start : cue.span[0]]
    stem = _AUXILIARY.get(stem.lower(), stem)
    for words in NEUTRAL.get(cue.kind, ()):
        neutral = _cased_like(counterfactual[start:end], (stem + words).strip())
        text = counterfactual[:start] + neutral + counterfactual[end:]
        if neutral and _same_but(statement, (start, end), tokenize(text, tokenizer), tokenizer):
            yield text


def _stretch(text: str, cue: Cue) -> Span:
    """The characters to replace: the cue, with the auxiliary that an "n't" is attached to."""
    start, end = cue.span
    while cue.kind == "n't" and start > 0 and text[start - 1].isalpha():
        start -= 1
    return start, end


def _cased_like(model: str, words: str) -> str:
    if model.isupper():
        return words.upper()
    return words[:1].upper() + words[1:] if model[:1].isupper() else words


def _same_but(
    statement: TokenizedStatement, span: Span, control: TokenizedStatement, tokenizer: PreTrainedTokenizerBase
) -> bool:
    """Whether the control has as many tokens, known ones in place of the span's, and the same ones elsewhere."""
    positions = statement.positions(span)
    begin, end = positions[0], positions[-1] + 1
    return (
        len(control) == len(statement)
        and control.ids[:begin] == statement.ids[:begin]
        and control.ids[end:] == statement.ids[end:]
        and tokenizer.unk_token_id not in control.ids[begin:end]
    )
