"""Checks of single fields of a config.json; each returns the value to use or raises `ModelError`."""

from collections.abc import Callable
from typing import Any

from transformers.activations import ACT2FN

from negprobe.base.errors import ModelError

Field = Callable[[object, str, str], Any]
"""A check of a field's value; the other arguments are the field's and the model's names, for messages."""


def bad_field(field: str, value: object, expected: str, name: str) -> ModelError:
    """The error for a field with an unsupported value."""
    shown = repr(value)
    shown = shown if len(shown) <= 60 else f"{shown[:60]}…"
    return ModelError(f"The configuration of {name!r} has {field} = {shown}, which is not {expected}.")


def whole(least: int, most: int) -> Field:
    """A whole number in a range."""

    def check(value: object, field: str, name: str) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
            raise bad_field(field, value, f"a whole number from {least} to {most}", name)
        return value

    return check


def number(least: float, below: float) -> Field:
    """A number in a range that does not include its end."""

    def check(value: object, field: str, name: str) -> float:
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not least <= value < below:
            raise bad_field(field, value, f"a number from {least} to {below}", name)
        return float(value)

    return check


def switch(value: object, field: str, name: str) -> bool:
    """True or false."""
    if not isinstance(value, bool):
        raise bad_field(field, value, "true or false", name)
    return value


def activation(value: object, field: str, name: str) -> str:
    """The name of an activation function."""
    if not isinstance(value, str) or value not in ACT2FN:
        raise bad_field(field, value, "an activation function of transformers, such as 'gelu'", name)
    return value


def one_of(*values: Any) -> Field:
    """One of a few values, which must also be of the same type: 1 is not True."""

    def check(value: object, field: str, name: str) -> Any:
        if not any(type(value) is type(other) and value == other for other in values):
            raise bad_field(field, value, f"{' or '.join(map(repr, values))}, which negprobe supports", name)
        return value

    return check


def optional(field_check: Field) -> Field:
    """Null, for the default of the configuration's class, or a value with another check."""

    def check(value: object, field: str, name: str) -> Any:
        return None if value is None else field_check(value, field, name)

    return check
