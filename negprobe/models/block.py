"""One block of an encoder: attention and an MLP, with norms after or before them.

Parameters have TransformerLens's per-head layout. They are usually strided views of the weights they were converted
from, so that flattening the heads for one large matrix product copies nothing.

A block's arithmetic is written once, in functions that act on rows and take edits: `project`, `Attention.placed`,
`Attention.mix` (which uses `scores`, `added`, `visible`, `pattern` and `weighted`), `Attention.out` and
`after_attention`; where a convolution follows, which reads neighbouring rows, also `convolved`. The hooked forward
pass, the patching engine, paths, edges and the measures all call them.
"""

from collections.abc import Callable
from functools import partial
from typing import TypeAlias

from jaxtyping import Float, Int
from torch import Tensor, nn
from transformer_lens.hook_points import HookPoint

from negprobe.models.architecture import Architecture
from negprobe.models.attention import Attention, AttentionContext
from negprobe.models.convolution import Convolution
from negprobe.models.mlp import MLP
from negprobe.models.norms import norm_of
from negprobe.models.stage_edit import StageEdit, unedited

_RowMap: TypeAlias = Callable[[Tensor], Tensor]


class Block(nn.Module):
    """One block: post-norm, `LN2(h + MLP(h))` with `h = LN1(x + Attention(x))`, or pre-norm, `h + MLP(LN2(h))` with
    `h = x + Attention(LN1(x))`.
    """

    def __init__(self, architecture: Architecture, layer: int) -> None:
        """Create attention, the MLP and the two norms of the block with this index."""
        super().__init__()
        self.architecture = architecture
        self.is_pre_norm = architecture.norms == "pre"
        has_ln1 = architecture.first_norm or layer > 0
        self.attn = Attention(architecture, layer)
        self.ln1 = norm_of(architecture.norm, architecture.d_model, architecture.eps, has_ln1)
        self.mlp = MLP(architecture)
        self.ln2 = norm_of(architecture.norm, architecture.d_model, architecture.eps)
        self.conv = Convolution(architecture) if architecture.convolves and layer == 0 else None
        self.hook_resid_pre = HookPoint()
        self.hook_attn_out = HookPoint()
        self.hook_resid_mid = HookPoint()
        self.hook_mlp_out = HookPoint()
        self.hook_resid_post = HookPoint()
        if not self.is_pre_norm:
            self.hook_normalized_resid_post = HookPoint()

    def forward(
        self, x: Float[Tensor, "batch pos d_model"], context: AttentionContext
    ) -> Float[Tensor, "batch pos d_model"]:
        """The next block's input."""
        x = self.hook_resid_pre(x)
        attn_out = self.attn(self.ln1(x) if self.is_pre_norm else x, context)
        out = self._compose(x, attn_out, self.ln1, self.mlp, self.ln2, self._hooked)
        return out if self.conv is None else self.conv(x, out, context.mask)

    def attn_in(self, x: Float[Tensor, "*row d_model"]) -> Float[Tensor, "*row d_model"]:
        """What attention reads, for rows of the block's input: these, or with norms before attention, LN1 of them."""
        return self.ln1.normalized(x) if self.is_pre_norm else x

    def project(
        self, site: str, x: Float[Tensor, "*row d_model"], heads: Int[Tensor, " head"] | None = None
    ) -> Float[Tensor, "*row head d_head"]:
        """Queries ("q"), keys ("k") or values ("v") for rows of the block's input, of all or the given heads."""
        return self.attn.project(site, self.attn_in(x), heads)

    def mlp_out(
        self, x: Float[Tensor, "*row d_model"], attn_out: Float[Tensor, "*row d_model"]
    ) -> Float[Tensor, "*row d_model"]:
        """The output of the MLP, from rows of the block's input and of attention's output."""
        norm = self.ln2 if self.is_pre_norm else self.ln1
        return self.mlp.out(norm.normalized(x + attn_out))

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

    def convolved(
        self,
        x: Float[Tensor, "batch pos d_model"],
        out: Float[Tensor, "batch pos d_model"],
        context: AttentionContext,
    ) -> Float[Tensor, "batch pos d_model"]:
        """The next block's input, without hooks: `out`, or what a convolution makes of it and of this block's input.

        Args:
            x: This block's input.
            out: The result of `after_attention` for all rows.
            context: The context of the run.
        """
        return out if self.conv is None else self.conv.out(x, out, context.mask)

    def _compose(
        self, x: Tensor, attn_out: Tensor, ln1: _RowMap, mlp: _RowMap, ln2: _RowMap, edit: StageEdit
    ) -> Float[Tensor, "*row d_model"]:
        """Apply a block's parts in order; each is a module, which calls hooks, or a function, which does not."""
        mid = edit("resid_mid", x + edit("attn_out", attn_out))
        if self.is_pre_norm:
            return edit("resid_post", mid + edit("mlp_out", mlp(ln2(mid))))
        h = ln1(mid)
        return edit("normalized_resid_post", ln2(edit("resid_post", h + edit("mlp_out", mlp(h)))))

    def _hooked(self, site: str, activation: Tensor) -> Tensor:
        return getattr(self, f"hook_{site}")(activation)
