"""Edge attribution: direct effects between all pairs of components, estimated from one gradient.

Source: Syed, Rager and Conmy 2023 ("Attribution Patching Outperforms Automated Circuit Discovery"), for blocks with
norms after or before attention and the MLP.
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
from negprobe.models.block import Block
from negprobe.models.norms import AnyNorm, FrozenNorm, Norm
from negprobe.patching.attribution import aligned_only, differentiate
from negprobe.patching.engine import has_hooks
from negprobe.patching.margins import with_margins
from negprobe.patching.objectives import FLAT_AT_THE_BASE, Objective, default_objective, kl_divergence, readout_for
from negprobe.patching.replacements import onto_base
from negprobe.patching.runs import (
    Direction,
    PairRuns,
    cached,
    check_no_convolution,
    chosen_pairs,
    has_site,
    pair_batches,
    pair_coordinates,
    pair_runs,
)
from negprobe.patching.sites import SITES
from negprobe.patching.sweep import attributes
from negprobe.statements import Swappable

LayerNorms = Literal["differentiated", "frozen"]
"""The derivative of a LayerNorm: in full, or with its standard deviation held at the base run's."""

# Floats per token and layer for the inputs and outputs of components, and their gradients, in multiples of d_model.
_WIDTHS = 30

# Limit on the floats of the components' changes that are propagated together.
_CARRIED_BUDGET = 2**26

# The sites at which an MLP reads its input, in the order of `MLP.reading_weights`.
_MLP_READS = ("mlp_pre", "mlp_pre_linear")

_Activations = Mapping[tuple[str, int], Tensor]
"""Activations by site and layer."""


@checked
@with_margins
def attribute_edges(
    model: HookedEncoder,
    pairs: Swappable | Sequence[Swappable],
    *,
    direction: Direction = "noising",
    objective: Objective | None = None,
    layer_norm: LayerNorms = "differentiated",
    progress: Progress | None = None,
) -> xr.Dataset:
    """Estimated objectives of patching the direct path between each two components.

    Components are the embeddings ("embed"), the heads ("2.1"), the MLPs ("mlp 2") and the last hidden states
    ("output"). An edge goes from a component u to an input of a later component v; a head has three inputs, its
    queries, keys and values ("2.1 q"). Its estimate is the first-order change of the objective m,

        patched ≈ m(base) + Σ_tokens ∂m/∂(input of v) · J_uv (u(source) - u(base)),

    with the gradient at the base run and the change at aligned tokens. J_uv is the Jacobian of the residual stream
    between u and v, with the outputs of all heads and MLPs between them held fixed: a product of the Jacobians of the
    LayerNorms. For a LayerNorm with input y of standard deviation σ,

        J Δ = γ/σ (Δ - mean(Δ) - ŷ mean(ŷ Δ)),    ŷ = (y - mean(y)) / σ;

    "frozen" omits the last term, which is the change of σ.

    In a pre-norm model J_uv is the Jacobian of the one norm that v reads through, and for the output it is 1: the last
    norm belongs to the objective and is always differentiated in full.

    With "differentiated", an edge is the derivative of the exact path with `mlps="frozen"` (`path_patch`), and the
    edges from a component add up to its attribution (`attribute` at `z` by head, `mlp_out` or `full_embed`).

    Args:
        model: The model, without hooks.
        pairs: One pair, or several of any length.
        direction: "noising" puts the counterfactual's activation into the original's run, "denoising" the reverse.
        objective: A differentiable objective; by default `default_objective(model, pairs)`.
        layer_norm: "differentiated" or "frozen".
        progress: Called after each batch of pairs.

    Returns:
        A dataset with `patched` `[pair sender receiver]`, the estimated objective (NaN where there is no edge), and
        `base` and `source` `[pair]`. `effects.effect` and `effects.mean_effect` normalise it.

    Raises:
        PatchingError: for an objective that the model or a pair does not have or that is not differentiable, for
            `kl_divergence`, for a model with hooks or a convolution, and for an empty list of pairs.
        StatementError, InputError: for a statement that cannot be run.
    """
    chosen = chosen_pairs(pairs)
    if has_hooks(model):
        raise PatchingError(
            "The model has hooks, which edge attribution would bypass; remove them first with model.reset_hooks()."
        )
    check_no_convolution(model, "Edges cannot be attributed")
    objective = objective or default_objective(model)
    if objective is kl_divergence:
        raise PatchingError(FLAT_AT_THE_BASE + " Use another objective.")
    senders, receivers = edge_names(model)
    patched = np.full((len(chosen), len(senders), len(receivers)), np.nan)
    base, source = np.full(len(chosen), np.nan), np.full(len(chosen), np.nan)
    done = 0
    for indices in pair_batches(model, chosen, _WIDTHS):
        # A tensor made in inference mode cannot be used for gradients.
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
            **pair_coordinates(chosen, direction),
        },
        attrs={"site": "path", "how": "swap", "mlps": "frozen", "layer_norm": layer_norm, "estimate": "attribution"}
        | attributes(model, direction, objective),
    )


def edge_names(model: HookedEncoder) -> tuple[list[str], list[str]]:
    """The names of the senders and receivers of a model's edges, in the order of computation."""
    senders, receivers = ["embed"], []
    for layer in range(model.cfg.n_layers):
        heads = [f"{layer}.{head}" for head in range(model.cfg.n_heads)]
        senders += [*heads, f"mlp {layer}"]
        receivers += [*(f"{head} {site}" for head in heads for site in "qkv"), f"mlp {layer}"]
    return senders, [*receivers, "output"]


