"""The claims of the study that negprobe grew from, each as a quantity with an interval, a test and a verdict.

That study looked at heatmaps of five sentences. This module states each claim as one number over many pairs with its
95% interval. The verdict is that the claim holds, does not hold, or is undecided. All functions take a dataset of
metrics, so that they can be tested on synthetic data. `reproduce_bert_tiny.py` uses this module. It is not part of the
package, because it is about a single study.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import pandas as pd
import torch
import xarray as xr
from transformers import PreTrainedTokenizerBase

from negprobe.attention import AttentionProbe, StatementAttention
from negprobe.attention.metrics import pearson
from negprobe.statements import StatementPair, complete, roles, tokenize, tokenize_all
from negprobe.statistics import ALPHA, MIN_PAIRS, agreement, effect_tests, effects_table, negation_effects

STRONG = 2.0
"""Attention to a word counts as strong above this multiple of an even share (1/n for each of n tokens)."""

APART = 0.05
"""Raw and norm-weighted attention to a word disagree if they differ by more than this share of a query's weight."""

HALF_EXPLAINED = 0.5**0.5
"""Two maps disagree if their correlation is below this: one then explains less than half of the other's variance."""

Verdict = Literal["holds", "does not hold", "undecided"]

_STATEMENTS_AT_ONCE = 64
_HEADS_NAMED = 4
_ORIGINALS = "Pairs that share their original count once."
_NO_WORD = "because no attention goes to the words"
_CONSTANT = "because a map is constant, such as the similarities of outputs that all have the same direction"


@dataclass(frozen=True)
class Question:
    """A claim as a quantity to measure.

    Attributes:
        number: The claim and its part, such as "1a".
        claim: The claim of the study.
        quantity: The quantity that is measured.
        unit: The unit of the quantity; empty for a correlation or a ratio.
        values: The quantity, dimensions `pair` and, if it is measured per head, `layer` and `head`.
        border: The threshold that the quantity must pass for the claim to hold.
        side: 1 if the claim holds above the border, -1 if it holds below.
        some_head: Whether the claim is about at least one head, so that the strongest head is reported, corrected for
            the choice; otherwise it is about the mean over heads.
        beside: The parts that the quantity is computed from, by name, to be reported with it.
        lacks: Why the quantity cannot be measured; empty if it can.
        undefined: Why the quantity can be undefined for some heads of a pair; empty if it cannot.
        note: A further remark.
    """

    number: str
    claim: str
    quantity: str
    unit: str
    values: xr.DataArray
    border: float = 0.0
    side: Literal[1, -1] = 1
    some_head: bool = False
    beside: dict[str, xr.DataArray] = field(default_factory=dict)
    lacks: str = ""
    undefined: str = ""
    note: str = ""


@dataclass(frozen=True)
class Claim:
    """A claim and its verdict.

    Attributes:
        number: The claim and its part.
        claim: The claim of the study.
        quantity: The quantity that was measured.
        unit: The unit of `value`, `low`, `high` and `border`; empty for a correlation or a ratio.
        value: The mean over pairs; NaN if nothing could be measured.
        low: The lower end of its 95% bootstrap interval.
        high: The upper end.
        border: The threshold that `value` is compared with.
        p: The two-sided p-value of a sign-flip test against the border. For a claim about some head, it is corrected by
            max-T over the heads; if the claim holds in no head, it is the largest uncorrected p of the heads.
        n: The number of pairs.
        head: The reported head, as "layer.head"; empty for a mean over heads.
        verdict: Whether the claim holds.
        reason: Why the claim is undecided; empty if it is decided.
        detail: The parts of the value, and the heads and layers that it comes from.
    """

    number: str
    claim: str
    quantity: str
    unit: str
    value: float
    low: float
    high: float
    border: float
    p: float
    n: int
    head: str
    verdict: Verdict
    reason: str
    detail: str

    def sentence(self) -> str:
        """The claim, its verdict and its numbers as a sentence."""
        if np.isnan(self.value):
            return f"{self.claim}: {self.verdict}. {self.reason}"
        where = f" in head {self.head}" if self.head else ""
        interval = "" if np.isnan(self.low) else f" [{self.low:.3g}, {self.high:.3g}]"
        unit = f" {self.unit}" if self.unit else ""
        number = f"{self.quantity}{where}: {self.value:.3g}{interval}{unit}, compared with {self.border:.3g}"
        test = f"p = {self.p:.2g}, {_counted(self.n, 'pair')}"
        return " ".join(filter(None, [f"{self.claim}: {self.verdict}. {number}; {test}.", self.reason, self.detail]))


