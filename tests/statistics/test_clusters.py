"""Tests over clusters keep their error rates where pairs share material, and describe how much they share."""

import itertools
import math

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from scipy import stats

from negprobe.base.errors import InputError
from negprobe.statistics import MIN_CLUSTERS, effect_tests, replication, responding
from tests.statistics.test_statistics import TESTED, dataset, heads, noise

N_RUNS = 200

PINNED = {
    "effect": [-0.5904361279661804, 0.4886607708183074, 0.5597346362518045, -0.34630423387520354],
    "low": [-1.8715394905506455, 0.163406386537668, 0.2552508059343989, -0.9549753609549397],
    "high": [0.3718318432414266, 0.807957861454637, 0.8756230442327373, 0.3124386194165651],
    "effect_size": [-0.18143732604071314, 0.5429673202480118, 0.6056725472199239, -0.18696282581304915],
    "n": [30.0, 30.0, 30.0, 30.0],
    "p": [0.421, 0.008, 0.001, 0.325],
    "q": [0.421, 0.016, 0.004, 0.421],
    "p_max_t": [0.839, 0.013, 0.004, 0.818],
}


def clustered(seed, n_clusters, per_cluster, n_heads, icc):
    """Effects without a mean that are correlated within clusters, and the cluster of each pair."""
    rng = np.random.default_rng(seed)
    labels = np.repeat([f"c{index}" for index in range(n_clusters)], per_cluster)
    shared = np.repeat(rng.normal(size=(n_clusters, n_heads)), per_cluster, axis=0)
    own = rng.normal(size=(len(labels), n_heads))
    return np.sqrt(icc) * shared + np.sqrt(1 - icc) * own, labels


# --- the numbers of pairs that are their own clusters


def test_clusters_of_one_pair_change_no_number():
    effects = dataset(metric=noise(0, 15, 6) + 0.3)
    effects["metric"][2:5, 0, 1] = np.nan
    alone = effect_tests(effects, n_resamples=299)
    xr.testing.assert_identical(effect_tests(effects, clusters=list("abcdefghijklmno"), n_resamples=299), alone)
    xr.testing.assert_identical(effect_tests(effects, clusters=[""] * 15, n_resamples=299), alone)


def test_the_numbers_without_clusters_stay():
    # Computed before `effect_tests` had clusters.
    tests = effect_tests(dataset(metric=noise(0, 30, 4) + np.array([0, 0.3, 0.6, -0.4])), n_resamples=999, seed=3)
    for name, expected in PINNED.items():
        np.testing.assert_allclose(heads(tests, name), expected, rtol=1e-12)


# --- sign flips


def test_p_is_that_of_all_flips_of_whole_clusters():
    values, labels = clustered(1, 7, 4, 5, 0.3)
    values += np.linspace(0, 1.5, 5)
    values[[0, 9, 10], 2] = np.nan
    tests = effect_tests(dataset(metric=values), clusters=labels)
    table = pd.DataFrame(values).groupby(labels).sum()
    flips = np.array(list(itertools.product([1, -1], repeat=7)))
    null = np.abs(flips @ table.to_numpy())
    np.testing.assert_allclose(heads(tests, "p"), (null >= null[0] - 1e-12).mean(axis=0), rtol=1e-12)
    scaled = null / np.sqrt((table.to_numpy() ** 2).sum(axis=0))
    expected = (scaled.max(axis=1, keepdims=True) >= scaled[0] - 1e-12).mean(axis=0)
    np.testing.assert_allclose(heads(tests, "p_max_t"), expected, rtol=1e-12)
    assert heads(tests, "n_clusters").tolist() == [7] * 5
    assert heads(tests, "n").tolist() == [28, 28, 25, 28, 28]


def test_pairs_of_ten_clusters_make_false_discoveries_that_clusters_do_not():
    by_pairs = by_clusters = 0
    for seed in range(N_RUNS):
        values, labels = clustered(seed, 10, 4, 12, 0.3)
        effects = dataset(metric=values)
        by_pairs += (heads(effect_tests(effects, n_resamples=199), "p_max_t") <= 0.05).any()
        tests = effect_tests(effects, clusters=labels, n_resamples=199)
        by_clusters += (heads(tests, "p_max_t") <= 0.05).any()
    assert by_pairs / N_RUNS > 0.2
    # 3.5 standard deviations of a share of 5 % above it.
    assert by_clusters / N_RUNS <= 0.104


