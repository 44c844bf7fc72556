"""Time and memory of the layer measures compared with naive implementations, on a small encoder with random weights.

The naive implementation of a norm builds the vector `A_hqk f_h(x_k)` of each head, query and key and takes norms of
their sums. The naive implementation of value zeroing runs the block again for each token, with its value set to zero by
a hook. Rollout is compared with a plain loop over texts and layers.

Times are medians over rounds in which both run back to back, and the speed-up is the median of naive / ours over the
rounds. Memory is the peak of the bytes in tensors that a run itself allocated, counted at each operation of a separate
run. The difference is the largest one between both in float64, relative to the largest value.
"""

import argparse
import gc
from collections.abc import Callable
from dataclasses import dataclass

import torch
from rich.console import Console
from rich.table import Table
from timing import paired
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakIdKeyDictionary
from transformers import BertConfig, BertModel

from negprobe import HookedEncoder
from negprobe.attention.layer_measures import (
    FrozenNorm,
    all_heads_norm,
    mixing_ratio,
    residual_norm,
    value_zeroing,
)
from negprobe.attention.rollout import globenc, rollout
from negprobe.models.block import Block
from negprobe.models.norms import LayerNorm


class LiveBytes(TorchDispatchMode):
    """Tracks the bytes of live storages that were allocated in this mode, and their peak."""

    def __init__(self) -> None:
        """Start with a peak of 0."""
        super().__init__()
        self.peak = 0
        self._alive: WeakIdKeyDictionary = WeakIdKeyDictionary()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        """Run the operation and count the storages it allocated."""
        kwargs = kwargs or {}
        given = {leaf.untyped_storage().data_ptr() for leaf in tree_leaves((args, kwargs)) if torch.is_tensor(leaf)}
        out = func(*args, **kwargs)
        for leaf in tree_leaves(out):
            if torch.is_tensor(leaf) and leaf.untyped_storage().data_ptr() not in given:
                self._alive[leaf.untyped_storage()] = leaf.untyped_storage().nbytes()
        self.peak = max(self.peak, sum(self._alive.values()))
        return out


@dataclass(frozen=True)
class Layer:
    """A block and its activations."""

    block: Block
    pattern: Tensor
    v: Tensor
    x: Tensor
    resid_mid: Tensor
    resid_post: Tensor
    output: Tensor

    def layer_norms(self, both: bool) -> list[FrozenNorm]:
        """The first LayerNorm, or both, frozen at their inputs in this layer."""
        first = FrozenNorm.at(self.block.ln1, self.resid_mid)
        return [first, FrozenNorm.at(self.block.ln2, self.resid_post)] if both else [first]


def naive_summed(layer: Layer) -> Tensor:
    """The vector of each text, query and key, summed over heads."""
    f = torch.einsum("bkhe,hem->bhkm", layer.v, layer.block.attn.W_O)
    return (layer.pattern[..., None] * f[:, :, None]).sum(dim=1)


def naive_parts(layer: Layer, both: bool) -> Tensor:
    """The vector of each query and key with the residual, through the first LayerNorm or both."""
    n = layer.x.shape[1]
    parts = naive_summed(layer) + torch.eye(n, dtype=layer.x.dtype)[None, :, :, None] * layer.x[:, :, None]
    stages: list[tuple[LayerNorm, Tensor]] = [(layer.block.ln1, layer.resid_mid), (layer.block.ln2, layer.resid_post)]
    for layer_norm, whole in stages[: 1 + both]:
        deviation = torch.sqrt(whole.var(dim=-1, correction=0) + layer_norm.eps)[:, :, None, None]
        parts = (parts - parts.mean(dim=-1, keepdim=True)) / deviation * layer_norm.w
    return parts


def naive_mixing_ratio(layer: Layer) -> Tensor:
    """The mixing ratio, from the vectors of all queries and keys."""
    parts = naive_parts(layer, both=False)
    own = parts.diagonal(dim1=1, dim2=2).mT
    context = (parts.sum(dim=2) - own).norm(dim=-1)
    return context / (context + own.norm(dim=-1))


def naive_zeroing(layer: Layer) -> Tensor:
    """Value zeroing, by running the block again for each token."""
    columns = []
    for token in range(layer.x.shape[1]):

        def zero(module: object, args: object, v: Tensor, token: int = token) -> Tensor:
            v = v.clone()
            v[:, token] = 0
            return v

        handle = layer.block.attn.hook_v.register_forward_hook(zero)
        columns.append(1 - torch.cosine_similarity(layer.block(layer.x, None), layer.output, dim=-1))
        handle.remove()
    return torch.stack(columns, dim=-1)


def naive_chain(maps: list[Tensor]) -> Tensor:
    """The products of the maps up to each layer, one text at a time."""
    texts = []
    for text in zip(*maps, strict=True):
        products = [text[0]]
        for layer in text[1:]:
            products.append(layer @ products[-1])
        texts.append(torch.stack(products))
    return torch.stack(texts)


