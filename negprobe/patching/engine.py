"""Exact activation patching in batches: many patches in one forward pass that starts at the patched layer."""

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
import torch
import xarray as xr
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformer_lens.hook_points import HookPoint

from negprobe.errors import PatchingError
from negprobe.models import HookedEncoder
from negprobe.models.batching import length_batches
from negprobe.patching.objectives import Objective, Readout, default_objective
from negprobe.patching.runs import DIRECTIONS, Direction, PairRuns, Run, last_hidden_states, pair_runs, tokenized_run
from negprobe.patching.sites import By, Site, site_for
from negprobe.statements import ROLES, StatementPair

# Pairs prepared together; patched runs in one forward pass, and the most floats one layer's patterns of them may take.
_PAIRS_AT_ONCE = 32
_RUNS_AT_ONCE = 256
_PATTERN_BUDGET = 2**27

Progress = Callable[[int], None]
"""Told after each batch how many pairs are done."""


def patch(
    model: HookedEncoder,
    pairs: StatementPair | Sequence[StatementPair],
    site: str,
    *,
    by: By,
    direction: Direction = "noising",
    objective: Objective | None = None,
    progress: Progress | None = None,
) -> xr.Dataset:
    """Swap activations between the two runs of each pair, one layer and one part at a time.

    A patch replaces the base run's activation at one site and layer by the source run's, at aligned tokens only, and
    runs the rest of the model. `by="position"` swaps one token's activation, `by="role"` that of all tokens of a role,
    `by="head"` one head's output (`z`) at all tokens.

    Args:
        model: The model.
        pairs: One pair, or several of any length.
        site: "resid_pre", "attn_out", "mlp_out" or "z".
        by: What varies besides the layer.
        direction: "noising" puts the counterfactual's activation into the original's run, "denoising" the other way.
        objective: What is read from a run; by default `default_objective(model)`.
        progress: Told how many pairs are done.

    Returns:
        A dataset with `patched` `[pair layer position|role|head]`, the objective of each patched run (NaN where the
        pair has no such position or role, or it is not aligned), and `base` and `source` `[pair]`, those of the
        unpatched runs. `effects.effect` and `effects.mean_effect` normalise it. Coordinates name roles, and for a
        single pair the tokens; attributes name site, direction, objective and model.

    Raises:
        PatchingError: for a site, direction or objective that the model or a pair does not have, or no pairs at all.
        StatementError, InputError: for a statement that cannot be run.
    """
    chosen = [pairs] if isinstance(pairs, StatementPair) else list(pairs)
    if not chosen:
        raise PatchingError("There are no pairs to patch; give at least one.")
    where = site_for(site, by)
    if direction not in DIRECTIONS:
        raise PatchingError(f"The direction is 'noising' or 'denoising', not {direction!r}.")
    objective = objective or default_objective(model)
    lengths = [max(len(pair.original), len(pair.counterfactual)) for pair in chosen]
    parts: list[tuple[list[int], PairRuns, tuple[Tensor, Tensor, Tensor]]] = []
    done = 0
    for indices in length_batches(lengths, _PAIRS_AT_ONCE):
        with torch.no_grad():
            runs = pair_runs(model, [chosen[i] for i in indices], direction)
            parts.append((indices, runs, _patch_batch(model, runs, where, by, objective)))
        done += len(indices)
        if progress is not None:
            progress(done)
    return _dataset(model, parts, where, by, direction, objective)


@torch.no_grad()
def objective_values(
    model: HookedEncoder, pairs: Sequence[StatementPair], objective: Objective | None = None
) -> pd.DataFrame:
    """The objective of each pair's unpatched runs.

    Returns:
        A row per pair with the columns `original`, `counterfactual` and `control`, NaN where a pair has no control.

    Raises:
        PatchingError: for an objective that the model or a pair does not have.
        StatementError, InputError: for a statement that cannot be run.
    """
    objective = objective or default_objective(model)
    table = pd.DataFrame(np.nan, index=range(len(pairs)), columns=["original", "counterfactual", "control"])
    for indices in length_batches([len(pair.counterfactual) for pair in pairs], _PAIRS_AT_ONCE):
        runs = pair_runs(model, [pairs[i] for i in indices], "noising")
        # A missing control is run as the original, which keeps the rows together, and then struck out.
        controls = tokenized_run(model, [pair.control or pair.original for pair in runs.pairs])
        sides = {"original": runs.base, "counterfactual": runs.source, "control": controls}
        rows = torch.arange(len(indices), device=model.device)
        for side, run in sides.items():
            table.loc[indices, side] = (
                objective(model, runs, run)(last_hidden_states(model, run), rows).double().cpu().numpy()
            )
    table.loc[[pair.control is None for pair in pairs], "control"] = np.nan
    return table


