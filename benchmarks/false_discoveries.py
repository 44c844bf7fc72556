"""How often a study without any effect names a head, and how often it finds planted ones, by simulation.

A study has 72 heads and 4 metrics, with effects correlated over heads and metrics as those of one pair are. In each
design, effects have a mean of 0 everywhere, and the family-wise error is the share of studies with any false discovery:

- by pairs: max-T sign flips that take every pair as independent;
- by clusters: max-T sign flips of whole clusters (`p_max_t`). Their null hypothesis is symmetry around 0, which skewed
  effects violate: for these, a rejection is right about symmetry and wrong about the mean;
- mean: max-T of the bootstrap-t over clusters (`p_mean_max_t`), with the null hypothesis of mean 0;
- beyond: what `responding` names: significant by clusters and by mean, with the whole interval of d_z beyond
  `SMALLEST_EFFECT`.

Power is the share of planted effects that are found: d = 0.5 and d = 1 standard deviation, in 5 of the heads.

    python benchmarks/false_discoveries.py               # about two minutes on one thread
    python benchmarks/false_discoveries.py --runs 2000   # narrower intervals
"""

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from einops import rearrange
from scipy import stats

from negprobe.statistics import ALPHA, SMALLEST_EFFECT
from negprobe.statistics.cluster_tests import block_tests, corrected, most_cautious
from negprobe.statistics.effect_sizes import effect_size_intervals

HEADS, METRICS = 72, 4
PLANTED = (3, 17, 30, 44, 60)
RESAMPLES = 499
TESTS = ("by pairs", "by clusters", "mean", "beyond")

Distribution = Literal["normal", "exponential", "lognormal"]


@dataclass(frozen=True)
class Design:
    """The pairs of a study: how many, how they cluster, and how their effects are distributed.

    Attributes:
        n: The number of pairs.
        clusters: The number of clusters; 0 if pairs are independent.
        icc: The share of the variance between clusters.
        crossed: The number of levels of a second factor, crossed with the clusters; 0 without it.
        crossed_icc: The share of the variance between its levels.
        distribution: The distribution of all effects, scaled to a standard deviation of 1.
    """

    n: int
    clusters: int = 0
    icc: float = 0.0
    crossed: int = 0
    crossed_icc: float = 0.0
    distribution: Distribution = "normal"

    def __str__(self) -> str:
        crossed = f" x {self.crossed} levels, ICC {self.crossed_icc:g}" if self.crossed else ""
        units = f"{self.clusters} clusters, ICC {self.icc:g}{crossed}" if self.clusters else "independent"
        return f"{self.distribution}, {units}"


def designs() -> Iterator[Design]:
    """All designs of the table."""
    sizes = (20, 40, 100, 280)
    yield from (Design(n) for n in sizes)
    for clusters in (8, 10, 34):
        for icc in (0.1, 0.3):
            yield from (Design(n, clusters, icc) for n in sizes[1:] if n > clusters)
    for clusters, levels in ((10, 8), (10, 10), (34, 8), (34, 34)):
        for icc, crossed_icc in ((0.1, 0.1), (0.3, 0.3), (0.3, 0.0)):
            yield Design(280, clusters, icc, levels, crossed_icc)
    for distribution in ("exponential", "lognormal"):
        yield from (Design(n, distribution=distribution) for n in sizes)
        yield from (Design(280, clusters, 0.3, distribution=distribution) for clusters in (10, 34))


def noise(n: int, rng: np.random.Generator) -> np.ndarray:
    """Normal effects [pair, cell] with variance 1, correlated over heads and metrics."""
    common, metric, head, own = (
        rng.normal(size=shape) for shape in ((n, 1, 1), (n, 1, METRICS), (n, HEADS, 1), (n, HEADS, METRICS))
    )
    mixed = np.sqrt(0.2) * common + np.sqrt(0.1) * metric + np.sqrt(0.3) * head + np.sqrt(0.4) * own
    return rearrange(mixed, "pair head metric -> pair (head metric)")