def _edge_batch(
    model: HookedEncoder, runs: PairRuns, objective: Objective, frozen: bool
) -> tuple[Float[Tensor, "pair sender receiver"], Float[Tensor, " pair"], Float[Tensor, " pair"]]:
    """The estimated objective of all edges of a batch of pairs, and the objective of its unpatched runs."""
    layers = range(model.cfg.n_layers)
    written = [("full_embed", 0), *((site, layer) for site in ("z", "mlp_out") for layer in layers)]
    # What receivers read, the inputs of the norms, and the last block's output.
    post_norm = model.architecture.norms == "post"
    norm_inputs = ("resid_mid", "resid_post") if post_norm else ("resid_pre", "resid_mid")
    others = [(site, layer) for site in ("q", "k", "v", *_MLP_READS, *norm_inputs) for layer in layers]
    output = ("normalized_resid_post" if post_norm else "resid_post", layers[-1])
    hooks = {
        at: SITES[at[0]].hook.format(layer=at[1])
        for at in dict.fromkeys([*written, *others, output])
        if has_site(model, SITES[at[0]])
    }
    all_pairs = torch.arange(len(runs.pairs), device=model.device)
    final, source = cached(model, runs.source, [hooks[at] for at in written])
    source_values = readout_for(objective, model, runs, runs.source)(final, all_pairs)
    readout = readout_for(objective, model, runs, runs.base)
    base_values, base, gradient = differentiate(model, runs.base, list(hooks.values()), readout, None)
    change = {}
    for at in written:
        site, hook = SITES[at[0]], hooks[at]
        change[at] = aligned_only(onto_base(source[hook], runs.source_of, site) - base[hook], runs.aligned, site)
    n_senders, n_pos = len(edge_names(model)[0]), runs.aligned.shape[1]
    effects = [
        _edges(
            model,
            {at: tensor[chunk] for at, tensor in change.items()},
            {at: base[hook][chunk] for at, hook in hooks.items()},
            {at: gradient[hook][chunk] for at, hook in hooks.items()},
            frozen,
        )
        for chunk in all_pairs.split(max(1, _CARRIED_BUDGET // (n_senders * n_pos * model.cfg.d_model)))
    ]
    return rearrange(base_values, "pair -> pair 1 1") + torch.cat(effects), base_values, source_values


def _edges(
    model: HookedEncoder, change: _Activations, base: _Activations, gradient: _Activations, frozen: bool
) -> Float[Tensor, "pair sender receiver"]:
    """The estimated change of the objective along each edge; NaN where there is no edge.

    Args:
        model: The model.
        change: The outputs of the embeddings, heads and MLPs in the source run minus those in the base run.
        base: The activations of the base run.
        gradient: The gradient of the objective for these activations.
        frozen: Whether the standard deviations of LayerNorms are held at the base run's.
    """
    n_senders = len(edge_names(model)[0])
    columns: list[Float[Tensor, "pair sender receiver"]] = []

    def add_edges(
        carried: Float[Tensor, "pair pos sender d_model"], gradients: Float[Tensor, "pair pos receiver d_model"]
    ) -> None:
        effects = einsum(
            carried, gradients, "pair pos sender d_model, pair pos receiver d_model -> pair sender receiver"
        )
        # Later components have no edge to these receivers.
        columns.append(F.pad(effects, (0, 0, 0, n_senders - effects.shape[1]), value=torch.nan))

    carried = change["full_embed", 0][:, :, None]
    for layer in range(model.cfg.n_layers):
        block = cast(Block, model.blocks[layer])
        attn, mlp, is_pre = block.attn, block.mlp, block.is_pre_norm
        input_gradients = [
            einsum(gradient[site, layer], W, "pair pos head d_head, head d_model d_head -> pair pos head d_model")
            for site, W in (("q", attn.W_Q), ("k", attn.W_K), ("v", attn.W_V))
        ]
        read = _through_norm(block.ln1, base["resid_pre", layer], carried, frozen) if is_pre else carried
        add_edges(read, rearrange(input_gradients, "input pair pos head d_model -> pair pos (head input) d_model"))
        carried = torch.cat([carried, attn.result(change["z", layer])], dim=2)
        mid = base["resid_mid", layer]
        if is_pre:
            read = _through_norm(block.ln2, mid, carried, frozen)
        else:
            read = carried = _through_norm(block.ln1, mid, carried, frozen)
        reads = zip(_MLP_READS, mlp.reading_weights, strict=False)
        mlp_gradients = torch.stack([gradient[site, layer] @ W.T for site, W in reads])
        add_edges(read, mlp_gradients.sum(dim=0)[:, :, None])
        carried = torch.cat([carried, change["mlp_out", layer][:, :, None]], dim=2)
        if not is_pre:
            carried = _through_norm(block.ln2, base["resid_post", layer], carried, frozen)
    output = "resid_post" if model.architecture.norms == "pre" else "normalized_resid_post"
    add_edges(carried, gradient[output, model.cfg.n_layers - 1][:, :, None])
    return torch.cat(columns, dim=2)


def _through_norm(
    norm: AnyNorm,
    y: Float[Tensor, "pair pos d_model"],
    change: Float[Tensor, "pair pos sender d_model"],
    frozen: bool,
) -> Float[Tensor, "pair pos sender d_model"]:
    """The first-order change of a norm's output for changes of its input `y`: `J Δ` in `attribute_edges`."""
    if frozen and isinstance(norm, Norm):
        return FrozenNorm.at(norm, y[:, :, None]).carried(change)
    return norm.jacobian(y, change)
