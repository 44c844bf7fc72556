"""Attribution patching: the effects of all swaps of a sweep, estimated from gradients in a few passes.

The estimates are first-order, but LayerNorms and softmaxes are not linear: compare the estimates with exact patching
(`attribution_agreement.agreement`) before relying on them.
"""

from collections.abc import Iterable, Sequence

import torch
import xarray as xr
from einops import einsum, rearrange
from jaxtyping import Bool, Float
from torch import Tensor
from transformer_lens.hook_points import HookPoint

from negprobe.base.arguments import checked
from negprobe.base.errors import PatchingError
from negprobe.base.progress import Progress
from negprobe.base.texts import quoted
from negprobe.models import HookedEncoder
from negprobe.patching.margins import with_margins
from negprobe.patching.objectives import (
    FLAT_AT_THE_BASE,
    Objective,
    Readout,
    default_objective,
    kl_divergence,
    readout_for,
)
from negprobe.patching.replacements import onto_base
from negprobe.patching.runs import (
    Direction,
    PairRuns,
    Run,
    cached,
    check_site,
    chosen_pairs,
    has_site,
    keep_in,
    pair_batches,
    pair_runs,
)
from negprobe.patching.sites import SITES, Site, site_for
from negprobe.patching.sweep import (
    By,
    Sweep,
    Values,
    checked_sweep,
    head_choices,
    sweep_dataset,
    token_choices,
)
from negprobe.statements import Swappable

# Floats per token and layer for the base, the source and the gradients of all vector sites, in multiples of d_model.
_WIDTHS = 60

# The embeddings' summands come before the activation that integrated gradients shift, and `result` would repeat `z`.
ATTRIBUTION_SITES = tuple(name for name in SITES if name not in ("embed", "pos_embed", "token_type_embed", "result"))
"""The sites at which swaps can be estimated."""

# Each step is a run of the model; the limit catches mistyped numbers.
_MAX_STEPS = 10_000

_EMBEDDINGS = SITES["full_embed"].hook


