"""Statement pairs: reading and writing them, finding their cues, and aligning their tokens."""

from negprobe.statements.alignment import Alignment, align
from negprobe.statements.builtin import builtin_pairs
from negprobe.statements.changes import change_pairs
from negprobe.statements.clusters import clustered_by
from negprobe.statements.completion import complete
from negprobe.statements.controls import from_control, length_matched_control
from negprobe.statements.cue_lexicon import (
    OPTIONAL_CLASSES,
    Lexicon,
    english_lexicon,
    lexicon_in_use,
    read_lexicon,
    use_lexicon,
)
from negprobe.statements.cues import CUE_KINDS, Cue, added_cues, find_cues
from negprobe.statements.documents import document_pair
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
    "OPTIONAL_CLASSES",
    "ROLES",
    "Alignment",
    "Cue",
    "Lexicon",
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
    "document_pair",
    "english_lexicon",
    "filled",
    "find_cues",
    "from_control",
    "from_dataframe",
    "has_gap",
    "length_matched_control",
    "lexicon_in_use",
    "load_pairs",
    "original_roles",
    "overview",
    "pair_notes",
    "prepare",
    "read_lexicon",
    "readable_by",
    "roles",
    "to_dataframe",
    "tokenize",
    "tokenize_all",
    "unknown_words",
    "use_lexicon",
]
