"""The tests over pairs give scipy's numbers head by head, keep their error rates, and find what was planted."""

import itertools
import math

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import stats

from negprobe.base.errors import InputError, StatementError
from negprobe.statistics import (
    agreement,
    effect_tests,
    effects_table,
    negation_effects,
    replication,
    resampling,
    responding,
    survivors,
)
from negprobe.statistics import effects as statistics

TESTED = [
    *("effect", "low", "high", "effect_size", "effect_size_low", "effect_size_high", "n", "n_clusters", "icc"),
    *("n_effective", "p", "q", "p_max_t", "p_mean", "q_mean", "p_mean_max_t"),
]


def dataset(**values):
    """Effects by metric, each given as [pair, head] or [pair, layer, head]."""
    shaped = {name: array if array.ndim == 3 else array[:, None] for name, array in values.items()}
    return xr.Dataset(
        {name: (("pair", "layer", "head"), array) for name, array in shaped.items()},
        coords={"pair": np.arange(len(next(iter(shaped.values()))))},
    )


def noise(seed, n_pairs, n_heads):
    """Effects without a mean, correlated over heads, a third of them heavy-tailed (t with 2 degrees of freedom)."""
    rng = np.random.default_rng(seed)
    common = rng.normal(size=(n_pairs, 1))
    own = rng.normal(size=(n_pairs, n_heads))
    own[:, ::3] = rng.standard_t(2, size=own[:, ::3].shape)
    return 0.7 * common + own


def exact_p(effects):
    """The two-sided p of the sign-flip test of one head, by scipy, over all flips."""
    result = stats.permutation_test(
        (effects,), np.mean, permutation_type="samples", vectorized=True, n_resamples=np.inf, alternative="two-sided"
    )
    return result.pvalue


def heads(tests, name, metric="metric"):
    return tests[name].sel(metric=metric).values.ravel()


# --- the effect itself


def test_the_effect_of_negation_is_counterfactual_minus_control_of_each_pair():
    rng = np.random.default_rng(0)
    measured = rng.normal(size=(4, 2, 3, 2))
    by_role = rng.normal(size=(4, 2, 5, 3, 2))
    metrics = xr.Dataset(
        {
            "a": (("pair", "compared", "layer", "head"), measured),
            "a_by_role": (("pair", "compared", "role", "layer", "head"), by_role),
            "distance": (("pair", "layer", "head"), measured[:, 0]),
        },
        coords={"pair": [0, 1, 5, 7], "compared": ["control", "counterfactual"], "cue": ("pair", list("abcd"))},
    )
    effects = negation_effects(metrics)
    assert set(effects.data_vars) == {"a", "a_by_role"}
    assert "compared" not in effects.coords
    assert effects["cue"].values.tolist() == list("abcd")
    np.testing.assert_array_equal(effects["a"], measured[:, 1] - measured[:, 0])
    np.testing.assert_array_equal(effects["a_by_role"], by_role[:, 1] - by_role[:, 0])


def test_a_pair_without_a_control_has_no_effect():
    measured = np.ones((3, 2, 1, 1))
    measured[1, 1] = np.nan
    metrics = xr.Dataset(
        {"a": (("pair", "compared", "layer", "head"), measured)}, coords={"compared": ["counterfactual", "control"]}
    )
    assert np.isnan(negation_effects(metrics)["a"].values.ravel()).tolist() == [False, True, False]


def test_metrics_of_one_comparison_have_no_effect_of_negation():
    with pytest.raises(InputError, match="pair, layer, head"):
        negation_effects(dataset(a=np.ones((3, 2))))


def test_mean_effect_size_and_number_of_pairs_are_numpys():
    values = noise(1, 30, 6)
    values[3:9, 2] = np.nan
    tests = effect_tests(dataset(metric=values), n_resamples=99)
    np.testing.assert_allclose(heads(tests, "effect"), np.nanmean(values, axis=0), rtol=1e-12)
    expected = np.nanmean(values, axis=0) / np.nanstd(values, axis=0, ddof=1)
    np.testing.assert_allclose(heads(tests, "effect_size"), expected, rtol=1e-12)
    assert heads(tests, "n").tolist() == [30, 30, 24, 30, 30, 30]


