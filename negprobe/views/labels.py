"""Short labels and titles for tokens, roles, metrics and patches."""

import unicodedata
from functools import lru_cache
from pathlib import Path

import xarray as xr
from matplotlib import rcParams
from matplotlib.font_manager import FontProperties, findfont, get_font

from negprobe.patching.effects import one_name

ELLIPSIS = "…"

_ROLES = {"mask": "[MASK]", "cls": "[CLS]", "sep": "[SEP]"}
_METRICS = {
    "max_attention_diff": "largest attention difference",
    "mean_attention_diff": "mean attention difference",
    "attention_pattern_correlation": "correlation of attention patterns",
    "value_output_correlation": "correlation of head outputs",
    "js_divergence": "Jensen–Shannon divergence of attention",
    "entropy_change": "change of attention entropy",
    "attention_to_cue": "attention to the cue",
    "attention_from_cue": "attention from the cue",
    "norm_js_divergence": "Jensen–Shannon divergence of norm-weighted attention",
    "norm_entropy_change": "change of norm-weighted attention's entropy",
    "norm_to_cue": "norm-weighted attention to the cue",
    "norm_from_cue": "norm-weighted attention from the cue",
    "output_change": "change of head outputs",
    "diffusion": "spread of the change over words",
    "diffusion_distance": "distance of the change from the cue",
    "all_heads_norm": "norm of the attention output",
    "residual": "with residual and LayerNorm",
    "zeroing": "value zeroing",
    "rollout": "attention rollout",
    "globenc": "GlobEnc",
}
_UNITS = {
    "attention_diff": "attention weight",
    "js_divergence": "bits",
    "entropy_change": "bits",
    "to_cue": "share of a query's weight",
    "from_cue": "share of the cue's weight",
    "diffusion": "share of words",
    "diffusion_distance": "ratio of distances",
    "output_change": "relative change",
    "distance": "tokens",
}
_SITE_TITLES = {
    "embed": "the token embedding",
    "pos_embed": "the position embedding",
    "token_type_embed": "the segment embedding",
    "full_embed": "the embedding",
    "resid_pre": "the residual stream into the layer",
    "q": "queries",
    "k": "keys",
    "v": "values",
    "attn_scores": "attention scores",
    "pattern": "attention patterns",
    "z": "head outputs",
    "result": "what heads write",
    "attn_out": "the attention output",
    "resid_mid": "the residual stream after attention",
    "mlp_in": "the residual stream into the MLP",
    "ln1_out": "the output of the first norm",
    "ln2_out": "the output of the second norm",
    "mlp_pre": "the MLP's inputs to its activation",
    "mlp_post": "the MLP's activations",
    "mlp_out": "the MLP output",
    "resid_post": "the residual stream after the MLP",
    "normalized_resid_post": "the residual stream after the layer",
}
SITES = {
    "resid_pre": "the residual stream before a layer",
    "attn_out": "the output of a layer's attention",
    "mlp_out": "the output of a layer's MLP",
    "z": "one head's output z",
}
"""Phrases for the activations at the sites that a study patches; other sites keep their names."""

_PATCHES = {
    "swap": "Swapping {}",
    "zero": "Setting {} to zero",
    "mean": "Setting {} to the mean",
    "resample": "Replacing {} by another pair's",
    "knock_out": "Cutting attention",
}


def tick_label(token: str, longest: int = 14) -> str:
    """A token as a short, visible, one-line label.

    Invisible characters (controls, line ends, direction marks) are shown as "␣". A character that no font in
    `matplotlib.rcParams["font.family"]` has is shown by its code point, such as "U+597D". A longer label is cut to
    `longest` characters.
    """
    seen = "".join(map(_visible, token[: longest + 1])) or "␣"
    return seen if len(seen) <= longest else seen[: longest - 1] + ELLIPSIS


def _visible(character: str) -> str:
    if unicodedata.category(character)[0] in "CZ":
        return "␣"
    return character if _can_be_drawn(character, tuple(rcParams["font.family"])) else f"U+{ord(character):X}"


