"""A study: measure and patch every head of a model on many statement pairs, and test the effects of negation."""

import time
from collections.abc import Mapping, Sequence
from functools import cache
from itertools import zip_longest
from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr

from negprobe.attention import AttentionProbe
from negprobe.attention.affordable import compared_for_page
from negprobe.attention.contribution_maps import contribution_work
from negprobe.base.arguments import checked
from negprobe.base.errors import InputError, PatchingError, StudyError
from negprobe.base.progress import Progress
from negprobe.base.provenance import versions
from negprobe.base.texts import is_utf8, quoted
from negprobe.models import HookedEncoder, HookedEncoderConfig
from negprobe.patching import (
    DIRECTIONS,
    Direction,
    answerable,
    default_objective,
    objective_named,
    objective_values,
    patch_sweep,
    score_margin,
)
from negprobe.patching.circuit_search import Effort
from negprobe.patching.ready import readable_pairs
from negprobe.patching.runs import tokenizer_of
from negprobe.statements import (
    CUE_KINDS,
    ROLES,
    PreparedPair,
    StatementPair,
    Swap,
    control_swap,
    english_lexicon,
    has_gap,
    lexicon_in_use,
    pair_notes,
)
from negprobe.statements.unknown import unknown_words_reported
from negprobe.statistics import SMALLEST_EFFECT, negation_effects
from negprobe.statistics.effects import check_smallest_effect
from negprobe.study.alignments import alignment_table
from negprobe.study.effect_tests import clustered_tests, study_tests
from negprobe.study.engines import Engine, in_process, released
from negprobe.study.folder import DEFAULT_OBJECTIVE, identity, key, noted_environments, options_of_study
from negprobe.study.formats import FORMAT
from negprobe.study.mechanism import affordable_search, find_mechanism
from negprobe.study.results import StudyResults
from negprobe.study.shards import Sharding
from negprobe.study.stages import (
    ANSWERS,
    CUE_SHARES,
    HEAD_METRICS,
    STAGES,
    SWEEPS,
    SWEPT,
    Needs,
    differing_role,
    with_differing,
    with_objective,
)

_N_EXAMPLES = 8

# Seeds are below this, because the tests are written as NetCDF 3, which has 32-bit integers.
_SEEDS = 2**31

# The default budget of patching in floating-point operations, per device: about five minutes on two CPU cores.
_PATCHING_WORK = {"cpu": 1.5e13, "other": 1.5e15}

