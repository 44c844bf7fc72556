"""Compact text encoding of attention maps for a page: integers of 8 or 16 bits, compressed with deflate, in base64.

`assets/maps.js` decodes it. All numbers are little endian. First come the 32-bit floats, for the original and then for
the counterfactual: the scale of each head's `raw` map, the norm `‖v W_O‖` of each head and token and, if value zeroing
was computed, the scale of each layer's `zeroing` map. Then come the integers, in the same order of statements: `raw` as
a fraction of its scale, the lower triangle of `similarity` as a fraction of 1, and `zeroing` as a fraction of its
scale. `norm` is not stored: the page computes it as raw attention times the norm of the key.
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
"""Default limit on the size of a page's maps in bytes, before compression, which about halves it."""

# Pages whose maps would exceed this size at 16 bits per value use 8 bits per value.
_MAX_BYTES_AT_16_BITS = 6_000_000

# Higher levels take up to nine times as long and save only 1 to 4 %.
_COMPRESSION = 6

# Tolerance of the check that `norm` is attention times the norm of the key, relative to the largest value of `norm`.
# Half precision needs it.
_ROUNDING = 0.02

MEASURES = ("raw", "norm", "similarity", "zeroing")
"""The maps that a page shows; `zeroing` only for comparisons that have it."""


def bits_for(comparisons: Sequence[Comparison], max_bytes: int = PAGE_BYTES) -> int:
    """The bits per value: 16, or 8 if the page would otherwise be too large."""
    sides = [side for comparison in comparisons for side in (comparison.original, comparison.counterfactual)]
    values = sum(side.raw.numel() + side.similarity.numel() / 2 for side in sides)
    sizes = [map_bytes([len(side.statement.tokens)], *side.raw.shape[:2]) for side in sides]
    return 16 if 2 * values <= _MAX_BYTES_AT_16_BITS and 2 * sum(sizes) <= max_bytes else 8


def map_bytes(lengths: Sequence[int], layers: int, heads: int) -> int:
    """An upper bound on the bytes that the maps of statements of these lengths take on a page, at 8 bits per value."""
    unpacked = sum(
        layers * (heads * (n * n + n * (n + 1) // 2 + 4 * (1 + n)) + n * n + 4)  # raw, similarity, floats; zeroing
        for n in lengths
    )
    return math.ceil(unpacked * 1.001 / 3) * 4 + 64  # deflate's overhead, and base64


def packed(comparison: Comparison, bits: int) -> str:
    """The encoded maps of a comparison.

    Args:
        comparison: The comparison; `zeroing` is encoded if both sides have it.
        bits: Bits per value, 8 or 16: a map is quantised to 1/255 or 1/65,535 of its largest value.

    Raises:
        ViewError: if a map does not fit its tokens, has a value that is not finite, or `norm` is not
            attention times the norm of the key.
    """
    sides = (comparison.original, comparison.counterfactual)
    has_zeroing = all(side.zeroing is not None for side in sides)
    floats: list[np.ndarray] = []
    integers: list[np.ndarray] = []
    for side in sides:
        raw, similarity = _checked(side, "raw"), _checked(side, "similarity")
        scale = raw.max(axis=(2, 3))
        floats += [scale, _key_norms(side, raw)]
        rows, columns = np.tril_indices(raw.shape[-1])
        integers += [_unsigned(raw, scale[..., None, None], bits), _signed(similarity[..., rows, columns], bits)]
        if has_zeroing:
            zeroing = _checked(side, "zeroing")
            floats.append(zeroing.max(axis=(1, 2)))
            integers.append(_unsigned(zeroing, floats[-1][:, None, None], bits))
    data = b"".join([*(part.astype("<f4").tobytes() for part in floats), *(part.tobytes() for part in integers)])
    return base64.b64encode(zlib.compress(data, _COMPRESSION)).decode()


def _unsigned(
    values: Float[np.ndarray, "*shape"], scale: Float[np.ndarray, "*scale"], bits: int
) -> Integer[np.ndarray, "*shape"]:
    """Values from 0 to `scale` as unsigned integers from 0 to the largest of the type."""
    shares = values / np.where(scale > 0, scale, 1)
    # Rounding may put a value slightly outside the range.
    return np.rint(shares.clip(0, 1) * (2**bits - 1)).astype(f"<u{bits // 8}")


def _signed(cosines: Float[np.ndarray, "*shape"], bits: int) -> Integer[np.ndarray, "*shape"]:
    """Cosines as signed integers."""
    return np.rint(cosines.clip(-1, 1) * (2 ** (bits - 1) - 1)).astype(f"<i{bits // 8}")


def _key_norms(
    side: StatementAttention, raw: Float[np.ndarray, "layer head query key"]
) -> Float[np.ndarray, "layer head key"]:
    """The norm of each key's transformed value: `norm / raw` at the query with the largest attention to the key.

    Raises:
        ViewError: if `norm` is not `raw` times a norm of each key.
    """
    norm = _checked(side, "norm")
    most = raw.argmax(axis=2, keepdims=True)
    share, weighted = (np.take_along_axis(values, most, axis=2).squeeze(2) for values in (raw, norm))
    norms = np.divide(weighted, share, out=np.zeros_like(weighted), where=share > 0)
    if not np.allclose(raw * norms[:, :, None], norm, rtol=0, atol=_ROUNDING * norm.max(initial=0)):
        raise ViewError(
            f"The norm map of {side.statement.text!r} is not its raw attention times a norm for each key; use the maps "
            "that AttentionProbe returns."
        )
    return norms


def _checked(side: StatementAttention, measure: str) -> np.ndarray:
    """A map as an array, after checks; a page would draw a wrong map without any error.

    Raises:
        ViewError: if the shape does not fit the tokens, or a value is not finite.
    """
    values = getattr(side, measure).detach().cpu().double().numpy()
    n, text = len(side.statement.tokens), side.statement.text
    axes = ("layer",) if measure == "zeroing" else ("layer", "head")
    if values.ndim != len(axes) + 2 or 0 in values.shape or values.shape[-2:] != (n, n):
        raise ViewError(
            f"The {measure} map of {text!r} has shape {values.shape}; for its {n} tokens it must be "
            f"({', '.join(axes)}, {n}, {n})."
        )
    if not np.isfinite(values).all():
        where = np.argwhere(~np.isfinite(values))[0][: len(axes)]
        raise ViewError(
            f"The {measure} map of {text!r} has a value that is not a finite number, first at "
            f"{', '.join(f'{axis} {index}' for axis, index in zip(axes, where, strict=True))}; check the model's "
            "activations there, or omit this pair."
        )
    return values