# --- p


@pytest.mark.parametrize("n_pairs", [2, 3, 5, 8, 12])
def test_with_few_pairs_p_is_that_of_all_sign_flips(n_pairs):
    values = noise(n_pairs, n_pairs, 5) + np.array([0, 0, 0.5, -1, 2])
    tests = effect_tests(dataset(metric=values))
    np.testing.assert_allclose(heads(tests, "p"), [exact_p(column) for column in values.T], rtol=1e-12)


@settings(max_examples=50)
@given(hnp.arrays(int, st.tuples(st.integers(2, 7), st.integers(1, 4)), elements=st.integers(-3, 3)))
def test_tied_sums_count_as_ties(values):
    # In scaled units the sums of whole numbers are rounded; scipy's own test of the whole numbers is not.
    tests = effect_tests(dataset(metric=values), n_resamples=200)
    np.testing.assert_allclose(heads(tests, "p"), [exact_p(column) for column in values.T], rtol=1e-12)


def test_sums_that_cancel_are_zero_and_not_their_rounding_error():
    # Whole numbers that sum to zero: every flip is as extreme, though the scaled sum is some 1e-17.
    values = np.random.default_rng(0).integers(-3, 4, size=(9, 2000))
    values = values[:, (values.sum(axis=0) == 0) & values.any(axis=0)]
    assert heads(effect_tests(dataset(metric=values), n_resamples=512), "p").tolist() == [1.0] * values.shape[1]


def test_with_many_pairs_p_is_that_of_random_sign_flips():
    values = noise(0, 40, 6) + np.array([0, 0.2, 0.4, 0.6, 0.8, -0.4])
    tests = effect_tests(dataset(metric=values), n_resamples=9999)
    for p, column in zip(heads(tests, "p"), values.T, strict=True):
        result = stats.permutation_test(
            (column,),
            np.mean,
            permutation_type="samples",
            vectorized=True,
            n_resamples=9999,
            batch=500,
            alternative="two-sided",
            rng=np.random.default_rng(5),
        )
        # Both count random flips; scipy doubles the smaller tail. Four standard deviations of the difference.
        error = np.sqrt(3 * result.pvalue * (1 - result.pvalue / 2) / 9999)
        assert p == pytest.approx(result.pvalue, abs=4 * error + 2e-4)
        assert p == pytest.approx(stats.ttest_1samp(column, 0).pvalue, abs=0.03)


def test_five_pairs_never_go_below_a_sixteenth():
    tests = effect_tests(dataset(metric=np.full((5, 3), 2.0) + noise(0, 5, 3) / 100))
    assert heads(tests, "p").tolist() == [0.0625] * 3
    assert "5 pairs" in tests.attrs["untestable"]
    assert "0.0625" in tests.attrs["untestable"]
    assert "untestable" not in effect_tests(dataset(metric=np.ones((6, 3)))).attrs


def test_a_head_with_five_pairs_stays_at_a_sixteenth_among_heads_with_many():
    values = noise(0, 40, 2)
    values[:, 1] = np.where(np.arange(40) < 5, 1.0, np.nan)
    smallest = min(heads(effect_tests(dataset(metric=values), n_resamples=49, seed=s), "p")[1] for s in range(30))
    assert smallest == 0.0625


def test_p_that_is_too_coarse_for_the_number_of_heads_is_said():
    values = noise(0, 30, 100)
    tests = effect_tests(dataset(metric=values), n_resamples=999)
    # 1 / 1000 times 100 heads over 0.05.
    assert "2 of the 100 tests" in tests.attrs["resolution"]
    assert "resamples" in tests.attrs["resolution"]
    assert "resolution" not in effect_tests(dataset(metric=values[:, :50]), n_resamples=999).attrs
    # All 128 flips of 7 pairs: 2 / 128 times 100 heads over 0.05.
    coarse = effect_tests(dataset(metric=values[:7])).attrs["resolution"]
    assert "32 of the 100 tests" in coarse
    assert "With more pairs" in coarse


