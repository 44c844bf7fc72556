"""How much two runs of a head differ, and what they do at the cue: pure functions on tensors, all heads at once.

A row is what one query gives to the keys. Rows of two runs are compared on aligned tokens; `valid` marks those, so that
padding never counts.
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
"""The metrics of two whole maps, special tokens included."""

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
"""The metrics of words: the special tokens that a tokenizer puts around a statement do not count."""

METRICS = (*MAP_METRICS, *WORD_METRICS)
"""The metrics of a comparison; `side_metrics` says what each one is."""


def map_metrics(
    A: Float[Tensor, "... head query key"],
    B: Float[Tensor, "... head query key"],
    z: Float[Tensor, "... head query d_head"],
    y: Float[Tensor, "... head query d_head"],
    valid: Bool[Tensor, "... query"],
) -> dict[str, Float[Tensor, "... head"]]:
    """The four metrics of two patterns `A` and `B` and two outputs `z` and `y`, at aligned tokens.

    - `max_attention_diff`, `mean_attention_diff`: of `|A - B|`, from 0 to 1;
    - `attention_pattern_correlation`: Pearson correlation of the flattened `A` and `B`, from -1 to 1;
    - `value_output_correlation`: Pearson correlation of the flattened `z` and `y`, from -1 to 1.

    A correlation is NaN where one of its sides is constant. Where all tokens are aligned, these are the plain
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
    """Pearson correlation over the last two axes, counting only cells `where` it is true.

    NaN where a side is constant to within rounding, because its correlation would be that of rounding errors.
    """
    n = where.sum(dim=(-2, -1), keepdim=True) * (x.shape[-1] // where.shape[-1])
    # Centred before anything is squared, because a pattern's variance is often far smaller than its mean squared.
    mean_x, mean_y = ((t * where).sum(dim=(-2, -1), keepdim=True) / n for t in (x, y))
    x, y = (x - mean_x) * where, (y - mean_y) * where
    size_x, size_y = (t.square().sum(dim=(-2, -1), keepdim=True) for t in (x, y))
    correlation = (x * y).sum(dim=(-2, -1), keepdim=True) / (size_x * size_y).sqrt()
    constant = (size_x <= _ROUNDING**2 * n * mean_x.square()) | (size_y <= _ROUNDING**2 * n * mean_y.square())
    return correlation.clamp(-1, 1).masked_fill(constant, torch.nan)[..., 0, 0]


# Spread, relative to the mean, below which a float32 map counts as constant.
_ROUNDING = 1e-6


def to_distribution(rows: Float[Tensor, "... key"]) -> Float[Tensor, "... key"]:
    """Rows scaled to sum to 1; a row of zeros stays one."""
    return rows / rows.sum(dim=-1, keepdim=True).clamp(min=torch.finfo(rows.dtype).tiny)


def entropy(p: Float[Tensor, "... key"]) -> Float[Tensor, "..."]:
    """Shannon entropy `-Σ p log2 p` of each row, in bits."""
    return -(p * p.clamp(min=torch.finfo(p.dtype).tiny).log()).sum(dim=-1) / math.log(2)


def js_divergence(p: Float[Tensor, "... key"], q: Float[Tensor, "... key"]) -> Float[Tensor, "..."]:
    """Jensen-Shannon divergence of two rows that sum to 1, in bits: 0 if they agree, 1 if they share no key.

    Lin 1991, "Divergence Measures Based on the Shannon Entropy", equation 4.1 with equal weights:
    `½ KL(p‖m) + ½ KL(q‖m)` with `m = (p + q) / 2`.
    """
    m = (p + q) / 2
    # With t = (p - m) / m each term is m [(1 + t) log(1 + t) + (1 - t) log(1 - t)] / 2. Its error is a rounding error
    # of t; that of a difference of entropies is one of the entropies, far larger for rows that are nearly equal.
    t = (p - q) / 2 / m.clamp(min=torch.finfo(m.dtype).tiny)
    # At t = 1 or -1 one of the logarithms is infinite, and its factor 0.
    t = t.clamp(min=torch.finfo(m.dtype).eps - 1, max=1 - torch.finfo(m.dtype).eps)
    terms = (1 + t) * t.log1p() + (1 - t) * (-t).log1p()
    return (m * terms).sum(dim=-1) / (2 * math.log(2))


def relative_change(z: Float[Tensor, "... d_head"], y: Float[Tensor, "... d_head"]) -> Float[Tensor, "..."]:
    """How much an output changes, beside its size: `‖y - z‖ / sqrt((‖z‖² + ‖y‖²) / 2)`.

    0 if nothing changes, √2 for orthogonal outputs of one length, 2 for opposite ones; NaN if both are zero.
    """
    size = ((z.square().sum(dim=-1) + y.square().sum(dim=-1)) / 2).sqrt()
    return (y - z).norm(dim=-1) / size


def spread(change: Float[Tensor, "... pos"], where: Bool[Tensor, "... pos"]) -> Float[Tensor, "..."]:
    """Over how large a share of the tokens a change is spread: the participation ratio `(Σ c)² / (n Σ c²)`.

    1 if all n tokens change alike, 1/n if one does; NaN if none does.
    """
    change = change * where
    return change.sum(dim=-1).square() / (where.sum(dim=-1) * change.square().sum(dim=-1))


def relative_distance(
    change: Float[Tensor, "... pos"], distance: Float[Tensor, "... pos"], where: Bool[Tensor, "... pos"]
) -> Float[Tensor, "..."]:
    """Mean distance of a change from the cue, in units of the tokens' mean distance from it.

    `(Σ c d / Σ c) / (Σ d / n)`: below 1 the change is near the cue, 1 is a change that is everywhere the same. NaN if
    nothing changes.
    """
    change, distance = change * where, distance * where
    mean = distance.sum(dim=-1) / where.sum(dim=-1)
    return (change * distance).sum(dim=-1) / change.sum(dim=-1) / mean


def attention_distance(
    pattern: Float[Tensor, "... query key"],
    key_weight: Float[Tensor, "... key"],
    where: Bool[Tensor, "... pos"],
) -> Float[Tensor, "..."]:
    """How far a head looks: the mean of `|q - k|` in tokens, weighted by its attention, over the tokens `where` true.

    Attention to other tokens, such as [SEP], is left out, and the rest scaled to sum to 1. `key_weight` is what
    attention to a key counts: 1, or the norm of its transformed value.
    """
    position = torch.arange(pattern.shape[-1], device=pattern.device, dtype=pattern.dtype)
    steps = (position[:, None] - position).abs()
    counted = (key_weight * where).unsqueeze(-1)
    mean = ((pattern * steps) @ counted / (pattern @ counted)).squeeze(-1)
    return mean.masked_fill(~where, 0).sum(dim=-1) / where.sum(dim=-1)
