"""The parts of a post-LayerNorm encoder, every activation behind a live hook point.

Parameters have TransformerLens's per-head layout. They are usually strided views of the weights they were converted
from, so that flattening the heads for one large matrix product copies nothing.
"""

import torch
import torch.nn.functional as F
from einops import einsum, rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn.modules import module as torch_module
from transformer_lens.hook_points import HookPoint
from transformers.activations import ACT2FN

from negprobe.models.config import HookedEncoderConfig


class LayerNorm(nn.Module):
    """`(x - mean) / sqrt(var + eps) * w + b` over the last axis."""

    def __init__(self, width: int, eps: float) -> None:
        """Make the parameters; `width` is the size of the last axis."""
        super().__init__()
        self.eps = eps
        self.w = nn.Parameter(torch.ones(width))
        self.b = nn.Parameter(torch.zeros(width))

    def forward(self, x: Float[Tensor, "... width"]) -> Float[Tensor, "... width"]:
        """Normalise the last axis."""
        return F.layer_norm(x, self.w.shape, self.w, self.b, self.eps)


class Embed(nn.Module):
    """Token, position and (where the family has them) token-type embeddings: their sum after LayerNorm."""

    def __init__(self, cfg: HookedEncoderConfig) -> None:
        """Make the tables of the summands the family has."""
        super().__init__()
        self.cfg = cfg
        self.W_E = nn.Parameter(torch.empty(cfg.d_vocab, cfg.d_embed))
        self.W_pos = nn.Parameter(torch.empty(cfg.first_position + cfg.n_ctx, cfg.d_embed))
        self.hook_embed = HookPoint()
        self.hook_pos_embed = HookPoint()
        if cfg.n_token_types:
            self.W_token_type = nn.Parameter(torch.empty(cfg.n_token_types, cfg.d_embed))
            self.hook_token_type_embed = HookPoint()
        self.ln = LayerNorm(cfg.d_embed, cfg.eps)

    def forward(
        self, tokens: Int[Tensor, "batch pos"], token_type_ids: Int[Tensor, "batch pos"] | None = None
    ) -> Float[Tensor, "batch pos d_embed"]:
        """Sum the embeddings of each token and normalise the sum."""
        summands = self.summands(tokens, token_type_ids)
        total = self.hook_embed(summands["embed"])
        if self.cfg.n_token_types:
            total = total + self.hook_token_type_embed(summands["token_type_embed"])
        return self.ln(total + self.hook_pos_embed(summands["pos_embed"]))

    def summands(
        self, tokens: Int[Tensor, "batch pos"], token_type_ids: Int[Tensor, "batch pos"] | None
    ) -> dict[str, Float[Tensor, "batch pos d_embed"]]:
        """The embeddings of each token by name, in the order in which they are summed."""
        summands = {"embed": F.embedding(tokens, self.W_E)}
        if self.cfg.n_token_types:
            types = torch.zeros_like(tokens) if token_type_ids is None else token_type_ids
            summands["token_type_embed"] = F.embedding(types, self.W_token_type)
        return summands | {"pos_embed": F.embedding(self.positions(tokens), self.W_pos)}

    def positions(self, tokens: Int[Tensor, "batch pos"]) -> Int[Tensor, "batch pos"]:
        """Index of each token's position embedding; RoBERTa's family does not count padding."""
        if self.cfg.first_position == 0:
            return torch.arange(tokens.shape[1], device=tokens.device).expand_as(tokens)
        real = (tokens != self.cfg.pad_token_id).long()
        return real.cumsum(dim=1) * real + self.cfg.first_position - 1


