"""Reading statement pairs from files, data frames and public data sets; one module per format."""

from negprobe.statements.readers.frames import from_dataframe, to_dataframe
from negprobe.statements.readers.load import LoadedPairs, load_pairs

__all__ = ["LoadedPairs", "from_dataframe", "load_pairs", "to_dataframe"]
