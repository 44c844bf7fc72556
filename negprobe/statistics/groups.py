"""Whether effects hold over groups of pairs, such as kinds of cue and data sets."""

import numpy as np
import pandas as pd
import xarray as xr
from scipy import stats

from negprobe.base.arguments import checked
from negprobe.base.errors import InputError, StatementError
from negprobe.base.texts import quoted
from negprobe.statistics.clusters import Clusters, Labels, cluster_codes, labels_of_pairs
from negprobe.statistics.effects import ALPHA, MIN_PAIRS, effect_tests, false_discovery, present_pairs

_MIN_GROUPS = 3
_WITHIN = ("effect", "low", "high", "effect_size", "n", "n_clusters", "p")


@checked
def replication(
    effects: xr.Dataset,
    groups: Labels,
    *,
    clusters: Clusters | None = None,
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
        clusters: As for `effect_tests`; a cluster can have pairs in several groups.
        min_pairs: A group with fewer pairs is not tested, or with fewer clusters if there are `clusters`. No group with
            fewer than 6 can reach p = 0.05.
        at_least: The number of groups that must have the effect, u.
        alpha: The significance level for `replicated`.
        n_resamples: As for `effect_tests`.
        seed: As for `effect_tests`; every group uses the same seed, so its numbers do not depend on the other groups.

    Returns:
        Variables [group, metric, layer, head]: `effect`, `low`, `high`, `effect_size`, `n`, `n_clusters`, `p` of each
        group with enough pairs, sorted by name. Variables [metric, layer, head]: `n_groups` (m, the number of groups
        with enough pairs at this head), `replicated` (how many of them have the overall sign and p up to alpha),
        `p_partial` (NaN if m < u) and `q_partial` (Benjamini-Hochberg over all cells). The attribute `too_small` lists
        the groups left out and their numbers of pairs (or clusters).

    Raises:
        InputError: if `groups` does not have one value per pair, `at_least` is below 1 or above the number of pairs, or
            as `effect_tests`.
        StatementError: if no group has enough pairs.
    """
    n_pairs = effects.sizes.get("pair", 0)
    labels, factors = labels_of_pairs(groups, n_pairs), cluster_codes(clusters, n_pairs)
    if not 1 <= at_least <= max(len(labels), 1):
        raise InputError(f"at_least must be between 1 and the number of pairs, {len(labels)}; got {quoted(at_least)}.")
    present = present_pairs(effects)
    kept, labels = effects.isel(pair=present), labels[present]
    units = [pd.Series(codes[present]).groupby(labels).nunique() for codes in factors]
    sizes = pd.concat(units, axis=1).min(axis=1)
    unit = "pairs" if clusters is None else "clusters"
    too_small = [f"{name} ({size})" for name, size in sizes[sizes < min_pairs].items()]
    names = sizes[sizes >= min_pairs].index.tolist()
    if not names:
        raise StatementError(
            f"No group has at least {min_pairs} {unit} with a value: {', '.join(too_small)}. Add pairs or merge groups."
        )
    of_pairs = {str(factor): codes[present] for factor, codes in enumerate(factors)}
    tested = [
        effect_tests(
            kept.isel(pair=labels == name),
            clusters={factor: codes[labels == name] for factor, codes in of_pairs.items()},
            n_resamples=n_resamples,
            seed=seed,
        )[list(_WITHIN)]
        for name in names
    ]
    within = xr.concat(tested, pd.Index(names, name="group"), combine_attrs="drop")
    testable = within["n_clusters"] >= min_pairs
    overall = kept.astype(float).mean("pair").to_dataarray("metric").transpose(*within["effect"].dims[1:])
    agrees = np.sign(within["effect"]) == np.sign(overall.compute())
    n_groups = testable.sum("group")
    directed = within["p"].where(agrees, 1.0).where(testable)
    p_partial = ((n_groups - at_least + 1) * _smallest(directed, at_least)).clip(max=1.0)
    return within.assign(
        n_groups=n_groups,
        replicated=(testable & agrees & (within["p"] <= alpha)).sum("group"),
        p_partial=p_partial,
        q_partial=(p_partial.dims, false_discovery(p_partial.values.ravel()).reshape(p_partial.shape)),
    ).assign_attrs(too_small=too_small, at_least=at_least, alpha=alpha, n_resamples=n_resamples, seed=seed)


@checked
def holds_for_new(effects: xr.Dataset, groups: Labels, *, min_pairs: int = 1) -> xr.Dataset:
    """Whether the effect of a head can be expected in a new group of pairs, such as a cue that was not tested.

    The groups are the units, with equal weights: the mean effect of each group is one observation. The interval for a
    new group is Student's prediction interval, mean ± t s √(1 + 1/m) for m groups with the standard deviation s; in
    meta-analyses it answers the same question (Higgins, Thompson and Spiegelhalter 2009). It assumes that the effects
    of groups are normal and that the new group is drawn like the others. The groups' sampling errors are part of s, so
    the interval is for the mean effect of as many new pairs. It is not corrected for the number of heads.

    Leaving out each group in turn shows whether one group alone carries the mean: `smallest_left_out` is the mean of
    the other groups that is nearest to 0, or furthest on the other side of it.

    Args:
        effects: As for `effect_tests`.
        groups: The group of each pair, such as `effects["cue"]`.
        min_pairs: A group with fewer pairs at a head is left out there.

    Returns:
        Variables [metric, layer, head]: `effect` (the mean over groups), `low` and `high` (its 95% interval), `new_low`
        and `new_high` (the 95% interval of the effect in a new group), `smallest_left_out`, `predicted_sign` (in how
        many groups the effect has the sign of the mean of the others), `n_groups`, and `holds` (whether the interval of
        a new group excludes 0, and leaving out a group does not change the sign). With fewer than 3 groups, intervals
        and `smallest_left_out` are NaN, and `holds` is False.

    Raises:
        InputError: if `groups` does not have one value per pair, `min_pairs` is below 1, or as `effect_tests`.
        StatementError: if no pair has a value.
    """
    labels = labels_of_pairs(groups, effects.sizes.get("pair", 0))
    if min_pairs < 1:
        raise InputError(f"min_pairs must be at least 1, got {quoted(min_pairs)}.")
    present = present_pairs(effects)
    kept = effects.isel(pair=present).astype(float).assign_coords(_group=("pair", labels[present]))
    by_group = kept.drop_vars([name for name in kept.coords if name not in kept.dims and name != "_group"])
    of_groups = by_group.groupby("_group")
    means = of_groups.mean().where(of_groups.count() >= min_pairs).to_dataarray("metric").compute()
    n_groups = means.notnull().sum("_group")
    enough = n_groups >= _MIN_GROUPS
    mean, spread = means.mean("_group"), means.std("_group", ddof=1)
    quantile = xr.apply_ufunc(lambda m: stats.t.ppf(0.975, np.maximum(m - 1, 1)), n_groups)
    half = (quantile * spread / np.sqrt(n_groups)).where(enough)
    half_new = (quantile * spread * np.sqrt(1 + 1 / n_groups)).where(enough)
    others = (mean * n_groups - means) / (n_groups - 1)
    smallest = (others * np.sign(mean)).min("_group").where(enough) * np.sign(mean)
    columns = {
        "effect": mean,
        "low": mean - half,
        "high": mean + half,
        "new_low": mean - half_new,
        "new_high": mean + half_new,
        "smallest_left_out": smallest,
        "predicted_sign": (np.sign(others) == np.sign(means)).where(means.notnull(), False).sum("_group"),
        "n_groups": n_groups,
        "holds": (half_new < np.abs(mean)) & (smallest * mean > 0),
    }
    dims = ("metric", *(dim for dim in next(iter(effects.data_vars.values())).dims if dim != "pair"))
    ordered = {name: column.transpose(*dims) for name, column in columns.items()}
    return xr.Dataset(ordered, attrs={"min_pairs": min_pairs})


def _smallest(p: xr.DataArray, rank: int) -> xr.DataArray:
    """The rank-th smallest p-value over the groups; NaN if there are fewer groups."""
    if p.sizes["group"] < rank:
        return xr.full_like(p.isel(group=0, drop=True), np.nan)
    # numpy sorts NaN last.
    return p.copy(data=np.sort(p.values, axis=p.get_axis_num("group"))).isel(group=rank - 1, drop=True)