class Attention(nn.Module):
    """Multi-head self-attention without a causal mask."""

    def __init__(self, cfg: HookedEncoderConfig) -> None:
        """Make per-head projections `[head, d_model, d_head]` and `[head, d_head, d_model]`."""
        super().__init__()
        self.cfg = cfg
        self.W_Q = nn.Parameter(torch.empty(cfg.n_heads, cfg.d_model, cfg.d_head))
        self.W_K = nn.Parameter(torch.empty(cfg.n_heads, cfg.d_model, cfg.d_head))
        self.W_V = nn.Parameter(torch.empty(cfg.n_heads, cfg.d_model, cfg.d_head))
        self.b_Q = nn.Parameter(torch.empty(cfg.n_heads, cfg.d_head))
        self.b_K = nn.Parameter(torch.empty(cfg.n_heads, cfg.d_head))
        self.b_V = nn.Parameter(torch.empty(cfg.n_heads, cfg.d_head))
        self.W_O = nn.Parameter(torch.empty(cfg.n_heads, cfg.d_head, cfg.d_model))
        self.b_O = nn.Parameter(torch.empty(cfg.d_model))
        self.hook_q = HookPoint()
        self.hook_k = HookPoint()
        self.hook_v = HookPoint()
        self.hook_attn_scores = HookPoint()
        self.hook_pattern = HookPoint()
        self.hook_z = HookPoint()
        self.hook_result = HookPoint()

    def forward(
        self,
        x: Float[Tensor, "batch pos d_model"],
        mask: Bool[Tensor, "batch 1 1 key"] | None,
    ) -> Float[Tensor, "batch pos d_model"]:
        """What attention writes: the sum over heads of `z W_O`, plus `b_O`.

        `mask` (see `key_mask`) acts after `hook_attn_scores`, so padding stays masked whatever a hook writes.
        """
        q = self.hook_q(self.project(x, self.W_Q, self.b_Q))
        k = self.hook_k(self.project(x, self.W_K, self.b_K))
        v = self.hook_v(self.project(x, self.W_V, self.b_V))
        z = self.hook_z(self.mix(q, k, v, mask))
        if is_hooked(self.hook_result):
            return self.hook_result(self.result(z)).sum(dim=2) + self.b_O
        return self.out(z)

    def result(self, z: Float[Tensor, "... head d_head"]) -> Float[Tensor, "... head d_model"]:
        """What each head writes."""
        return einsum(z, self.W_O, "... head d_head, head d_head d_model -> ... head d_model")

    def out(self, z: Float[Tensor, "... head d_head"]) -> Float[Tensor, "... d_model"]:
        """What all heads write together, with the bias."""
        W_O = rearrange(self.W_O, "head d_head d_model -> d_model (head d_head)")
        return F.linear(z.flatten(-2), W_O, self.b_O)

    @staticmethod
    def project(
        x: Float[Tensor, "... d_model"],
        W: Float[Tensor, "head d_model d_head"],
        b: Float[Tensor, "head d_head"],
    ) -> Float[Tensor, "... head d_head"]:
        """Queries, keys or values: `x W + b` per head."""
        W_flat = rearrange(W, "head d_model d_head -> (head d_head) d_model")
        return F.linear(x, W_flat, b.flatten()).unflatten(-1, b.shape)

    def mix(
        self,
        q: Float[Tensor, "batch query head d_head"],
        k: Float[Tensor, "batch key head d_head"],
        v: Float[Tensor, "batch key head d_head"],
        mask: Bool[Tensor, "batch 1 1 key"] | None,
    ) -> Float[Tensor, "batch query head d_head"]:
        """The heads' outputs, pattern times values."""
        q, k, v = (rearrange(t, "batch pos head d_head -> batch head pos d_head") for t in (q, k, v))
        if is_hooked(self.hook_attn_scores, self.hook_pattern):
            # Scaling the queries and not the scores saves a pass over the larger of the two.
            scores = self.hook_attn_scores((q / self.cfg.d_head**0.5) @ k.mT)
            pattern = self.hook_pattern(masked_softmax(scores, mask))
            z = pattern @ v
        else:
            # Nobody looks at the pattern, so the fused kernel, which never forms it, may be used.
            z = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return rearrange(z, "batch head query d_head -> batch query head d_head")


