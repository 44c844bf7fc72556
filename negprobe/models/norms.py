"""LayerNorm and its relatives, and the linear map that each is at one input."""

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from transformer_lens.hook_points import HookPoint

from negprobe.models.hooked import is_hooked


class Norm(nn.Module):
    """`c(x) / scale(c(x)) * w + b` over the last axis, where `c` centres the input or, in an RMSNorm, leaves it.

    As in TransformerLens, `hook_scale` holds `scale(c) = sqrt(mean(c²) + eps)`, `[batch pos 1]`, `hook_normalized` what
    is divided by it, `c / scale(c)`, and `hook_out` the output.
    """

    centres: ClassVar[bool]

    def __init__(self, width: int, eps: float) -> None:
        """Make the parameters; `width` is the size of the last axis."""
        super().__init__()
        self.eps = eps
        self.w = nn.Parameter(torch.ones(width))
        self.hook_scale = HookPoint()
        self.hook_normalized = HookPoint()
        self.hook_out = HookPoint()

    def forward(self, x: Float[Tensor, "*any width"]) -> Float[Tensor, "*any width"]:
        """Normalise the last axis."""
        if not is_hooked(self.hook_scale, self.hook_normalized):
            return self.hook_out(self.normalized(x))
        centred = self.centred(x)
        unit = self.hook_normalized(centred / self.hook_scale(_scale(centred, self.eps)[..., None]))
        return self.hook_out(unit * self.w if self.bias is None else unit * self.w + self.bias)

    @property
    def bias(self) -> Float[Tensor, " width"] | None:
        """What is added at the end; None where there is no bias."""
        return None

    def centred(self, x: Float[Tensor, "*any width"]) -> Float[Tensor, "*any width"]:
        """The input minus its mean, or the input itself."""
        return x - x.mean(dim=-1, keepdim=True) if self.centres else x

    def normalized(self, x: Float[Tensor, "*any width"]) -> Float[Tensor, "*any width"]:
        """The same as a call of the module, without the module's hooks."""
        raise NotImplementedError

    def jacobian(
        self, y: Float[Tensor, "*batch width"], change: Float[Tensor, "*batch vector width"]
    ) -> Float[Tensor, "*batch vector width"]:
        """What changes of the input `y` do to the output, to first order.

        With `ŷ = c(y) / scale` that is `w / scale (c(Δ) - ŷ mean(ŷ Δ))`.
        """
        centred = self.centred(y)
        scale = _scale(centred, self.eps)[..., None, None]
        unit = centred[..., None, :] / scale
        return (self.centred(change) - unit * (unit * change).mean(dim=-1, keepdim=True)) / scale * self.w

    def like(self, y: Float[Tensor, "*any width"]) -> "Norm":
        """The same norm without gradients or hooks, in the dtype and on the device of `y`."""
        copy = type(self)(len(self.w), self.eps)
        for name, parameter in self.named_parameters():
            setattr(copy, name, nn.Parameter(parameter.detach().to(y), requires_grad=False))
        return copy


class LayerNorm(Norm):
    """`(x - mean) / sqrt(var + eps) * w + b` over the last axis."""

    centres = True

    def __init__(self, width: int, eps: float) -> None:
        """Make the parameters; `width` is the size of the last axis."""
        super().__init__(width, eps)
        self.b = nn.Parameter(torch.zeros(width))

    @property
    def bias(self) -> Float[Tensor, " width"]:
        """The bias `b`."""
        return self.b

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


class RMSNorm(Norm):
    """`x / sqrt(mean(x²) + eps) * w` over the last axis. Zhang and Sennrich 2019, equation 4."""

    centres = False

    def normalized(self, x: Float[Tensor, "*any width"]) -> Float[Tensor, "*any width"]:
        """The same as a call of the module, without the module's hooks."""
        return F.rms_norm(x, self.w.shape, self.w, self.eps)


class NoNorm(nn.Module):
    """The identity, in the place of a norm that a model does not have."""

    bias = None

    def forward(self, x: Float[Tensor, "*any width"]) -> Float[Tensor, "*any width"]:
        """The input."""
        return x

    normalized = forward

    def jacobian(
        self, y: Float[Tensor, "*batch width"], change: Float[Tensor, "*batch vector width"]
    ) -> Float[Tensor, "*batch vector width"]:
        """The change itself."""
        return change

    def like(self, y: Float[Tensor, "*any width"]) -> "NoNorm":
        """Itself."""
        return self


AnyNorm = Norm | NoNorm
"""A norm, or the identity in its place."""


def norm_of(kind: str | None, width: int, eps: float, exists: bool = True) -> AnyNorm:
    """A norm of TransformerLens's kind "LN" or "RMS", or the identity if it does not exist."""
    if not exists:
        return NoNorm()
    return {"LN": LayerNorm, "RMS": RMSNorm}[str(kind)](width, eps)


@dataclass(frozen=True)
class FrozenNorm:
    """A norm at one input, where it is linear: centre, times the gain, over that input's scale.

    `g(y_j) = c(y_j) / scale(y) * w` for each summand `y_j` of an input `y`; all of them together, plus the norm's bias,
    are its output. Kobayashi et al. 2021, section 3.2.

    Attributes:
        gain: The norm's `w`.
        scale: Scale of the input, for a LayerNorm the standard deviation over the width, with the norm's epsilon.
        centres: Whether the norm centres its input.
    """

    gain: Float[Tensor, " d_model"]
    scale: Float[Tensor, "*batch query"]
    centres: bool = True

    @classmethod
    def at(cls, norm: Norm, y: Float[Tensor, "*batch query d_model"]) -> "FrozenNorm":
        """The linear map that `norm` is at its input `y`."""
        return cls(norm.w, _scale(norm.centred(y), norm.eps), norm.centres)

    def scaled(self, summand: Float[Tensor, "*any d_model"]) -> Float[Tensor, "*any d_model"]:
        """`g` of a summand times `scale`, which is the same for all summands of one token."""
        return (summand - summand.mean(dim=-1, keepdim=True) if self.centres else summand) * self.gain

    def carried(self, summand: Float[Tensor, "*any d_model"]) -> Float[Tensor, "*any d_model"]:
        """`g` of a summand."""
        return self.scaled(summand) / self.scale[..., None]


def _scale(centred: Float[Tensor, "*any width"], eps: float) -> Float[Tensor, "*any"]:
    return torch.sqrt(centred.square().mean(dim=-1) + eps)
