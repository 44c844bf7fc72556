"""What part each token plays, so that results over many pairs can be indexed by role and not by position."""

import re
from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase

from negprobe.statements.pair import Span
from negprobe.statements.tokens import TokenizedStatement

ROLES = ("cue", "affected", "target", "mask", "cls", "sep", "other")


def roles(
    statement: TokenizedStatement,
    tokenizer: PreTrainedTokenizerBase,
    *,
    cue_spans: Sequence[Span] = (),
    affected_spans: Sequence[Span] = (),
    target: str | None = None,
) -> tuple[str, ...]:
    """One of `ROLES` for each token.

    Where several fit, the first of cls, sep, mask, cue, affected, target is taken. The target's tokens are
    those of the word `target` wherever it stands in the text, in any case; there may be none.

    Raises:
        StatementError: if no token stands in one of the spans.
    """
    role = ["other"] * len(statement)
    for span in _word_spans(statement.text, target):
        # A tokenizer may leave nothing of a word.
        for position in statement.positions(span, missing_ok=True):
            role[position] = "target"
    for name, spans in (("affected", affected_spans), ("cue", cue_spans)):
        for span in spans:
            for position in statement.positions(span):
                role[position] = name
    named = {tokenizer.mask_token_id: "mask", tokenizer.sep_token_id: "sep", tokenizer.cls_token_id: "cls"}
    return tuple(named.get(token, role[position]) for position, token in enumerate(statement.ids))


def _word_spans(text: str, word: str | None) -> list[Span]:
    if not word:
        return []
    return [found.span() for found in re.finditer(rf"(?<!\w){re.escape(word)}(?!\w)", text, re.IGNORECASE)]
