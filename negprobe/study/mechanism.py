"""The part of a study that asks how the negation reaches the answer: knock-outs of the cue, and the circuit."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import xarray as xr

from negprobe.attention import AttentionProbe
from negprobe.base.errors import PatchingError, TooFewPairsError
from negprobe.base.progress import Progress
from negprobe.models import HookedEncoder, HookedEncoderConfig
from negprobe.patching import Objective, find_circuit
from negprobe.patching.circuit_search import Effort
from negprobe.patching.circuits import Circuit
from negprobe.statements import Swap
from negprobe.study.results import Mechanism
from negprobe.study.shards import damaged
from negprobe.study.stages import KNOCK_OUT, KNOCK_OUT_SETS

# A circuit is proven on half of its pairs; bootstrap intervals over much fewer than 20 are too narrow.
MIN_CIRCUIT_PAIRS = 40
_MOST_CIRCUIT_PAIRS = 400

# Floating-point operations that the search may take unless asked for more: some minutes on two CPU cores.
_SEARCH_WORK = {"cpu": 1.5e13, "other": 1.5e15}
# As many times that for the fewest pairs: a quarter of an hour for a model of BERT-base's size.
_FEWEST_PAIRS_FACTOR = 6


def find_mechanism(
    model: HookedEncoder,
    measured: Mapping[str, xr.Dataset],
    patched: Mapping[int, Swap],
    searched: Mapping[int, Swap],
    why_few: str,
    *,
    seed: int,
    effort: Effort,
    objective: Objective | None = None,
    kept: Path | None = None,
    progress: Progress = lambda step, done, total: None,
) -> Mechanism:
    """Search the circuit, and put it beside the knock-outs of the cue.

    Args:
        model: The model.
        measured: What the study's stages measured, by their ids; the knock-outs are taken from it.
        patched: The pairs the cue was knocked out of, by their numbers.
        searched: The pairs to search the circuit on; if there are too few of them, none is searched.
        why_few: Why there are too few, for the report.
        seed: Of the search.
        effort: Of the search (see `find_circuit`).
        objective: Of the search; by default the model's default.
        kept: The file to keep the circuit in, and to read it from if it is there.
        progress: Called during the search.
    """
    circuit, reason = _circuit(model, list(searched.values()), why_few, seed, effort, objective, kept, progress)
    read = searched if circuit is not None else patched
    return Mechanism(
        knock_out=measured[KNOCK_OUT.id].load(),
        knock_out_sets=measured[KNOCK_OUT_SETS.id].load(),
        circuit=circuit,
        no_circuit=reason,
        searched=tuple(searched) if circuit is not None else (),
        readings=AttentionProbe(model).readings([swap.pair for swap in read.values()]),
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


def _circuit(
    model: HookedEncoder,
    pairs: Sequence[Swap],
    why_few: str,
    seed: int,
    effort: Effort,
    objective: Objective | None,
    kept: Path | None,
    progress: Progress,
) -> tuple[Circuit | None, str]:
    if len(pairs) < MIN_CIRCUIT_PAIRS:
        return None, f"the search needs at least {MIN_CIRCUIT_PAIRS} pairs, half of them held out, and {why_few}."
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
            direction="denoising",
            objective=objective,
            effort=effort,
            seed=seed,
            progress=progress,
        )
    except TooFewPairsError as error:
        return None, str(error)
    if kept is not None:
        found.save(kept)
    return found, ""
