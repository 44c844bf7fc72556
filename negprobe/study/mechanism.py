"""How the negation reaches the answer: the knock-outs of the cue, and the search for a circuit."""

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
from negprobe.study.shards import damaged_checkpoint
from negprobe.study.stages import KNOCK_OUT, KNOCK_OUT_SETS

# Half of the pairs are held out, and bootstrap intervals over much fewer than 20 pairs are too narrow.
MIN_CIRCUIT_PAIRS = 40
_MOST_CIRCUIT_PAIRS = 400

# The default limit on floating-point operations of the search: a few minutes on two CPU cores.
_SEARCH_WORK = {"cpu": 1.5e13, "other": 1.5e15}
# For the minimum number of pairs, the limit is this many times higher: 15 minutes for a model of BERT-base's size.
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
    """The knock-outs of the cue and, if there are enough pairs, the circuit.

    Args:
        model: The model.
        measured: The datasets of the study's stages by stage id, including the knock-outs.
        patched: The pairs of the knock-outs, by number.
        searched: The pairs to search for a circuit, by number; with fewer than `MIN_CIRCUIT_PAIRS` there is no search.
        why_few: The reason for having too few pairs, for the report.
        seed: Seed of the search.
        effort: Effort of the search (see `find_circuit`).
        objective: Objective of the search; by default the model's default.
        kept: The file to save the circuit to, or to load it from if the file exists.
        progress: Called during the search.
    """
    circuit, reason = _circuit(model, list(searched.values()), why_few, seed, effort, objective, kept, progress)
    read_pairs = searched if circuit is not None else patched
    return Mechanism(
        knock_out=measured[KNOCK_OUT.id].load(),
        knock_out_sets=measured[KNOCK_OUT_SETS.id].load(),
        circuit=circuit,
        no_circuit=reason,
        searched=tuple(searched) if circuit is not None else (),
        readings=AttentionProbe(model).readings([swap.pair for swap in read_pairs.values()]),
    )


def affordable_search(cfg: HookedEncoderConfig, tokens: int) -> int:
    """The number of pairs of `tokens` tokens that a circuit search can afford; 0 if that is too few."""
    n_components = cfg.n_layers * (cfg.n_heads + 1)
    # Ranking and search take about eight runs per component on half of the pairs, and the evaluation about two hundred
    # runs on the other half. A run uses 12 d_model² weights per layer, with two operations per weight and token.
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
            raise damaged_checkpoint(kept, str(error)) from error
    try:
        found = find_circuit(
            model,
            pairs,
            # With "mean", the circuit need not overcome the activations of the other statement.
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
