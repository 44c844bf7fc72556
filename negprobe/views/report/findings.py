"""What a study found, in sentences with the numbers that stand in its figures and tables."""

import numpy as np
import pandas as pd
import xarray as xr
from jaxtyping import Float
from scipy import stats

from negprobe.attention import COMPARED
from negprobe.patching import averages, mean_effect
from negprobe.statistics import ALPHA, agreement, survivors
from negprobe.study.results import Mechanism, StudyResults
from negprobe.views.labels import metric_name, percent, run_name
from negprobe.views.report.circuit_story import ROLE_NAMES
from negprobe.views.report.mechanism_findings import mechanism
from negprobe.views.report.wording import between, in_percent, share_of, signed

_N_HEADS_NAMED = 3


def answer(results: StudyResults) -> list[str]:
    """The answer in a few sentences, each with the number that matters and its 95 % interval in brackets."""
    return [*_hears(results), *_responds(results), *_carried(results), *_needed(results)]


def _hears(results: StudyResults) -> list[str]:
    """Whether the answer is another one under the negation."""
    answers = results.answers
    if answers.empty:
        return behaviour(results)
    if results.cfg.head == "none":
        alike = (1 - answers["original"]).to_numpy()
        low, high = _interval_of_mean(alike, results.seed)
        return [
            f"The embeddings of a statement and its negation have a mean cosine similarity of {alike.mean():.3f}"
            f"{between(f'{low:.3f}', f'{high:.3f}', len(alike))}, where 1 would be the same embedding."
        ]
    if len(results.cfg.labels) == 1:
        change = (answers["counterfactual"] - answers["original"]).to_numpy()
        low, high = _interval_of_mean(change, results.seed)
        return [
            f"The negation changes the model's score by {change.mean():+.3f} on average"
            f"{between(f'{low:+.3f}', f'{high:+.3f}', len(change))}."
        ]
    if results.own_labels:
        n_same = sum("labels both statements" in reason for reason in results.unpatched)
        labels = np.repeat([True, False], [len(answers), n_same])
        return [f"The negation changes the model's label on {share_of(labels)}."]
    both = ((answers["original"] > 0) & (answers["counterfactual"] < 0)).to_numpy()
    sentence = (
        f"The model gives the right answer both without and with the negation on {share_of(both)}; one that did not "
        "hear the negation would answer both alike, and be right on one of them at most."
    )
    controlled = answers["control"].dropna().to_numpy()
    if not len(controlled):
        return [sentence]
    return [f"{sentence} A neutral word in the cue's place leaves the answer right on {share_of(controlled > 0)}."]


def _responds(results: StudyResults) -> list[str]:
    """How many heads tell the negation from another word, and the one that does it most regularly."""
    tests = results.tests
    if tests is None or "untestable" in tests.attrs:
        return responding_heads(results)
    passing = survivors(tests)
    by_q, by_max_t = (int((tests[name] <= ALPHA).any("metric").sum()) for name in ("q", "p_max_t"))
    n_heads, n_pairs = tests.sizes["layer"] * tests.sizes["head"], int(tests["n"].max())
    corrected = f"q ≤ {ALPHA:g} after correction for every head and metric, {n_pairs} pairs"
    if passing.empty:
        return [f"None of {n_heads} heads responds differently to the negation than to a neutral word ({corrected})."]
    top = passing.iloc[0]
    return [
        f"{by_q} of {n_heads} heads respond differently to the negation than to a neutral word of the same length "
        f"({corrected}; {by_max_t} by max-T). The most regular is {top['layer']:.0f}.{top['head']:.0f}: "
        f"its {metric_name(top['metric'])} differs by {signed(top['effect'], top['low'], top['high'])}."
    ]