# The default budget of the cue's contributions. It is larger for the same time, because its matrix products are larger.
_CONTRIBUTION_WORK = {"cpu": 6e13, "other": 6e15}
# The number of shards in this budget, about ten seconds each: a study shows progress, and resumes, shard by shard.
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
    smallest_effect: float = SMALLEST_EFFECT,
    seed: int = 0,
    shards: str | Path | None = None,
    engine: Engine | None = None,
    progress: Progress = lambda step, done, total: None,
) -> StudyResults:
    """The results of a study: every head measured and every site patched on many pairs, with tests and a circuit.

    The original is compared with the counterfactual and with the control on aligned tokens; the difference separates
    the effect of negation from that of inserting any word. If a pair has a length-matched control, patching swaps
    activations between control and counterfactual, so that the cue itself is aligned with a word ("now" and "not").
    Otherwise it swaps between original and counterfactual, at aligned tokens only. Cues are those of the lexicon in use
    (see `statements.use_lexicon`).

    Args:
        model: A model with a tokenizer.
        pairs: The pairs.
        source: Where the pairs come from, for the report.
        dropped: Pairs that were left out before, with the reason, for the report.
        patch_pairs: Maximum number of pairs to patch, sampled evenly over cue types and data sets; by default what
            takes a few minutes.
        circuit_pairs: Maximum number of pairs to search the circuit on, sampled in the same way; by default what takes
            a few minutes.
        contribution_pairs: Maximum number of pairs to measure the cue's contribution on (`AttentionProbe.cue_shares`),
            sampled in the same way; by default what takes a few minutes. With 0 it is not measured, and the interactive
            views lack value zeroing too.
        circuit_effort: How many sets of components the circuit search evaluates, "fast" or "thorough" (see
            `find_circuit`).
        objective: The objective of patching and of the circuit: a name of `OBJECTIVES`, or "cosine:SENTENCE" (see
            `objective_named`); by default `default_objective(model, pairs)`. Answers use
            the default objective, or the margin of two documents if that is patched.
        smallest_effect: The smallest effect of interest, as |d_z| (see `statistics.responding`). It does not change
            what is measured.
        seed: Seed of the bootstrap, the sign flips and the circuit search.
        shards: A folder for the measured shards, from which a stopped study resumes (see `study_folder`); by default
            all results are held in memory.
        engine: The execution backend, by default this process. Its workers are released after the last shard (see
            `engines.release`).
        progress: Called with the name of each step, and the number of pairs that are done and in total.

    Raises:
        PatchingError: if `patch_pairs` is 0 but `circuit_pairs` is not, or for an objective that the model or a pair
            does not have.
        InputError: for a negative number of pairs, an invalid seed, or text that is not valid UTF-8.
        StudyError: for a shard that is damaged, belongs to another study, or cannot be written.
        StatementError: if no pair can be measured.
    """
    _check_options(patch_pairs, circuit_pairs, contribution_pairs, seed, source)
    check_smallest_effect(smallest_effect)
    if patch_pairs == 0 and circuit_pairs:
        raise PatchingError("A circuit search needs patched pairs; set patch_pairs above 0, or circuit_pairs to 0.")
    options = options_of_study(
        model,
        patch_pairs=patch_pairs,
        circuit_pairs=circuit_pairs,
        contribution_pairs=contribution_pairs,
        circuit_effort=circuit_effort,
        seed=seed,
        objective=objective,
        pairs=pairs,
    )
    patched_objective = objective_named(model, objective, pairs)
    start = time.perf_counter()
    readable = readable_pairs(model, pairs)
    members = list(readable.pairs.values())
    kept = [member.pair for member in members]
    notes = (*pair_notes(pairs), *_filled_gaps(model, pairs), *_prompt(model), *_other_cues())
    probe = AttentionProbe(model)
    folder = None
    if shards is not None:
        # Each study and format version has its own folder, so that the shards of another one are never read.
        folder = Path(shards) / key(identity(model, pairs, options | {"format": FORMAT}))
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except (OSError, ValueError) as error:  # ValueError: not a valid name of a folder
            raise StudyError(
                f"The folder {str(folder)!a} cannot be created: {error}. Choose another folder for the shards."
            ) from error
    environments = [versions()] if folder is None else noted_environments(folder)
    sharding = Sharding(engine or in_process(model), folder, progress)
    answerable_pairs = answerable(model, kept)
    longest = max(len(member.sides[1]) for member in members)
    if patch_pairs is None:
        patch_pairs = _affordable(model.cfg, longest)
    sample = _even_sample(answerable_pairs.pairs, patch_pairs)
    swap = cache(lambda index: control_swap(answerable_pairs.pairs[index], tokenizer_of(model)))
    patched = {index: swap(index) for index in sample}
    contributing, size = _contributing(model, members, contribution_pairs)
    chosen: dict[Needs, Mapping[int, StatementPair | PreparedPair | Swap]] = {
        "statements": dict(enumerate(members)),
        "cue": contributing,
        "answer": answerable_pairs.pairs,
        "swap": patched,
    }
    if options["objective"] != DEFAULT_OBJECTIVE:
        # Raises now, and not after hours, if a pair does not have the objective.
        objective_values(model, [answerable_pairs.pairs[index] for index in sample], patched_objective)
    # Never left to the stages: the default for some of the pairs can be another than for all of them.
    answers_objective = patched_objective if patched_objective is score_margin else default_objective(model)
    stages = [
        with_objective(with_differing(stage, differing_role(kept)), patched_objective, answers_objective)
        for stage in STAGES
    ]
    with released(sharding.engine):
        measured = {
            stage.id: sharding.measured(stage, chosen[stage.needs], size if stage is CUE_SHARES else None)
            for stage in stages
            if chosen[stage.needs]
        }
    metrics = measured[HEAD_METRICS.id]
    shares = measured[CUE_SHARES.id].load() if contributing else _no_shares(model)
    answers = _answers(answerable_pairs.pairs, measured.get(ANSWERS.id))
    results = {(sweep.site, sweep.direction): measured[sweep.id].load() for sweep in SWEEPS if patched}

    progress("testing every head", 0, 1)
    share_effects = negation_effects(shares["share"].to_dataset("measure").assign_attrs(shares.attrs))
    tested = study_tests(metrics, seed)
    progress("testing every head", 1, 1)

    why_few = f"only {len(answerable_pairs.pairs)} pairs can be patched; add more pairs"
    if circuit_pairs is None:
        circuit_pairs = affordable_search(model.cfg, longest)
        if not circuit_pairs:
            why_few = "it takes long on a model of this size, so it runs only if the number of pairs is set"
    elif circuit_pairs < len(answerable_pairs.pairs):
        why_few = f"the number of pairs was set to {circuit_pairs}"
    mechanism = None
    if patched:
        searched = {index: swap(index) for index in _even_sample(answerable_pairs.pairs, circuit_pairs)}
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
    shown = _examples(kept, list(answerable_pairs.pairs), answers)
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
        alignments=alignment_table(members),
        dropped=(*dropped, *readable.left_out),
        unpatched=tuple(f"pair {index}: {why}" for index, why in answerable_pairs.unanswerable.items()),
        unknown_words=readable.unknown_words,
        metrics=metrics,
        cue_shares=shares["share"].assign_attrs(shares.attrs),
        cue_share_tests=clustered_tests(share_effects, seed),
        tests=tested.tests,
        replications=tested.replications,
        answers=answers,
        own_labels=bool(answerable_pairs.own_labels),
        objective=str(options["objective"]),
        patching=results,
        patched=tuple(sample),
        from_control=sum(answerable_pairs.pairs[index].control is not None for index in sample),
        positions=positions,
        mechanism=mechanism,
        examples=tuple(examples),
        environments=tuple(environments),
        seconds=time.perf_counter() - start,
        seed=seed,
        notes=notes,
        same_labels=answerable_pairs.same_labels,
        new_cues=tested.new_cues,
        correlations=tested.correlations,
        smallest_effect=smallest_effect,
    )


