"""One block of an encoder: attention and an MLP, with norms after or before them.

Parameters have TransformerLens's per-head layout. They are usually strided views of the weights they were converted
from, so that flattening the heads for one large matrix product copies nothing.

A block's arithmetic is written once, in functions that act on rows and take edits: `project`, `Attention.placed`,
`Attention.mix` (which uses `scores`, `bias`, `visible`, `pattern` and `weighted`), `Attention.out` and
`after_attention`. The hooked forward pass, the patching engine, paths, edges and the measures all call them.
"""

from collections.abc import Callable
from functools import partial
from typing import TypeAlias

from einops import repeat
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformer_lens.hook_points import HookPoint

from negprobe.base.errors import InputError
from negprobe.models.architecture import Architecture
from negprobe.models.attention import Attention, AttentionContext
from negprobe.models.hooked import is_hooked
from negprobe.models.mlp import MLP
from negprobe.models.norms import NoNorm, norm_of
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
        self.hook_resid_pre = HookPoint()
        self.hook_q_input = HookPoint()
        self.hook_k_input = HookPoint()
        self.hook_v_input = HookPoint()
        self.hook_attn_out = HookPoint()
        self.hook_resid_mid = HookPoint()
        self.hook_mlp_in = HookPoint()
        self.hook_mlp_out = HookPoint()
        self.hook_resid_post = HookPoint()
        if not self.is_pre_norm:
            self.hook_normalized_resid_post = HookPoint()

    def forward(
        self, x: Float[Tensor, "batch pos d_model"], context: AttentionContext
    ) -> Float[Tensor, "batch pos d_model"]:
        """The next block's input."""
        x = self.hook_resid_pre(x)
        inputs = self._inputs_by_head(x)
        # With an input for each head's queries, keys and values, nothing reads the common one.
        shared = self.ln1(x) if self.is_pre_norm and len(inputs) < 3 else x
        attn_out = self.attn(shared, context, inputs)
        return self._compose(x, attn_out, self.ln1, self.mlp, self.ln2, self._hooked)

    @property
    def submodules(self) -> dict[str, nn.Module]:
        """Asked for by the functions of TransformerLens 4 that add what heads write to the input of later blocks.

        Raises:
            InputError: if norms follow attention and the MLP, so that later blocks do not read what a head writes.
        """
        if self.is_pre_norm:
            return {}
        raise InputError(
            "In this model norms follow attention and the MLP, so what a head writes is not what later blocks read of "
            "it. Use negprobe.patching.path_patch for paths between heads, and attribute_edges for edges."
        )

    @property
    def hook_out_is_single_residual_stream(self) -> bool:
        """Asked for by the functions of TransformerLens 4 that read states through the unembedding.

        Raises:
            InputError: always, because an encoder's head is not linear.
        """
        raise InputError(
            "An encoder's logits are not a linear function of its last states, as a head with an activation function "
            "and a norm precedes the unembedding. To read a state as words, use model.head_output(state, mask) or, for "
            "some rows, model.vocabulary_logits(rows)."
        )

    def attn_in(self, x: Float[Tensor, "*row d_model"], edit: StageEdit = unedited) -> Float[Tensor, "*row d_model"]:
        """What attention reads, for rows of the block's input: these, or with norms before attention, LN1 of them.

        `edit` is applied to LN1's output, as "ln1_out".
        """
        return self._normalized("ln1", edit, x) if self.is_pre_norm else x

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
        ln1, ln2 = (partial(self._normalized, norm, edit) for norm in ("ln1", "ln2"))
        return self._compose(x, attn_out, ln1, mlp, ln2, edit)

    def _compose(
        self, x: Tensor, attn_out: Tensor, ln1: _RowMap, mlp: _RowMap, ln2: _RowMap, edit: StageEdit
    ) -> Float[Tensor, "*row d_model"]:
        """Apply a block's parts in order; each is a module, which calls hooks, or a function, which does not."""
        mid = edit("resid_mid", x + edit("attn_out", attn_out))
        mlp_in = edit("mlp_in", mid)
        if self.is_pre_norm:
            return edit("resid_post", mid + edit("mlp_out", mlp(ln2(mlp_in))))
        h = ln1(mlp_in)
        return edit("normalized_resid_post", ln2(edit("resid_post", h + edit("mlp_out", mlp(h)))))

    def _normalized(
        self, norm: str, edit: StageEdit, x: Float[Tensor, "*row d_model"]
    ) -> Float[Tensor, "*row d_model"]:
        module = getattr(self, norm)
        return x if isinstance(module, NoNorm) else edit(f"{norm}_out", module.normalized(x))

    def _inputs_by_head(
        self, x: Float[Tensor, "batch pos d_model"]
    ) -> dict[str, Float[Tensor, "batch pos head d_model"]]:
        """Each head's own input of its queries, keys or values, of those whose hook is in use."""
        points = {"q": self.hook_q_input, "k": self.hook_k_input, "v": self.hook_v_input}
        # A copy, so that a hook that writes in place changes this input alone.
        by_head = {
            site: point(
                repeat(x, "batch pos d_model -> batch pos head d_model", head=self.architecture.n_heads).clone()
            )
            for site, point in points.items()
            if is_hooked(point)
        }
        return {site: self.ln1(read) if self.is_pre_norm else read for site, read in by_head.items()}

    def _hooked(self, site: str, activation: Tensor) -> Tensor:
        point = getattr(self, f"hook_{site}")
        # `mlp_in` is a second name of `resid_mid`: a copy, so that a hook that writes in place changes it alone.
        return point(activation.clone() if site == "mlp_in" and is_hooked(point) else activation)
