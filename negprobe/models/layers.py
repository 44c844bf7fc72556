"""The modules of a post-LayerNorm encoder, with a live hook point at every activation.

Parameters have TransformerLens's per-head layout. They are usually strided views of the weights they were converted
from, so that flattening the heads for one large matrix product copies nothing.

A block's arithmetic is written once, in functions that act on rows and take edits: `project`, `mix` (which uses
`scores`, `pattern` and `weighted`), `Attention.out` and `after_attention`. The hooked forward pass, the patching
engine, paths, edges and the measures all call them.
"""

from collections.abc import Callable
from functools import partial
from typing import TypeAlias

import torch
import torch.nn.functional as F
from einops import einsum, rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn.modules import module as torch_module
from transformer_lens.hook_points import HookPoint
from transformers.activations import ACT2FN

from negprobe.base.errors import ModelError
from negprobe.models.architecture import Architecture
from negprobe.models.config import HookedEncoderConfig
from negprobe.models.layer_norm import LayerNorm

StageEdit: TypeAlias = Callable[[str, Tensor], Tensor]
"""A function of a site's name (`"q"`, `"resid_mid"`, ...) and its activation that returns the activation to go on with.

The hooked forward pass calls the site's hook point, the patching engine replaces entries, and all other callers use
`unedited`.
"""


# The kinds of parts that `Block` implements.
_KINDS = {"norms": "post", "positions": "absolute", "mlp": "plain"}

_RowMap: TypeAlias = Callable[[Tensor], Tensor]


def unedited(site: str, activation: Tensor) -> Tensor:
    """The activation, unchanged."""
    return activation


