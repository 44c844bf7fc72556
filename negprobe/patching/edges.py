"""Edge attribution: what every component of the encoder tells every later one, estimated from one gradient.

Syed, Rager and Conmy 2023 ("Attribution Patching Outperforms Automated Circuit Discovery"), for blocks whose residual
stream passes through a LayerNorm after every addition.
"""

from collections.abc import Mapping, Sequence
from typing import Literal, cast

import numpy as np
import torch
import torch.nn.functional as F
import xarray as xr
from einops import einsum, rearrange
from jaxtyping import Float
from torch import Tensor

from negprobe.base.arguments import checked
from negprobe.base.errors import PatchingError
from negprobe.base.progress import Progress
from negprobe.models import HookedEncoder
from negprobe.models.layer_norm import FrozenLayerNorm, LayerNorm
from negprobe.models.layers import Block
from negprobe.patching.attribution import aligned_only, differentiate
from negprobe.patching.engine import has_hooks
from negprobe.patching.objectives import FLAT_AT_THE_BASE, Objective, default_objective, kl_divergence, readout_for
from negprobe.patching.replacements import onto_base
from negprobe.patching.runs import Direction, PairRuns, cached, chosen_pairs, pair_batches, pair_runs, run_names
from negprobe.patching.sites import SITES
from negprobe.patching.sweep import attributes
from negprobe.statements import Swappable

LayerNorms = Literal["differentiated", "frozen"]
"""How a change passes a LayerNorm: to first order, or as if the deviation it divides by stayed the base run's."""

# Base, source and gradients of what components read and write.
_WIDTHS = 30

# Floats of the changes of all components that are carried through the model together.
_CARRIED_BUDGET = 2**26

_Activations = Mapping[tuple[str, int], Tensor]
"""By site and layer."""


@checked
def attribute_edges(
    model: HookedEncoder,
    pairs: Swappable | Sequence[Swappable],
    *,
    direction: Direction = "noising",
    objective: Objective | None = None,
    layer_norm: LayerNorms = "differentiated",
    progress: Progress | None = None,
) -> xr.Dataset:
    """Estimate what patching the direct path between every two components would do.

    Components are the embeddings ("embed"), the heads ("2.1"), the MLPs ("mlp 2") and the last hidden states
    ("output"). An edge goes from a component u to what a later component v reads, for a head each of its queries, keys
    and values by itself ("2.1 q"). Its estimate is the first-order change of the objective m,

        patched ≈ m(base) + Σ_tokens ∂m/∂(input of v) · J_uv (u(source) - u(base)),

    with the gradient at the base run, the change at aligned tokens, and J_uv the way along the residual stream alone,
    from LayerNorm to LayerNorm, past all heads and MLPs between. At each LayerNorm of an input y with deviation σ,

        J Δ = γ/σ (Δ - mean(Δ) - ŷ mean(ŷ Δ)),    ŷ = (y - mean(y)) / σ;

    "frozen" leaves out the last term, that is the change of σ.

    With "differentiated" LayerNorms an edge is the derivative of the exact path with `mlps="frozen"` (`path_patch`),
    and the edges from a component add up to its own attribution (`attribute`: `z` by head, `mlp_out`, `full_embed`).

    Args:
        model: The model, without hooks of your own.
        pairs: One pair, or several of any length.
        direction: "noising" puts the counterfactual's activation into the original's run, "denoising" the other way.
        objective: What is read from a run, differentiable; by default `default_objective(model)`.
        layer_norm: "differentiated" or "frozen".
        progress: Called after each batch of pairs.

    Returns:
        A dataset with `patched` `[pair sender receiver]`, the estimated objective, NaN where there is no edge, and
        `base` and `source` `[pair]`. `effects.effect` and `effects.mean_effect` normalise it.

    Raises:
        PatchingError: for an objective that the model or a pair does not have, an objective without a
            gradient, a model with hooks or without post-LayerNorm blocks, or no pairs at all.
        StatementError, InputError: for a statement that cannot be run.
    """
    chosen = chosen_pairs(pairs)
    if has_hooks(model):
        raise PatchingError(
            "The model has hooks, which an edge would pass by; remove them (model.reset_hooks()) first."
        )
    if model.architecture.norms != "post":
        raise PatchingError(
            "Edges are followed from LayerNorm to LayerNorm of post-LayerNorm blocks, but this model's have "
            f"norms={model.architecture.norms!r}; use path_patch or attribute."
        )
    objective = objective or default_objective(model)
    if objective is kl_divergence:
        raise PatchingError(FLAT_AT_THE_BASE + " Take another objective.")
    senders, receivers = edge_names(model)
    patched = np.full((len(chosen), len(senders), len(receivers)), np.nan)
    base, source = np.full(len(chosen), np.nan), np.full(len(chosen), np.nan)
    done = 0
    for indices in pair_batches(model, chosen, _WIDTHS):
        # A tensor made in inference mode could not take part in a gradient.
        with torch.inference_mode(False), torch.no_grad():
            runs = pair_runs(model, [chosen[i] for i in indices], direction)
            values = _edge_batch(model, runs, objective, frozen=layer_norm == "frozen")
        patched[indices], base[indices], source[indices] = (value.cpu().double().numpy() for value in values)
        done += len(indices)
        if progress is not None:
            progress("estimating the effects of edges", done, len(chosen))
    return xr.Dataset(
        {"patched": (("pair", "sender", "receiver"), patched), "base": ("pair", base), "source": ("pair", source)},
        coords={
            "pair": np.arange(len(chosen)),
            "sender": senders,
            "receiver": receivers,
            **run_names(chosen, direction),
        },
        attrs={"site": "path", "how": "swap", "mlps": "frozen", "layer_norm": layer_norm, "estimate": "attribution"}
        | attributes(model, direction, objective),
    )


