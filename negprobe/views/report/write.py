"""Writing a study into a folder: its numbers, its figures and its report."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from negprobe.base.arguments import checked
from negprobe.base.files import whole_file
from negprobe.study.results import StudyResults
from negprobe.study.tables import cannot_write, write_numbers
from negprobe.views.figures.drawing import save_figure
from negprobe.views.report.document import png
from negprobe.views.report.report import study_figures, study_report

FigureFormat = Literal["png", "pdf", "svg"]
"""A file format of figures."""


@checked
def write_study(
    results: StudyResults,
    out: str | Path,
    command: str | None = None,
    *,
    figure_formats: Sequence[FigureFormat] = (),
) -> Path:
    """Write report, figures, tables and manifest into a folder, and return the report's path.

    Args:
        results: What the study found.
        out: The folder.
        command: How the study was started, for the manifest; by default this process's command line.
        figure_formats: The formats to write every figure in, beside the PNG that the report shows.

    Raises:
        NegprobeError: if the folder cannot be written to.
    """
    out = Path(out)
    # The numbers first, so that they are safe whatever goes wrong with a figure.
    manifest = write_numbers(results, out, command)
    report = out / "report.html"
    try:
        drawn = study_figures(results)
        figures = {name: png(figure) for name, figure in drawn.items()}
        for name, figure in drawn.items():
            with whole_file(out / "figures" / f"{name}.png") as part:
                part.write_bytes(figures[name])
            for extra in sorted(set(figure_formats) - {"png"}):
                save_figure(figure, out / "figures" / f"{name}.{extra}")
        page = study_report(results, figures, manifest)
        with whole_file(report) as part:
            part.write_text(page, encoding="utf-8")
    except OSError as error:
        raise cannot_write(out, error) from error
    return report
