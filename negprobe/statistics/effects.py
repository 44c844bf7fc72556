"""Statistics over pairs: the pair is the unit, and the length-matched control is what negation is held against."""

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
"""The level at which a head counts as found, unless asked otherwise."""

MIN_PAIRS = 6
"""The fewest pairs with which a sign-flip test can reach p < 0.05: 2 / 2^5 is 0.0625."""

MAX_RESAMPLES = 10**6
"""The most resamples that are drawn: more tell nothing new, and would never end."""

_NULL_SIZE = 2**24
"""How many numbers of a null or bootstrap distribution (resamples times heads) are held at once: 128 MiB of float64."""

_VALUES_SIZE = 2**22
"""How many values (pairs times heads) are held at once: 32 MiB of float64."""

_BATCH_SIZE = 2**21
"""How many numbers (resamples times pairs) are drawn at once; drawing takes some 60 bytes for each."""


@checked
def negation_effects(metrics: xr.Dataset) -> xr.Dataset:
    """What the negation does beyond a neutral word of the same length: counterfactual minus control, pair by pair.

    Args:
        metrics: Variables with the dimensions pair and compared (coordinates "counterfactual" and "control") and any
            others, as `AttentionProbe.metrics` returns them. Variables without `compared` are left out.

    Returns:
        The same variables without `compared`, NaN where either of the two is, and 0 where they differ by no more than
        the attribute `rounding` of the metrics, if it is there: in a first layer, words attend to each other as before
        whatever is put in between, and rounding must not pass for an effect.

    Raises:
        InputError: if no variable has a counterfactual and a control.
    """
    if not {"counterfactual", "control"} <= set(metrics.get("compared", xr.DataArray([])).values.tolist()):
        raise InputError(
            f"The effect of negation needs variables along `compared` with the coordinates counterfactual and control; "
            f"these have the dimensions {', '.join(map(str, metrics.dims))}. Give what AttentionProbe.metrics returns."
        )
    both = metrics[[name for name, variable in metrics.data_vars.items() if "compared" in variable.dims]]
    effects = both.sel(compared="counterfactual", drop=True) - both.sel(compared="control", drop=True)
    return effects.where(~(abs(effects) <= metrics.attrs.get("rounding", 0.0)), 0.0)


