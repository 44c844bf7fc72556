"""Lets results have display methods although their package does not import matplotlib or HTML.

Packages import only from packages above them, and `views` comes last. Notebook users still expect methods such as
`Circuit.draw`. Only this function imports `negprobe.views`, and only when such a method is called.
"""

from collections.abc import Callable
from importlib import import_module
from typing import Any


def view(name: str) -> Callable[..., Any]:
    """The function with this name in `negprobe.views.display`."""
    return getattr(import_module("negprobe.views.display"), name)
