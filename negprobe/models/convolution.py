"""The convolution after the first block of some DeBERTa models, with live hooks."""

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor, nn
from transformer_lens.hook_points import HookPoint
from transformers.activations import ACT2FN

from negprobe.models.architecture import Architecture
from negprobe.models.norms import LayerNorm


class Convolution(nn.Module):
    """`LN(out + act(conv(x)))`, with the input `x` and the output `out` of the first block.

    Padding counts as zeros. `hook_pre` is the activation function's input and `hook_post` its output. Used by
    deberta-v2-xlarge and deberta-v2-xxlarge.
    """

    def __init__(self, architecture: Architecture) -> None:
        """Create `W [d_model, d_model / groups, kernel]`, `b` and the LayerNorm."""
        super().__init__()
        width, self.groups = architecture.d_model, architecture.conv_groups
        self.W = nn.Parameter(torch.empty(width, width // self.groups, architecture.conv_kernel_size))
        self.b = nn.Parameter(torch.empty(width))
        self.act_fn = ACT2FN[architecture.conv_act]
        self.ln = LayerNorm(width, architecture.eps)
        self.hook_pre = HookPoint()
        self.hook_post = HookPoint()

    def forward(
        self,
        x: Float[Tensor, "batch pos d_model"],
        out: Float[Tensor, "batch pos d_model"],
        mask: Bool[Tensor, "batch 1 1 key"] | None,
    ) -> Float[Tensor, "batch pos d_model"]:
        """The second block's input."""
        return self.ln(out + self.hook_post(self.act_fn(self.hook_pre(self._read(x, mask)))))

    def out(
        self,
        x: Float[Tensor, "batch pos d_model"],
        out: Float[Tensor, "batch pos d_model"],
        mask: Bool[Tensor, "batch 1 1 key"] | None,
    ) -> Float[Tensor, "batch pos d_model"]:
        """The second block's input, without calling hooks."""
        post = type(self.act_fn).forward(self.act_fn, self._read(x, mask))
        return self.ln.normalized(out + post)

    def _read(
        self, x: Float[Tensor, "batch pos d_model"], mask: Bool[Tensor, "batch 1 1 key"] | None
    ) -> Float[Tensor, "batch pos d_model"]:
        if mask is not None:
            x = x.masked_fill(~rearrange(mask, "batch 1 1 key -> batch key 1"), 0)
        by_channel = rearrange(x, "batch pos d_model -> batch d_model pos")
        read = F.conv1d(by_channel, self.W, self.b, padding="same", groups=self.groups)
        return rearrange(read, "batch d_model pos -> batch pos d_model")
