"""The role of each token, so that results over many pairs can be indexed by role instead of position."""

import re
from collections.abc import Collection, Sequence

from transformers import PreTrainedTokenizerBase

from negprobe.base.arguments import checked
from negprobe.base.errors import StatementError
from negprobe.statements.alignment import Alignment
from negprobe.statements.pair import Span
from negprobe.statements.tokens import TokenizedStatement

ROLES = ("cue", "affected", "changed", "target", "mask", "cls", "sep", "other")
"""All roles. In a pair without a cue, the words that differ between the two statements are "changed"."""


@checked
def roles(
    statement: TokenizedStatement,
    tokenizer: PreTrainedTokenizerBase,
    *,
    cue_spans: Sequence[Span] = (),
    affected_spans: Sequence[Span] = (),
    target: str | None = None,
) -> tuple[str, ...]:
    """The role of each token, one of `ROLES`.

    A token that could have several roles gets the first of cls, sep, mask, cue, affected, target. The tokens of the
    word `target` have the role "target" wherever it occurs in the text, ignoring case; it may not occur at all.

    Raises:
        StatementError: if a span contains no token.

    Example:
        >>> from negprobe import HookedEncoder
        >>> from negprobe.statements import roles, tokenize
        >>> tokenizer = HookedEncoder.from_pretrained("tiny-negation").tokenizer
        >>> roles(tokenize("It is not open.", tokenizer), tokenizer, cue_spans=[(6, 9)], affected_spans=[(10, 14)])
        ('cls', 'other', 'other', 'cue', 'affected', 'other', 'sep')
    """
    role = ["other"] * len(statement)
    for span in _word_spans(statement.text, target):
        # A tokenizer may make no token of a word.
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
    """The role of each token of the original: that of its aligned counterfactual token, if it has one.

    The spans of cue and affected word are spans of the counterfactual. A token without an aligned one gets its role
    from `roles`, without these spans.

    Raises:
        StatementError: if the alignment has a position of the counterfactual for which no role is given.
    """
    last = max(alignment.counterfactual, default=-1)
    if last >= len(counterfactual_roles):
        raise StatementError(
            f"counterfactual_roles has {len(counterfactual_roles)} roles, but the alignment has position {last} of the "
            "counterfactual; give the role of each of its tokens."
        )
    aligned = dict(zip(alignment.original, alignment.counterfactual, strict=True))
    own_roles = roles(original, tokenizer, target=target)
    return tuple(
        counterfactual_roles[aligned[position]] if position in aligned else role
        for position, role in enumerate(own_roles)
    )


def changed_positions(
    original: TokenizedStatement, counterfactual: TokenizedStatement, alignment: Alignment
) -> tuple[set[int], set[int]]:
    """Positions of the words in each statement that were replaced, inflected, inserted or removed; not special ones."""
    links = zip(alignment.original, alignment.counterfactual, alignment.kinds, strict=True)
    replaced = [(i, j) for i, j, kind in links if kind in ("inflected", "replaced")]
    return (
        {i for i in (*(i for i, _ in replaced), *alignment.unmatched_original) if not original.special[i]},
        {j for j in (*(j for _, j in replaced), *alignment.unmatched_counterfactual) if not counterfactual.special[j]},
    )


def with_changed(names: Sequence[str], changed: Collection[int]) -> tuple[str, ...]:
    """The roles, with "changed" for the given positions in place of "target" and "other"."""
    return tuple(
        "changed" if position in changed and name in ("target", "other") else name
        for position, name in enumerate(names)
    )


def _word_spans(text: str, word: str | None) -> list[Span]:
    if not word:
        return []
    return [found.span() for found in re.finditer(rf"(?<!\w){re.escape(word)}(?!\w)", text, re.IGNORECASE)]
