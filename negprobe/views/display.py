"""The views that results use to display themselves (see `negprobe.base.display`)."""

from negprobe.views.figures.patching import circuit_graph
from negprobe.views.notebook import attention_summary, circuit_summary, comparison_summary
from negprobe.views.page.page import write_page, write_pairs_page

__all__ = [
    "attention_summary",
    "circuit_graph",
    "circuit_summary",
    "comparison_summary",
    "write_page",
    "write_pairs_page",
]