def with_references(
    metrics: xr.Dataset, pairs: Sequence[StatementPair], tokenizer: PreTrainedTokenizerBase
) -> xr.Dataset:
    """The metrics with the reference values that claims compare them with.

    Args:
        metrics: The result of `AttentionProbe.metrics` for `pairs`.
        pairs: The pairs.
        tokenizer: The model's tokenizer.

    Returns:
        The metrics with the coordinate `original` along `pair` (the text of the original, or the first text with the
        same tokens), and the variables `even_cue` and `even_affected`: the share of attention to the cue and to the
        affected word if attention were uniform over the tokens of the counterfactual.
    """
    even = []
    for pair in (complete(pair, tokenizer) for pair in pairs):
        statement = tokenize(pair.counterfactual, tokenizer)
        of_token = roles(statement, tokenizer, cue_spans=pair.cue_spans, affected_spans=pair.affected_spans)
        even.append([of_token.count(name) / len(of_token) for name in ("cue", "affected")])
    cue, affected = zip(*even, strict=True)
    texts = [pair.original for pair in pairs]
    first: dict[tuple[int, ...], str] = {}
    originals = [first.setdefault(statement.ids, statement.text) for statement in tokenize_all(texts, tokenizer)]
    return metrics.assign(even_cue=("pair", list(cue)), even_affected=("pair", list(affected))).assign_coords(
        original=("pair", originals)
    )


def without_repeats(pairs: Sequence[StatementPair], tokenizer: PreTrainedTokenizerBase) -> list[StatementPair]:
    """The pairs without those that have the same tokens as an earlier pair.

    Such pairs are one observation for the model: repeated pairs, or pairs that differ only in unknown words.
    """
    distinct: dict[tuple[tuple[int, ...], ...], StatementPair] = {}
    for pair in pairs:
        texts = [text for text in (pair.original, pair.counterfactual, pair.control) if text is not None]
        distinct.setdefault(tuple(statement.ids for statement in tokenize_all(texts, tokenizer)), pair)
    return list(distinct.values())


def map_correlations(probe: AttentionProbe, pairs: Sequence[StatementPair]) -> xr.Dataset:
    """The correlations of the raw attention map of each counterfactual with the value-weighted maps.

    Returns:
        Pearson correlations over all queries and keys, including special tokens, dims `pair`, `layer`, `head`:
        `raw_norm_correlation` with the norm-weighted map, `raw_similarity_correlation` with the similarity of outputs.
        NaN if a map is constant.
    """
    found = []
    for start in range(0, len(pairs), _STATEMENTS_AT_ONCE):
        found += [
            _correlations(attention)
            for attention in probe.run([pair.counterfactual for pair in pairs[start : start + _STATEMENTS_AT_ONCE]])
        ]
    arrays = np.stack(found)
    names = ("raw_norm_correlation", "raw_similarity_correlation")
    return xr.Dataset({name: (("pair", "layer", "head"), arrays[:, i]) for i, name in enumerate(names)})


def _correlations(attention: StatementAttention) -> np.ndarray:
    """The correlations of the raw map with the norm-weighted map and with the similarities, [map, layer, head]."""
    everywhere = torch.ones(1, len(attention.statement), 1, dtype=torch.bool)
    cells = everywhere & everywhere.transpose(-1, -2)
    return torch.stack(
        [pearson(attention.raw, other, cells) for other in (attention.norm, attention.similarity)]
    ).numpy()


def questions(metrics: xr.Dataset) -> list[Question]:
    """All claims of the study, from metrics with their references (`with_references`) and `map_correlations`."""
    return [
        *_reach(metrics),
        *_strong_attention(metrics),
        *_patterns(metrics),
        *_diffusion(metrics),
        *_disagreement(metrics),
    ]


