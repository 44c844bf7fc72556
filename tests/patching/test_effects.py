"""Normalised effects follow their formulas, their intervals are scipy's, and files hold what was measured."""

import numpy as np
import pandas as pd
import pytest
import scipy.stats
import xarray as xr

from negprobe.base.errors import PatchingError
from negprobe.patching import Patch, averages, effect, mean_effect, patch, patch_sweep, save_results
from tests.support.sample_pairs import TINY, TINY_EQUAL


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


def many_results(n_pairs, seed=0):
    """Pairs whose swings go both ways, one without any, and a part that one pair, and one that most, do not have."""
    rng = np.random.default_rng(seed)
    base, gap = rng.normal(size=n_pairs), rng.normal(2, 0.5, size=n_pairs) * rng.choice([-1, 1], size=n_pairs)
    gap[3] = 1e-4
    patched = base[:, None, None] + gap[:, None, None] * rng.normal(0.4, 0.3, size=(n_pairs, 2, 2))
    patched[5, 1, 0] = np.nan
    patched[2:, 0, 1] = np.nan
    return results(patched, base, base + gap)


def test_the_interval_is_scipys_bootstrap_of_pairs():
    data = many_results(25)
    table = averages(data, n_resamples=20_000, confidence=0.9).to_dataframe()
    for layer, role in ((0, "cue"), (1, "cue"), (1, "mask")):
        patched, base, source = (data[name].values for name in ("patched", "base", "source"))
        patched = patched[:, layer, data["role"].values.tolist().index(role)]
        moved, swing = (patched - base) * np.sign(source - base), abs(source - base)
        kept = np.isfinite(patched) & (swing >= 1e-3)
        assert kept.sum() == table.loc[(layer, role), "n_pairs"]
        expected = scipy.stats.bootstrap(
            (moved[kept], swing[kept]),
            lambda moved, swing, axis: moved.mean(axis=axis) / swing.mean(axis=axis),
            paired=True,
            vectorized=True,
            method="percentile",
            confidence_level=0.9,
            n_resamples=20_000,
            rng=np.random.default_rng(1),
        )
        low, high = expected.confidence_interval
        row = table.loc[(layer, role)]
        assert row["effect"] == pytest.approx(moved[kept].sum() / swing[kept].sum(), abs=1e-12)
        # A quantile of 20 000 draws is known to a fiftieth of the interval or better. A pair that is left out is drawn
        # all the same by us, which widens the interval by about as little.
        assert row["low"] == pytest.approx(low, abs=0.03 * (high - low))
        assert row["high"] == pytest.approx(high, abs=0.03 * (high - low))


@pytest.mark.parametrize("confidence", [0.95, 0.5])
def test_the_interval_is_that_of_the_ratio_of_sums_draw_by_draw(confidence):
    data = many_results(9, seed=1)
    found = averages(data, n_resamples=200, confidence=confidence, seed=7)
    table = found.to_dataframe().reset_index()
    assert list(table.columns) == ["layer", "role", "effect", "low", "high", "n_pairs"]
    drawn = np.random.default_rng(7).integers(9, size=(200, 9))
    for row in table.itertuples():
        values = data["patched"].sel(layer=row.layer, role=row.role).values
        ratios = []
        for draw in drawn:
            moved = swing = 0.0
            for pair in draw:
                base, source = data["base"].values[pair], data["source"].values[pair]
                if np.isnan(values[pair]) or abs(source - base) < 1e-3:
                    continue
                moved += (values[pair] - base) * (1 if source > base else -1)
                swing += abs(source - base)
            if swing:
                ratios.append(moved / swing)
        low, high = np.quantile(ratios, [(1 - confidence) / 2, (1 + confidence) / 2])
        assert row.low == pytest.approx(low, abs=1e-12)
        assert row.high == pytest.approx(high, abs=1e-12)
    again = averages(data, n_resamples=200, confidence=confidence, seed=7)
    xr.testing.assert_identical(found, again)
    assert not averages(data, n_resamples=200, confidence=confidence, seed=8).equals(found)


def test_a_cell_of_one_pair_has_no_interval_and_one_of_none_no_effect():
    data = many_results(6)
    data["patched"][:, 0, 0] = np.nan
    data["patched"][1:, 1, 0] = np.nan
    table = averages(data).to_dataframe()
    nothing, one, two = (table.loc[cell] for cell in ((0, "cue"), (1, "cue"), (0, "mask")))
    assert nothing[["effect", "low", "high"]].isna().all() and nothing["n_pairs"] == 0
    assert one[["low", "high"]].isna().all() and one["n_pairs"] == 1
    assert one["effect"] == pytest.approx(effect(data).sel(pair=0, layer=1, role="cue").item())
    assert two["n_pairs"] == 2 and two["low"] < two["effect"] < two["high"]
    # Nor has a cell whose only other pair has no swing.
    data["patched"][3, 1, 0] = 1.0
    assert averages(data).to_dataframe().loc[(1, "cue")].equals(one)


def test_pairs_that_all_move_alike_have_an_interval_of_no_width():
    base, gap = np.arange(5.0), np.array([1.0, -2.0, 0.5, 3.0, -1.0])
    data = results(base[:, None, None] + 0.25 * gap[:, None, None] * np.ones((5, 1, 2)), base, base + gap)
    found = averages(data)
    np.testing.assert_allclose(found[["effect", "low", "high"]].to_array(), 0.25, atol=1e-12)


