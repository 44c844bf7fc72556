"""Statistics over pairs: the unit is the pair, and negation is compared with a length-matched control."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import xarray as xr
from einops import rearrange
from jaxtyping import Bool, Float
from scipy import stats

from negprobe.base.arguments import checked
from negprobe.base.errors import InputError, StatementError
from negprobe.base.texts import quoted

ALPHA = 0.05
"""The default significance level."""

MIN_PAIRS = 6
"""The smallest number of pairs for which a sign-flip test can reach p < 0.05 (with 5 pairs, p is at least 0.0625)."""

MAX_RESAMPLES = 10**6
"""The maximum number of resamples; more would take very long and add almost no precision."""

_NULL_SIZE = 2**24
"""The maximum size of a null or bootstrap distribution in memory (resamples times heads): 128 MiB of float64."""

_VALUES_SIZE = 2**22
"""The maximum number of values in memory (pairs times heads): 32 MiB of float64."""

_BATCH_SIZE = 2**21
"""The maximum number of random numbers drawn at a time (resamples times pairs); each takes about 60 bytes."""


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
def effect_tests(effects: xr.Dataset, *, n_resamples: int = 9999, seed: int = 0) -> xr.Dataset:
    """Tests of the effect of every head over the pairs, corrected for multiple testing.

    The null hypothesis for a head is that in every pair the effects d and -d are equally likely, so that counterfactual
    and control are exchangeable; effects distributed asymmetrically around zero also violate it. A resample flips the
    signs of whole pairs, for all heads and metrics together. The statistic is the sum of the effects divided by the
    square root of their sum of squares. Flips do not change that denominator, so the statistic orders them as |t| does.
    All 2^n flips are used if `n_resamples` is large enough; otherwise random flips are drawn, and the observed data
    count as one of them.

    `q` controls the false discovery rate if the heads are independent or positively dependent (Benjamini and Hochberg
    1995; Benjamini and Yekutieli 2001). `p_max_t` controls the probability of any false discovery under every
    dependence: each statistic is compared with the largest one of all heads and metrics under the same flips (the
    single-step maxT of Westfall and Young 1993).

    The intervals are percentile bootstrap intervals. In 2,000 simulations with 20 pairs each, they covered the mean of
    normal, t(3) and log-normal effects in 92, 92 and 85% of cases, and BCa intervals in 92, 89 and 88%: no better
    overall, and BCa is undefined if all effects are equal. With few pairs both are too narrow (88% for 8 normal
    effects).

    Args:
        effects: Variables with the same dimensions, `pair` and any others (layer and head; also role), as
            `negation_effects` returns them. NaN excludes a pair from the test of that head and metric only.
        n_resamples: Number of sign flips, and of bootstrap samples.
        seed: Seed for both.

    Returns:
        Variables [metric, layer, head] (or the dimensions other than pair that `effects` has): `effect` (the mean, in
        units of the metric), `low` and `high` (its 95% interval, NaN with fewer than two pairs), `effect_size` (Cohen's
        d_z, the mean over the standard deviation of the pairs' effects; 0 if the mean is 0), `n` (pairs), `p`
        (two-sided; 1 if all effects are 0), `q` and `p_max_t` (corrected over all cells of this call). NaN if n is 0.
        The attribute `untestable` is present if there are too few pairs for any head to reach p = 0.05, the attribute
        `resolution` if p is too coarse for a single head to reach q = 0.05. Each is a sentence that explains this.

    Raises:
        InputError: if there are no variables, their dimensions differ, `n_resamples` is not between 1 and
            `MAX_RESAMPLES`, or the seed is negative.
        StatementError: if no pair has a value.
    """
    if not 1 <= n_resamples <= MAX_RESAMPLES or seed < 0:
        raise InputError(
            f"n_resamples must be between 1 and {MAX_RESAMPLES}, and seed must be at least 0; got "
            f"n_resamples={quoted(n_resamples)} and seed={quoted(seed)}."
        )
    present = _present(effects)
    dims = ("metric", *(str(dim) for dim in _cells_of(effects).dims if dim != "pair"))
    found, largest = [], np.zeros(1)
    for values in _blocks(effects, present, n_resamples):
        p, statistic, null = _sign_flips(values, n_resamples, seed)
        effect, effect_size = _effect_sizes(values)
        low, high = _intervals(values, n_resamples, seed)
        n = np.isfinite(values).sum(axis=0)
        found.append([effect, low, high, effect_size, n, p, statistic])
        largest = np.maximum(largest, null)
    effect, low, high, effect_size, n, p, statistic = map(np.concatenate, zip(*found, strict=True))
    # Random flips may miss the extreme ones: of all 2^n flips of n pairs, at least 2 are as extreme as observed.
    floor = np.where(n > 0, 2.0 ** (1.0 - n), np.nan)
    p = np.maximum(p, floor)
    columns = {
        "effect": effect,
        "low": low,
        "high": high,
        "effect_size": effect_size,
        "n": n,
        "p": p,
        "q": _false_discovery(p),
        "p_max_t": np.maximum(_upper_tail(statistic, largest, exact=2 ** int(present.sum()) <= n_resamples), floor),
    }
    whole = _cells_of(effects)
    shape = (len(effects.data_vars), *(whole.sizes[dim] for dim in dims[1:]))
    coords = {name: coord for name, coord in whole.coords.items() if "pair" not in coord.dims}
    return xr.Dataset(
        {name: (dims, column.reshape(shape)) for name, column in columns.items()},
        coords={"metric": list(effects.data_vars), **coords},
        attrs={"n_resamples": n_resamples, "seed": seed, **_limits(n, int(present.sum()), n_resamples)},
    )


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
def replication(
    effects: xr.Dataset,
    groups: Sequence[str] | np.ndarray | pd.Series | xr.DataArray,
    *,
    min_pairs: int = MIN_PAIRS,
    at_least: int = 2,
    alpha: float = ALPHA,
    n_resamples: int = 9999,
    seed: int = 0,
) -> xr.Dataset:
    """Whether the effect of a head replicates across groups of pairs (cue types, data sets), each tested separately.

    `p_partial` tests the partial conjunction null hypothesis that fewer than u = `at_least` of the m testable groups
    have an effect in the overall direction. It is (m - u + 1) p_(u), where p_(u) is the u-th smallest p-value of the
    groups (the Bonferroni form of Benjamini and Heller 2008, valid under any dependence between groups). These p-values
    are one-sided in the direction of the mean over all pairs, and doubled because that direction was chosen from the
    same pairs. For a group in that direction, the doubled one-sided p is the two-sided p; for a group in the opposite
    direction it exceeds 1 and is set to 1.

    Args:
        effects: As for `effect_tests`.
        groups: The group of each pair, such as `effects["cue"]`.
        min_pairs: A group with fewer pairs is not tested. No group with fewer than 6 pairs can reach p = 0.05.
        at_least: The number of groups that must have the effect, u.
        alpha: The significance level for `replicated`.
        n_resamples: As for `effect_tests`.
        seed: As for `effect_tests`; every group uses the same seed, so its numbers do not depend on the other groups.

    Returns:
        Variables [group, metric, layer, head]: `effect`, `low`, `high`, `effect_size`, `n`, `p` of each group with
        enough pairs, sorted by name. Variables [metric, layer, head]: `n_groups` (m, the number of groups with enough
        pairs at this head), `replicated` (how many of them have the overall sign and p up to alpha), `p_partial` (NaN
        if m < u) and `q_partial` (Benjamini-Hochberg over all cells). The attribute `too_small` lists the groups left
        out and their numbers of pairs.

    Raises:
        InputError: if `groups` does not have one value per pair, `at_least` is below 1 or above the number of pairs, or
            as `effect_tests`.
        StatementError: if no group has enough pairs.
    """
    labels = np.asarray(groups).astype(str)
    if labels.shape != (effects.sizes.get("pair", 0),):
        raise InputError(
            f"There are {effects.sizes.get('pair', 0)} pairs and groups of shape {labels.shape}; "
            "give one group name per pair, in the same order."
        )
    if not 1 <= at_least <= max(len(labels), 1):
        raise InputError(f"at_least must be between 1 and the number of pairs, {len(labels)}; got {quoted(at_least)}.")
    present = _present(effects)
    kept, labels = effects.isel(pair=present), labels[present]
    sizes = pd.Series(labels).value_counts().sort_index()
    too_small = [f"{name} ({size})" for name, size in sizes[sizes < min_pairs].items()]
    names = sizes[sizes >= min_pairs].index.tolist()
    if not names:
        raise StatementError(
            f"No group has at least {min_pairs} pairs with a value: {', '.join(too_small)}. Add pairs or merge groups."
        )
    tested = [effect_tests(kept.isel(pair=labels == name), n_resamples=n_resamples, seed=seed) for name in names]
    within = xr.concat(tested, pd.Index(names, name="group"), combine_attrs="drop").drop_vars(["q", "p_max_t"])
    testable = within["n"] >= min_pairs
    overall = kept.astype(float).mean("pair").to_dataarray("metric").transpose(*within["effect"].dims[1:])
    agrees = np.sign(within["effect"]) == np.sign(overall.compute())
    n_groups = testable.sum("group")
    directed = within["p"].where(agrees, 1.0).where(testable)
    p_partial = ((n_groups - at_least + 1) * _smallest(directed, at_least)).clip(max=1.0)
    return within.assign(
        n_groups=n_groups,
        replicated=(testable & agrees & (within["p"] <= alpha)).sum("group"),
        p_partial=p_partial,
        q_partial=(p_partial.dims, _false_discovery(p_partial.values.ravel()).reshape(p_partial.shape)),
    ).assign_attrs(too_small=too_small, at_least=at_least, alpha=alpha, n_resamples=n_resamples, seed=seed)


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


def _check_tests(tests: xr.Dataset, *names: str) -> None:
    missing = [name for name in ("metric", *names) if name not in tests]
    if missing:
        raise InputError(f"The tests have no {', '.join(missing)}; pass the result of `effect_tests`.")


def _present(effects: xr.Dataset) -> Bool[np.ndarray, " pair"]:
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


def _sign_flips(
    values: Float[np.ndarray, "pair cell"], n_resamples: int, seed: int
) -> tuple[Float[np.ndarray, " cell"], Float[np.ndarray, " cell"], Float[np.ndarray, " resample"]]:
    """Two-sided p-values of the sign-flip test, its statistics, and the largest statistic of all cells per flip."""
    # Flipping 0 has no effect, so a missing value set to 0 leaves that pair out.
    filled = np.where(np.isfinite(values), values, 0.0)
    # Scaling by the largest value first keeps the squares of tiny effects from underflowing.
    filled = filled / _or_one(np.abs(filled).max(axis=0))
    scaled = filled / _or_one(np.sqrt((filled**2).sum(axis=0)))
    if len(scaled) == 1:
        # scipy requires two observations; a second one of 0 does not change the test.
        scaled = np.concatenate([scaled, np.zeros_like(scaled)])
    n_pairs = len(scaled)

    def sizes(signs: Float[np.ndarray, "*resample pair"], axis: int) -> Float[np.ndarray, "*resample cell"]:
        # scipy's tolerance for ties is relative to the statistic. Adding the largest possible size keeps it from
        # vanishing near 0.
        return np.abs(signs @ scaled) + np.sqrt(n_pairs)

    # The resampled data are the signs, so that one matrix product gives the statistics of all cells for the same flip.
    result = stats.permutation_test(
        (np.ones(n_pairs),),
        sizes,
        permutation_type="samples",
        vectorized=True,
        n_resamples=n_resamples,
        batch=max(1, _BATCH_SIZE // max(n_pairs, scaled.shape[1])),
        alternative="greater",
        rng=np.random.default_rng(seed),
    )
    return result.pvalue, result.statistic, result.null_distribution.max(axis=1)


def _upper_tail(
    observed: Float[np.ndarray, " cell"], null: Float[np.ndarray, " resample"], exact: bool
) -> Float[np.ndarray, " cell"]:
    """The share of the null distribution at or above each observed value, as in `scipy.stats.permutation_test`."""
    tolerance = 100 * np.finfo(float).eps * np.abs(observed)
    at_or_above = len(null) - np.searchsorted(np.sort(null), observed - tolerance, side="left")
    return at_or_above / len(null) if exact else (at_or_above + 1) / (len(null) + 1)


def _intervals(
    values: Float[np.ndarray, "pair cell"], n_resamples: int, seed: int
) -> tuple[Float[np.ndarray, " cell"], Float[np.ndarray, " cell"]]:
    """95% percentile bootstrap intervals of each cell's mean over its own pairs."""
    interval = np.full((2, values.shape[1]), np.nan)
    present = np.isfinite(values)
    # Cells with the same pairs are resampled together.
    patterns: dict[bytes, list[int]] = {}
    for cell in range(values.shape[1]):
        patterns.setdefault(present[:, cell].tobytes(), []).append(cell)
    for cells in patterns.values():
        pairs = present[:, cells[0]]
        if pairs.sum() < 2:
            continue
        interval[:, cells] = _interval_of_means(values[pairs][:, cells], n_resamples, seed)
    return interval[0], interval[1]


def _interval_of_means(
    values: Float[np.ndarray, "pair cell"], n_resamples: int, seed: int
) -> Float[np.ndarray, "2 cell"]:
    """Bootstrap intervals of all cells' means; one matrix product of draw counts and values gives all the means."""
    n_pairs, n_cells = values.shape

    def means(drawn: np.ndarray, axis: int) -> Float[np.ndarray, "cell resample"]:
        rows = drawn + n_pairs * np.arange(len(drawn))[:, None]
        counts = rearrange(
            np.bincount(rows.ravel(), minlength=drawn.size), "(resample pair) -> resample pair", pair=n_pairs
        )
        return values.T @ counts.T.astype(float) / n_pairs

    result = stats.bootstrap(
        (np.arange(n_pairs),),
        means,
        n_resamples=n_resamples,
        method="percentile",
        vectorized=True,
        batch=max(1, _BATCH_SIZE // max(n_pairs, n_cells)),
        rng=np.random.default_rng(seed),
    )
    return np.stack([result.confidence_interval.low, result.confidence_interval.high])


def _effect_sizes(
    values: Float[np.ndarray, "pair cell"],
) -> tuple[Float[np.ndarray, " cell"], Float[np.ndarray, " cell"]]:
    """Mean and Cohen's d_z of each cell's values; the mean is NaN without values, d_z with fewer than two."""
    present = np.isfinite(values)
    n = present.sum(axis=0)
    # If all pairs have the same effect, the standard deviation is 0 and d_z is infinite, or 0 if that effect is 0.
    with np.errstate(divide="ignore", invalid="ignore"):
        mean = np.where(present, values, 0.0).sum(axis=0) / n
        variance = (np.where(present, values - mean, 0.0) ** 2).sum(axis=0) / (n - 1)
        # The computed mean of equal numbers can differ from them by rounding.
        variance = np.where(variance <= (4 * np.finfo(float).eps * mean) ** 2, 0.0, variance)
        size = np.where(mean == 0, 0.0, mean / np.sqrt(variance))
    return mean, np.where(n > 1, size, np.nan)


def _false_discovery(p: Float[np.ndarray, " cell"]) -> Float[np.ndarray, " cell"]:
    """Benjamini-Hochberg q-values over the cells that have a p-value."""
    q = np.full_like(p, np.nan)
    known = np.isfinite(p)
    q[known] = stats.false_discovery_control(p[known])
    return q


def _smallest(p: xr.DataArray, rank: int) -> xr.DataArray:
    """The rank-th smallest p-value over the groups; NaN if there are fewer groups."""
    if p.sizes["group"] < rank:
        return xr.full_like(p.isel(group=0, drop=True), np.nan)
    # numpy sorts NaN last.
    return p.copy(data=np.sort(p.values, axis=p.get_axis_num("group"))).isel(group=rank - 1, drop=True)


def _limits(n: np.ndarray, n_pairs: int, n_resamples: int) -> dict[str, str]:
    """Attributes that explain which significance levels cannot be reached with so few pairs or resamples."""
    max_pairs = int(n.max())
    by_flips = 2.0 ** (1 - max_pairs)
    if by_flips > ALPHA:
        counted = "1 pair" if max_pairs == 1 else f"{max_pairs} pairs"
        return {
            "untestable": f"With {counted} no head can have p < {by_flips:.4g}: at least 2 of the {2**max_pairs} sign "
            f"flips are as extreme as the observed data. Reaching {ALPHA} needs {MIN_PAIRS} pairs."
        }
    by_resamples = 0.0 if 2**n_pairs <= n_resamples else 1 / (n_resamples + 1)
    smallest, cells = max(by_flips, by_resamples), int((n > 0).sum())
    needed = int(np.ceil(round(smallest * cells / ALPHA, 9)))
    if needed <= 1:
        return {}
    remedy = "pairs" if by_flips >= by_resamples else "resamples"
    return {
        "resolution": f"The smallest possible p is {smallest:.2g}, so at least {needed} of the {cells:,} tests must "
        f"reach that minimum for any q ≤ {ALPHA}. With more {remedy} a single head could pass; p_max_t is not affected."
    }


def _or_one(scale: Float[np.ndarray, " cell"]) -> Float[np.ndarray, " cell"]:
    """The scale, with 0 replaced by 1."""
    return np.where(scale > 0, scale, 1.0)