def test_the_order_of_labels_and_pairs_within_clusters_does_not_matter():
    values, labels = clustered(2, 9, 3, 4, 0.2)
    order = np.argsort(np.tile(np.arange(3), 9), kind="stable")
    tests = effect_tests(dataset(metric=values + 0.3), clusters=labels, n_resamples=512)
    shuffled = effect_tests(dataset(metric=values[order] + 0.3), clusters=labels[order], n_resamples=512)
    for name in ("effect", "p", "p_max_t", "p_mean", "icc", "n_effective", "effect_size_low"):
        np.testing.assert_allclose(tests[name], shuffled[name], rtol=1e-9)


# --- the mean


def slow_p_mean(values, labels, n_resamples, seed):
    """The equal-tailed bootstrap-t of one head by loops over the drawn clusters' pairs."""
    groups = [values[labels == label] for label in dict.fromkeys(labels)]

    def t(drawn, center):
        pairs = np.concatenate(drawn)
        mean = pairs.mean()
        squares = sum(((group - mean).sum()) ** 2 for group in drawn)
        return (mean - center) / (math.sqrt(squares) / len(pairs))

    observed = t(groups, 0.0)
    rng = np.random.default_rng(seed)
    counts = rng.multinomial(len(groups), np.full(len(groups), 1 / len(groups)), size=n_resamples)
    null = []
    for count in counts:
        drawn = [group for group, times in zip(groups, count, strict=True) for _ in range(times)]
        null.append(t(drawn, values.mean()))
    above, below = (np.array(null) >= observed).sum(), (np.array(null) <= observed).sum()
    return observed, null, min(1, 2 * (min(above, below) + 1) / (n_resamples + 1))


def test_p_mean_is_the_bootstrap_t_over_clusters():
    values, labels = clustered(5, 9, 3, 3, 0.3)
    values, labels = values[:-2] + np.array([0, 0.4, 1.5]), labels[:-2]
    tests = effect_tests(dataset(metric=values), clusters=labels, n_resamples=299, seed=2)
    slow = [slow_p_mean(column, labels, 299, 2) for column in values.T]
    np.testing.assert_allclose(heads(tests, "p_mean"), np.maximum([p for *_, p in slow], 2 / 2**9), rtol=1e-9)
    null = np.array([null for _, null, _ in slow])
    largest, smallest = null.max(axis=0), null.min(axis=0)
    joint = [
        min(1, 2 * (min((largest >= observed).sum(), (smallest <= observed).sum()) + 1) / 300)
        for observed, _, _ in slow
    ]
    np.testing.assert_allclose(heads(tests, "p_mean_max_t"), joint, rtol=1e-9)
    q = stats.false_discovery_control(heads(tests, "p_mean"))
    np.testing.assert_allclose(heads(tests, "q_mean"), q)


def test_skewed_effects_of_mean_zero_make_false_discoveries_that_the_test_of_the_mean_does_not():
    symmetry = mean = 0
    for seed in range(N_RUNS):
        values = np.random.default_rng(seed).exponential(size=(20, 24)) - 1
        tests = effect_tests(dataset(metric=values), n_resamples=199)
        symmetry += (heads(tests, "p_max_t") <= 0.05).any()
        mean += (heads(tests, "p_mean_max_t") <= 0.05).any()
    assert symmetry / N_RUNS > 0.3
    assert mean / N_RUNS <= 0.104


def test_skewed_effects_of_mean_zero_are_not_named():
    outside = named = 0
    for seed in range(50):
        values = np.random.default_rng(seed).lognormal(size=(20, 24)) - np.exp(0.5)
        tests = effect_tests(dataset(metric=values), n_resamples=199)
        significant = tests["p_max_t"] <= 0.05
        outside += ((tests["effect_size_high"] < -0.5) & significant).any().item()
        named += responding(tests)["beyond"].any()
    assert outside >= 5
    assert named <= 1


