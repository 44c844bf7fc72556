"""Several patching sweeps of the same pairs: planned and checked before the model is loaded, then run one by one."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import xarray as xr

from negprobe.base.arguments import checked
from negprobe.base.errors import PatchingError
from negprobe.base.progress import Progress
from negprobe.models import HookedEncoder
from negprobe.patching.attribution import attribute
from negprobe.patching.attribution_agreement import agreement
from negprobe.patching.effects import averages
from negprobe.patching.objectives import Objective
from negprobe.patching.replacements import How
from negprobe.patching.runs import DIRECTIONS, Direction
from negprobe.patching.sites import site_for
from negprobe.patching.sweep import By, checked_sweep, patch_sweep
from negprobe.statements import Swappable

_SITES = ("resid_pre", "attn_out", "mlp_out", "z")


@checked
@dataclass(frozen=True)
class PlannedSweep:
    """The arguments of one call of `patch_sweep`, checked when they are set; see there for their meaning.

    Raises:
        PatchingError: for an unknown site or part, or a combination that is not possible.
    """

    site: str
    by: tuple[By, ...]
    direction: Direction
    how: How = "swap"
    keys: str | None = None
    renormalize: bool = False

    def __post_init__(self) -> None:
        checked_sweep(self.site, self.by, self.how, self.keys, self.renormalize, self.direction)

    @property
    def name(self) -> str:
        """A name for files, such as "z-head-role-swap-denoising"."""
        return "-".join((self.site, *self.by, self.how, self.direction))


@checked
def planned_sweeps(
    sites: Sequence[str] | None = None,
    *,
    by: Sequence[By] | None = None,
    heads_by: Sequence[By] = ("head", "role"),
    other_by: Sequence[By] = ("role",),
    directions: Sequence[Direction] | None = None,
    how: How = "swap",
    keys: str | None = None,
    renormalize: bool = False,
) -> tuple[PlannedSweep, ...]:
    """One sweep for each site and direction, with all arguments checked.

    Args:
        sites: Names of `SITES`; by default the residual stream, attention, MLP and heads.
        by: What varies besides the layer, for all sites; by default `heads_by` or `other_by`.
        heads_by: What varies at a site that has heads.
        other_by: What varies at any other site.
        directions: By default both.
        how: As in `patch_sweep`.
        keys: As in `patch_sweep`.
        renormalize: As in `patch_sweep`.

    Raises:
        PatchingError: for an unknown site or part, or a combination that is not possible.

    Example:
        >>> from negprobe.patching import planned_sweeps
        >>> [sweep.name for sweep in planned_sweeps(["resid_pre", "z"], directions=["denoising"])]
        ['resid_pre-role-swap-denoising', 'z-head-role-swap-denoising']
    """
    return tuple(
        PlannedSweep(
            site, tuple(by or (heads_by if site_for(site).has_heads else other_by)), direction, how, keys, renormalize
        )
        for site in dict.fromkeys(sites or _SITES)
        for direction in dict.fromkeys(directions or DIRECTIONS)
    )


@checked
def run_sweeps(
    model: HookedEncoder,
    pairs: Mapping[int, Swappable],
    sweeps: Sequence[PlannedSweep],
    *,
    objective: Objective | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> Iterator[tuple[PlannedSweep, xr.Dataset]]:
    """An iterator over the sweeps and their results; each sweep runs when the iterator reaches it.

    Args:
        model: The model.
        pairs: The pairs by their numbers, which are the coordinate `pair` of the results.
        sweeps: The sweeps (see `planned_sweeps`).
        objective: The objective; by default `default_objective(model, pairs)`.
        seed: Seed for the choice of pairs in "resample".
        progress: Called after each batch of pairs.

    Raises:
        PatchingError, StatementError, InputError: as `patch_sweep`, when the iterator reaches the sweep.
    """
    # `_results` is a separate generator, so that `checked` checks the arguments here and not at the first result.
    return _results(model, pairs, sweeps, objective, seed, progress)


def _results(
    model: HookedEncoder,
    pairs: Mapping[int, Swappable],
    sweeps: Sequence[PlannedSweep],
    objective: Objective | None,
    seed: int,
    progress: Progress | None,
) -> Iterator[tuple[PlannedSweep, xr.Dataset]]:
    for sweep in sweeps:
        results = patch_sweep(
            model,
            list(pairs.values()),
            sweep.site,
            by=sweep.by,
            direction=sweep.direction,
            how=sweep.how,
            keys=sweep.keys,
            renormalize=sweep.renormalize,
            objective=objective,
            seed=seed,
            progress=progress,
        )
        yield sweep, results.assign_coords(pair=np.array(list(pairs), dtype=int))


@checked
def sweep_averages(sweep: PlannedSweep, results: xr.Dataset, *, seed: int = 0) -> pd.DataFrame:
    """`averages` of a sweep's results as a table, with the columns `site`, `how` and `direction`.

    A table, because the sweeps whose tables are concatenated differ in their dimensions.

    Raises:
        PatchingError: as `averages`.
    """
    table = averages(results, seed=seed).to_dataframe().reset_index()
    return table.assign(site=sweep.site, how=sweep.how, direction=sweep.direction)


@checked
def estimate_agreement(
    model: HookedEncoder,
    pairs: Mapping[int, Swappable],
    sweep: PlannedSweep,
    exact: xr.Dataset,
    *,
    objective: Objective | None = None,
    steps: Sequence[int | None] = (None, 8),
    progress: Progress | None = None,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The agreement of estimates from gradients (see `attribute`) with the exact effects of a sweep.

    Args:
        model: The model.
        pairs: The pairs by their numbers.
        sweep: The sweep; it must swap activations (how="swap", without `keys` or `renormalize`).
        exact: The results of the sweep, from `run_sweeps`.
        objective: The objective of the sweep.
        steps: The estimates: None for attribution patching, a number for integrated gradients with that many steps.
        progress: Called after each batch of pairs.

    Returns:
        A table with one row per estimate: `site`, `direction`, `method`, `n_cells`, `spearman` and `pearson`; and a
        table of the cells with the largest differences: `exact`, `estimated` and `difference`.

    Raises:
        PatchingError: for a sweep that does not swap, for no steps, and as `attribute` and `agreement`.
    """
    if not steps:
        raise PatchingError("steps must not be empty; give at least one number of steps, or None for one gradient.")
    if sweep.how != "swap" or sweep.keys is not None or sweep.renormalize:
        raise PatchingError(
            f"Gradients estimate only plain swaps, got how={sweep.how!r}, keys={sweep.keys!r}, "
            f"renormalize={sweep.renormalize}; give a sweep with how='swap', without keys or renormalize."
        )
    rows, worst = [], []
    for n in steps:
        estimated = attribute(
            model,
            list(pairs.values()),
            sites=[sweep.site],
            by=sweep.by,
            direction=sweep.direction,
            objective=objective,
            steps=n,
            progress=progress,
        )[sweep.site].assign_coords(pair=np.array(list(pairs), dtype=int))
        found = agreement(exact, estimated)
        labels = {
            "site": sweep.site,
            "direction": sweep.direction,
            "method": "gradient" if n is None else f"integrated, {n}",
        }
        rows.append(labels | {"n_cells": found.n_cells, "spearman": found.spearman, "pearson": found.pearson})
        worst.append(found.worst.assign(**labels))
    return pd.DataFrame(rows), pd.concat(worst, ignore_index=True)