def _reach(metrics: xr.Dataset) -> list[Question]:
    """Claim 1: layer 0 attends locally and layer 1 more broadly."""
    # An original that several pairs share is one observation.
    of_originals = metrics.isel(pair=np.unique(metrics["original"].values, return_index=True)[1])
    uniform = of_originals["uniform_distance"]
    kinds = {"": of_originals["attention_distance"], ", norm-weighted": of_originals["norm_distance"]}
    claims = []
    for letter, (kind, distance) in zip("ab", kinds.items(), strict=True):
        first = distance.isel(layer=[0])
        claims.append(
            Question(
                f"1{letter}",
                f"Layer 0 attends locally{kind}",
                "mean |query − key| in layer 0, minus that of uniform attention over the words",
                "tokens",
                first - uniform,
                side=-1,
                beside={"layer 0": first, "uniform": uniform},
                undefined=_NO_WORD,
                note=_ORIGINALS,
            )
        )
    for letter, (kind, distance) in zip("cd", kinds.items(), strict=True):
        two = distance.sizes["layer"] > 1
        layers = distance.isel(layer=slice(2))
        by_layer = _same_heads(layers).mean("head")
        first, second = (by_layer.isel(layer=index, drop=True) for index in (0, int(two)))
        claims.append(
            Question(
                f"1{letter}",
                f"Layer 1 attends more broadly than layer 0{kind}",
                "mean |query − key| in layer 1, minus that in layer 0",
                "tokens",
                second - first,
                beside={"layer 0": first, "layer 1": second, "uniform": uniform},
                note=" ".join(filter(None, [_undefined(layers, _NO_WORD, some_head=False), _ORIGINALS])),
                lacks="" if two else "The model has a single layer.",
            )
        )
    return claims


def _strong_attention(metrics: xr.Dataset) -> list[Question]:
    """Claim 2: strong attention between negation and affected word, in both directions."""
    ways = {
        "The affected word attends strongly to the negation": ("to_cue_by_role", "even_cue"),
        "The negation attends strongly to the affected word": ("from_cue_by_role", "even_affected"),
    }
    claims: list[Question] = []
    for claim, (name, even_name) in ways.items():
        for kind, prefix in (("", "attention"), (", norm-weighted", "norm")):
            at_affected = metrics[f"{prefix}_{name}"].sel(role="affected", drop=True)
            negation, control = (at_affected.sel(compared=side, drop=True) for side in ("counterfactual", "control"))
            even = metrics[even_name]
            claims.append(
                Question(
                    f"2{'abcd'[len(claims)]}",
                    f"{claim}{kind}",
                    f"its share, minus the larger of {STRONG:g} even shares and the share of a neutral word there",
                    "of the query's weight",
                    negation - np.maximum(control, STRONG * even),
                    some_head=True,
                    beside={"negation": negation, "neutral word": control, "even share": even},
                    lacks=""
                    if (negation - control).notnull().any()
                    else "No pair has a negation, an affected word and a control of the same length.",
                )
            )
    return claims


def _patterns(metrics: xr.Dataset) -> list[Question]:
    """Claim 3: value-weighted patterns differ in negated contexts."""
    return [
        _beyond_control(
            metrics,
            "norm_js_divergence",
            "3a",
            "Norm-weighted attention changes more with the negation than with a neutral word",
            "divergence from the original's, minus that of a neutral word",
            "bits",
        ),
        _beyond_control(
            metrics,
            "value_output_correlation",
            "3b",
            "The heads' outputs change more with the negation than with a neutral word",
            "correlation with the original's outputs, minus that of a neutral word",
            "",
            side=-1,
            undefined="because a head's outputs are constant",
        ),
    ]


