"""Circuits, readings and effects made of random numbers, in the shapes that a study gives them."""

import itertools

import numpy as np
import pandas as pd
import xarray as xr

from negprobe.attention.readings import mean_readings, no_readings
from negprobe.patching import Circuit, Component


def circuit_of(n_layers: int, n_heads: int, size: int) -> Circuit:
    parts = [Component(layer, head) for layer in range(n_layers) for head in (*range(n_heads), None)]
    values = np.random.default_rng(0).normal(size=len(parts)) ** 3
    scores = {parts[i]: float(values[i]) for i in np.argsort(-abs(values))}
    sizes = np.arange(len(parts) + 1)
    share = sizes / len(parts)
    faithfulness = 1 - np.exp(-6 * share)
    columns = {"low": faithfulness - 0.1, "high": faithfulness + 0.05}
    curve = pd.DataFrame({"size": sizes, "share": share, "faithfulness": faithfulness, **columns})
    chosen = tuple(scores)[:size]
    return Circuit(
        model_name="a_model_$1",
        objective="logit_difference",
        direction="denoising",
        base_run="counterfactual",
        source_run="control",
        ablation="swap",
        ranking="exact",
        threshold=0.85,
        effort="fast",
        untried="",
        components=chosen,
        scores=scores,
        search_faithfulness=0.9,
        faithfulness=0.875,
        interval=(0.75, 0.9375),
        random_faithfulness=0.125,
        random_best=0.25,
        completeness=pd.DataFrame(),
        minimality=pd.DataFrame(),
        curve=curve,
        cpr=0.8125,
        cmd=0.25,
        n_search=10,
        n_held_out=10,
        near_zero_gap=(0, 0),
        seed=0,
    )


def readings_of(n_layers: int, n_heads: int) -> xr.Dataset:
    """Readings in which head h of layer l reads the role number l + h at [MASK], after the values."""
    sums = no_readings(n_layers, n_heads)
    sums["n"][:] = sums["n_changed"][:] = 4
    for layer, head in itertools.product(range(n_layers), range(n_heads)):
        where = {"side": "counterfactual", "measure": "norm", "layer": layer, "head": head, "query": "mask"}
        sums["share"].loc[where | {"key": sums["key"].values[(layer + head) % 7]}] = 3.0
    return mean_readings(sums)


def by_head(values: np.ndarray, **coords: object) -> xr.DataArray:
    """An array `[layer head]` with its coordinates."""
    layer, head = map(np.arange, values.shape)
    return xr.DataArray(values, dims=("layer", "head"), coords={"layer": layer, "head": head, **coords})


def averages_of(by: str, groups: list, n_layers: int) -> pd.DataFrame:
    rng = np.random.default_rng(5)
    rows = pd.DataFrame(itertools.product(range(n_layers), groups), columns=["layer", by])
    effect = rng.normal(size=len(rows))
    n_pairs = rng.integers(30, 40, len(rows))
    return rows.assign(effect=effect, low=effect - 0.3, high=effect + 0.5, n_pairs=n_pairs)


def effects_and_attention() -> tuple[xr.DataArray, xr.DataArray]:
    """Of 12 layers of 12 heads."""
    one, other = np.random.default_rng(3).normal(size=(2, 12, 12))
    return by_head(one).assign_attrs(direction="denoising"), by_head(other)


def mean_effects_of(dim: str, names: list[str], n_layers: int = 12) -> xr.DataArray:
    """Effects by layer and position, whose tokens are named, or role."""
    values = np.random.default_rng(1).normal(size=(n_layers, len(names)))
    attrs = {"site": "normalized_resid_post", "how": "swap", "direction": "denoising"}
    coords = {"token": (dim, names)} if dim == "position" else {dim: names}
    return xr.DataArray(values, dims=("layer", dim), coords=coords, attrs=attrs)