def _patch_batch(
    model: HookedEncoder, runs: PairRuns, site: Site, by: By, objective: Objective
) -> tuple[Float[Tensor, "pair layer part"], Float[Tensor, " pair"], Float[Tensor, " pair"]]:
    """The objective of every patch of a batch of pairs, and of its unpatched base and source runs."""
    read_base, read_source = objective(model, runs, runs.base), objective(model, runs, runs.source)
    base_metric, starts, _ = _unpatched(model, runs.base, site, read_base)
    source_metric, _, activations = _unpatched(model, runs.source, site, read_source)
    choice = _choices(model, runs, by)
    exists = rearrange(choice, "pair part ... -> pair part (...)").any(dim=-1)
    pair, part = exists.nonzero(as_tuple=True)
    patched = torch.full(
        (len(runs.pairs), model.cfg.n_layers, choice.shape[1]), torch.nan, device=model.device, dtype=base_metric.dtype
    )
    # Which entries of [run pos] or [run pos head] a patch replaces, with an axis for the vector's entries.
    chosen = choice[pair, part][..., None]
    fit = max(1, _PATTERN_BUDGET // (model.cfg.n_heads * runs.base.tokens.shape[1] ** 2))
    for layer in range(model.cfg.n_layers):
        replacement = _onto_base(activations[layer], runs.source_of)
        for some in torch.arange(len(pair), device=model.device).split(min(_RUNS_AT_ONCE, fit)):
            rows = pair[some]
            values = _run_patched(
                model,
                starts[layer][rows],
                runs.base.mask[rows],
                layer,
                site,
                replacement[rows],
                chosen[some],
            )
            patched[rows, layer, part[some]] = read_base(values, rows)
    return patched, base_metric, source_metric


def _unpatched(
    model: HookedEncoder, run: Run, site: Site, read: Readout
) -> tuple[Float[Tensor, " pair"], list[Float[Tensor, "pair pos d_model"]], list[Float[Tensor, "pair pos ..."]]]:
    """The objective of an unpatched run, every block's input, and the site's activation in every layer."""
    layers = range(model.cfg.n_layers)
    starts = [f"blocks.{layer}.hook_resid_pre" for layer in layers]
    hooks = [site.hook.format(layer=layer) for layer in layers]
    resid, cache = model.run_with_cache(
        run.tokens,
        token_type_ids=run.token_types,
        one_zero_attention_mask=run.mask,
        stop_at_layer=model.cfg.n_layers,
        names_filter=[*starts, *hooks],
        return_cache_object=False,
    )
    assert isinstance(resid, Tensor)
    rows = torch.arange(len(run.statements), device=model.device)
    return read(resid, rows), [cache[name] for name in starts], [cache[name] for name in hooks]


def _choices(model: HookedEncoder, runs: PairRuns, by: By) -> Bool[Tensor, "pair part pos ..."]:
    """For each pair and part, the aligned base positions (and heads) that its patch replaces."""
    if by == "position":
        positions = torch.eye(runs.aligned.shape[1], dtype=torch.bool, device=model.device)
        return rearrange(runs.aligned, "pair pos -> pair 1 pos") & positions
    if by == "role":
        role = torch.arange(len(ROLES), device=model.device)
        is_role = rearrange(runs.role, "pair pos -> pair 1 pos") == rearrange(role, "part -> 1 part 1")
        return rearrange(runs.aligned, "pair pos -> pair 1 pos") & is_role
    heads = torch.eye(model.cfg.n_heads, dtype=torch.bool, device=model.device)
    return rearrange(runs.aligned, "pair pos -> pair 1 pos 1") & rearrange(heads, "part head -> 1 part 1 head")


def _onto_base(
    activation: Float[Tensor, "pair source_pos *vector"], source_of: Int[Tensor, "pair base_pos"]
) -> Float[Tensor, "pair base_pos *vector"]:
    """The source's activation at the base's positions; what stands at unmatched ones is never used."""
    index = source_of.reshape(*source_of.shape, *(1,) * (activation.ndim - 2))
    return torch.take_along_dim(activation, index, dim=1)


def _run_patched(
    model: HookedEncoder,
    start: Float[Tensor, "run pos d_model"],
    mask: Int[Tensor, "run pos"],
    layer: int,
    site: Site,
    replacement: Float[Tensor, "run pos ..."],
    chosen: Bool[Tensor, "run pos ..."],
) -> Float[Tensor, "run pos d_model"]:
    """The last hidden states of runs that start at `layer` with the chosen entries of the site replaced."""
    if site.has_heads and chosen.ndim == 3:
        chosen = rearrange(chosen, "run pos 1 -> run pos 1 1")

    def swap(activation: Float[Tensor, "run pos ..."], hook: HookPoint) -> Float[Tensor, "run pos ..."]:
        return torch.where(chosen, replacement, activation)

    return model.run_with_hooks(
        start,
        one_zero_attention_mask=mask,
        start_at_layer=layer,
        stop_at_layer=model.cfg.n_layers,
        fwd_hooks=[(site.hook.format(layer=layer), swap)],
    )


def _dataset(
    model: HookedEncoder,
    parts: list[tuple[list[int], PairRuns, tuple[Tensor, Tensor, Tensor]]],
    site: Site,
    by: By,
    direction: Direction,
    objective: Objective,
) -> xr.Dataset:
    n_pairs = sum(len(indices) for indices, _, _ in parts)
    width = max(patched.shape[2] for _, _, (patched, _, _) in parts)
    patched = np.full((n_pairs, model.cfg.n_layers, width), np.nan)
    base, source = np.full(n_pairs, np.nan), np.full(n_pairs, np.nan)
    for indices, _, (some_patched, some_base, some_source) in parts:
        patched[indices, :, : some_patched.shape[2]] = some_patched.double().cpu().numpy()
        base[indices] = some_base.double().cpu().numpy()
        source[indices] = some_source.double().cpu().numpy()
    coords: dict[str, object] = {"pair": np.arange(n_pairs), "layer": np.arange(model.cfg.n_layers)}
    coords[by] = list(ROLES) if by == "role" else np.arange(width)
    if by == "position" and n_pairs == 1:
        coords["token"] = (by, list(parts[0][1].base.statements[0].tokens))
    return xr.Dataset(
        {
            "patched": (("pair", "layer", by), patched),
            "base": ("pair", base),
            "source": ("pair", source),
        },
        coords=coords,
        attrs={
            "site": site.name,
            "direction": direction,
            "objective": getattr(objective, "__name__", str(objective)),
            "model": model.cfg.model_name,
        },
    )
