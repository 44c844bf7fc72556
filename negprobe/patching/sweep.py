"""Sweeps: one patch for each layer and each head, position or role, on one or many pairs."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, cast, get_args

import numpy as np
import torch
import xarray as xr
from einops import einsum, rearrange
from jaxtyping import Bool, Float
from torch import Tensor

from negprobe.base.arguments import checked
from negprobe.base.errors import PatchingError
from negprobe.base.progress import Progress
from negprobe.models import HookedEncoder
from negprobe.patching.edits import Edit
from negprobe.patching.engine import base_runs, chunks, run_edited
from negprobe.patching.margins import with_margins
from negprobe.patching.objectives import Objective, default_objective, readout_for
from negprobe.patching.replacements import (
    How,
    RoleMeans,
    base_activations,
    check_how,
    donors,
    from_donors,
    replacement,
    role_means,
)
from negprobe.patching.runs import (
    Direction,
    PairRuns,
    chosen_pairs,
    pair_batches,
    pair_coordinates,
    pair_runs,
    site_widths,
)
from negprobe.patching.sites import MAPS, Site, site_for
from negprobe.statements import ROLES, StatementPair, Swappable

By = Literal["head", "position", "role"]
"""What a sweep varies besides the layer: the attention head, the token position or the token role."""


@checked
@with_margins
def patch_sweep(
    model: HookedEncoder,
    pairs: Swappable | Sequence[Swappable],
    site: str,
    *,
    by: By | Sequence[By],
    direction: Direction = "noising",
    how: How = "swap",
    keys: str | None = None,
    reference: Sequence[Swappable] | None = None,
    renormalize: bool = False,
    objective: Objective | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> xr.Dataset:
    """The objective of patched runs: one run per pair for each layer and each head, position or role.

    A patch replaces the base run's activation at one site and layer, and runs the rest of the model. `by` chooses the
    part that is replaced: "position" is one token, "role" all tokens of a role, "head" one head at all tokens, and
    ("head", "role") or ("head", "position") one head at these tokens. For the attention maps, positions and roles are
    those of the queries.

    Args:
        model: The model.
        pairs: One pair, or several of any length.
        site: A name of `SITES`.
        by: The part that varies besides the layer.
        direction: Which run is patched (the base): "noising" puts the counterfactual's activation into the original's
            run, "denoising" the reverse. Effects are always normalised by the objective of the source run, even if
            `how` takes the new activation from elsewhere.
        how: "swap" uses the source's activation, at aligned tokens only (for a map, aligned queries and keys). "zero",
            "mean" (over the tokens of the same role in `reference`) and "resample" (a token of the same role in another
            pair) ablate, whether or not a token is aligned. "knock_out" removes attention along the chosen edges before
            the softmax, and needs the site "attn_scores".
        keys: For a map, patch only the edges to keys of this role.
        reference: The pairs whose two statements "mean" averages over; by default `pairs`.
        renormalize: Whether to scale the rows of a patched "pattern" to sum to 1 again.
        objective: The objective; by default `default_objective(model, pairs)`.
        seed: Seed for the choice of pairs in "resample".
        progress: Called after each batch of pairs.

    Returns:
        A dataset with `patched` `[pair layer (head) (position|role)]`, the objective of each patched run (NaN where a
        pair does not have the part, or the part has no replacement), and `base` and `source` `[pair]`, the objective of
        the unpatched runs. `effects.effect`, `effects.mean_effect` and `effects.averages` normalise the values.
        Coordinates name the roles, the statement in each run (`base_run`, `source_run`: "original", "counterfactual"
        or, for a pair made by `from_control`, "control") and, for a single pair, the tokens of the base. Attributes
        name the site, direction, objective and model.

    Raises:
        PatchingError: for an unknown site, part, role or objective, for one that the model or a pair does not have, for
            a query that would be left without keys, and for an empty list of pairs.
        StatementError, InputError: for a statement that cannot be run.
    """
    chosen = chosen_pairs(pairs)
    sweep = checked_sweep(site, by, how, keys, renormalize, direction)
    objective = objective or default_objective(model)
    means = role_means(model, chosen if reference is None else list(reference), sweep.site) if how == "mean" else None
    parts: list[tuple[list[int], PairRuns, Values]] = []
    done = 0
    for indices in pair_batches(model, chosen, 10 + 3 * site_widths(model, chosen, sweep.site)):
        with torch.no_grad():
            runs = pair_runs(model, [chosen[i] for i in indices], direction)
            donor_runs = None
            if how == "resample":
                donor_runs = from_donors(runs, pair_runs(model, donors(chosen, indices, seed), direction))
            parts.append((indices, runs, _sweep_batch(model, runs, donor_runs, sweep, means, objective)))
        done += len(indices)
        if progress is not None:
            progress(f"patching {site}, {direction}", done, len(chosen))
    return sweep_dataset(model, parts, sweep, direction, objective)


@dataclass(frozen=True)
class Sweep:
    """The checked arguments of a sweep."""

    site: Site
    by: tuple[By, ...]
    how: How
    keys: int | None
    renormalize: bool

    @property
    def token_part(self) -> By | None:
        """The part of `by` that chooses tokens."""
        return next((part for part in self.by if part != "head"), None)


@dataclass(frozen=True)
class Values:
    """The objective of a batch's patched runs, and of its unpatched base and source runs."""

    patched: Float[Tensor, "pair layer ..."]
    base: Float[Tensor, " pair"]
    source: Float[Tensor, " pair"]


