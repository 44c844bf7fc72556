"""Comparison of two studies on their common pairs: answers, effects of swaps, and effects of negation per head."""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from jaxtyping import Bool, Float
from scipy import stats

from negprobe.base.arguments import checked
from negprobe.base.errors import NegprobeError
from negprobe.base.reprs import short_repr
from negprobe.base.texts import quoted
from negprobe.patching import averages, score_margin
from negprobe.patching.effects import MIN_GAP, clusters_of
from negprobe.statements import ROLES
from negprobe.statistics import negation_effects
from negprobe.statistics.clusters import cluster_sums
from negprobe.study.effect_tests import clustered_tests
from negprobe.study.saved import SavedStudy, metrics_dataset, sweep
from negprobe.study.stages import SWEEPS, Sweep
from negprobe.study.summary import mean_row, share_row
from negprobe.study.summary_table import NO_CUE, StudySummary

STATEMENTS = ("both", "original", "counterfactual", "control")
"""What an accuracy is computed for: original and counterfactual together ("both"), and each statement separately."""

ALL_CUES = "all"
"""The value of `cue` in the row for all pairs."""

_Measure = Callable[[pd.DataFrame, str, str], Float[np.ndarray, " pair"]]

_SIDES = ["A", "A_low", "A_high", "B", "B_low", "B_high"]
_N_RESAMPLES = 1000
_BATCH = 2**22  # resampled values in memory at a time
_TEXTS = ["original", "counterfactual", "target", "foil"]


@dataclass(frozen=True, repr=False)
class StudyComparison:
    """The comparison of two studies, A and B, on their common pairs; every difference is B - A.

    Attributes:
        a: The first study.
        b: The second.
        common: One row per common pair: its number in A (`a`) and in B (`b`), and its `cue`.
        same_shape: Whether the models have the same numbers of layers and heads, so that heads can be matched.
        answers: One row per cue type (and `ALL_CUES`) and `statement`: the number of `pairs`; the accuracies `A` and
            `B` with their 95% Wilson intervals (`A_low`, `A_high`, `B_low`, `B_high`); their `difference` with its 95%
            paired bootstrap interval (`low`, `high`). For embeddings, the statement is "cosine", and the values are the
            mean cosine similarity of original and counterfactual with bootstrap intervals. Empty if the answers cannot
            be compared.
        no_answers: The reason why the answers cannot be compared; empty if they can.
        swaps: One row per `site`, `direction`, `layer` and `part` (a role, or a head at site z; at site "knock_out" a
            set of tokens that cannot attend to the cue, without layer): the number of `pairs`; the normalised effects
            `A` and `B` with their 95% bootstrap intervals (`A_low`, `A_high`, `B_low`, `B_high`); if the models have
            the same shape, also `difference`, `low` and `high`. Each bootstrap sample draws the same pairs for A and B.
        patched: The number of common pairs that were patched in both studies with a gap of at least `MIN_GAP` in both.
        tests: `statistics.effect_tests` of each model on the common pairs; None if there are no controls.
        change: The same tests of B's effect minus A's in each pair; None if the shapes differ or there are no controls.
    """

    a: SavedStudy
    b: SavedStudy
    common: pd.DataFrame
    same_shape: bool
    answers: pd.DataFrame
    no_answers: str
    swaps: pd.DataFrame
    patched: int
    tests: tuple[xr.Dataset | None, xr.Dataset | None]
    change: xr.Dataset | None

    __repr__ = short_repr

    @cached_property
    def summary(self) -> StudySummary:
        """All numbers that the report and the command line state, computed once (see `summarize_comparison`)."""
        # Imported late, because that module imports this one.
        from negprobe.study.comparison_summary import summarize_comparison

        return summarize_comparison(self)


@checked
def compare_studies(a: SavedStudy, b: SavedStudy) -> StudyComparison:
    """The comparison of two studies on their common pairs: those with the same texts, target and foil in both.

    Effects, accuracies and tests are recomputed for the common pairs, so they can differ from those of each study. All
    intervals and tests use A's seed.

    Raises:
        NegprobeError: if the studies have no common pair or patched different objectives.
    """
    if a.objective != b.objective:
        raise NegprobeError(
            f"The study in {a.folder} patched the objective {quoted(a.objective)}, and the study in {b.folder} patched "
            f"{quoted(b.objective)}, so their effects cannot be compared. Run both studies with the same objective."
        )
    common = _common_pairs(a, b)
    same_shape = a.shape == b.shape
    answers, no_answers = _answers(a, b, common)
    swaps, patched = _swaps(a, b, common, same_shape)
    effects = [_effects(study, common[side].tolist()) for study, side in ((a, "a"), (b, "b"))]
    change = None
    if same_shape and effects[0] is not None and effects[1] is not None:
        change = clustered_tests(effects[1] - effects[0], a.seed)
    tests = [None if effect is None else clustered_tests(effect, a.seed) for effect in effects]
    return StudyComparison(a, b, common, same_shape, answers, no_answers, swaps, patched, (tests[0], tests[1]), change)