@checked
def effect_tests(effects: xr.Dataset, *, n_resamples: int = 9999, seed: int = 0) -> xr.Dataset:
    """Test every head's effect over the pairs, and correct for having tested them all.

    The null hypothesis of a head is that its effect is as likely to be d as -d in every pair, so that counterfactual
    and control could be swapped; an effect that is skewed around zero is against it too. Each test flips the signs of
    whole pairs, for all heads and metrics at once; its statistic is the sum of the effects over the root of their sum
    of squares, which no flip changes, so it orders the flips as |t| does. All 2^n flips are used where `n_resamples`
    allows, else random ones, counted with the observed.

    `q` keeps the expected share of false discoveries below the level if the heads are independent or positively
    dependent (Benjamini and Hochberg 1995; Benjamini and Yekutieli 2001). `p_max_t` keeps the probability of a single
    false discovery below it, however they depend: the largest statistic of all heads and metrics under the same flips
    is what each is held against (the single-step maxT of Westfall and Young 1993).

    The interval is the percentile bootstrap's. In simulations of 20 pairs it covered the mean of normal, t(3) and
    log-normal effects in 92, 92 and 85 % of 2,000 draws, BCa in 92, 89 and 88 %: no better on the whole, and BCa does
    not exist where all effects are equal. With few pairs both are too narrow: 88 % for 8 normal effects.

    Args:
        effects: Variables that all have the same dimensions, `pair` and any others (layer and head; also role), as
            `negation_effects` returns them. NaN takes a pair out of that head of that metric alone.
        n_resamples: How many sign flips and bootstrap samples to draw.
        seed: Seed of both.

    Returns:
        Variables [metric, layer, head] (or whatever dimensions other than pair there are): `effect` (the mean, in units
        of the metric), `low` and `high` (its 95 % interval, NaN with fewer than two pairs), `effect_size` (Cohen's
        d_z, mean over standard deviation of the pairs' effects; 0 where the mean is 0), `n` (pairs), `p` (two-sided;
        1 where every effect is 0), `q` and `p_max_t` (corrected over all cells of this call). NaN where n is 0.
        The attribute `untestable` is there if no head can reach p = 0.05 with so few pairs, and says so; the attribute
        `resolution` if p is so coarse that no head can reach q = 0.05 unless others do too.

    Raises:
        InputError: if there are no variables, they differ in their dimensions, there is no resample or more than
            `MAX_RESAMPLES`, or the seed is negative.
        StatementError: if no pair has a value.
    """
    if not 1 <= n_resamples <= MAX_RESAMPLES or seed < 0:
        raise InputError(
            f"n_resamples={quoted(n_resamples)} and seed={quoted(seed)}: give 1 to {MAX_RESAMPLES} resamples and a "
            "seed from 0 on."
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
    # Random flips may miss what all of them would show: a cell's own n pairs give 2 of 2^n flips at the least.
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
    """The tests as a tidy table: a row per metric, layer and head that has a pair, each metric's largest |d_z| first.

    Args:
        tests: What `effect_tests` returns.

    Returns:
        Columns `metric`, `layer`, `head` (and any other dimension), then the variables of the tests.

    Raises:
        InputError: for anything but tests.
    """
    _check_tests(tests, "effect_size", "n")
    table = tests.to_dataframe().reset_index()
    metric = table["metric"].map({name: index for index, name in enumerate(tests["metric"].values)})
    table = table.iloc[np.lexsort((-table["effect_size"].abs(), metric))]
    return table[table["n"] > 0].reset_index(drop=True)


@checked
def survivors(tests: xr.Dataset, alpha: float = ALPHA) -> pd.DataFrame:
    """The heads whose effect survives a correction for all heads tested, the largest |d_z| first.

    The rank is by |d_z| since p ties at the smallest value that the resamples can give.

    Args:
        tests: What `effect_tests` returns.
        alpha: The level.

    Returns:
        The rows of `effects_table` with q or p_max_t up to alpha; the columns `passes_q` and `passes_max_t` say which.
        The rates of false discoveries hold for each of the two lists by itself.

    Raises:
        InputError: for anything but tests.
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
    """Whether a head's effect is there in several groups of pairs (kinds of cue, data sets), each tested by itself.

    `p_partial` is the p-value of the partial conjunction hypothesis that fewer than u = `at_least` of the m testable
    groups have an effect in the overall direction: (m - u + 1) p_(u), with p_(u) the u-th smallest of the groups'
    p-values (Benjamini and Heller 2008, the form of Bonferroni, valid however the groups depend). Those are one-sided
    in the direction of the mean over all pairs, and doubled, as the same pairs chose that direction out of two. A
    doubled one-sided p is the two-sided one; a group that points the other way has more than 1, and counts as 1.

    Args:
        effects: As for `effect_tests`.
        groups: The group of each pair, such as `effects["cue"]`.
        min_pairs: A group with fewer pairs is not tested; with fewer than 6, none can reach p = 0.05.
        at_least: In how many groups the effect has to be, u.
        alpha: The level for `replicated`.
        n_resamples: As for `effect_tests`.
        seed: As for `effect_tests`; a group's numbers are those it would have alone.

    Returns:
        Variables [group, metric, layer, head]: `effect`, `low`, `high`, `effect_size`, `n`, `p` of each group with
        enough pairs, in the order of their names. Variables [metric, layer, head]: `n_groups` (m, the groups with
        enough pairs at this head), `replicated` (those of them with the overall sign and p up to alpha), `p_partial`
        (NaN where m < u) and `q_partial` (Benjamini-Hochberg over all cells). The attribute `too_small` names the
        groups left out, with their pairs.

    Raises:
        InputError: if there is not one group per pair, `at_least` is below 1 or above the number of pairs, or as
            `effect_tests`.
        StatementError: if no group has enough pairs.
    """
    labels = np.asarray(groups).astype(str)
    if labels.shape != (effects.sizes.get("pair", 0),):
        raise InputError(
            f"There are {effects.sizes.get('pair', 0)} pairs and groups of shape {labels.shape}; "
            "give the name of one group for each pair, in their order."
        )
    if not 1 <= at_least <= max(len(labels), 1):
        raise InputError(
            f"An effect is asked for in at least {quoted(at_least)} groups; ask for 1 or more, and no more than there "
            "are pairs."
        )
    present = _present(effects)
    kept, labels = effects.isel(pair=present), labels[present]
    sizes = pd.Series(labels).value_counts().sort_index()
    too_small = [f"{name} ({size})" for name, size in sizes[sizes < min_pairs].items()]
    names = sizes[sizes >= min_pairs].index.tolist()
    if not names:
        raise StatementError(
            f"No group has {min_pairs} pairs with a value: {', '.join(too_small)}. Give more pairs or merge groups."
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
    """How far two metrics tell the same story about the heads.

    Attributes:
        correlation: Spearman's rank correlation of the two effects over the heads, NaN where one does not vary.
        p: Its p-value, as if heads were independent.
        disagreeing: The heads whose two effects differ in sign though one at least survives Benjamini-Hochberg, the
            largest difference in d_z first: the dimensions, then `effect`, `effect_size` and `q` of each metric.
    """

    correlation: float
    p: float
    disagreeing: pd.DataFrame


@checked
def agreement(tests: xr.Dataset, one: str, other: str, alpha: float = ALPHA) -> Agreement:
    """Compare two metrics head by head, such as "attention_to_cue" with its norm-weighted form "norm_to_cue".

    Args:
        tests: What `effect_tests` returns.
        one: A metric.
        other: Another.
        alpha: The level for `disagreeing`.

    Raises:
        InputError: if a metric was not tested, and for anything but tests.
    """
    _check_tests(tests, "effect", "effect_size", "q")
    tested = tests["metric"].values.tolist()
    for name in (one, other):
        if name not in tested:
            raise InputError(f"There is no test of {name!r}; there are tests of {', '.join(tested)}.")
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
    """Spearman's rank correlation and its p; NaN for fewer than three values, or where all are the same.

    Raises:
        InputError: for more values of the one than of the other.
    """
    if len(one) != len(other):
        raise InputError(
            f"Each value needs its counterpart to be ranked with, but there are {len(one)} and {len(other)}."
        )
    if len(one) < 3 or len(np.unique(one)) == 1 or len(np.unique(other)) == 1:
        return np.nan, np.nan
    correlation, p = stats.spearmanr(one, other)
    return float(correlation), float(p)


def _check_tests(tests: xr.Dataset, *names: str) -> None:
    missing = [name for name in ("metric", *names) if name not in tests]
    if missing:
        raise InputError(f"The tests have no {', '.join(missing)}; give what `effect_tests` returns.")


def _present(effects: xr.Dataset) -> Bool[np.ndarray, " pair"]:
    """Which pairs have any value at all."""
    dims = {frozenset(variable.dims) for variable in effects.data_vars.values()}
    if len(dims) != 1 or "pair" not in effects.dims:
        found = sorted({tuple(map(str, variable.dims)) for variable in effects.data_vars.values()})
        raise InputError(
            f"The variables to test must all have the same dimensions, `pair` among them; there are {found}. Choose "
            "some: effects[[name, ...]]."
        )
    others = [dim for dim in effects.dims if dim != "pair"]
    present = np.any([variable.notnull().any(others).values for variable in effects.data_vars.values()], axis=0)
    if not present.any():
        raise StatementError(
            f"None of the {effects.sizes['pair']} pairs has an effect to test. A pair needs a control with as many "
            "tokens as its counterfactual, such as the counterfactual with a neutral word in the place of the cue."
        )
    return present


def _cells_of(effects: xr.Dataset) -> xr.DataArray:
    """The first variable, for the dimensions and coordinates that all have."""
    return next(iter(effects.data_vars.values()))


def _blocks(
    effects: xr.Dataset, present: Bool[np.ndarray, " pair"], n_resamples: int
) -> Iterator[Float[np.ndarray, "pair cell"]]:
    """The values of these pairs, a column a cell, so many cells at once that they and their distributions fit."""
    first = _cells_of(effects)
    dims = [dim for dim in first.dims if dim != "pair"]
    cells = first.size // effects.sizes["pair"]
    most = max(1, min(_NULL_SIZE // n_resamples, _VALUES_SIZE // int(present.sum())))
    names, at_once = list(effects.data_vars), max(1, most // max(cells, 1))
    for start in range(0, len(names), at_once):
        chosen = effects[names[start : start + at_once]].isel(pair=present)
        stacked = chosen.to_dataarray("metric").transpose("pair", "metric", *dims).to_numpy().astype(float)
        values = rearrange(stacked, "pair ... -> pair (...)")
        yield from np.array_split(values, -(-values.shape[1] // most), axis=1)


def _sign_flips(
    values: Float[np.ndarray, "pair cell"], n_resamples: int, seed: int
) -> tuple[Float[np.ndarray, " cell"], Float[np.ndarray, " cell"], Float[np.ndarray, " resample"]]:
    """Two-sided p-values of the sign-flip test, its statistics, and the largest of all cells under each flip."""
    # A flip of 0 changes nothing: a missing value set to 0 is a pair left out.
    filled = np.where(np.isfinite(values), values, 0.0)
    # Scaled by the largest value first, which keeps the squares of tiny effects from underflowing.
    filled = filled / _or_one(np.abs(filled).max(axis=0))
    scaled = filled / _or_one(np.sqrt((filled**2).sum(axis=0)))
    if len(scaled) == 1:
        # scipy asks for two observations; one that is never there leaves the other's test as it is.
        scaled = np.concatenate([scaled, np.zeros_like(scaled)])
    n_pairs = len(scaled)

    def sizes(signs: Float[np.ndarray, "*resample pair"], axis: int) -> Float[np.ndarray, "*resample cell"]:
        # scipy forgives rounding relative to the statistic; with the largest possible size added, near 0 too.
        return np.abs(signs @ scaled) + np.sqrt(n_pairs)

    # What is resampled is the vector of signs: one product makes every cell's statistic of the same flip.
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
    """The share of the null distribution at or above each observed value, counted as `scipy.stats.permutation_test`."""
    tolerance = 100 * np.finfo(float).eps * np.abs(observed)
    at_or_above = len(null) - np.searchsorted(np.sort(null), observed - tolerance, side="left")
    return at_or_above / len(null) if exact else (at_or_above + 1) / (len(null) + 1)


def _intervals(
    values: Float[np.ndarray, "pair cell"], n_resamples: int, seed: int
) -> tuple[Float[np.ndarray, " cell"], Float[np.ndarray, " cell"]]:
    """95 % percentile bootstrap intervals of the means over the pairs that each cell has."""
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
    """The bootstrap draws pairs: how often each was drawn, times the values, makes all cells' means at once."""
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
    """Mean and Cohen's d_z of each cell's values; NaN where there are none, or one for d_z."""
    present = np.isfinite(values)
    n = present.sum(axis=0)
    # Equal effects of all pairs have no spread: d_z is infinite, or 0 where they are 0.
    with np.errstate(divide="ignore", invalid="ignore"):
        mean = np.where(present, values, 0.0).sum(axis=0) / n
        variance = (np.where(present, values - mean, 0.0) ** 2).sum(axis=0) / (n - 1)
        # Equal numbers do not always have themselves as their mean.
        variance = np.where(variance <= (4 * np.finfo(float).eps * mean) ** 2, 0.0, variance)
        size = np.where(mean == 0, 0.0, mean / np.sqrt(variance))
    return mean, np.where(n > 1, size, np.nan)


def _false_discovery(p: Float[np.ndarray, " cell"]) -> Float[np.ndarray, " cell"]:
    """Benjamini-Hochberg over the cells that have a p."""
    q = np.full_like(p, np.nan)
    known = np.isfinite(p)
    q[known] = stats.false_discovery_control(p[known])
    return q


def _smallest(p: xr.DataArray, rank: int) -> xr.DataArray:
    """The rank-th smallest p over the groups, NaN where there are fewer."""
    if p.sizes["group"] < rank:
        return xr.full_like(p.isel(group=0, drop=True), np.nan)
    # numpy sorts NaN last.
    return p.copy(data=np.sort(p.values, axis=p.get_axis_num("group"))).isel(group=rank - 1, drop=True)


def _limits(n: np.ndarray, n_pairs: int, n_resamples: int) -> dict[str, str]:
    """What so few pairs or resamples cannot show, in sentences, by the name of the attribute."""
    most = int(n.max())
    by_flips = 2.0 ** (1 - most)
    if by_flips > ALPHA:
        many = "1 pair" if most == 1 else f"{most} pairs"
        return {
            "untestable": f"With {many} no head can have a p below {by_flips:.4g}: at least 2 of the {2**most} ways to "
            f"flip the signs are as extreme as what was seen. It takes 6 pairs to reach {ALPHA}."
        }
    by_resamples = 0.0 if 2**n_pairs <= n_resamples else 1 / (n_resamples + 1)
    smallest, cells = max(by_flips, by_resamples), int((n > 0).sum())
    needed = int(np.ceil(round(smallest * cells / ALPHA, 9)))
    if needed <= 1:
        return {}
    cure = "pairs" if by_flips >= by_resamples else "resamples"
    return {
        "resolution": f"No p can be below {smallest:.2g} here, so {needed} of the {cells} tests have to be that small "
        f"before any has a q of {ALPHA}. More {cure} would let a single head pass; p_max_t is not held back by this."
    }


def _or_one(scale: Float[np.ndarray, " cell"]) -> Float[np.ndarray, " cell"]:
    """The scale, or 1 where there is nothing to scale."""
    return np.where(scale > 0, scale, 1.0)
