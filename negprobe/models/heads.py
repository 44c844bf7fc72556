"""What stands on the last block: a masked LM, a classifier, or a pooled sentence embedding."""

import torch
import torch.nn.functional as F
from einops import einsum
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformer_lens.hook_points import HookPoint
from transformers.activations import ACT2FN

from negprobe.models.config import DenseStep, EmbeddingStep, HookedEncoderConfig, LayerNormStep, Pooling
from negprobe.models.norms import LayerNorm, norm_of


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
    """Linear map, activation and, if it has one, LayerNorm on the pooled states, then one logit a label.

    With late pooling, the same on each token's state, and the mean of the logits.
    """

    def __init__(self, cfg: HookedEncoderConfig) -> None:
        """Make `W_pool [d_model, d_model]` and `W_label [d_model, label]` with their biases."""
        super().__init__()
        self.W_pool = nn.Parameter(torch.empty(cfg.d_model, cfg.d_model))
        self.b_pool = nn.Parameter(torch.empty(cfg.d_model))
        self.W_label = nn.Parameter(torch.empty(cfg.d_model, len(cfg.labels)))
        self.b_label = nn.Parameter(torch.empty(len(cfg.labels)))
        self.act_fn = ACT2FN[cfg.head_act]
        self.ln = norm_of("LN", cfg.d_model, cfg.eps, exists=cfg.classifier_norm)
        self.pooling = cfg.classifier_pooling

    def forward(
        self, resid: Float[Tensor, "batch pos d_model"], mask: Int[Tensor, "batch pos"]
    ) -> Float[Tensor, "batch label"]:
        """Logits of the labels, for texts with this 1/0 mask."""
        if self.pooling == "late":
            return pool(self._logits(resid), mask, ("mean",))
        # As in Hugging Face's classifiers, "cls" is the first position, whatever stands there.
        return self._logits(resid[:, 0] if self.pooling == "cls" else pool(resid, mask, (self.pooling,)))

    def _logits(self, x: Float[Tensor, "*row d_model"]) -> Float[Tensor, "*row label"]:
        hidden = self.ln(self.act_fn(F.linear(x, self.W_pool.T, self.b_pool)))
        return F.linear(hidden, self.W_label.T, self.b_label)


class EmbeddingHead(nn.Module):
    """The embedding of a text from its last hidden states: pooling, the steps after it, and the scaling to length 1.

    If there are steps, `hook_pooled` is the pooled embedding, and each `DenseStep` has hooks of its own (see `Dense`).
    """

    def __init__(self, cfg: HookedEncoderConfig) -> None:
        """Make the modules of `cfg.embedding_steps`."""
        super().__init__()
        self.cfg = cfg
        self.hook_pooled = HookPoint() if cfg.embedding_steps else nn.Identity()
        self.steps = nn.ModuleList(map(_step, cfg.embedding_steps))

    def forward(
        self, resid: Float[Tensor, "batch pos d_model"], mask: Int[Tensor, "batch pos"]
    ) -> Float[Tensor, "batch d_embedding"]:
        """One embedding a text; `mask` is 1 for real tokens and 0 for padding on either side."""
        pooled = pool(resid, mask, self.cfg.poolings, self.cfg.pool_from)
        return self.after_pooling(pooled)

    def after_pooling(self, pooled: Float[Tensor, "batch d_pooled"]) -> Float[Tensor, "batch d_embedding"]:
        """The embedding from a pooled one."""
        embedding = self.hook_pooled(pooled)
        for step in self.steps:
            embedding = step(embedding)
        return F.normalize(embedding, dim=-1) if self.cfg.normalize else embedding

    def only_position(self, mask: Int[Tensor, "batch pos"]) -> Int[Tensor, "batch 1"] | None:
        """The only position of each text that is pooled; None if there are several."""
        positions = {"cls": first_pooled, "lasttoken": last_pooled}
        if len(self.cfg.poolings) > 1 or self.cfg.poolings[0] not in positions:
            return None
        return positions[self.cfg.poolings[0]](pooled_mask(mask, self.cfg.pool_from))[:, None]


