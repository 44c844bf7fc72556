"""Reports format numbers that are rows of a summary; figures and pages compute only what they draw."""

import ast
from pathlib import Path

import pytest

import negprobe.statistics

VIEWS = Path(__file__).resolve().parents[2] / "negprobe" / "views"

REDUCTIONS = {"mean", "nanmean", "median", "nanmedian", "quantile", "nanquantile", "percentile", "std", "var", "corr"}
REDUCTIONS |= {"corrcoef", "sum", "nansum", "count_nonzero", "spearmanr", "pearsonr", "bootstrap"}
ESTIMATORS = {name for name in negprobe.statistics.__all__ if name[0].islower()}
ESTIMATORS |= {"share", "averages", "mean_effect", "effect", "head_story", "summarize"}

# Figures and pages are also called with arrays or results for which there is no summary, such as by a notebook.
ALLOWED = {
    "figures/drawing.py: rank_correlation": "the correlation of a scatter that a caller draws from arrays",
    "figures/patching.py: sum": "widths of the boxes of a diagram, in points",
    "figures/patching.py: mean": "the error that a scatter of a caller's estimates shows",
    "figures/patching.py: head_story": "a diagram of a circuit is drawn from the readings of a probe",
    "figures/statistics.py: mean": "curves and maps of a probe's results are means over its pairs",
    "figures/statistics.py: nanmedian": "which of several curves is labelled first",
    "figures/statistics.py: sum": "counts of pairs and tests in titles, and the order of the strongest heads",
    "figures/attention.py: mean": "the mean over pairs of a table of metrics that holds several pairs",
    "figures/attention.py: sum": "the attention that goes to special tokens that a map does not show",
    "page/page.py: effect": "a page shows a sweep as its caller gives it",
    "notebook.py: mean": "the head that a notebook shows first",
}


def computed(source: str) -> list[str]:
    """The reductions and estimators that a module calls."""
    tree = ast.parse(source)
    calls = [node.func for node in ast.walk(tree) if isinstance(node, ast.Call)]
    names = [func.attr if isinstance(func, ast.Attribute) else getattr(func, "id", "") for func in calls]
    called = [
        name
        for name, func in zip(names, calls, strict=True)
        # The built-in sum of a generator is no reduction of data unless it is given an array.
        if name in ESTIMATORS or (name in REDUCTIONS and isinstance(func, ast.Attribute))
    ]
    imported = [
        node.module or ""
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "scipy"
    ]
    return [*called, *imported]


def found_in(folder: Path) -> set[str]:
    return {
        f"{path.relative_to(VIEWS).as_posix()}: {name}"
        for path in sorted(folder.rglob("*.py"))
        for name in computed(path.read_text(encoding="utf-8"))
    }


def test_reports_compute_nothing() -> None:
    assert found_in(VIEWS / "report") == set()


def test_figures_and_pages_compute_only_what_is_listed() -> None:
    assert found_in(VIEWS) == set(ALLOWED)


@pytest.mark.parametrize(
    "line",
    [
        "from scipy import stats",
        "np.mean(values)",
        "table['q'].quantile(0.5)",
        "effect_tests(effects)",
        "statistics.survivors(tests)",
        "share(hits)",
    ],
)
def test_a_computation_is_found(line: str) -> None:
    assert computed(line)
