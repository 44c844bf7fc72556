"""Checking the settings of a sentence-transformers file against a table of the values that each key may have."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from negprobe.base.errors import ModelError
from negprobe.base.texts import quoted


@dataclass(frozen=True)
class Values:
    """The supported values of a setting, and how an error describes them."""

    accepts: Callable[[Any], bool]
    expected: str


def one_of(*values: Any) -> Values:
    """Exactly these values."""
    # Types must match too: 1 and 1.0 are not True.
    return Values(
        lambda value: any(type(value) is type(other) and value == other for other in values),
        " or ".join(map(repr, values)),
    )


HARMLESS = Values(lambda value: True, "any value")
UNSET = one_of(None)
SWITCH = one_of(True, False)
TEXT = Values(lambda value: isinstance(value, str), "a string")
TEXT_OR_UNSET = Values(lambda value: value is None or isinstance(value, str), "a string or null")
EMPTY = one_of(None, {}, [])
LENGTH = Values(lambda value: type(value) is int and value > 0, "a whole number of at least 1")


def check(settings: Mapping[str, Any], supported: Mapping[str, Values], file: str, name: str) -> None:
    """Check that all settings of a file and their values are supported.

    Raises:
        ModelError: for an unknown setting, or a value that is not supported.
    """
    for key, value in settings.items():
        if key not in supported:
            raise ModelError(
                f"{file} of {name!r} has {key} = {quoted(value)}, an unknown setting that may change the output. "
                "Remove it to load the model without it."
            )
        if not supported[key].accepts(value):
            raise ModelError(
                f"{file} of {name!r} has {key} = {quoted(value)}, but negprobe supports only "
                f"{supported[key].expected}. Other values would change the output."
            )
