"""The results of a study, in one object that the report is written from."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

import pandas as pd
import xarray as xr

from negprobe.attention import Comparison, HeadReading, head_story
from negprobe.base.reprs import html_table, short_repr
from negprobe.base.texts import quoted
from negprobe.models import HookedEncoderConfig
from negprobe.patching import Direction, effect, mean_effect
from negprobe.patching.circuits import Circuit
from negprobe.statements import StatementPair
from negprobe.statistics import SMALLEST_EFFECT
from negprobe.study.summary_table import StudySummary


@dataclass(frozen=True, repr=False)
class Mechanism:
    """How the negation reaches the answer: knock-outs of the cue, and the circuit.

    Attributes:
        knock_out: The counterfactual's run without one head's attention to the cue, `[pair layer head]`.
        knock_out_sets: The same for all heads of a layer, for the queries of one role in all layers, and for all heads
            and queries, `[pair patch]`.
        circuit: The components that preserve the counterfactual's behaviour; None if there was no search.
        no_circuit: Why there was no search.
        searched: The pairs that the circuit was searched and evaluated on.
        readings: `AttentionProbe.readings` of these pairs, or of the patched ones if there was no search.
    """

    knock_out: xr.Dataset
    knock_out_sets: xr.Dataset
    circuit: Circuit | None
    no_circuit: str
    searched: tuple[int, ...]
    readings: xr.Dataset

    __repr__ = short_repr

    @cached_property
    def mean_knock_out(self) -> xr.DataArray:
        """`patching.mean_effect` of `knock_out`, [layer head]."""
        return mean_effect(self.knock_out)

    @cached_property
    def stories(self) -> tuple[HeadReading, ...]:
        """The tokens that each head of the circuit attends to, by layer and head; empty without a circuit."""
        members = sorted(self.circuit.components) if self.circuit is not None else ()
        return tuple(head_story(self.readings, part.layer, part.head) for part in members if part.head is not None)


# Compared by identity: arrays have no single truth value.
@dataclass(frozen=True, repr=False, eq=False)
class StudyResults:
    """The results of a study: the model, the pairs and all measurements.

    Attributes:
        cfg: The model's configuration.
        source: The origin of the pairs.
        pairs: The measured pairs, with their cues and controls; other attributes number them from 0.
        alignments: How each pair's statements are aligned, one row per pair (see `alignment_table`).
        dropped: The reason for each pair or control that was left out, numbered as in the input.
        unpatched: The reason for each measured pair that has no objective and was therefore not patched.
        unknown_words: Words of the statements that are not in the tokenizer's vocabulary.
        metrics: `AttentionProbe.metrics` of the pairs.
        cue_shares: `AttentionProbe.cue_shares` of the pairs with a cue, or of an even sample of them.
        cue_share_tests: `statistics.effect_tests` of these, one per measure; None if no pair has a control.
        tests: `statistics.effect_tests` of all metrics and heads; None if no pair has a control.
        replications: `statistics.replication` by "cue" and, if there are several, by "source" (the data set). Omitted
            if fewer than two groups have enough pairs.
        answers: The model's default objective for the `original`, `counterfactual` and `control` (NaN if none) of each
            pair that has an answer; a table, because its rows also have the texts `cue` and `category`.
        own_labels: Whether the labels are the classifier's own predictions, so that there is no accuracy.
        objective: The objective that was patched: "default" for the model's default. `answers` has the default, or
            "score_margin" if that was patched.
        patching: Results of `patching.patch_sweep` by site and direction (see `stages.SWEPT`). Empty if no pair has an
            objective. In `from_control` pairs the control replaces the original.
        patched: The numbers of the patched pairs: those with an objective, or an even sample of them.
        from_control: The number of patched pairs in which the control replaces the original.
        positions: The residual stream of `examples[0]` patched by position, in both directions.
        mechanism: Knock-outs of the cue, on the patched pairs, and the circuit, on `mechanism.searched`; None if
            nothing was patched.
        examples: Example pairs with all their attention maps, for the interactive views.
        environments: Python and exact package versions of each run that measured shards of this study.
        seconds: The duration of the study.
        seed: Seed of the bootstrap, the sign flips and the circuit's search.
        notes: Changes to the pairs, and unusual properties of them (see `statements.pair_notes`).
        same_labels: The pairs without labels for which the classifier predicts the same label twice.
        new_cues: `statistics.holds_for_new` by kind of cue; None if the pairs with a control have fewer than three.
        correlations: `statistics.intraclass_correlations` of the effects within each "cue", and within each "cluster"
            if the pairs have clusters. Empty if no pair has a control.
        smallest_effect: The smallest effect of interest, as |d_z| (see `statistics.responding`).
    """

    cfg: HookedEncoderConfig
    source: str
    pairs: tuple[StatementPair, ...]
    alignments: pd.DataFrame
    dropped: tuple[str, ...]
    unpatched: tuple[str, ...]
    unknown_words: tuple[str, ...]
    metrics: xr.Dataset
    cue_shares: xr.DataArray
    cue_share_tests: xr.Dataset | None
    tests: xr.Dataset | None
    replications: dict[str, xr.Dataset]
    answers: pd.DataFrame
    own_labels: bool
    objective: str
    patching: dict[tuple[str, Direction], xr.Dataset]
    patched: tuple[int, ...]
    from_control: int
    positions: dict[Direction, xr.Dataset]
    mechanism: Mechanism | None
    examples: tuple[Comparison, ...]
    environments: tuple[Mapping[str, object], ...]
    seconds: float
    seed: int
    notes: tuple[str, ...] = ()
    same_labels: tuple[int, ...] = ()
    new_cues: xr.Dataset | None = None
    correlations: Mapping[str, xr.Dataset] = field(default_factory=dict)
    smallest_effect: float = SMALLEST_EFFECT

    @cached_property
    def summary(self) -> StudySummary:
        """All numbers stated by the report and the command line, computed once (see `study.summarize`)."""
        # The module that computes it imports this one.
        from negprobe.study.summary import summarize

        return summarize(self)

    @cached_property
    def mean_effects(self) -> dict[tuple[str, Direction], xr.DataArray]:
        """`patching.mean_effect` of each sweep in `patching`, [layer role] or [layer head]."""
        return {swept: mean_effect(patched) for swept, patched in self.patching.items()}

    @cached_property
    def position_effects(self) -> dict[Direction, xr.DataArray]:
        """`patching.effect` of each sweep in `positions`, [layer position]."""
        return {direction: effect(patched).squeeze("pair") for direction, patched in self.positions.items()}

    @cached_property
    def attention_to_cue(self) -> xr.DataArray:
        """The mean share of value-weighted attention to the cue, over tokens of the patched counterfactuals.

        A mean over the patched pairs, [layer head].
        """
        shares = self.metrics["norm_to_cue"].sel(compared="counterfactual", drop=True)
        return shares.sel(pair=self.patching["z", "denoising"]["pair"].values).compute().mean("pair")

    def __repr__(self) -> str:
        return f"StudyResults({', '.join(f'{name}: {value}' for name, value in self._summary())})"

    def _repr_html_(self) -> str:
        hint = "Attributes hold the numbers (help(results)); negprobe.write_study(results, folder) writes the report."
        return html_table(f"A study of {self.cfg.model_name}. {hint}", self._summary()[1:])

    def _summary(self) -> list[tuple[str, str]]:
        """The measurements and their numbers of pairs, as (label, text)."""
        circuit = self.mechanism.circuit if self.mechanism is not None else None
        return [
            ("model", self.cfg.model_name),
            ("pairs", f"{len(self.pairs)} from {quoted(self.source)}"),
            ("left out", f"{len(self.dropped)}"),
            ("metrics", f"{self.cfg.n_layers} layers × {self.cfg.n_heads} heads"),
            ("tests", "none, as no pair has a control" if self.tests is None else f"{self.tests['p'].size:,}"),
            ("contributions", f"{self.cue_shares.sizes['pair']} pairs"),
            ("answered", f"{len(self.answers)} pairs"),
            ("patched", f"{len(self.patched)} pairs"),
            ("circuit", "none" if circuit is None else f"{len(circuit)} components"),
            ("seconds", f"{self.seconds:.1f}"),
        ]