def _diffusion(metrics: xr.Dataset) -> list[Question]:
    """Claim 4: value-weighted vectors diffuse around the negation."""
    distance = metrics["diffusion_distance"].sel(compared="counterfactual", drop=True)
    return [
        _beyond_control(
            metrics,
            "output_change",
            "4a",
            "The negation changes the outputs at the other words, beyond a neutral word",
            "relative change, minus that of a neutral word",
            "of the output's size",
            undefined="because a head has no output",
        ),
        _beyond_control(
            metrics,
            "diffusion",
            "4b",
            "The change spreads over more of the other words than a neutral word's",
            "share of the words that the change spreads over, minus that of a neutral word",
            "of the words",
            undefined="because nothing changes",
        ),
        Question(
            "4c",
            "The change is nearer to the negation than an even spread",
            "its mean distance from the negation, over the words' mean distance",
            "",
            distance,
            border=1.0,
            side=-1,
            beside={"neutral word": metrics["diffusion_distance"].sel(compared="control", drop=True)},
            lacks="" if distance.notnull().any() else "No pair has a known negation.",
            undefined="because nothing changes",
        ),
    ]


def _disagreement(metrics: xr.Dataset) -> list[Question]:
    """Claim 5: raw and value-weighted maps disagree, in some heads more than in others."""
    raw, norm = (
        metrics[name].sel(compared="counterfactual", drop=True) for name in ("attention_to_cue", "norm_to_cue")
    )
    return [
        Question(
            "5a",
            "Raw and norm-weighted maps disagree",
            "correlation of the two maps of the counterfactual",
            "",
            metrics["raw_norm_correlation"],
            border=HALF_EXPLAINED,
            side=-1,
            undefined=_CONSTANT,
        ),
        Question(
            "5b",
            "Raw attention and the similarity of outputs disagree",
            "correlation of the two maps of the counterfactual",
            "",
            metrics["raw_similarity_correlation"],
            border=HALF_EXPLAINED,
            side=-1,
            undefined=_CONSTANT,
        ),
        Question(
            "5c",
            "Raw and norm-weighted attention to the negation disagree",
            "|norm-weighted − raw| share of the negation in the attention of the other words",
            "of a query's weight",
            abs(norm - raw),
            border=APART,
            some_head=True,
            beside={"raw": raw, "norm-weighted": norm},
            lacks="" if raw.notnull().any() else "No pair has a known negation.",
            note=_agreement_of_effects(metrics),
        ),
    ]


def _beyond_control(
    metrics: xr.Dataset,
    name: str,
    number: str,
    claim: str,
    quantity: str,
    unit: str,
    side: Literal[1, -1] = 1,
    undefined: str = "",
) -> Question:
    negation, control = (metrics[name].sel(compared=compared, drop=True) for compared in ("counterfactual", "control"))
    effect = negation - control
    lacks = "" if effect.notnull().any() else "No pair has a control of the counterfactual's length."
    beside = {"negation": negation, "neutral word": control}
    return Question(number, claim, quantity, unit, effect, side=side, beside=beside, lacks=lacks, undefined=undefined)


def _agreement_of_effects(metrics: xr.Dataset) -> str:
    """A sentence on how well the effects on raw and norm-weighted attention to the cue agree over the heads."""
    effects = negation_effects(metrics[["attention_to_cue", "norm_to_cue"]])
    if not any(effect.notnull().any() for effect in effects.values()):
        return ""
    found = agreement(effect_tests(effects), "attention_to_cue", "norm_to_cue")
    heads = [f"{row.layer}.{row.head}" for row in found.disagreeing.itertuples()]
    rank = "" if np.isnan(found.correlation) else f"rank correlation {found.correlation:.2f} over the heads"
    signs = f"opposite signs in {_listed(heads)}" if heads else "no significant effects of opposite signs"
    return f"Effects of negation on the two shares: {', '.join(filter(None, [rank, signs]))}."


@dataclass(frozen=True)
class Answer:
    """A claim, and the same quantity head by head.

    Attributes:
        claim: The claim and its verdict.
        heads: Columns `number`, `layer`, `head`, `value`, `low`, `high`, `effect_size`, `n`, `p`, `q`, `p_max_t`, all
            tested against the border; empty if the quantity is not measured per head.
    """

    claim: Claim
    heads: pd.DataFrame


