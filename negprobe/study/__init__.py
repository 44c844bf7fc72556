"""A study: all measurements and tests of a model on a set of statement pairs."""

from negprobe.study.results import Mechanism, StudyResults
from negprobe.study.run import run_study
from negprobe.study.saved import SavedStudy, read_study
from negprobe.study.summary import summarize
from negprobe.study.summary_table import StudySummary, read_summary

__all__ = [
    "Mechanism",
    "SavedStudy",
    "StudyResults",
    "StudySummary",
    "read_study",
    "read_summary",
    "run_study",
    "summarize",
]
