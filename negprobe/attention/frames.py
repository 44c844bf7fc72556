"""The aligned tokens of a batch of comparisons and their roles, as padded tensors."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from negprobe.statements import ROLES, TokenizedStatement
from negprobe.statements.prepared import PreparedPair


@dataclass(frozen=True)
class Frame:
    """A padded batch of comparisons; all pairs of a batch have the same number of sides.

    Axis `side` starts with the original, axis `compared` with the counterfactual. Axis `group` holds `ROLES`, then one
    group of all words: tokens that are neither part of the cue nor special.

    Attributes:
        select: A one-hot matrix: multiplying by it selects the aligned tokens of a side; 0 for padding.
        valid: False for padding of the aligned axis.
        mean_aligned: Weights that average over the aligned tokens of a group; NaN for an empty group.
        mean_own: Weights that average over all tokens of a group in a compared side; NaN for an empty group.
        sum_own: Weights that sum over all tokens of a group in a compared side; NaN for an empty group.
        cue: Weights that sum over the cue of a compared side; all NaN without a cue.
        words: Which aligned tokens are words.
        distance: Distance of each aligned token from the nearest cue token, in tokens; NaN without a cue.
        original_words: Which tokens of the original are not special.
        distinct: Whether a compared side has other tokens than the original.
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


def frame(pairs: Sequence[PreparedPair], device: torch.device, dtype: torch.dtype) -> Frame:
    """The `Frame` of a batch of pairs that all have the same number of sides."""
    # Many small writes are faster in NumPy than in torch.
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
        own[row, np.arange(n_tokens), [ROLES.index(name) for name in pair.roles[1]]] = 1
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
    """The mean attention distance of uniform attention, in tokens: the mean of `|q - k|` over all pairs of words."""
    words = np.flatnonzero(~np.array(statement.special))
    return float(np.abs(words[:, None] - words).mean())