def answer(question: Question, seed: int = 0) -> Answer:
    """The verdict on one claim, with its numbers and tests.

    A claim about the mean over heads holds if the whole interval is beyond the border and p is at most `ALPHA`; it does
    not hold if both are true of the other side. The mean is over the same heads in every pair: those that have the
    quantity in every pair in which any head has it. A claim about some head holds if at least one head
    passes with p corrected by max-T over all heads. It does not hold if the interval of every head is on the other side
    with an uncorrected p at most `ALPHA`; no correction is needed, because all heads must pass (the intersection-union
    test of Berger 1982). Otherwise the claim is undecided.
    """
    nothing = dict.fromkeys(("value", "low", "high", "p"), float("nan"))
    if question.lacks or not question.values.notnull().any():
        reason = question.lacks or "The quantity is undefined for every pair."
        return Answer(_claim(question, nothing, 0, "", "undecided", reason, ""), pd.DataFrame())
    has_heads = "head" in question.values.dims
    heads = effects_table(_tested(_beyond(question, question.values), seed)) if has_heads else pd.DataFrame()
    used = _same_heads(question.values) if has_heads and not question.some_head else question.values
    undefined = _undefined(question.values, question.undefined, question.some_head) if has_heads else ""
    if not used.notnull().any():
        reason = f"No head has the quantity in every pair. {undefined}"
        return Answer(_claim(question, nothing, 0, "", "undecided", reason, ""), _head_table(question, heads))
    if question.some_head:
        passing = heads[(heads["effect"] > 0) & (heads["low"] > 0) & (heads["p_max_t"] <= ALPHA)]
        reported = (heads if passing.empty else passing).sort_values("effect").iloc[-1]
        cell = {"layer": int(reported["layer"]), "head": int(reported["head"])}
        p, name = float(reported["p_max_t"]), "{layer}.{head}".format(**cell)
        against = bool(((heads["high"] < 0) & (heads["p"] <= ALPHA)).all())
        if against:
            p = float(heads["p"].max())
    else:
        over = [dim for dim in ("layer", "head") if dim in used.dims]
        reported = effects_table(_tested(_beyond(question, used).mean(over), seed)).iloc[0]
        cell, p, name = {}, float(reported["p"]), ""
        against = bool(reported["high"] < 0 and p <= ALPHA)
    numbers = {"p": p, **_in_units(question, reported)}
    n = int(reported["n"])
    verdict, reason = _verdict(reported, p, n, against)
    which_p = "p is the largest uncorrected p of the heads." if question.some_head and against else ""
    which = _which_heads(question, heads, n)
    detail = " ".join(filter(None, [which_p, _beside(question, used, cell), which, undefined, question.note]))
    return Answer(_claim(question, numbers, n, name, verdict, reason, detail), _head_table(question, heads))


def _head_table(question: Question, heads: pd.DataFrame) -> pd.DataFrame:
    """The tests of the heads, in the units of the quantity."""
    if heads.empty:
        return heads
    in_units = pd.DataFrame([_in_units(question, row) for _, row in heads.iterrows()], index=heads.index)
    return heads.drop(columns=["metric", "effect"]).assign(number=question.number, **in_units)


def _beyond(question: Question, values: xr.DataArray) -> xr.DataArray:
    """How far the values are beyond the border, in the direction of the claim."""
    return question.side * (values - question.border)


def _present(values: xr.DataArray) -> xr.DataArray:
    """Whether each head has a value, for the pairs in which any head has one."""
    present = values.notnull()
    return present.isel(pair=present.any(["layer", "head"]).values)


def _same_heads(values: xr.DataArray) -> xr.DataArray:
    """The values of the heads that have one in every pair in which any head has one; NaN for the other heads."""
    return values.where(_present(values).all("pair"))