@checked
@with_margins
def attribute(
    model: HookedEncoder,
    pairs: Swappable | Sequence[Swappable],
    *,
    sites: Sequence[str] | None = None,
    by: By | Sequence[By],
    direction: Direction = "noising",
    objective: Objective | None = None,
    steps: int | None = None,
    progress: Progress | None = None,
) -> dict[str, xr.Dataset]:
    """Estimated objectives of swapping activations between the two runs of each pair, at many sites at once.

    The estimate of a swap of the entries C of an activation a is the first-order change of the objective m,

        patched ≈ m(base) + Σ_{i in C} (a_i(source) - a_i(base)) g_i,    g = ∂m/∂a at the base run:

    This is attribution patching (Nanda 2023, "Attribution Patching: Activation Patching At Industrial Scale"). It takes
    two forward passes and one backward pass for all sites, layers and parts. With `steps`, g is averaged over n runs in
    which the input embeddings e (`hook_full_embed`) are interpolated, at the aligned tokens, between the base's and the
    source's, as in EAP-IG for edges (Hanna, Pezzelle and Belinkov 2024, "Have Faith in Faithfulness"):

        g = 1/n Σ_{k=1..n} ∂m/∂a at e(base) + (k - 1/2)/n (e(source) - e(base)).

    The paper uses the points k/n. With midpoints, the cells of `full_embed` add up to the effect of swapping all
    aligned embeddings with an error of order 1/n² instead of 1/n. An objective with its minimum at the base, such as
    `kl_divergence`, has a gradient of zero there and needs `steps`.

    The cells are those of an exact sweep with how="swap". For the attention maps, these are aligned queries and keys,
    and rows are not scaled to sum to 1 again.

    Args:
        model: The model. Its parameters and hooks are left unchanged, and your own hooks act as usual.
        pairs: One pair, or several of any length.
        sites: Names in `ATTRIBUTION_SITES`; by default all that `by` applies to, except the two attention maps. For
            `result`, use `z`: the attributions are the same.
        by: The part that varies besides the layer, as in `patch_sweep`.
        direction: "noising" puts the counterfactual's activation into the original's run, "denoising" the reverse.
        objective: A differentiable objective; by default `default_objective(model, pairs)`.
        steps: The number of runs that the gradient is averaged over; None for the base run alone.
        progress: Called after each batch of pairs.

    Returns:
        A dataset per site, in the form of the exact sweep's: `patched` `[pair layer (head) (position|role)]`, the
        estimated objective (NaN where the pair does not have the part), and `base` and `source` `[pair]`. The attribute
        `estimate` is "attribution", or "integrated gradients" with the attribute `steps`.

    Raises:
        PatchingError: for a site, part or objective that the model or a pair does not have, for an objective that is
            not differentiable, for `kl_divergence` without steps, for fewer than one or more than 10,000 steps, and for
            an empty list of pairs.
        StatementError, InputError: for a statement that cannot be run.
    """
    chosen = chosen_pairs(pairs)
    if steps is not None and not 1 <= steps <= _MAX_STEPS:
        raise PatchingError(
            f"Gradients are averaged over at least one step, not {quoted(steps)}, and over {_MAX_STEPS} at most; None "
            "takes the base run's."
        )
    sweeps = [checked_sweep(name, by, "swap", None, False, direction) for name in _site_names(model, sites, by)]
    objective = objective or default_objective(model)
    if objective is kl_divergence and steps is None:
        raise PatchingError(
            FLAT_AT_THE_BASE + " Average gradients over several runs, such as steps=8, or use another objective."
        )
    parts: list[tuple[list[int], PairRuns, list[Values]]] = []
    done = 0
    for indices in pair_batches(model, chosen, _WIDTHS):
        # A tensor made in inference mode cannot be used for gradients.
        with torch.inference_mode(False), torch.no_grad():
            runs = pair_runs(model, [chosen[i] for i in indices], direction)
            parts.append((indices, runs, _attribute_batch(model, runs, sweeps, objective, steps)))
        done += len(indices)
        if progress is not None:
            progress("estimating the effects of patches", done, len(chosen))
    kind = {"estimate": "attribution"} if steps is None else {"estimate": "integrated gradients", "steps": steps}
    return {
        sweep.site.name: sweep_dataset(
            model, [(indices, runs, values[i]) for indices, runs, values in parts], sweep, direction, objective
        ).assign_attrs(kind)
        for i, sweep in enumerate(sweeps)
    }


def _site_names(model: HookedEncoder, sites: Sequence[str] | None, by: str | Sequence[str]) -> Sequence[str]:
    if sites is None:
        heads = "head" in by
        existing = [SITES[name] for name in ATTRIBUTION_SITES if has_site(model, SITES[name])]
        return [site.name for site in existing if not site.is_map and (site.has_heads or not heads)]
    names = [sites] if isinstance(sites, str) else list(sites)
    if not names:
        raise PatchingError(f"There are no sites to attribute to; choose from {', '.join(ATTRIBUTION_SITES)}.")
    for name in names:
        if site_for(name).name not in ATTRIBUTION_SITES:
            raise PatchingError(f"Swaps at {name!r} cannot be estimated; choose from {', '.join(ATTRIBUTION_SITES)}.")
        check_site(model, SITES[name])
    return names


