"""Controls: the counterfactual with neutral words in place of its cue, and every other token unchanged.

A model's response to "not" is a response to negation only so far as it differs from the response to "now".
"""

from collections.abc import Iterator
from dataclasses import replace

from transformers import PreTrainedTokenizerBase

from negprobe.base.arguments import checked
from negprobe.statements.cues import Cue
from negprobe.statements.neutral_words import neutral_phrases, replaced_span
from negprobe.statements.pair import Span, StatementPair
from negprobe.statements.tokens import TokenizedStatement, tokenize


@checked
def length_matched_control(counterfactual: str, cue: Cue, tokenizer: PreTrainedTokenizerBase) -> str | None:
    """The counterfactual with its cue replaced by neutral words of the same number of tokens; None if none fit.

    The words are those that keep the sentence grammatical and affirm what the cue denies (see `neutral_words`); "Isn't
    it open?" and "It is not open yet" have none. Outside the cue (for "n't", outside the whole word that it ends; for
    "no", outside the whole of "no one") the tokens of control and counterfactual are equal.

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
    phrases = neutral_phrases(counterfactual, cue)
    if not phrases:
        return
    statement = tokenize(counterfactual, tokenizer)
    start, end = replaced_span(counterfactual, cue)
    for phrase in phrases:
        neutral = _cased_like(counterfactual[start:end], phrase)
        text = counterfactual[:start] + neutral + counterfactual[end:]
        if _differs_only_in(statement, (start, end), tokenize(text, tokenizer), tokenizer):
            yield text


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