class MLP(nn.Module):
    """Two linear maps around an activation."""

    def __init__(self, cfg: HookedEncoderConfig) -> None:
        """Make `W_in [d_model, d_mlp]` and `W_out [d_mlp, d_model]`."""
        super().__init__()
        assert cfg.d_mlp is not None
        self.W_in = nn.Parameter(torch.empty(cfg.d_model, cfg.d_mlp))
        self.b_in = nn.Parameter(torch.empty(cfg.d_mlp))
        self.W_out = nn.Parameter(torch.empty(cfg.d_mlp, cfg.d_model))
        self.b_out = nn.Parameter(torch.empty(cfg.d_model))
        self.act_fn = ACT2FN[cfg.act_fn]
        self.hook_pre = HookPoint()
        self.hook_post = HookPoint()

    def forward(self, x: Float[Tensor, "batch pos d_model"]) -> Float[Tensor, "batch pos d_model"]:
        """What the MLP writes."""
        pre = self.hook_pre(self.read(x))
        return self.write(self.hook_post(self.act_fn(pre)))

    def read(self, x: Float[Tensor, "... d_model"]) -> Float[Tensor, "... d_mlp"]:
        """What stands before the activation."""
        return F.linear(x, self.W_in.T, self.b_in)

    def write(self, post: Float[Tensor, "... d_mlp"]) -> Float[Tensor, "... d_model"]:
        """What is written from behind the activation."""
        return F.linear(post, self.W_out.T, self.b_out)


class Block(nn.Module):
    """One post-LayerNorm block: `LN2(h + MLP(h))` with `h = LN1(x + Attention(x))`."""

    def __init__(self, cfg: HookedEncoderConfig) -> None:
        """Make attention, MLP and the two LayerNorms."""
        super().__init__()
        self.attn = Attention(cfg)
        self.ln1 = LayerNorm(cfg.d_model, cfg.eps)
        self.mlp = MLP(cfg)
        self.ln2 = LayerNorm(cfg.d_model, cfg.eps)
        self.hook_resid_pre = HookPoint()
        self.hook_attn_out = HookPoint()
        self.hook_resid_mid = HookPoint()
        self.hook_mlp_out = HookPoint()
        self.hook_resid_post = HookPoint()
        self.hook_normalized_resid_post = HookPoint()

    def forward(
        self,
        x: Float[Tensor, "batch pos d_model"],
        mask: Bool[Tensor, "batch 1 1 key"] | None,
    ) -> Float[Tensor, "batch pos d_model"]:
        """The next block's input."""
        x = self.hook_resid_pre(x)
        resid_mid = self.hook_resid_mid(x + self.hook_attn_out(self.attn(x, mask)))
        h = self.ln1(resid_mid)
        resid_post = self.hook_resid_post(h + self.hook_mlp_out(self.mlp(h)))
        return self.hook_normalized_resid_post(self.ln2(resid_post))


def key_mask(mask: Int[Tensor, "batch pos"]) -> Bool[Tensor, "batch 1 1 key"] | None:
    """True for the keys that can be attended to, False for padding; None if there is no padding.

    It is boolean, so its type cannot differ from that of the scores.
    """
    return None if bool(mask.all()) else rearrange(mask.bool(), "batch key -> batch 1 1 key")


def masked_softmax(
    scores: Float[Tensor, "batch head query key"], mask: Bool[Tensor, "batch 1 1 key"] | None
) -> Float[Tensor, "batch head query key"]:
    """The pattern of these scores, exactly 0 at padding."""
    return (scores if mask is None else scores.masked_fill(~mask, -torch.inf)).softmax(dim=-1)


def is_hooked(*modules: nn.Module) -> bool:
    """Whether external code runs when one of the modules, or a module inside it, is called.

    A shortcut that computes a module's output without calling the module would skip such code, so it is allowed only if
    this is False. External code is any TransformerLens or PyTorch hook, forward or backward, a global module hook of
    PyTorch, or a `forward` that replaces the module's own.
    """
    return has_global_hooks() or any(has_own_hooks(part) for module in modules for part in module.modules())


def has_global_hooks() -> bool:
    """Whether any global module hook of PyTorch is registered."""
    return bool(
        torch_module._global_forward_pre_hooks
        or torch_module._global_forward_hooks
        or torch_module._global_backward_pre_hooks
        or torch_module._global_backward_hooks
    )


def has_own_hooks(module: nn.Module) -> bool:
    """Whether the module itself has hooks or a `forward` that replaces its own."""
    return bool(
        module._forward_pre_hooks
        or module._forward_hooks
        or module._backward_pre_hooks
        or module._backward_hooks
        or "forward" in vars(module)
        or type(module).forward.__module__.split(".", 1)[0] not in _KNOWN_PACKAGES
    )


# The packages whose modules a `HookedEncoder` is made of.
_KNOWN_PACKAGES = frozenset({"negprobe", "torch", "transformer_lens", "transformers"})
