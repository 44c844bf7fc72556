"""How a result shows itself, without its package importing matplotlib or HTML.

Packages import only from packages above them, and views come last. A method such as `Circuit.draw` is still what a user
of a notebook reaches for, so this function alone opens `negprobe.views`, when the method is called.
"""

from collections.abc import Callable
from importlib import import_module
from typing import Any


def view(name: str) -> Callable[..., Any]:
    """The function of this name in `negprobe.views.display`."""
    return getattr(import_module("negprobe.views.display"), name)
