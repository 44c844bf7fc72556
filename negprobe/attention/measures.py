"""Raw and value-weighted attention maps of single heads, as pure functions on tensors.

The rows of a pattern sum to 1, so the value bias `b_V` is part of every output; `include_bias=False` removes it.
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

    This is the "value-weighted attention" heatmap of the original study: near 1 where a head's outputs at
    the two tokens point in the same direction. Symmetric, from -1 to 1, unitless; 0 where an output is exactly zero.

    Raises:
        InputError: if `include_bias` is False and `b_V` is missing.
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
    stream, never negative. Because `A_qk` is a non-negative scalar, `‖A f‖ = A ‖f‖`, so the vectors are never built.

    Raises:
        InputError: if `include_bias` is False and `b_V` is missing.
    """
    v = counted_values(v, b_V, include_bias)
    return pattern * rearrange(value_norms(v, W_O), "... key head -> ... head 1 key")


def value_norms(
    v: Float[Tensor, "... key head d_head"], W_O: Float[Tensor, "head d_head d_model"]
) -> Float[Tensor, "... key head"]:
    """`‖v W_O‖` of each head and token, from the Gram matrix of `W_O`: `‖v W_O‖² = v (W_O W_Oᵀ) vᵀ`."""
    gram = einsum(W_O, W_O, "head d m, head e m -> head d e")
    squared = einsum(v, gram, v, "... key head d, head d e, ... key head e -> ... key head")
    return torch.sqrt(squared.clamp(min=0))


def counted_values(
    v: Float[Tensor, "... key head d_head"], b_V: Float[Tensor, "head d_head"] | None, include_bias: bool
) -> Float[Tensor, "... key head d_head"]:
    """The values, without the value bias if `include_bias` is False.

    Raises:
        InputError: if `include_bias` is False and `b_V` is missing.
    """
    return v if include_bias else v - _given(b_V)


def _given(b_V: Float[Tensor, "head d_head"] | None) -> Float[Tensor, "head d_head"]:
    if b_V is None:
        raise InputError("include_bias=False needs the value bias b_V.")
    return b_V