@lru_cache(maxsize=4096)
def _can_be_drawn(character: str, families: tuple[str, ...]) -> bool:
    """Whether one of the fonts has the character; otherwise matplotlib draws a box and warns."""
    fonts = {findfont(FontProperties(family=[family])) for family in families}
    return any(get_font(font).get_char_index(ord(character)) for font in fonts)


def aligned_label(original: str, counterfactual: str, longest: int = 9) -> str:
    """The label of two aligned tokens: one token if they are equal, otherwise both, such as "now→not".

    Args:
        original: The token of the original.
        counterfactual: The token of the counterfactual.
        longest: Maximum number of characters of each token if they differ.
    """
    if original == counterfactual:
        return tick_label(original, longest + 5)
    # Left-to-right marks keep the original first in every script.
    return f"{tick_label(original, longest)}\u200e→\u200e{tick_label(counterfactual, longest)}"


def role_label(role: str) -> str:
    """The token that a role stands for, such as "[MASK]", or the name of a role without one."""
    return _ROLES.get(role) or tick_label(role)


def metric_name(metric: str) -> str:
    """A metric, or a measure over all heads, in words; an unknown name only loses its underscores."""
    return _METRICS.get(metric, metric.replace("_", " "))


def metric_unit(metric: str) -> str:
    """The unit of a metric, found by the end of its name; empty for a correlation."""
    fitting = [ending for ending in _UNITS if metric.endswith(ending)]
    return _UNITS[max(fitting, key=len)] if fitting else ""


def patching_title(effects: xr.DataArray) -> list[str]:
    """The lines of a title: what was patched, and in which runs.

    For example "Swapping head outputs" and "from the control into the counterfactual (denoising)".

    Args:
        effects: Effects, optionally with the attributes `site`, `how`, `direction` and `key_role`, and the coordinates
            `base_run` and `source_run`.
    """
    site, how, key = (str(effects.attrs.get(name, "")) for name in ("site", "how", "key_role"))
    lines = []
    if site:
        done = _PATCHES.get(how or "swap", f"{how}: {{}}").format(_SITE_TITLES.get(site, site))
        lines.append(f"{done} to {'the cue' if key == 'cue' else role_label(key)}" if how == "knock_out" else done)
    return [*lines, *runs_title(effects, swapped=how in ("", "swap"))]


def runs_title(effects: xr.DataArray, *, swapped: bool = True) -> list[str]:
    """A line that names the runs: "from the control into the counterfactual (denoising)"; empty if unknown.

    Args:
        effects: As in `patching_title`.
        swapped: Whether the activations come from the other run.
    """
    direction = str(effects.attrs.get("direction", ""))
    base, source = run_name(effects, "base_run"), run_name(effects, "source_run")
    if not base:
        return [direction] if direction else []
    runs = f"from the {source} into the {base}" if swapped and source else f"in the {base}"
    return [f"{runs} ({direction})" if direction else runs]


def run_name(effects: xr.DataArray | xr.Dataset, which: str) -> str:
    """The statement of a run: "control or original" if the pairs differ, "" if unknown.

    Args:
        effects: Effects, or the results that they were computed from.
        which: "base_run" for the run that is patched, or "source_run" for the run that the activations come from.
    """
    if which in effects.coords:
        return one_name(effects[which])
    # The direction says which run is the counterfactual's; the other may be the original's or the control's.
    counterfactual = {"denoising": "base_run", "noising": "source_run"}.get(str(effects.attrs.get("direction", "")))
    return "counterfactual" if which == counterfactual else ""


def ablation_label(direction: str, ablation: str) -> str:
    """How and in which run a circuit's other components are ablated, such as "mean ablation in the counterfactual"."""
    run = {"denoising": "counterfactual", "noising": "control or original"}[direction]
    return f"{ablation} ablation in the {run} ({direction})"


def short_name(model_name: str) -> str:
    """The last two parts of a path; a hub name is unchanged."""
    return "/".join(Path(model_name).parts[-2:])


def percent(value: float) -> str:
    """A share in whole percent, with "0%" instead of "-0%"."""
    text = f"{value:.0%}"
    return "0%" if text == "-0%" else text