def test_what_is_said_about_coarseness_is_true():
    # Heads that are all as extreme as 7 pairs allow: 31 of 100 do not pass, 32 do.
    for n_found, passes in ((31, False), (32, True)):
        values = noise(3, 7, 100)
        values[:, :n_found] = 1 + np.abs(values[:, :n_found])
        values[:, n_found:] -= values[:, n_found:].mean(axis=0)
        assert (heads(effect_tests(dataset(metric=values)), "q") <= 0.05).any() == passes


# --- corrections


def test_q_is_benjamini_hochberg_over_all_metrics_and_heads_together():
    values = noise(2, 20, 8) + np.linspace(0, 1.2, 8)
    tests = effect_tests(dataset(one=values[:, :3], other=values[:, 3:6]), n_resamples=999)
    p = tests["p"].values.ravel()
    np.testing.assert_allclose(tests["q"].values.ravel(), stats.false_discovery_control(p), rtol=1e-12)
    alone = effect_tests(dataset(one=values[:, :3]), n_resamples=999)
    assert not np.allclose(alone["q"].values.ravel(), tests["q"].sel(metric="one").values.ravel())


def test_a_head_without_pairs_is_no_test_to_correct_for():
    values = noise(2, 20, 4) + np.array([0, 0.5, 1, 0])
    with_empty = values.copy()
    with_empty[:, 3] = np.nan
    tests = effect_tests(dataset(metric=with_empty), n_resamples=999)
    for name in TESTED:
        np.testing.assert_allclose(
            heads(tests, name)[:3],
            heads(effect_tests(dataset(metric=values[:, :3]), n_resamples=999), name),
            rtol=1e-12,
        )
    assert heads(tests, "n")[3] == 0
    assert heads(tests, "n_clusters")[3] == 0
    assert all(np.isnan(heads(tests, name)[3]) for name in TESTED if name not in ("n", "n_clusters"))


@pytest.mark.parametrize("missing", [False, True])
def test_p_max_t_is_the_share_of_flips_whose_largest_statistic_reaches_the_heads(missing):
    values = noise(4, 9, 5) + np.array([0, 0.4, 0.8, 1.5, -1])
    if missing:
        values[2, 1] = values[4:7, 3] = np.nan
    flips = list(itertools.product([1, -1], repeat=9))

    def statistic(signs, column):
        pairs = [(sign, value) for sign, value in zip(signs, column, strict=True) if not math.isnan(value)]
        return abs(sum(sign * value for sign, value in pairs)) / math.sqrt(sum(value**2 for _, value in pairs))

    largest = [max(statistic(signs, column) for column in values.T) for signs in flips]
    expected = [sum(top >= statistic([1] * 9, column) - 1e-12 for top in largest) / len(flips) for column in values.T]
    tests = effect_tests(dataset(metric=values))
    np.testing.assert_allclose(heads(tests, "p_max_t"), expected, rtol=1e-12)
    assert (heads(tests, "p_max_t") >= heads(tests, "p")).all()


def test_the_statistic_orders_flips_as_t_does():
    values = noise(4, 8, 3)
    signs = np.array(list(itertools.product([1.0, -1.0], repeat=8)))
    t = np.abs([[stats.ttest_1samp(flip * column, 0).statistic for column in values.T] for flip in signs])
    expected = [(t.max(axis=1) >= observed * (1 - 1e-9)).mean() for observed in t[0]]
    np.testing.assert_allclose(heads(effect_tests(dataset(metric=values)), "p_max_t"), expected, rtol=1e-12)


# 400 runs; a rate of 0.05 has a standard deviation of sqrt(0.05 * 0.95 / 400) = 0.011, so that a procedure that keeps
# its level stays below 0.05 + 3 * 0.011 = 0.083 in all but about one of a thousand choices of seeds.
N_RUNS = 400
HIGHEST = 0.05 + 3 * math.sqrt(0.05 * 0.95 / N_RUNS)


