"""Results that were saved are read back whole, and other files are refused by their names."""

from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from negprobe import HookedEncoder, builtin_pairs, patch, patch_sweep, path_patch
from negprobe.base.errors import PatchingError
from negprobe.patching import Patch, attribute, averages, mean_effect, read_results, save_results


@pytest.fixture(scope="module")
def model():
    return HookedEncoder.from_pretrained("tiny-negation", device="cpu")


RESULTS = {
    "sweep": lambda model, pairs: patch_sweep(model, pairs, "z", by=("head", "role"), direction="denoising"),
    "one pair": lambda model, pairs: patch_sweep(model, pairs[0], "resid_pre", by="position"),
    "knock-out": lambda model, pairs: patch_sweep(
        model, pairs, "attn_scores", by="head", how="knock_out", keys="cue", direction="denoising"
    ),
    "patches": lambda model, pairs: patch(model, pairs, [Patch("z", 0, 1), Patch("mlp_out", 2)], together=False),
    "paths": lambda model, pairs: path_patch(model, pairs, receivers="output"),
    "estimate": lambda model, pairs: attribute(model, pairs, sites=["z"], by="head")["z"],
}


@pytest.mark.parametrize("name", RESULTS)
def test_what_was_saved_is_read_with_coordinates_and_attributes(model, name, tmp_path):
    results = RESULTS[name](model, builtin_pairs()[:40:10])
    save_results(results, tmp_path / "results.nc")
    found = read_results(tmp_path / "results.nc")
    xr.testing.assert_identical(found.reset_coords(drop=True), results.reset_coords(drop=True))
    assert set(found.coords) == set(results.coords) and found.attrs == results.attrs
    for coord in results.coords:
        np.testing.assert_array_equal(found[coord], results[coord])
        assert found[coord].dtype.kind != "i" or found[coord].dtype == results[coord].dtype
    xr.testing.assert_identical(mean_effect(found), mean_effect(results))


def test_averages_of_what_was_read_are_those_of_what_was_saved(model, tmp_path):
    results = patch_sweep(model, builtin_pairs()[:40:10], "z", by="head")
    save_results(results, tmp_path / "z.nc")
    xr.testing.assert_identical(averages(read_results(tmp_path / "z.nc")), averages(results))


def test_a_file_that_it_did_not_write_is_refused_by_name(model, tmp_path):
    other = {
        "words.nc": lambda path: path.write_text("no results"),
        "empty.nc": lambda path: path.write_bytes(b""),
        "tests.nc": lambda path: xr.Dataset({"effect": ("head", [1.0])}).to_netcdf(path, engine="scipy"),
        "bare.nc": lambda path: xr.Dataset({"patched": ("head", [1.0])}).to_netcdf(path, engine="scipy"),
        "folder.nc": Path.mkdir,
        "nowhere.nc": lambda path: None,
        "results.parquet": lambda path: save_results(patch_sweep(model, builtin_pairs()[0], "z", by="head"), path),
    }
    for name, write in other.items():
        write(tmp_path / name)
        with pytest.raises(PatchingError, match=name):
            read_results(tmp_path / name)


def test_a_file_that_was_cut_short_is_refused(model, tmp_path):
    path = tmp_path / "z.nc"
    save_results(patch_sweep(model, builtin_pairs()[0], "z", by="head"), path)
    whole = path.read_bytes()
    for size in range(0, len(whole) - 4, 97):
        path.write_bytes(whole[:size])
        with pytest.raises(PatchingError, match=r"z\.nc"):
            read_results(path)
