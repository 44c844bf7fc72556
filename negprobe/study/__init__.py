"""A study: a model and statement pairs in, every measured and tested number out."""

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