@pytest.mark.slow
def test_without_any_effect_a_discovery_is_as_rare_as_promised():
    by_q = by_max_t = uncorrected = 0
    for seed in range(N_RUNS):
        tests = effect_tests(dataset(metric=noise(seed, 20, 16)), n_resamples=399, seed=seed)
        by_q += bool((tests["q"] <= 0.05).any())
        by_max_t += bool((tests["p_max_t"] <= 0.05).any())
        uncorrected += bool((tests["p"] <= 0.05).any())
    # Without a correction the same runs are full of discoveries, so the bounds can fail.
    assert uncorrected / N_RUNS > 0.3
    assert 0.01 < by_max_t / N_RUNS <= HIGHEST
    assert 0.005 < by_q / N_RUNS <= HIGHEST


def test_without_any_effect_p_is_below_a_level_as_often_as_the_level_says():
    p = heads(effect_tests(dataset(metric=np.random.default_rng(0).standard_t(3, size=(10, N_RUNS)))), "p")
    for level in (0.05, 0.2, 0.5):
        assert (p <= level).mean() == pytest.approx(level, abs=3.5 * math.sqrt(level * (1 - level) / N_RUNS))


def test_exactly_the_planted_heads_are_found_and_come_first():
    planted = {(0, 1): 1.5, (1, 3): -2.5, (2, 0): 1.0}
    values = noise(11, 200, 12).reshape(200, 3, 4) / 2
    for (layer, head), effect in planted.items():
        values[:, layer, head] = effect + np.random.default_rng(layer).normal(size=200)
    found = survivors(effect_tests(dataset(metric=values), n_resamples=1999))
    assert list(zip(found["layer"], found["head"], strict=True)) == [(1, 3), (0, 1), (2, 0)]
    assert np.sign(found["effect"]).tolist() == [-1, 1, 1]
    assert found["passes_q"].all()
    assert found["passes_max_t"].all()


def test_survivors_say_which_correction_they_pass():
    coords = {"metric": ["metric"], "layer": [0], "head": range(4)}
    columns = {
        "effect_size": [0.5, -0.9, 0.7, 2.0],
        "n": [20, 20, 20, 20],
        "q": [0.01, 0.04, 0.2, 0.06],
        "p_max_t": [0.2, 0.04, 0.05, 0.051],
    }
    tests = xr.Dataset({k: (("metric", "layer", "head"), np.reshape(v, (1, 1, 4))) for k, v in columns.items()}, coords)
    found = survivors(tests)
    assert found["head"].tolist() == [1, 2, 0]
    assert found["passes_q"].tolist() == [True, False, True]
    assert found["passes_max_t"].tolist() == [True, True, False]
    assert survivors(tests, alpha=0.1)["head"].tolist() == [3, 1, 2, 0]
    assert survivors(tests, alpha=0.001).empty


# --- the smallest effect of interest


def test_effects_whose_whole_interval_is_beyond_the_smallest_one_are_named():
    values = 0.5 * noise(3, 300, 4)[:, [1, 1, 1, 1]] / noise(3, 300, 4)[:, 1].std()
    values += np.array([1.0, 0.2, -1.0, 0.0]) - values.mean(axis=0)
    tests = effect_tests(dataset(metric=values), n_resamples=999)
    found = responding(tests)
    # d_z is 2, 0.4, -2 and 0 by construction; its standard error is about 0.1 at 2 and 0.06 at 0.4.
    assert found["head"].tolist() == [0, 2, 1]
    assert found["beyond"].tolist() == [True, True, False]
    assert responding(tests, 0.2)["beyond"].tolist() == [True] * 3
    assert responding(tests, 2.0)["beyond"].tolist() == [False] * 3
    found = found.drop(columns="beyond").sort_values("head", ignore_index=True)
    assert found.equals(survivors(tests).sort_values("head", ignore_index=True))
    with pytest.raises(InputError, match=r"smallest_effect must be a number of at least 0, got -0\.5"):
        responding(tests, -0.5)


# --- the interval


def test_the_interval_is_scipys_percentile_bootstrap_of_each_head():
    values = noise(6, 25, 4)
    values[[2, 9], 1] = np.nan
    tests = effect_tests(dataset(metric=values), n_resamples=999, seed=3)
    for head, column in enumerate(values.T):
        column = column[~np.isnan(column)]
        result = stats.bootstrap(
            (column,), np.mean, n_resamples=999, method="percentile", rng=np.random.default_rng(3), batch=999
        )
        assert heads(tests, "low")[head] == pytest.approx(result.confidence_interval.low, rel=1e-9)
        assert heads(tests, "high")[head] == pytest.approx(result.confidence_interval.high, rel=1e-9)


