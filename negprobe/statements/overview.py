"""What is found in pairs before anything is measured: cues, affected words, unmatched words and controls."""

from collections.abc import Sequence
from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from negprobe.base.arguments import checked
from negprobe.base.errors import StatementError
from negprobe.statements.alignment import Alignment, LinkKind, align
from negprobe.statements.pair import StatementPair
from negprobe.statements.prepared import prepare
from negprobe.statements.tokens import TokenizedStatement, tokenize_all


@dataclass(frozen=True)
class PairOverview:
    """A pair as it would be measured.

    Attributes:
        pair: The pair with its cues, affected words and control; unchanged if it cannot be measured.
        unmatched_original: The words of the original that correspond to no word of the counterfactual.
        unmatched_counterfactual: The words of the counterfactual that correspond to no word of the original.
        linked: Words that correspond although they differ: of the original, of the counterfactual, and the kind of link
            (see `alignment.LinkKind`).
        affected_is_aligned: Whether the affected word has a partner in the original; None without an affected word.
        unmeasurable: Why the pair cannot be measured; empty if it can.
        invalid_control: Why the pair's own control is not valid; empty if it is, or if it has none.
    """

    pair: StatementPair
    unmatched_original: tuple[str, ...] = ()
    unmatched_counterfactual: tuple[str, ...] = ()
    linked: tuple[tuple[str, str, LinkKind], ...] = ()
    affected_is_aligned: bool | None = None
    unmeasurable: str = ""
    invalid_control: str = ""


@checked
def overview(pairs: Sequence[StatementPair], tokenizer: PreTrainedTokenizerBase, *, n_ctx: int) -> list[PairOverview]:
    """The pairs as they would be measured, in the order given.

    Args:
        pairs: The pairs.
        tokenizer: The model's tokenizer.
        n_ctx: The largest number of tokens that the model reads.

    Example:
        >>> from negprobe import HookedEncoder, StatementPair
        >>> from negprobe.statements import overview
        >>> model = HookedEncoder.from_pretrained("tiny-negation")
        >>> pair = StatementPair("The door is open.", "The door isn't open.")
        >>> (found,) = overview([pair], model.tokenizer, n_ctx=model.cfg.n_ctx)
        >>> found.pair.control, found.unmatched_original, found.unmatched_counterfactual
        ('The door is now really open.', ('is',), ("isn't",))
    """
    return [_overview(pair, tokenizer, n_ctx) for pair in pairs]


def _overview(pair: StatementPair, tokenizer: PreTrainedTokenizerBase, n_ctx: int) -> PairOverview:
    try:
        prepared, invalid_control = prepare(pair, tokenizer, n_ctx=n_ctx)
        original, counterfactual = tokenize_all([pair.original, pair.counterfactual], tokenizer)
        # Not the alignment that is measured, which leaves out the words that the control does not have.
        alignment = align(original, counterfactual)
    except StatementError as error:
        return PairOverview(pair, unmeasurable=str(error))
    found = prepared.pair
    if invalid_control and found.control == pair.control:
        found = StatementPair(**{**vars(found), "control": None})
    return PairOverview(
        pair=found,
        affected_is_aligned=prepared.affected_is_aligned,
        linked=_linked_words(original, counterfactual, alignment),
        unmatched_original=_words_at(original, alignment.unmatched_original),
        unmatched_counterfactual=_words_at(counterfactual, alignment.unmatched_counterfactual),
        invalid_control=invalid_control,
    )


def _linked_words(
    original: TokenizedStatement, counterfactual: TokenizedStatement, alignment: Alignment
) -> tuple[tuple[str, str, LinkKind], ...]:
    """The words of the links of each other kind than "same"; links that follow each other are one."""
    links: list[tuple[list[int], list[int], LinkKind]] = []
    for i, j, kind in zip(alignment.original, alignment.counterfactual, alignment.kinds, strict=True):
        if kind == "same" or original.special[i]:
            continue
        if links and links[-1][2] == kind and (links[-1][0][-1], links[-1][1][-1]) == (i - 1, j - 1):
            links[-1][0].append(i)
            links[-1][1].append(j)
        else:
            links.append(([i], [j], kind))
    return tuple(
        (_words_at(original, of_original)[0], _words_at(counterfactual, of_counterfactual)[0], kind)
        for of_original, of_counterfactual, kind in links
    )


def _words_at(statement: TokenizedStatement, positions: Sequence[int]) -> tuple[str, ...]:
    """The texts of tokens; tokens that follow each other are one text."""
    spans: list[tuple[int, int]] = []
    last = None
    for at in positions:
        if statement.special[at]:
            continue
        start, end = statement.offsets[at]
        if last is not None and at == last + 1:
            start = spans.pop()[0]
        spans.append((start, end))
        last = at
    return tuple(statement.text[start:end] for start, end in spans)