def _check_options(
    patch_pairs: int | None, circuit_pairs: int | None, contribution_pairs: int | None, seed: int, source: str
) -> None:
    """Check arguments that would otherwise fail only after everything has been measured."""
    counts = {"patch_pairs": patch_pairs, "circuit_pairs": circuit_pairs, "contribution_pairs": contribution_pairs}
    for name, count in counts.items():
        if count is not None and count < 0:
            raise InputError(f"{name} must be at least 0, or None for automatic, got {count}.")
    if not 0 <= seed < _SEEDS:
        raise InputError(f"seed must be a whole number from 0 to {_SEEDS - 1}, got {quoted(seed)}.")
    if not is_utf8(source):
        raise InputError(f"The source {quoted(source)} is not valid UTF-8 text; choose another name.")


def _filled_gaps(model: HookedEncoder, pairs: Sequence[StatementPair]) -> list[str]:
    """A note that the gaps in the pairs were filled, if the model has no masked-LM head and there are any; or empty."""
    n_gaps = 0 if model.cfg.head == "masked_lm" else sum(has_gap(pair) and pair.target is not None for pair in pairs)
    if not n_gaps:
        return []
    return [
        f"The model has no masked-LM head, so the [MASK] of {n_gaps} of {len(pairs)} pairs was filled with the target, "
        "in the original, the counterfactual and the control alike."
    ]


def _prompt(model: HookedEncoder) -> list[str]:
    """A note of the model's prompt, if it has one; or empty."""
    if not model.cfg.prompt:
        return []
    return [f"The model's prompt, {quoted(model.cfg.prompt)}, was put before each statement."]


