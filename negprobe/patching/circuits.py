"""Circuits: small sets of heads and MLPs that preserve a model's behaviour when all others are ablated."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from pandas.api.types import is_numeric_dtype

from negprobe.base.arguments import checked
from negprobe.base.display import view
from negprobe.base.errors import PatchingError, TooFewPairsError
from negprobe.base.files import read_bytes, whole_file
from negprobe.base.progress import Progress, portion
from negprobe.base.texts import quoted
from negprobe.models import HookedEncoder
from negprobe.patching.circuit_proof import prove
from negprobe.patching.circuit_search import (
    EFFORTS,
    RANKINGS,
    Effort,
    Ranking,
    estimated_scores,
    exact_scores,
    faithfulness,
    search,
)
from negprobe.patching.component_sets import (
    ABLATIONS,
    AblatablePairs,
    Ablation,
    Component,
    ablatable,
    all_components,
    set_results,
)
from negprobe.patching.effects import MIN_GAP, effect, one_name
from negprobe.patching.objectives import (
    OBJECTIVES,
    Objective,
    default_objective,
)
from negprobe.patching.runs import DIRECTIONS, Direction, chosen_pairs, pair_coordinates
from negprobe.statements import Swap, Swappable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# The number of runs that integrated gradients average over, as in EAP-IG.
_GRADIENT_STEPS = 5
# Where the ranking, the search and the proof start and end on one progress bar: their usual shares of the time, because
# the number of sets that they evaluate is not known in advance.
_PROGRESS = (0, 20, 60, 100)
_FORMAT_VERSION = 2
# The values of fields that files without a version lack; they are older than the fast search.
_UNVERSIONED = {"format_version": 0, "effort": "thorough", "untried": ""}
_TABLES = {
    "curve": ("size", "share", "faithfulness", "low", "high"),
    "completeness": ("n_removed", "circuit", "model", "gap"),
    "minimality": ("drop", "largest_change"),
}
"""The numeric columns of each table."""


@dataclass(frozen=True)
class Circuit:
    """The components that preserve a model's behaviour with all others ablated, and the evidence for them.

    Faithfulness is `f(C) = (m(C) - m(∅)) / (m(N) - m(∅))`, where m is the objective of the base run with nothing
    ablated (N), all components ablated (∅), or all components outside the circuit ablated (C). Over many pairs it is a
    ratio of means (see `effects.mean_effect`). 1 is the behaviour of the full model; a circuit can exceed 1 if
    components outside it work against it. All attributes below except `scores` and `search_faithfulness` are measured
    on held-out pairs.

    Attributes:
        model_name: The name of the model.
        objective: The name of the objective.
        direction: Which run is the base: "noising" the original's (or its control's), "denoising" the counterfactual's.
        base_run: The statement in the base run, named as in the results of `patch_sweep`: "control or original" if
            pairs differ, and in circuits saved by versions that did not record it.
        source_run: The statement in the source run, which provides the new activations of a "swap".
        ablation: How the components outside the circuit are ablated.
        ranking: How the components were ranked.
        threshold: The faithfulness that the search had to reach.
        effort: How many sets of components the search evaluated ("fast" or "thorough").
        untried: What the search did not evaluate, so that a smaller circuit may exist.
        components: The circuit, in the order of the ranking.
        scores: The mean effect of ablating each component of the model alone, or its estimate, largest absolute value
            first.
        search_faithfulness: Faithfulness on the pairs that were searched.
        faithfulness: Faithfulness on the held-out pairs.
        interval: Its 95 % bootstrap interval over pairs.
        random_faithfulness: The mean faithfulness of 20 random circuits of the same size.
        random_best: The highest faithfulness of these random circuits.
        completeness: A row per subset K of the circuit (`removed`, `n_removed`): each member, and up to 10 random
            subsets. `circuit` is F(C \\ K), `model` F(N \\ K) and `gap` their absolute difference: small if the circuit
            includes the model's backup components (Wang et al. 2022, "Interpretability in the Wild", section 4).
        minimality: A row per member v (`component`): `drop` is F(C) - F(C \\ {v}), `largest_change` the largest
            |F(C \\ (K ∪ {v})) - F(C \\ K)| over the empty K and the random K of `completeness` (same paper): small for
            a dispensable member.
        curve: A row per prefix of the ranking: its `size`, its `share` of all components, its `faithfulness` and the
            interval `low`, `high`. All sizes if there are at most 25 components, otherwise about 25 sizes, evenly
            spaced on a log scale.
        cpr: The area under the curve over `share`, by the trapezoid rule; higher is better (Mueller et al. 2025, "MIB:
            A Mechanistic Interpretability Benchmark", which uses nine fixed shares of edges).
        cmd: The area under |1 - faithfulness| over `share`; lower is better.
        n_search: The number of pairs that were searched, without those left out.
        n_held_out: The number of held-out pairs, without those left out.
        near_zero_gap: The numbers of searched and of held-out pairs that were left out because ablating all components
            changes their objective by less than `effects.MIN_GAP`.
        seed: Seed of the split, the random sets and the bootstrap.
        model: The model, or None; neither compared nor saved.
        measure: The objective, or None; neither compared nor saved.
    """

    model_name: str
    objective: str
    direction: Direction
    base_run: str
    source_run: str
    ablation: Ablation
    ranking: Ranking
    threshold: float
    effort: Effort
    untried: str
    components: tuple[Component, ...]
    scores: dict[Component, float] = field(repr=False, hash=False)
    search_faithfulness: float
    faithfulness: float
    interval: tuple[float, float]
    random_faithfulness: float
    random_best: float
    completeness: pd.DataFrame = field(repr=False, compare=False)
    minimality: pd.DataFrame = field(repr=False, compare=False)
    curve: pd.DataFrame = field(repr=False, compare=False)
    cpr: float
    cmd: float
    n_search: int
    n_held_out: int
    near_zero_gap: tuple[int, int]
    seed: int
    model: HookedEncoder | None = field(default=None, repr=False, compare=False)
    measure: Objective | None = field(default=None, repr=False, compare=False)

    def __len__(self) -> int:
        return len(self.components)

    def __contains__(self, component: object) -> bool:
        return component in self.components

    def __str__(self) -> str:
        """One sentence: the circuit's size, members and faithfulness, and that of random circuits."""
        return (
            f"{len(self)} of {len(self.scores)} components of {self.model_name} ({', '.join(map(str, self.components))}"
            f"; {self.direction}, {self.ablation}): faithfulness {self.faithfulness:.2f} [{self.interval[0]:.2f}, "
            f"{self.interval[1]:.2f}] on {self.n_held_out} held-out pairs, "
            f"{self.random_faithfulness:.2f} for random circuits of that size"
            f"{f' (not tried: {self.untried})' if self.untried else ''}"
        )

    @checked
    def run(
        self,
        pairs: Swappable | Sequence[Swappable],
        *,
        objective: Objective | None = None,
        reference: Sequence[Swappable] | None = None,
    ) -> pd.DataFrame:
        """The objective and faithfulness of the circuit on pairs, with all components outside it ablated.

        Args:
            pairs: One pair, or several of any length.
            objective: The objective; by default the one the circuit was found with.
            reference: The pairs whose two statements "mean" averages over; by default `pairs`.

        Returns:
            A row per pair: the objective of the base run with nothing ablated (`full`), with all components outside the
            circuit ablated (`circuit`) and with all components ablated (`ablated`), and the `faithfulness`, which is
            NaN for a pair with `full` and `ablated` less than `effects.MIN_GAP` apart.

        Raises:
            PatchingError: if the circuit has no model or no objective, for a model of another shape, and for an empty
                list of pairs.
            StatementError, InputError: for a statement that cannot be run.
        """
        chosen = chosen_pairs(pairs)
        if not chosen:
            raise PatchingError("There are no pairs to run the circuit on; give at least one.")
        if self.model is None:
            raise PatchingError("This circuit has no model to run; pass one to Circuit.load(path, model).")
        _check_shape(self, self.model)
        measure = objective or self.measure
        if measure is None:
            raise PatchingError(f"The objective {self.objective!r} was not saved with the circuit; pass it to run.")
        ready = ablatable(
            self.model,
            chosen,
            tuple(sorted(self.scores)),
            direction=self.direction,
            ablation=self.ablation,
            objective=measure,
            reference=chosen if reference is None else list(reference),
        )
        results = set_results(ready, [frozenset(self.components)]).isel(set=0)
        return pd.DataFrame(
            {
                "full": ready.full,
                "circuit": results["patched"].values,
                "ablated": ready.ablated,
                "faithfulness": effect(results).values,
            }
        ).rename_axis("pair")

    @checked
    def save(self, path: str | Path) -> None:
        """Write the circuit and its numbers, without the model, as JSON; an existing file is replaced.

        Raises:
            PatchingError: if the file cannot be written.
        """
        path = Path(path)
        content = {
            one.name: getattr(self, one.name) for one in fields(self) if one.name not in ("model", "measure", *_TABLES)
        }
        content["format_version"] = _FORMAT_VERSION
        content["components"] = [str(component) for component in self.components]
        content["scores"] = {str(component): score for component, score in self.scores.items()}
        content |= {table: getattr(self, table).to_dict("list") for table in _TABLES}
        if not path.name:
            raise PatchingError(
                f"{str(path)!r} has no file to write the circuit to; give a file name, such as 'circuit.json'."
            )
        try:
            with whole_file(path) as part:
                part.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        except OSError as error:
            raise PatchingError(f"{path} cannot be written: {error}.") from error

    @classmethod
    @checked
    def load(cls, path: str | Path, model: HookedEncoder | None = None) -> "Circuit":
        """Read a circuit that `save` wrote.

        Args:
            path: The file.
            model: The model that the circuit was found in; needed only to run it.

        Raises:
            PatchingError: if the file cannot be read, is not a circuit or has a newer format, or if the model has a
                different number of layers or heads.
        """
        try:
            content = _UNVERSIONED | json.loads(read_bytes(path).decode())
            version = content.pop("format_version")
            if isinstance(version, int) and version > _FORMAT_VERSION:
                raise PatchingError(
                    f"{path} has format {version} of circuits, but this negprobe reads up to format {_FORMAT_VERSION}; "
                    "update negprobe to read it."
                )
            if version not in range(_FORMAT_VERSION + 1):
                raise ValueError(f"its format version is {quoted(version)}")
            if version < 2:
                content |= _unrecorded_runs(content["direction"])
            content["components"] = tuple(map(Component.named, content["components"]))
            content["scores"] = {Component.named(name): score for name, score in content["scores"].items()}
            content |= {name: tuple(content[name]) for name in ("interval", "near_zero_gap")}
            content |= {name: pd.DataFrame(content[name]) for name in _TABLES}
            circuit = cls(**content, model=model, measure=OBJECTIVES.get(content["objective"]))
            _check_content(circuit)
        except OSError as error:
            raise PatchingError(f"{path} cannot be read: {error}.") from error
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise PatchingError(f"{path} is not a circuit that Circuit.save wrote: {str(error)[:300]}.") from error
        if model is not None:
            _check_shape(circuit, model)
        return circuit

    def _repr_html_(self) -> str:
        return view("circuit_summary")(self)

    def draw(self, ax: "Axes | None" = None) -> "Figure":
        """A figure of the circuit among all components, layer by layer (see `views.circuit_graph`).

        Args:
            ax: The axes to draw on; by default those of a new figure.
        """
        return view("circuit_graph")(self, axes=ax)


@checked
def find_circuit(
    model: HookedEncoder,
    pairs: Sequence[Swappable],
    *,
    ranking: Ranking = "exact",
    ablation: Ablation = "swap",
    direction: Direction = "noising",
    objective: Objective | None = None,
    threshold: float = 0.9,
    effort: Effort = "fast",
    held_out: float = 0.5,
    mlps: bool = True,
    seed: int = 0,
    progress: Progress | None = None,
) -> Circuit:
    """A circuit found by searching on part of the pairs and evaluated on held-out pairs.

    The circuit preserves the behaviour of the base run when all components outside it are ablated. For the circuit that
    processes the negation, choose direction="denoising": the counterfactual is the base, and all other components are
    ablated, for example with the activations of the original. Components are ranked by the absolute effect of ablating
    each one alone. A prefix of the ranking that is faithful enough is pruned: the members with the smallest effect are
    removed as long as the rest reaches the threshold. No effort guarantees the smallest circuit; the result's `untried`
    lists what was not evaluated.

    Only heads and MLPs are ablated. The embeddings keep their base values. With "swap", so do all activations at
    unaligned tokens, for example at the cue in a pair of different lengths. To avoid this, use pairs made by
    `from_control`, in which both statements have the same length.

    Args:
        model: The model.
        pairs: Pairs of any length.
        ranking: "exact" ablates each component; "attribution" and "integrated_gradients" estimate the effect of
            swapping it from gradients, for every kind of ablation.
        ablation: The activations of components outside the circuit: "swap" the source's at aligned tokens, "mean" the
            mean over the tokens of the same role in the searched pairs, "zero" zeros.
        direction: Which run is the base (see `patch_sweep`).
        objective: The objective; by default `default_objective(model, pairs)`.
        threshold: The faithfulness that the search has to reach, above 0 and at most 1.
        effort: "fast" bisects the length of the prefix and how many members can be removed at once, in at most three
            evaluations per component. Faithfulness need not grow with the length, so the prefix that bisection finds
            is not always the shortest one. "thorough" evaluates about 25 lengths (all, for up to 25 components), prunes
            the shortest sufficient prefix and the prefix of twice its length in small steps, and keeps the smaller
            circuit.
        held_out: The fraction of the pairs to hold out from the search.
        mlps: Whether MLPs are components; if not, they are never ablated.
        seed: Seed of the split of the pairs, the random circuits and subsets, and the bootstrap.
        progress: Called with one step for the whole search, and its progress in percent.

    Raises:
        TooFewPairsError: for too few pairs, or too few with an objective that ablating all components changes.
        PatchingError: for an invalid threshold, `held_out` or seed, and for an objective that the model or a pair does
            not have.
        StatementError, InputError: for a statement that cannot be run.
    """
    if seed < 0:
        raise PatchingError(f"seed must be at least 0, got {seed}.")
    if not 0 < threshold <= 1:
        raise PatchingError(f"threshold must be above 0 and at most 1, got {threshold}.")
    pairs = chosen_pairs(pairs)
    seen, unseen = _split(pairs, held_out, seed)
    components = all_components(model.cfg.n_layers, model.cfg.n_heads, mlps)
    plain = [pair.pair if isinstance(pair, Swap) else pair for pair in pairs]
    measure = objective or default_objective(model, plain)
    names = pair_coordinates(pairs, direction)

    def prepare(chosen: Sequence[Swappable], what: str) -> AblatablePairs:
        prepared = ablatable(
            model,
            chosen,
            components,
            direction=direction,
            ablation=ablation,
            objective=measure,
            reference=seen,
        )
        _check_gaps(prepared, what)
        return prepared

    searched = prepare(seen, "to search")
    tick = None if progress is None else partial(_report, progress)
    ranking_tick, search_tick, proof_tick = (
        portion(tick, start, stop, _PROGRESS[-1]) for start, stop in pairwise(_PROGRESS)
    )
    if ranking == "exact":
        scores = exact_scores(searched, ranking_tick)
    else:
        steps = _GRADIENT_STEPS if ranking == "integrated_gradients" else None
        scores = estimated_scores(
            searched, seen, direction=direction, objective=measure, steps=steps, tick=ranking_tick
        )
    members, untried = search(searched, list(scores), threshold, effort, search_tick)
    near_zero = len(searched.near_zero_gap)
    search_faithfulness = float(faithfulness(searched, [frozenset(members)])[0])
    del searched  # frees memory for the activations of the held-out pairs
    held = prepare(unseen, "held out")
    proven = prove(held, members, list(scores), seed, proof_tick)
    return Circuit(
        model_name=model.cfg.model_name,
        objective=getattr(measure, "__name__", str(measure)),
        direction=direction,
        base_run=one_name(names["base_run"][1]),
        source_run=one_name(names["source_run"][1]),
        ablation=ablation,
        ranking=ranking,
        threshold=threshold,
        effort=effort,
        untried=untried,
        components=members,
        scores=scores,
        search_faithfulness=search_faithfulness,
        n_search=len(seen) - near_zero,
        n_held_out=len(unseen) - len(held.near_zero_gap),
        near_zero_gap=(near_zero, len(held.near_zero_gap)),
        seed=int(seed),
        model=model,
        measure=measure,
        **vars(proven),
    )


def _unrecorded_runs(direction: str) -> dict[str, str]:
    """The names of both runs, for a file that records only the direction."""
    affirmative, counterfactual = "control or original", "counterfactual"
    base, source = (affirmative, counterfactual) if direction == "noising" else (counterfactual, affirmative)
    return {"base_run": base, "source_run": source}


def _split(pairs: Sequence[Swappable], held_out: float, seed: int) -> tuple[list[Swappable], list[Swappable]]:
    """The pairs to search and those to hold out, each in their original order."""
    if not 0 < held_out < 1:
        raise PatchingError(f"held_out must be between 0 and 1 (both excluded), got {held_out}.")
    # Pairs of the same statements are the same runs, whatever their target, so they stay in the same part.
    groups: dict[tuple[str, str], list[int]] = {}
    for index, pair in enumerate(pairs):
        groups.setdefault((pair.original, pair.counterfactual), []).append(index)
    shuffled = [list(groups.values())[group] for group in np.random.default_rng(seed).permutation(len(groups))]
    n_held_out = round(held_out * len(pairs))
    chosen = set[int]()
    for group in shuffled:
        if len(chosen) + len(group) <= n_held_out:
            chosen.update(group)
    if min(len(chosen), len(pairs) - len(chosen)) < 2:
        raise TooFewPairsError(
            f"{len(pairs)} pairs ({len(groups)} different ones) are too few: {len(chosen)} to hold out and "
            f"{len(pairs) - len(chosen)} to search, but each part needs at least 2. Give more pairs."
        )
    return (
        [pair for index, pair in enumerate(pairs) if index not in chosen],
        [pair for index, pair in enumerate(pairs) if index in chosen],
    )


def _check_gaps(pairs: AblatablePairs, what: str) -> None:
    """Raise an error if fewer than two pairs have a gap, for full ablation or between the unpatched runs."""
    gaps = {
        "when every component is ablated": pairs.full - pairs.ablated,
        "between the unpatched statements": pairs.full - pairs.source,
    }
    for where, gap in gaps.items():
        n_changed = int((np.abs(gap) >= MIN_GAP).sum())
        if n_changed < 2:
            raise TooFewPairsError(
                f"Of the {len(gap)} pairs {what}, {len(gap) - n_changed} have an objective that changes by less than "
                f"{MIN_GAP:g} {where}. Faithfulness is relative to this change, so at least 2 pairs must change by "
                "more; give other pairs, or another objective."
            )


def _report(progress: Progress, done: int, total: int) -> None:
    """Report the whole search as one step. A batch without new sets has a total of 0."""
    if total:
        progress("searching the circuit", _PROGRESS[-1] * done // total, _PROGRESS[-1])


def _check_content(circuit: Circuit) -> None:
    """Check that a loaded circuit could have been returned by a search.

    Raises:
        ValueError: with the reason if it could not.
    """
    named = {"direction": DIRECTIONS, "ablation": ABLATIONS, "ranking": RANKINGS, "effort": EFFORTS}
    for name, known in named.items():
        if getattr(circuit, name) not in known:
            raise ValueError(f"{name} {getattr(circuit, name)!r} is not one of {', '.join(known)}")
    if not circuit.components or len(set(circuit.components)) < len(circuit.components):
        raise ValueError("its components are missing or repeated")
    if unscored := set(circuit.components) - set(circuit.scores):
        raise ValueError(f"it has no score for {', '.join(map(str, sorted(unscored)))}")
    layers, heads = _shape(circuit)
    per_layer = heads + any(component.head is None for component in circuit.scores)
    # Every component must have a score, or a damaged layer number could make the model appear arbitrarily large.
    least = min(min(component.layer, component.head or 0) for component in circuit.scores)
    if least < 0 or len(circuit.scores) != layers * per_layer:
        raise ValueError(f"it does not have scores for all components of {layers} layers with {heads} heads")
    texts = (circuit.model_name, circuit.objective, circuit.untried, circuit.base_run, circuit.source_run)
    if not all(isinstance(text, str) for text in texts):
        raise ValueError("its model_name, objective, base_run, source_run and untried must be text")
    numbers = [*circuit.scores.values(), *circuit.interval, *circuit.near_zero_gap, circuit.threshold, circuit.cpr]
    numbers += [circuit.search_faithfulness, circuit.faithfulness, circuit.random_faithfulness, circuit.random_best]
    numbers += [circuit.cmd, circuit.n_search, circuit.n_held_out, circuit.seed]
    if not all(isinstance(number, int | float) for number in numbers):
        raise ValueError("its scores and statistics must be numbers")
    if (len(circuit.interval), len(circuit.near_zero_gap)) != (2, 2):
        raise ValueError("its interval and near_zero_gap must have two numbers each")
    for name, columns in _TABLES.items():
        table = getattr(circuit, name)
        if not len(table) or not all(column in table and is_numeric_dtype(table[column]) for column in columns):
            raise ValueError(f"its {name} is not a table with numbers for {', '.join(columns)}")


def _check_shape(circuit: Circuit, model: HookedEncoder) -> None:
    """Raise an error if the model has a different number of layers or heads than the circuit's."""
    layers, heads = _shape(circuit)
    if (layers, heads) != (model.cfg.n_layers, model.cfg.n_heads):
        raise PatchingError(
            f"This is a circuit of {circuit.model_name!r}, with {layers} layers of {heads} heads, but "
            f"{model.cfg.model_name!r} has {model.cfg.n_layers} of {model.cfg.n_heads}; give the model it was found in."
        )


def _shape(circuit: Circuit) -> tuple[int, int]:
    """The number of layers, and of heads per layer, of the model that the circuit was found in."""
    heads = [component.head for component in circuit.scores if component.head is not None]
    return 1 + max(component.layer for component in circuit.scores), 1 + max(heads, default=-1)
