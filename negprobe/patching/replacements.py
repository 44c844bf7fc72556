"""The new activations of a patched site: from the source run, zeros, a mean, or another pair."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from einops import einsum, rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor

from negprobe.base.errors import PatchingError
from negprobe.models import HookedEncoder
from negprobe.patching.engine import BaseRun, base_run
from negprobe.patching.runs import PairRuns, pair_batches, pair_runs, site_activations, site_widths
from negprobe.patching.sites import Site
from negprobe.statements import ROLES, Swappable

How = Literal["swap", "zero", "mean", "resample", "knock_out"]
"""swap: the source run's activation at the aligned token; zero: zeros; mean: the mean over tokens of the same role in
a reference set; resample: another pair's activation at a token of the same role; knock_out: no attention along the
edge."""


RoleMeans = tuple[list[Float[Tensor, "role ..."]], Bool[Tensor, " role"]]
"""The mean activation over the tokens of each role, one entry per layer, and which roles occur."""


def onto_base(
    activation: Float[Tensor, "pair ..."], source_of: Int[Tensor, "pair base_pos"], site: Site
) -> Float[Tensor, "pair ..."]:
    """The source's activation at the base's positions; values at unaligned positions are not meaningful."""
    if site.is_map:
        activation = torch.take_along_dim(activation, rearrange(source_of, "pair query -> pair 1 query 1"), dim=2)
        return torch.take_along_dim(activation, rearrange(source_of, "pair key -> pair 1 1 key"), dim=3)
    index = source_of.reshape(*source_of.shape, *(1,) * (activation.ndim - 2))
    return torch.take_along_dim(activation, index, dim=1)


def donors(pairs: Sequence[Swappable], indices: Sequence[int], seed: int) -> list[Swappable]:
    """Another pair, drawn at random, for each of the pairs at `indices`; the choice does not depend on the batches.

    Raises:
        PatchingError: if there is only one pair.
    """
    if len(pairs) < 2:
        raise PatchingError("how='resample' uses the activations of another pair; give at least two pairs.")
    shifts = np.random.default_rng(seed).integers(1, len(pairs), size=len(pairs))
    return [pairs[(index + int(shifts[index])) % len(pairs)] for index in indices]


def from_donors(runs: PairRuns, donor_runs: PairRuns) -> PairRuns:
    """The same base runs, with the donors' base runs as the source.

    The k-th token of a role is replaced by the donor's k-th token of that role. If the donor has fewer tokens of the
    role, they are used again from the first; if it has none, nothing is replaced.
    """
    source_of, aligned = torch.zeros_like(runs.source_of), torch.zeros_like(runs.aligned)
    for row, (base_roles, donor_roles) in enumerate(zip(runs.role.tolist(), donor_runs.role.tolist(), strict=True)):
        where = {role: [at for at, found in enumerate(donor_roles) if found == role] for role in range(len(ROLES))}
        taken = dict.fromkeys(where, 0)
        for at, role in enumerate(base_roles):
            if role >= 0 and where[role]:
                source_of[row, at] = where[role][taken[role] % len(where[role])]
                aligned[row, at] = True
                taken[role] += 1
    return replace(runs, source=donor_runs.base, source_of=source_of, aligned=aligned)


@torch.no_grad()
def role_means(model: HookedEncoder, pairs: Sequence[Swappable], site: Site) -> RoleMeans:
    """The mean activation over all tokens of each role, in both statements of all pairs.

    Returns:
        The means `[role d_model]` or `[role head d_head]` of each layer, and which roles occur.

    Raises:
        PatchingError: for an attention map, whose size differs between statements, and for an empty list of pairs.
    """
    if site.is_map:
        raise PatchingError(
            f"Site {site.name!r} has no mean, because statements differ in length; use 'swap' or 'zero'."
        )
    if not pairs:
        raise PatchingError("There are no reference pairs to average over; give at least one.")
    totals: list[Tensor] = []
    # Half precision cannot count beyond a few hundred.
    exact = torch.promote_types(model.dtype, torch.float32)
    count = torch.zeros(len(ROLES), device=model.device, dtype=exact)
    for indices in pair_batches(model, pairs, site_widths(model, pairs, site)):
        batch = [pairs[index] for index in indices]
        for direction in ("noising", "denoising"):
            runs = pair_runs(model, batch, direction)
            is_role = rearrange(runs.role, "pair pos -> pair pos 1") == torch.arange(len(ROLES), device=model.device)
            weight = is_role.to(exact)
            _, found = site_activations(model, runs.base, site)
            each = (activation.to(exact) for activation in found)
            sums = [einsum(weight, activation, "pair pos role, pair pos ... -> role ...") for activation in each]
            totals = [a + b for a, b in zip(totals, sums, strict=True)] if totals else sums
            count += weight.sum(dim=(0, 1))
    shape = (-1, *(1,) * (totals[0].ndim - 1))
    return [(total / count.clamp(min=1).reshape(shape)).to(model.dtype) for total in totals], count > 0


@dataclass(frozen=True)
class Replacement:
    """The new activations of a site, for a batch of pairs.

    Attributes:
        values: The new activation of each layer, in the shape of the base's.
        available: The base positions that have a new activation.
    """

    values: list[Float[Tensor, "pair ..."]]
    available: Bool[Tensor, "pair pos"]


def check_how(site: Site, how: How, renormalize: bool) -> None:
    """Check that a replacement is possible at a site.

    Raises:
        PatchingError: if it is not.
    """
    if how == "knock_out" and site.name != "attn_scores":
        raise PatchingError(f"how='knock_out' needs the site 'attn_scores' (before the softmax), got {site.name!r}.")
    if how in ("mean", "resample") and site.is_map:
        raise PatchingError(
            f"how={how!r} is not possible at {site.name!r}, because its size differs between statements; use 'swap', "
            "'zero' or 'knock_out'."
        )
    if renormalize and site.name != "pattern":
        raise PatchingError(f"renormalize needs the site 'pattern', got {site.name!r}.")


def replacement(
    model: HookedEncoder,
    runs: PairRuns,
    base: Sequence[Float[Tensor, "pair ..."]],
    source: BaseRun,
    site: Site,
    how: How,
    donor_runs: PairRuns | None = None,
    means: RoleMeans | None = None,
) -> Replacement:
    """The new activations of a site.

    Args:
        model: The model.
        runs: The pairs.
        base: The site's unpatched activations in the base run, one entry per layer.
        source: The unpatched source run.
        site: The site.
        how: The kind of replacement.
        donor_runs: The result of `from_donors`, for "resample".
        means: `role_means` of the site, for "mean".
    """
    real = runs.base.mask.bool()
    if how == "zero":
        return Replacement([torch.zeros_like(activation) for activation in base], real)
    if how == "knock_out":
        return Replacement([torch.full_like(activation, -torch.inf) for activation in base], real)
    if how == "mean":
        assert means is not None
        layers, known = means
        role = runs.role.clamp(min=0)
        return Replacement([layer[role] for layer in layers], real & known[role])
    if donor_runs is not None:
        runs, source = donor_runs, base_run(model, donor_runs.source)
    values = [onto_base(found, runs.source_of, site) for found in base_activations(model, source, site)]
    return Replacement(values, runs.aligned)


def base_activations(model: HookedEncoder, base: BaseRun, site: Site) -> Sequence[Float[Tensor, "pair ..."]]:
    """A site's unpatched activations, one entry per layer: kept by the base run, or computed again."""
    kept = {"resid_pre": base.resid[:-1], "q": base.q, "k": base.k, "v": base.v, "z": base.z}
    return kept[site.name] if site.name in kept else site_activations(model, base.run, site)[1]
