"""The main job: a model and statement pairs in, a folder with a report, figures and every number out."""

import time
from collections.abc import Mapping, Sequence
from functools import cache
from itertools import zip_longest
from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr

from negprobe.attention import METRICS, AttentionProbe
from negprobe.attention.affordable import compared_for_page
from negprobe.attention.contribution_maps import contribution_work
from negprobe.base.arguments import checked
from negprobe.base.errors import InputError, PatchingError, StudyError
from negprobe.base.progress import Progress
from negprobe.base.provenance import versions
from negprobe.base.texts import is_utf8, quoted
from negprobe.models import HookedEncoder, HookedEncoderConfig
from negprobe.patching import DIRECTIONS, Direction, answerable, objective_named, objective_values, patch_sweep
from negprobe.patching.circuit_search import Effort
from negprobe.patching.ready import readable_pairs
from negprobe.patching.runs import tokenizer_of
from negprobe.statements import (
    ROLES,
    PreparedPair,
    StatementPair,
    Swap,
    control_swap,
    has_gap,
    pair_notes,
)
from negprobe.statements.unknown import unknown_words_reported
from negprobe.statistics import MIN_PAIRS, effect_tests, negation_effects, replication
from negprobe.study.engines import Engine, in_process, released
from negprobe.study.folder import DEFAULT_OBJECTIVE, identity, key, noted_environments, options_of_study
from negprobe.study.formats import FORMAT
from negprobe.study.mechanism import affordable_search, find_mechanism
from negprobe.study.results import StudyResults
from negprobe.study.shards import Sharding
from negprobe.study.stages import ANSWERS, CUE_SHARES, HEAD_METRICS, STAGES, SWEEPS, SWEPT, Needs, Stage, with_objective

_N_EXAMPLES = 8

# Bytes of effects that are read from the shards once, and not at every test.
_IN_MEMORY = 2**28

# NetCDF 3, which the tests are kept in, holds integers of 32 bits.
_SEEDS = 2**31

# Floating-point operations that patching may take unless asked for more: some five minutes on two CPU cores.
_PATCHING_WORK = {"cpu": 1.5e13, "other": 1.5e15}

# The same for what the cue contributes, whose matrix products are larger: some five minutes on two CPU cores too.
_CONTRIBUTION_WORK = {"cpu": 6e13, "other": 6e15}
# It is split into this many shards of some ten seconds, because progress is shown, and a study resumed, by shards.
_CONTRIBUTION_SHARDS = 30


