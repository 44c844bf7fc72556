"""Hugging Face's eager models in float64 throughout: some round norms, rotations and softmaxes to float32.

In other dtypes the models compute what they always do.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from transformers.models.deberta import modeling_deberta
from transformers.models.eurobert import modeling_eurobert
from transformers.models.modernbert import modeling_modernbert

_MODULES = (modeling_modernbert,)


def remove_casts() -> None:
    """Replace the functions that round, for the rest of the process."""
    modeling_deberta.DebertaLayerNorm.forward = _layer_norm(modeling_deberta.DebertaLayerNorm.forward)
    modeling_eurobert.EuroBertRMSNorm.forward = _rms_norm(modeling_eurobert.EuroBertRMSNorm.forward)
    modeling_eurobert.eager_attention_forward = _attention(modeling_eurobert.eager_attention_forward)
    for module in _MODULES:
        module.apply_rotary_pos_emb = _rotation(module.apply_rotary_pos_emb)
        module.eager_attention_forward = _attention(module.eager_attention_forward)


def _rotation(original: Callable[..., Any]) -> Callable[..., Any]:
    def rotated(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        first, second = x.chunk(2, dim=-1)
        return x * cos + torch.cat([-second, first], dim=-1) * sin

    def both(q: Tensor, k: Tensor, cos: Tensor, sin: Tensor, unsqueeze_dim: int = 1) -> tuple[Tensor, Tensor]:
        if q.dtype != torch.float64:
            return original(q, k, cos, sin, unsqueeze_dim=unsqueeze_dim)
        cos, sin = cos.unsqueeze(unsqueeze_dim), sin.unsqueeze(unsqueeze_dim)
        return rotated(q, cos, sin), rotated(k, cos, sin)

    return both


def _layer_norm(original: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def normalized(self: nn.Module, x: Tensor) -> Tensor:
        if x.dtype != torch.float64:
            return original(self, x)
        centred = x - x.mean(dim=-1, keepdim=True)
        variance = (centred**2).mean(dim=-1, keepdim=True)
        return self.weight * centred / torch.sqrt(variance + self.variance_epsilon) + self.bias

    return normalized


def _rms_norm(original: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def normalized(self: nn.Module, x: Tensor) -> Tensor:
        if x.dtype != torch.float64:
            return original(self, x)
        return self.weight * x / torch.sqrt((x**2).mean(dim=-1, keepdim=True) + self.variance_epsilon)

    return normalized


def _attention(original: Callable[..., Any]) -> Callable[..., Any]:
    def attention(
        module: nn.Module, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scaling: float, **more: Any
    ) -> tuple[Tensor, Tensor]:
        if q.dtype != torch.float64:
            return original(module, q, k, v, mask, scaling=scaling, **more)
        k, v = (keys.repeat_interleave(q.shape[1] // k.shape[1], dim=1) for keys in (k, v))
        scores = q @ k.mT * scaling
        pattern = (scores if mask is None else scores + mask).softmax(dim=-1)
        return (pattern @ v).transpose(1, 2).contiguous(), pattern

    return attention