def test_the_mean_is_tested_with_enough_clusters_only():
    values, labels = clustered(0, MIN_CLUSTERS, 3, 2, 0.1)
    assert np.isfinite(effect_tests(dataset(metric=values), clusters=labels, n_resamples=99)["p_mean"]).all()
    few = labels != "c0"
    tests = effect_tests(dataset(metric=values[few]), clusters=labels[few], n_resamples=99)
    assert np.isnan([heads(tests, name) for name in ("p_mean", "q_mean", "p_mean_max_t")]).all()
    assert "7 clusters" in tests.attrs["untestable_mean"]
    assert "untestable" not in tests.attrs


def test_equal_effects_of_all_pairs_have_a_mean_for_certain():
    tests = effect_tests(dataset(metric=np.full((12, 1), 0.1)), n_resamples=999)
    assert heads(tests, "p_mean") == pytest.approx(2 / 1000)
    assert heads(tests, "effect_size_low") == heads(tests, "effect_size_high") == np.inf


# --- too few


def test_too_few_clusters_are_untestable_however_many_pairs():
    values, labels = clustered(0, 5, 40, 3, 0.1)
    tests = effect_tests(dataset(metric=values + 1), clusters=labels)
    assert "5 clusters" in tests.attrs["untestable"]
    assert (tests["p"] >= 0.0625).all()
    crossed = {"noun": labels, "cue": [f"q{index % 40}" for index in range(200)]}
    assert "5 clusters" in effect_tests(dataset(metric=values + 1), clusters=crossed).attrs["untestable"]


# --- intraclass correlation


def test_the_intraclass_correlation_is_that_of_the_analysis_of_variance():
    values, labels = clustered(3, 8, 6, 4, 0.4)
    keep = np.arange(48) % 5 > 0
    values, labels = values[keep], labels[keep]
    values[:3, 1] = np.nan
    tests = effect_tests(dataset(metric=values), clusters=labels, n_resamples=9)
    for head, column in enumerate(values.T):
        groups = [column[(labels == label) & ~np.isnan(column)] for label in dict.fromkeys(labels)]
        sizes = np.array([len(group) for group in groups if len(group)])
        m0 = (sizes.sum() - (sizes**2).sum() / sizes.sum()) / (len(sizes) - 1)
        f = stats.f_oneway(*[group for group in groups if len(group)]).statistic
        icc = (f - 1) / (f + m0 - 1)
        assert heads(tests, "icc")[head] == pytest.approx(icc)
        assert heads(tests, "n_effective")[head] == pytest.approx(sizes.sum() / (1 + (m0 - 1) * max(icc, 0)))


def test_the_intraclass_correlation_is_the_published_one_of_shrout_and_fleiss():
    # Shrout and Fleiss 1979, table 2: six targets, four judges; ICC(1,1) is 0.17.
    ratings = np.array([[9, 2, 5, 8], [6, 1, 3, 2], [8, 4, 6, 8], [7, 1, 2, 6], [10, 5, 6, 9], [6, 2, 4, 7]], float)
    tests = effect_tests(dataset(metric=ratings.reshape(24, 1)), clusters=np.repeat(list("abcdef"), 4), n_resamples=9)
    assert heads(tests, "icc")[0] == pytest.approx(0.17, abs=0.005)


def test_single_pairs_have_no_intraclass_correlation_and_are_all_effective():
    tests = effect_tests(dataset(metric=noise(0, 9, 2)), n_resamples=9)
    assert np.isnan(heads(tests, "icc")).all()
    assert heads(tests, "n_effective").tolist() == [9, 9]


# --- intervals


def test_the_interval_of_the_mean_is_scipys_bootstrap_over_clusters():
    values, labels = clustered(4, 12, 3, 2, 0.3)
    tests = effect_tests(dataset(metric=values), clusters=labels, n_resamples=499, seed=5)
    for head, column in enumerate(values.T):
        groups = column.reshape(12, 3)
        result = stats.bootstrap(
            (np.arange(12),), lambda drawn, groups=groups: groups[drawn].mean(),
            vectorized=False, n_resamples=499, method="percentile", rng=np.random.default_rng(5),
        )  # fmt: skip
        assert heads(tests, "low")[head] == pytest.approx(result.confidence_interval.low)
        assert heads(tests, "high")[head] == pytest.approx(result.confidence_interval.high)


