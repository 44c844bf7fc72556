"""What differs between two studies, in sentences with the numbers that stand in the figures and tables."""

from collections.abc import Callable

import numpy as np
import pandas as pd

from negprobe.statistics import ALPHA, survivors
from negprobe.study.comparison import ALL_CUES, StudyComparison
from negprobe.views.labels import metric_name
from negprobe.views.report.circuit_story import ROLE_NAMES
from negprobe.views.report.wording import in_percent, points, share_of, signed

BRACKETS = (
    "In brackets: 95 % intervals, Wilson's of shares of pairs, and of all others the bootstrap's over the common "
    "pairs, the same draws for both models; of circuits, over each study's own held-out pairs."
)


def answer(compared: StudyComparison) -> list[str]:
    """The answer in a few sentences, each with its numbers; every difference is B minus A."""
    return [*_answered(compared), *_swapped(compared), *_responding(compared), *_circuits(compared)]


def _answered(compared: StudyComparison) -> list[str]:
    """How often each model is right, and on which kind of cue they differ most."""
    answers = compared.answers
    if answers.empty:
        return [f"The answers cannot be compared: {compared.no_answers}."]
    row = answers[answers["cue"] == ALL_CUES].iloc[0]
    if row["statement"] == "cosine":
        return [
            f"Original and counterfactual are alike to a mean cosine of {row['A']:.3f} in A and {row['B']:.3f} in B: "
            f"{signed(row['difference'], row['low'], row['high'], '+.3f')} on {row['pairs']} pairs."
        ]
    sentence = (
        f"A gets both statements of a pair right on {_right(row, 'A')}, and B on {_right(row, 'B')}: {_points(row)}."
    )
    by_cue = answers[(answers["statement"] == "both") & (answers["cue"] != ALL_CUES)]
    if len(by_cue) < 2 or not (by_cue["difference"] != 0).any():
        return [sentence]
    top = by_cue.iloc[int(by_cue["difference"].abs().argmax())]
    return [
        f"{sentence} By kind of cue they differ most on “{top['cue']}”: {_points(top)}, {top['pairs']} pairs, not "
        "corrected for the choice."
    ]


def _right(row: pd.Series, model: str) -> str:
    return share_of(np.arange(row["pairs"]) < round(row[model] * row["pairs"]))


def _swapped(compared: StudyComparison) -> list[str]:
    """The head that carries most in each model, and the swaps whose effects differ."""
    swaps = compared.swaps
    if swaps.empty:
        return [
            "The effects of swaps cannot be compared: no common pair was patched in both studies with two runs that "
            "differ in the answer in both."
        ]
    heads = swaps.query("site == 'z' and direction == 'denoising'")
    tops = {name: heads.nlargest(1, name).iloc[0] for name in "AB"}
    named = ", and ".join(
        f"{top['layer']:.0f}.{top['part']} in {name}, {_effect(top, name)}" for name, top in tops.items()
    )
    pairs = "1 common pair" if compared.patched == 1 else f"{compared.patched} common pairs"
    carrying = (
        f"The head whose output alone brings back most of the affirmative run's answer is {named} ({pairs} patched in "
        "both)."
    )
    if not compared.same_shape:
        return [f"{carrying} The models differ in layers or heads, so that no head has a partner to be held against."]
    stream = swaps.query("site == 'resid_pre' and direction == 'denoising'")
    return [
        carrying,
        _differing(heads, "one head's output", lambda top: f"head {top['layer']:.0f}.{top['part']}"),
        _differing(
            stream,
            "the residual stream at one kind of token before one layer",
            lambda top: f"layer {top['layer']:.0f} at {ROLE_NAMES[str(top['part'])]}",
        ),
    ]


def _differing(rows: pd.DataFrame, what: str, named: Callable[[pd.Series], str]) -> str:
    """How many swaps of a kind do something else in B, and the one of the largest difference."""
    if not rows["difference"].any():
        return f"Swapping {what} does the same in both models."
    apart = int(((rows["low"] > 0) | (rows["high"] < 0)).sum())
    top = rows.iloc[int(rows["difference"].abs().argmax())]
    return (
        f"Swapping {what}, {apart} of {len(rows)} swaps bring back more or less of the answer in B than in A "
        f"(intervals without 0, not corrected for their number). They differ most in {named(top)}: "
        f"{_effect(top, 'A')} in A and {_effect(top, 'B')} in B, {_points(top)}."
    )


def _responding(compared: StudyComparison) -> list[str]:
    """How many heads respond in each model, and in how many the response is another one."""
    known = {name: tests for name, tests in zip("AB", compared.tests, strict=True) if tests is not None}
    if not known:
        return ["No common pair has a control, so negation cannot be told from an inserted word in either."]
    untestable = [tests.attrs["untestable"] for tests in known.values() if "untestable" in tests.attrs]
    if untestable:
        return [f"Whether heads respond to the negation in one model alone cannot be tested. {untestable[0]}"]
    counts = " and ".join(
        f"{int((tests['q'] <= ALPHA).any('metric').sum())} of {tests.sizes['layer'] * tests.sizes['head']} heads of "
        f"{name} ({int(tests['n'].max())} pairs)"
        for name, tests in known.items()
    )
    sentence = (
        f"{counts} do something else at the negation than at a neutral word of the same length (q ≤ {ALPHA:g} after "
        "correction for every head and metric)."
    )
    if compared.change is None:
        return [sentence]
    passing = survivors(compared.change)
    if passing.empty:
        return [f"{sentence} In no head does the effect of negation itself differ between the two."]
    by_q, by_max_t = (int((compared.change[name] <= ALPHA).any("metric").sum()) for name in ("q", "p_max_t"))
    top = passing.iloc[0]
    return [
        f"{sentence} The effect of negation itself differs between the two in {by_q} heads (corrected in the same way; "
        f"in {by_max_t} by max-T), most regularly in {top['layer']:.0f}.{top['head']:.0f}: its "
        f"{metric_name(str(top['metric']))} differs by {signed(top['effect'], top['low'], top['high'])}."
    ]


def _circuits(compared: StudyComparison) -> list[str]:
    """The circuits' sizes and faithfulness, and how many components they share."""
    circuits = {name: study.circuit for name, study in zip("AB", (compared.a, compared.b), strict=True)}
    found = {name: circuit for name, circuit in circuits.items() if circuit is not None}
    if not found:
        return ["Neither study searched a circuit."]
    sizes = "; ".join(
        f"{name}'s circuit has {len(circuit)} of {len(circuit.scores)} components, which keep "
        f"{in_percent(circuit.faithfulness, *circuit.interval)} of what the negation does"
        for name, circuit in found.items()
    )
    if len(found) < 2:
        return [f"{sizes}. The other study searched none."]
    one, other = found["A"], found["B"]
    if not compared.same_shape:
        return [f"{sizes}."]
    shared = set(one.components) & set(other.components)
    chance = len(one) * len(other) / len(one.scores)
    return [
        f"{sizes}. They share {len(shared)} components, where two random sets of these sizes would "
        f"share {chance:.1f} on average."
    ]


def _effect(row: pd.Series, model: str) -> str:
    return in_percent(row[model], row[f"{model}_low"], row[f"{model}_high"])


def _points(row: pd.Series) -> str:
    return points(row["difference"], row["low"], row["high"])
