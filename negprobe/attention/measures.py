"""Attention before and after the values: maps of a single head, as pure functions on tensors.

The value bias `b_V` reaches every output, because the rows of a pattern sum to one; `include_bias` says whether it
counts.
"""

import torch
import torch.nn.functional as F
from einops import einsum, rearrange
from jaxtyping import Float
from torch import Tensor

from negprobe.base.errors import InputError


def similarity(
    z: Float[Tensor, "... pos head d_head"],
    b_V: Float[Tensor, "head d_head"] | None = None,
    *,
    include_bias: bool = True,
) -> Float[Tensor, "... head query key"]:
    """Cosine between a head's outputs at two tokens: `cos(z_q, z_p)` with `z = A v`.

    This is the "value-weighted attention" heatmap of the original study: near 1 where a head writes the same thing at
    both tokens. Symmetric, from -1 to 1, without unit; 0 where an output is exactly zero.

    Raises:
        InputError: if the bias is to be left out and is not given.
    """
    if not include_bias:
        z = z - _given(b_V)
    unit = F.normalize(z, dim=-1)
    return einsum(unit, unit, "... query head e, ... key head e -> ... head query key")


def norm_weighted(
    pattern: Float[Tensor, "... head query key"],
    v: Float[Tensor, "... key head d_head"],
    W_O: Float[Tensor, "head d_head d_model"],
    b_V: Float[Tensor, "head d_head"] | None = None,
    *,
    include_bias: bool = True,
) -> Float[Tensor, "... head query key"]:
    """Attention weighted by the norm of the transformed value: `A_qk ‖f(x_k)‖` with `f(x) = v W_O`.

    Kobayashi et al. 2020, "Attention is Not Only a Weight", equation 4: `‖α f(x)‖`, per head. In units of the residual
    stream, never negative. The vectors `A_qk f(x_k)` are not formed: as `A` is a number, `‖A f‖ = A ‖f‖`.

    Raises:
        InputError: if the bias is to be left out and is not given.
    """
    v = counted_values(v, b_V, include_bias)
    return pattern * rearrange(value_norms(v, W_O), "... key head -> ... head 1 key")


def value_norms(
    v: Float[Tensor, "... key head d_head"], W_O: Float[Tensor, "head d_head d_model"]
) -> Float[Tensor, "... key head"]:
    """`‖v W_O‖` of each head and token, by the small Gram matrix of `W_O`: `‖v W_O‖² = v (W_O W_Oᵀ) vᵀ`."""
    gram = einsum(W_O, W_O, "head d m, head e m -> head d e")
    squared = einsum(v, gram, v, "... key head d, head d e, ... key head e -> ... key head")
    return torch.sqrt(squared.clamp(min=0))


def counted_values(
    v: Float[Tensor, "... key head d_head"], b_V: Float[Tensor, "head d_head"] | None, include_bias: bool
) -> Float[Tensor, "... key head d_head"]:
    """The values as they are, or without the bias every token shares.

    Raises:
        InputError: if the bias is to be left out and is not given.
    """
    return v if include_bias else v - _given(b_V)


def _given(b_V: Float[Tensor, "head d_head"] | None) -> Float[Tensor, "head d_head"]:
    if b_V is None:
        raise InputError("include_bias=False needs the value bias b_V.")
    return b_V