def _carried(results: StudyResults) -> list[str]:
    """At which tokens and in which head the answer stands."""
    if not results.patching:
        return []
    by_role = averages(results.patching["resid_pre", "denoising"], seed=results.seed).dropna(subset="effect")
    if by_role.empty:
        return carriers(results)
    layers = sorted({int(by_role["layer"].min()), int(by_role["layer"].max())})
    tops = [by_role[by_role["layer"] == layer].nlargest(1, "effect").iloc[0] for layer in layers]
    path = "; ".join(
        f"before layer {layer} at {ROLE_NAMES[str(top['role'])]}, {_effect(top)}"
        for layer, top in zip(layers, tops, strict=True)
    )
    heads = averages(results.patching["z", "denoising"], seed=results.seed).dropna(subset="effect")
    head = heads.nlargest(1, "effect").iloc[0]
    return [
        f"Replacing a single activation of the counterfactual with the {_affirmative(results)}'s can restore that "
        f"run's answer ({int(head['n_pairs'])} pairs). The strongest effects of the residual stream at one kind of "
        f"token: {path}. The strongest single head is {int(head['layer'])}.{int(head['head'])}, {_effect(head)}."
    ]


def _needed(results: StudyResults) -> list[str]:
    """What looking at the cue is worth, and how few components are enough."""
    found = results.mechanism
    return [] if found is None else [*_looking(found, results), *_enough(found)]


def _affirmative(results: StudyResults) -> str:
    """The statements that the counterfactuals are patched from: "control", "original", or "control or original"."""
    return run_name(results.patching["resid_pre", "denoising"], "source_run")


def _looking(found: Mechanism, results: StudyResults) -> list[str]:
    table = averages(found.knock_out_sets, seed=results.seed)
    cut = table[table["patch"] == "everywhere"].iloc[0]
    if np.isnan(cut["effect"]):
        return []
    return [
        f"If no token can attend to the cue, the answer under the negation goes {_effect(cut)} of the way to the "
        f"{_affirmative(results)}'s."
    ]


def _enough(found: Mechanism) -> list[str]:
    circuit = found.circuit
    if circuit is None:
        return []
    low, high = circuit.interval
    return [
        f"A circuit of {len(circuit)} of {len(circuit.scores)} components preserves "
        f"{percent(circuit.faithfulness)} of the effect of negation"
        f"{between(percent(low), percent(high), circuit.n_held_out)} on {circuit.n_held_out} pairs that it was not "
        f"searched on; random sets of that size keep {percent(circuit.random_faithfulness)}."
    ]


def _effect(row: pd.Series) -> str:
    return in_percent(row["effect"], row["low"], row["high"])


def _interval_of_mean(values: Float[np.ndarray, " pair"], seed: int) -> tuple[float, float]:
    """The 95 % percentile bootstrap interval; NaN for fewer than two values."""
    if len(values) < 2:
        return np.nan, np.nan
    found = stats.bootstrap((values,), np.mean, method="percentile", rng=np.random.default_rng(seed))
    return float(found.confidence_interval.low), float(found.confidence_interval.high)


def findings(results: StudyResults) -> list[str]:
    """The study's answer: whether the model hears the negation, which heads respond, and what carries the answer."""
    return [*behaviour(results), *responding_heads(results), *carriers(results), *mechanism(results)]