def _attribute_batch(
    model: HookedEncoder, runs: PairRuns, sweeps: Sequence[Sweep], objective: Objective, steps: int | None
) -> list[Values]:
    """The estimated objective of all patches of a batch of pairs, for each site."""
    sites = {sweep.site.name: sweep.site for sweep in sweeps} | {"full_embed": SITES["full_embed"]}
    layers = range(model.cfg.n_layers)
    hooks = {
        name: [site.hook.format(layer=layer) for layer in layers if site.has_layers or layer == 0]
        for name, site in sites.items()
    }
    site_of = {hook: sites[name] for name, site_hooks in hooks.items() for hook in site_hooks}
    all_pairs = torch.arange(len(runs.pairs), device=model.device)
    final, source = cached(model, runs.source, list(site_of))
    source_values = readout_for(objective, model, runs, runs.source)(final, all_pairs)
    readout = readout_for(objective, model, runs, runs.base)
    base_values, kept, gradients = differentiate(model, runs.base, list(site_of), readout, None)
    change = {
        hook: aligned_only(onto_base(source[hook], runs.source_of, site) - kept[hook], runs.aligned, site)
        for hook, site in site_of.items()
    }
    points: Iterable[dict[str, Tensor]] = [gradients]
    if steps is not None:
        shifts = ((k + 0.5) / steps * change[_EMBEDDINGS] for k in range(steps))
        points = (differentiate(model, runs.base, list(site_of), readout, shift)[2] for shift in shifts)
    estimates = {hook: torch.zeros(()) for hook in site_of}
    for point in points:
        for hook, gradient in point.items():
            estimates[hook] = estimates[hook] + _by_token(gradient * change[hook], site_of[hook]) / (steps or 1)
    results = []
    for sweep in sweeps:
        tokens = token_choices(runs, sweep.token_part) & rearrange(runs.aligned, "pair pos -> pair 1 pos")
        by_token = torch.stack([estimates[hook] for hook in hooks[sweep.site.name]], dim=1)
        cells = einsum(
            by_token,
            tokens.to(by_token.dtype),
            head_choices(model, sweep).to(by_token.dtype),
            "pair layer pos head, pair token pos, part head -> pair layer part token",
        )
        patched = rearrange(base_values, "pair -> pair 1 1 1") + cells
        exists = rearrange(tokens.any(dim=2), "pair token -> pair 1 1 token")
        results.append(Values(torch.where(exists, patched, torch.nan), base_values, source_values))
    return results


def differentiate(
    model: HookedEncoder,
    run: Run,
    hooks: Sequence[str],
    readout: Readout,
    shift: Float[Tensor, "pair pos d_model"] | None,
) -> tuple[Float[Tensor, " pair"], dict[str, Tensor], dict[str, Tensor]]:
    """The objective of a run with shifted input embeddings, its activations, and the gradient for each of them.

    Raises:
        PatchingError: for an objective that is not differentiable.
    """
    kept: dict[str, Tensor] = {}

    def start(activation: Float[Tensor, "pair pos d_model"], hook: HookPoint) -> Float[Tensor, "pair pos d_model"]:
        # A leaf tensor: the graph starts here, so no gradients of parameters are computed.
        return (activation if shift is None else activation + shift).detach().requires_grad_()

    with torch.inference_mode(False), torch.enable_grad():
        final = model.run_with_hooks(
            run.tokens,
            token_type_ids=run.token_types,
            one_zero_attention_mask=run.mask,
            stop_at_layer=model.cfg.n_layers,
            fwd_hooks=[(_EMBEDDINGS, start), *((name, keep_in(kept, name)) for name in hooks)],
        )
        values = readout(final, torch.arange(len(run.tokens), device=model.device))
        if not values.requires_grad:
            raise PatchingError(
                "The objective has no gradient, because it is not a differentiable function of the hidden states. Use "
                "exact patching, or another objective."
            )
        found = torch.autograd.grad(values.sum(), [kept[name] for name in hooks], materialize_grads=True)
    gradients = dict(zip(hooks, found, strict=True))
    return values.detach(), {name: activation.detach() for name, activation in kept.items()}, gradients


def aligned_only(
    change: Float[Tensor, "pair ..."], aligned: Bool[Tensor, "pair pos"], site: Site
) -> Float[Tensor, "pair ..."]:
    """The change, with zeros at unaligned tokens (for a map, at unaligned queries and keys)."""
    if site.is_map:
        where = rearrange(aligned, "pair query -> pair 1 query 1") & rearrange(aligned, "pair key -> pair 1 1 key")
    else:
        where = aligned.reshape(*aligned.shape, *(1,) * (change.ndim - 2))
    return torch.where(where, change, 0)


def _by_token(terms: Float[Tensor, "pair ..."], site: Site) -> Float[Tensor, "pair pos head"]:
    """Sums over the entries of each vector; a site without heads gets one, and a map is summed over the keys."""
    sums = terms.sum(dim=-1)
    if site.is_map:
        return rearrange(sums, "pair head query -> pair query head")
    return sums if site.has_heads else sums[..., None]
