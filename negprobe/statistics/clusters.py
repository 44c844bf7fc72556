"""Clusters of pairs: their labels, the sums of effects in them, and how alike the effects in a cluster are."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import xarray as xr
from jaxtyping import Float, Int
from scipy import sparse

from negprobe.base.errors import InputError

Labels = Sequence[str] | np.ndarray | pd.Series | xr.DataArray
"""The label of each pair: one value per pair, in the order of the pairs."""

Clusters = Labels | Mapping[str, Labels] | pd.DataFrame
"""The clusters of pairs: the label of each pair, or one or two crossed factors by name, such as noun and cue."""

_MAX_FACTORS = 2


def labels_of_pairs(labels: Labels, n_pairs: int) -> np.ndarray:
    """The labels as an array of strings, one per pair.

    Raises:
        InputError: if there is not exactly one label per pair, or a label is missing.
    """
    array = np.asarray(labels)
    if array.shape != (n_pairs,):
        raise InputError(
            f"There are {n_pairs} pairs and groups of shape {array.shape}; give one name per pair, in the same order."
        )
    missing = int(pd.isna(array).sum())
    if missing:
        raise InputError(
            f"{missing} of the {n_pairs} pairs have no name of a group (None or NaN); give one to each pair."
        )
    return array.astype(str)


def cluster_codes(clusters: Clusters | None, n_pairs: int) -> list[Int[np.ndarray, " pair"]]:
    """For each factor, the number of each pair's cluster, in order of appearance.

    Args:
        clusters: As for `effect_tests`. A pair with the label "" is a cluster of its own.
        n_pairs: The number of pairs.

    Raises:
        InputError: as `labels_of_pairs`, or if there are no factors or more than two.
    """
    if clusters is None:
        return [np.arange(n_pairs)]
    if not isinstance(clusters, (Mapping, pd.DataFrame)):
        return [_codes(labels_of_pairs(clusters, n_pairs))]
    if not 1 <= len(clusters.keys()) <= _MAX_FACTORS:
        raise InputError(
            f"Clusters can be formed by one factor or two crossed factors, got {len(clusters.keys())}: "
            f"{', '.join(map(str, clusters.keys()))}. Leave out the factors whose levels differ least."
        )
    return [_codes(labels_of_pairs(labels, n_pairs)) for _, labels in clusters.items()]


def _codes(labels: np.ndarray) -> Int[np.ndarray, " pair"]:
    """The number of each label, in order of appearance; each "" is a label of its own."""
    alone = np.where(labels == "", np.arange(len(labels)), -1)
    return pd.factorize(pd.MultiIndex.from_arrays([labels, alone]))[0]


def cluster_sums(
    values: Float[np.ndarray, "pair cell"], codes: Int[np.ndarray, " pair"]
) -> tuple[Float[np.ndarray, "cluster cell"], Float[np.ndarray, "cluster cell"]]:
    """The sum of the values in each cluster, and their number; NaN is left out."""
    known = np.isfinite(values)
    filled = np.where(known, values, 0.0)
    if np.array_equal(codes, np.arange(len(values))):
        return filled, known.astype(float)
    n_pairs = len(codes)
    members = sparse.csr_array((np.ones(n_pairs), (codes, np.arange(n_pairs))), shape=(codes.max() + 1, n_pairs))
    return members @ filled, members @ known.astype(float)


def robust_variances(
    deviations: Float[np.ndarray, "pair cell"], factors: Sequence[Int[np.ndarray, " pair"]]
) -> tuple[Float[np.ndarray, " cell"], list[Float[np.ndarray, " cell"]]]:
    """The cluster-robust variance of the sum of the deviations over all factors together, and over each alone.

    Over one factor it is the sum of the clusters' squared sums, times G / (G - 1) for G clusters. Over two crossed
    factors it is V1 + V2 - V12, where V12 is over the pairs that share both (Cameron, Gelbach and Miller 2011, Journal
    of Business and Economic Statistics 29), and at least the larger of V1 and V2.
    """
    alone = [_robust_variance(deviations, codes) for codes in factors]
    largest = np.max(alone, axis=0)
    if len(factors) == 1:
        return largest, alone
    both = np.unique(np.stack(factors, axis=1), axis=0, return_inverse=True)[1].ravel()
    return np.maximum(largest, np.sum(alone, axis=0) - _robust_variance(deviations, both)), alone


def _robust_variance(
    deviations: Float[np.ndarray, "pair cell"], codes: Int[np.ndarray, " pair"]
) -> Float[np.ndarray, " cell"]:
    sums, sizes = cluster_sums(deviations, codes)
    n_clusters = (sizes > 0).sum(axis=0)
    return (sums**2).sum(axis=0) * n_clusters / np.maximum(n_clusters - 1, 1)


def intraclass_correlation(
    values: Float[np.ndarray, "pair cell"], codes: Int[np.ndarray, " pair"]
) -> tuple[Float[np.ndarray, " cell"], Float[np.ndarray, " cell"]]:
    """The intraclass correlation of each cell, and the effective number of pairs.

    The correlation is the one-way analysis-of-variance estimator ICC(1) with m0, the mean cluster size for clusters of
    unequal size: (MSB - MSW) / (MSB + (m0 - 1) MSW) (Donner 1986, International Statistical Review 54). It can be
    negative. The effective number of pairs is n / (1 + (m0 - 1) ICC), where a negative correlation counts as 0.

    Returns:
        The correlation, NaN if no cluster has two pairs, there is one cluster only, or no value differs; and the
        effective number, which is the number of pairs where the correlation is NaN, and NaN without pairs.
    """
    sums, sizes = cluster_sums(values, codes)
    n, n_clusters = sizes.sum(axis=0), (sizes > 0).sum(axis=0)
    known = np.isfinite(values)
    with np.errstate(divide="ignore", invalid="ignore"):
        means = np.where(sizes > 0, sums / sizes, 0.0)
        grand = sums.sum(axis=0) / n
        between = (sizes * (means - grand) ** 2).sum(axis=0) / (n_clusters - 1)
        within = (np.where(known, values - means[codes], 0.0) ** 2).sum(axis=0) / (n - n_clusters)
        mean_size = (n - (sizes**2).sum(axis=0) / n) / (n_clusters - 1)
        correlation = (between - within) / (between + (mean_size - 1) * within)
        defined = (n_clusters > 1) & (n > n_clusters) & np.isfinite(correlation)
        effective = n / (1 + (mean_size - 1) * np.maximum(correlation, 0.0))
    effective = np.where(defined, effective, n)
    return np.where(defined, correlation, np.nan), np.where(n > 0, effective, np.nan)
