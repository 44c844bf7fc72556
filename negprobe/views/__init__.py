"""Figures, interactive pages and reports of what a model does with negation."""

from negprobe.views.figures import (
    by_layer_and_head,
    four_heatmaps,
    layer_head_map,
    metric_overview,
    patching_map,
    raw_beside_value_weighted,
)
from negprobe.views.page import PageParts, comparison_page, page_parts, write_page

__all__ = [
    "PageParts",
    "by_layer_and_head",
    "comparison_page",
    "four_heatmaps",
    "layer_head_map",
    "metric_overview",
    "page_parts",
    "patching_map",
    "raw_beside_value_weighted",
    "write_page",
]
