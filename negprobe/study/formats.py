"""The version of the files that a study writes."""

from pathlib import Path

from negprobe.base.errors import StudyError

FORMAT = 2
"""The version written to shards, study.json and manifest.json, which covers the tables that the manifest lists.

Version 1 did not record its version, and named shards after the titles of their stages.
"""


def checked_format(path: Path, found: object) -> int:
    """The format version recorded in a file; 1 if none is recorded.

    Raises:
        StudyError: for a version newer than this one, and for an invalid version.
    """
    if found is None:
        return 1
    if type(found) is not int or found < 1:
        raise StudyError(f"{path} is damaged: {found!r} is not a format version. Delete it and run the study again.")
    if found > FORMAT:
        raise StudyError(
            f"{path} has format version {found}, but this negprobe reads up to {FORMAT}. Upgrade negprobe to "
            "read it, or choose another folder."
        )
    return found
