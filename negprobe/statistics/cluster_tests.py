"""Tests of the effects of all cells over the clusters of one factor, and their combination over two crossed factors."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from negprobe.statistics.clusters import cluster_sums, intraclass_correlation, robust_variances
from negprobe.statistics.resampling import bootstrap_t, joint_tails, sign_flips, upper_tail

MIN_CLUSTERS = 8
"""The smallest number of clusters for which the mean is tested."""

Columns = Mapping[str, Float[np.ndarray, " cell"] | Int[np.ndarray, " cell"]]


class BlockTests(NamedTuple):
    """The tests of a block of cells over the clusters of one factor.

    Attributes:
        columns: One value for each cell, by name; `flip` and `t` are the two statistics.
        largest_flip: The largest statistic of all cells, for each sign flip.
        largest_t: The largest bootstrap t of all cells, for each resample.
        smallest_t: The smallest.
    """

    columns: Columns
    largest_flip: Float[np.ndarray, " resample"]
    largest_t: Float[np.ndarray, " resample"]
    smallest_t: Float[np.ndarray, " resample"]


def block_tests(
    values: Float[np.ndarray, "pair cell"], factors: Sequence[Int[np.ndarray, " pair"]], n_resamples: int, seed: int
) -> list[BlockTests]:
    """For each factor, the tests of each cell over its clusters, before the correction for all cells.

    With two crossed factors, the observed t has the standard error of both together, and is compared with the t of the
    resamples of each factor, which have the standard error of that factor (as in the one-way wild cluster bootstrap of
    MacKinnon, Nielsen and Webb 2021, Journal of Business and Economic Statistics 39).
    """
    if len(factors) == 1:
        return [_tests_of_factor(values, factors[0], n_resamples, seed)]
    known = np.isfinite(values)
    with np.errstate(divide="ignore", invalid="ignore"):
        mean = np.where(known, values, 0.0).sum(axis=0) / known.sum(axis=0)
        together, alone = robust_variances(np.where(known, values - mean, 0.0), factors)
        shrinkages = [np.where(together > 0, np.sqrt(variance / together), 1.0) for variance in alone]
    return [
        _tests_of_factor(values, codes, n_resamples, seed, shrinkage)
        for codes, shrinkage in zip(factors, shrinkages, strict=True)
    ]


def _tests_of_factor(
    values: Float[np.ndarray, "pair cell"],
    codes: Int[np.ndarray, " pair"],
    n_resamples: int,
    seed: int,
    shrinkage: Float[np.ndarray, " cell"] | None = None,
) -> BlockTests:
    sums, sizes = cluster_sums(values, codes)
    p, statistic, largest_flip = sign_flips(sums, n_resamples, seed, shrinkage)
    n_clusters = (sizes > 0).sum(axis=0)
    enough = n_clusters >= MIN_CLUSTERS
    p_mean, t = np.full((2, len(p)), np.nan)
    largest_t, smallest_t = np.full(n_resamples, -np.inf), np.full(n_resamples, np.inf)
    if enough.any():
        shrunk = 1.0 if shrinkage is None else shrinkage[enough]
        mean = bootstrap_t(sums[:, enough], sizes[:, enough], n_resamples, seed, shrunk)
        p_mean[enough], t[enough], largest_t, smallest_t = mean
    icc, n_effective = intraclass_correlation(values, codes)
    columns = {
        "n_clusters": n_clusters,
        "icc": icc,
        "n_effective": n_effective,
        "p": p,
        "flip": statistic,
        "p_mean": p_mean,
        "t": t,
    }
    return BlockTests(columns, largest_flip, largest_t, smallest_t)


def corrected(blocks: Sequence[BlockTests], exact: bool) -> Columns:
    """The columns of all blocks together, with p-values corrected for all cells.

    Args:
        blocks: The blocks; their resamples are the same ones.
        exact: Whether the flips are all possible ones.
    """
    found = {name: np.concatenate([block.columns[name] for block in blocks]) for name in blocks[0].columns}
    n_clusters, statistic, t = (found[name] for name in ("n_clusters", "flip", "t"))
    # Random flips may miss the extreme ones: of all 2^n flips of n clusters, at least 2 are as extreme as observed.
    floor = np.where(n_clusters > 0, 2.0 ** (1.0 - n_clusters), np.nan)
    largest_flip = np.max([block.largest_flip for block in blocks], axis=0)
    largest_t = np.max([block.largest_t for block in blocks], axis=0)
    smallest_t = np.min([block.smallest_t for block in blocks], axis=0)
    p_values = {
        "p": found["p"],
        "p_max_t": upper_tail(statistic, largest_flip, exact),
        "p_mean": found["p_mean"],
        "p_mean_max_t": np.where(np.isnan(t), np.nan, joint_tails(t, largest_t, smallest_t)),
    }
    described = {name: found[name] for name in ("n_clusters", "icc", "n_effective")}
    return described | {name: np.maximum(p, floor) for name, p in p_values.items()}


def most_cautious(factors: Sequence[Columns]) -> Columns:
    """The columns of the only factor, or the more cautious of two factors.

    Over two crossed factors, p is the larger, the number of clusters and of effective pairs are the smaller, and the
    intraclass correlation is the larger.
    """
    if len(factors) == 1:
        return factors[0]
    one, other = factors
    combined = {name: np.minimum(one[name], other[name]) for name in ("n_clusters", "n_effective")}
    combined["icc"] = np.fmax(one["icc"], other["icc"])
    p_values = ("p", "p_max_t", "p_mean", "p_mean_max_t")
    return combined | {name: np.maximum(one[name], other[name]) for name in p_values}