def behaviour(results: StudyResults) -> list[str]:
    """What the model says to the statements, before anything is swapped."""
    answers, n = results.answers, len(results.answers)
    if n == 0:
        return [f"None of the {len(results.pairs)} pairs could be answered, so nothing was patched."]
    controlled = answers["control"].dropna()
    right_control = int((controlled > 0).sum())
    if results.cfg.head == "none":
        nearness = 1 - answers["original"]
        sentence = (
            f"The embeddings of original and counterfactual have a cosine similarity of {nearness.mean():.3f} on "
            f"average (from {nearness.min():.3f} to {nearness.max():.3f}, {n} pairs)."
        )
        if len(controlled) == 0:
            return [sentence]
        return [
            f"{sentence} The control, which has a neutral word where the cue is, lies nearer to the original than to "
            f"the counterfactual in {right_control} of {len(controlled)} pairs."
        ]
    if len(results.cfg.labels) == 1:
        means = answers[["original", "counterfactual"]].mean()
        sentence = (
            f"The model's score (its one logit) is {means['original']:.3f} on average on original statements and "
            f"{means['counterfactual']:.3f} on counterfactuals, {n} pairs"
        )
        return [f"{sentence}; {controlled.mean():.3f} on controls." if len(controlled) else f"{sentence}."]
    if results.own_labels:
        n_asked = n + sum("labels both statements" in reason for reason in results.unpatched)
        return [f"The model gives original and counterfactual different labels on {n} of {n_asked} pairs."]
    right, changed = int((answers["original"] > 0).sum()), int((answers["counterfactual"] < 0).sum())
    both = int(((answers["original"] > 0) & (answers["counterfactual"] < 0)).sum())
    what = "word" if results.cfg.head == "masked_lm" else "label"
    sentence = (
        f"The model prefers the right {what} on {right} of {n} original statements and on {changed} of {n} "
        f"counterfactuals; on {both} pairs ({both / n:.0%}) it gets both right, which needs the negation"
    )
    if len(controlled) == 0:
        return [f"{sentence}."]
    return [
        f"{sentence}. With a neutral word in the cue's place it keeps the original's answer on {right_control} of "
        f"{len(controlled)} controls."
    ]


def responding_heads(results: StudyResults) -> list[str]:
    """The heads that do something else at the negation than at a neutral word of the same length."""
    tests = results.tests
    if tests is None:
        change = results.metrics["mean_attention_diff"].sel(compared="counterfactual").mean("pair")
        named = "; ".join(f"{_head(cell)} by {float(cell):.4f}" for cell in _largest(change))
        return [
            "No pair has a control of the same length, so negation cannot be told from an inserted word here. The "
            f"heads whose attention changes most (mean |ΔA|) are {named}."
        ]
    if "untestable" in tests.attrs:
        both = results.metrics["mean_attention_diff"].dropna("pair", how="any").mean("pair")
        cue, control = (both.sel(compared=name, drop=True) for name in COMPARED)
        named = "; ".join(
            f"head {_head(cell)} by {float(cell):.4f} and {float(neutral):.4f}"
            for cell in _largest(cue)
            for neutral in [control.sel(layer=cell["layer"], head=cell["head"])]
        )
        return [
            f"{tests.attrs['untestable']} Under the cue and under its control, attention changes most (mean |ΔA|) in "
            f"{named}."
        ]
    sentences = [_how_many_pass(tests), *_strongest(tests), _raw_and_norm(tests)]
    return [*sentences, *_contributed(results.cue_share_tests), *_replicated(results)]


def _how_many_pass(tests: xr.Dataset) -> str:
    """How many heads survive the corrections on any metric."""
    n_heads, n_tests = tests.sizes["layer"] * tests.sizes["head"], int((tests["n"] > 0).sum())
    by_q, by_max_t = (int((tests[name] <= ALPHA).any("metric").sum()) for name in ("q", "p_max_t"))
    coarse = f" {tests.attrs['resolution']}" if "resolution" in tests.attrs else ""
    return (
        f"Compared with a neutral word of the same length in {int(tests['n'].max())} pairs, {by_q} of {n_heads} heads "
        f"respond to the negation on at least one metric (Benjamini-Hochberg q ≤ {ALPHA:g} over {n_tests} tests of "
        f"{tests.sizes['metric']} metrics); {by_max_t} by max-T.{coarse}"
    )


def _strongest(tests: xr.Dataset) -> list[str]:
    """The heads that pass, each by the metric on which its effect is the most regular."""
    passing = survivors(tests).drop_duplicates(["layer", "head"]).head(_N_HEADS_NAMED)
    if passing.empty:
        return []
    named = "; ".join(
        f"{row['layer']:.0f}.{row['head']:.0f} by {row['metric']} {row['effect']:+.3g} (95 % interval "
        f"{row['low']:.3g} to {row['high']:.3g}, d_z {row['effect_size']:.2f}, {_q_and_p(row)})"
        for _, row in passing.iterrows()
    )
    return [f"The heads with the most regular effects (largest |d_z|), with the metric that shows it: {named}."]