def _common_pairs(a: SavedStudy, b: SavedStudy) -> pd.DataFrame:
    # Pairs that differ only in their controls are matched in the order in which they occur.
    tables = [study.pairs.assign(**study.pairs[_TEXTS].fillna("")) for study in (a, b)]
    keyed = [table.assign(turn=table.groupby(_TEXTS).cumcount()) for table in tables]
    keys = [*_TEXTS, "turn"]
    left = keyed[0][[*keys, "pair", "cue"]].rename(columns={"pair": "a"})
    merged = left.merge(keyed[1][[*keys, "pair"]].rename(columns={"pair": "b"}), on=keys)
    if merged.empty:
        raise NegprobeError(
            f"The studies in {a.folder} ({len(a.pairs)} pairs) and {b.folder} ({len(b.pairs)} pairs) have no common "
            "pair, which is one with the same texts, target and foil. Run both studies on the same pairs."
        )
    return merged[["a", "b", "cue"]].assign(cue=merged["cue"].fillna(""))


def _answers(a: SavedStudy, b: SavedStudy, common: pd.DataFrame) -> tuple[pd.DataFrame, str]:
    """The table `StudyComparison.answers`, and the reason if it is empty (`no_answers`)."""
    empty = pd.DataFrame(columns=["cue", "statement", "pairs", *_SIDES, "difference", "low", "high"])
    if a.head != b.head and "none" in (a.head, b.head):
        return empty, "one model gives answers, the other embeddings"
    if any(study.has_one_logit and study.objective != score_margin.__name__ for study in (a, b)):
        return empty, "a model with a single logit gives a score, which is neither right nor wrong"
    if any(_own_labels(study) for study in (a, b)):
        return empty, "the labels are a classifier's own predictions, which are neither right nor wrong"
    values = ["pair", "original", "counterfactual", "control"]
    one = common.merge(a.answers[values], left_on="a", right_on="pair")
    other = common[["a", "b"]].merge(b.answers[values], left_on="b", right_on="pair")
    both = one.merge(other, on=["a", "b"], suffixes=("_A", "_B"))
    if both.empty:
        return empty, "no common pair has an answer in both studies"
    measured: dict[str, _Measure] = {"cosine": _cosine} if a.head == "none" else dict.fromkeys(STATEMENTS, _right)
    groups = [(ALL_CUES, both), *((str(cue) or NO_CUE, rows) for cue, rows in both.groupby("cue"))]
    rows: list[dict[str, object]] = []
    for cue, group in groups:
        for statement, measure in measured.items():
            sides = [measure(group, statement, side) for side in ("_A", "_B")]
            answered = np.isfinite(sides).all(axis=0)
            if answered.any():
                means = _means([side[answered] for side in sides], statement, a.seed)
                rows.append({"cue": cue, "statement": statement, **means})
    return pd.DataFrame(rows), ""


def _own_labels(study: SavedStudy) -> bool:
    answered = study.pairs[study.pairs["pair"].isin(study.answers["pair"])]
    return study.head == "classification" and bool(answered["target"].isna().any())


def _right(answers: pd.DataFrame, statement: str, side: str) -> Float[np.ndarray, " pair"]:
    """1 if the model prefers the right answer, 0 if not, NaN if the pair lacks the statement."""
    original, counterfactual, control = (
        answers[name + side].to_numpy(dtype=float) for name in ("original", "counterfactual", "control")
    )
    right = {
        "both": (original > 0) & (counterfactual < 0),
        "original": original > 0,
        "counterfactual": counterfactual < 0,
        "control": control > 0,
    }[statement]
    return np.where(np.isnan(control) & (statement == "control"), np.nan, right.astype(float))


def _cosine(answers: pd.DataFrame, statement: str, side: str) -> Float[np.ndarray, " pair"]:
    return 1 - answers["original" + side].to_numpy(dtype=float)


