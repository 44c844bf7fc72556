"""Which tokens of a batch of comparisons belong together, and what part each of them plays."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from negprobe.statements import ROLES, Alignment, Span, StatementPair, TokenizedStatement, align, roles


@dataclass(frozen=True)
class Tokenized:
    """A pair whose statements are tokenized, and whose tokens are aligned and have their roles.

    Attributes:
        pair: The pair, with its cues found.
        sides: The original, the counterfactual and, if the pair has one that fits (see `control_problem`), the control.
        alignments: The original's alignment with each other side, on the original's tokens that all of them match.
        roles: The role of each token of the counterfactual, and of the control, which shares its positions.
        cue: Positions of the cue in the counterfactual; those of the neutral words in the control.
        missing: Why some metrics of the pair are undefined; empty if none is.
    """

    pair: StatementPair
    sides: tuple[TokenizedStatement, ...]
    alignments: tuple[Alignment, ...]
    roles: tuple[str, ...]
    cue: tuple[int, ...]
    missing: str

    def __len__(self) -> int:
        """The number of tokens of the longest side."""
        return max(map(len, self.sides))


def tokenized_pair(
    pair: StatementPair, sides: Sequence[TokenizedStatement], tokenizer: PreTrainedTokenizerBase
) -> Tokenized:
    """Align the sides of a pair (original, counterfactual and, if it has one, control) and tell their roles.

    Raises:
        StatementError: if a span of the pair holds no token.
    """
    counterfactual = sides[1]
    missing = []
    if sides[0].ids == counterfactual.ids:
        missing.append("the two statements are the same")
    if not pair.cue_spans:
        missing.append("no cue that the counterfactual has and the original lacks")
    if len(sides) < 3:
        missing.append("no control")
    elif problem := control_problem(pair, counterfactual, sides[2]):
        missing.append(problem)
        sides = sides[:2]
    alignments = on_common_tokens([align(sides[0], side) for side in sides[1:]])
    if not any(not counterfactual.special[j] for j in alignments[0].counterfactual):
        missing.append("no word of the original has a partner")
    return Tokenized(
        pair=pair,
        sides=tuple(sides),
        alignments=tuple(alignments),
        roles=roles(
            counterfactual,
            tokenizer,
            cue_spans=pair.cue_spans,
            affected_spans=pair.affected_spans,
            target=pair.target,
        ),
        cue=tuple(sorted({at for span in pair.cue_spans for at in counterfactual.positions(span)})),
        missing="; ".join(missing),
    )


def control_problem(pair: StatementPair, counterfactual: TokenizedStatement, control: TokenizedStatement) -> str:
    """Why a control cannot stand for the counterfactual without its negation; empty if it can.

    It has to share every token with the counterfactual but those of the words that the cues stand in.
    """
    if len(control) != len(counterfactual):
        return f"the control has {len(control)} tokens and the counterfactual {len(counterfactual)}"
    differing = {at for at, (a, b) in enumerate(zip(counterfactual.ids, control.ids, strict=True)) if a != b}
    if not differing:
        return "the control is the counterfactual"
    words = (_whole_words(counterfactual.text, span) for span in pair.cue_spans)
    if pair.cue_spans and not differing <= {at for span in words for at in counterfactual.positions(span)}:
        return "the control differs from the counterfactual in more than the cue"
    return ""


def _whole_words(text: str, span: Span) -> Span:
    """The span up to the spaces around it: the control of "isn't" is "is now really"."""
    start, end = span
    while start > 0 and not text[start - 1].isspace():
        start -= 1
    while end < len(text) and not text[end].isspace():
        end += 1
    return start, end


def on_common_tokens(alignments: Sequence[Alignment]) -> list[Alignment]:
    """Alignments of the same original, cut down to the original's tokens that every one of them matches."""
    common = set.intersection(*(set(alignment.original) for alignment in alignments))
    cut = []
    for alignment in alignments:
        if len(alignment.original) == len(common):
            cut.append(alignment)
            continue
        links = list(zip(alignment.original, alignment.counterfactual, strict=True))
        kept = [(i, j) for i, j in links if i in common]
        left = [(i, j) for i, j in links if i not in common]
        cut.append(
            Alignment(
                original=tuple(i for i, _ in kept),
                counterfactual=tuple(j for _, j in kept),
                unmatched_original=tuple(sorted([*alignment.unmatched_original, *(i for i, _ in left)])),
                unmatched_counterfactual=tuple(sorted([*alignment.unmatched_counterfactual, *(j for _, j in left)])),
            )
        )
    return cut


