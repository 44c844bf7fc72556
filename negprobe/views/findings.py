"""What a study found, in sentences with the numbers that stand in its figures and tables."""

import numpy as np
import xarray as xr

from negprobe.models.config import Head
from negprobe.patching import mean_effect
from negprobe.results import StudyResults

_N_HEADS_NAMED = 3


def findings(results: StudyResults) -> list[str]:
    """The study's answer: whether the model hears the negation, which heads respond, and what carries the answer."""
    return [*behaviour(results), *responding_heads(results), *carriers(results)]


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
    """The heads whose attention changes more for the negation than for a neutral word of the same length."""
    effects = results.effects[results.effects["metric"] == "mean_attention_diff"]
    if effects.empty:
        means = results.metrics.groupby(["layer", "head"])[["mean_attention_diff"]].mean().reset_index()
        strongest = means.sort_values("mean_attention_diff", ascending=False).head(_N_HEADS_NAMED)
        named = "; ".join(
            f"{row['layer']:.0f}.{row['head']:.0f} by {row['mean_attention_diff']:.4f}"
            for _, row in strongest.iterrows()
        )
        return [
            "No pair has a control of the same length, so negation cannot be told from an inserted word here. The "
            f"heads whose attention changes most (mean |ΔA|) are {named}."
        ]
    above = int((effects["low"] > 0).sum())
    strongest = effects.sort_values("effect", ascending=False).head(_N_HEADS_NAMED)
    named = "; ".join(
        f"head {row['layer']:.0f}.{row['head']:.0f} by {row['counterfactual']:.4f} under the cue and "
        f"{row['control']:.4f} under the control (difference {row['effect']:.4f}, "
        f"95 % interval {row['low']:.4f} to {row['high']:.4f})"
        for _, row in strongest.iterrows()
    )
    n = int(effects["n"].max())
    return [
        f"Attention changes more for the negation than for a neutral word of the same length in {above} of "
        f"{len(effects)} heads (the interval of the difference lies above 0; not corrected for the number of heads). "
        f"Most, over {n} pairs, in terms of mean |ΔA|: {named}."
    ]


def carriers(results: StudyResults) -> list[str]:
    """The positions and heads whose activations move the answer when they are swapped."""
    if not results.patching:
        return []
    effect = mean_effect(results.patching["resid_pre", "denoising"])
    return [*_cue_story(effect), *_answer_story(effect, results.cfg.head), _head_story(results)]


def _cue_story(effect: xr.DataArray) -> list[str]:
    cue = effect.sel(role="cue").values
    n_pairs = int(effect["n_pairs"].sel(role="cue").max())
    if n_pairs == 0:
        return ["The cue has no partner in any original, so its own activation could not be swapped."]
    sentence = (
        f"Swapping the residual stream at the cue alone brings back {_percent(cue[0])} of the original's answer before "
        f"layer 0 ({n_pairs} pairs, denoising)"
    )
    below = np.flatnonzero(cue < 0.5)
    if cue[0] >= 0.5 and below.size:
        sentence += f", and less than half from layer {below[0]} on ({_percent(cue[below[0]])})"
    elif cue[0] >= 0.5:
        sentence += ", and at least half before every later layer"
    return [f"{sentence}."]


def _answer_story(effect: xr.DataArray, head: Head) -> list[str]:
    """When the answer stands where the head reads it; a mean over all tokens has no such place."""
    places: dict[Head, tuple[str, str]] = {
        "masked_lm": ("mask", "the masked position"),
        "classification": ("cls", "the first token"),
    }
    if head not in places:
        return []
    role, name = places[head]
    there = effect.sel(role=role).values
    above = np.flatnonzero(there >= 0.5)
    story = (
        f"at least half of the answer first stands there before layer {above[0]} ({_percent(there[above[0]])})"
        if above.size
        else f"less than half of the answer stands there before any layer; the most is {_percent(np.nanmax(there))}"
    )
    return [f"At {name}, which the head reads, {story}; before the last layer it is {_percent(there[-1])}."]


def _head_story(results: StudyResults) -> str:
    back = mean_effect(results.patching["z", "denoising"])
    away = mean_effect(results.patching["z", "noising"])
    order = np.argsort(back.values, axis=None)[::-1][:_N_HEADS_NAMED]
    named = "; ".join(
        f"head {layer}.{head} brings back {_percent(back.values[layer, head])} (and takes away "
        f"{_percent(away.values[layer, head])} when the counterfactual's output is put into the original's run)"
        for layer, head in zip(*np.unravel_index(order, back.shape), strict=True)
    )
    return f"Swapping one head's output z at all aligned tokens: {named}."


def _percent(value: float) -> str:
    percent = f"{value:.0%}"
    return "0%" if percent == "-0%" else percent
