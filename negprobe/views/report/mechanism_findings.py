"""Sentences on how the negation reaches the answer: knock-outs of the cue, and the circuit and its heads."""

import pandas as pd

from negprobe.study.results import Mechanism
from negprobe.study.summary_table import StudySummary
from negprobe.views.labels import percent
from negprobe.views.report.circuit_story import ROLE_NAMES, head_sentence
from negprobe.views.report.wording import head_name, terms

_N_NAMED = 3

ABLATED = {
    "swap": "replaced with the other run's",
    "mean": "replaced with its mean over tokens of the same role in the search pairs",
    "zero": "set to zero",
}


def mechanism(summary: StudySummary) -> list[str]:
    """Sentences on knock-outs, heads that attend to the cue, and the circuit; empty if nothing was patched."""
    if summary.row("circuit") is None and summary.row("no_circuit") is None:
        return []
    return [*_knocked_out(summary), *_attention_and_effect(summary), *_circuit(summary)]


def circuit_story(found: Mechanism, summary: StudySummary) -> list[str]:
    """A sentence for each head of the circuit: what it reads at which token, before and after the values."""
    sentences = []
    for story in found.stories:
        member = summary.rows("circuit_member", layer=story.layer, head=story.head).iloc[0]
        ablated = ABLATED[summary.rows("circuit").iloc[0]["note"]]
        run = summary.rows("affirmative_run").iloc[0]["note"]
        sentences.append(
            f"{head_sentence(story)} If only this head's output is {ablated}, the answer moves "
            f"{percent(member['estimate'])} of the way to that of the {run} (mean over the {member['n']} pairs of the "
            "search)."
        )
    return sentences


def knock_out_table(summary: StudySummary) -> pd.DataFrame:
    """A table of the effects of removing attention to the cue, with intervals."""
    names = {
        "part": f"attention to {terms(summary).words} cut",
        "estimate": "effect",
        "low": "95 % from",
        "high": "95 % to",
    }
    names |= {"n": "pairs"}
    return summary.rows("knock_out_set")[list(names)].rename(columns=names)


def _knocked_out(summary: StudySummary) -> list[str]:
    rows = summary.rows("knock_out_set")
    whole, run = summary.row("knock_out_set", part="everywhere"), summary.row("affirmative_run")
    if whole is None or run is None:
        return ["No counterfactual of a patched pair has a known cue, so attention to it could not be knocked out."]
    layer = rows[rows["layer"].notna()].nlargest(1, "estimate").iloc[0]
    role = rows[rows["role"] != ""].nlargest(1, "estimate").iloc[0]
    tops = summary.rows("knock_out").nlargest(_N_NAMED, "estimate")
    moving = [row for _, row in tops.iterrows() if percent(row["estimate"]) != "0%"]
    heads = ", ".join(f"{head_name(row)} ({percent(row['estimate'])})" for row in moving)
    return [
        f"If no other token can attend to {terms(summary).words} in any layer, the counterfactual's answer moves "
        f"{percent(whole['estimate'])} of the way to that of the {run['note']} ({whole['n']} pairs); in layer "
        f"{layer['layer']} alone {percent(layer['estimate'])}, the most of any layer; at {ROLE_NAMES[role['role']]} "
        f"alone {percent(role['estimate'])}, the most of any role. "
        + (f"The strongest single heads: {heads}." if heads else "No single head moves it.")
    ]


def _attention_and_effect(summary: StudySummary) -> list[str]:
    correlation, rank = summary.row("attention_and_effect"), summary.row("effect_rank_of_most_attending")
    if correlation is None or rank is None:
        return []
    effect = summary.rows("swap", site="z", direction="denoising", layer=rank["layer"], head=rank["head"]).iloc[0]
    return [
        "Do the heads that attend to the negation matter? Over the heads, value-weighted attention to the cue and the "
        f"effect of swapping z have a rank correlation of {correlation['estimate']:.2f}; the head that attends to it "
        f"most, {head_name(rank)}, ranks {_ordinal(int(rank['estimate']))} of {rank['n']} by effect "
        f"({percent(effect['estimate'])})."
    ]


def _circuit(summary: StudySummary) -> list[str]:
    missing = summary.row("no_circuit")
    if missing is not None:
        return [f"No circuit: {missing['note']}"]
    return [_size_and_faithfulness(summary), _completeness_and_minimality(summary)]


def _size_and_faithfulness(summary: StudySummary) -> str:
    names = ("circuit", "faithfulness", "search_faithfulness", "threshold")
    circuit, faithful, searched, threshold = (summary.rows(name).iloc[0] for name in names)
    random = summary.rows("random_faithfulness").set_index("part")["estimate"]
    members = ", ".join(summary.rows("circuit_member")["part"])
    return (
        f"{circuit['hits']} of {circuit['n']} components ({members}) preserve {percent(faithful['estimate'])} of the "
        f"{terms(summary).effect.removeprefix('the ')} (95 % interval {percent(faithful['low'])} to "
        f"{percent(faithful['high'])}) on "
        f"{faithful['n']} pairs held out from the search on {searched['n']} (target {percent(threshold['estimate'])}, "
        f"reached {percent(searched['estimate'])}) when every other component's output is {ABLATED[circuit['note']]}. "
        f"Random sets of that size preserve {percent(random['mean'])} on average, {percent(random['best'])} at best."
    )


def _completeness_and_minimality(summary: StudySummary) -> str:
    gaps = summary.rows("completeness_gap").set_index("part")
    worst = gaps.loc["worst"]
    least, cpr, cmd = (summary.rows(name).iloc[0] for name in ("minimality", "cpr", "cmd"))
    halves = (
        f" With a random half of the members removed, by {gaps.loc['random halves']['estimate']:.2f} on average."
        if "random halves" in gaps.index
        else ""
    )
    return (
        "Completeness (0 is complete): with one member removed from both, circuit and model differ in faithfulness by "
        f"{gaps.loc['mean']['estimate']:.2f} on average and {worst['estimate']:.2f} at worst ({worst['note']})."
        f"{halves} Minimality: removing its most dispensable member, {least['note']}, from the circuit or from any "
        f"tried subset of it changes faithfulness by at most {least['estimate']:.2f}. Over circuits of every size, the "
        f"area under the faithfulness curve (CPR) is {cpr['estimate']:.2f}, and the area between the curve and 1 (CMD) "
        f"{cmd['estimate']:.2f}."
    )


def _ordinal(number: int) -> str:
    ending = "th" if 10 <= number % 100 <= 20 else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{ending}"
