"""Cohen's d_z of each cell over the pairs, with an interval that is robust to clusters of pairs."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int
from scipy import stats

from negprobe.statistics.clusters import cluster_sums, robust_variances


def effect_sizes(
    values: Float[np.ndarray, "pair cell"],
) -> tuple[Float[np.ndarray, " cell"], Float[np.ndarray, " cell"]]:
    """Mean and Cohen's d_z of each cell's values; the mean is NaN without values, d_z with fewer than two."""
    mean, deviation, n = _moments(values)
    # If all pairs have the same effect, the standard deviation is 0 and d_z is infinite, or 0 if that effect is 0.
    with np.errstate(divide="ignore", invalid="ignore"):
        size = np.where(mean == 0, 0.0, mean / deviation)
    return mean, np.where(n > 1, size, np.nan)


def effect_size_intervals(
    values: Float[np.ndarray, "pair cell"], factors: Sequence[Int[np.ndarray, " pair"]]
) -> tuple[Float[np.ndarray, " cell"], Float[np.ndarray, " cell"]]:
    """95% intervals of d_z: d_z plus or minus Student's t times its cluster-robust standard error.

    The influence of a pair on d_z is z - d_z (z² - 1) / 2, where z is the pair's effect minus the mean, over the
    standard deviation. The variance of d_z is the sum of the squared influences of whole clusters (Liang and Zeger
    1986, Biometrika 73), or of both factors together if there are two (see `clusters.robust_variances`). Student's t
    has G - 1 degrees of freedom for G clusters, with the smaller G of two factors.

    In simulations of 8 to 100 clusters with d_z of 0.5 and 1, it covered d_z of normal effects in 93 to 96% of cases,
    and the percentile bootstrap in 82 to 94%; of exponential effects in 85 to 99% and in 70 to 95%. No interval covers
    d_z of log-normal effects well, because their standard deviation is dominated by rare pairs (47 to 97%, and 32 to
    84%).

    Args:
        values: The effects; NaN excludes a pair.
        factors: The cluster of each pair, for each factor.

    Returns:
        The limits. NaN with fewer than two clusters; both are d_z if the effects of all pairs are equal.
    """
    mean, deviation, n = _moments(values)
    _, size = effect_sizes(values)
    with np.errstate(divide="ignore", invalid="ignore"):
        z = np.where(np.isfinite(values) & (deviation == 0), 0.0, (values - mean) / deviation)
        finite_size = np.where(np.isfinite(size), size, 0.0)
        influence = (z - finite_size / 2 * (z**2 - 1)) / n
    least = np.min([(cluster_sums(values, codes)[1] > 0).sum(axis=0) for codes in factors], axis=0)
    variance, _ = robust_variances(influence, factors)
    half = stats.t.ppf(0.975, np.maximum(least - 1, 1)) * np.sqrt(np.where(deviation == 0, 0.0, variance))
    half = np.where(least > 1, half, np.nan)
    return size - half, size + half


def _moments(
    values: Float[np.ndarray, "pair cell"],
) -> tuple[Float[np.ndarray, " cell"], Float[np.ndarray, " cell"], Int[np.ndarray, " cell"]]:
    """Mean and standard deviation of each cell's values, and their number; NaN without enough values."""
    present = np.isfinite(values)
    n = present.sum(axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        mean = np.where(present, values, 0.0).sum(axis=0) / n
        variance = (np.where(present, values - mean, 0.0) ** 2).sum(axis=0) / (n - 1)
        # The computed mean of equal numbers can differ from them by rounding.
        return mean, np.sqrt(np.where(variance <= (4 * np.finfo(float).eps * mean) ** 2, 0.0, variance)), n