@pytest.mark.parametrize(("n_clusters", "per_cluster", "icc"), [(20, 1, 0), (10, 4, 0.3), (34, 3, 0.3)])
@pytest.mark.parametrize("d", [0.0, 0.5, 1.0])
def test_the_interval_of_d_z_covers_the_planted_effect(n_clusters, per_cluster, icc, d):
    values, labels = clustered(0, n_clusters, per_cluster, 1000, icc)
    tests = effect_tests(dataset(metric=values + d), clusters=labels, n_resamples=9)
    covered = (heads(tests, "effect_size_low") <= d) & (heads(tests, "effect_size_high") >= d)
    # 93 to 96 %; 3.5 standard deviations of 1,000 runs are 2.5 %.
    assert 0.905 < covered.mean() < 0.985


def test_the_interval_of_d_z_of_independent_pairs_is_that_of_its_linear_approximation():
    values = noise(3, 40, 1) + 0.5
    tests = effect_tests(dataset(metric=values), n_resamples=9)

    # The delta method with the gradient of mean / standard deviation taken numerically.
    def size(weights):
        mean = (weights @ values) / weights.sum()
        return mean / np.sqrt((weights @ (values - mean) ** 2) / weights.sum())

    step = 1e-5
    influence = np.array([(size(np.ones(40) + step * row) - size(np.ones(40))) / step for row in np.eye(40)])
    error = math.sqrt((influence**2).sum() * 40 / 39)
    half = stats.t.ppf(0.975, 39) * error
    assert heads(tests, "effect_size_high")[0] - heads(tests, "effect_size")[0] == pytest.approx(half, rel=0.03)


# --- two crossed factors


def crossed(seed, n_nouns, n_cues, n_heads, of_nouns, of_cues):
    """Effects of each noun with each cue, without a mean, and the labels of both."""
    rng = np.random.default_rng(seed)
    nouns, cues = np.divmod(np.arange(n_nouns * n_cues), n_cues)
    values = np.sqrt(of_nouns) * rng.normal(size=(n_nouns, n_heads))[nouns]
    values += np.sqrt(of_cues) * rng.normal(size=(n_cues, n_heads))[cues]
    values += np.sqrt(1 - of_nouns - of_cues) * rng.normal(size=(len(nouns), n_heads))
    return values, {"noun": nouns.astype(str), "cue": cues.astype(str)}


def slow_p_crossed(column, factors):
    """The larger p of both factors: the flips' t over clusters against the t with the two-way standard error."""
    deviations = column - column.mean()

    def variance(labels):
        sums = pd.Series(deviations).groupby(labels).sum()
        return (sums**2).sum() * len(sums) / (len(sums) - 1)

    one, other = factors.values()
    both = [f"{noun} {cue}" for noun, cue in zip(one, other, strict=True)]
    together = max(variance(one), variance(other), variance(one) + variance(other) - variance(both))
    p = []
    for labels in (one, other):
        sums = pd.Series(column).groupby(labels).sum().to_numpy()
        flips = np.array(list(itertools.product([1, -1], repeat=len(sums))))
        null = np.abs(stats.ttest_1samp(flips * sums, 0, axis=1).statistic)
        p.append((null >= null[0] * math.sqrt(variance(labels) / together) - 1e-9).mean())
    return max(p)


def test_two_factors_have_the_standard_error_of_both_and_the_smaller_number_of_units():
    values, factors = crossed(0, 9, 8, 4, 0.2, 0.2)
    values += np.linspace(0, 1, 4)
    effects = dataset(metric=values)
    both = effect_tests(effects, clusters=factors, n_resamples=999)
    np.testing.assert_allclose(heads(both, "p"), [slow_p_crossed(column, factors) for column in values.T])
    alone = [effect_tests(effects, clusters=labels, n_resamples=999) for labels in factors.values()]
    for name in ("p", "p_max_t", "p_mean", "p_mean_max_t"):
        assert (both[name] >= np.maximum(*(tests[name].values for tests in alone)) - 1e-12).all()
    assert (both["p"] > np.maximum(*(tests["p"].values for tests in alone))).any()
    assert (both["p_mean"] > np.maximum(*(tests["p_mean"].values for tests in alone))).any()
    assert (both["n_clusters"] == 8).all()
    np.testing.assert_allclose(both["n_effective"], np.minimum(*(tests["n_effective"].values for tests in alone)))
    np.testing.assert_allclose(both["icc"], np.maximum(*(tests["icc"].values for tests in alone)))
    as_table = effect_tests(effects, clusters=pd.DataFrame(factors), n_resamples=999)
    xr.testing.assert_identical(as_table, both)


