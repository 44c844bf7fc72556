"""Studies without figures and with an empty report, which take most of a small study's time."""

import pytest


def draw_nothing(patch: pytest.MonkeyPatch) -> None:
    """Write studies without their figures until the patch ends."""
    patch.setattr("negprobe.views.report.write.study_figures", lambda results: {})
    patch.setattr("negprobe.views.report.write.study_report", lambda results, figures, manifest: "")