def _means(values: Sequence[Float[np.ndarray, " pair"]], statement: str, seed: int) -> dict[str, object]:
    """The means of A and B over the same pairs, and their difference, each with its interval."""
    means: dict[str, object] = {"pairs": len(values[0])}
    for name, side in zip("AB", values, strict=True):
        mean = mean_row(side, seed) if statement == "cosine" else share_row(side == 1)
        means |= {name: mean["estimate"], f"{name}_low": mean["low"], f"{name}_high": mean["high"]}
    return means | _difference(values[0], values[1], seed)


def _difference(one: Float[np.ndarray, " pair"], other: Float[np.ndarray, " pair"], seed: int) -> dict[str, float]:
    """The difference of two means over the same pairs, with its paired bootstrap interval."""
    low = high = np.nan
    if len(one) > 1:
        found = stats.bootstrap(
            (one, other),
            lambda a, b, axis: b.mean(axis) - a.mean(axis),
            paired=True,
            method="percentile",
            rng=np.random.default_rng(seed),
        ).confidence_interval
        low, high = float(found.low), float(found.high)
    return {"difference": float(other.mean()) - float(one.mean()), "low": low, "high": high}


def _swaps(a: SavedStudy, b: SavedStudy, common: pd.DataFrame, same_shape: bool) -> tuple[pd.DataFrame, int]:
    """The table `StudyComparison.swaps`, and the number of pairs patched in both studies (`patched`)."""
    names = ["site", "direction", "layer", "part", "pairs", *_SIDES, "difference", "low", "high"]
    patched = common[common["a"].isin(a.patching["pair"]) & common["b"].isin(b.patching["pair"])]
    has_gap = _has_gap(a, patched["a"].tolist()) & _has_gap(b, patched["b"].tolist())
    patched = patched[has_gap]
    if patched.empty:
        return pd.DataFrame(columns=names), 0
    sides = [(study, patched[side].tolist()) for study, side in ((a, "a"), (b, "b"))]
    tables = []
    for stage in SWEEPS:
        one, other = (_sweep(study, pairs, stage) for study, pairs in sides)
        tables.append(_compared(one, other, same_shape, a.seed).assign(site=stage.site, direction=stage.direction))
    sets = list(dict.fromkeys([*a.knock_out_sets["patch"], *b.knock_out_sets["patch"]]))
    one, other = (
        _clustered(sweep(study.knock_out_sets, pairs, {"patch": sets}), study, pairs) for study, pairs in sides
    )
    tables.append(_compared(one, other, same_shape, a.seed).assign(site="knock_out", direction="denoising"))
    table = pd.concat([table.rename(columns={"role": "part", "head": "part", "patch": "part"}) for table in tables])
    return table.reindex(columns=names).reset_index(drop=True), len(patched)


def _has_gap(study: SavedStudy, pairs: Sequence[int]) -> Bool[np.ndarray, " pair"]:
    """Whether the two runs of each pair differ in the objective by at least `MIN_GAP`."""
    runs = study.patching.drop_duplicates("pair").set_index("pair").reindex(list(pairs))
    return (abs(runs["source"] - runs["base"]) >= MIN_GAP).to_numpy()


def _sweep(study: SavedStudy, pairs: Sequence[int], stage: Sweep) -> xr.Dataset:
    table = study.patching
    rows = table[(table["site"] == stage.site) & (table["direction"] == stage.direction)]
    layers, heads = study.shape
    coords: dict[str, Sequence[Any]] = {"layer": range(layers)}
    coords |= {"head": [str(head) for head in range(heads)]} if stage.by == "head" else {"role": ROLES}
    return _clustered(sweep(rows.rename(columns={"part": stage.by}), pairs, coords), study, pairs)


def _clustered(results: xr.Dataset, study: SavedStudy, pairs: Sequence[int]) -> xr.Dataset:
    """The results with the cluster of each pair."""
    labels = study.pairs.set_index("pair")["cluster"].fillna("").loc[list(pairs)]
    return results.assign_coords(cluster=("pair", labels.to_numpy(dtype=str)))