@checked
@unknown_words_reported()
def run_study(
    model: HookedEncoder,
    pairs: Sequence[StatementPair],
    *,
    source: str = "pairs",
    dropped: Sequence[str] = (),
    patch_pairs: int | None = None,
    circuit_pairs: int | None = None,
    contribution_pairs: int | None = None,
    circuit_effort: Effort = "fast",
    objective: str | None = None,
    seed: int = 0,
    shards: str | Path | None = None,
    engine: Engine | None = None,
    progress: Progress = lambda step, done, total: None,
) -> StudyResults:
    """Measure every head and patch every site on many pairs.

    Original and counterfactual are compared on aligned tokens, and so are original and control, which tells negation
    from an inserted word. For patching, a pair that has a length-matched control swaps between control and
    counterfactual, where the cue itself has a partner ("now" and "not"); any other swaps between original and
    counterfactual at aligned tokens.

    Args:
        model: A model with a tokenizer.
        pairs: The pairs.
        source: Where they came from, for the report.
        dropped: Pairs that were left out before, with the reason, for the report.
        patch_pairs: Patch at most this many pairs, taken evenly from the kinds of cue and data sets; by default as many
            as take a few minutes.
        circuit_pairs: Search the circuit on at most this many pairs, taken in the same way; by default as many as take
            a few minutes.
        contribution_pairs: Measure what the cue contributes (`AttentionProbe.cue_shares`) on at most this many pairs,
            taken in the same way; by default as many as take a few minutes, so fewer if texts are long. With 0 it is
            not measured, and the interactive views have no value zeroing either.
        circuit_effort: How many sets of components the circuit's search evaluates, "fast" or "thorough" (see
            `find_circuit`).
        objective: What patches and circuit move: a name of `OBJECTIVES`, or "cosine:SENTENCE" (see `objective_named`);
            by default `default_objective(model)`. Answers are read with the default in any case.
        seed: Seed of the bootstrap, the sign flips and the circuit's search.
        shards: A folder to keep in what is measured, shard by shard, and to go on from if this study was stopped (see
            `study_folder`); without one all is held in memory.
        engine: The execution backend, this process by default; its workers are released (see `engines.release`) when
            the last shard is in.
        progress: Called with each step, and how many of its pairs are done of how many.

    Raises:
        PatchingError: for pairs to search a circuit on, but none to patch, and for an objective that the model or a
            pair does not have.
        InputError: for a negative number of pairs, an invalid seed, or text that UTF-8 cannot represent.
        StudyError: for a shard that is damaged or another study's, or cannot be written.
        StatementError: if no pair can be measured.
    """
    _check_options(patch_pairs, circuit_pairs, contribution_pairs, seed, source)
    if patch_pairs == 0 and circuit_pairs:
        raise PatchingError("A circuit is a part of the patching; let at least one pair be patched, or search none.")
    options = options_of_study(
        model,
        patch_pairs=patch_pairs,
        circuit_pairs=circuit_pairs,
        contribution_pairs=contribution_pairs,
        circuit_effort=circuit_effort,
        seed=seed,
        objective=objective,
    )
    patched_objective = objective_named(model, objective)
    start = time.perf_counter()
    readable = readable_pairs(model, pairs)
    members = list(readable.pairs.values())
    kept = [member.pair for member in members]
    notes = (*pair_notes(pairs), *_filled_gaps(model, pairs))
    probe = AttentionProbe(model)
    folder = None
    if shards is not None:
        # A folder for each study and format, so that shards of another one are never read.
        folder = Path(shards) / key(identity(model, pairs, options | {"format": FORMAT}))
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except (OSError, ValueError) as error:  # what no folder can be called is a ValueError
            raise StudyError(
                f"The folder {str(folder)!a} cannot be made: {error}. Choose another for the shards."
            ) from error
    environments = [versions()] if folder is None else noted_environments(folder)
    sharding = Sharding(engine or in_process(model), folder, progress)
    asked = answerable(model, kept)
    longest = max(len(member.sides[1]) for member in members)
    if patch_pairs is None:
        patch_pairs = _affordable(model.cfg, longest)
    sample = _even_sample(asked.pairs, patch_pairs)
    swap = cache(lambda index: control_swap(asked.pairs[index], tokenizer_of(model)))
    patched = {index: swap(index) for index in sample}
    contributing, size = _contributing(model, members, contribution_pairs)
    chosen: dict[Needs, Mapping[int, StatementPair | PreparedPair | Swap]] = {
        "statements": dict(enumerate(members)),
        "cue": contributing,
        "answer": asked.pairs,
        "swap": patched,
    }
    stages: Sequence[Stage] = STAGES
    if options["objective"] != DEFAULT_OBJECTIVE:
        # An objective that a pair does not have is refused now, not after hours.
        objective_values(model, [asked.pairs[index] for index in sample], patched_objective)
        stages = [with_objective(stage, patched_objective) for stage in STAGES]
    with released(sharding.engine):
        measured = {
            stage.id: sharding.measured(stage, chosen[stage.needs], size if stage is CUE_SHARES else None)
            for stage in stages
            if chosen[stage.needs]
        }
    metrics = measured[HEAD_METRICS.id]
    shares = measured[CUE_SHARES.id].load() if contributing else _no_shares(model)
    answers = _answers(asked.pairs, measured.get(ANSWERS.id))
    results = {(sweep.site, sweep.direction): measured[sweep.id].load() for sweep in SWEEPS if patched}

    progress("testing every head", 0, 1)
    share_effects = negation_effects(shares["share"].to_dataset("measure").assign_attrs(shares.attrs))
    tests, replications = _tested(metrics, seed)
    progress("testing every head", 1, 1)

    why_few = f"only {len(asked.pairs)} pairs can be patched; give more"
    if circuit_pairs is None:
        circuit_pairs = affordable_search(model.cfg, longest)
        if not circuit_pairs:
            why_few = "on a model of this size it takes long, so it runs only if the number of pairs is set"
    elif circuit_pairs < len(asked.pairs):
        why_few = f"the number of pairs was set to {circuit_pairs}"
    mechanism = None
    if patched:
        searched = {index: swap(index) for index in _even_sample(asked.pairs, circuit_pairs)}
        mechanism = find_mechanism(
            model,
            measured,
            patched,
            searched,
            why_few,
            seed=seed,
            effort=circuit_effort,
            objective=patched_objective,
            kept=None if folder is None else folder / "circuit.json",
            progress=progress,
        )
    shown = _examples(kept, list(asked.pairs), answers)
    to_show = [kept[index] for index in shown]
    examples = probe.compare(to_show) if contribution_pairs == 0 else compared_for_page(probe, to_show)
    positions: dict[Direction, xr.Dataset] = {}
    if patched:
        positions = {
            direction: patch_sweep(
                model, swap(shown[0]), "resid_pre", by="position", direction=direction, objective=patched_objective
            )
            for direction in DIRECTIONS
        }
    return StudyResults(
        cfg=model.cfg,
        source=source,
        pairs=tuple(kept),
        dropped=(*dropped, *readable.left_out),
        unpatched=tuple(f"pair {index}: {why}" for index, why in asked.unanswerable.items()),
        unknown_words=readable.unknown_words,
        metrics=metrics,
        cue_shares=shares["share"].assign_attrs(shares.attrs),
        cue_share_tests=effect_tests(share_effects, seed=seed) if _any_defined(share_effects) else None,
        tests=tests,
        replications=replications,
        answers=answers,
        own_labels=bool(asked.own_labels),
        objective=str(options["objective"]),
        patching=results,
        patched=tuple(sample),
        from_control=sum(asked.pairs[index].control is not None for index in sample),
        positions=positions,
        mechanism=mechanism,
        examples=tuple(examples),
        environments=tuple(environments),
        seconds=time.perf_counter() - start,
        seed=seed,
        notes=notes,
        same_labels=asked.same_labels,
    )