def test_a_factor_given_twice_is_that_factor():
    values, labels = clustered(4, 9, 4, 3, 0.3)
    values[5, 1] = np.nan
    one = effect_tests(dataset(metric=values + 0.3), clusters=labels, n_resamples=999)
    twice = effect_tests(dataset(metric=values + 0.3), clusters={"a": labels, "b": labels}, n_resamples=999)
    for name in (name for name in TESTED if name not in ("low", "high")):
        np.testing.assert_allclose(twice[name], one[name], rtol=1e-9)


def test_the_order_of_two_factors_does_not_change_p():
    values, factors = crossed(1, 10, 8, 3, 0.2, 0.2)
    one, other = (
        effect_tests(dataset(metric=values), clusters=dict(order), n_resamples=512)
        for order in (factors.items(), reversed(factors.items()))
    )
    for name in ("p", "p_max_t", "p_mean", "icc", "effect_size_low"):
        np.testing.assert_allclose(one[name], other[name], rtol=1e-9)


def test_crossed_factors_keep_the_error_rate_and_the_interval_covers():
    false, missed = 0, 0
    for seed in range(N_RUNS):
        values, factors = crossed(seed, 14, 14, 12, 0.3, 0.3)
        tests = effect_tests(dataset(metric=values), clusters=factors, n_resamples=199)
        false += (heads(tests, "p_max_t") <= 0.05).any()
        missed += ((heads(tests, "low") > 0) | (heads(tests, "high") < 0)).mean()
    assert false / N_RUNS <= 0.104
    assert missed / N_RUNS < 0.12


@pytest.mark.parametrize("name", TESTED)
def test_every_number_of_one_factor_given_by_name_is_that_of_its_labels(name):
    values, labels = clustered(0, 9, 2, 3, 0.3)
    one, other = (effect_tests(dataset(metric=values), clusters=c, n_resamples=99) for c in (labels, {"noun": labels}))
    np.testing.assert_array_equal(one[name], other[name])


# --- replication over clusters


def test_each_group_is_tested_over_its_clusters():
    values, labels = clustered(6, 8, 4, 3, 0.3)
    cues = np.tile(["not", "not", "never", "never"], 8)
    effects = dataset(metric=values + np.array([0, 1, 2]))
    found = replication(effects, cues, clusters=labels, n_resamples=499)
    for cue in ("not", "never"):
        alone = effect_tests(effects.isel(pair=cues == cue), clusters=labels[cues == cue], n_resamples=499)
        for name in ("p", "low", "n_clusters"):
            np.testing.assert_array_equal(found[name].sel(group=cue), alone[name])


def test_a_group_with_too_few_clusters_is_not_tested():
    values, labels = clustered(6, 8, 4, 1, 0.3)
    cues = np.where(np.isin(labels, ["c0", "c1"]), "never", "not")
    found = replication(dataset(metric=values), cues, clusters=labels, n_resamples=99)
    assert found["group"].values.tolist() == ["not"]
    assert found.attrs["too_small"] == ["never (2)"]


# --- wrong labels


@pytest.mark.parametrize(
    ("clusters", "message"),
    [
        (["a"] * 3, "4 pairs and groups of shape"),
        (pd.Series(["a", "b", None, "c"]), "1 of the 4 pairs have no name"),
        ({}, "got 0"),
        ({name: list("aabb") for name in ("noun", "cue", "verb")}, "got 3: noun, cue, verb"),
        (np.zeros((4, 2)), "shape"),
    ],
)
def test_clusters_that_do_not_fit_the_pairs_are_an_error(clusters, message):
    with pytest.raises(InputError, match=message):
        effect_tests(dataset(metric=noise(0, 4, 2)), clusters=clusters)