def drawn(design: Design, rng: np.random.Generator) -> tuple[np.ndarray, list[np.ndarray]]:
    """Effects [pair, cell] with mean 0 and variance 1, and the cluster of each pair for each factor."""
    pairs = np.arange(design.n)
    effects = np.sqrt(1 - design.icc - design.crossed_icc) * noise(design.n, rng)
    factors = []
    if design.clusters:
        factors.append(pairs % design.clusters)
        effects += np.sqrt(design.icc) * noise(design.clusters, rng)[factors[0]]
    if design.crossed:
        factors.append((pairs + pairs // design.clusters) % design.crossed)
        effects += np.sqrt(design.crossed_icc) * noise(design.crossed, rng)[factors[1]]
    factors = [np.unique(codes, return_inverse=True)[1] for codes in factors] or [pairs]
    if design.distribution == "exponential":
        effects = stats.expon.isf(stats.norm.sf(effects)) - 1
    elif design.distribution == "lognormal":
        effects = (np.exp(effects) - np.exp(0.5)) / np.sqrt((np.e - 1) * np.e)
    return effects, factors


def discoveries(effects: np.ndarray, factors: list[np.ndarray], seed: int) -> dict[str, np.ndarray]:
    """The significant cells, by test."""
    by_pairs = corrected(block_tests(effects, [np.arange(len(effects))], RESAMPLES, seed), exact=False)
    alone = len(factors) == 1 and factors[0].max() + 1 == len(effects)
    tests = by_pairs if alone else clustered(effects, factors, seed)
    low, high = effect_size_intervals(effects, factors)
    significant, mean = tests["p_max_t"] <= ALPHA, tests["p_mean_max_t"] <= ALPHA
    return {
        "by pairs": by_pairs["p_max_t"] <= ALPHA,
        "by clusters": significant,
        "mean": mean,
        "beyond": significant & mean & ((low > SMALLEST_EFFECT) | (high < -SMALLEST_EFFECT)),
    }


def clustered(effects: np.ndarray, factors: list[np.ndarray], seed: int) -> dict[str, np.ndarray]:
    """The corrected tests over clusters, as `effect_tests` computes them."""
    tests = block_tests(effects, factors, RESAMPLES, seed)
    exact = [2 ** int(codes.max() + 1) <= RESAMPLES for codes in factors]
    by_factor = [corrected([of_factor], exact=all_flips) for of_factor, all_flips in zip(tests, exact, strict=True)]
    return dict(most_cautious(by_factor))


def simulated(design: Design, runs: int) -> tuple[dict[str, int], dict[float, dict[str, float]]]:
    """The number of studies with a false discovery, and the power for each planted effect."""
    rng = np.random.default_rng(0)
    false = dict.fromkeys(TESTS, 0)
    for run in range(runs):
        found = discoveries(*drawn(design, rng), seed=run)
        false = {name: false[name] + bool(found[name].any()) for name in TESTS}
    planted = np.zeros((HEADS, METRICS))
    planted[list(PLANTED)] = 1
    cells = planted.ravel() > 0
    n_power = max(runs // 5, 10)
    power = {}
    for d in (0.5, 1.0):
        hits = dict.fromkeys(TESTS, 0.0)
        for run in range(n_power):
            effects, factors = drawn(design, rng)
            found = discoveries(effects + d * planted.ravel(), factors, seed=run)
            hits = {name: hits[name] + found[name][cells].mean() for name in TESTS}
        power[d] = {name: hits[name] / n_power for name in TESTS}
    return false, power


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=50, help="simulated studies of each design")
    runs = parser.parse_args().runs
    print(f"Family-wise error with its 95 % interval over {runs} studies, and power (d = 0.5 / d = 1):\n")
    errors = [f"error {name}" for name in TESTS]
    powers = [f"power {name}" for name in TESTS[1:]]
    print(f"| design | pairs | {' | '.join([*errors, *powers])} |")
    print(f"|---|---|{'---|' * len([*errors, *powers])}")
    for design in designs():
        false, power = simulated(design, runs)
        row = [str(design), str(design.n)]
        for name in TESTS:
            low, high = stats.binomtest(false[name], runs).proportion_ci(method="wilson")
            row.append(f"{false[name] / runs:.3f} ({low:.3f} to {high:.3f})")
        row += [f"{power[0.5][name]:.2f} / {power[1.0][name]:.2f}" for name in TESTS[1:]]
        print(f"| {' | '.join(row)} |", flush=True)


if __name__ == "__main__":
    main()
