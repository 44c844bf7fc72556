"""Figures, interactive pages and reports of what a model does with negation."""

from negprobe.views.figures.attention import (
    by_layer_and_head,
    difference_map,
    four_heatmaps,
    layer_head_map,
    metric_overview,
    patching_map,
    raw_beside_value_weighted,
)
from negprobe.views.figures.drawing import save_figure
from negprobe.views.figures.patching import (
    attribution_agreement,
    causal_against_attention,
    circuit_graph,
    effect_by_role,
    faithfulness_curve,
)
from negprobe.views.figures.statistics import (
    attention_distance_by_layer,
    cue_shares_by_layer,
    diffusion_by_role,
    effect_by_group,
    effect_map,
    raw_against_norm,
)
from negprobe.views.page.page import PageParts, comparison_page, page_parts, write_page
from negprobe.views.report.circuit_story import head_sentence
from negprobe.views.report.write import draw_figures, write_study

__all__ = [
    "PageParts",
    "attention_distance_by_layer",
    "attribution_agreement",
    "by_layer_and_head",
    "causal_against_attention",
    "circuit_graph",
    "comparison_page",
    "cue_shares_by_layer",
    "difference_map",
    "diffusion_by_role",
    "draw_figures",
    "effect_by_group",
    "effect_by_role",
    "effect_map",
    "faithfulness_curve",
    "four_heatmaps",
    "head_sentence",
    "layer_head_map",
    "metric_overview",
    "page_parts",
    "patching_map",
    "raw_against_norm",
    "raw_beside_value_weighted",
    "save_figure",
    "write_page",
    "write_study",
]
