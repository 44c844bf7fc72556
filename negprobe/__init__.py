"""negprobe shows where an encoder language model hears "not".

Results with axes (pair, layer, head, role) are `xarray`; `.to_dataframe()` turns one into a table.
"""

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from negprobe import attention, behaviour, models, patching, statements, statistics, study, views
    from negprobe.attention import AttentionProbe
    from negprobe.base.errors import NegprobeError, NegprobeWarning
    from negprobe.models import HookedEncoder
    from negprobe.patching import attribute, effect, find_circuit, mean_effect, patch, patch_sweep, path_patch
    from negprobe.statements import StatementPair, builtin_pairs, load_pairs
    from negprobe.study import read_study, run_study
    from negprobe.views import write_study

__version__ = version("negprobe")

_PACKAGES = ("attention", "behaviour", "models", "patching", "statements", "statistics", "study", "views")

# Where each name at the top level is defined. torch and transformers take seconds to import, so a package is imported
# when something in it is first used.
_DEFINED_IN = {
    "AttentionProbe": "attention",
    "HookedEncoder": "models",
    "NegprobeError": "base.errors",
    "NegprobeWarning": "base.errors",
    "StatementPair": "statements",
    "attribute": "patching",
    "builtin_pairs": "statements",
    "effect": "patching",
    "find_circuit": "patching",
    "load_pairs": "statements",
    "mean_effect": "patching",
    "patch": "patching",
    "patch_sweep": "patching",
    "path_patch": "patching",
    "read_study": "study",
    "run_study": "study",
    "write_study": "views",
}

__all__ = [
    "AttentionProbe",
    "HookedEncoder",
    "NegprobeError",
    "NegprobeWarning",
    "StatementPair",
    "attention",
    "attribute",
    "behaviour",
    "builtin_pairs",
    "effect",
    "find_circuit",
    "load_pairs",
    "mean_effect",
    "models",
    "patch",
    "patch_sweep",
    "patching",
    "path_patch",
    "read_study",
    "run_study",
    "statements",
    "statistics",
    "study",
    "views",
    "write_study",
]


def __getattr__(name: str) -> object:
    """Import a package, or the package of a name, when it is first used."""
    if name in _PACKAGES:
        return import_module(f"negprobe.{name}")
    if name in _DEFINED_IN:
        return getattr(import_module(f"negprobe.{_DEFINED_IN[name]}"), name)
    raise AttributeError(f"module 'negprobe' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