class Embed(nn.Module):
    """Token, position and (where the family has them) token-type embeddings: their sum after LayerNorm."""

    def __init__(self, cfg: HookedEncoderConfig) -> None:
        """Create the embedding tables that the family has."""
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
        """The sum of each token's embeddings, after LayerNorm."""
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

    def __init__(self, architecture: Architecture) -> None:
        """Create per-head projections `[head, d_model, d_head]` and `[head, d_head, d_model]`."""
        super().__init__()
        self.architecture = architecture
        n_heads, d_model, d_head = architecture.n_heads, architecture.d_model, architecture.d_head
        self.W_Q = nn.Parameter(torch.empty(n_heads, d_model, d_head))
        self.W_K = nn.Parameter(torch.empty(n_heads, d_model, d_head))
        self.W_V = nn.Parameter(torch.empty(n_heads, d_model, d_head))
        self.b_Q = nn.Parameter(torch.empty(n_heads, d_head))
        self.b_K = nn.Parameter(torch.empty(n_heads, d_head))
        self.b_V = nn.Parameter(torch.empty(n_heads, d_head))
        self.W_O = nn.Parameter(torch.empty(n_heads, d_head, d_model))
        self.b_O = nn.Parameter(torch.empty(d_model))
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
        """The output of attention: the sum over heads of `z W_O`, plus `b_O`.

        `mask` (see `key_mask`) is applied after `hook_attn_scores`, so padding stays masked whatever a hook writes.
        """
        q, k, v = (self._hooked(site, self.project(site, x)) for site in ("q", "k", "v"))
        maps = self._hooked if is_hooked(self.hook_attn_scores, self.hook_pattern) else None
        return self.out(self.mix(q, k, v, mask, maps), self._hooked, by_head=is_hooked(self.hook_result))

    def project(
        self, site: str, x: Float[Tensor, "*row d_model"], heads: Int[Tensor, " head"] | None = None
    ) -> Float[Tensor, "*row head d_head"]:
        """Queries ("q"), keys ("k") or values ("v"), `x W + b`, of all heads or of the given ones."""
        all_W, all_b = {"q": (self.W_Q, self.b_Q), "k": (self.W_K, self.b_K), "v": (self.W_V, self.b_V)}[site]
        W, b = (all_W, all_b) if heads is None else (all_W[heads], all_b[heads])
        W_flat = rearrange(W, "head d_model d_head -> (head d_head) d_model")
        return F.linear(x, W_flat, b.flatten()).unflatten(-1, b.shape)

    def scores(
        self, q: Float[Tensor, "*batch query width"], k: Float[Tensor, "*batch key width"]
    ) -> Float[Tensor, "*batch query key"]:
        """Attention scores, `q·k / sqrt(d_head)`."""
        # Scaling the queries instead of the scores saves a pass over the larger tensor.
        return self.scaled(q) @ k.mT

    def scaled(self, q: Float[Tensor, "*any d_head"]) -> Float[Tensor, "*any d_head"]:
        """Queries divided by `sqrt(d_head)`."""
        return q / self.architecture.d_head**0.5

    @staticmethod
    def pattern(
        scores: Float[Tensor, "batch head query key"], mask: Bool[Tensor, "batch 1 1 key"] | None
    ) -> Float[Tensor, "batch head query key"]:
        """The attention pattern: the softmax of the scores over keys, exactly 0 at padding."""
        return (scores if mask is None else scores.masked_fill(~mask, -torch.inf)).softmax(dim=-1)

    def mix(
        self,
        q: Float[Tensor, "batch query head d_head"],
        k: Float[Tensor, "batch key head d_head"],
        v: Float[Tensor, "batch key head d_head"],
        mask: Bool[Tensor, "batch 1 1 key"] | None,
        edit: StageEdit | None = None,
    ) -> Float[Tensor, "batch query head d_head"]:
        """The heads' outputs z, pattern times values.

        Without `edit`, a fused kernel is used, which does not store the scores or the pattern.
        """
        by_head_q, by_head_k = (rearrange(t, "batch pos head d_head -> batch head pos d_head") for t in (q, k))
        if edit is not None:
            scores = edit("attn_scores", self.scores(by_head_q, by_head_k))
            return self.weighted(edit("pattern", self.pattern(scores, mask)), v)
        by_head_v = rearrange(v, "batch key head d_head -> batch head key d_head")
        z = F.scaled_dot_product_attention(by_head_q, by_head_k, by_head_v, attn_mask=mask)
        return rearrange(z, "batch head query d_head -> batch query head d_head")

    @staticmethod
    def weighted(
        pattern: Float[Tensor, "batch head query key"], v: Float[Tensor, "batch key head d_head"]
    ) -> Float[Tensor, "batch query head d_head"]:
        """The heads' outputs z, from the pattern and the values."""
        z = pattern @ rearrange(v, "batch key head d_head -> batch head key d_head")
        return rearrange(z, "batch head query d_head -> batch query head d_head")

    def mix_of_few(
        self,
        x: Float[Tensor, "batch pos d_model"],
        queries: Int[Tensor, "batch query"],
        mask: Bool[Tensor, "batch 1 1 key"] | None,
    ) -> Float[Tensor, "batch query head d_head"]:
        """The heads' outputs z at a few queries, computed without the keys and values of all tokens.

        In `q·k = (q W_K^T)·x + q·b_K` the last term is the same for every key, so it does not change the softmax. And
        `A v = (A x) W_V + b_V`, because the weights A sum to 1. Valid only for architectures with `linear_keys`.
        """
        q = self.scaled(self.project("q", torch.take_along_dim(x, queries[..., None], dim=1)))
        folded = einsum(q, self.W_K, "batch query head d_head, head d_model d_head -> batch query head d_model")
        scores = einsum(folded, x, "batch query head d_model, batch pos d_model -> batch head query pos")
        pattern = self.pattern(scores, mask)
        mixed = einsum(pattern, x, "batch head query pos, batch pos d_model -> batch query head d_model")
        z = einsum(mixed, self.W_V, "batch query head d_model, head d_model d_head -> batch query head d_head")
        return z + self.b_V

    def result(self, z: Float[Tensor, "*row head d_head"]) -> Float[Tensor, "*row head d_model"]:
        """The output of each head, `z W_O`."""
        return einsum(z, self.W_O, "... head d_head, head d_head d_model -> ... head d_model")

    def out(
        self, z: Float[Tensor, "*row head d_head"], edit: StageEdit = unedited, by_head: bool = False
    ) -> Float[Tensor, "*row d_model"]:
        """The output of attention: the sum over heads of `z W_O`, plus `b_O`.

        `by_head` computes each head's output separately, so that `edit` is applied to "result"; this is slower.
        """
        z = edit("z", z)
        if by_head:
            return edit("result", self.result(z)).sum(dim=-2) + self.b_O
        W_O = rearrange(self.W_O, "head d_head d_model -> d_model (head d_head)")
        return F.linear(z.flatten(-2), W_O, self.b_O)

    def _hooked(self, site: str, activation: Tensor) -> Tensor:
        return getattr(self, f"hook_{site}")(activation)


