"""Attention maps as little text for a page: whole numbers of 8 or 16 bits, deflated, in base64.

`assets/maps.js` reads what is written here, in this order, little endian. First the numbers of 32 bits, for original
and counterfactual in turn: the scale of each head's `raw` map, the norm `‖v W_O‖` of each head and token and, where
there is one, the scale of each layer's `zeroing` map. Then the whole numbers, in the same turn: `raw` as shares of its
scale, the lower triangle of `similarity` as shares of 1, `zeroing` as shares of its scale. `norm` is raw attention
times the norm of the key, and is multiplied out by the reader.
"""

import base64
import math
import zlib
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Integer

from negprobe.attention import Comparison, StatementAttention
from negprobe.base.errors import ViewError

PAGE_BYTES = 40_000_000
"""The most bytes that the maps of a page may take, before compression, which about halves them."""

# Pages whose maps would be larger than this at 16 bits a value have 8 bits a value.
_MOST_BYTES = 6_000_000

# Higher levels take up to nine times as long for 1 to 4 % less.
_COMPRESSION = 6

# How far norms may be from attention times the norm of the key, in shares of the largest; half precision needs it.
_ROUNDING = 0.02

MEASURES = ("raw", "norm", "similarity", "zeroing")
"""The maps that a page shows; `zeroing` of comparisons that have it."""


def bits_for(comparisons: Sequence[Comparison], max_bytes: int = PAGE_BYTES) -> int:
    """16 bits a value, or 8 where the page would grow too large."""
    sides = [side for comparison in comparisons for side in (comparison.original, comparison.counterfactual)]
    values = sum(side.raw.numel() + side.similarity.numel() / 2 for side in sides)
    sizes = [map_bytes([len(side.statement.tokens)], *side.raw.shape[:2]) for side in sides]
    return 16 if 2 * values <= _MOST_BYTES and 2 * sum(sizes) <= max_bytes else 8


def map_bytes(lengths: Sequence[int], layers: int, heads: int) -> int:
    """The most bytes that the maps of statements of these lengths take on a page, at 8 bits a value."""
    unpacked = sum(
        layers * (heads * (n * n + n * (n + 1) // 2 + 4 * (1 + n)) + n * n + 4)  # raw, similarity, floats; zeroing
        for n in lengths
    )
    return math.ceil(unpacked * 1.001 / 3) * 4 + 64  # deflate's overhead, and base64


def packed(comparison: Comparison, bits: int) -> str:
    """The maps of a comparison.

    Args:
        comparison: The comparison; both sides have a `zeroing` map, or none.
        bits: Of a value, 8 or 16: a map is quantised to 1/255 of its largest value, or to 1/65,535.

    Raises:
        ViewError: if a map does not fit its tokens, has a value that is not a finite number, or `norm` is not
            attention times the norm of the key.
    """
    sides = (comparison.original, comparison.counterfactual)
    has_zeroing = all(side.zeroing is not None for side in sides)
    floats: list[np.ndarray] = []
    whole: list[np.ndarray] = []
    for side in sides:
        raw, similarity = _checked(side, "raw"), _checked(side, "similarity")
        scale = raw.max(axis=(2, 3))
        floats += [scale, _key_norms(side, raw)]
        rows, columns = np.tril_indices(raw.shape[-1])
        whole += [_whole(raw, scale[..., None, None], bits), _signed(similarity[..., rows, columns], bits)]
        if has_zeroing:
            zeroing = _checked(side, "zeroing")
            floats.append(zeroing.max(axis=(1, 2)))
            whole.append(_whole(zeroing, floats[-1][:, None, None], bits))
    data = b"".join([*(part.astype("<f4").tobytes() for part in floats), *(part.tobytes() for part in whole)])
    return base64.b64encode(zlib.compress(data, _COMPRESSION)).decode()


def _whole(
    values: Float[np.ndarray, "*shape"], scale: Float[np.ndarray, "*scale"], bits: int
) -> Integer[np.ndarray, "*shape"]:
    """Values from 0 to their scale as whole numbers from 0 to the largest there is."""
    shares = values / np.where(scale > 0, scale, 1)
    # Rounding may leave one a hair beyond either end.
    return np.rint(shares.clip(0, 1) * (2**bits - 1)).astype(f"<u{bits // 8}")


def _signed(cosines: Float[np.ndarray, "*shape"], bits: int) -> Integer[np.ndarray, "*shape"]:
    """Cosines as whole numbers around zero."""
    return np.rint(cosines.clip(-1, 1) * (2 ** (bits - 1) - 1)).astype(f"<i{bits // 8}")


def _key_norms(
    side: StatementAttention, raw: Float[np.ndarray, "layer head query key"]
) -> Float[np.ndarray, "layer head key"]:
    """The norm of each key's transformed value: `norm` in units of `raw`, told by the query that reads it most."""
    norm = _checked(side, "norm")
    most = raw.argmax(axis=2, keepdims=True)
    share, weighted = (np.take_along_axis(values, most, axis=2).squeeze(2) for values in (raw, norm))
    norms = np.divide(weighted, share, out=np.zeros_like(weighted), where=share > 0)
    if not np.allclose(raw * norms[:, :, None], norm, rtol=0, atol=_ROUNDING * norm.max(initial=0)):
        raise ViewError(
            f"The norm map of {side.statement.text!r} is not its attention times a norm of each key; give both as "
            "AttentionProbe returns them."
        )
    return norms


def _checked(side: StatementAttention, measure: str) -> np.ndarray:
    """A map, refused here because a page would draw a wrong one without a word."""
    values = getattr(side, measure).detach().cpu().double().numpy()
    n, text = len(side.statement.tokens), side.statement.text
    axes = ("layer",) if measure == "zeroing" else ("layer", "head")
    if values.ndim != len(axes) + 2 or 0 in values.shape or values.shape[-2:] != (n, n):
        raise ViewError(
            f"The {measure} map of {text!r} has shape {values.shape}; its {n} tokens need "
            f"({', '.join(axes)}, {n}, {n})."
        )
    if not np.isfinite(values).all():
        where = np.argwhere(~np.isfinite(values))[0][: len(axes)]
        raise ViewError(
            f"The {measure} map of {text!r} has a value that is not a finite number, first at "
            f"{', '.join(f'{axis} {index}' for axis, index in zip(axes, where, strict=True))}; look at the model's "
            "activations there, or leave this pair out."
        )
    return values