def _compared(one: xr.Dataset, other: xr.Dataset, same_shape: bool, seed: int) -> pd.DataFrame:
    """The effects of a sweep in both studies, and their differences if the models have the same shape."""
    dims = [str(dim) for dim in one["patched"].dims if dim != "pair"]
    if not same_shape:
        sides = [averages(side, seed=seed).to_dataframe().reset_index() for side in (one, other)]
        named = [
            side.dropna(subset="effect")[[*dims, "effect", "low", "high", "n_pairs"]].rename(
                columns={"effect": name, "low": f"{name}_low", "high": f"{name}_high"}
            )
            for side, name in zip(sides, "AB", strict=True)
        ]
        merged = named[0].merge(named[1], on=dims, how="outer", suffixes=("", "_B"))
        return merged.assign(pairs=merged["n_pairs"].fillna(merged["n_pairs_B"]).astype(int))
    moved, gaps = zip(*(_moved_and_gap(side, dims) for side in (one, other)), strict=True)
    # A pair counts for a part only if it has that part under both tokenizers.
    present = np.isfinite(moved[0]) & np.isfinite(moved[1])
    has_pairs = present.any(axis=0)
    data = [np.where(present, values, 0.0)[:, has_pairs] for pair in zip(moved, gaps, strict=True) for values in pair]
    effects = [data[i].sum(0) / data[i + 1].sum(0) for i in (0, 2)]
    n_pairs = present.sum(0)[has_pairs]
    # Pairs of one cluster are resampled together: a sum over a resample is a sum of the clusters' sums.
    codes = clusters_of(one)
    sums = [cluster_sums(values, codes)[0] for values in data]
    n_clusters = (cluster_sums(np.where(present[:, has_pairs], 1.0, np.nan), codes)[1] > 0).sum(axis=0)
    bounds = np.where(n_clusters > 1, _intervals(sums, seed), np.nan)
    named_bounds = {
        f"{name}{end}": bounds[i, j] for j, name in enumerate(("A_", "B_", "")) for i, end in enumerate(("low", "high"))
    }
    cells = pd.MultiIndex.from_product([one[dim].values for dim in dims], names=dims).to_frame(index=False)
    return cells[has_pairs].assign(
        pairs=n_pairs, A=effects[0], B=effects[1], difference=effects[1] - effects[0], **named_bounds
    )


def _moved_and_gap(
    results: xr.Dataset, dims: Sequence[str]
) -> tuple[Float[np.ndarray, "pair cell"], Float[np.ndarray, "pair cell"]]:
    """How far each swap moves the objective towards the source run, and its gap between the runs."""
    gap = results["source"] - results["base"]
    moved = ((results["patched"] - results["base"]) * xr.where(gap < 0, -1, 1)).transpose("pair", *dims)
    cells = moved.values.reshape(len(gap), -1)
    return cells, np.broadcast_to(np.abs(gap.values)[:, None], cells.shape)


def _intervals(data: Sequence[Float[np.ndarray, "cluster cell"]], seed: int) -> Float[np.ndarray, "2 3 cell"]:
    """95% bootstrap intervals of two ratios of means, and of their difference; NaN for one cluster.

    Args:
        data: The moved amounts and gaps of A, then those of B (see `_moved_and_gap`), summed over each cluster.
        seed: Seed of the bootstrap.

    Returns:
        Low and high of A, B and B - A.
    """
    n_clusters, n_cells = data[0].shape
    if n_clusters < 2:
        return np.full((2, 3, n_cells), np.nan)

    def effects(*drawn: Float[np.ndarray, "..."], axis: int) -> Float[np.ndarray, "3 ..."]:
        one, one_gap, other, other_gap = (values.sum(axis) for values in drawn)
        one, other = one / one_gap, other / other_gap
        return np.stack([one, other, other - one])

    with warnings.catch_warnings(), np.errstate(invalid="ignore"):
        # A bootstrap sample may contain no pair with a certain part; that part's interval ignores the sample.
        warnings.simplefilter("ignore", stats.DegenerateDataWarning)
        distribution = stats.bootstrap(
            data,
            effects,
            paired=True,
            axis=0,
            method="percentile",
            n_resamples=_N_RESAMPLES,
            batch=max(1, _BATCH // (n_clusters * n_cells)),
            rng=np.random.default_rng(seed),
        ).bootstrap_distribution
    return np.nanquantile(distribution, [0.025, 0.975], axis=-1)


def _effects(study: SavedStudy, pairs: Sequence[int]) -> xr.Dataset | None:
    """The effects of negation on the common pairs, renumbered from 0; None if no pair has a control."""
    effects = negation_effects(metrics_dataset(study, pairs))
    if not bool(effects.to_array().notnull().any()):
        return None
    return effects.assign_coords(pair=np.arange(len(pairs)))
