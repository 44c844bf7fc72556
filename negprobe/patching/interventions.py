"""Chosen patches, each in its own run or several in one run, such as "heads 1.2 and 3.0 at the cue"."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import xarray as xr
from einops import rearrange
from jaxtyping import Bool
from torch import Tensor

from negprobe.base.arguments import checked
from negprobe.base.errors import PatchingError
from negprobe.base.progress import Progress
from negprobe.models import HookedEncoder
from negprobe.patching.edits import Edit
from negprobe.patching.engine import BaseRun, base_runs, run_edited
from negprobe.patching.margins import with_margins
from negprobe.patching.objectives import Objective, default_objective, readout_for
from negprobe.patching.replacements import (
    How,
    Replacement,
    RoleMeans,
    base_activations,
    check_how,
    donors,
    from_donors,
    replacement,
    role_means,
)
from negprobe.patching.runs import Direction, PairRuns, chosen_pairs, pair_batches, pair_coordinates, pair_runs
from negprobe.patching.sites import MAPS, SITES, site_for
from negprobe.patching.sweep import attributes, unmatched_tokens
from negprobe.statements import ROLES, Swappable


@checked
@dataclass(frozen=True)
class Patch:
    """A part of an activation to replace; a field that is None does not restrict the part.

    Attributes:
        site: A name of `SITES`.
        layer: A layer; None for all layers.
        head: A head; None for all heads.
        position: A token position in the base (for a map, the position of the query); None for all tokens.
        role: A token role, instead of a position.
        key_position: For a map, the position of the key; None for all keys.
        key_role: For a map, the role of the keys, instead of a position.
        how: The kind of replacement (see `replacements.How`).
        renormalize: Whether to scale the rows of a patched "pattern" to sum to 1 again.
    """

    site: str
    layer: int | None = None
    head: int | None = None
    position: int | None = None
    role: str | None = None
    key_position: int | None = None
    key_role: str | None = None
    how: How = "swap"
    renormalize: bool = False

    def __str__(self) -> str:
        """A short name: "z 1.2 at cue", "attn_scores 0.* at mask → cue knock_out"."""
        site = SITES[self.site]
        layer, head = ("*" if index is None else str(index) for index in (self.layer, self.head))
        parts = [self.site]
        if site.has_layers:
            parts.append(f"{layer}.{head}" if site.has_heads else layer)
        tokens, keys = (
            at if at is not None else role
            for at, role in ((self.position, self.role), (self.key_position, self.key_role))
        )
        parts += [f"at {tokens}"] if tokens is not None else []
        parts += [f"→ {keys}"] if keys is not None else []
        how = [self.how] if self.how != "swap" else []
        return " ".join([*parts, *how, *(["renormalized"] if self.renormalize else [])])


@checked
@with_margins
@torch.no_grad()
def patch(
    model: HookedEncoder,
    pairs: Swappable | Sequence[Swappable],
    patches: Patch | Sequence[Patch | Sequence[Patch]],
    *,
    together: bool | None = None,
    direction: Direction = "noising",
    reference: Sequence[Swappable] | None = None,
    objective: Objective | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> xr.Dataset:
    """The objective of patched runs: each pair is run with all patches together, or once for each patch or set.

    Args:
        model: The model.
        pairs: One pair, or several of any length.
        patches: One patch, several patches, or several sets of patches. `[[a, b], [c]]` makes one run for each set: `a`
            and `b` in one run, `c` in another.
        together: Whether several patches are made together in one run (True) or each in its own run (False). Required
            for a plain list of several patches, which could mean either.
        direction: Which run is patched (the base), as in `patch_sweep`.
        reference: The pairs whose two statements "mean" averages over; by default `pairs`.
        objective: The objective; by default `default_objective(model, pairs)`.
        seed: Seed for the choice of pairs in "resample".
        progress: Called after each batch of pairs.

    Returns:
        A dataset with `patched` `[pair patch]`, one `patch` for each run (NaN if a pair has no token for one of the
        run's patches), and `base` and `source` `[pair]`; the coordinate `patch` describes the patches of each run.

    Raises:
        PatchingError: for an unknown site, layer, head, position or role, for a query that would be left without keys,
            for an empty list of pairs or patches, for several patches without `together`, and for sets with
            `together=True`.
        StatementError, InputError: for a statement that cannot be run.
    """
    chosen = chosen_pairs(pairs)
    sets = _sets(patches, together)
    for one in (one for members in sets for one in members):
        _check(model, one)
    objective = objective or default_objective(model)
    replacements = {(one.site, one.how) for members in sets for one in members}
    mean_over = chosen if reference is None else list(reference)
    means = {site: role_means(model, mean_over, SITES[site]) for site, how in replacements if how == "mean"}
    patched = np.full((len(chosen), len(sets)), np.nan)
    base_values, source_values = np.full(len(chosen), np.nan), np.full(len(chosen), np.nan)
    unmatched = np.full(len(chosen), "", dtype=object)
    done = 0
    for indices in pair_batches(model, chosen):
        runs = pair_runs(model, [chosen[index] for index in indices], direction)
        donor_runs = None
        if any(how == "resample" for _, how in replacements):
            donor_runs = from_donors(runs, pair_runs(model, donors(chosen, indices, seed), direction))
        base, source = base_runs(model, runs.base, runs.source)
        new = {
            (site, how): _replacement(model, runs, base, source, site, how, donor_runs, means)
            for site, how in replacements
        }
        all_pairs = torch.arange(len(indices), device=model.device)
        readout = readout_for(objective, model, runs, runs.base)
        base_values[indices] = readout(base.resid[-1], all_pairs).cpu().double()
        source_readout = readout_for(objective, model, runs, runs.source)
        source_values[indices] = source_readout(source.resid[-1], all_pairs).cpu().double()
        unmatched[indices] = unmatched_tokens(runs)
        for number, members in enumerate(sets):
            wheres = [_where(model, runs, new[one.site, one.how], one) for one in members]
            _check_attention_left(runs, members, wheres)
            whole = torch.stack([where.flatten(1).any(dim=1) for where in wheres]).all(dim=0)
            pair = whole.nonzero()[:, 0]
            if len(pair):
                edits = [
                    edit
                    for one, where in zip(members, wheres, strict=True)
                    for edit in _edits(one, where[pair], new[one.site, one.how], pair)
                ]
                values = run_edited(model, base, pair, edits, readout)
                patched[np.array(indices)[pair.cpu()], number] = values.cpu().double()
        done += len(indices)
        if progress is not None:
            progress("patching", done, len(chosen))
    return xr.Dataset(
        {"patched": (("pair", "patch"), patched), "base": ("pair", base_values), "source": ("pair", source_values)},
        coords={
            "pair": np.arange(len(chosen)),
            "patch": [" + ".join(map(str, members)) for members in sets],
            "unmatched": ("pair", unmatched.astype(str)),
            **pair_coordinates(chosen, direction),
        },
        attrs=attributes(model, direction, objective),
    )


def _sets(patches: Patch | Sequence[Patch | Sequence[Patch]], together: bool | None) -> list[tuple[Patch, ...]]:
    """The patches of each run.

    Raises:
        PatchingError: for an empty list or set, or if `together` is missing or contradicts the sets.
    """
    given = [patches] if isinstance(patches, Patch) else list(patches)
    sets = [(one,) if isinstance(one, Patch) else tuple(one) for one in given]
    if not sets or not all(sets):
        raise PatchingError("There are no patches, or a set is empty; give at least one patch in each set.")
    is_plain = all(isinstance(one, Patch) for one in given)
    if is_plain and len(sets) > 1 and together is None:
        raise PatchingError(
            f"A plain list of {len(sets)} patches is ambiguous: set together=True to make them in one run, or "
            "together=False to make each in its own run."
        )
    if together and not is_plain:
        raise PatchingError(
            "together=True contradicts sets of patches, because each set has its own run; omit together, or give one "
            "plain list of patches."
        )
    return [tuple(one for members in sets for one in members)] if together else sets


def _check(model: HookedEncoder, one: object) -> None:
    if not isinstance(one, Patch):
        raise PatchingError(f"{one!r} is not a Patch; write Patch(site, layer, head, ...).")
    site = site_for(one.site)
    for name in ("layer", "head", "position", "key_position"):
        number = getattr(one, name)
        if number is not None and (isinstance(number, bool) or not isinstance(number, int)):
            raise PatchingError(f"The {name} of a patch must be a whole number of at least 0, or None, got {number!r}.")
    check_how(site, one.how, one.renormalize)
    if one.layer is not None and (not site.has_layers or not 0 <= one.layer < model.cfg.n_layers):
        allowed = f"layers 0 to {model.cfg.n_layers - 1}" if site.has_layers else "no layers; use layer=None"
        raise PatchingError(f"There is no layer {one.layer} of {one.site!r}; it has {allowed}.")
    if one.head is not None and (not site.has_heads or not 0 <= one.head < model.cfg.n_heads):
        allowed = f"heads 0 to {model.cfg.n_heads - 1}" if site.has_heads else "no heads; use head=None"
        raise PatchingError(f"There is no head {one.head} of {one.site!r}; it has {allowed}.")
    for role in (one.role, one.key_role):
        if role is not None and role not in ROLES:
            raise PatchingError(f"There is no role {role!r}; choose one of {', '.join(ROLES)}.")
    if (one.position is not None and one.role is not None) or (
        one.key_position is not None and one.key_role is not None
    ):
        raise PatchingError(f"{one} has both a position and a role; give only one of them.")
    if (one.key_position is not None or one.key_role is not None) and not site.is_map:
        raise PatchingError(f"Site {one.site!r} has no keys; use keys only with {', '.join(MAPS)}.")


def _replacement(
    model: HookedEncoder,
    runs: PairRuns,
    base: BaseRun,
    source: BaseRun,
    site: str,
    how: How,
    donor_runs: PairRuns | None,
    means: dict[str, RoleMeans],
) -> Replacement:
    where = SITES[site]
    unpatched = base_activations(model, base, where)
    donor_runs = donor_runs if how == "resample" else None
    return replacement(model, runs, unpatched, source, where, how, donor_runs, means.get(site))


def _where(model: HookedEncoder, runs: PairRuns, new: Replacement, one: Patch) -> Bool[Tensor, "pair ..."]:
    """The entries that a patch replaces in each pair."""
    tokens = _tokens(runs, one.position, one.role) & new.available
    site = SITES[one.site]
    if not site.has_heads:
        return tokens
    heads = torch.ones(model.cfg.n_heads, dtype=torch.bool, device=model.device)
    if one.head is not None:
        heads = torch.arange(model.cfg.n_heads, device=model.device) == one.head
    if not site.is_map:
        return rearrange(tokens, "pair pos -> pair pos 1") & heads
    keys = _tokens(runs, one.key_position, one.key_role) & new.available
    edges = rearrange(tokens, "pair query -> pair 1 query 1") & rearrange(keys, "pair key -> pair 1 1 key")
    return edges & rearrange(heads, "head -> head 1 1")


def _check_attention_left(
    runs: PairRuns, together: Sequence[Patch], wheres: Sequence[Bool[Tensor, "pair ..."]]
) -> None:
    """Raise an error if the patches together would remove a query's attention to all tokens."""
    removing = [(one, where) for one, where in zip(together, wheres, strict=True) if _removes_attention(one)]
    real = runs.base.mask.bool()
    for layer in {one.layer for one, _ in removing}:
        gone = torch.stack([where for one, where in removing if one.layer in (layer, None)]).any(dim=0)
        nothing_left = (gone | rearrange(~real, "pair key -> pair 1 1 key")).all(dim=-1)
        if bool((nothing_left & rearrange(real, "pair query -> pair 1 query")).any()):
            raise PatchingError(
                f"{' + '.join(map(str, together))} would leave a query without any token to attend to; remove fewer "
                "keys."
            )


def _removes_attention(one: Patch) -> bool:
    return one.how == "knock_out" or (one.how == "zero" and one.renormalize)


def _tokens(runs: PairRuns, position: int | None, role: str | None) -> Bool[Tensor, "pair pos"]:
    real = runs.base.mask.bool()
    if role is not None:
        return real & (runs.role == ROLES.index(role))
    if position is None:
        return real
    shortest = int(runs.base.mask.sum(dim=1).min())
    if not 0 <= position < shortest:
        raise PatchingError(
            f"There is no position {position}: the shortest statement has {shortest} tokens, positions 0 to "
            f"{shortest - 1}."
        )
    chosen = torch.zeros_like(real)
    chosen[:, position] = True
    return chosen


def _edits(one: Patch, where: Bool[Tensor, "run ..."], new: Replacement, pair: Tensor) -> list[Edit]:
    layers = range(len(new.values)) if one.layer is None else [one.layer]
    return [Edit(one.site, layer, where, new.values[layer], pair, one.renormalize) for layer in layers]
