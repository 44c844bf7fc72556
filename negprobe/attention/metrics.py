"""Metrics that compare a head's attention and output in two runs: pure functions on tensors, for all heads at once.

A row is the attention of one query to all keys. Rows of two runs are compared on aligned tokens; `valid` marks these
and excludes padding.
"""

import math

import torch
from einops import reduce
from jaxtyping import Bool, Float
from torch import Tensor

MAP_METRICS = (
    "max_attention_diff",
    "mean_attention_diff",
    "attention_pattern_correlation",
    "value_output_correlation",
)
"""Metrics of two whole maps, including special tokens."""

WORD_METRICS = (
    "js_divergence",
    "entropy_change",
    "attention_to_cue",
    "attention_from_cue",
    "norm_js_divergence",
    "norm_entropy_change",
    "norm_to_cue",
    "norm_from_cue",
    "output_change",
    "diffusion",
    "diffusion_distance",
)
"""Metrics of words only; the special tokens that a tokenizer adds to a statement are excluded."""

METRICS = (*MAP_METRICS, *WORD_METRICS)
"""All metrics of a comparison, defined in `pair_metrics.side_metrics`."""


def map_metrics(
    A: Float[Tensor, "... head query key"],
    B: Float[Tensor, "... head query key"],
    z: Float[Tensor, "... head query d_head"],
    y: Float[Tensor, "... head query d_head"],
    valid: Bool[Tensor, "... query"],
) -> dict[str, Float[Tensor, "... head"]]:
    """`MAP_METRICS` of two patterns `A` and `B` and two outputs `z` and `y`, at aligned tokens.

    - `max_attention_diff`, `mean_attention_diff`: maximum and mean of `|A - B|`, from 0 to 1;
    - `attention_pattern_correlation`: Pearson correlation of the flattened `A` and `B`, from -1 to 1;
    - `value_output_correlation`: Pearson correlation of the flattened `z` and `y`, from -1 to 1.

    A correlation is NaN where one of its arguments is constant. If all tokens are aligned, these are the usual
    definitions on the whole maps.
    """
    queries = valid[..., None, :, None]
    cells = queries & valid[..., None, None, :]
    difference = (A - B).abs() * cells
    n_cells = cells.sum(dim=(-2, -1))
    return {
        "max_attention_diff": reduce(difference, "... query key -> ...", "max"),
        "mean_attention_diff": reduce(difference, "... query key -> ...", "sum") / n_cells,
        "attention_pattern_correlation": pearson(A, B, cells),
        "value_output_correlation": pearson(z, y, queries),
    }


