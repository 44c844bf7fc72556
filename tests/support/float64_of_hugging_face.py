"""Hugging Face's eager models in float64 throughout: some round rotations and softmaxes to float32.

In other dtypes the models compute what they always do.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from transformers.models.modernbert import modeling_modernbert

_MODULES = (modeling_modernbert,)


def remove_casts() -> None:
    """Replace the functions that round, for the rest of the process."""
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


def _attention(original: Callable[..., Any]) -> Callable[..., Any]:
    def attention(
        module: nn.Module, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scaling: float, **more: Any
    ) -> tuple[Tensor, Tensor]:
        if q.dtype != torch.float64:
            return original(module, q, k, v, mask, scaling=scaling, **more)
        scores = q @ k.mT * scaling
        pattern = (scores if mask is None else scores + mask).softmax(dim=-1)
        return (pattern @ v).transpose(1, 2).contiguous(), pattern

    return attention
