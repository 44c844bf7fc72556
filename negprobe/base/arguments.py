"""Type checks for the arguments of public functions, with readable error messages.

beartype does the checking. By default it checks one random item of a sequence; this module makes it check every item.
"""

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cache, partial, wraps
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

import numpy as np
from beartype import BeartypeConf, BeartypeViolationVerbosity, FrozenDict, beartype
from beartype.door import is_bearable
from beartype.vale import Is, IsInstance
from jaxtyping import AbstractArray, jaxtyped

from negprobe.base.errors import ArgumentError
from negprobe.base.texts import quoted

_Checked = TypeVar("_Checked", bound=Any)

# NumPy scalars are accepted like Python's own numbers. A bool is not accepted as a number, although it is an int.
_NUMBERS: dict[Any, Any] = {
    bool: bool | np.bool_,
    int: Annotated[int | np.integer, ~IsInstance[bool]],
    float: Annotated[float | int | np.floating | np.integer, ~IsInstance[bool]],
}


_WORDS: dict[Any, tuple[str, str]] = {
    str: ("a string", "strings"),
    int: ("a whole number", "whole numbers"),
    float: ("a number", "numbers"),
    bool: ("True or False", "items that are each True or False"),
    Path: ("a path", "paths"),
    np.ndarray: ("an array", "arrays"),
}
"""How messages name one value of a type, and several values."""

_TENSORS = {"Float": "a floating-point", "Int": "an integer", "Bool": "a boolean"}


class _Violation(Exception):
    """Raised by beartype; `checked` converts it to an `ArgumentError`."""


def checked(public: _Checked) -> _Checked:
    """Return the function or class with type checks: arguments must match their annotations.

    Raises:
        ArgumentError: if an argument has the wrong type. The message names the function, the argument, the expected
            type and the value.
    """
    if inspect.isclass(public):
        for name, function in list(vars(public).items()):
            if inspect.isfunction(function) and function.__annotations__:
                setattr(public, name, checked(function))
        return public
    annotations = public.__annotations__
    conf = _conf(frozenset(sequence for hint in annotations.values() for sequence in _sequences(hint)))
    public.__annotations__ = {name: _isolated(hint) for name, hint in annotations.items()}
    type_checked = beartype(conf=conf)(public)
    # help() shows the original annotations.
    public.__annotations__ = type_checked.__annotations__ = annotations

    @wraps(public)
    def call(*args: Any, **kwargs: Any) -> Any:
        try:
            return type_checked(*args, **kwargs)
        except _Violation:
            raise ArgumentError(_error_message(public, args, kwargs, conf)) from None

    return call  # type: ignore[return-value]


def _error_message(
    function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], conf: BeartypeConf
) -> str:
    """The error message for the first argument with the wrong type."""
    function_name = function.__qualname__.removesuffix(".__init__")
    given = inspect.signature(function).bind(*args, **kwargs).arguments
    for name, hint in function.__annotations__.items():
        if name in given and not is_bearable(given[name], _isolated(hint), conf=conf):
            index, value = _wrong_part(given[name], hint, conf)
            found = f"{name}{index} is" if index else "got"
            return f"{function_name}(): {name} must be {_type_name(hint)}; {found} {_value_text(value)}."
    return f"{function_name}() was called with an argument of the wrong type; see its documentation."


def _wrong_part(value: Any, hint: Any, conf: BeartypeConf) -> tuple[str, Any]:
    """The index, as in "[2]", and the value of the innermost wrong item; "" and the whole value if no item is wrong."""
    item_hint = next((get_args(sequence)[0] for sequence in _sequences(hint)), None)
    if item_hint is None or isinstance(value, (str, bytes)) or not isinstance(value, Sequence):
        return "", value
    conf = _conf(frozenset(_sequences(item_hint)))
    for index, item in enumerate(value):
        if not is_bearable(item, item_hint, conf=conf):
            inner_index, part = _wrong_part(item, item_hint, conf)
            return f"[{index}]{inner_index}", part
    return "", value