class Dense(nn.Module):
    """A linear map and an activation function on embeddings, with `hook_pre` and `hook_post` around the latter."""

    def __init__(self, step: DenseStep) -> None:
        """Make `W [d_in, d_out]`, `b`, and `W_residual` for a residual connection between different widths."""
        super().__init__()
        self.residual = step.residual
        self.W = nn.Parameter(torch.empty(step.d_in, step.d_out))
        self.b = nn.Parameter(torch.empty(step.d_out)) if step.bias else None
        maps_residual = step.residual and step.d_in != step.d_out
        self.W_residual = nn.Parameter(torch.empty(step.d_in, step.d_out)) if maps_residual else None
        self.act_fn = getattr(nn, step.act_fn)()
        self.hook_pre, self.hook_post = HookPoint(), HookPoint()

    def forward(self, x: Float[Tensor, "batch d_in"]) -> Float[Tensor, "batch d_out"]:
        """The activation function's output, plus the input if the step has a residual connection."""
        post = self.hook_post(self.act_fn(self.hook_pre(F.linear(x, self.W.T, self.b))))
        if not self.residual:
            return post
        return post + (x if self.W_residual is None else F.linear(x, self.W_residual.T))


class Normalize(nn.Module):
    """Scaling to length 1."""

    def forward(self, x: Float[Tensor, "batch width"]) -> Float[Tensor, "batch width"]:
        """The vectors of length 1."""
        return F.normalize(x, dim=-1)


_TORCH_EPS = 1e-5


def _step(step: EmbeddingStep) -> nn.Module:
    if isinstance(step, DenseStep):
        return Dense(step)
    return LayerNorm(step.width, _TORCH_EPS) if isinstance(step, LayerNormStep) else Normalize()


def pool(
    resid: Float[Tensor, "batch pos d_model"],
    mask: Int[Tensor, "batch pos"],
    poolings: tuple[Pooling, ...],
    pool_from: int = 0,
) -> Float[Tensor, "batch d_pooled"]:
    """One embedding a text: the concatenation of its poolings over the real tokens from `pool_from` on.

    The poolings are those of sentence-transformers: the first token's state ("cls"), the last one's ("lasttoken"), the
    largest value of each coordinate ("max"), and sums divided by the number of tokens ("mean"), by its square root
    ("mean_sqrt_len_tokens"), or weighted by each token's position in the text ("weightedmean").
    """
    pooled = pooled_mask(mask, pool_from)
    # Sums of half-precision values are computed in single precision.
    states = resid.float() if resid.dtype in (torch.float16, torch.bfloat16) else resid

    def weighted_sum(weights: Int[Tensor, "batch pos"]) -> Float[Tensor, "batch d_model"]:
        return einsum(states, weights.to(states.dtype), "batch pos d_model, batch pos -> batch d_model")

    def one(pooling: Pooling) -> Float[Tensor, "batch d_model"]:
        if pooling in ("cls", "lasttoken"):
            at = (first_pooled if pooling == "cls" else last_pooled)(pooled)
            return resid[torch.arange(len(resid), device=resid.device), at]
        if pooling == "max":
            return resid.masked_fill(pooled[..., None] == 0, -torch.inf).amax(dim=1)
        weights = pooled * (_positions(mask) + 1) if pooling == "weightedmean" else pooled
        n = weights.sum(dim=1, keepdim=True).to(states.dtype)
        return (weighted_sum(weights) / (n.sqrt() if pooling == "mean_sqrt_len_tokens" else n)).to(resid.dtype)

    return torch.cat([one(pooling) for pooling in poolings], dim=-1)


def pooled_mask(mask: Int[Tensor, "batch pos"], pool_from: int) -> Int[Tensor, "batch pos"]:
    """1 for the real tokens at position `pool_from` of their text and after it, 0 for others and for padding."""
    return mask * (_positions(mask) >= pool_from)


def _positions(mask: Int[Tensor, "batch pos"]) -> Int[Tensor, "batch pos"]:
    """The position of each token in its text, counted from the first real token."""
    return torch.arange(mask.shape[1], device=mask.device) - mask.argmax(dim=1, keepdim=True)


def first_pooled(pooled: Int[Tensor, "batch pos"]) -> Int[Tensor, " batch"]:
    """The position of the first token that is pooled."""
    return pooled.argmax(dim=1)


def last_pooled(pooled: Int[Tensor, "batch pos"]) -> Int[Tensor, " batch"]:
    """The position of the last token that is pooled."""
    return pooled.shape[1] - 1 - pooled.flip(1).argmax(dim=1)