def test_the_interval_covers_the_planted_effect_about_as_often_as_it_says():
    values = np.random.default_rng(0).normal(0.2, size=(30, N_RUNS))
    tests = effect_tests(dataset(metric=values), n_resamples=999)
    # 93 % is what this bootstrap covers at 30 pairs; 3.5 standard deviations of 400 such runs are 4.5 %.
    covered = ((heads(tests, "low") <= 0.2) & (heads(tests, "high") >= 0.2)).mean()
    assert 0.885 < covered < 0.975


# --- what is missing, equal or single


def test_missing_pairs_are_left_out_of_the_head_that_misses_them_alone():
    values = noise(7, 12, 3) + 0.5
    holes = values.copy()
    holes[[1, 4], 1] = np.nan
    tests = effect_tests(dataset(metric=holes))
    whole = effect_tests(dataset(metric=values))
    alone = effect_tests(dataset(metric=np.delete(values[:, 1:2], [1, 4], axis=0)))
    for name in ("effect", "low", "high", "effect_size", "n", "p"):
        np.testing.assert_allclose(heads(tests, name)[[0, 2]], heads(whole, name)[[0, 2]], rtol=1e-12)
        np.testing.assert_allclose(heads(tests, name)[1], heads(alone, name)[0], rtol=1e-12)


def test_pairs_without_any_value_do_not_keep_the_test_from_being_exact():
    values = noise(8, 8, 3) + 0.8
    padded = np.concatenate([np.full((30, 3), np.nan), values])
    xr.testing.assert_identical(effect_tests(dataset(metric=padded)), effect_tests(dataset(metric=values)))


def test_two_equal_runs_have_no_effect_and_p_one():
    values = np.concatenate([np.zeros((20, 1)), noise(0, 20, 1) + 2], axis=1)
    tests = effect_tests(dataset(metric=values), n_resamples=199)
    zeros = ("effect", "low", "high", "effect_size", "effect_size_low", "effect_size_high")
    assert [heads(tests, name)[0] for name in zeros] == [0] * 6
    assert [heads(tests, name)[0] for name in ("p", "q", "p_max_t", "p_mean", "q_mean", "p_mean_max_t")] == [1] * 6
    assert [heads(tests, name)[0] for name in ("n", "n_clusters", "n_effective")] == [20] * 3
    assert math.isnan(heads(tests, "icc")[0])
    assert heads(tests, "p")[1] < 0.05


def test_equal_effects_of_all_pairs_have_no_spread_to_compare_with():
    tests = effect_tests(dataset(metric=np.full((8, 1), -0.5)))
    assert heads(tests, "effect_size") == -np.inf
    assert heads(tests, "low") == heads(tests, "high") == -0.5
    assert heads(tests, "p") == 2 / 256


def test_one_pair_has_an_effect_and_nothing_else():
    tests = effect_tests(dataset(metric=np.array([[0.3, -0.2]])))
    assert heads(tests, "effect").tolist() == [0.3, -0.2]
    assert all(np.isnan(heads(tests, name)).all() for name in ("low", "high", "effect_size"))
    assert heads(tests, "p").tolist() == heads(tests, "q").tolist() == heads(tests, "p_max_t").tolist() == [1, 1]
    assert "1 pair no head" in tests.attrs["untestable"]


@pytest.mark.parametrize("values", [np.empty((0, 2)), np.full((4, 2), np.nan)])
def test_no_pairs_at_all_is_an_error(values):
    with pytest.raises(StatementError, match=f"None of the {len(values)} pairs"):
        effect_tests(dataset(metric=values))


def test_variables_of_different_dimensions_are_an_error():
    effects = dataset(metric=np.ones((3, 2)))
    effects["by_role"] = effects["metric"].expand_dims(role=["cue", "cls"])
    with pytest.raises(InputError, match="role"):
        effect_tests(effects)
    with pytest.raises(InputError, match="same dimensions"):
        effect_tests(effects[[]])


