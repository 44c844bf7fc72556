"""Packed maps are the maps, to the digits that the page promises, and what is none is refused."""

import base64
import zlib
from dataclasses import replace

import numpy as np
import pytest
import torch

from negprobe.attention import Comparison
from negprobe.attention.affordable import fitting
from negprobe.base.errors import ViewError
from negprobe.views.page import packing
from negprobe.views.page.packing import bits_for, map_bytes, packed
from tests.support.sample_comparisons import HEADS, LAYERS, ORIGINAL, comparison_of, tokenized, with_zeroing


def unpacked(text: str, sizes: list[int], bits: int, zeroing: bool) -> list[dict[str, np.ndarray]]:
    """The maps of both sides, read number by number as the page's script does."""
    data = zlib.decompress(base64.b64decode(text))
    at = 0

    def take(kind: str, *shape: int) -> np.ndarray:
        nonlocal at
        found = np.frombuffer(data, np.dtype(kind).newbyteorder("<"), int(np.prod(shape)), at)
        at += found.nbytes
        return found.reshape(shape).astype(float)

    whole, signed = f"u{bits // 8}", f"i{bits // 8}"
    numbers = [
        (
            take("f4", LAYERS, HEADS),
            take("f4", LAYERS, HEADS, n),
            take("f4", LAYERS) if zeroing else None,
        )
        for n in sizes
    ]
    sides = []
    for n, (scale, norms, zeroing_scale) in zip(sizes, numbers, strict=True):
        raw = take(whole, LAYERS, HEADS, n, n) / (2**bits - 1) * scale[:, :, None, None]
        triangle = take(signed, LAYERS, HEADS, n * (n + 1) // 2) / (2 ** (bits - 1) - 1)
        cosine = np.zeros((LAYERS, HEADS, n, n))
        cells = [(q, k) for q in range(n) for k in range(q + 1)]
        for cell, (q, k) in enumerate(cells):
            cosine[:, :, q, k] = cosine[:, :, k, q] = triangle[:, :, cell]
        side = {"raw": raw, "norm": raw * norms[:, :, None], "similarity": cosine}
        if zeroing_scale is not None:
            side["zeroing"] = take(whole, LAYERS, n, n) / (2**bits - 1) * zeroing_scale[:, None, None]
        sides.append(side)
    assert at == len(data)
    return sides


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("zeroing", [False, True])
def test_every_map_is_kept_to_the_digits_that_are_promised(comparison: Comparison, bits: int, zeroing: bool) -> None:
    comparison = with_zeroing(comparison) if zeroing else comparison
    sides = (comparison.original, comparison.counterfactual)
    found = unpacked(packed(comparison, bits), [len(side.statement) for side in sides], bits, zeroing)
    for side, maps in zip(sides, found, strict=True):
        for measure, values in maps.items():
            expected = getattr(side, measure).numpy()
            # Half a step of the largest value, which of a cosine is 1 in either direction.
            largest = side.raw.max() * side.value.norm(dim=-1).max() if measure == "norm" else expected.max()
            step = 1 / (2 ** (bits - 1) - 1) if measure == "similarity" else float(largest) / (2**bits - 1)
            np.testing.assert_allclose(values, expected, rtol=0, atol=0.51 * step + 1e-6, err_msg=measure)


def test_a_head_that_attends_to_nothing_is_nothing(comparison: Comparison) -> None:
    raw, norm = comparison.original.raw.clone(), comparison.original.norm.clone()
    raw[0, 0], norm[0, 0] = 0, 0
    silent = replace(comparison, original=replace(comparison.original, raw=raw, norm=norm))
    sizes = [len(side.statement) for side in (silent.original, silent.counterfactual)]
    original, _ = unpacked(packed(silent, 16), sizes, 16, zeroing=False)
    assert not original["raw"][0, 0].any() and not original["norm"][0, 0].any()


def test_large_pages_have_fewer_digits(comparison: Comparison) -> None:
    assert bits_for([comparison]) == 16
    assert bits_for([comparison] * 3000) == 8


def test_norms_that_are_not_attention_times_a_norm_of_the_key_are_refused(comparison: Comparison) -> None:
    turned = replace(comparison.original, norm=comparison.original.norm.flip(-2))
    with pytest.raises(ViewError, match="not its raw attention times a norm for each key"):
        packed(replace(comparison, original=turned), 16)


def test_tokens_that_do_not_fit_the_map_are_an_error(comparison: Comparison) -> None:
    cut = replace(comparison.original, statement=tokenized(ORIGINAL[:5]))
    with pytest.raises(ViewError, match=r"raw map .* 5 tokens"):
        packed(replace(comparison, original=cut), 16)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_value_that_is_not_a_number_is_an_error_that_says_where(value: float) -> None:
    comparison = comparison_of(ORIGINAL)
    norm = comparison.counterfactual.norm.clone()
    norm[2, 1, 0, 3] = value
    broken = replace(comparison, counterfactual=replace(comparison.counterfactual, norm=norm))
    with pytest.raises(ViewError, match=r"norm map .* layer 2, head 1"):
        packed(broken, 16)
    zeroing = torch.full((LAYERS, len(ORIGINAL), len(ORIGINAL)), value)
    broken = with_zeroing(comparison)
    broken = replace(broken, original=replace(broken.original, zeroing=zeroing))
    with pytest.raises(ViewError, match=r"zeroing map .* first at layer 0;"):
        packed(broken, 8)


@pytest.mark.parametrize("length", [1, 2, 15, 40])
def test_the_room_that_maps_take_is_known_from_the_lengths(length: int, monkeypatch: pytest.MonkeyPatch) -> None:
    # Zlib's level 0 is the worst that any maps can be.
    monkeypatch.setattr(packing, "_COMPRESSION", 0)
    maps = with_zeroing(comparison_of(tuple(f"t{i}" for i in range(length)), at=1, layers=3, heads=5))
    bound = map_bytes([length, length + 1], 3, 5)
    assert len(packed(maps, 8)) <= bound < 1.01 * len(packed(maps, 8)) + 100


def test_what_fits_is_taken_in_order_and_what_does_not_is_passed_over() -> None:
    assert fitting([4, 9, 3, 3, 1], 10) == [0, 2, 3]
    assert fitting([4, 9], 3) == fitting([], 3) == []
