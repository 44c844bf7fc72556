"""Blocks that share their parameters, while each has its own hook points."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from negprobe.base.errors import ModelError


def tie(blocks: Sequence[nn.Module] | nn.ModuleList, tied_to: Sequence[int]) -> None:
    """Give each block the parameters of the block that `tied_to` names for it, the same objects."""
    for block, first in zip(blocks, tied_to, strict=bool(tied_to)):
        for name, parameter in blocks[first].named_parameters():
            path, _, own = name.rpartition(".")
            block.get_submodule(path).register_parameter(own, parameter)


def complete_tied(weights: dict[str, Tensor], prefix: str, tied_to: Sequence[int]) -> None:
    """Add the weights that only other blocks with the same parameters have in a state dict.

    Args:
        weights: The state dict; the names of its block L's weights start with `prefix` and "L.".
        prefix: See `weights`.
        tied_to: The first block with the same weights, for each block.

    Raises:
        ModelError: if two blocks with the same parameters have different weights.
    """
    for first in sorted(set(tied_to)):
        shared: dict[str, Tensor] = {}
        starts = [f"{prefix}{layer}." for layer, other in enumerate(tied_to) if other == first]
        for start in starts:
            for name, weight in _under(weights, start):
                if not _same(shared.setdefault(name, weight), weight):
                    raise ModelError(
                        f"{start}{name} is not what other layers have, but the layers of this model share their "
                        "weights. Give all of them the same weights."
                    )
        for start in starts:
            for name, weight in shared.items():
                weights.setdefault(start + name, weight)


def _under(weights: dict[str, Tensor], start: str) -> list[tuple[str, Tensor]]:
    return [(name.removeprefix(start), weight) for name, weight in weights.items() if name.startswith(start)]


def _same(a: Tensor, b: Tensor) -> bool:
    # Tied weights have one storage, which is not compared with itself.
    return a.shape == b.shape and (a.data_ptr() == b.data_ptr() or torch.equal(a, b.to(a)))
