"""Writing the numbers, figures and report of a study to its folder."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from negprobe.base.arguments import checked
from negprobe.base.errors import ViewError
from negprobe.base.files import whole_file
from negprobe.study.figure_data import figure_data, read_figure_data
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
    """Write report, figures, tables and manifest to a folder, and return the path of the report.

    Args:
        results: The results of the study.
        out: The folder.
        command: The command that started the study, for the manifest; by default this process's command line.
        figure_formats: Formats of the figures, in addition to PNG.

    Raises:
        NegprobeError: if the folder cannot be written to.
    """
    out = Path(out)
    # The numbers first, so that they are saved even if drawing a figure fails.
    manifest = write_numbers(results, out, command)
    report = out / "report.html"
    try:
        drawn = study_figures(figure_data(results))
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


@checked
def draw_figures(folder: str | Path, figure_formats: Sequence[FigureFormat]) -> tuple[list[Path], tuple[str, ...]]:
    """Draw the figures of a finished study again from the files in its folder, and return their paths.

    Args:
        folder: The folder of the study; the figures are written to its folder `figures`.
        figure_formats: The formats to write every figure in.

    Returns:
        The paths of the figures, and the names of those that cannot be drawn, because an earlier version of negprobe
        did not save their data.

    Raises:
        NegprobeError: if the folder is not that of a finished study, a file in it is damaged, or it cannot be written
            to.
        ViewError: if there is no format.
    """
    folder = Path(folder)
    if not figure_formats:
        raise ViewError("figure_formats is empty; give one or more of png, pdf and svg.")
    data = read_figure_data(folder)
    written = []
    try:
        (folder / "figures").mkdir(exist_ok=True)
        for name, figure in study_figures(data).items():
            for extension in sorted(set(figure_formats)):
                path = folder / "figures" / f"{name}.{extension}"
                if extension == "png":
                    with whole_file(path) as part:
                        part.write_bytes(png(figure))
                else:
                    save_figure(figure, path)
                written.append(path)
    except OSError as error:
        raise cannot_write(folder, error) from error
    return written, data.not_saved
