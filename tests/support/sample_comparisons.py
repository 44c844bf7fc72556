"""Comparisons made of random numbers, in the shapes that a model gives them."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
import xarray as xr

from negprobe.attention import Comparison, StatementAttention
from negprobe.statements import Alignment, StatementPair, TokenizedStatement

LAYERS, HEADS, D_HEAD = 3, 4, 8
ORIGINAL = ("[CLS]", "the", "door", "is", "open", ".", "[SEP]")
CUE = 4


def tokenized(tokens: Sequence[str]) -> TokenizedStatement:
    n = len(tokens)
    special = tuple(token.startswith("[") for token in tokens)
    return TokenizedStatement(" ".join(tokens), tuple(tokens), tuple(range(n)), ((0, 0),) * n, special)


def attention_of(tokens: Sequence[str], seed: int = 0, layers: int = LAYERS, heads: int = HEADS) -> StatementAttention:
    random = torch.Generator().manual_seed(seed)
    n = len(tokens)
    raw = (2 * torch.randn(layers, heads, n, n, generator=random)).softmax(-1)
    value = torch.randn(layers, heads, n, D_HEAD, generator=random)
    z = raw @ value
    unit = z / z.norm(dim=-1, keepdim=True)
    norm = raw * value.norm(dim=-1)[..., None, :]
    return StatementAttention(tokenized(tokens), raw, unit @ unit.mT, norm, value, z)


def metrics_of(layers: int = LAYERS, heads: int = HEADS) -> xr.Dataset:
    random = np.random.default_rng(0)
    ranges = {
        "max_attention_diff": (0, 0.8),
        "mean_attention_diff": (0, 0.05),
        "attention_pattern_correlation": (0.5, 1),
        "value_output_correlation": (-0.2, 1),
    }
    return xr.Dataset(
        {name: (("layer", "head"), random.uniform(*ends, (layers, heads))) for name, ends in ranges.items()},
        coords={"layer": range(layers), "head": range(heads)},
    )


def comparison_of(
    original: Sequence[str], cue: str = "not", at: int = CUE, layers: int = LAYERS, heads: int = HEADS
) -> Comparison:
    """The comparison of a statement with the same statement that has `cue` put in at token `at`."""
    counterfactual = (*original[:at], cue, *original[at:])
    kept = tuple(i for i in range(len(counterfactual)) if i != at)
    return Comparison(
        pair=StatementPair(" ".join(original), " ".join(counterfactual), cue=cue),
        original=attention_of(original, 1, layers, heads),
        counterfactual=attention_of(counterfactual, 2, layers, heads),
        alignment=Alignment(tuple(range(len(original))), kept, (), (at,)),
        metrics=metrics_of(layers, heads),
        cue_positions=(at,),
    )


def with_raw(side: StatementAttention, raw: torch.Tensor) -> StatementAttention:
    """The same with other attention, and the norms that follow from it."""
    return replace(side, raw=raw, norm=raw * side.value.norm(dim=-1)[..., None, :])


def with_zeroing(comparison: Comparison) -> Comparison:
    """The same with a map of value zeroing on both sides."""
    sides = (comparison.original, comparison.counterfactual)
    original, counterfactual = (replace(side, zeroing=side.raw.mean(dim=1)) for side in sides)
    return replace(comparison, original=original, counterfactual=counterfactual)


def sweep_of(tokens: Sequence[str]) -> xr.Dataset:
    """What patching one token found in every layer, from -1 to 3 where 0 to 2 is the whole swing; NaN once."""
    patched = np.linspace(-1, 3, LAYERS * len(tokens)).reshape(1, LAYERS, len(tokens))
    patched[0, 0, 1] = np.nan
    return xr.Dataset(
        {
            "patched": (("pair", "layer", "position"), patched),
            "base": ("pair", np.array([-1.0])),
            "source": ("pair", np.array([1.0])),
        },
        coords={"pair": [0], "layer": np.arange(LAYERS), "token": ("position", list(tokens))},
        attrs={"site": "resid_pre", "direction": "denoising"},
    )
