"""How the negation reaches the answer, in sentences: what looking at the cue does, and the circuit and its heads."""

import numpy as np
import pandas as pd
import xarray as xr

from negprobe.attention import head_story
from negprobe.patching import Circuit, averages, mean_effect
from negprobe.statistics import rank_correlation
from negprobe.study.results import Mechanism, StudyResults
from negprobe.views.labels import percent, run_name
from negprobe.views.report.circuit_story import ROLE_NAMES, head_sentence

_N_NAMED = 3

ABLATED = {
    "swap": "replaced with the other run's",
    "mean": "set to its mean over the searched statements' tokens of the same role",
    "zero": "set to zero",
}


def mechanism(results: StudyResults) -> list[str]:
    """Knock-outs, whether the heads that look at the cue matter, and the circuit."""
    found = results.mechanism
    if found is None:
        return []
    return [*_knocked_out(found), *_looking_and_mattering(results), *_circuit(found)]


def circuit_story(found: Mechanism) -> list[str]:
    """A sentence for each head of the circuit: what it reads at which token, before and after the values."""
    if found.circuit is None:
        return []
    heads = [component for component in sorted(found.circuit.components) if component.head is not None]
    return [
        f"{head_sentence(head_story(found.readings, component.layer, component.head))} With it alone "
        f"{ABLATED[found.circuit.ablation]}, the answer moves {percent(found.circuit.scores[component])} of the way to "
        f"that of the {run_name(found.knock_out, 'source_run')} (over the {found.circuit.n_search} pairs searched on)."
        for component in heads
        if component.head is not None
    ]


def knock_out_table(found: Mechanism, seed: int) -> pd.DataFrame:
    """What cutting attention to the cue does, with intervals; without the cells that no pair has."""
    table = averages(found.knock_out_sets, seed=seed).dropna(subset=["effect"])
    return table.rename(
        columns={"patch": "attention to the cue cut", "low": "95 % from", "high": "95 % to", "n_pairs": "pairs"}
    )


def attention_to_cue(results: StudyResults, patched: xr.Dataset) -> xr.DataArray:
    """The share of its value-weighted attention that a word of a patched counterfactual gives the cue, head by head."""
    shares = results.metrics["norm_to_cue"].sel(compared="counterfactual", drop=True)
    return shares.sel(pair=patched["pair"].values).mean("pair")


def _knocked_out(found: Mechanism) -> list[str]:
    everywhere = mean_effect(found.knock_out_sets)
    if not bool(everywhere.sel(patch="everywhere").notnull()):
        return ["No counterfactual of a patched pair has a known cue, so attention to it could not be knocked out."]
    whole = float(everywhere.sel(patch="everywhere"))
    layers = [str(name) for name in everywhere["patch"].values if str(name).startswith("layer ")]
    by_layer = everywhere.sel(patch=layers)
    layer = str(by_layer["patch"].values[int(np.nanargmax(by_layer.values))])
    roles = everywhere.sel(patch=[name for name in everywhere["patch"].values if str(name).startswith("at ")])
    role = str(roles["patch"].values[int(np.nanargmax(roles.fillna(-np.inf).values))])
    by_head = mean_effect(found.knock_out)
    order = np.argsort(-by_head.values, axis=None)[:_N_NAMED]
    heads = ", ".join(
        f"{layer}.{head} ({percent(by_head.values[layer, head])})"
        for layer, head in zip(*np.unravel_index(order, by_head.shape), strict=True)
        if percent(by_head.values[layer, head]) != "0%"
    )
    return [
        "If no other token can attend to the cue in any layer, the counterfactual's answer moves "
        f"{percent(whole)} of the way to that of the {run_name(found.knock_out_sets, 'source_run')} "
        f"({int(everywhere['n_pairs'].sel(patch='everywhere'))} pairs); in {layer} alone "
        f"{percent(float(by_layer.sel(patch=layer)))}, the most of any layer; at "
        f"{ROLE_NAMES[role.removeprefix('at ')]} alone {percent(float(roles.sel(patch=role)))}, the most of any role. "
        + (f"The strongest single heads: {heads}." if heads else "No single head moves it.")
    ]


def _looking_and_mattering(results: StudyResults) -> list[str]:
    if ("z", "denoising") not in results.patching:
        return []
    patched = results.patching["z", "denoising"]
    effects, attention = mean_effect(patched), attention_to_cue(results, patched)
    both = np.isfinite(effects.values) & np.isfinite(attention.values)
    correlation, _ = rank_correlation(effects.values[both], attention.values[both])
    if np.isnan(correlation):
        return []
    looking = np.unravel_index(int(np.nanargmax(attention.values)), attention.shape)
    rank = int((np.abs(effects.values) > abs(effects.values[looking])).sum()) + 1
    return [
        "Do the heads that attend to the negation matter? Over the heads, value-weighted attention to the cue and the "
        f"effect of swapping z have a rank correlation of {correlation:.2f}; the head that attends to it most, "
        f"{looking[0]}.{looking[1]}, ranks {_ordinal(rank)} of {effects.size} by effect "
        f"({percent(float(effects.values[looking]))})."
    ]


def _circuit(found: Mechanism) -> list[str]:
    circuit = found.circuit
    if circuit is None:
        return [f"No circuit: {found.no_circuit}"]
    return [_size_and_faith(circuit), _proof(circuit)]


def _size_and_faith(circuit: Circuit) -> str:
    low, high = circuit.interval
    return (
        f"{len(circuit)} of {len(circuit.scores)} components ({', '.join(map(str, sorted(circuit.components)))}) keep "
        f"{percent(circuit.faithfulness)} of what the counterfactual's run does (95 % interval {percent(low)} to "
        f"{percent(high)}) on {circuit.n_held_out} pairs held out from the search on {circuit.n_search} (target "
        f"{percent(circuit.threshold)}, reached {percent(circuit.search_faithfulness)}), everything "
        f"else {ABLATED[circuit.ablation]}; random sets of that size keep "
        f"{percent(circuit.random_faithfulness)} on average, {percent(circuit.random_best)} at best."
    )


def _proof(circuit: Circuit) -> str:
    table = circuit.completeness
    single = table[table["n_removed"] == 1].sort_values("gap", ascending=False)
    gap, random_gap = single["gap"], table["gap"][table["n_removed"] > 1]
    worst = single["removed"].iloc[0]
    least = circuit.minimality.sort_values("largest_change").iloc[0]
    more = f" with random halves of it out by {random_gap.mean():.2f} on average;" if len(random_gap) else ""
    return (
        "Completeness: with one member taken out of both, circuit and model differ in faithfulness by "
        f"{gap.mean():.2f} on average and {gap.max():.2f} at worst ({worst});{more} 0 is complete. Minimality: without "
        f"its most dispensable member, {least['component']}, faithfulness changes by {least['largest_change']:.2f} at "
        "most, with whatever else is out. Over circuits of every size, the area under the curve of faithfulness "
        f"(CPR) is {circuit.cpr:.2f}, and that between the curve and 1 (CMD) {circuit.cmd:.2f}."
    )


def _ordinal(number: int) -> str:
    ending = "th" if 10 <= number % 100 <= 20 else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{ending}"