@dataclass(frozen=True)
class Frame:
    """A padded batch of comparisons; every pair of the batch has as many sides.

    `side` counts the original from 0, `compared` the other sides from 0; `group` is each of `ROLES` and then the words:
    what is neither cue nor put there by the tokenizer.

    Attributes:
        select: 1 where an aligned token is a token of a side: a product with it picks the aligned ones, and 0 beyond
            the pair's own.
        valid: Which aligned tokens are the pair's own.
        mean_aligned: Weights that average over the aligned tokens of a group; NaN for a group without any.
        mean_own: The same over all tokens of a compared side.
        sum_own: Weights that sum over all tokens of a compared side; NaN for a group without any.
        cue: Weights that sum over the cue of a compared side; NaN throughout without a cue.
        words: Which aligned tokens are words.
        distance: How far each aligned token is from the nearest cue token, in tokens; NaN without a cue.
        original_words: Which tokens of the original are words.
        distinct: Whether a side is another statement than the original.
    """

    select: Float[Tensor, "side batch aligned pos"]
    valid: Bool[Tensor, "batch aligned"]
    mean_aligned: Float[Tensor, "batch aligned group"]
    mean_own: Float[Tensor, "batch pos group"]
    sum_own: Float[Tensor, "batch pos group"]
    cue: Float[Tensor, "batch pos"]
    words: Bool[Tensor, "batch aligned"]
    distance: Float[Tensor, "compared batch aligned"]
    original_words: Bool[Tensor, "batch pos"]
    distinct: Bool[Tensor, "compared batch"]


def frame(pairs: Sequence[Tokenized], device: torch.device, dtype: torch.dtype) -> Frame:
    """Put the aligned positions and groups of a batch of pairs, all of as many sides, into padded tensors."""
    # NumPy, because what is written here is small and many.
    n_sides, n, n_groups = len(pairs[0].sides), max(map(len, pairs)), len(ROLES) + 1
    n_aligned = max(len(pair.alignments[0].original) for pair in pairs)
    at = np.zeros((n_sides, len(pairs), n_aligned), dtype=np.int64)
    select = np.zeros((n_sides, len(pairs), n_aligned, n))
    valid = np.zeros((len(pairs), n_aligned), dtype=bool)
    own = np.zeros((len(pairs), n, n_groups))
    aligned = np.zeros((len(pairs), n_aligned, n_groups))
    cue = np.zeros((len(pairs), n))
    distance = np.zeros((n_sides - 1, len(pairs), n_aligned))
    original_words = np.zeros((len(pairs), n), dtype=bool)
    for row, pair in enumerate(pairs):
        k, n_tokens = len(pair.alignments[0].original), len(pair.sides[1])
        at[:, row, :k] = [pair.alignments[0].original, *(alignment.counterfactual for alignment in pair.alignments)]
        select[np.arange(n_sides)[:, None], row, np.arange(k), at[:, row, :k]] = 1
        valid[row, :k] = True
        is_word = ~np.array(pair.sides[1].special)
        is_word[list(pair.cue)] = False
        own[row, np.arange(n_tokens), [ROLES.index(name) for name in pair.roles]] = 1
        own[row, :n_tokens, -1] = is_word
        aligned[row, :k] = own[row, at[1, row, :k]]
        original_words[row, : len(pair.sides[0])] = ~np.array(pair.sides[0].special)
        cue[row, list(pair.cue)] = 1
        if pair.cue:
            distance[:, row, :k] = np.abs(at[1:, row, :k, None] - np.array(pair.cue)).min(axis=-1)
        else:
            cue[row] = distance[:, row] = np.nan
    with np.errstate(invalid="ignore"):
        arrays = {
            "select": select,
            "valid": valid,
            "mean_aligned": aligned / aligned.sum(axis=1, keepdims=True),
            "mean_own": own / own.sum(axis=1, keepdims=True),
            "sum_own": own + np.where(own.any(axis=1, keepdims=True), 0, np.nan),
            "cue": cue,
            "words": aligned[..., -1] > 0,
            "distance": distance,
            "original_words": original_words,
            "distinct": np.array(
                [[pair.sides[side].ids != pair.sides[0].ids for pair in pairs] for side in range(1, n_sides)]
            ),
        }
    tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
    return Frame(
        **{name: tensor.to(device, dtype if tensor.is_floating_point() else None) for name, tensor in tensors.items()}
    )


def uniform_distance(statement: TokenizedStatement) -> float:
    """The mean of `|q - k|` over all pairs of a statement's words: how far uniform attention looks, in tokens."""
    words = np.flatnonzero(~np.array(statement.special))
    return float(np.abs(words[:, None] - words).mean())
