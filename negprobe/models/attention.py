"""Self-attention, with a live hook point at every activation."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from einops import einsum, rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from transformer_lens.hook_points import HookPoint

from negprobe.models.architecture import Architecture
from negprobe.models.hooked import is_hooked
from negprobe.models.positions import rotated
from negprobe.models.stage_edit import StageEdit, unedited


@dataclass(frozen=True)
class AttentionContext:
    """What attention depends on besides queries, keys and values; the same for all blocks.

    Attributes:
        mask: True for the keys that can be attended to, False for padding; None if there is no padding.
        bias: What is added to the scores of every block, by the relative position of query and key.
    """

    mask: Bool[Tensor, "batch 1 1 key"] | None = None
    bias: Float[Tensor, "1 head query key"] | None = None


class Attention(nn.Module):
    """Multi-head self-attention without a causal mask."""

    def __init__(self, architecture: Architecture, layer: int) -> None:
        """Create per-head projections `[head, d_model, d_head]` and `[head, d_head, d_model]`."""
        super().__init__()
        self.architecture = architecture
        self.rotary_base = architecture.rotary_bases[layer] if architecture.positions == "rotary" else None
        self.window = architecture.windows[layer]
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
        if self.rotary_base is not None:
            self.hook_rot_q = HookPoint()
            self.hook_rot_k = HookPoint()
        self.hook_attn_scores = HookPoint()
        self.hook_pattern = HookPoint()
        self.hook_z = HookPoint()
        self.hook_result = HookPoint()

    def forward(
        self,
        x: Float[Tensor, "batch pos d_model"],
        context: AttentionContext,
        inputs: Mapping[str, Float[Tensor, "batch pos head d_model"]] = {},
    ) -> Tensor:
        """The output of attention, `[batch pos d_model]`: the sum over heads of `z W_O`, plus `b_O`.

        The mask is applied after `hook_attn_scores`, so padding stays masked whatever a hook writes.

        Args:
            x: What attention reads.
            context: The context of the run.
            inputs: Each head's own input of its queries ("q"), keys ("k") or values ("v"); by default `x`.
        """
        q, k, v = (
            self._hooked(site, self.project_by_head(site, inputs[site]) if site in inputs else self.project(site, x))
            for site in ("q", "k", "v")
        )
        q, k = self.placed("q", q, self._hooked), self.placed("k", k, self._hooked)
        maps = self._hooked if is_hooked(self.hook_attn_scores, self.hook_pattern) else None
        return self.out(self.mix(q, k, v, context, maps), self._hooked, by_head=is_hooked(self.hook_result))

    def project(
        self, site: str, x: Float[Tensor, "*row d_model"], heads: Int[Tensor, " head"] | None = None
    ) -> Float[Tensor, "*row head d_head"]:
        """Queries ("q"), keys ("k") or values ("v"), `x W + b`, of all heads or of the given ones."""
        all_W, all_b = self._projection(site)
        W, b = (all_W, all_b) if heads is None else (all_W[heads], all_b[heads])
        W_flat = rearrange(W, "head d_model d_head -> (head d_head) d_model")
        return F.linear(x, W_flat, b.flatten()).unflatten(-1, b.shape)

    def project_by_head(self, site: str, x: Float[Tensor, "*row head d_model"]) -> Float[Tensor, "*row head d_head"]:
        """Queries ("q"), keys ("k") or values ("v") of all heads, each from its own input."""
        W, b = self._projection(site)
        return einsum(x, W, "... head d_model, head d_model d_head -> ... head d_head") + b

    def _projection(self, site: str) -> tuple[Float[Tensor, "head d_model d_head"], Float[Tensor, "head d_head"]]:
        return {"q": (self.W_Q, self.b_Q), "k": (self.W_K, self.b_K), "v": (self.W_V, self.b_V)}[site]

    def placed(
        self, site: str, x: Float[Tensor, "batch pos head d_head"], edit: StageEdit = unedited
    ) -> Float[Tensor, "batch pos head d_head"]:
        """Queries ("q") or keys ("k") of all positions as the scores use them: rotated by their positions, if at all.

        `edit` is applied to the rotated ones, as "rot_q" or "rot_k".
        """
        return x if self.rotary_base is None else edit(f"rot_{site}", rotated(x, self.rotary_base))

    def scores(
        self, q: Float[Tensor, "*batch query width"], k: Float[Tensor, "*batch key width"]
    ) -> Float[Tensor, "*batch query key"]:
        """Attention scores without a bias, `q·k / attn_scale`."""
        # Scaling the queries instead of the scores saves a pass over the larger tensor.
        return self.scaled(q) @ k.mT

    def scaled(self, q: Float[Tensor, "*any d_head"]) -> Float[Tensor, "*any d_head"]:
        """Queries divided by the scale of the scores."""
        return q / self.architecture.attn_scale

    def bias(
        self, context: AttentionContext, queries: Int[Tensor, "batch query"] | None
    ) -> Float[Tensor, "*#batch head query key"] | None:
        """What is added to the scores of the given queries (by default all); None if nothing is."""
        if context.bias is None or queries is None:
            return context.bias
        return rearrange(context.bias[0][:, queries], "head batch query key -> batch head query key")

    def visible(
        self, context: AttentionContext, n_keys: int, queries: Int[Tensor, "batch query"] | None
    ) -> Bool[Tensor, "#batch 1 #query key"] | None:
        """The keys that each of the given queries (by default all) can attend to; None for all keys.

        A padding token with nothing else in its window sees itself, so that its state stays finite.
        """
        if self.window is None or self.window >= n_keys - 1:
            return context.mask
        keys = torch.arange(n_keys, device=self.W_Q.device)
        positions = keys[None] if queries is None else queries
        distance = rearrange(positions, "batch query -> batch 1 query 1") - keys
        near = distance.abs() <= self.window
        seen = near if context.mask is None else near & context.mask
        return seen | (~seen.any(dim=-1, keepdim=True) & (distance == 0))

    @staticmethod
    def pattern(
        scores: Float[Tensor, "batch head query key"], visible: Bool[Tensor, "#batch 1 #query key"] | None
    ) -> Float[Tensor, "batch head query key"]:
        """The attention pattern: the softmax of the scores over keys, exactly 0 at keys that are not visible."""
        return (scores if visible is None else scores.masked_fill(~visible, -torch.inf)).softmax(dim=-1)

    def mix(
        self,
        q: Float[Tensor, "batch query head d_head"],
        k: Float[Tensor, "batch key head d_head"],
        v: Float[Tensor, "batch key head d_head"],
        context: AttentionContext,
        edit: StageEdit | None = None,
        queries: Int[Tensor, "batch query"] | None = None,
    ) -> Float[Tensor, "batch query head d_head"]:
        """The heads' outputs z, pattern times values.

        Without `edit`, a fused kernel is used, which does not store the scores or the pattern.

        Args:
            q: Queries, after `placed`.
            k: Keys of all positions, after `placed`.
            v: Values of all positions.
            context: The context of the run.
            edit: Edit of the scores and the pattern.
            queries: The positions of the queries; by default all positions.
        """
        bias, visible = self.bias(context, queries), self.visible(context, k.shape[1], queries)
        by_head_q, by_head_k = (rearrange(t, "batch pos head d_head -> batch head pos d_head") for t in (q, k))
        if edit is not None:
            scores = self.scores(by_head_q, by_head_k)
            scores = edit("attn_scores", scores if bias is None else scores + bias)
            return self.weighted(edit("pattern", self.pattern(scores, visible)), v)
        by_head_v = rearrange(v, "batch key head d_head -> batch head key d_head")
        added = visible if bias is None else bias if visible is None else bias.masked_fill(~visible, -torch.inf)
        scale = 1 / self.architecture.attn_scale
        z = F.scaled_dot_product_attention(by_head_q, by_head_k, by_head_v, attn_mask=added, scale=scale)
        return rearrange(z, "batch head query d_head -> batch query head d_head")

    @staticmethod
    def weighted(
        pattern: Float[Tensor, "batch head query key"], v: Float[Tensor, "batch key head d_head"]
    ) -> Float[Tensor, "batch query head d_head"]:
        """The heads' outputs z, from the pattern and the values."""
        z = pattern @ rearrange(v, "batch key head d_head -> batch head key d_head")
        return rearrange(z, "batch head query d_head -> batch query head d_head")

    def mix_of_few(
        self, x: Float[Tensor, "batch pos d_model"], queries: Int[Tensor, "batch query"], context: AttentionContext
    ) -> Float[Tensor, "batch query head d_head"]:
        """The heads' outputs z at a few queries, computed without the keys and values of all tokens.

        In `q·k = (q W_K^T)·x + q·b_K` the last term is the same for every key, so it does not change the softmax. And
        `A v = (A x) W_V + b_V`, because the weights A sum to 1. Valid only for architectures with `linear_keys`.
        """
        q = self.scaled(self.project("q", torch.take_along_dim(x, queries[..., None], dim=1)))
        folded = einsum(q, self.W_K, "batch query head d_head, head d_model d_head -> batch query head d_model")
        scores = einsum(folded, x, "batch query head d_model, batch pos d_model -> batch head query pos")
        bias = self.bias(context, queries)
        visible = self.visible(context, x.shape[1], queries)
        pattern = self.pattern(scores if bias is None else scores + bias, visible)
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


def key_mask(mask: Int[Tensor, "batch pos"]) -> Bool[Tensor, "batch 1 1 key"] | None:
    """True for the keys that can be attended to, False for padding; None if there is no padding.

    A boolean mask works with scores of any dtype.
    """
    return None if bool(mask.all()) else rearrange(mask.bool(), "batch key -> batch 1 1 key")
