"""The part of a study that asks how the negation reaches the answer: knock-outs of the cue, and the circuit."""

from collections.abc import Mapping, Sequence
from functools import partial

import xarray as xr

from negprobe.attention import AttentionProbe
from negprobe.base.errors import PatchingError
from negprobe.models import HookedEncoder, HookedEncoderConfig
from negprobe.patching import Patch, find_circuit, patch, patch_sweep
from negprobe.patching.circuit_search import Effort
from negprobe.patching.circuits import Circuit
from negprobe.statements import ROLES, StatementPair
from negprobe.study.engines import release
from negprobe.study.results import Mechanism
from negprobe.study.shards import Sharding, damaged

PATCHED_IN_SHARD = 32
"""How many pairs are patched at once."""

# A circuit is proven on half of its pairs; bootstrap intervals over much fewer than 20 are too narrow.
MIN_CIRCUIT_PAIRS = 40
_MOST_CIRCUIT_PAIRS = 400

# Floating-point operations that the search may take unless asked for more: some minutes on two CPU cores.
_SEARCH_WORK = {"cpu": 1.5e13, "other": 1.5e15}
# As many times that for the fewest pairs: a quarter of an hour for a model of BERT-base's size.
_FEWEST_PAIRS_FACTOR = 6

_EVERYWHERE = "everywhere"


def find_mechanism(
    model: HookedEncoder,
    patched: Mapping[int, StatementPair],
    searched: Mapping[int, StatementPair],
    why_few: str,
    *,
    seed: int,
    effort: Effort,
    sharding: Sharding,
) -> Mechanism:
    """Knock the cue out, and search the circuit.

    Args:
        model: The model.
        patched: The pairs to knock the cue out of, by their numbers.
        searched: The pairs to search the circuit on; if there are too few of them, none is.
        why_few: Why there are too few, for the report.
        seed: Of the search.
        effort: Of the search (see `find_circuit`).
        sharding: How it is measured.
    """
    knock_out, sets = _knock_outs(model, patched, sharding)
    # These are a study's last shards; the search runs in this process, and may take minutes.
    release(sharding.engine)
    circuit, reason = _circuit(model, list(searched.values()), why_few, seed, effort, sharding)
    read = searched if circuit is not None else patched
    return Mechanism(
        knock_out=knock_out,
        knock_out_sets=sets,
        circuit=circuit,
        no_circuit=reason,
        searched=tuple(searched) if circuit is not None else (),
        readings=AttentionProbe(model).readings(list(read.values())),
    )


def affordable_search(cfg: HookedEncoderConfig, tokens: int) -> int:
    """How many pairs of so many tokens a circuit can be searched and proven on in `_SEARCH_WORK`; 0 if too few."""
    n_components = cfg.n_layers * (cfg.n_heads + 1)
    # Ranking and search take some eight runs a component on half of the pairs, the proof some two hundred on the
    # other half; each of 12 d_model² weights a layer, two operations a weight and token.
    runs = (8 * n_components + 200) / 2
    work = runs * tokens * cfg.n_layers * 12 * cfg.d_model**2 * 2
    affordable = _SEARCH_WORK.get(str(cfg.device), _SEARCH_WORK["other"])
    n = min(_MOST_CIRCUIT_PAIRS, int(affordable / work))
    if n >= MIN_CIRCUIT_PAIRS:
        return n
    return MIN_CIRCUIT_PAIRS if MIN_CIRCUIT_PAIRS * work <= _FEWEST_PAIRS_FACTOR * affordable else 0


def _knock_outs(
    model: HookedEncoder, patched: Mapping[int, StatementPair], sharding: Sharding
) -> tuple[xr.Dataset, xr.Dataset]:
    """The counterfactuals' runs in which one head, or more, may not look at the cue."""
    by_head = partial(patch_sweep, site="attn_scores", by="head", direction="denoising", how="knock_out", keys="cue")
    chosen = {_EVERYWHERE: Patch("attn_scores", key_role="cue", how="knock_out")}
    chosen |= {
        f"layer {layer}": Patch("attn_scores", layer, key_role="cue", how="knock_out")
        for layer in range(model.cfg.n_layers)
    }
    chosen |= {
        f"at {role}": Patch("attn_scores", role=role, key_role="cue", how="knock_out")
        for role in ROLES
        if role != "cue"
    }
    sets = partial(patch, patches=list(chosen.values()), together=False, direction="denoising")
    knocked_out = sharding.measured("knocking out the cue by head", by_head, patched, PATCHED_IN_SHARD).load()
    together = sharding.measured("knocking out the cue", sets, patched, PATCHED_IN_SHARD).load()
    return knocked_out, together.assign_coords(patch=list(chosen))


def _circuit(
    model: HookedEncoder,
    pairs: Sequence[StatementPair],
    why_few: str,
    seed: int,
    effort: Effort,
    sharding: Sharding,
) -> tuple[Circuit | None, str]:
    if len(pairs) < MIN_CIRCUIT_PAIRS:
        return None, f"the search needs at least {MIN_CIRCUIT_PAIRS} pairs, half of them held out, and {why_few}."
    kept = None if sharding.folder is None else sharding.folder / "circuit.json"
    if kept is not None and kept.exists():
        try:
            return Circuit.load(kept, model), ""
        except PatchingError as error:
            raise damaged(kept, str(error)) from error
    try:
        found = find_circuit(
            model,
            pairs,
            # What is left has to do the work alone, and need not outweigh what the other statement's run says.
            ablation="mean",
            effort=effort,
            seed=seed,
            progress=lambda step, done, total: sharding.progress(f"searching the circuit: {step}", done, total),
        )
    except PatchingError as error:
        return None, str(error)
    if kept is not None:
        found.save(kept)
    return found, ""
