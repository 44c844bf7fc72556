"""The MLP of a block, plain or gated, with a live hook point at every activation."""

from collections.abc import Callable
from typing import TypeAlias

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from transformer_lens.hook_points import HookPoint
from transformers.activations import ACT2FN

from negprobe.models.architecture import Architecture
from negprobe.models.stage_edit import StageEdit, unedited

_RowMap: TypeAlias = Callable[[Tensor], Tensor]


class MLP(nn.Module):
    """`act(x W_in + b_in) W_out + b_out`, or if gated `(act(x W_gate + b_gate) * (x W_in + b_in)) W_out + b_out`.

    As in TransformerLens, `hook_pre` is the activation function's input, so in a gated MLP the gate's, and
    `hook_pre_linear` is what multiplies its output. Shazeer 2020, "GLU Variants Improve Transformer", equation 6.
    """

    def __init__(self, architecture: Architecture) -> None:
        """Create `W_in [d_model, d_mlp]`, `W_out [d_mlp, d_model]` and, if gated, `W_gate [d_model, d_mlp]`."""
        super().__init__()
        d_model, d_mlp = architecture.d_model, architecture.d_mlp
        self.is_gated = architecture.gated_mlp
        if self.is_gated:
            self.W_gate = nn.Parameter(torch.empty(d_model, d_mlp))
            self.b_gate = nn.Parameter(torch.empty(d_mlp))
        self.W_in = nn.Parameter(torch.empty(d_model, d_mlp))
        self.b_in = nn.Parameter(torch.empty(d_mlp))
        self.W_out = nn.Parameter(torch.empty(d_mlp, d_model))
        self.b_out = nn.Parameter(torch.empty(d_model))
        self.act_fn = ACT2FN[architecture.act_fn]
        self.hook_pre = HookPoint()
        if self.is_gated:
            self.hook_pre_linear = HookPoint()
        self.hook_post = HookPoint()

    def forward(self, x: Float[Tensor, "batch pos d_model"]) -> Float[Tensor, "batch pos d_model"]:
        """The output of the MLP."""
        return self._compose(x, self.act_fn, self._hooked)

    @property
    def reading_weights(self) -> tuple[Float[Tensor, "d_model d_mlp"], ...]:
        """The matrices that read the MLP's input: that of the pre-activations and, if gated, `W_in`."""
        return (self.W_gate, self.W_in) if self.is_gated else (self.W_in,)

    def read(self, x: Float[Tensor, "*row d_model"]) -> Float[Tensor, "*row d_mlp"]:
        """The pre-activations: what the activation function is applied to."""
        W, b = (self.W_gate, self.b_gate) if self.is_gated else (self.W_in, self.b_in)
        return F.linear(x, W.T, b)

    def activated(self, pre: Float[Tensor, "*row d_mlp"]) -> Float[Tensor, "*row d_mlp"]:
        """The pre-activations after the activation function, without calling the hooks of its module."""
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
        post = act(edit("mlp_pre", self.read(x)))
        if self.is_gated:
            post = post * edit("mlp_pre_linear", F.linear(x, self.W_in.T, self.b_in))
        return self.write(edit("mlp_post", post))

    def _hooked(self, site: str, activation: Tensor) -> Tensor:
        return getattr(self, f"hook_{site.removeprefix('mlp_')}")(activation)