def _other_cues() -> list[str]:
    """A note that the lexicon in use is not the default one, if it is not; or empty."""
    lexicon = lexicon_in_use()
    if lexicon == english_lexicon():
        return []
    others = [quoted(kind) for kind in lexicon.searched if kind not in CUE_KINDS]
    return [
        f"Negations were found with a user-defined lexicon of cues (fingerprint {lexicon.fingerprint}), which has "
        f"{len(others)} kinds of cues more than the default{': ' + ', '.join(others[:10]) if others else ''}"
        f"{', …' if len(others) > 10 else ''}."
    ]


def _affordable(cfg: HookedEncoderConfig, tokens: int) -> int:
    """The number of pairs of so many tokens that `_PATCHING_WORK` allows to patch: every site, in both directions."""
    patches = len(DIRECTIONS) * cfg.n_layers * sum(cfg.n_heads if by == "head" else len(ROLES) for by in SWEPT.values())
    # A patch runs half the layers on average. A layer has 12 d_model² weights, with 2 operations per weight and token.
    work = patches * tokens * cfg.n_layers / 2 * 12 * cfg.d_model**2 * 2
    return max(1, int(_PATCHING_WORK.get(str(cfg.device), _PATCHING_WORK["other"]) / work))


def _even_sample(pairs: Mapping[int, StatementPair], n: int) -> list[int]:
    """The indices of at most `n` pairs, drawn in turn from each data set and cue type; sorted."""
    groups: dict[tuple[str, str | None], list[int]] = {}
    for index, pair in pairs.items():
        groups.setdefault((pair.source, pair.cue), []).append(index)
    in_turn = [index for turn in zip_longest(*groups.values()) for index in turn if index is not None]
    return sorted(in_turn[:n])


def _contributing(
    model: HookedEncoder, members: Sequence[PreparedPair], maximum: int | None
) -> tuple[dict[int, PreparedPair], int]:
    """The pairs to measure the cue's contribution on, and the number of pairs per shard.

    The pairs are an even sample of those with a cue: at most `maximum`, or what the default budget allows. The cost is
    estimated from the lengths of the texts, before anything is measured.
    """
    with_cue = {index: member for index, member in enumerate(members) if member.pair.cue_spans}
    if not with_cue or maximum == 0:
        return {}, 1
    work = [
        contribution_work(model.cfg, len(member.sides[1])) * (2 if member.pair.control else 1)
        for member in with_cue.values()
    ]
    budget = _CONTRIBUTION_WORK.get(model.device.type, _CONTRIBUTION_WORK["other"])
    mean = sum(work) / len(work)
    if maximum is None:
        maximum = max(1, int(budget / mean))
    sample = _even_sample({index: member.pair for index, member in with_cue.items()}, maximum)
    size = min(CUE_SHARES.pairs_in_shard, max(1, int(budget / _CONTRIBUTION_SHARDS / mean)))
    return {index: with_cue[index] for index in sample}, size


def _no_shares(model: HookedEncoder) -> xr.Dataset:
    return CUE_SHARES.measure(model, []).assign_coords(pair=np.array([], dtype=int))


def _answers(pairs: Mapping[int, StatementPair], values: xr.Dataset | None) -> pd.DataFrame:
    """The default objective of each run of each pair, with the cue and the category of the pair."""
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
    """The pairs to show as examples: one per cue type, "not" first; pairs with the largest gap are preferred."""
    if answered:
        gap = (answers["original"] - answers["counterfactual"]).abs()
        order = [answered[row] for row in gap.sort_values(ascending=False).index]
    else:
        order = list(range(len(pairs)))
    first_of_cue = {pairs[index].cue: index for index in reversed(order)}
    chosen = [index for index in order if index in first_of_cue.values()]
    chosen.sort(key=lambda index: pairs[index].cue != "not")
    rest = [index for index in order if index not in chosen]
    return [*chosen, *rest][:_N_EXAMPLES]
