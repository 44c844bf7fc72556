"""Circuits, readings and effects made of random numbers, in the shapes that a study gives them."""

import itertools
from dataclasses import dataclass

import numpy as np
import pandas as pd
import xarray as xr

from negprobe.attention.readings import mean_readings, no_readings


@dataclass(frozen=True, order=True)
class Component:
    layer: int
    head: int | None

    def __str__(self) -> str:
        return f"mlp {self.layer}" if self.head is None else f"{self.layer}.{self.head}"


@dataclass(frozen=True)
class Circuit:
    model_name: str
    direction: str
    ablation: str
    threshold: float
    components: tuple[Component, ...]
    scores: dict[Component, float]
    curve: pd.DataFrame
    faithfulness: float
    interval: tuple[float, float]
    random_faithfulness: float
    cpr: float
    cmd: float


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
    interval = (0.75, 0.9375)
    return Circuit("a_model_$1", "denoising", "swap", 0.85, chosen, scores, curve, 0.875, interval, 0.125, 0.8125, 0.25)


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
