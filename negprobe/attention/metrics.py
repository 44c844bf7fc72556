"""How much two runs of a head differ: the four metrics of a comparison, on aligned tokens, for all heads at once."""

import torch
from einops import einsum, rearrange, reduce
from jaxtyping import Bool, Float, Int
from torch import Tensor

from negprobe.statements import Alignment

METRICS = (
    "max_attention_diff",
    "mean_attention_diff",
    "attention_pattern_correlation",
    "value_output_correlation",
)


def comparison_metrics(
    pattern_original: Float[Tensor, "batch layer head query key"],
    pattern_counterfactual: Float[Tensor, "batch layer head query2 key2"],
    z_original: Float[Tensor, "batch layer query head d_head"],
    z_counterfactual: Float[Tensor, "batch layer query2 head d_head"],
    alignments: list[Alignment],
) -> dict[str, Float[Tensor, "batch layer head"]]:
    """The four metrics of each pair, layer and head.

    With `A` a head's pattern and `z` its output, both at aligned tokens only:

    - `max_attention_diff`, `mean_attention_diff`: of `|A_original - A_counterfactual|`, from 0 to 1;
    - `attention_pattern_correlation`: Pearson correlation of the two flattened `A`, from -1 to 1;
    - `value_output_correlation`: Pearson correlation of the two flattened `z`, from -1 to 1.

    A correlation is NaN where one of its sides is constant. Where all tokens are aligned, these are the plain
    definitions on the whole maps.
    """
    device = pattern_original.device
    at_original, valid = _positions([a.original for a in alignments], device)
    at_counterfactual, _ = _positions([a.counterfactual for a in alignments], device)
    A = _aligned_map(pattern_original, at_original)
    B = _aligned_map(pattern_counterfactual, at_counterfactual)
    both = rearrange(valid, "batch query -> batch 1 1 query 1") & rearrange(valid, "batch key -> batch 1 1 1 key")
    difference = (A - B).abs() * both
    n_cells = reduce(both, "batch 1 1 query key -> batch 1 1", "sum")
    z, y = _aligned_output(z_original, at_original), _aligned_output(z_counterfactual, at_counterfactual)
    return {
        "max_attention_diff": reduce(difference, "batch layer head query key -> batch layer head", "max"),
        "mean_attention_diff": reduce(difference, "batch layer head query key -> batch layer head", "sum") / n_cells,
        "attention_pattern_correlation": pearson(A, B, both),
        "value_output_correlation": pearson(z, y, rearrange(valid, "batch query -> batch 1 1 query 1")),
    }


def attention_to_cue(
    pattern: Float[Tensor, "batch layer head query key"],
    cue_positions: list[tuple[int, ...]],
    lengths: list[int],
) -> Float[Tensor, "batch layer head"]:
    """How much of their attention the other tokens give to the cue: the mean over them of the cue's share, 0 to 1.

    The aligned metrics leave an inserted cue out, so its own mass is told here. NaN for a statement without a cue.
    """
    batch, n = pattern.shape[0], pattern.shape[-1]
    is_cue = torch.zeros(batch, n, dtype=torch.bool)
    for row, positions in enumerate(cue_positions):
        is_cue[row, list(positions)] = True
    is_other = (torch.arange(n) < torch.tensor(lengths)[:, None]) & ~is_cue
    keys, queries = is_cue.to(pattern), is_other.to(pattern)
    mass = einsum(pattern, keys, "batch layer head query key, batch key -> batch layer head query")
    total = einsum(mass, queries, "batch layer head query, batch query -> batch layer head")
    share = total / rearrange(queries.sum(dim=1), "batch -> batch 1 1")
    return share.masked_fill(rearrange(~is_cue.any(dim=1), "batch -> batch 1 1").to(share.device), torch.nan)


def pearson(
    x: Float[Tensor, "batch layer head row column"],
    y: Float[Tensor, "batch layer head row column"],
    where: Bool[Tensor, "batch 1 1 row #column"],
) -> Float[Tensor, "batch layer head"]:
    """Pearson correlation over the last two axes, counting only cells `where` it is true.

    NaN where a side is constant to within rounding, because its correlation would be that of rounding errors.
    """
    where = where.expand_as(x[:, :1, :1])
    n = where.sum(dim=(-2, -1), keepdim=True)
    # Float64, because a pattern's variance is often far smaller than its mean squared.
    x, y = x.double() * where, y.double() * where
    centred_x = (x - x.sum(dim=(-2, -1), keepdim=True) / n) * where
    centred_y = (y - y.sum(dim=(-2, -1), keepdim=True) / n) * where
    size_x, size_y = _size(centred_x), _size(centred_y)
    correlation = (centred_x * centred_y).sum(dim=(-2, -1)) / (size_x * size_y)
    constant = (size_x <= _ROUNDING * _size(x)) | (size_y <= _ROUNDING * _size(y))
    return correlation.clamp(-1, 1).masked_fill(constant, torch.nan)


# Relative spread below which a float32 map counts as constant.
_ROUNDING = 1e-6


def _size(x: Float[Tensor, "batch layer head row column"]) -> Float[Tensor, "batch layer head"]:
    return x.square().sum(dim=(-2, -1)).sqrt()


def _positions(
    positions: list[tuple[int, ...]], device: torch.device
) -> tuple[Int[Tensor, "batch aligned"], Bool[Tensor, "batch aligned"]]:
    """Aligned positions padded to one length, and which of them are real."""
    rows = [torch.tensor(row, dtype=torch.long, device=device) for row in positions]
    padded = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
    lengths = torch.tensor([len(row) for row in rows], device=device)
    return padded, torch.arange(padded.shape[1], device=device) < lengths[:, None]


def _aligned_map(
    pattern: Float[Tensor, "batch layer head query key"], at: Int[Tensor, "batch aligned"]
) -> Float[Tensor, "batch layer head aligned aligned"]:
    rows = torch.take_along_dim(pattern, rearrange(at, "batch query -> batch 1 1 query 1"), dim=3)
    return torch.take_along_dim(rows, rearrange(at, "batch key -> batch 1 1 1 key"), dim=4)


def _aligned_output(
    z: Float[Tensor, "batch layer pos head d_head"], at: Int[Tensor, "batch aligned"]
) -> Float[Tensor, "batch layer head aligned d_head"]:
    rows = torch.take_along_dim(z, rearrange(at, "batch query -> batch 1 query 1 1"), dim=2)
    return rearrange(rows, "batch layer query head d_head -> batch layer head query d_head")