def naive_rollout(layers: list[Layer]) -> Tensor:
    """Rollout: the chained maps of half the mean pattern and half the identity."""
    eye = torch.eye(layers[0].x.shape[1], dtype=layers[0].x.dtype)
    return naive_chain([0.5 * layer.pattern.mean(dim=1) + 0.5 * eye for layer in layers])


def naive_globenc(layers: list[Layer]) -> Tensor:
    """GlobEnc: the chained norms of the vectors of all queries and keys."""
    chained = naive_chain([naive_parts(layer, both=True).norm(dim=-1) for layer in layers])
    return chained / chained.sum(dim=-1, keepdim=True)


def our_residual(layer: Layer, both: bool) -> Tensor:
    """negprobe's `residual_norm`, which builds no vector per query and key."""
    attn = layer.block.attn
    return residual_norm(layer.pattern, layer.v, attn.W_O, layer.x, layer.layer_norms(both))


def random_layers(tokens: int, width: int, heads: int, depth: int, batch: int, dtype: torch.dtype) -> list[Layer]:
    """The layers of a random encoder on random tokens; equal in each call up to rounding."""
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=1000,
        hidden_size=width,
        num_attention_heads=heads,
        num_hidden_layers=depth,
        intermediate_size=4 * width,
        max_position_embeddings=tokens,
        # Large enough that attention and the MLP matter relative to the residual.
        initializer_range=0.1,
    )
    model = HookedEncoder.from_pretrained(BertModel(config).eval(), device="cpu", dtype=dtype)
    _, cache = model.run_with_cache(torch.randint(1, 1000, (batch, tokens)))
    names = ("pattern", "v", "resid_pre", "resid_mid", "resid_post", "normalized_resid_post")
    return [Layer(block, *(cache[name, index] for name in names)) for index, block in enumerate(model.blocks)]


def ways(layers: list[Layer]) -> dict[str, tuple[Callable[[], Tensor], Callable[[], Tensor]]]:
    """Our and the naive implementation of each measure, for the last layer or for all layers."""
    layer = layers[-1]
    W_O = layer.block.attn.W_O
    return {
        "all_heads_norm": (
            lambda: all_heads_norm(layer.pattern, layer.v, W_O),
            lambda: naive_summed(layer).norm(dim=-1),
        ),
        "residual": (
            lambda: our_residual(layer, both=False),
            lambda: naive_parts(layer, both=False).norm(dim=-1),
        ),
        "mixing_ratio": (
            lambda: mixing_ratio(layer.pattern, layer.v, W_O, layer.x, layer.layer_norms(both=False)),
            lambda: naive_mixing_ratio(layer),
        ),
        "zeroing": (
            lambda: value_zeroing(layer.pattern, layer.v, layer.resid_mid, layer.block),
            lambda: naive_zeroing(layer),
        ),
        f"rollout, {len(layers)} layers": (
            lambda: rollout(torch.stack([layer.pattern for layer in layers], dim=1)),
            lambda: naive_rollout(layers),
        ),
        f"globenc, {len(layers)} layers": (
            lambda: globenc(torch.stack([our_residual(layer, both=True) for layer in layers], dim=1)),
            lambda: naive_globenc(layers),
        ),
    }


def peak_megabytes(function: Callable[[], Tensor]) -> float:
    """The peak memory that a call allocates, in MB."""
    gc.collect()
    with LiveBytes() as live:
        function()
    return live.peak / 1e6


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--width", type=int, default=384)
    parser.add_argument("--heads", type=int, default=12)
    parser.add_argument("--layers", type=int, default=6, help="layers that rollout and GlobEnc are chained over")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=5.0, help="time spent on each row")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)

    size = (arguments.tokens, arguments.width, arguments.heads, arguments.layers, arguments.batch)
    table = Table(
        title=f"{arguments.batch} x {arguments.tokens} tokens, {arguments.heads} heads, width {arguments.width}, "
        f"CPU, float32, {arguments.threads} threads"
    )
    for column in ("measure", "ours (ms)", "naive (ms)", "speed-up", "ours (MB)", "naive (MB)", "difference"):
        table.add_column(column, justify="right")
    with torch.no_grad():
        exact = ways(random_layers(*size, dtype=torch.float64))
        for name, (ours, naive) in ways(random_layers(*size, dtype=torch.float32)).items():
            slow, fast, ratio = paired(naive, ours, arguments.seconds, warm_up=1, least=5)
            a, b = (implementation() for implementation in exact[name])
            table.add_row(
                name,
                f"{fast * 1e3:.2f}",
                f"{slow * 1e3:.2f}",
                f"{ratio:.1f}",
                f"{peak_megabytes(ours):.1f}",
                f"{peak_megabytes(naive):.1f}",
                f"{float((a - b).abs().max() / b.abs().max()):.0e}",
            )
    Console(width=100).print(table)


if __name__ == "__main__":
    main()
