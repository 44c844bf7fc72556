"""What each token contributes to each other in every layer of a model, by any of several measures."""

from collections.abc import Sequence
from typing import cast

import torch
from jaxtyping import Float, Int
from torch import Tensor

from negprobe.attention.layer_measures import all_heads_norm, residual_norm, value_zeroing
from negprobe.attention.rollout import globenc, rollout
from negprobe.base.arguments import checked
from negprobe.base.errors import InputError
from negprobe.models import HookedEncoder, HookedEncoderConfig
from negprobe.models.architecture import Architecture
from negprobe.models.block import Block
from negprobe.models.hooked import is_hooked
from negprobe.models.norms import FrozenNorm, Norm

# What each measure reads of a block.
_ACTIVATIONS = {
    "all_heads_norm": ("attn.hook_pattern", "attn.hook_v"),
    "residual": ("attn.hook_pattern", "attn.hook_v", "hook_resid_pre", "hook_resid_mid"),
    "zeroing": ("attn.hook_pattern", "attn.hook_v", "hook_resid_mid"),
    "rollout": ("attn.hook_pattern",),
    "globenc": ("attn.hook_pattern", "attn.hook_v", "hook_resid_pre", "hook_resid_mid", "hook_resid_post"),
}
CONTRIBUTIONS = tuple(_ACTIVATIONS)
"""The measures `contributions` knows."""

# What a block's output is computed from, with its weights alone.
_OUTPUT_FROM = ("hook_resid_pre", "attn.hook_pattern", "attn.hook_v")

# Those of a block's output, which a convolution changes.
_OF_WHOLE_BLOCKS = ("zeroing", "rollout", "globenc")

# Those in which a token's whole value vector counts, or none of it.
_BIAS_STAYS = ("zeroing", "rollout")


def contribution_work(cfg: HookedEncoderConfig, n_tokens: int) -> int:
    """Floating-point operations that all `CONTRIBUTIONS` together take for a statement of `n_tokens`.

    Nearly all are value zeroing's, which runs the MLP, or where `Architecture.linear_norm_to_mlp` its second half, for
    every two tokens of every layer.
    """
    architecture = Architecture.of(cfg)
    maps = 1 if architecture.linear_norm_to_mlp else 2 + architecture.gated_mlp
    return n_tokens**2 * cfg.n_layers * 2 * maps * architecture.d_mlp * cfg.d_model


def is_defined(model: HookedEncoder, measure: str) -> bool:
    """Whether a measure in `CONTRIBUTIONS` is defined for the model's architecture."""
    return measure not in _OF_WHOLE_BLOCKS or not model.architecture.convolves


