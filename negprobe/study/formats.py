"""The version of the files that a study writes."""

from pathlib import Path

from negprobe.base.errors import StudyError

FORMAT = 2
"""The version written to shards, study.json and manifest.json, which covers the tables that the manifest lists.

Version 1 carried no number, and named shards after the text that progress showed.
"""


def checked_format(path: Path, found: object) -> int:
    """The version that a file names, 1 if it names none.

    Raises:
        StudyError: for a newer version than this negprobe knows, and for what is no version.
    """
    if found is None:
        return 1
    if type(found) is not int or found < 1:
        raise StudyError(f"{path} is damaged: {found!r} is not a format version. Delete it and run the study again.")
    if found > FORMAT:
        raise StudyError(
            f"{path} has format version {found}, and this negprobe reads versions up to {FORMAT}. Upgrade negprobe to "
            "read it, or choose another folder."
        )
    return found