@checked
def checked_sweep(
    site: str, by: By | Sequence[By], how: How, keys: str | None, renormalize: bool, direction: Direction
) -> Sweep:
    """The checked arguments of a sweep.

    Raises:
        PatchingError: for an unknown site, part or role, or a combination that is not possible.
    """
    checked_site = site_for(site)
    # Sorting puts "head" first, whatever order was donor_runs.
    names = (by,) if isinstance(by, str) or not isinstance(by, Iterable) else by
    parts = tuple(sorted(map(str, names)))
    known = get_args(By)
    if not parts or len(set(parts)) < len(parts) or not set(parts) <= set(known) or len(set(parts) - {"head"}) > 1:
        raise PatchingError(
            f"by must be 'position', 'role', 'head', ('head', 'position') or ('head', 'role'), got {by!r}."
        )
    if "head" in parts and not checked_site.has_heads:
        raise PatchingError(f"Site {site!r} has no heads; sweep it by position or role, or sweep 'z' by head.")
    check_how(checked_site, how, renormalize)
    if keys is not None and not checked_site.is_map:
        raise PatchingError(f"Site {site!r} has no keys; use keys only with {', '.join(MAPS)}.")
    if keys is not None and keys not in ROLES:
        raise PatchingError(f"There is no role {keys!r}; choose one of {', '.join(ROLES)}.")
    return Sweep(
        checked_site, cast(tuple[By, ...], parts), how, None if keys is None else ROLES.index(keys), renormalize
    )


def _sweep_batch(
    model: HookedEncoder,
    runs: PairRuns,
    donor_runs: PairRuns | None,
    sweep: Sweep,
    means: RoleMeans | None,
    objective: Objective,
) -> Values:
    """The objective of all patched runs of a batch of pairs, and of its unpatched base and source runs."""
    base, source = base_runs(model, runs.base, runs.source)
    unpatched = base_activations(model, base, sweep.site)
    new = replacement(model, runs, unpatched, source, sweep.site, sweep.how, donor_runs, means)
    readout = readout_for(objective, model, runs, runs.base)
    all_pairs = torch.arange(len(runs.pairs), device=model.device)
    base_values = readout(base.resid[-1], all_pairs)
    source_values = readout_for(objective, model, runs, runs.source)(source.resid[-1], all_pairs)

    tokens = token_choices(runs, sweep.token_part) & rearrange(new.available, "pair pos -> pair 1 pos")
    heads = head_choices(model, sweep)
    keys = _key_choices(runs, new.available, sweep)
    exists = tokens.any(dim=2) & keys.any(dim=1, keepdim=True)
    patched = torch.where(
        rearrange(exists, "pair token -> pair 1 1 token"),
        rearrange(base_values, "pair -> pair 1 1 1"),
        torch.nan,
    ).repeat(1, len(unpatched), len(heads), 1)
    for layer, (old, values) in enumerate(zip(unpatched, new.values, strict=True)):
        # Patches that change nothing are not run: they keep the value of the base.
        differs = values != old
        differs = differs & rearrange(keys, "pair key -> pair 1 1 key") if sweep.site.is_map else differs.any(dim=-1)
        pair, head, token = _changing(differs, tokens, heads, sweep.site).nonzero(as_tuple=True)
        for chunk in chunks(model, len(pair), tokens.shape[2]):
            rows = pair[chunk]
            where = _where(differs[rows], tokens[rows, token[chunk]], heads[head[chunk]], sweep.site)
            edit = Edit(sweep.site.name, layer, where, values, rows, sweep.renormalize)
            patched[rows, layer, head[chunk], token[chunk]] = run_edited(model, base, rows, [edit], readout)
    return Values(patched, base_values, source_values)


def token_choices(runs: PairRuns, by: By | None) -> Bool[Tensor, "pair token pos"]:
    """The base positions that belong to each part, for each pair."""
    n_pos = runs.role.shape[1]
    if by == "position":
        return torch.eye(n_pos, dtype=torch.bool, device=runs.role.device).expand(len(runs.pairs), -1, -1)
    if by == "role":
        role = torch.arange(len(ROLES), device=runs.role.device)
        return rearrange(runs.role, "pair pos -> pair 1 pos") == rearrange(role, "token -> 1 token 1")
    return runs.base.mask.bool()[:, None]


def head_choices(model: HookedEncoder, sweep: Sweep) -> Bool[Tensor, "part head"]:
    """The heads that belong to each part."""
    if "head" in sweep.by:
        return torch.eye(model.cfg.n_heads, dtype=torch.bool, device=model.device)
    return torch.ones(1, model.cfg.n_heads if sweep.site.has_heads else 1, dtype=torch.bool, device=model.device)


