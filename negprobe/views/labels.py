"""How tokens, roles, metrics and patches are written where there is little room."""

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
"""The activations at the sites that a study patches, in a sentence; a site without an entry is named as it is."""

_DONE = {
    "swap": "Swapping {}",
    "zero": "Setting {} to zero",
    "mean": "Setting {} to the mean",
    "resample": "Replacing {} by another pair's",
    "knock_out": "Cutting attention",
}


def tick_label(token: str, longest: int = 14) -> str:
    """A token as a short, visible, one-line label.

    Characters that cannot be seen (controls, line ends, direction marks) are shown as "␣", one that the fonts of
    `matplotlib.rcParams["font.family"]` do not have by its number, "U+597D", and what is longer than `longest`
    characters is cut there.
    """
    seen = "".join(map(_visible, token[: longest + 1])) or "␣"
    return seen if len(seen) <= longest else seen[: longest - 1] + ELLIPSIS


def _visible(character: str) -> str:
    if unicodedata.category(character)[0] in "CZ":
        return "␣"
    return character if _can_be_drawn(character, tuple(rcParams["font.family"])) else f"U+{ord(character):X}"


@lru_cache(maxsize=4096)
def _can_be_drawn(character: str, families: tuple[str, ...]) -> bool:
    """Whether one of the fonts has it; the others only draw a box and warn."""
    fonts = {findfont(FontProperties(family=[family])) for family in families}
    return any(get_font(font).get_char_index(ord(character)) for font in fonts)


def aligned_label(original: str, counterfactual: str, longest: int = 9) -> str:
    """The label of two aligned tokens: one word where they agree, "now→not" where they don't.

    Args:
        original: The original's token.
        counterfactual: The counterfactual's.
        longest: Characters that each has where they differ.
    """
    if original == counterfactual:
        return tick_label(original, longest + 5)
    # Left-to-right marks: the first stays first, in whatever script both are.
    return f"{tick_label(original, longest)}\u200e→\u200e{tick_label(counterfactual, longest)}"


def role_label(role: str) -> str:
    """A role as the token it stands for, "[MASK]", where there is one, and by its name elsewhere."""
    return _ROLES.get(role) or tick_label(role)


def metric_name(metric: str) -> str:
    """A metric, or a measure of all heads, in words; without underscores if it is none of negprobe's."""
    return _METRICS.get(metric, metric.replace("_", " "))


def metric_unit(metric: str) -> str:
    """The unit of a metric, told by the end of its name; nothing for a correlation."""
    fitting = [ending for ending in _UNITS if metric.endswith(ending)]
    return _UNITS[max(fitting, key=len)] if fitting else ""


def patching_title(effects: xr.DataArray) -> list[str]:
    """What was done, and to which run, in a line each.

    "Swapping head outputs", "from the control into the counterfactual (denoising)".

    Args:
        effects: Effects with the attributes `site`, `how`, `direction` and `key_role`, and the coordinates `base_run`
            and `source_run`, all of which are optional.
    """
    site, how, key = (str(effects.attrs.get(name, "")) for name in ("site", "how", "key_role"))
    lines = []
    if site:
        done = _DONE.get(how or "swap", f"{how}: {{}}").format(_SITE_TITLES.get(site, site))
        lines.append(f"{done} to {'the cue' if key == 'cue' else role_label(key)}" if how == "knock_out" else done)
    return [*lines, *runs_title(effects, swapped=how in ("", "swap"))]


def runs_title(effects: xr.DataArray, *, swapped: bool = True) -> list[str]:
    """The line that names the runs: "from the control into the counterfactual (denoising)"; no line if unknown.

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
    """Which statement is run: "control or original" where pairs differ, "" if the result does not name it.

    Args:
        effects: Effects, or the results they were made from.
        which: "base_run", the one that is patched, or "source_run".
    """
    if which in effects.coords:
        return one_name(effects[which])
    # Where only the direction is known, the counterfactual is; the other run may be the original or the control.
    counterfactual = {"denoising": "base_run", "noising": "source_run"}.get(str(effects.attrs.get("direction", "")))
    return "counterfactual" if which == counterfactual else ""


def ablation_label(direction: str, ablation: str) -> str:
    """What a circuit's other components became, and in which run: "mean ablation in the counterfactual (denoising)".

    The affirmative run is the control's, or the original's of a pair without one.
    """
    run = {"denoising": "counterfactual", "noising": "affirmative run"}[direction]
    return f"{ablation} ablation in the {run} ({direction})"


def short_name(model_name: str) -> str:
    """A hub name as it is, and the last two folders of a path."""
    return "/".join(Path(model_name).parts[-2:])


def percent(value: float) -> str:
    """A share in whole percent, without a minus before nothing."""
    text = f"{value:.0%}"
    return "0%" if text == "-0%" else text
