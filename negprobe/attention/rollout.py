"""Attribution of each layer's tokens to the input tokens, by multiplying the maps of successive layers."""

import torch
from einops import reduce
from jaxtyping import Float, Int
from torch import Tensor

from negprobe.attention.layer_measures import without_padding


def rollout(
    pattern: Float[Tensor, "*batch layer head query key"], mask: Int[Tensor, "*batch key"] | None = None
) -> Float[Tensor, "*batch layer query key"]:
    """Attention rollout: the share of each input token in each token after each layer. Rows sum to 1.

    Abnar & Zuidema 2020, "Quantifying Attention Flow in Transformers", equation 1: the product of the layers' maps up
    to each layer, where a layer's map is `0.5 A + 0.5 I`; A is the mean over heads and I stands for the residual
    connection. Uses the pattern only, not the values. Rows and columns of padding (0 in `mask`) are 0.
    """
    mean = reduce(pattern, "... head query key -> ... query key", "mean")
    identity = torch.eye(mean.shape[-1], dtype=mean.dtype, device=mean.device)
    # The mask has no layer axis, so it is applied layer by layer.
    layers = [without_padding(layer, mask) for layer in (0.5 * mean + 0.5 * identity).unbind(dim=-3)]
    return _chained(torch.stack(layers, dim=-3))


def globenc(encoder_norms: Float[Tensor, "*batch layer query key"]) -> Float[Tensor, "*batch layer query key"]:
    """GlobEnc: the share of each input token in each token after each layer. Rows sum to 1.

    Modarressi et al. 2022, "GlobEnc: Quantifying Global Token Attribution by Incorporating the Whole Encoder Layer in
    Transformers", equation 12 with N_Enc as the layers' maps (`layer_measures.residual_norm` through both norms of a
    post-norm block; none in a pre-norm block, whose states are the residual stream before the model's last norm).
    No identity is added, because N_Enc includes the residuals. As in the paper, the unnormalised norms are multiplied.
    The rows of the product are then scaled to sum to 1, which the paper leaves open. Rows of padding stay 0.
    """
    return normalized_rows(_chained(encoder_norms / _largest(encoder_norms)))


def normalized_rows(pairs: Float[Tensor, "*batch query key"]) -> Float[Tensor, "*batch query key"]:
    """Each row of a map of non-negative numbers divided by its sum; a row of zeros is unchanged."""
    total = pairs.sum(dim=-1, keepdim=True)
    return pairs / total.where(total > 0, 1)


def _chained(maps: Float[Tensor, "*batch layer query key"]) -> Float[Tensor, "*batch layer query key"]:
    """The products of the maps of all layers up to each layer."""
    products = [maps[..., 0, :, :]]
    for layer in maps.unbind(dim=-3)[1:]:
        products.append(layer @ products[-1])
    return torch.stack(products, dim=-3)


def _largest(maps: Float[Tensor, "*batch query key"]) -> Float[Tensor, "*batch 1 1"]:
    """The largest row sum of each map; dividing by it prevents overflow when many layers are multiplied."""
    largest = maps.sum(dim=-1, keepdim=True).amax(dim=-2, keepdim=True)
    return largest.where(largest > 0, 1)
