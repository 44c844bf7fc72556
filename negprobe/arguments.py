"""Arguments of another type than a public function takes are refused at its door, before they fail somewhere inside.

By beartype. Of a sequence it looks at one item, taken at random; here at each.
"""

import inspect
from collections.abc import Iterator, Sequence
from functools import cache, partial
from types import UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

import numpy as np
from beartype import BeartypeConf, BeartypeViolationVerbosity, FrozenDict, beartype
from beartype.door import is_bearable
from beartype.vale import Is, IsInstance
from jaxtyping import AbstractArray, jaxtyped

from negprobe.errors import ArgumentError

_Checked = TypeVar("_Checked", bound=Any)

# Numbers out of arrays and tables are as good as Python's own. True is no number, though Python has it as 1.
_NUMBERS: dict[Any, Any] = {
    bool: bool | np.bool_,
    int: Annotated[int | np.integer, ~IsInstance[bool]],
    float: Annotated[float | int | np.floating | np.integer, ~IsInstance[bool]],
}


def checked(public: _Checked) -> _Checked:
    """A function, or a class, that refuses arguments of other types than the annotations name.

    Raises:
        ArgumentError: by the function, naming itself, the argument, what was given and what is taken.
    """
    functions = [public, *vars(public).values()] if inspect.isclass(public) else [public]
    hints = [hint for function in functions for hint in _annotations(function).values()]
    conf = _conf(frozenset(one for hint in hints for one in _sequences(hint)))
    if inspect.isclass(public):
        return beartype(conf=conf)(public)
    written = public.__annotations__
    public.__annotations__ = {name: _alone(hint) for name, hint in written.items()}
    refusing = beartype(conf=conf)(public)
    # What was written is what help() shows.
    public.__annotations__ = refusing.__annotations__ = written
    return refusing


def _annotations(function: Any) -> dict[str, Any]:
    return getattr(getattr(function, "__func__", function), "__annotations__", {})


class _Alone(type):
    """A tensor's type and number of axes, whatever a caller, or another argument, has bound the axes' names to.

    That the axes of two arguments differ is told by who knows what they are, and in which words.
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
    every = {hint: Annotated[hint, Is[partial(_all_fit, get_args(hint)[0])]] for hint in sequences}
    return BeartypeConf(
        violation_param_type=ArgumentError,
        violation_verbosity=BeartypeViolationVerbosity.MINIMAL,
        hint_overrides=FrozenDict(_NUMBERS | every),
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