def _check_options(
    patch_pairs: int | None, circuit_pairs: int | None, contribution_pairs: int | None, seed: int, source: str
) -> None:
    """Refuse before anything is measured what would fail after all of it."""
    counts = {"patch_pairs": patch_pairs, "circuit_pairs": circuit_pairs, "contribution_pairs": contribution_pairs}
    for name, count in counts.items():
        if count is not None and count < 0:
            raise InputError(f"{name}={count}, but it must be at least 0, or None for as many as take a few minutes.")
    if not 0 <= seed < _SEEDS:
        raise InputError(f"seed={quoted(seed)}, but a seed is a whole number from 0 to {_SEEDS - 1}.")
    if not is_utf8(source):
        raise InputError(f"The source {quoted(source)} is not valid UTF-8 text; choose another name.")


def _tested(metrics: xr.Dataset, seed: int) -> tuple[xr.Dataset | None, dict[str, xr.Dataset]]:
    """The tests of every metric and head over the pairs that have a control, all together and group by group."""
    effects = negation_effects(metrics[list(METRICS)])
    if effects.nbytes <= _IN_MEMORY:
        # Each group of pairs would read the shards again.
        effects = effects.load()
    if not _any_defined(effects):
        return None, {}
    replications = {}
    controlled = effects.isel(pair=effects[METRICS[0]].notnull().any(("layer", "head")).values)
    for by in ("cue", "source"):
        sizes = pd.Series(controlled[by].values).value_counts()
        if (sizes >= MIN_PAIRS).sum() > 1:
            replications[by] = replication(effects, effects[by], seed=seed)
    return effect_tests(effects, seed=seed), replications


def _any_defined(effects: xr.Dataset) -> bool:
    return bool(effects.to_array().notnull().any())