def _q_and_p(row: pd.Series) -> str:
    return f"q {row['q']:.2g}, max-T p {row['p_max_t']:.2g}"


def _raw_and_norm(tests: xr.Dataset) -> str:
    """Whether attention to the cue before and after the values tells the same story."""
    found = agreement(tests, "attention_to_cue", "norm_to_cue")
    apart = found.disagreeing.head(_N_HEADS_NAMED)
    named = ", ".join(f"{row['layer']:.0f}.{row['head']:.0f}" for _, row in apart.iterrows())
    where = (
        f"of the heads with a significant effect, {len(found.disagreeing)} show opposite signs (first {named})"
        if len(apart)
        else "no head with a significant effect shows opposite signs"
    )
    rank = (
        "do not vary enough over the heads to be ranked"
        if np.isnan(found.correlation)
        else f"have a rank correlation of {found.correlation:.2f} over the heads"
    )
    return f"The effects on attention to the cue and on norm-weighted attention to it {rank}; {where}."


def _contributed(tests: xr.Dataset | None) -> list[str]:
    """What the cue contributes to the other words, all heads together, by each measure where it differs most."""
    if tests is None:
        return []
    named = []
    for measure in tests["metric"].values:
        here = tests.sel(metric=measure)
        layer = int(abs(here["effect"]).argmax("layer"))
        cell = here.isel(layer=layer)
        named.append(f"{measure} {float(cell['effect']):+.3g} in layer {layer} (max-T p {float(cell['p_max_t']):.2g})")
    return [
        "With all heads together, the cue's share of the information flowing into the other words differs most from "
        f"the neutral word's by {'; '.join(named)}."
    ]


def _replicated(results: StudyResults) -> list[str]:
    """In how many kinds of cue, and data sets, the heads' effects come back."""
    sentences = []
    for by, found in results.replications.items():
        what = {"cue": "kinds of cue", "source": "data sets"}[by]
        n_heads = found.sizes["layer"] * found.sizes["head"]
        several = int((found["q_partial"] <= ALPHA).any("metric").sum())
        sentences.append(
            f"Tested separately in each of {found.sizes['group']} {what}, {several} of {n_heads} heads have an effect "
            f"of the same sign in two or more (partial conjunction, q ≤ {ALPHA:g} over all metrics and heads)."
            f"{_out_of_reach(found)}"
        )
    return sentences


def _out_of_reach(found: xr.Dataset) -> str:
    """That groups of so few pairs can show nothing, if it is so."""
    n = np.sort(found["n"].max(("metric", "layer", "head")).values)[::-1]
    at_least = found.attrs["at_least"]
    # The least p of a group of n pairs is 2 of its 2^n sign flips, or the first of the drawn ones.
    floor = max(2.0 ** (1 - int(n[at_least - 1])), 1 / (1 + found.attrs["n_resamples"]))
    if (len(n) - at_least + 1) * floor <= ALPHA:
        return ""
    return f" With {n[-1]} to {n[0]} pairs in each, none could: no p can come down to {ALPHA:g}."


def _largest(change: xr.DataArray) -> list[xr.DataArray]:
    """The cells of the largest values, the largest first."""
    cells = change.stack(cell=("layer", "head"))
    order = np.argsort(-cells.fillna(-np.inf).values, kind="stable")[:_N_HEADS_NAMED]
    return [change.sel(layer=layer, head=head) for layer, head in cells["cell"].values[order]]


def _head(cell: xr.DataArray) -> str:
    return f"{int(cell['layer'])}.{int(cell['head'])}"


def carriers(results: StudyResults) -> list[str]:
    """The positions and heads whose activations move the answer when they are swapped."""
    if not results.patching:
        return []
    effect = mean_effect(results.patching["resid_pre", "denoising"])
    if not np.isfinite(effect).any():
        return ["No patched pair's two runs differ in the answer, so there is nothing for a swap to move."]
    return [_swap_story(results), *_path_story(effect, _affirmative(results)), _head_story(results)]


