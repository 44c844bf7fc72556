"""All metrics of a batch of pairs in one layer, and the labelled dataset that collects them for all pairs."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import xarray as xr
from einops import rearrange
from jaxtyping import Float
from numpy.typing import DTypeLike
from torch import Tensor

from negprobe.attention.frames import Frame
from negprobe.attention.measures import value_norms
from negprobe.attention.metrics import (
    METRICS,
    attention_distance,
    entropy,
    js_divergence,
    map_metrics,
    relative_change,
    relative_distance,
    spread,
    to_distribution,
)
from negprobe.statements import ROLES

COMPARED = ("counterfactual", "control")
"""The statements that the original is compared with."""

# Metrics of single rows or tokens, which can be averaged over the tokens of a role.
_ALIGNED_ROWS = (
    "attention_diff",
    "output_change",
    "js_divergence",
    "norm_js_divergence",
    "entropy_change",
    "norm_entropy_change",
)
_CUE_ROWS = ("attention_to_cue", "norm_to_cue", "attention_from_cue", "norm_from_cue")
BY_ROLE = tuple(f"{name}_by_role" for name in (*_ALIGNED_ROWS, *_CUE_ROWS))
"""The metrics of a comparison that are also reported for each role."""

DISTANCES = ("attention_distance", "norm_distance")
"""The metrics that describe the original alone."""


@dataclass(frozen=True)
class LayerMetrics:
    """The metrics of one layer.

    Attributes:
        compared: `METRICS`, for each compared side.
        by_role: `BY_ROLE`, for each compared side and each of `ROLES`.
        original: `DISTANCES` of the original.
    """

    compared: Float[Tensor, "metric compared batch head"]
    by_role: Float[Tensor, "by_role compared batch head role"]
    original: Float[Tensor, "distance batch head"]


def side_metrics(
    pattern: Float[Tensor, "side batch head query key"],
    v: Float[Tensor, "side batch key head d_head"],
    z: Float[Tensor, "side batch query head d_head"],
    W_O: Float[Tensor, "head d_head d_model"],
    frame: Frame,
) -> LayerMetrics:
    """The metrics of the original (side 0) compared with each other side, in one layer.

    On the aligned tokens, where `A` is the pattern and `z` the output of a head:

    - `max_attention_diff`, `mean_attention_diff`, `attention_pattern_correlation`, `value_output_correlation`: see
      `metrics.map_metrics`;
    - `js_divergence`: Jensen-Shannon divergence between the two runs' rows, in bits, mean over words; rows are scaled
      to sum to 1 over the aligned keys;
    - `entropy_change`: entropy of the same rows minus the original's, in bits, mean over words;
    - `output_change`: relative change of z, mean over words (see `metrics.relative_change`);
    - `diffusion`: the share of words over which the change of z is spread (see `metrics.spread`), 0 to 1;
    - `diffusion_distance`: how far from the cue z changes (see `metrics.relative_distance`).

    On all tokens of the compared side:

    - `attention_to_cue`: the share of a word's attention that goes to the cue, mean over words, 0 to 1;
    - `attention_from_cue`: the share of the cue's attention that goes to words, mean over the cue's tokens, 0 to 1.

    Names with `norm_` are the same metrics on the norm-weighted map `A ‖v W_O‖`, with rows scaled to sum to 1. Words
    are the tokens that are neither part of the cue nor special; special tokens have roles of their own. By role, the
    queries are the role's tokens, except for `attention_from_cue` and `norm_from_cue`, where the role's tokens are the
    keys. In a control, the neutral words that replace the cue count as the cue.

    A metric is NaN where it is undefined: no cue, no token of the role, or no change.
    """
    norms = rearrange(value_norms(v, W_O), "side batch key head -> side batch head key")
    # The weight of a key: 1 in the raw map, the norm of its value in the norm-weighted one.
    weight = torch.stack([torch.ones_like(norms), norms], dim=-1)
    # A product with zeros and ones is exact, and faster than indexing on small maps.
    select = rearrange(frame.select, "side batch aligned pos -> side batch 1 aligned pos")
    A = select @ pattern @ select.mT
    z = select @ rearrange(z, "side batch query head e -> side batch head query e")
    norms = (select @ norms.unsqueeze(-1)).squeeze(-1)
    metrics = map_metrics(A[:1], A[1:], z[:1], z[1:], frame.valid)

    rows = to_distribution(torch.stack([A, A * rearrange(norms, "... head key -> ... head 1 key")], dim=1))
    bits = entropy(rows)
    valid = rearrange(frame.valid, "batch query -> batch 1 query")
    moved = relative_change(z[:1], z[1:]).masked_fill(~valid, 0)
    by_query = torch.stack(
        [
            (A[1:] - A[:1]).abs().sum(dim=-1) / valid.sum(dim=-1, keepdim=True),
            moved,
            *js_divergence(rows[:1], rows[1:]).unbind(dim=1),
            *(bits[1:] - bits[:1]).unbind(dim=1),
        ]
    )
    total = pattern[1:] @ weight[1:]
    to_cue = pattern[1:] @ (weight[1:] * rearrange(frame.cue, "batch key -> batch 1 key 1")) / total
    queries = rearrange(frame.cue / frame.cue.sum(dim=1, keepdim=True), "batch query -> batch 1 query 1") / total
    from_cue = (pattern[1:].mT @ queries) * weight[1:]
    groups = torch.cat(
        [
            _grouped(by_query, frame.mean_aligned),
            _grouped(rearrange(to_cue, "side batch head query map -> map side batch head query"), frame.mean_own),
            _grouped(rearrange(from_cue, "side batch head key map -> map side batch head key"), frame.sum_own),
        ]
    )
    # Two runs of the same statement differ only by rounding, which must not count as a change.
    change = (z[1:] - z[:1]).norm(dim=-1) * rearrange(frame.distinct, "side batch -> side batch 1 1")
    words = rearrange(frame.words, "batch pos -> batch 1 pos")
    distance = rearrange(frame.distance, "side batch pos -> side batch 1 pos")
    metrics |= {name: groups[i, ..., -1] for i, name in enumerate((*_ALIGNED_ROWS, *_CUE_ROWS)) if name in METRICS}
    metrics["diffusion"] = spread(change, words)
    metrics["diffusion_distance"] = relative_distance(change, distance, words)
    original_words = rearrange(frame.original_words, "batch pos -> batch 1 pos")
    by_map = rearrange(weight[0], "batch head key map -> map batch head key")
    return LayerMetrics(
        compared=torch.stack([metrics[name].to(z.dtype) for name in METRICS]),
        by_role=groups[..., :-1],
        original=attention_distance(pattern[0], by_map, original_words),
    )


def _grouped(
    rows: Float[Tensor, "name side batch head pos"], weights: Float[Tensor, "batch pos group"]
) -> Float[Tensor, "name side batch head group"]:
    return rows @ weights


def empty_dataset(n_pairs: int, n_layers: int, n_heads: int, dtype: DTypeLike = np.float32) -> xr.Dataset:
    """A dataset for the metrics of `n_pairs` pairs, filled with NaN."""
    shapes = {
        **dict.fromkeys(METRICS, ("pair", "compared", "layer", "head")),
        **dict.fromkeys(BY_ROLE, ("pair", "compared", "role", "layer", "head")),
        **dict.fromkeys(DISTANCES, ("pair", "layer", "head")),
    }
    sizes = {
        "pair": n_pairs,
        "compared": len(COMPARED),
        "role": len(ROLES),
        "layer": n_layers,
        "head": n_heads,
    }
    return xr.Dataset(
        {name: (dims, np.full([sizes[dim] for dim in dims], np.nan, dtype)) for name, dims in shapes.items()},
        coords={
            "pair": np.arange(n_pairs),
            "compared": list(COMPARED),
            "role": list(ROLES),
            "layer": np.arange(n_layers),
            "head": np.arange(n_heads),
        },
    )


def fill(dataset: xr.Dataset, pairs: Sequence[int], layers: Sequence[LayerMetrics]) -> None:
    """Write the metrics of a batch into `dataset`: `pairs` are its indices along "pair", `layers` one entry a layer."""
    compared = rearrange(
        [layer.compared for layer in layers], "layer name side batch head -> name batch side layer head"
    )
    for name, values in zip(METRICS, compared.cpu().numpy(), strict=True):
        dataset[name].values[pairs, : values.shape[1]] = values
    by_role = rearrange(
        [layer.by_role for layer in layers], "layer name side batch head role -> name batch side role layer head"
    )
    for name, values in zip(BY_ROLE, by_role.cpu().numpy(), strict=True):
        dataset[name].values[pairs, : values.shape[1]] = values
    original = rearrange([layer.original for layer in layers], "layer name batch head -> name batch layer head")
    for name, values in zip(DISTANCES, original.cpu().numpy(), strict=True):
        dataset[name].values[pairs] = values