def edge_names(model: HookedEncoder) -> tuple[list[str], list[str]]:
    """The senders and the receivers of a model's edges, each in the order in which they are computed."""
    senders, receivers = ["embed"], []
    for layer in range(model.cfg.n_layers):
        heads = [f"{layer}.{head}" for head in range(model.cfg.n_heads)]
        senders += [*heads, f"mlp {layer}"]
        receivers += [*(f"{head} {site}" for head in heads for site in "qkv"), f"mlp {layer}"]
    return senders, [*receivers, "output"]


def _edge_batch(
    model: HookedEncoder, runs: PairRuns, objective: Objective, frozen: bool
) -> tuple[Float[Tensor, "pair sender receiver"], Float[Tensor, " pair"], Float[Tensor, " pair"]]:
    """The estimated objective of every edge of a batch of pairs, and that of its unpatched base and source runs."""
    layers = range(model.cfg.n_layers)
    written = [("full_embed", 0), *((site, layer) for site in ("z", "mlp_out") for layer in layers)]
    others = [(site, layer) for site in ("q", "k", "v", "mlp_pre", "resid_mid", "resid_post") for layer in layers]
    hooks = {
        at: SITES[at[0]].hook.format(layer=at[1]) for at in [*written, *others, ("normalized_resid_post", layers[-1])]
    }
    every = torch.arange(len(runs.pairs), device=model.device)
    final, there = cached(model, runs.source, [hooks[at] for at in written])
    source_values = readout_for(objective, model, runs, runs.source)(final, every)
    read = readout_for(objective, model, runs, runs.base)
    base_values, here, gradient = differentiate(model, runs.base, list(hooks.values()), read, None)
    change = {}
    for at in written:
        site, hook = SITES[at[0]], hooks[at]
        change[at] = aligned_only(onto_base(there[hook], runs.source_of, site) - here[hook], runs.aligned, site)
    n_senders, n_pos = len(edge_names(model)[0]), runs.aligned.shape[1]
    moved = [
        _edges(
            model,
            {at: tensor[some] for at, tensor in change.items()},
            {at: here[hook][some] for at, hook in hooks.items()},
            {at: gradient[hook][some] for at, hook in hooks.items()},
            frozen,
        )
        for some in every.split(max(1, _CARRIED_BUDGET // (n_senders * n_pos * model.cfg.d_model)))
    ]
    return rearrange(base_values, "pair -> pair 1 1") + torch.cat(moved), base_values, source_values


def _edges(
    model: HookedEncoder, change: _Activations, here: _Activations, gradient: _Activations, frozen: bool
) -> Float[Tensor, "pair sender receiver"]:
    """The change of the objective along every edge, NaN where there is none.

    Args:
        model: The model.
        change: What the embeddings, heads and MLPs write in the source minus what they write in the base.
        here: The base's activations.
        gradient: The objective's gradient by them.
        frozen: Whether LayerNorms divide by the base's deviations.
    """
    n_senders = len(edge_names(model)[0])
    columns: list[Float[Tensor, "pair sender receiver"]] = []

    def read(carried: Float[Tensor, "pair pos sender d_model"], by: Float[Tensor, "pair pos receiver d_model"]) -> None:
        moved = einsum(carried, by, "pair pos sender d_model, pair pos receiver d_model -> pair sender receiver")
        # The components that come later send nothing.
        columns.append(F.pad(moved, (0, 0, 0, n_senders - moved.shape[1]), value=torch.nan))

    carried = change["full_embed", 0][:, :, None]
    for layer in range(model.cfg.n_layers):
        block = cast(Block, model.blocks[layer])
        attn, mlp = block.attn, block.mlp
        by_inputs = [
            einsum(gradient[site, layer], W, "pair pos head d_head, head d_model d_head -> pair pos head d_model")
            for site, W in (("q", attn.W_Q), ("k", attn.W_K), ("v", attn.W_V))
        ]
        read(carried, rearrange(by_inputs, "input pair pos head d_model -> pair pos (head input) d_model"))
        carried = torch.cat([carried, attn.result(change["z", layer])], dim=2)
        carried = _past(block.ln1, here["resid_mid", layer], carried, frozen)
        read(carried, (gradient["mlp_pre", layer] @ mlp.W_in.T)[:, :, None])
        carried = torch.cat([carried, change["mlp_out", layer][:, :, None]], dim=2)
        carried = _past(block.ln2, here["resid_post", layer], carried, frozen)
    read(carried, gradient["normalized_resid_post", model.cfg.n_layers - 1][:, :, None])
    return torch.cat(columns, dim=2)


def _past(
    layer_norm: LayerNorm,
    y: Float[Tensor, "pair pos d_model"],
    change: Float[Tensor, "pair pos sender d_model"],
    frozen: bool,
) -> Float[Tensor, "pair pos sender d_model"]:
    """What a LayerNorm at the input `y` makes of changes of it: `J Δ` of `attribute_edges`."""
    if frozen:
        return FrozenLayerNorm.at(layer_norm, y[:, :, None]).carried(change)
    return layer_norm.jacobian(y, change)