def pearson(
    x: Float[Tensor, "... head row column"],
    y: Float[Tensor, "... head row column"],
    where: Bool[Tensor, "... 1 row #column"],
) -> Float[Tensor, "... head"]:
    """Pearson correlation over the last two axes, using only the cells where `where` is true.

    NaN where an argument is constant to within rounding, because the result would be a correlation of rounding errors.
    """
    n = where.sum(dim=(-2, -1), keepdim=True) * (x.shape[-1] // where.shape[-1])
    # Centred before squaring, because a pattern's variance is often far smaller than its squared mean.
    mean_x, mean_y = ((t * where).sum(dim=(-2, -1), keepdim=True) / n for t in (x, y))
    x, y = (x - mean_x) * where, (y - mean_y) * where
    size_x, size_y = (t.square().sum(dim=(-2, -1), keepdim=True) for t in (x, y))
    correlation = (x * y).sum(dim=(-2, -1), keepdim=True) / (size_x * size_y).sqrt()
    constant = (size_x <= _ROUNDING**2 * n * mean_x.square()) | (size_y <= _ROUNDING**2 * n * mean_y.square())
    return correlation.clamp(-1, 1).masked_fill(constant, torch.nan)[..., 0, 0]


# Spread, relative to the mean, below which a float32 map counts as constant.
_ROUNDING = 1e-6


def to_distribution(rows: Float[Tensor, "... key"]) -> Float[Tensor, "... key"]:
    """Rows scaled to sum to 1; a row of zeros is unchanged."""
    return rows / rows.sum(dim=-1, keepdim=True).clamp(min=torch.finfo(rows.dtype).tiny)


def entropy(p: Float[Tensor, "... key"]) -> Float[Tensor, "..."]:
    """Shannon entropy `-Σ p log2 p` of each row, in bits."""
    return -(p * p.clamp(min=torch.finfo(p.dtype).tiny).log()).sum(dim=-1) / math.log(2)


def js_divergence(p: Float[Tensor, "... key"], q: Float[Tensor, "... key"]) -> Float[Tensor, "..."]:
    """Jensen-Shannon divergence of two rows that sum to 1, in bits: 0 if they are equal, 1 if they share no key.

    Lin 1991, "Divergence Measures Based on the Shannon Entropy", equation 4.1 with equal weights:
    `½ KL(p‖m) + ½ KL(q‖m)` with `m = (p + q) / 2`.
    """
    m = (p + q) / 2
    # With t = (p - m) / m each term is m [(1 + t) log(1 + t) + (1 - t) log(1 - t)] / 2. For nearly equal rows this is
    # far more accurate than a difference of entropies, which keeps the rounding errors of the entropies.
    t = (p - q) / 2 / m.clamp(min=torch.finfo(m.dtype).tiny)
    # At t = 1 or -1 one logarithm is infinite and its factor is 0, which would give NaN.
    t = t.clamp(min=torch.finfo(m.dtype).eps - 1, max=1 - torch.finfo(m.dtype).eps)
    terms = (1 + t) * t.log1p() + (1 - t) * (-t).log1p()
    return (m * terms).sum(dim=-1) / (2 * math.log(2))


def relative_change(z: Float[Tensor, "... d_head"], y: Float[Tensor, "... d_head"]) -> Float[Tensor, "..."]:
    """Change of an output relative to its size: `‖y - z‖ / sqrt((‖z‖² + ‖y‖²) / 2)`.

    0 if nothing changes, √2 for orthogonal outputs of equal norm, 2 for opposite ones; NaN if both are zero.
    """
    size = ((z.square().sum(dim=-1) + y.square().sum(dim=-1)) / 2).sqrt()
    return (y - z).norm(dim=-1) / size


def spread(change: Float[Tensor, "... pos"], where: Bool[Tensor, "... pos"]) -> Float[Tensor, "..."]:
    """The share of tokens over which a change is spread: the participation ratio `(Σ c)² / (n Σ c²)`.

    1 if all n tokens change equally, 1/n if only one changes; NaN if none changes.
    """
    change = change * where
    return change.sum(dim=-1).square() / (where.sum(dim=-1) * change.square().sum(dim=-1))


def relative_distance(
    change: Float[Tensor, "... pos"], distance: Float[Tensor, "... pos"], where: Bool[Tensor, "... pos"]
) -> Float[Tensor, "..."]:
    """Mean distance of a change from the cue, relative to the tokens' mean distance from it.

    `(Σ c d / Σ c) / (Σ d / n)`: below 1 if the change is concentrated near the cue, 1 if it is uniform over the tokens.
    NaN if nothing changes.
    """
    change, distance = change * where, distance * where
    mean = distance.sum(dim=-1) / where.sum(dim=-1)
    return (change * distance).sum(dim=-1) / change.sum(dim=-1) / mean


def attention_distance(
    pattern: Float[Tensor, "... query key"],
    key_weight: Float[Tensor, "... key"],
    where: Bool[Tensor, "... pos"],
) -> Float[Tensor, "..."]:
    """Mean attention distance of a head: `|q - k|` in tokens, weighted by its attention, over tokens with `where` true.

    Attention to other tokens, such as [SEP], is excluded, and the rest is scaled to sum to 1. `key_weight` multiplies
    the attention to a key: 1, or the norm of the key's transformed value.
    """
    position = torch.arange(pattern.shape[-1], device=pattern.device, dtype=pattern.dtype)
    steps = (position[:, None] - position).abs()
    counted = (key_weight * where).unsqueeze(-1)
    mean = ((pattern * steps) @ counted / (pattern @ counted)).squeeze(-1)
    return mean.masked_fill(~where, 0).sum(dim=-1) / where.sum(dim=-1)