def _type_name(hint: Any) -> str:
    """A type hint in words: "a string or None", "one of 'noising', 'denoising'"."""
    origin, arguments = get_origin(hint), get_args(hint)
    if hint in (None, NoneType):
        return "None"
    if origin is Literal:
        return f"one of {', '.join(map(repr, arguments))}" if len(arguments) > 1 else repr(arguments[0])
    if origin in (Union, UnionType):
        choices = list(dict.fromkeys(map(_type_name, arguments)))
        many = len(choices) > 2 or any(", " in choice for choice in choices)
        return f"{', '.join(choices[:-1])}, or {choices[-1]}" if many else " or ".join(choices)
    if origin is Annotated:
        return _type_name(arguments[0])
    if origin is tuple and arguments[1:] != (...,):
        return f"a tuple ({', '.join(map(_type_name, arguments))})"
    if origin in (Sequence, Iterable, list, tuple):
        return f"a {'tuple' if origin is tuple else 'sequence'} of {_plural_type_name(arguments[0])}"
    if origin is Mapping:
        return f"a mapping of {_plural_type_name(arguments[0])} to {_plural_type_name(arguments[1])}"
    if origin is not None and issubclass(origin, Callable):  # type: ignore[arg-type]
        return "a function"
    if inspect.isclass(hint) and issubclass(hint, AbstractArray):
        kind = "tensor" if hint.array_type.__name__ == "Tensor" else "array"
        return f"{_TENSORS.get(hint.dtype.__name__, 'a')} {kind} of shape [{hint.dim_str}]"
    if hint in _WORDS:
        return _WORDS[hint][0]
    name = getattr(hint, "__name__", str(hint))
    return f"{'an' if name[0] in 'AEIOU' else 'a'} {name}"


def _plural_type_name(hint: Any) -> str:
    if hint in _WORDS:
        return _WORDS[hint][1]
    if inspect.isclass(hint) and get_origin(hint) is None:
        return f"{hint.__name__} objects"
    return f"items that are each {_type_name(hint)}"


def _value_text(value: Any) -> str:
    kind = type(value).__name__
    if value is None or isinstance(value, (str, bool)):
        return quoted(value)
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        return f"a {kind} of shape {list(value.shape)} and type {value.dtype}"
    return f"{quoted(value)} ({kind})"


class _Isolated(type):
    """Checks a tensor's type and number of axes, ignoring the sizes that other arguments gave to the same axis names.

    The function itself reports axis sizes that differ between its arguments.
    """

    hint: Any

    def __instancecheck__(cls, given: object) -> bool:
        with jaxtyped("context"):
            return isinstance(given, cls.hint)


def _isolated(hint: Any) -> Any:
    if get_origin(hint) in (Union, UnionType):
        return Union[tuple(map(_isolated, get_args(hint)))]  # noqa: UP007
    is_tensor = isinstance(hint, type) and issubclass(hint, AbstractArray)
    return _Isolated(hint.__name__, (), {"hint": hint}) if is_tensor else hint


@cache
def _conf(sequences: frozenset[Any]) -> BeartypeConf:
    checked_fully = {hint: Annotated[hint, Is[partial(_all_match, get_args(hint)[0])]] for hint in sequences}
    return BeartypeConf(
        violation_param_type=_Violation,
        violation_verbosity=BeartypeViolationVerbosity.MINIMAL,
        hint_overrides=FrozenDict(_NUMBERS | checked_fully),
    )


def _sequences(hint: Any) -> Iterator[Any]:
    """The variable-length sequence types in a type hint; of nested ones, only the outermost."""
    arguments = get_args(hint)
    if get_origin(hint) is Sequence or (get_origin(hint) is tuple and arguments[1:] == (...,)):
        yield hint
    elif get_origin(hint) is not Literal:
        for argument in arguments:
            yield from _sequences(argument)


def _all_match(hint: Any, items: Sequence[Any]) -> bool:
    conf = _conf(frozenset(_sequences(hint)))
    return all(is_bearable(item, hint, conf=conf) for item in items)
