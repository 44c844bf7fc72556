"""The word lists of a language: cues and idioms, neutral words of controls, inflected forms, and classes of words."""

import tomllib
from importlib.resources import files
from typing import Any


def word_lists(name: str) -> dict[str, Any]:
    """The tables of one file of this package, such as "english"."""
    return tomllib.loads((files(__name__) / f"{name}.toml").read_text(encoding="utf-8"))