def test_roles_are_tested_as_heads_are():
    values = noise(9, 12, 6).reshape(12, 3, 2, 1)
    effects = xr.Dataset(
        {"metric": (("pair", "role", "layer", "head"), values)}, coords={"role": ["cue", "cls", "sep"]}
    )
    tests = effect_tests(effects)
    assert tests["p"].dims == ("metric", "role", "layer", "head")
    flat = effect_tests(dataset(metric=values.reshape(12, 6)))
    np.testing.assert_allclose(tests["q"].values.ravel(), flat["q"].values.ravel())
    assert set(effects_table(tests)["role"]) == {"cue", "cls", "sep"}


# --- invariances


def test_the_same_seed_gives_the_same_numbers():
    effects = dataset(metric=noise(0, 30, 4))
    xr.testing.assert_identical(effect_tests(effects, seed=1), effect_tests(effects, seed=1))
    other = effect_tests(effects, seed=2)
    assert (effect_tests(effects, seed=1)["low"] != other["low"]).any()
    assert (effect_tests(effects, seed=1)["p"] != other["p"]).any()


def test_memory_limits_do_not_change_the_numbers(monkeypatch):
    effects = dataset(one=noise(0, 30, 7), other=noise(1, 30, 7))
    whole = effect_tests(effects, n_resamples=299)
    monkeypatch.setattr(statistics, "_NULL_SIZE", 600)
    monkeypatch.setattr(resampling, "_BATCH_SIZE", 500)
    xr.testing.assert_allclose(effect_tests(effects, n_resamples=299), whole, rtol=1e-12)


@pytest.mark.parametrize(("n_pairs", "same"), [(10, ["effect", "effect_size", "n", "p", "q", "p_max_t"]), (40, [])])
def test_the_order_of_pairs_matters_at_most_to_the_random_draws(n_pairs, same):
    values = noise(0, n_pairs, 5) + 0.3
    order = np.random.default_rng(1).permutation(n_pairs)
    tests, shuffled = (effect_tests(dataset(metric=each)) for each in (values, values[order]))
    for name in same:
        np.testing.assert_allclose(tests[name], shuffled[name], rtol=1e-9)
    # Draws of 9,999: four standard deviations of the difference of two shares are at most 0.028.
    np.testing.assert_allclose(tests["p"], shuffled["p"], atol=0.028)
    np.testing.assert_allclose(tests["low"], shuffled["low"], atol=0.1 * np.nanstd(values))


