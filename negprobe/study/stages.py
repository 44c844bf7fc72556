"""The stages of a study, in order.

Each stage computes one dataset for the pairs that meet its needs. To add a sweep, add an entry to `SWEPT`; to add
any other measurement, add a `Stage` to `STAGES`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

import xarray as xr

from negprobe.attention import AttentionProbe
from negprobe.models import HookedEncoder
from negprobe.patching import DIRECTIONS, Direction, Objective, Patch, objective_values, patch, patch_sweep
from negprobe.statements import ROLES, PreparedPair, StatementPair, Swap
from negprobe.statements.unknown import unknown_words_reported
from negprobe.study.engines import Measure

Needs = Literal["statements", "cue", "answer", "swap"]
"""The pairs that a stage measures: all pairs, those with a cue, those with an answer, or those chosen for patching."""

Differing = Literal["cue", "changed"]
"""The role of the words by which the statements of a study differ: "changed" if no pair has a cue."""

_PAIRS_IN_SHARD = 128
_PATCHED_IN_SHARD = 32

EVERYWHERE = "everywhere"
"""The knock-out of the cue or the changed words in all layers and at all queries."""


@dataclass(frozen=True)
class Stage:
    """One measurement of a study.

    Attributes:
        id: Names the files of its shards.
        title: What progress displays show.
        measure: Function from a model and pairs to a dataset along `pair`.
        needs: The pairs that it measures.
        pairs_in_shard: The number of pairs per shard.
    """

    id: str
    title: str
    measure: Measure
    needs: Needs
    pairs_in_shard: int


@dataclass(frozen=True)
class Sweep(Stage):
    """The patching of one site in one direction.

    Attributes:
        site: The site.
        by: The part that varies besides the layer.
        direction: "noising" or "denoising".
    """

    site: str
    by: Literal["head", "role"]
    direction: Direction


def with_objective(stage: Stage, patched: Objective, answers: Objective) -> Stage:
    """The stage with the objective of patches or of answers; a stage that has neither is returned unchanged."""
    objective = {"swap": patched, "answer": answers}.get(stage.needs)
    if objective is None:
        return stage
    measure: Callable[..., xr.Dataset] = stage.measure
    return replace(stage, measure=partial(measure, objective=objective))


def differing_role(pairs: Sequence[StatementPair]) -> Differing:
    """The role of the words by which the statements differ."""
    return "cue" if any(pair.cue_spans for pair in pairs) else "changed"


def with_differing(stage: Stage, role: Differing) -> Stage:
    """The stage with attention to the tokens of this role knocked out; other stages are returned unchanged."""
    if stage not in (KNOCK_OUT, KNOCK_OUT_SETS):
        return stage
    measure: Callable[..., xr.Dataset] = stage.measure
    return replace(stage, measure=partial(measure, keys=role))


@unknown_words_reported()
def _metrics(model: HookedEncoder, pairs: Sequence[PreparedPair]) -> xr.Dataset:
    return AttentionProbe(model).metrics(pairs)


@unknown_words_reported()
def _cue_shares(model: HookedEncoder, pairs: Sequence[PreparedPair]) -> xr.Dataset:
    shares = AttentionProbe(model).cue_shares(pairs)
    return shares.to_dataset(name="share").assign_attrs(shares.attrs)


def knock_out_patches(n_layers: int, keys: Differing = "cue") -> dict[str, Patch]:
    """The knock-outs of `keys` by name: in every layer and at every query, in one layer, or at the queries of a role.

    The names are the coordinate `patch` of the measured dataset.
    """
    patches = {EVERYWHERE: Patch("attn_scores", key_role=keys, how="knock_out")}
    patches |= {
        f"layer {layer}": Patch("attn_scores", layer, key_role=keys, how="knock_out") for layer in range(n_layers)
    }
    # A pair has a cue or changed words, and never both.
    return patches | {
        f"at {role}": Patch("attn_scores", role=role, key_role=keys, how="knock_out")
        for role in ROLES
        if role not in ("cue", "changed")
    }


def _knock_out_sets(
    model: HookedEncoder, pairs: Sequence[Swap], objective: Objective | None = None, keys: Differing = "cue"
) -> xr.Dataset:
    """The counterfactuals' runs in which no head of a layer, or no query of a role, attends to `keys`."""
    patches = knock_out_patches(model.cfg.n_layers, keys)
    found = patch(model, pairs, list(patches.values()), together=False, direction="denoising", objective=objective)
    return found.assign_coords(patch=list(patches))


def _sweep(site: str, by: Literal["head", "role"], direction: Direction) -> Sweep:
    return Sweep(
        id=f"patching-{site}-{direction}",
        title=f"patching {site}, {direction}",
        measure=partial(patch_sweep, site=site, by=by, direction=direction),
        needs="swap",
        pairs_in_shard=_PATCHED_IN_SHARD,
        site=site,
        by=by,
        direction=direction,
    )


SWEPT: dict[str, Literal["head", "role"]] = {"resid_pre": "role", "attn_out": "role", "mlp_out": "role", "z": "head"}
"""The sites a study patches in both directions, and the part that varies besides the layer."""

SWEEPS = tuple(_sweep(site, by, direction) for site, by in SWEPT.items() for direction in DIRECTIONS)
"""The patching stages."""

HEAD_METRICS = Stage("metrics", "measuring every head", _metrics, "statements", _PAIRS_IN_SHARD)
CUE_SHARES = Stage("cue-shares", "measuring what the cue contributes", _cue_shares, "cue", _PAIRS_IN_SHARD)
ANSWERS = Stage("answers", "reading the answers", objective_values, "answer", _PAIRS_IN_SHARD)
KNOCK_OUT = Stage(
    "knock-out",
    "knocking out the cue by head",
    partial(patch_sweep, site="attn_scores", by="head", direction="denoising", how="knock_out", keys="cue"),
    "swap",
    _PATCHED_IN_SHARD,
)
KNOCK_OUT_SETS = Stage("knock-out-sets", "knocking out the cue", _knock_out_sets, "swap", _PATCHED_IN_SHARD)

STAGES: tuple[Stage, ...] = (HEAD_METRICS, CUE_SHARES, ANSWERS, *SWEEPS, KNOCK_OUT, KNOCK_OUT_SETS)
"""All stages of a study, in order."""