@pytest.mark.parametrize(("site", "by"), [("z", ("head", "role")), ("resid_pre", "position"), ("embed", "role")])
def test_averages_of_a_sweep_are_its_mean_effects_with_intervals_cell_by_cell(tiny, site, by):
    data = patch_sweep(tiny, [of.pair for of in TINY], site, by=by)
    found = averages(data, n_resamples=50)
    mean = mean_effect(data)
    assert list(found.data_vars) == ["effect", "low", "high", "n_pairs"]
    assert all(found[name].dims == mean.dims for name in found.data_vars)
    assert set(found.coords) == set(mean.dims) and found.attrs == mean.attrs
    np.testing.assert_array_equal(found["effect"], mean)
    np.testing.assert_array_equal(found["n_pairs"], mean["n_pairs"])
    table = found.to_dataframe().reset_index()
    assert list(table.columns) == [*mean.dims, "effect", "low", "high", "n_pairs"]
    for row in table.itertuples():
        np.testing.assert_equal(row.effect, mean.sel({dim: getattr(row, dim) for dim in mean.dims}).item())


SAVED = {
    "by head and role": ("z", ("head", "role"), [of.pair for of in TINY]),
    # All tokens have a partner: what is named as unmatched is nothing, in every pair.
    "one pair by position": ("resid_mid", "position", TINY_EQUAL.pair),
    "embeddings": ("embed", "position", [of.pair for of in TINY]),
}


@pytest.mark.parametrize("case", SAVED)
def test_netcdf_holds_the_results_as_they_are(tiny, case, tmp_path):
    site, by, pairs = SAVED[case]
    data = patch_sweep(tiny, pairs, site, by=by, direction="denoising")
    save_results(data, tmp_path / "swept.nc")
    with xr.open_dataset(tmp_path / "swept.nc", engine="scipy") as read:
        xr.testing.assert_identical(read.load(), data)


@pytest.mark.parametrize("case", SAVED)
def test_parquet_holds_a_row_for_every_cell_that_a_pair_has(tiny, case, tmp_path):
    site, by, pairs = SAVED[case]
    data = patch_sweep(tiny, pairs, site, by=by, direction="denoising")
    save_results(data, tmp_path / "swept.parquet")
    table = pd.read_parquet(tmp_path / "swept.parquet")
    assert len(table) == int(data["patched"].notnull().sum())
    assert set(table["site"]) == {site} and set(table["direction"]) == {"denoising"}
    dims = list(data["patched"].dims)
    assert not table.duplicated(dims).any()
    for _, row in table.iterrows():
        cell = data.sel({dim: row[dim] for dim in dims})
        assert [row["patched"], row["base"], row["source"]] == [
            cell[name].item() for name in ("patched", "base", "source")
        ]
        assert row["unmatched"] == cell["unmatched"].item()


def test_chosen_patches_are_saved_as_well(tiny, tmp_path):
    data = patch(
        tiny, [of.pair for of in TINY], [Patch("z", 1, head=2), [Patch("mlp_out", 0), Patch("k", role="mask")]]
    )
    save_results(data, tmp_path / "patched.nc")
    with xr.open_dataset(tmp_path / "patched.nc", engine="scipy") as read:
        xr.testing.assert_identical(read.load(), data)
    save_results(data, tmp_path / "patched.parquet")
    assert len(pd.read_parquet(tmp_path / "patched.parquet")) == data["patched"].notnull().sum()


@pytest.mark.parametrize(("name", "message"), [("swept.csv", "neither a .nc nor a .parquet"), ("swept", "neither")])
def test_another_kind_of_file_is_a_clear_error(random_results, name, message, tmp_path):
    with pytest.raises(PatchingError, match=message):
        save_results(random_results, tmp_path / name)


@pytest.mark.parametrize("name", ["swept.nc", "swept.parquet"])
def test_a_file_that_cannot_be_written_is_a_clear_error(tiny, name, tmp_path):
    data = patch_sweep(tiny, TINY_EQUAL.pair, "embed", by="role")
    with pytest.raises(PatchingError, match="cannot be written"):
        save_results(data, tmp_path / "no such folder" / name)


def test_intervals_of_averages_are_over_clusters() -> None:
    rng = np.random.default_rng(3)
    data = xr.Dataset(
        {
            "patched": (("pair", "layer"), rng.normal(size=(9, 2))),
            "base": ("pair", np.zeros(9)),
            "source": ("pair", rng.uniform(1, 2, 9)),
        },
        coords={"cluster": ("pair", ["a", "a", "b", "", "b", "", "c", "c", "c"])},
    )
    alone = averages(data.drop_vars("cluster"), n_resamples=50, seed=2)
    xr.testing.assert_equal(averages(data.assign_coords(cluster=("pair", [""] * 9)), n_resamples=50, seed=2), alone)
    found = averages(data, n_resamples=50, seed=2)
    xr.testing.assert_equal(found["effect"], alone["effect"])
    members = [[0, 1], [2, 4], [3], [5], [6, 7, 8]]
    ratios = []
    for drawn in np.random.default_rng(2).integers(5, size=(50, 5)):
        pairs = [pair for cluster in drawn for pair in members[cluster]]
        ratios.append(data["patched"].values[pairs].sum(axis=0) / data["source"].values[pairs].sum())
    np.testing.assert_allclose(found["low"], np.quantile(ratios, 0.025, axis=0))
    np.testing.assert_allclose(found["high"], np.quantile(ratios, 0.975, axis=0))
    one = averages(data.isel(pair=[0, 1]), n_resamples=50)
    assert bool(one["effect"].notnull().all()) and bool(one["low"].isnull().all())