@settings(max_examples=30)
@given(
    hnp.arrays(
        float,
        st.tuples(st.integers(2, 9), st.integers(1, 5)),
        elements=st.one_of(st.floats(-10, 10, width=16), st.just(math.nan)),
    ).filter(lambda values: bool(np.isfinite(values).any())),
    st.floats(0.1, 100),
    st.randoms(use_true_random=False),
)
def test_sign_scale_and_order_of_heads_do_what_they_should(values, scale, random):
    tests = effect_tests(dataset(metric=values), n_resamples=512)
    flipped = effect_tests(dataset(metric=-values), n_resamples=512)
    scaled = effect_tests(dataset(metric=scale * values), n_resamples=512)
    for name in ("n", "p", "q", "p_max_t"):
        np.testing.assert_allclose(tests[name], flipped[name], rtol=1e-12)
        np.testing.assert_allclose(tests[name], scaled[name], rtol=1e-12)
    for name in ("effect", "effect_size"):
        np.testing.assert_array_equal(tests[name], -flipped[name])
    np.testing.assert_allclose(tests["low"], -flipped["high"], rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(tests["effect"] * scale, scaled["effect"], rtol=1e-9, atol=1e-9)
    order = list(range(values.shape[1]))
    random.shuffle(order)
    permuted = effect_tests(dataset(metric=values[:, order]), n_resamples=512)
    for name in TESTED:
        np.testing.assert_allclose(permuted[name], tests[name].isel(head=order), rtol=1e-9, atol=1e-12)


def test_tiny_effects_are_effects():
    tests = effect_tests(dataset(metric=1e-200 * (1 + np.abs(noise(0, 8, 2)))))
    assert heads(tests, "p").tolist() == [2 / 256] * 2


# --- tables


def test_the_table_has_a_row_per_tested_head_the_largest_effects_of_each_metric_first():
    one, other = noise(0, 20, 3) + np.array([0, -2, 1]), noise(1, 20, 3) + np.array([3, 0, 0])
    other[:, 1] = np.nan
    tests = effect_tests(dataset(b=one, a=other), n_resamples=199)
    table = effects_table(tests)
    assert table.columns.tolist() == ["metric", "layer", "head", *TESTED]
    assert table["metric"].tolist() == ["b"] * 3 + ["a"] * 2
    assert table["head"].tolist()[:4] == [1, 2, 0, 0]
    for row in table.itertuples():
        cell = tests.sel(metric=row.metric, layer=row.layer, head=row.head)
        assert row.p == cell["p"].item()
        assert row.effect == cell["effect"].item()


# --- replication


def grouped(effects_of_group, n_pairs=10, seed=0):
    """Effects [pair, head] of each named group, with a spread of 0.3, and the group of each pair."""
    rng = np.random.default_rng(seed)
    values = [rng.normal(np.asarray(mean), 0.3, size=(n_pairs, len(mean))) for mean in effects_of_group.values()]
    return dataset(metric=np.concatenate(values)), [name for name in effects_of_group for _ in range(n_pairs)]


def test_each_group_has_the_numbers_it_has_alone():
    effects, groups = grouped({"not": [1, 0], "never": [0, 1]}, n_pairs=20)
    result = replication(effects, groups, n_resamples=499, seed=4)
    assert result["group"].values.tolist() == ["never", "not"]
    for name, pairs in (("not", slice(0, 20)), ("never", slice(20, 40))):
        alone = effect_tests(effects.isel(pair=pairs), n_resamples=499, seed=4)
        for number in ("effect", "low", "high", "effect_size", "n", "p"):
            np.testing.assert_array_equal(result[number].sel(group=name), alone[number])


def test_groups_can_be_a_coordinate_of_the_pairs_and_pairs_without_values_do_not_count():
    effects, groups = grouped({"not": [1], "never": [1]})
    effects = effects.assign_coords(cue=("pair", groups))
    as_list = replication(effects, groups)
    xr.testing.assert_identical(replication(effects, effects["cue"]), as_list)
    effects["metric"][10:15] = np.nan
    result = replication(effects, effects["cue"])
    assert result["group"].values.tolist() == ["not"]
    assert result.attrs["too_small"] == ["never (5)"]


def test_p_partial_is_benjamini_and_hellers_of_the_groups_p_values():
    means = {"a": [1, 1, 1, 1, 0], "b": [1, 1, -1, 1, 0], "c": [1, 0, -1, 1, 0], "d": [1, 0, 0.1, -1, 0]}
    effects, groups = grouped(means)
    for u in (1, 2, 3):
        result = replication(effects, groups, at_least=u)
        for head in range(5):
            cell = result.isel(metric=0, layer=0, head=head)
            overall = effects["metric"].values[:, 0, head].mean()
            # One-sided in the direction of all pairs, by scipy, and doubled for having chosen it.
            p = []
            for name in means:
                mine = effects["metric"].values[[group == name for group in groups], 0, head]
                side = "greater" if overall > 0 else "less"
                one_sided = stats.permutation_test(
                    (mine,), np.mean, permutation_type="samples", vectorized=True, n_resamples=1024, alternative=side
                )
                p.append(min(1, 2 * one_sided.pvalue))
            assert cell["p_partial"].item() == pytest.approx(min(1, (4 - u + 1) * sorted(p)[u - 1]), rel=1e-9)
    q = stats.false_discovery_control(result["p_partial"].values.ravel())
    np.testing.assert_allclose(result["q_partial"].values.ravel(), q)


def test_replicated_counts_groups_that_point_the_overall_way():
    effects, groups = grouped({"a": [1, 1, 0], "b": [1, 1, 0], "c": [1, -0.6, 0]})
    effects["metric"][:, 0, 2] = 0.01 + 0.3 * (-1.0) ** np.arange(30)
    result = replication(effects, groups).isel(metric=0, layer=0)
    assert result["replicated"].values.tolist() == [3, 2, 0]
    assert result["n_groups"].values.tolist() == [3, 3, 3]


def test_an_effect_in_one_group_alone_is_not_taken_for_a_replicated_one():
    # 400 heads, each with a huge effect in the first group alone: the hypothesis "in fewer than two" is true.
    effects, groups = grouped({"a": [3] * N_RUNS, "b": [0] * N_RUNS, "c": [0] * N_RUNS})
    p = replication(effects, groups)["p_partial"].values.ravel()
    assert 0.01 < (p <= 0.05).mean() <= HIGHEST
    both, groups = grouped({"a": [3] * 10, "b": [3] * 10, "c": [0] * 10})
    assert (replication(both, groups)["p_partial"] <= 0.05).all()


def test_small_groups_are_named_and_not_counted():
    effects, groups = grouped({"a": [1], "b": [1], "c": [1]})
    result = replication(effects.isel(pair=slice(0, 25)), groups[:25])
    assert result["group"].values.tolist() == ["a", "b"]
    assert result.attrs["too_small"] == ["c (5)"]
    assert result["n_groups"].item() == 2
    only = replication(effects.isel(pair=slice(0, 15)), groups[:15])
    assert only["n_groups"].item() == 1
    assert np.isnan(only["p_partial"].item())
    with pytest.raises(
        StatementError, match=r"No group has at least 11 pairs with a value: a \(10\), b \(10\), c \(10\)"
    ):
        replication(effects, groups, min_pairs=11)


def test_a_group_that_misses_a_head_does_not_count_there():
    effects, groups = grouped({"a": [1, 1], "b": [1, 1], "c": [1, 1]})
    effects["metric"][0:5, 0, 1] = np.nan
    result = replication(effects, groups).isel(metric=0, layer=0)
    assert result["n_groups"].values.tolist() == [3, 2]
    assert result["replicated"].values.tolist() == [3, 2]
    p = np.sort(result["p"].sel(group=["b", "c"], head=1))
    assert result["p_partial"].values[1] == pytest.approx(p[1])
    in_three = replication(effects, groups, at_least=3).isel(metric=0, layer=0)["p_partial"]
    assert np.isnan(in_three).values.tolist() == [False, True]


def test_one_group_for_each_pair_is_asked_for():
    effects, groups = grouped({"a": [1], "b": [1]})
    with pytest.raises(InputError, match="20 pairs and groups of shape"):
        replication(effects, groups[:-1])
    with pytest.raises(InputError, match=r"at_least must be between 1 and .* got 0"):
        replication(effects, groups, at_least=0)


# --- agreement


def test_agreement_is_spearmans_over_heads_and_names_those_that_differ_in_sign():
    raw = noise(0, 60, 12) + np.linspace(-1.5, 1.5, 12)
    norm = noise(1, 60, 12) + np.linspace(-1.5, 1.5, 12)
    norm[:, 11] -= 4
    norm[:, 0] += 2
    tests = effect_tests(dataset(raw=raw, norm=norm), n_resamples=999)
    result = agreement(tests, "raw", "norm")
    correlation, p = stats.spearmanr(raw.mean(axis=0), norm.mean(axis=0))
    assert result.correlation == pytest.approx(correlation)
    assert result.p == pytest.approx(p)
    q = tests["q"].sel(layer=0).values
    means = np.stack([raw.mean(axis=0), norm.mean(axis=0)])
    expected = [head for head in range(12) if means[:, head].prod() < 0 and q[:, head].min() <= 0.05]
    assert sorted(result.disagreeing["head"]) == expected
    assert result.disagreeing["head"].tolist()[:2] == [11, 0]
    assert result.disagreeing["effect raw"].iloc[0] == pytest.approx(raw[:, 11].mean())


def test_agreement_of_a_map_that_does_not_vary_is_undefined():
    tests = effect_tests(dataset(raw=np.zeros((8, 4)), norm=noise(0, 8, 4)))
    result = agreement(tests, "raw", "norm")
    assert math.isnan(result.correlation)
    assert result.disagreeing.empty
    with pytest.raises(InputError, match="'nrm' was not tested; the tested metrics are raw, norm"):
        agreement(tests, "raw", "nrm")
