"""What part each token plays, so that results over many pairs can be indexed by role and not by position."""

import re
from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase

from negprobe.base.arguments import checked
from negprobe.base.errors import StatementError
from negprobe.statements.alignment import Alignment
from negprobe.statements.pair import Span
from negprobe.statements.tokens import TokenizedStatement

ROLES = ("cue", "affected", "target", "mask", "cls", "sep", "other")


@checked
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


@checked
def original_roles(
    original: TokenizedStatement,
    counterfactual_roles: Sequence[str],
    alignment: Alignment,
    tokenizer: PreTrainedTokenizerBase,
    target: str | None = None,
) -> tuple[str, ...]:
    """The role of each token of the original: that of its partner, as cues stand there, else its own.

    Raises:
        StatementError: if there are fewer roles than the alignment speaks of.
    """
    if max(alignment.counterfactual, default=-1) >= len(counterfactual_roles):
        raise StatementError(
            f"There are {len(counterfactual_roles)} roles for the counterfactual, but the alignment is of more tokens. "
            "Give the roles of all of them."
        )
    partner = dict(zip(alignment.original, alignment.counterfactual, strict=True))
    own = roles(original, tokenizer, target=target)
    return tuple(counterfactual_roles[partner[at]] if at in partner else name for at, name in enumerate(own))


def _word_spans(text: str, word: str | None) -> list[Span]:
    if not word:
        return []
    return [found.span() for found in re.finditer(rf"(?<!\w){re.escape(word)}(?!\w)", text, re.IGNORECASE)]
