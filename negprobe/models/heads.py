"""What stands on the last block: a masked LM, a classifier, or a pooled sentence embedding."""

import torch
import torch.nn.functional as F
from einops import einsum
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformer_lens.hook_points import HookPoint
from transformers.activations import ACT2FN

from negprobe.models.config import HookedEncoderConfig, Pooling
from negprobe.models.norms import LayerNorm


class MaskedLMHead(nn.Module):
    """Linear map, activation and LayerNorm before the unembedding."""

    def __init__(self, cfg: HookedEncoderConfig) -> None:
        """Make `W [d_model, d_embed]`, `b` and the LayerNorm."""
        super().__init__()
        self.W = nn.Parameter(torch.empty(cfg.d_model, cfg.d_embed))
        self.b = nn.Parameter(torch.empty(cfg.d_embed))
        self.act_fn = ACT2FN[cfg.head_act]
        self.ln = LayerNorm(cfg.d_embed, cfg.eps)

    def forward(self, resid: Float[Tensor, "... d_model"]) -> Float[Tensor, "... d_embed"]:
        """The vector that the unembedding reads."""
        return self.ln(self.act_fn(F.linear(resid, self.W.T, self.b)))


class Unembed(nn.Module):
    """Vocabulary logits."""

    def __init__(self, cfg: HookedEncoderConfig) -> None:
        """Make `W_U [d_embed, d_vocab]` and `b_U`."""
        super().__init__()
        self.W_U = nn.Parameter(torch.empty(cfg.d_embed, cfg.d_vocab))
        self.b_U = nn.Parameter(torch.empty(cfg.d_vocab))
        self.hook_in = HookPoint()
        self.hook_out = HookPoint()

    def forward(self, x: Float[Tensor, "... d_embed"]) -> Float[Tensor, "... d_vocab"]:
        """One logit a word of the vocabulary."""
        return self.hook_out(F.linear(self.hook_in(x), self.W_U.T, self.b_U))


class Classifier(nn.Module):
    """Linear map and activation on the first token, then one logit a label."""

    def __init__(self, cfg: HookedEncoderConfig) -> None:
        """Make `W_pool [d_model, d_model]` and `W_label [d_model, label]` with their biases."""
        super().__init__()
        self.W_pool = nn.Parameter(torch.empty(cfg.d_model, cfg.d_model))
        self.b_pool = nn.Parameter(torch.empty(cfg.d_model))
        self.W_label = nn.Parameter(torch.empty(cfg.d_model, len(cfg.labels)))
        self.b_label = nn.Parameter(torch.empty(len(cfg.labels)))
        self.act_fn = ACT2FN[cfg.head_act]

    def forward(self, resid: Float[Tensor, "batch pos d_model"]) -> Float[Tensor, "batch label"]:
        """Logits of the labels."""
        pooled = self.act_fn(F.linear(resid[:, 0], self.W_pool.T, self.b_pool))
        return F.linear(pooled, self.W_label.T, self.b_label)


def pool(
    resid: Float[Tensor, "batch pos d_model"],
    mask: Int[Tensor, "batch pos"],
    pooling: Pooling,
    normalize: bool,
) -> Float[Tensor, "batch d_model"]:
    """One embedding a text: the first token's state or the mean over real tokens, scaled to length 1 if asked."""
    if pooling == "cls":
        pooled = resid[:, 0]
    else:
        weights = mask.to(resid.dtype)
        total = einsum(resid, weights, "batch pos d_model, batch pos -> batch d_model")
        pooled = total / weights.sum(dim=1, keepdim=True)
    return F.normalize(pooled, dim=-1) if normalize else pooled