class MLP(nn.Module):
    """Two linear maps around an activation function."""

    def __init__(self, architecture: Architecture) -> None:
        """Create `W_in [d_model, d_mlp]` and `W_out [d_mlp, d_model]`."""
        super().__init__()
        d_model, d_mlp = architecture.d_model, architecture.d_mlp
        self.W_in = nn.Parameter(torch.empty(d_model, d_mlp))
        self.b_in = nn.Parameter(torch.empty(d_mlp))
        self.W_out = nn.Parameter(torch.empty(d_mlp, d_model))
        self.b_out = nn.Parameter(torch.empty(d_model))
        self.act_fn = ACT2FN[architecture.act_fn]
        self.hook_pre = HookPoint()
        self.hook_post = HookPoint()

    def forward(self, x: Float[Tensor, "batch pos d_model"]) -> Float[Tensor, "batch pos d_model"]:
        """The output of the MLP."""
        return self._compose(x, self.act_fn, self._hooked)

    def read(self, x: Float[Tensor, "*row d_model"]) -> Float[Tensor, "*row d_mlp"]:
        """The pre-activations, `x W_in + b_in`."""
        return F.linear(x, self.W_in.T, self.b_in)

    def activated(self, pre: Float[Tensor, "*row d_mlp"]) -> Float[Tensor, "*row d_mlp"]:
        """The post-activations, without calling the hooks of the activation function's module."""
        return type(self.act_fn).forward(self.act_fn, pre)

    def write(self, post: Float[Tensor, "*row d_mlp"]) -> Float[Tensor, "*row d_model"]:
        """The MLP's output for given post-activations, `post W_out + b_out`."""
        return F.linear(post, self.W_out.T, self.b_out)

    def out(self, x: Float[Tensor, "*row d_model"], edit: StageEdit = unedited) -> Float[Tensor, "*row d_model"]:
        """The output of the MLP, without calling hooks."""
        return self._compose(x, self.activated, edit)

    def _compose(
        self, x: Float[Tensor, "*row d_model"], act: _RowMap, edit: StageEdit
    ) -> Float[Tensor, "*row d_model"]:
        return self.write(edit("mlp_post", act(edit("mlp_pre", self.read(x)))))

    def _hooked(self, site: str, activation: Tensor) -> Tensor:
        return getattr(self, f"hook_{site.removeprefix('mlp_')}")(activation)


class Block(nn.Module):
    """One post-LayerNorm block: `LN2(h + MLP(h))` with `h = LN1(x + Attention(x))`."""

    def __init__(self, architecture: Architecture) -> None:
        """Create attention, the MLP and the two LayerNorms.

        Raises:
            ModelError: for an architecture that is not post-LayerNorm with absolute positions and a plain MLP.
        """
        super().__init__()
        kinds = {name: getattr(architecture, name) for name in _KINDS}
        if kinds != _KINDS:
            raise ModelError(f"A block must have {_KINDS}, got {kinds}; load a model of a supported family.")
        self.architecture = architecture
        self.attn = Attention(architecture)
        self.ln1 = LayerNorm(architecture.d_model, architecture.eps)
        self.mlp = MLP(architecture)
        self.ln2 = LayerNorm(architecture.d_model, architecture.eps)
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
        return self._compose(x, self.attn(x, mask), self.ln1, self.mlp, self.ln2, self._hooked)

    def project(
        self, site: str, x: Float[Tensor, "*row d_model"], heads: Int[Tensor, " head"] | None = None
    ) -> Float[Tensor, "*row head d_head"]:
        """Queries ("q"), keys ("k") or values ("v") for rows of the block's input, of all or the given heads."""
        return self.attn.project(site, x, heads)

    def mlp_out(
        self, x: Float[Tensor, "*row d_model"], attn_out: Float[Tensor, "*row d_model"]
    ) -> Float[Tensor, "*row d_model"]:
        """The output of the MLP, from rows of the block's input and of attention's output."""
        return self.mlp.out(self.ln1.normalized(x + attn_out))

    def after_attention(
        self,
        x: Float[Tensor, "*row d_model"],
        attn_out: Float[Tensor, "*#row d_model"],
        edit: StageEdit = unedited,
        mlp_out: Float[Tensor, "*#row d_model"] | None = None,
    ) -> Float[Tensor, "*row d_model"]:
        """The next block's input, computed row by row from this block's input and attention's output, without hooks.

        Args:
            x: Rows of the block's input.
            attn_out: Attention's output in these rows.
            edit: Edit of each activation from `attn_out` on.
            mlp_out: The MLP's output; by default it is computed from these rows.
        """
        mlp = partial(self.mlp.out, edit=edit) if mlp_out is None else lambda _: mlp_out
        return self._compose(x, attn_out, self.ln1.normalized, mlp, self.ln2.normalized, edit)

    @staticmethod
    def _compose(
        x: Tensor, attn_out: Tensor, ln1: _RowMap, mlp: _RowMap, ln2: _RowMap, edit: StageEdit
    ) -> Float[Tensor, "*row d_model"]:
        """Apply a block's parts in order; each is a module, which calls hooks, or a function, which does not."""
        h = ln1(edit("resid_mid", x + edit("attn_out", attn_out)))
        return edit("normalized_resid_post", ln2(edit("resid_post", h + edit("mlp_out", mlp(h)))))

    def _hooked(self, site: str, activation: Tensor) -> Tensor:
        return getattr(self, f"hook_{site}")(activation)


def key_mask(mask: Int[Tensor, "batch pos"]) -> Bool[Tensor, "batch 1 1 key"] | None:
    """True for the keys that can be attended to, False for padding; None if there is no padding.

    A boolean mask works with scores of any dtype.
    """
    return None if bool(mask.all()) else rearrange(mask.bool(), "batch key -> batch 1 1 key")


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


# The packages that define the modules of a `HookedEncoder`.
_KNOWN_PACKAGES = frozenset({"negprobe", "torch", "transformer_lens", "transformers"})