def _key_choices(runs: PairRuns, available: Bool[Tensor, "pair pos"], sweep: Sweep) -> Bool[Tensor, "pair pos"]:
    """The keys of a map to which edges are replaced; for other sites, the available positions.

    Raises:
        PatchingError: for a replacement that leaves a query without any key to attend to.
    """
    keys = available if sweep.keys is None else available & (runs.role == sweep.keys)
    nothing_left = sweep.how == "knock_out" or (sweep.how == "zero" and sweep.renormalize)
    if nothing_left and bool((keys == runs.base.mask.bool()).all(dim=1).any()):
        raise PatchingError(
            "This would leave queries without any token to attend to; remove fewer keys, for example keys='cue'."
        )
    return keys if sweep.site.is_map else available


def _changing(
    differs: Bool[Tensor, "pair ..."],
    tokens: Bool[Tensor, "pair token pos"],
    heads: Bool[Tensor, "part head"],
    site: Site,
) -> Bool[Tensor, "pair part token"]:
    """The runs in which at least one entry changes."""
    if site.is_map:
        by_head = rearrange(differs.any(dim=-1), "pair head pos -> pair pos head")
    else:
        by_head = differs if site.has_heads else differs[..., None]
    # The product counts the entries that change, so one matrix product replaces a chain of `any`.
    counts = einsum(
        by_head.float(), tokens.float(), heads.float(), "pair pos head, pair token pos, part head -> pair part token"
    )
    return counts > 0


def _where(
    differs: Bool[Tensor, "run ..."], tokens: Bool[Tensor, "run pos"], heads: Bool[Tensor, "run head"], site: Site
) -> Bool[Tensor, "run ..."]:
    """The entries to replace in each run."""
    if site.is_map:
        chosen = rearrange(tokens, "run query -> run 1 query 1") & rearrange(heads, "run head -> run head 1 1")
    elif site.has_heads:
        chosen = rearrange(tokens, "run pos -> run pos 1") & rearrange(heads, "run head -> run 1 head")
    else:
        chosen = tokens
    return differs & chosen


def sweep_dataset(
    model: HookedEncoder,
    parts: list[tuple[list[int], PairRuns, Values]],
    sweep: Sweep,
    direction: Direction,
    objective: Objective,
) -> xr.Dataset:
    """The results of all batches as one dataset (see `patch_sweep`)."""
    n_pairs = sum(len(indices) for indices, _, _ in parts)
    _, n_layers, n_parts, _ = parts[0][2].patched.shape
    width = max(values.patched.shape[3] for _, _, values in parts)
    patched = np.full((n_pairs, n_layers, n_parts, width), np.nan)
    base, source = np.full(n_pairs, np.nan), np.full(n_pairs, np.nan)
    unmatched = np.full(n_pairs, "", dtype=object)
    pairs: dict[int, StatementPair] = {}
    for indices, runs, values in parts:
        patched[indices, :, :, : values.patched.shape[3]] = values.patched.cpu().double().numpy()
        base[indices] = values.base.cpu().double().numpy()
        source[indices] = values.source.cpu().double().numpy()
        unmatched[indices] = unmatched_tokens(runs)
        pairs |= dict(zip(indices, runs.pairs, strict=True))
    by = [part for part in sweep.by if part == "head"] + [part for part in [sweep.token_part] if part]
    if "head" not in by:
        patched = patched.squeeze(axis=2)
    if sweep.token_part is None:
        patched = patched.squeeze(axis=-1)
    coords: dict[str, object] = {"pair": np.arange(n_pairs), "layer": np.arange(n_layers)}
    coords |= {"head": np.arange(n_parts)} if "head" in by else {}
    coords |= {"role": list(ROLES)} if "role" in by else {}
    coords["unmatched"] = ("pair", unmatched.astype(str))
    coords |= pair_coordinates([pairs[index] for index in range(n_pairs)], direction)
    if "position" in by:
        coords["position"] = np.arange(width)
        if n_pairs == 1:
            coords["token"] = ("position", list(parts[0][1].base.statements[0].tokens))
    return xr.Dataset(
        {"patched": (("pair", "layer", *by), patched), "base": ("pair", base), "source": ("pair", source)},
        coords=coords,
        attrs={
            "site": sweep.site.name,
            "how": sweep.how,
            # Not "keys": Python takes an object with an attribute of that name for a mapping.
            "key_role": "" if sweep.keys is None else ROLES[sweep.keys],
            "renormalize": str(sweep.renormalize),
        }
        | attributes(model, direction, objective),
    )


def attributes(model: HookedEncoder, direction: Direction, objective: Objective) -> dict[str, str]:
    """The attributes of a result: its direction, objective and model."""
    return {
        "direction": direction,
        "objective": getattr(objective, "__name__", str(objective)),
        "model": model.cfg.model_name,
    }


def unmatched_tokens(runs: PairRuns) -> list[str]:
    """The base tokens without an aligned source token, as one string per pair."""
    unmatched = (runs.base.mask.bool() & ~runs.aligned).cpu()
    return [
        " ".join(token for at, token in enumerate(statement.tokens) if unmatched[row, at])
        for row, statement in enumerate(runs.base.statements)
    ]
