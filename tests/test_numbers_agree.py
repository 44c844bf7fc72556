"""The same numbers in any batch, any order and any floating-point type, to the tolerances that are stated here."""

from functools import cache

import numpy as np
import pytest
import torch
import xarray as xr

from negprobe import AttentionProbe, HookedEncoder, builtin_pairs, patch_sweep

PAIRS = builtin_pairs()[::24]

# The largest absolute differences allowed: of metrics (entropies are in bits), shares, and patched logit differences.
# bfloat16 has 8 bits of precision, so that a number near 10 may be 0.04 off before anything is summed.
TOLERANCES = {
    torch.float32: {"metrics": 5e-5, "cue_shares": 5e-6, "patched": 5e-4},
    torch.bfloat16: {"metrics": 0.25, "cue_shares": 0.05, "patched": 0.5},
}


@cache
def model(dtype: torch.dtype, device: str = "cpu") -> HookedEncoder:
    return HookedEncoder.from_pretrained("tiny-negation", device=device, dtype=dtype)


def metrics(model: HookedEncoder, pairs: list) -> xr.Dataset:
    return AttentionProbe(model).metrics(pairs)


def cue_shares(model: HookedEncoder, pairs: list) -> xr.Dataset:
    shares = AttentionProbe(model).cue_shares(pairs)
    return shares if isinstance(shares, xr.Dataset) else shares.to_dataset(name="share")


def patched(model: HookedEncoder, pairs: list) -> xr.Dataset:
    return patch_sweep(model, pairs, "z", by="head", direction="denoising")


MEASURES = {measure.__name__: measure for measure in (metrics, cue_shares, patched)}


def largest_difference(one: xr.Dataset, other: xr.Dataset) -> float:
    largest = 0.0
    assert set(one.data_vars) == set(other.data_vars)
    for name in one.data_vars:
        a, b = one[name].values, other[name].values
        if np.issubdtype(a.dtype, np.floating):
            a, b = a.astype(float), b.astype(float)
            assert (np.isnan(a) == np.isnan(b)).all(), name
            largest = max(largest, float(np.nanmax(np.abs(a - b), initial=0)))
    return largest


@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize("name", MEASURES)
def test_a_smaller_type_agrees_with_float64(name: str, dtype: torch.dtype) -> None:
    difference = largest_difference(MEASURES[name](model(torch.float64), PAIRS), MEASURES[name](model(dtype), PAIRS))
    assert 0 < difference < TOLERANCES[dtype][name]


@pytest.mark.parametrize("name", MEASURES)
def test_batches_and_orders_do_not_matter(name: str) -> None:
    for dtype, tolerance in ((torch.float64, 1e-10), (torch.float32, TOLERANCES[torch.float32][name])):
        whole = MEASURES[name](model(dtype), PAIRS)
        backwards = MEASURES[name](model(dtype), PAIRS[::-1])
        assert largest_difference(whole, backwards.isel(pair=slice(None, None, -1))) < tolerance
        for number, pair in enumerate(PAIRS):
            alone = MEASURES[name](model(dtype), [pair])
            assert largest_difference(whole.isel(pair=[number]), alone) < tolerance
