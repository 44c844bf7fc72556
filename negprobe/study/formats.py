"""The format version of the files that a study writes."""

from pathlib import Path

from negprobe.base.errors import StudyError

FORMAT = 3
"""The format version that shards, study.json and manifest.json record; the manifest's also covers the tables.

Files of version 1 record no version, and their shards are named after the titles of their stages. Before version 3,
pairs have no cluster.
"""


def checked_format(path: Path, found: object) -> int:
    """The format version recorded in a file; 1 if none is recorded.

    Raises:
        StudyError: for a version above `FORMAT`, and for an invalid version.
    """
    if found is None:
        return 1
    if type(found) is not int or found < 1:
        raise StudyError(f"{path} is damaged: {found!r} is not a format version. Delete it and run the study again.")
    if found > FORMAT:
        raise StudyError(
            f"{path} has format version {found}, but this version of negprobe reads only versions up to {FORMAT}. "
            "Upgrade negprobe to read it, or choose another folder."
        )
    return found
