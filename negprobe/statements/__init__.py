"""Statement pairs: reading and writing them, finding their cues, and aligning their tokens."""

from negprobe.statements.alignment import Alignment, align
from negprobe.statements.builtin import builtin_pairs
from negprobe.statements.changes import change_pairs
from negprobe.statements.clusters import clustered_by
from negprobe.statements.completion import complete
from negprobe.statements.controls import from_control, length_matched_control
from negprobe.statements.cues import CUE_KINDS, Cue, added_cues, find_cues
from negprobe.statements.gaps import filled, has_gap, readable_by
from negprobe.statements.notes import pair_notes
from negprobe.statements.overview import PairOverview, overview
from negprobe.statements.pair import Span, StatementPair
from negprobe.statements.prepared import PreparedPair, Swap, Swappable, control_swap, prepare
from negprobe.statements.readers import LoadedPairs, from_dataframe, load_pairs, to_dataframe
from negprobe.statements.token_roles import ROLES, original_roles, roles
from negprobe.statements.tokens import TokenizedStatement, tokenize, tokenize_all, unknown_words

__all__ = [
    "CUE_KINDS",
    "ROLES",
    "Alignment",
    "Cue",
    "LoadedPairs",
    "PairOverview",
    "PreparedPair",
    "Span",
    "StatementPair",
    "Swap",
    "Swappable",
    "TokenizedStatement",
    "added_cues",
    "align",
    "builtin_pairs",
    "change_pairs",
    "clustered_by",
    "complete",
    "control_swap",
    "filled",
    "find_cues",
    "from_control",
    "from_dataframe",
    "has_gap",
    "length_matched_control",
    "load_pairs",
    "original_roles",
    "overview",
    "pair_notes",
    "prepare",
    "readable_by",
    "roles",
    "to_dataframe",
    "tokenize",
    "tokenize_all",
    "unknown_words",
]
