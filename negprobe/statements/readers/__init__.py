"""Statement pairs from files and from public data sets, one file a format."""

from negprobe.statements.readers.load import LoadedPairs, load_pairs

__all__ = ["LoadedPairs", "load_pairs"]
