"""Metrics and tests of many pairs made of random numbers, in the dims that a study gives them."""

from collections.abc import Sequence

import numpy as np
import xarray as xr

from negprobe.statements import ROLES

METRICS = ("mean_attention_diff", "attention_to_cue", "norm_to_cue", "attention_pattern_correlation")
GROUPS = ("not", "n't", "never", "no longer", "hardly")


def statistics_of(layers: int = 3, heads: int = 4, n: int = 40) -> xr.Dataset:
    """Tests of every metric, a few strong; no correlation is defined at layer 0, head 1, which has two pairs fewer."""
    random = np.random.default_rng(0)
    dims = ("metric", "layer", "head")
    shape = (len(METRICS), layers, heads)
    effect = random.standard_t(2.5, shape) * 0.03
    effect[2] = 0.7 * effect[1] + 0.01 * random.standard_normal((layers, heads))
    half = random.uniform(0.01, 0.04, shape)
    p = np.exp(-((effect / half) ** 2))
    pairs = np.full(shape, n)
    pairs[:, 0, 1] -= 2
    variables = {
        "effect": effect,
        "low": effect - half,
        "high": effect + half,
        "effect_size": effect / half,
        "p": p,
        "q": np.minimum(2 * p, 1),
        "p_max_t": np.minimum(layers * heads * p, 1),
    }
    for values in variables.values():
        values[3, 0, 1] = np.nan
    pairs[3, 0, 1] = 0
    coords = {"metric": list(METRICS), "layer": range(layers), "head": range(heads)}
    return xr.Dataset({name: (dims, values) for name, values in {**variables, "n": pairs}.items()}, coords)


def replication_of(layers: int = 3, heads: int = 4, groups: Sequence[str] = GROUPS) -> xr.Dataset:
    """The effects of `statistics_of` with noise in each group; the last group is undefined at layer 0, head 1."""
    random = np.random.default_rng(1)
    whole = statistics_of(layers, heads)
    shape = (len(groups), len(METRICS), layers, heads)
    effect = whole["effect"].values + 0.02 * random.standard_normal(shape)
    half = random.uniform(0.01, 0.05, shape)
    p = np.exp(-((effect / half) ** 2))
    n = np.broadcast_to(np.arange(5, 5 + len(groups))[:, None, None, None], shape).copy()
    effect[-1, :, 0, 1] = p[-1, :, 0, 1] = np.nan
    n[-1, :, 0, 1] = 0
    dims = ("group", "metric", "layer", "head")
    variables = {"effect": effect, "low": effect - half, "high": effect + half, "n": n, "p": p}
    replicated = ((p < 0.05) & (np.sign(effect) == np.sign(whole["effect"].values))).sum(axis=0)
    return xr.Dataset(
        {
            **{name: (dims, values) for name, values in variables.items()},
            "replicated": (dims[1:], replicated),
            "n_groups": (dims[1:], (n > 0).sum(axis=0)),
        },
        {"group": list(groups), **whole.coords},
    )


def metrics_of(layers: int = 3, heads: int = 4, pairs: int = 6) -> xr.Dataset:
    """Distances and outputs; the last pair has no control, no pair has a mask, and pair 0 has no affected token."""
    random = np.random.default_rng(2)
    depth = np.linspace(0.2, 1, layers)[:, None]
    n = random.integers(6, 12, pairs)
    near = random.uniform(0.2, 1.1, (pairs, layers, heads)) * n[:, None, None] / 3
    norm = near * random.uniform(0.6, 1.0, (pairs, layers, heads))
    near[:, 0, 1] = norm[:, 0, 1] = np.nan
    shape = (pairs, 2, len(ROLES), layers, heads)
    change = random.uniform(0, 0.3, shape) * depth * np.linspace(1, 0.3, len(ROLES))[:, None, None]
    change[:, 1] *= 0.7
    change[-1, 1] = np.nan
    change[:, :, ROLES.index("mask")] = np.nan
    change[0, :, ROLES.index("affected")] = np.nan
    return xr.Dataset(
        {
            "attention_distance": (("pair", "layer", "head"), near),
            "norm_distance": (("pair", "layer", "head"), norm),
            "uniform_distance": ("pair", (n + 1) / 3),
            "output_change_by_role": (("pair", "compared", "role", "layer", "head"), change),
        },
        {
            "pair": range(pairs),
            "compared": ["counterfactual", "control"],
            "role": list(ROLES),
            "layer": range(layers),
            "head": range(heads),
        },
    )
