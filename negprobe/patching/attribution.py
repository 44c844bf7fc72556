"""Attribution patching: what every swap of a sweep would do, estimated from gradients in a handful of passes.

An estimate is first order, and LayerNorms and softmaxes bend: it stands beside exact patching (`agreement.agreement`),
never in its place.
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
from negprobe.patching.objectives import (
    FLAT_AT_THE_BASE,
    Objective,
    Readout,
    default_objective,
    kl_divergence,
    readout_for,
)
from negprobe.patching.replacements import onto_base
from negprobe.patching.runs import Direction, PairRuns, Run, cached, chosen_pairs, keep_in, pair_batches, pair_runs
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

# Base, source and gradients of every vector site.
_WIDTHS = 60

# The embeddings' summands come before what integrated gradients move, and a head's result says what its z says.
ATTRIBUTION_SITES = tuple(name for name in SITES if name not in ("embed", "pos_embed", "token_type_embed", "result"))
"""The sites whose swaps can be estimated."""

# Each is a run of the model: with more, a mistyped number would never end.
_MAX_STEPS = 10_000

_EMBEDDINGS = SITES["full_embed"].hook


@checked
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
    """Estimate what swapping activations between the two runs of each pair would do, at many sites at once.

    The estimate of a swap of the entries C of an activation a is the first-order change of the objective m,

        patched ≈ m(base) + Σ_{i in C} (a_i(source) - a_i(base)) g_i,    g = ∂m/∂a at the base run:

    attribution patching (Nanda 2023, "Attribution Patching: Activation Patching At Industrial Scale"), two forward
    passes and one backward pass for all sites, layers and parts. With `steps`, g is the average over n runs whose input
    embeddings e (`hook_full_embed`) are moved at the aligned tokens from the base's towards the source's, as EAP-IG has
    it for edges (Hanna, Pezzelle and Belinkov 2024, "Have Faith in Faithfulness"):

        g = 1/n Σ_{k=1..n} ∂m/∂a at e(base) + (k - 1/2)/n (e(source) - e(base)).

    The paper takes the points k/n; at the midpoints the cells of `full_embed` add up to what swapping all aligned
    embeddings does with an error of order 1/n² and not 1/n. An objective that is least at the base, as `kl_divergence`
    is, has no gradient there and needs `steps`.

    The cells are those of an exact sweep that swaps. Of the attention maps that means aligned queries and keys, without
    scaling the rows to sum 1 again.

    Args:
        model: The model. Its parameters, their flags and its hooks stay as they are; hooks of your own take part.
        pairs: One pair, or several of any length.
        sites: Names in `ATTRIBUTION_SITES`; by default all that `by` goes with but the two maps. `result` is not among
            them: its attribution is that of `z`.
        by: What varies besides the layer, as in `patch_sweep`.
        direction: "noising" puts the counterfactual's activation into the original's run, "denoising" the other way.
        objective: What is read from a run, differentiable; by default `default_objective(model)`.
        steps: How many runs the gradient is averaged over; None for the base run alone.
        progress: Called after each batch of pairs.

    Returns:
        For each site a dataset like its exact sweep's: `patched` `[pair layer (head) (position|role)]`, the estimated
        objective, NaN where the pair has no such part, with `base` and `source` `[pair]`. The attribute `estimate` is
        "attribution", or "integrated gradients" with the attribute `steps`.

    Raises:
        PatchingError: for a site, part or objective that the model or a pair does not have, an objective
            without a gradient, or with none at the base run and no steps, fewer than one step or more than 10,000, or
            no pairs at all.
        StatementError, InputError: for a statement that cannot be run.
    """
    chosen = chosen_pairs(pairs)
    if steps is not None and not 1 <= steps <= _MAX_STEPS:
        raise PatchingError(
            f"Gradients are averaged over at least one step, not {quoted(steps)}, and over {_MAX_STEPS} at most; None "
            "takes the base run's."
        )
    sweeps = [checked_sweep(name, by, "swap", None, False, direction) for name in _site_names(sites, by)]
    objective = objective or default_objective(model)
    if objective is kl_divergence and steps is None:
        raise PatchingError(FLAT_AT_THE_BASE + " Average gradients over runs with steps=8, or take another objective.")
    parts: list[tuple[list[int], PairRuns, list[Values]]] = []
    done = 0
    for indices in pair_batches(model, chosen, _WIDTHS):
        # A tensor made in inference mode could not take part in a gradient.
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


def _site_names(sites: Sequence[str] | None, by: str | Sequence[str]) -> Sequence[str]:
    if sites is None:
        heads = "head" in by
        return [name for name in ATTRIBUTION_SITES if not SITES[name].is_map and (SITES[name].has_heads or not heads)]
    names = [sites] if isinstance(sites, str) else list(sites)
    if not names:
        raise PatchingError(f"There are no sites to attribute to; choose from {', '.join(ATTRIBUTION_SITES)}.")
    for name in names:
        if site_for(name).name not in ATTRIBUTION_SITES:
            raise PatchingError(f"Swaps at {name!r} are not estimated; choose from {', '.join(ATTRIBUTION_SITES)}.")
    return names


def _attribute_batch(
    model: HookedEncoder, runs: PairRuns, sweeps: Sequence[Sweep], objective: Objective, steps: int | None
) -> list[Values]:
    """The estimated objective of every patch of a batch of pairs, for each of the sites."""
    sites = {sweep.site.name: sweep.site for sweep in sweeps} | {"full_embed": SITES["full_embed"]}
    layers = range(model.cfg.n_layers)
    hooks = {
        name: [site.hook.format(layer=layer) for layer in layers if site.has_layers or layer == 0]
        for name, site in sites.items()
    }
    site_of = {hook: sites[name] for name, of_site in hooks.items() for hook in of_site}
    every = torch.arange(len(runs.pairs), device=model.device)
    final, source = cached(model, runs.source, list(site_of))
    source_values = readout_for(objective, model, runs, runs.source)(final, every)
    read = readout_for(objective, model, runs, runs.base)
    base_values, kept, gradients = differentiate(model, runs.base, list(site_of), read, None)
    change = {
        hook: aligned_only(onto_base(source[hook], runs.source_of, site) - kept[hook], runs.aligned, site)
        for hook, site in site_of.items()
    }
    points: Iterable[dict[str, Tensor]] = [gradients]
    if steps is not None:
        shifts = ((k + 0.5) / steps * change[_EMBEDDINGS] for k in range(steps))
        points = (differentiate(model, runs.base, list(site_of), read, shift)[2] for shift in shifts)
    moved = {hook: torch.zeros(()) for hook in site_of}
    for point in points:
        for hook, gradient in point.items():
            moved[hook] = moved[hook] + _by_token(gradient * change[hook], site_of[hook]) / (steps or 1)
    results = []
    for sweep in sweeps:
        tokens = token_choices(runs, sweep.token_part) & rearrange(runs.aligned, "pair pos -> pair 1 pos")
        by_token = torch.stack([moved[hook] for hook in hooks[sweep.site.name]], dim=1)
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
    read: Readout,
    shift: Float[Tensor, "pair pos d_model"] | None,
) -> tuple[Float[Tensor, " pair"], dict[str, Tensor], dict[str, Tensor]]:
    """The objective of a run whose input embeddings are shifted, its activations, and the gradients by them.

    Raises:
        PatchingError: for an objective without a gradient.
    """
    kept: dict[str, Tensor] = {}

    def start(activation: Float[Tensor, "pair pos d_model"], hook: HookPoint) -> Float[Tensor, "pair pos d_model"]:
        # A leaf: the graph starts here, whether or not the parameters want gradients, and none of theirs is computed.
        return (activation if shift is None else activation + shift).detach().requires_grad_()

    with torch.inference_mode(False), torch.enable_grad():
        final = model.run_with_hooks(
            run.tokens,
            token_type_ids=run.token_types,
            one_zero_attention_mask=run.mask,
            stop_at_layer=model.cfg.n_layers,
            fwd_hooks=[(_EMBEDDINGS, start), *((name, keep_in(kept, name)) for name in hooks)],
        )
        values = read(final, torch.arange(len(run.tokens), device=model.device))
        if not values.requires_grad:
            raise PatchingError(
                "The objective has no gradient: its numbers do not come from the hidden states by differentiable "
                "steps alone. Patch exactly, or give another objective."
            )
        found = torch.autograd.grad(values.sum(), [kept[name] for name in hooks], materialize_grads=True)
    gradients = dict(zip(hooks, found, strict=True))
    return values.detach(), {name: activation.detach() for name, activation in kept.items()}, gradients


def aligned_only(
    change: Float[Tensor, "pair ..."], aligned: Bool[Tensor, "pair pos"], site: Site
) -> Float[Tensor, "pair ..."]:
    """The change with zeros where there is no aligned token (query and key, of a map)."""
    if site.is_map:
        where = rearrange(aligned, "pair query -> pair 1 query 1") & rearrange(aligned, "pair key -> pair 1 1 key")
    else:
        where = aligned.reshape(*aligned.shape, *(1,) * (change.ndim - 2))
    return torch.where(where, change, 0)


def _by_token(terms: Float[Tensor, "pair ..."], site: Site) -> Float[Tensor, "pair pos head"]:
    """Sums over the entries of each vector; one head where the site has none, and a map's queries are its tokens."""
    sums = terms.sum(dim=-1)
    if site.is_map:
        return rearrange(sums, "pair head query -> pair query head")
    return sums if site.has_heads else sums[..., None]
