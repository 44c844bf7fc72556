"""What a study found, in sentences with the numbers that stand in its figures and tables."""

import numpy as np
import xarray as xr

from negprobe.patching import mean_effect
from negprobe.results import StudyResults

_N_HEADS_NAMED = 3
# Below this a sign-flip test over pairs cannot reach p < 0.05, whatever the numbers (2 / 2^5 = 0.0625).
_FEW_PAIRS = 6


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
    n = int(effects["n"].max())
    if n < _FEW_PAIRS:
        strongest = effects.sort_values("effect", ascending=False).head(_N_HEADS_NAMED)
        named = "; ".join(
            f"head {row['layer']:.0f}.{row['head']:.0f} by {row['counterfactual']:.4f} and {row['control']:.4f}"
            for _, row in strongest.iterrows()
        )
        return [
            f"With {n} controlled {'pair' if n == 1 else 'pairs'} there is nothing to test: five pairs or fewer can "
            "never be significant at 0.05. Under the cue and under its control, attention changes most (mean |ΔA|) in "
            f"{named}."
        ]
    above = int((effects["low"] > 0).sum())
    strongest = effects.sort_values("effect", ascending=False).head(_N_HEADS_NAMED)
    named = "; ".join(
        f"head {row['layer']:.0f}.{row['head']:.0f} by {row['counterfactual']:.4f} under the cue and "
        f"{row['control']:.4f} under the control (difference {row['effect']:.4f}, "
        f"95 % interval {row['low']:.4f} to {row['high']:.4f})"
        for _, row in strongest.iterrows()
    )
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
    if not np.isfinite(effect).any():
        return ["No patched pair's two runs differ in the answer, so there is nothing for a swap to move."]
    return [_swap_story(results), *_path_story(effect), _head_story(results)]


def _swap_story(results: StudyResults) -> str:
    n, k = len(results.answers), results.from_control
    if k == 0:
        return f"Activations were swapped between original and counterfactual in all {n} pairs."
    rest = f", and between original and counterfactual in the other {n - k}" if n > k else ""
    return (
        f"Activations were swapped between control and counterfactual in {k} of {n} pairs, so that the cue has a "
        f"partner to be swapped with{rest}; control or original is the affirmative run below."
    )


def _path_story(effect: xr.DataArray) -> list[str]:
    """Where the answer stands before each layer: the role whose residual stream alone moves it most."""
    n_pairs = int(effect["n_pairs"].sel(role="cue").max())
    no_cue = "No pair has a control and no cue has a partner in an original, so none could be swapped by itself."
    story = [] if n_pairs else [no_cue]
    steps = []
    for layer in effect["layer"].values:
        here = effect.sel(layer=layer)
        role = str(here["role"].values[int(np.nanargmax(here.values))])
        steps.append(f"before layer {layer} at {_ROLE_NAMES[role]} ({_percent(float(here.sel(role=role)))})")
    return [
        *story,
        "Swapping the residual stream at the tokens of one role brings back the affirmative run's answer (denoising) "
        f"most {', '.join(steps)}.",
    ]


_ROLE_NAMES = {
    "cue": "the cue",
    "affected": "the affected word",
    "target": "the target word",
    "mask": "[MASK]",
    "cls": "the first token",
    "sep": "the separator",
    "other": "all other tokens",
}


def _head_story(results: StudyResults) -> str:
    back = mean_effect(results.patching["z", "denoising"])
    away = mean_effect(results.patching["z", "noising"])
    order = np.argsort(back.values, axis=None)[::-1][:_N_HEADS_NAMED]
    named = "; ".join(
        f"head {layer}.{head} brings back {_percent(back.values[layer, head])} and takes away "
        f"{_percent(away.values[layer, head])}"
        for layer, head in zip(*np.unravel_index(order, back.shape), strict=True)
    )
    return (
        "Swapping one head's output z at all aligned tokens brings the affirmative run's answer back into the "
        f"counterfactual's (denoising), or takes it away from the affirmative run (noising): {named}."
    )


def _percent(value: float) -> str:
    percent = f"{value:.0%}"
    return "0%" if percent == "-0%" else percent
