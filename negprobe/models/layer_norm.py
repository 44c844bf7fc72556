"""LayerNorm, and the linear map it is at one input."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn


class LayerNorm(nn.Module):
    """`(x - mean) / sqrt(var + eps) * w + b` over the last axis."""

    def __init__(self, width: int, eps: float) -> None:
        """Make the parameters; `width` is the size of the last axis."""
        super().__init__()
        self.eps = eps
        self.w = nn.Parameter(torch.ones(width))
        self.b = nn.Parameter(torch.zeros(width))

    def forward(self, x: Float[Tensor, "*any width"]) -> Float[Tensor, "*any width"]:
        """Normalise the last axis."""
        return self.normalized(x)

    def normalized(self, x: Float[Tensor, "*any width"]) -> Float[Tensor, "*any width"]:
        """The same as a call of the module, without the module's hooks."""
        return F.layer_norm(x, self.w.shape, self.w, self.b, self.eps)

    def normalized_and_inverse_std(
        self, x: Float[Tensor, "*any width"]
    ) -> tuple[Float[Tensor, "*any width"], Float[Tensor, "*any 1"]]:
        """The output, and the inverse of the input's standard deviation, from one pass over the input."""
        output, _, inverse_std = torch.native_layer_norm(x, self.w.shape, self.w, self.b, self.eps)
        # In half precision it comes in float32.
        return output, inverse_std.to(x.dtype)

    def jacobian(
        self, y: Float[Tensor, "*batch width"], change: Float[Tensor, "*batch vector width"]
    ) -> Float[Tensor, "*batch vector width"]:
        """What changes of the input `y` do to the output, to first order.

        With σ the standard deviation of `y` and `ŷ = (y - mean(y)) / σ` that is `γ/σ (Δ - mean(Δ) - ŷ mean(ŷ Δ))`.
        """
        std = _std(y, self.eps)[..., None, None]
        unit = _centred(y)[..., None, :] / std
        return (_centred(change) - unit * (unit * change).mean(dim=-1, keepdim=True)) / std * self.w

    def like(self, y: Float[Tensor, "*any width"]) -> "LayerNorm":
        """The same LayerNorm without gradients or hooks, in the dtype and on the device of `y`."""
        copy = LayerNorm(len(self.w), self.eps)
        copy.w, copy.b = (nn.Parameter(p.detach().to(y), requires_grad=False) for p in (self.w, self.b))
        return copy


@dataclass(frozen=True)
class FrozenLayerNorm:
    """A LayerNorm at one input, where it is linear: centre, times the gain, over that input's deviation.

    `g(y_j) = (y_j - mean(y_j)) / std(y) * γ` for each summand `y_j` of an input `y`; all of them together, plus the
    LayerNorm's bias, are its output. Kobayashi et al. 2021, section 3.2.

    Attributes:
        gain: γ.
        std: Standard deviation of the input, over the width, with the LayerNorm's epsilon.
    """

    gain: Float[Tensor, " d_model"]
    std: Float[Tensor, "*batch query"]

    @classmethod
    def at(cls, layer_norm: LayerNorm, y: Float[Tensor, "*batch query d_model"]) -> "FrozenLayerNorm":
        """The linear map that `layer_norm` is at its input `y`."""
        return cls(layer_norm.w, _std(y, layer_norm.eps))

    def scaled(self, summand: Float[Tensor, "*any d_model"]) -> Float[Tensor, "*any d_model"]:
        """`g` of a summand times `std`, which is the same for all summands of one token."""
        return _centred(summand) * self.gain

    def carried(self, summand: Float[Tensor, "*any d_model"]) -> Float[Tensor, "*any d_model"]:
        """`g` of a summand."""
        return self.scaled(summand) / self.std[..., None]


def _centred(x: Float[Tensor, "*any width"]) -> Float[Tensor, "*any width"]:
    return x - x.mean(dim=-1, keepdim=True)


def _std(y: Float[Tensor, "*any width"], eps: float) -> Float[Tensor, "*any"]:
    return torch.sqrt(y.var(dim=-1, correction=0) + eps)
