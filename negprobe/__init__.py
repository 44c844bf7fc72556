"""negprobe shows where an encoder language model hears "not"."""

from negprobe.attention import AttentionProbe
from negprobe.errors import NegprobeError
from negprobe.models import HookedEncoder
from negprobe.patching import effect, mean_effect, patch_sweep
from negprobe.statements import StatementPair, builtin_pairs, load_pairs

__all__ = [
    "AttentionProbe",
    "HookedEncoder",
    "NegprobeError",
    "StatementPair",
    "builtin_pairs",
    "effect",
    "load_pairs",
    "mean_effect",
    "patch_sweep",
]