def _filled_gaps(model: HookedEncoder, pairs: Sequence[StatementPair]) -> list[str]:
    """A note that the gaps of the pairs were filled, for a model that predicts no words; empty if there were none."""
    n_gaps = 0 if model.cfg.head == "masked_lm" else sum(has_gap(pair) and pair.target is not None for pair in pairs)
    if not n_gaps:
        return []
    return [
        f"The model has no masked-LM head, so the [MASK] of {n_gaps} of {len(pairs)} pairs was filled with the target, "
        "in the original, the counterfactual and the control alike."
    ]


def _affordable(cfg: HookedEncoderConfig, tokens: int) -> int:
    """How many pairs of so many tokens can be patched at every layer, role and head, both ways, in `_PATCHING_WORK`."""
    patches = len(DIRECTIONS) * cfg.n_layers * sum(cfg.n_heads if by == "head" else len(ROLES) for by in SWEPT.values())
    # Half the layers on average, each of 12 d_model² weights, two operations a weight and token.
    work = patches * tokens * cfg.n_layers / 2 * 12 * cfg.d_model**2 * 2
    return max(1, int(_PATCHING_WORK.get(str(cfg.device), _PATCHING_WORK["other"]) / work))


def _even_sample(pairs: Mapping[int, StatementPair], n: int) -> list[int]:
    """At most `n` of the pairs, in turn from every data set and kind of cue, in their order."""
    groups: dict[tuple[str, str | None], list[int]] = {}
    for index, pair in pairs.items():
        groups.setdefault((pair.source, pair.cue), []).append(index)
    in_turn = [index for turn in zip_longest(*groups.values()) for index in turn if index is not None]
    return sorted(in_turn[:n])


def _contributing(
    model: HookedEncoder, members: Sequence[PreparedPair], most: int | None
) -> tuple[dict[int, PreparedPair], int]:
    """The pairs to measure the cue's contribution on, and how many at once.

    They are an even sample of the pairs with a cue: at most `most`, or by default what is affordable. The cost is
    estimated from the lengths of the texts, before anything is measured.
    """
    with_cue = {index: member for index, member in enumerate(members) if member.pair.cue_spans}
    if not with_cue or most == 0:
        return {}, 1
    work = [
        contribution_work(model.cfg, len(member.sides[1])) * (2 if member.pair.control else 1)
        for member in with_cue.values()
    ]
    budget = _CONTRIBUTION_WORK.get(model.device.type, _CONTRIBUTION_WORK["other"])
    mean = sum(work) / len(work)
    most = max(1, int(budget / mean)) if most is None else most
    sample = _even_sample({index: member.pair for index, member in with_cue.items()}, most)
    size = min(CUE_SHARES.pairs_in_shard, max(1, int(budget / _CONTRIBUTION_SHARDS / mean)))
    return {index: with_cue[index] for index in sample}, size


def _no_shares(model: HookedEncoder) -> xr.Dataset:
    return CUE_SHARES.measure(model, []).assign_coords(pair=np.array([], dtype=int))


def _answers(pairs: Mapping[int, StatementPair], values: xr.Dataset | None) -> pd.DataFrame:
    """The objective of each run of each pair, with the kind of each pair."""
    named = pd.DataFrame(
        {
            "pair": list(pairs),
            "cue": [pair.cue or "" for pair in pairs.values()],
            "category": [pair.category for pair in pairs.values()],
        }
    )
    if values is None:
        return named.assign(original=[], counterfactual=[], control=[])
    return pd.concat([named, values.to_dataframe().reset_index(drop=True)], axis=1)


def _examples(pairs: Sequence[StatementPair], answered: list[int], answers: pd.DataFrame) -> list[int]:
    """Pairs to show: one a kind of cue, "not" before the others, with the largest swing where there is an objective."""
    if answered:
        swing = (answers["original"] - answers["counterfactual"]).abs()
        order = [answered[row] for row in swing.sort_values(ascending=False).index]
    else:
        order = list(range(len(pairs)))
    first_of_cue = {pairs[index].cue: index for index in reversed(order)}
    chosen = [index for index in order if index in first_of_cue.values()]
    chosen.sort(key=lambda index: pairs[index].cue != "not")
    rest = [index for index in order if index not in chosen]
    return [*chosen, *rest][:_N_EXAMPLES]