def _undefined(values: xr.DataArray, where: str, some_head: bool) -> str:
    """A sentence on the (pair, head) cells without a value and how they are handled; empty if all have a value."""
    present = _present(values)
    lacking = (~present).sum("pair")
    cells = int(lacking.sum())
    if not cells:
        return ""
    of_head = lacking.stack(at=("layer", "head")).to_series().sort_values(ascending=False, kind="stable")
    of_head = of_head[of_head > 0]
    names = of_head.index.map("{0[0]}.{0[1]}".format)
    lacks = [f"{name} in {_counted(count, 'pair')}" for name, count in zip(names, of_head.tolist(), strict=True)]
    complete = lacking.size - len(of_head)
    handling = (
        "Each head is tested on the pairs in which it is defined."
        if some_head
        else f"The mean is over the {_counted(complete, 'head')} without such a pair."
        if complete
        else ""
    )
    why = f", {where}" if where else ""
    which = f"{_counted(len(of_head), 'head')} ({_listed(lacks)})"
    return f"Undefined in {cells} of {present.size} (pair, head) cells{why}: {which}. {handling}".strip()


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def _tested(beyond: xr.DataArray, seed: int) -> xr.Dataset:
    return effect_tests(beyond.reset_coords(drop=True).to_dataset(name="beyond"), seed=seed)


def _verdict(reported: pd.Series, p: float, n: int, against: bool) -> tuple[Verdict, str]:
    """The verdict on a claim, and the reason if it is undecided."""
    if n < MIN_PAIRS:
        few = "One pair is" if n == 1 else f"{n} pairs are"
        return "undecided", f"{few} too few: p = {ALPHA:g} needs at least {MIN_PAIRS}."
    if reported["low"] > 0 and p <= ALPHA:
        return "holds", ""
    if against:
        return "does not hold", ""
    if reported["low"] <= 0 <= reported["high"]:
        return "undecided", "The interval contains the border."
    if reported["high"] < 0 and p <= ALPHA:
        return "undecided", "This head is significantly short of the border, but not every head is."
    return "undecided", f"The interval does not contain the border, but p is above {ALPHA:g}."


def _claim(
    question: Question, numbers: dict[str, float], n: int, head: str, verdict: Verdict, reason: str, detail: str
) -> Claim:
    return Claim(
        number=question.number,
        claim=question.claim,
        quantity=question.quantity,
        unit=question.unit,
        border=question.border,
        n=n,
        head=head,
        verdict=verdict,
        reason=reason,
        detail=detail,
        **numbers,
    )


def _in_units(question: Question, row: pd.Series) -> dict[str, float]:
    """A tested value and its interval, converted from distances beyond the border to the units of the quantity."""
    ends = sorted(question.border + question.side * row[["low", "high"]].to_numpy(dtype=float))
    value = question.border + question.side * float(row["effect"])
    return {"value": value, "low": float(ends[0]), "high": float(ends[1])}


def _beside(question: Question, used: xr.DataArray, cell: dict[str, int]) -> str:
    """The means of the parts of the quantity, over the pairs and heads that are used."""
    measured = used.sel(cell).notnull()
    means = {
        name: float(part.broadcast_like(used).sel(cell).where(measured).mean())
        for name, part in question.beside.items()
    }
    return f"({', '.join(f'{name} {mean:.3g}' for name, mean in means.items())})" if means else ""


def _which_heads(question: Question, heads: pd.DataFrame, n_pairs: int) -> str:
    """A sentence on the heads beyond and short of the border, and on the layer that is furthest beyond it.

    Layers are compared only if every head has all `n_pairs` pairs.
    """
    if len(heads) < 2:
        return ""
    surviving = heads[heads["p_max_t"] <= ALPHA]
    sides = []
    for what, side in (("Beyond the border", 1), ("short of it", -1)):
        there = surviving[np.sign(surviving["effect"]) == side]
        there = there.sort_values("effect", key=np.abs, ascending=False)
        named = f" ({_listed([f'{row.layer}.{row.head}' for row in there.itertuples()])})" if len(there) else ""
        sides.append(f"{what}: {len(there)} of {len(heads)} heads{named}")
    by_layer = heads.groupby("layer")["effect"].mean()
    comparable = len(by_layer) > 1 and (heads["n"] == n_pairs).all()
    layer = f" Furthest beyond the border: layer {by_layer.idxmax()}." if comparable and not question.some_head else ""
    return f"{'; '.join(sides)}; p < {ALPHA:g} by max-T.{layer}"


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _HEADS_NAMED} more" if len(names) > _HEADS_NAMED else ""
    return ", ".join(names[:_HEADS_NAMED]) + more