def _swap_story(results: StudyResults) -> str:
    n, k, n_answered = len(results.patched), results.from_control, len(results.answers)
    sample = f" Of {n_answered} pairs, {n} were patched, taken evenly from the kinds of cue." if n < n_answered else ""
    if k == 0:
        return f"Activations were swapped between original and counterfactual in all {n} pairs.{sample}"
    rest = f", and between original and counterfactual in the other {n - k}" if n > k else ""
    return (
        f"Activations were swapped between control and counterfactual in {k} of {n} pairs, so that the cue has a "
        f"partner{rest}.{sample}"
    )


def _path_story(effect: xr.DataArray, affirmative: str) -> list[str]:
    """Where the answer stands before each layer: the role whose residual stream alone moves it most."""
    n_pairs = int(effect["n_pairs"].sel(role="cue").max())
    no_cue = "No pair has a control and no cue has a partner in an original, so none could be swapped by itself."
    story = [] if n_pairs else [no_cue]
    steps = []
    for layer in effect["layer"].values:
        here = effect.sel(layer=layer)
        role = str(here["role"].values[int(np.nanargmax(here.values))])
        steps.append(f"before layer {layer} at {ROLE_NAMES[role]} ({percent(float(here.sel(role=role)))})")
    return [
        *story,
        f"Replacing the residual stream at the tokens of one role with the {affirmative}'s (denoising) restores its "
        f"answer most {', '.join(steps)}.",
    ]


def _head_story(results: StudyResults) -> str:
    back = mean_effect(results.patching["z", "denoising"])
    away = mean_effect(results.patching["z", "noising"])
    order = np.argsort(back.values, axis=None)[::-1][:_N_HEADS_NAMED]
    named = "; ".join(
        f"head {layer}.{head} restores {percent(back.values[layer, head])} and removes "
        f"{percent(away.values[layer, head])}"
        for layer, head in zip(*np.unravel_index(order, back.shape), strict=True)
    )
    run = _affirmative(results)
    return (
        f"Replacing one head's output z at all aligned tokens of the counterfactual with the {run}'s restores the "
        f"{run}'s answer (denoising); the other way round it removes it (noising): {named}."
    )


def left_out(results: StudyResults) -> list[str]:
    """What was left out, and what weakens the result; nothing is dropped in silence."""
    notes = list(results.notes)
    for what, reasons in (
        ("Left out", results.dropped),
        ("Measured but not patchable", results.unpatched),
    ):
        if reasons:
            n_more = len(reasons) - 1
            listed = "is" if n_more == 1 else "are"
            more = f" ({n_more} more {listed} listed in manifest.json)" if n_more else ""
            notes.append(f"{what}: {reasons[0].rstrip('.')}{more}.")
    for what, missing in (
        ("negation cue", sum(not pair.cue_spans for pair in results.pairs)),
        ("control of the counterfactual's length", sum(pair.control is None for pair in results.pairs)),
    ):
        if missing:
            notes.append(f"{missing} of {len(results.pairs)} pairs have no {what}.")
    measured, n = results.cue_shares.sizes["pair"], sum(bool(pair.cue_spans) for pair in results.pairs)
    if measured < n:
        notes.append(
            f"What the cue contributes was measured on {measured or 'none'} of {n} pairs with a cue"
            f"{', an even sample' if measured else ''}: the time that value zeroing takes grows with the square of a "
            "text's length."
        )
    if results.unknown_words:
        words = ", ".join(results.unknown_words[:12])
        more = ", …" if len(results.unknown_words) > 12 else ""
        n_words = len(results.unknown_words)
        are = "word is" if n_words == 1 else "words are"
        notes.append(f"{n_words} {are} not in the model's vocabulary: {words}{more}.")
    no_gap = [mean_effect(patched).attrs["near_zero_gap"] for patched in results.patching.values()][:1]
    if no_gap and no_gap[0]:
        notes.append(f"{len(no_gap[0])} patched pairs do not differ in the answer and are not in the averages.")
    return notes
