"""The interval for a new group covers the effect in groups that were not measured; one group alone holds for none."""

import numpy as np
import pytest
import xarray as xr
from scipy import stats

from negprobe.base.errors import InputError
from negprobe.statistics import holds_for_new
from tests.statistics.test_statistics import dataset


def of_cues(seed, n_cues, per_cue, n_heads, mean, between):
    """Effects of pairs whose cues differ by a standard deviation of `between`, the cue of each pair, and cue means."""
    rng = np.random.default_rng(seed)
    means = mean + between * rng.normal(size=(n_cues, n_heads))
    values = np.repeat(means, per_cue, axis=0) + 0.3 * rng.normal(size=(n_cues * per_cue, n_heads))
    return values, np.repeat([f"cue {index}" for index in range(n_cues)], per_cue)


def first(found, name):
    return found[name].isel(metric=0, layer=0).values


def test_the_intervals_are_students_over_the_means_of_groups():
    values, cues = of_cues(0, 6, 4, 3, 1.0, 0.5)
    values, cues = values[:-2], cues[:-2]
    values[0, 1] = np.nan
    found = holds_for_new(dataset(metric=values), cues)
    for head, column in enumerate(values.T):
        means = np.array([np.nanmean(column[cues == cue]) for cue in dict.fromkeys(cues)])
        interval = stats.ttest_1samp(means, 0).confidence_interval(0.95)
        assert first(found, "effect")[head] == pytest.approx(means.mean())
        assert first(found, "low")[head] == pytest.approx(interval.low)
        assert first(found, "high")[head] == pytest.approx(interval.high)
        others = np.array([np.delete(means, index).mean() for index in range(6)])
        smallest = others[np.argmin(others * np.sign(means.mean()))]
        assert first(found, "smallest_left_out")[head] == pytest.approx(smallest)
        assert first(found, "predicted_sign")[head] == (others * means > 0).sum()
    assert first(found, "n_groups").tolist() == [6, 6, 6]


@pytest.mark.parametrize("n_cues", [3, 8])
def test_the_interval_of_a_new_group_covers_its_effect_as_often_as_it_says(n_cues):
    values, cues = of_cues(1, n_cues + 1, 4, 2000, 0.5, 0.5)
    new = cues == f"cue {n_cues}"
    found = holds_for_new(dataset(metric=values[~new]), cues[~new])
    effect = values[new].mean(axis=0)
    covered = (first(found, "new_low") <= effect) & (effect <= first(found, "new_high"))
    # 3.5 standard deviations of 2,000 runs are 1.7 %.
    assert 0.933 < covered.mean() < 0.967


def test_an_effect_of_one_cue_alone_does_not_hold_for_new_ones():
    values, cues = of_cues(2, 8, 5, 2, 0.0, 0.02)
    values[cues == "cue 3", 0] += 4
    values[:, 1] += 2
    found = holds_for_new(dataset(metric=values), cues)
    assert first(found, "holds").tolist() == [False, True]
    assert abs(first(found, "smallest_left_out")[0]) < 0.3 < first(found, "effect")[0]
    assert first(found, "predicted_sign")[1] == 8


def test_the_sign_of_an_effect_does_not_matter():
    values, cues = of_cues(3, 5, 4, 4, 0.4, 0.3)
    found, negative = (holds_for_new(dataset(metric=sign * values), cues) for sign in (1, -1))
    np.testing.assert_allclose(negative["smallest_left_out"], -found["smallest_left_out"])
    np.testing.assert_allclose(negative["new_low"], -found["new_high"])
    xr.testing.assert_equal(negative["holds"], found["holds"])


def test_fewer_than_three_groups_hold_for_nothing():
    values, cues = of_cues(4, 3, 5, 2, 3.0, 0.0)
    values[cues == "cue 2", 1] = np.nan
    found = holds_for_new(dataset(metric=values), cues)
    assert first(found, "n_groups").tolist() == [3, 2]
    assert first(found, "holds").tolist() == [True, False]
    assert np.isnan(first(found, "new_low")).tolist() == [False, True]
    assert np.isnan(first(found, "smallest_left_out")).tolist() == [False, True]


def test_groups_with_too_few_pairs_are_left_out():
    values, cues = of_cues(5, 4, 3, 2, 1.0, 0.1)
    found = holds_for_new(dataset(metric=values[:-2]), cues[:-2], min_pairs=2)
    xr.testing.assert_allclose(found, holds_for_new(dataset(metric=values[:-3]), cues[:-3], min_pairs=2))
    with pytest.raises(InputError, match="min_pairs must be at least 1, got 0"):
        holds_for_new(dataset(metric=values), cues, min_pairs=0)
    with pytest.raises(InputError, match="12 pairs and groups"):
        holds_for_new(dataset(metric=values), cues[:-1])
