"""negprobe shows where an encoder language model hears "not"."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from negprobe.attention import AttentionProbe
    from negprobe.errors import NegprobeError
    from negprobe.models import HookedEncoder
    from negprobe.patching import effect, mean_effect, patch_sweep
    from negprobe.statements import StatementPair, builtin_pairs, load_pairs

__all__ = [
    "AttentionProbe",
    "HookedEncoder",
    "NegprobeError",
    "NegprobeWarning",
    "StatementPair",
    "builtin_pairs",
    "effect",
    "load_pairs",
    "mean_effect",
    "patch_sweep",
]

_ROOMS = {
    "attention": ("AttentionProbe",),
    "errors": ("NegprobeError", "NegprobeWarning"),
    "models": ("HookedEncoder",),
    "patching": ("effect", "mean_effect", "patch_sweep"),
    "statements": ("StatementPair", "builtin_pairs", "load_pairs"),
}


def __getattr__(name: str) -> object:
    """Open a room when something of it is first asked for: torch and transformers take seconds to import."""
    for room, names in _ROOMS.items():
        if name in names:
            return getattr(import_module(f"negprobe.{room}"), name)
    raise AttributeError(f"module 'negprobe' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
