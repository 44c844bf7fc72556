"""Statistics over pairs: the unit is the pair, and negation is compared with a length-matched control."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import xarray as xr
from einops import rearrange
from jaxtyping import Bool, Float, Int
from scipy import stats

from negprobe.base.arguments import checked
from negprobe.base.errors import InputError, StatementError
from negprobe.base.texts import quoted
from negprobe.statistics.cluster_tests import MIN_CLUSTERS, Columns, block_tests, corrected, most_cautious
from negprobe.statistics.clusters import Clusters, Labels, cluster_codes, intraclass_correlation
from negprobe.statistics.effect_sizes import effect_size_intervals, effect_sizes
from negprobe.statistics.resampling import intervals_of_means

ALPHA = 0.05
"""The default significance level."""

MIN_PAIRS = 6
"""The smallest number of pairs for which a sign-flip test can reach p < 0.05 (with 5 pairs, p is at least 0.0625)."""

SMALLEST_EFFECT = 0.5
"""The default smallest effect of interest, as d_z: half a standard deviation of the pairs' effects.

A normal effect of this size has the expected sign in 69% of pairs; a smaller one says little about a single pair. Any
change of the residual stream reaches every later head, so with enough pairs every head responds significantly.
"""

MAX_RESAMPLES = 10**6
"""The maximum number of resamples; more would take very long and add almost no precision."""

_NULL_SIZE = 2**24
"""The maximum size of a null or bootstrap distribution in memory (resamples times heads): 128 MiB of float64."""

_VALUES_SIZE = 2**22
"""The maximum number of values in memory (pairs times heads): 32 MiB of float64."""


@checked
def negation_effects(metrics: xr.Dataset) -> xr.Dataset:
    """The effect of negation in each pair: counterfactual minus control, which has a neutral word of the same length.

    Args:
        metrics: Variables with the dimensions pair and compared (coordinates "counterfactual" and "control") and any
            others, as `AttentionProbe.metrics` returns them. Variables without `compared` are left out.

    Returns:
        The same variables without the dimension `compared`. A value is NaN if that of the counterfactual or the control
        is NaN. It is 0 if the two differ by at most the attribute `rounding` of `metrics`, so that a rounding error
        does not count as an effect: in the first layer, replacing one word can leave the attention between other words
        unchanged.

    Raises:
        InputError: if no variable has a counterfactual and a control.
    """
    if not {"counterfactual", "control"} <= set(metrics.get("compared", xr.DataArray([])).values.tolist()):
        raise InputError(
            f"The effect of negation needs variables along `compared` with the coordinates counterfactual and control; "
            f"got the dimensions {', '.join(map(str, metrics.dims))}. Pass the result of AttentionProbe.metrics."
        )
    both = metrics[[name for name, variable in metrics.data_vars.items() if "compared" in variable.dims]]
    effects = both.sel(compared="counterfactual", drop=True) - both.sel(compared="control", drop=True)
    return effects.where(~(abs(effects) <= metrics.attrs.get("rounding", 0.0)), 0.0)


@checked
def effect_tests(
    effects: xr.Dataset, *, clusters: Clusters | None = None, n_resamples: int = 9999, seed: int = 0
) -> xr.Dataset:
    """Tests of the effect of every head over the pairs, corrected for multiple testing.

    The unit is the cluster: pairs that share material, such as a noun or a template, are not independent. Two null
    hypotheses are tested for each head.

    Symmetry (`p`, `q`, `p_max_t`): the summed effects D of a cluster and -D are equally likely, so that counterfactual
    and control are exchangeable. Effects with a mean of 0 that are distributed asymmetrically also violate it. A
    resample flips the signs of whole clusters, for all heads and metrics together. The statistic is the sum of the
    effects divided by the square root of the sum of the clusters' squared sums. Flips do not change that denominator,
    so the statistic orders them as |t| does. All 2^n flips are used if `n_resamples` is large enough; otherwise random
    flips are drawn, and the observed data count as one of them.

    Mean zero (`p_mean`, `q_mean`, `p_mean_max_t`): the mean effect is 0, whatever the distribution. The test is the
    equal-tailed bootstrap-t over clusters (see `resampling.bootstrap_t`). In simulated studies of 20 pairs, 72 heads
    and 4 metrics (`benchmarks/false_discoveries.py`), exponential effects of mean 0 give a false discovery by `p_max_t`
    in 58% of studies and by `p_mean_max_t` in 1%; log-normal ones in 90% and in 0%. It is the cautious one with few
    clusters: effects of one standard deviation in 10 clusters of 28 pairs with an intraclass correlation of 0.3 are
    found in 44% by `p_max_t` and in 3% by `p_mean_max_t`. The uncorrected `p_mean` is at most 0.05 in 9% of cells with
    20 log-normal effects and in 6% with exponential ones.

    `q` controls the false discovery rate if the heads are independent or positively dependent (Benjamini and Hochberg
    1995; Benjamini and Yekutieli 2001). `p_max_t` controls the probability of any false discovery under every
    dependence: each statistic is compared with the largest one of all heads and metrics under the same flips (the
    single-step maxT of Westfall and Young 1993).

    With two crossed factors, t has the standard error of both together (Cameron, Gelbach and Miller 2011), and p is the
    larger of those of the two factors (see `cluster_tests.block_tests`). In simulated studies of 280 pairs that cross
    10 or 34 nouns with 8 to 34 cues, max-T has a false discovery in 0 to 5% of studies; with the larger p of two
    one-way tests it had one in 10 to 12%. A crossed factor with few levels leaves little power; whether effects hold
    beyond these levels is the question of `holds_for_new`.

    The intervals are percentile bootstrap intervals over clusters. In 2,000 simulations with 20 pairs each, they
    covered the mean of normal, t(3) and log-normal effects in 92, 92 and 85% of cases, and BCa intervals in 92, 89 and
    88%: no better overall, and BCa is undefined if all effects are equal. With few pairs both are too narrow (88% for 8
    normal effects; 89% for 10 clusters and 93% for 34 with an intraclass correlation of 0.3). With two crossed factors,
    the clusters of both are drawn (Owen 2007), which covered 92 to 97%. The interval of d_z is not a bootstrap one:
    see `effect_sizes.effect_size_intervals`.

    Args:
        effects: Variables with the same dimensions, `pair` and any others (layer and head; also role), as
            `negation_effects` returns them. NaN excludes a pair from the test of that head and metric only.
        clusters: The cluster of each pair, such as `effects["cluster"]`, where "" is a cluster of one pair; or one or
            two crossed factors by name, such as {"noun": nouns, "cue": cues}. By default each pair is its own cluster.
        n_resamples: Number of sign flips, and of bootstrap samples.
        seed: Seed for both.

    Returns:
        Variables [metric, layer, head] (or the dimensions other than pair that `effects` has): `effect` (the mean, in
        units of the metric), `low` and `high` (its 95% interval, NaN with fewer than two clusters), `effect_size`
        (Cohen's d_z, the mean over the standard deviation of the pairs' effects; 0 if the mean is 0), `effect_size_low`
        and `effect_size_high` (its 95% interval), `n` (pairs), `n_clusters`, `icc` (the intraclass correlation of the
        effects within clusters; NaN if all clusters are single pairs), `n_effective` (n / (1 + (m0 - 1) icc) with the
        mean cluster size m0: so many independent pairs would be as informative), `p` (two-sided; 1 if all effects are
        0), `q` and `p_max_t` (corrected over all cells of this call), and `p_mean`, `q_mean` and `p_mean_max_t` (NaN
        with fewer than `MIN_CLUSTERS` clusters). NaN if n is 0. With two factors, `n_clusters` and `n_effective` are
        the smaller, and `icc` is the larger.
        The attribute `untestable` is present if there are too few clusters for any head to reach p = 0.05, the
        attribute `untestable_mean` if there are too few for the test of the mean, and the attribute `resolution` if p
        is too coarse for a single head to reach q = 0.05. Each is a sentence that explains this.

    Raises:
        InputError: if there are no variables, their dimensions differ, `n_resamples` is not between 1 and
            `MAX_RESAMPLES`, the seed is negative, or `clusters` does not have one label per pair, or more than two
            factors.
        StatementError: if no pair has a value.
    """
    if not 1 <= n_resamples <= MAX_RESAMPLES or seed < 0:
        raise InputError(
            f"n_resamples must be between 1 and {MAX_RESAMPLES}, and seed must be at least 0; got "
            f"n_resamples={quoted(n_resamples)} and seed={quoted(seed)}."
        )
    present = present_pairs(effects)
    # Numbered again without the pairs that have no value.
    factors = [pd.factorize(codes[present])[0] for codes in cluster_codes(clusters, effects.sizes["pair"])]
    described, tested = [], []
    for values in _blocks(effects, present, n_resamples):
        described.append(_described(values, factors, n_resamples, seed))
        tested.append(block_tests(values, factors, n_resamples, seed))
    described_cells = {name: np.concatenate([block[name] for block in described]) for name in described[0]}
    tests = most_cautious(
        [
            corrected(blocks, exact=2 ** int(codes.max() + 1) <= n_resamples)
            for blocks, codes in zip(zip(*tested, strict=True), factors, strict=True)
        ]
    )
    columns = {
        **described_cells,
        **{name: tests[name] for name in ("n_clusters", "icc", "n_effective", "p")},
        "q": false_discovery(tests["p"]),
        **{name: tests[name] for name in ("p_max_t", "p_mean")},
        "q_mean": false_discovery(tests["p_mean"]),
        "p_mean_max_t": tests["p_mean_max_t"],
    }
    limits = _limits(columns, factors, n_resamples)
    return _of_cells(effects, columns).assign_attrs(n_resamples=n_resamples, seed=seed, **limits)


@checked
def intraclass_correlations(effects: xr.Dataset, groups: Labels) -> xr.Dataset:
    """How alike the effects of pairs in the same group are, for every head (see `clusters.intraclass_correlation`).

    Args:
        effects: As for `effect_tests`.
        groups: The group of each pair, such as `effects["cue"]`; "" is a group of one pair.

    Returns:
        Variables [metric, layer, head]: `icc`, the one-way intraclass correlation ICC(1), NaN if no group has two
        pairs; and `n_effective`, the number of independent pairs that would be as informative.

    Raises:
        InputError: if there is not one group for each pair, or as `effect_tests`.
        StatementError: if no pair has a value.
    """
    codes = cluster_codes(groups, effects.sizes.get("pair", 0))[0]
    present = present_pairs(effects)
    found = [intraclass_correlation(values, pd.factorize(codes[present])[0]) for values in _blocks(effects, present, 1)]
    icc, n_effective = map(np.concatenate, zip(*found, strict=True))
    return _of_cells(effects, {"icc": icc, "n_effective": n_effective})


def _of_cells(effects: xr.Dataset, columns: Columns) -> xr.Dataset:
    """The values of all cells as variables with the dimensions of the effects, without pair."""
    whole = _cells_of(effects)
    dims = ("metric", *(str(dim) for dim in whole.dims if dim != "pair"))
    shape = (len(effects.data_vars), *(whole.sizes[dim] for dim in dims[1:]))
    coords = {name: coord for name, coord in whole.coords.items() if "pair" not in coord.dims}
    return xr.Dataset(
        {name: (dims, column.reshape(shape)) for name, column in columns.items()},
        coords={"metric": list(effects.data_vars), **coords},
    )


def _described(
    values: Float[np.ndarray, "pair cell"], factors: Sequence[Int[np.ndarray, " pair"]], n_resamples: int, seed: int
) -> Columns:
    """Mean and d_z of each cell with their intervals, and the number of pairs."""
    effect, effect_size = effect_sizes(values)
    low, high = intervals_of_means(values, factors, n_resamples, seed)
    size_low, size_high = effect_size_intervals(values, factors)
    return {
        "effect": effect,
        "low": low,
        "high": high,
        "effect_size": effect_size,
        "effect_size_low": size_low,
        "effect_size_high": size_high,
        "n": np.isfinite(values).sum(axis=0),
    }


@checked
def effects_table(tests: xr.Dataset) -> pd.DataFrame:
    """The tests as a tidy table: one row per metric, layer and head with data, sorted by |d_z| within each metric.

    Args:
        tests: The result of `effect_tests`.

    Returns:
        Columns `metric`, `layer`, `head` (and any other dimension), then the variables of the tests.

    Raises:
        InputError: if `tests` is not a result of `effect_tests`.
    """
    _check_tests(tests, "effect_size", "n")
    table = tests.to_dataframe().reset_index()
    metric = table["metric"].map({name: index for index, name in enumerate(tests["metric"].values)})
    table = table.iloc[np.lexsort((-table["effect_size"].abs(), metric))]
    return table[table["n"] > 0].reset_index(drop=True)


@checked
def survivors(tests: xr.Dataset, alpha: float = ALPHA) -> pd.DataFrame:
    """The heads with a significant effect after correction for multiple testing, largest |d_z| first.

    The order is by |d_z| and not by p, because many p-values tie at the smallest one that the resamples allow.
    The result is a table, because it holds only some of the heads.

    Args:
        tests: The result of `effect_tests`.
        alpha: The significance level.

    Returns:
        The rows of `effects_table` with q or p_max_t up to alpha; the columns `passes_q` and `passes_max_t` show which.
        The error rates hold for each of the two lists separately, not for both together.

    Raises:
        InputError: if `tests` is not a result of `effect_tests`.
    """
    _check_tests(tests, "q", "p_max_t")
    table = effects_table(tests)
    table = table.assign(passes_q=table["q"] <= alpha, passes_max_t=table["p_max_t"] <= alpha)
    table = table[table["passes_q"] | table["passes_max_t"]]
    return table.sort_values("effect_size", key=lambda size: -size.abs(), kind="stable").reset_index(drop=True)


@checked
def responding(tests: xr.Dataset, smallest_effect: float = SMALLEST_EFFECT, *, alpha: float = ALPHA) -> pd.DataFrame:
    """The heads with a significant effect, and which effects are certainly larger than the smallest one of interest.

    Significance says that an effect is not zero, which is true of almost every head of a model if there are enough
    pairs. An effect is `beyond` the smallest effect of interest if the whole 95% interval of its d_z is, and its mean
    is significant (`p_mean_max_t`). The second condition withstands skew: skewed effects of mean zero can be
    significant by the test of symmetry, with an interval beyond 0.5 (in 29% of simulated studies of 20 pairs with
    exponential effects, and in 68% with log-normal ones; with the condition in at most 2%). Hence with fewer than
    `MIN_CLUSTERS` clusters no effect is `beyond`.

    Args:
        tests: The result of `effect_tests`.
        smallest_effect: The smallest |d_z| of interest.
        alpha: The significance level, of `survivors` and of the mean.

    Returns:
        The rows of `survivors` with the column `beyond`; those that are beyond come first.

    Raises:
        InputError: if `tests` is not a result of `effect_tests`, or `smallest_effect` is negative or not finite.
    """
    check_smallest_effect(smallest_effect)
    _check_tests(tests, "effect_size_low", "effect_size_high", "p_mean_max_t")
    found = survivors(tests, alpha)
    outside = (found["effect_size_low"] > smallest_effect) | (found["effect_size_high"] < -smallest_effect)
    beyond = outside & (found["p_mean_max_t"] <= alpha)
    return found.assign(beyond=beyond).sort_values("beyond", ascending=False, kind="stable").reset_index(drop=True)


@dataclass(frozen=True)
class Agreement:
    """How well two metrics agree on the heads.

    Attributes:
        correlation: Spearman's rank correlation of the two metrics' effects over the heads; NaN if there are fewer than
            three heads or one metric does not vary.
        p: Its p-value, which assumes that heads are independent.
        disagreeing: The heads whose effects have opposite signs although at least one is significant after
            Benjamini-Hochberg correction, largest difference in d_z first. Columns: the dimensions, then `effect`,
            `effect_size` and `q` of each metric.
    """

    correlation: float
    p: float
    disagreeing: pd.DataFrame


@checked
def agreement(tests: xr.Dataset, one: str, other: str, alpha: float = ALPHA) -> Agreement:
    """How well two metrics agree on the heads, such as "attention_to_cue" and its norm-weighted form "norm_to_cue".

    Args:
        tests: The result of `effect_tests`.
        one: The first metric.
        other: The second metric.
        alpha: The significance level for `disagreeing`.

    Raises:
        InputError: if a metric was not tested, or `tests` is not a result of `effect_tests`.
    """
    _check_tests(tests, "effect", "effect_size", "q")
    tested = tests["metric"].values.tolist()
    for name in (one, other):
        if name not in tested:
            raise InputError(f"The metric {name!r} was not tested; the tested metrics are {', '.join(tested)}.")
    maps = (tests.sel(metric=name, drop=True)[["effect", "effect_size", "q"]] for name in (one, other))
    both = pd.concat(
        [map_.to_dataframe().add_suffix(f" {name}") for map_, name in zip(maps, (one, other), strict=True)], axis=1
    ).dropna()
    effects = both[[f"effect {one}", f"effect {other}"]]
    correlation, p = rank_correlation(*effects.to_numpy().T)
    differs = np.sign(effects).prod(axis=1) < 0
    significant = both[[f"q {one}", f"q {other}"]].min(axis=1) <= alpha
    apart = both.assign(apart=(both[f"effect_size {one}"] - both[f"effect_size {other}"]).abs())
    disagreeing = apart[differs & significant].sort_values("apart", ascending=False).drop(columns="apart")
    return Agreement(correlation=correlation, p=p, disagreeing=disagreeing.reset_index())


@checked
def rank_correlation(one: Float[np.ndarray, " n"], other: Float[np.ndarray, " n"]) -> tuple[float, float]:
    """Spearman's rank correlation and its p-value; both NaN for fewer than three values or a constant input.

    Raises:
        InputError: if the inputs have different lengths.
    """
    if len(one) != len(other):
        raise InputError(
            f"A rank correlation needs two arrays of the same length; got {len(one)} and {len(other)} values."
        )
    if len(one) < 3 or len(np.unique(one)) == 1 or len(np.unique(other)) == 1:
        return np.nan, np.nan
    correlation, p = stats.spearmanr(one, other)
    return float(correlation), float(p)


def check_smallest_effect(smallest_effect: float) -> None:
    """Raise an InputError unless the smallest effect of interest is a finite number of at least 0."""
    if not 0 <= smallest_effect < np.inf:
        raise InputError(f"smallest_effect must be a number of at least 0, got {quoted(smallest_effect)}.")


def _check_tests(tests: xr.Dataset, *names: str) -> None:
    missing = [name for name in ("metric", *names) if name not in tests]
    if missing:
        raise InputError(f"The tests have no {', '.join(missing)}; pass the result of `effect_tests`.")


def present_pairs(effects: xr.Dataset) -> Bool[np.ndarray, " pair"]:
    """Which pairs have at least one value."""
    dims = {frozenset(variable.dims) for variable in effects.data_vars.values()}
    if len(dims) != 1 or "pair" not in effects.dims:
        found = sorted({tuple(map(str, variable.dims)) for variable in effects.data_vars.values()})
        raise InputError(
            f"The variables to test must all have the same dimensions, including `pair`; got {found}. Select variables "
            "with effects[[name, ...]]."
        )
    others = [dim for dim in effects.dims if dim != "pair"]
    present = np.any([variable.notnull().any(others).values for variable in effects.data_vars.values()], axis=0)
    if not present.any():
        raise StatementError(
            f"None of the {effects.sizes['pair']} pairs has an effect to test. A pair needs a control with as many "
            "tokens as its counterfactual, such as the counterfactual with its cue replaced by a neutral word."
        )
    return present


def _cells_of(effects: xr.Dataset) -> xr.DataArray:
    """The first variable; all variables have the same dimensions and coordinates."""
    return next(iter(effects.data_vars.values()))


def _blocks(
    effects: xr.Dataset, present: Bool[np.ndarray, " pair"], n_resamples: int
) -> Iterator[Float[np.ndarray, "pair cell"]]:
    """Yield the values of the present pairs for as many cells as fit in memory together with their distributions."""
    first = _cells_of(effects)
    dims = [dim for dim in first.dims if dim != "pair"]
    cells = first.size // effects.sizes["pair"]
    max_cells = max(1, min(_NULL_SIZE // n_resamples, _VALUES_SIZE // int(present.sum())))
    names, per_block = list(effects.data_vars), max(1, max_cells // max(cells, 1))
    for start in range(0, len(names), per_block):
        chosen = effects[names[start : start + per_block]].isel(pair=present)
        stacked = chosen.to_dataarray("metric").transpose("pair", "metric", *dims).to_numpy().astype(float)
        values = rearrange(stacked, "pair ... -> pair (...)")
        yield from np.array_split(values, -(-values.shape[1] // max_cells), axis=1)


def false_discovery(p: Float[np.ndarray, " cell"]) -> Float[np.ndarray, " cell"]:
    """Benjamini-Hochberg q-values over the cells that have a p-value."""
    q = np.full_like(p, np.nan)
    known = np.isfinite(p)
    q[known] = stats.false_discovery_control(p[known])
    return q


def _limits(columns: Columns, factors: Sequence[Int[np.ndarray, " pair"]], n_resamples: int) -> dict[str, str]:
    """Attributes that explain which significance levels cannot be reached with so few clusters or resamples."""
    n, n_clusters = columns["n"], columns["n_clusters"]
    unit, most = "pair" if (n == n_clusters).all() else "cluster", int(n_clusters.max())
    counted = f"1 {unit}" if most == 1 else f"{most} {unit}s"
    limits = {}
    if most < MIN_CLUSTERS:
        limits["untestable_mean"] = f"With {counted} the mean is not tested; its test needs {MIN_CLUSTERS} {unit}s."
    by_flips = 2.0 ** (1 - most)
    if by_flips > ALPHA:
        limits["untestable"] = (
            f"With {counted} no head can have p < {by_flips:.4g}: at least 2 of the {2**most} sign flips are as "
            f"extreme as the observed data. Reaching {ALPHA} needs {MIN_PAIRS} {unit}s."
        )
        return limits
    exact = all(2 ** int(codes.max() + 1) <= n_resamples for codes in factors)
    by_resamples = 0.0 if exact else 1 / (n_resamples + 1)
    smallest, cells = max(by_flips, by_resamples), int((n > 0).sum())
    needed = int(np.ceil(round(smallest * cells / ALPHA, 9)))
    if needed > 1:
        remedy = f"{unit}s" if by_flips >= by_resamples else "resamples"
        limits["resolution"] = (
            f"The smallest possible p is {smallest:.2g}, so at least {needed} of the {cells:,} tests must reach that "
            f"minimum for any q ≤ {ALPHA}. With more {remedy} a single head could pass; p_max_t is not affected."
        )
    return limits
