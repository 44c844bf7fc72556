"""Normalised effects follow their formulas, and say which pairs they leave out."""

import numpy as np
import pytest
import xarray as xr

from negprobe.patching import effect, mean_effect


def results(patched, base, source):
    return xr.Dataset(
        {"patched": (("pair", "layer", "role"), patched), "base": ("pair", base), "source": ("pair", source)},
        coords={"pair": range(len(base)), "layer": range(np.shape(patched)[1]), "role": ["cue", "mask"]},
        attrs={"site": "resid_pre"},
    )


@pytest.fixture
def random_results():
    rng = np.random.default_rng(0)
    patched = rng.normal(size=(5, 3, 2))
    patched[2, :, 0] = np.nan
    return results(patched, rng.normal(size=5), rng.normal(size=5) + 3)


def test_the_effect_is_zero_at_the_base_and_one_at_the_source():
    data = results([[[1.0, 4.0]], [[-2.0, 6.0]]], [1.0, -2.0], [4.0, 6.0])
    np.testing.assert_allclose(effect(data).values, [[[0.0, 1.0]], [[0.0, 1.0]]])


def test_the_mean_effect_is_a_ratio_of_means_over_the_pairs_that_have_the_part(random_results):
    mean = mean_effect(random_results)
    assert (random_results["source"] > random_results["base"]).all()
    for layer in range(3):
        for column, role in enumerate(("cue", "mask")):
            moved, gap = [], []
            for pair in range(5):
                value = random_results["patched"].values[pair, layer, column]
                if not np.isnan(value):
                    base, source = random_results["base"].values[pair], random_results["source"].values[pair]
                    moved.append(value - base)
                    gap.append(source - base)
            assert mean.sel(layer=layer, role=role).item() == pytest.approx(np.mean(moved) / np.mean(gap))
    assert mean["n_pairs"].sel(role="cue").values.tolist() == [4, 4, 4]
    assert mean["n_pairs"].sel(role="mask").values.tolist() == [5, 5, 5]


def test_swings_in_opposite_directions_do_not_cancel():
    # Half of a swing up and half of a swing down are half of the swing, whichever way most pairs go.
    data = results([[[0.5, 1.0]], [[-0.5, -1.0]], [[0.49, 0.0]]], [0.0, 0.0, 0.0], [1.0, -1.0, 0.98])
    np.testing.assert_allclose(mean_effect(data).sel(layer=0), [0.5, 2 / 2.98])


def test_pairs_without_a_gap_are_left_out_and_named(random_results):
    random_results["source"][3] = random_results["base"][3] + 1e-5
    assert effect(random_results).attrs["near_zero_gap"] == [3]
    assert np.isnan(effect(random_results).sel(pair=3)).all()
    mean = mean_effect(random_results)
    assert mean.attrs["near_zero_gap"] == [3]
    np.testing.assert_allclose(mean, mean_effect(random_results.drop_sel(pair=3)))


def test_a_part_no_pair_has_is_nan_and_not_zero(random_results):
    random_results["patched"][:, :, 0] = np.nan
    assert np.isnan(mean_effect(random_results).sel(role="cue")).all()
    assert mean_effect(random_results)["n_pairs"].sel(role="cue").values.tolist() == [0, 0, 0]
