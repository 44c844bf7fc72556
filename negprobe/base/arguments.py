"""Type checks of public functions' arguments, with error messages in words.

The checks are beartype's, which looks at one random item of a sequence; here every item is checked.
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

# Numbers out of arrays and tables are as good as Python's own. True is no number, though Python has it as 1.
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
"""The words for one value of a type, and for several."""

_TENSORS = {"Float": "a floating-point", "Int": "an integer", "Bool": "a boolean"}


class _Violation(Exception):
    """Raised by beartype, and turned into an `ArgumentError` before it leaves `checked`."""


def checked(public: _Checked) -> _Checked:
    """A function or class that refuses arguments whose types differ from its annotations.

    Raises:
        ArgumentError: when called with a wrong type, naming the function, the argument, its type and the value.
    """
    if inspect.isclass(public):
        for name, function in list(vars(public).items()):
            if inspect.isfunction(function) and function.__annotations__:
                setattr(public, name, checked(function))
        return public
    written = public.__annotations__
    conf = _conf(frozenset(one for hint in written.values() for one in _sequences(hint)))
    public.__annotations__ = {name: _alone(hint) for name, hint in written.items()}
    refusing = beartype(conf=conf)(public)
    # What was written is what help() shows.
    public.__annotations__ = refusing.__annotations__ = written

    @wraps(public)
    def call(*args: Any, **kwargs: Any) -> Any:
        try:
            return refusing(*args, **kwargs)
        except _Violation:
            raise ArgumentError(_refusal(public, args, kwargs, conf)) from None

    return call  # type: ignore[return-value]


def _refusal(function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], conf: BeartypeConf) -> str:
    """The error message for the first argument of a wrong type."""
    called = function.__qualname__.removesuffix(".__init__")
    given = inspect.signature(function).bind(*args, **kwargs).arguments
    for name, hint in function.__annotations__.items():
        if name in given and not is_bearable(given[name], _alone(hint), conf=conf):
            at, value = _wrong_part(given[name], hint, conf)
            found = f"{name}{at} is" if at else "got"
            return f"{called}(): {name} must be {_wording(hint)}; {found} {_shown(value)}."
    return f"{called}() was called with an argument of a wrong type; see its documentation."


def _wrong_part(value: Any, hint: Any, conf: BeartypeConf) -> tuple[str, Any]:
    """The index, as in "[2]", and the value of the innermost wrong item; "" and the whole value if no item is wrong."""
    items = next((get_args(one)[0] for one in _sequences(hint)), None)
    if items is None or isinstance(value, (str, bytes)) or not isinstance(value, Sequence):
        return "", value
    conf = _conf(frozenset(_sequences(items)))
    for index, item in enumerate(value):
        if not is_bearable(item, items, conf=conf):
            at, part = _wrong_part(item, items, conf)
            return f"[{index}]{at}", part
    return "", value


def _wording(hint: Any) -> str:
    """A type hint in words: "a string or None", "one of 'noising', 'denoising'"."""
    origin, arguments = get_origin(hint), get_args(hint)
    if hint in (None, NoneType):
        return "None"
    if origin is Literal:
        return f"one of {', '.join(map(repr, arguments))}" if len(arguments) > 1 else repr(arguments[0])
    if origin in (Union, UnionType):
        choices = list(dict.fromkeys(map(_wording, arguments)))
        many = len(choices) > 2 or any(", " in choice for choice in choices)
        return f"{', '.join(choices[:-1])}, or {choices[-1]}" if many else " or ".join(choices)
    if origin is Annotated:
        return _wording(arguments[0])
    if origin is tuple and arguments[1:] != (...,):
        return f"a tuple ({', '.join(map(_wording, arguments))})"
    if origin in (Sequence, Iterable, list, tuple):
        return f"a {'tuple' if origin is tuple else 'sequence'} of {_several(arguments[0])}"
    if origin is Mapping:
        return f"a mapping of {_several(arguments[0])} to {_several(arguments[1])}"
    if origin is not None and issubclass(origin, Callable):  # type: ignore[arg-type]
        return "a function"
    if inspect.isclass(hint) and issubclass(hint, AbstractArray):
        kind = "tensor" if hint.array_type.__name__ == "Tensor" else "array"
        return f"{_TENSORS.get(hint.dtype.__name__, 'a')} {kind} of shape [{hint.dim_str}]"
    if hint in _WORDS:
        return _WORDS[hint][0]
    name = getattr(hint, "__name__", str(hint))
    return f"{'an' if name[0] in 'AEIOU' else 'a'} {name}"


def _several(hint: Any) -> str:
    if hint in _WORDS:
        return _WORDS[hint][1]
    if inspect.isclass(hint) and get_origin(hint) is None:
        return f"{hint.__name__} objects"
    return f"items that are each {_wording(hint)}"


def _shown(value: Any) -> str:
    kind = type(value).__name__
    if value is None or isinstance(value, (str, bool)):
        return quoted(value)
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        return f"a {kind} of shape {list(value.shape)} and type {value.dtype}"
    return f"{quoted(value)} ({kind})"


class _Alone(type):
    """A tensor's type and number of axes, whatever a caller, or another argument, has bound the axes' names to.

    Sizes of axes that differ between two arguments are reported by the function itself.
    """

    hint: Any

    def __instancecheck__(cls, given: object) -> bool:
        with jaxtyped("context"):
            return isinstance(given, cls.hint)


def _alone(hint: Any) -> Any:
    if get_origin(hint) in (Union, UnionType):
        return Union[tuple(map(_alone, get_args(hint)))]  # noqa: UP007
    is_tensor = isinstance(hint, type) and issubclass(hint, AbstractArray)
    return _Alone(hint.__name__, (), {"hint": hint}) if is_tensor else hint


@cache
def _conf(sequences: frozenset[Any]) -> BeartypeConf:
    checked_fully = {hint: Annotated[hint, Is[partial(_all_fit, get_args(hint)[0])]] for hint in sequences}
    return BeartypeConf(
        violation_param_type=_Violation,
        violation_verbosity=BeartypeViolationVerbosity.MINIMAL,
        hint_overrides=FrozenDict(_NUMBERS | checked_fully),
    )


def _sequences(hint: Any) -> Iterator[Any]:
    """The kinds of sequence, of any length, that a type hint names; of those inside another, the outer."""
    arguments = get_args(hint)
    if get_origin(hint) is Sequence or (get_origin(hint) is tuple and arguments[1:] == (...,)):
        yield hint
    elif get_origin(hint) is not Literal:
        for argument in arguments:
            yield from _sequences(argument)


def _all_fit(hint: Any, items: Sequence[Any]) -> bool:
    conf = _conf(frozenset(_sequences(hint)))
    return all(is_bearable(item, hint, conf=conf) for item in items)