@checked
@torch.no_grad()
def contributions(
    model: HookedEncoder,
    tokens: Int[Tensor, "batch pos"],
    mask: Int[Tensor, "batch pos"] | None,
    measure: str,
    *,
    token_type_ids: Int[Tensor, "batch pos"] | None = None,
    include_bias: bool = True,
) -> Float[Tensor, "batch layer query key"]:
    """Run the model once and measure what token `key` contributes to token `query`, in every layer.

    Args:
        model: The encoder.
        tokens: Token ids.
        mask: 1 for tokens, 0 for padding; by default every `pad_token_id` is padding.
        measure: One of `CONTRIBUTIONS`:
            "all_heads_norm", what attention writes (`layer_measures.all_heads_norm`);
            "residual", with the residual and, in a post-norm block, the first norm (`layer_measures.residual_norm`);
            "zeroing", the effect on the block's output (`layer_measures.value_zeroing`);
            "rollout" and "globenc", from the input tokens up to each layer (`rollout.rollout`, `rollout.globenc`).
        token_type_ids: Segment of each token; by default 0.
        include_bias: Whether the values' bias counts.

    Returns:
        Maps on the model's device; rows and columns of padding are exactly 0.

    Raises:
        InputError: for an unknown measure, one that is not defined for the model, tokens the model cannot take,
            `include_bias=False` with a measure that has no bias to leave out, or a hook that changes how a block's
            output follows from pattern and values, which all measures but "rollout" compute from the weights.
    """
    if measure not in CONTRIBUTIONS:
        raise InputError(f"There is no measure {measure!r}; choose one of {', '.join(CONTRIBUTIONS)}.")
    if not include_bias and measure in _BIAS_STAYS:
        raise InputError(f"The measure {measure!r} has no value bias to leave out; use include_bias=True.")
    if not is_defined(model, measure):
        raise InputError(
            f"The measure {measure!r} is not defined for this model, because a convolution after its first block mixes "
            "neighbouring tokens without attention; use 'all_heads_norm' or 'residual'."
        )
    if mask is None:
        mask = (tokens != model.cfg.pad_token_id).long()
    passes_hooks_by = measure != "rollout" and is_hooked(model.blocks)
    names = (*_ACTIVATIONS[measure], *(_OUTPUT_FROM if passes_hooks_by else ()))
    final, cache = model.run_with_cache(
        tokens,
        token_type_ids=token_type_ids,
        one_zero_attention_mask=mask,
        stop_at_layer=model.cfg.n_layers,
        names_filter=lambda name: name.endswith(names),
        return_cache_object=False,
    )
    mask = mask.to(model.device)
    if passes_hooks_by:
        assert isinstance(final, Tensor)
        _check_outputs(model, measure, cache, final, mask)
    activations = [
        {name: cache[f"blocks.{layer}.{name}"] for name in _ACTIVATIONS[measure]} for layer in range(model.cfg.n_layers)
    ]
    if measure == "rollout":
        return rollout(torch.stack([layer["attn.hook_pattern"] for layer in activations], dim=1), mask)
    blocks = zip(cast(Sequence[Block], model.blocks), activations, strict=True)
    maps = torch.stack([_layer_map(measure, block, layer, mask, include_bias) for block, layer in blocks], dim=1)
    return globenc(maps) if measure == "globenc" else maps


def _check_outputs(
    model: HookedEncoder,
    measure: str,
    cache: dict[str, Tensor],
    final: Float[Tensor, "batch pos d_model"],
    mask: Int[Tensor, "batch pos"],
) -> None:
    """Refuse a run in which a block's output does not follow from its weights, input, pattern and values."""
    context = model.attention_context(mask)
    outputs = [*(cache[f"blocks.{layer}.hook_resid_pre"] for layer in range(1, model.cfg.n_layers)), final]
    for layer, (block, output) in enumerate(zip(cast(Sequence[Block], model.blocks), outputs, strict=True)):
        x, pattern, v = (cache[f"blocks.{layer}.{name}"] for name in _OUTPUT_FROM)
        z = block.attn.weighted(pattern, v)
        by_weights = block.convolved(x, block.after_attention(x, block.attn.out(z)), context)
        changed = float((by_weights - output)[mask.bool()].abs().max())
        if not changed <= torch.finfo(output.dtype).eps ** 0.5 * float(output.abs().max()):
            raise InputError(
                f"A hook changes how the output of block {layer} follows from its attention pattern and values, which "
                f"{measure!r} computes from the weights. Remove the hook, or use 'rollout'."
            )


def _layer_map(
    measure: str, block: Block, activations: dict[str, Tensor], mask: Int[Tensor, "batch pos"], include_bias: bool
) -> Float[Tensor, "batch query key"]:
    pattern, v = activations["attn.hook_pattern"], activations["attn.hook_v"]
    if measure == "zeroing":
        return value_zeroing(pattern, v, activations["hook_resid_mid"], block, mask=mask)
    W_O, b_V = block.attn.W_O, block.attn.b_V
    if measure == "all_heads_norm":
        return all_heads_norm(pattern, v, W_O, b_V, mask=mask, include_bias=include_bias)
    # The norms of a pre-norm block do not act on the sums.
    norms = {} if block.is_pre_norm else {"hook_resid_mid": block.ln1, "hook_resid_post": block.ln2}
    layer_norms = [FrozenNorm.at(cast(Norm, norm), activations[at]) for at, norm in norms.items() if at in activations]
    x = activations["hook_resid_pre"]
    return residual_norm(pattern, v, W_O, x, layer_norms, b_V, mask=mask, include_bias=include_bias)
