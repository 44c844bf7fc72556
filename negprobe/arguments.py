"""Arguments of another type than a public function takes are refused at its door, before they fail somewhere inside.

By beartype. Of a sequence it looks at one item, taken at random; here at each.
"""

import inspect
from collections.abc import Iterator, Sequence
from functools import cache, partial
from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin

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
    return beartype(conf=_conf(frozenset(one for hint in hints for one in _of_our_own(hint))))(public)


def _annotations(function: Any) -> dict[str, Any]:
    return getattr(getattr(function, "__func__", function), "__annotations__", {})


@cache
def _conf(hints: frozenset[Any]) -> BeartypeConf:
    ours = {hint: _alone(hint) if _is_tensor(hint) else _every_item(hint) for hint in hints}
    return BeartypeConf(
        violation_param_type=ArgumentError,
        violation_verbosity=BeartypeViolationVerbosity.MINIMAL,
        hint_overrides=FrozenDict(_NUMBERS | ours),
    )


def _of_our_own(hint: Any) -> Iterator[Any]:
    """The tensors, and the sequences of any length, that a type hint names; of those inside another, the outer."""
    arguments = get_args(hint)
    if _is_tensor(hint) or get_origin(hint) is Sequence or (get_origin(hint) is tuple and arguments[1:] == (...,)):
        yield hint
    elif get_origin(hint) is not Literal:
        for argument in arguments:
            yield from _of_our_own(argument)


def _is_tensor(hint: Any) -> bool:
    return isinstance(hint, type) and issubclass(hint, AbstractArray)


def _alone(hint: Any) -> Any:
    """A tensor's type and number of axes, whatever a caller, or another argument, has bound the axes' names to.

    That two arguments' axes differ is told by who knows what they are, and in which words.
    """
    return Annotated[object, Is[partial(_fits, hint)]]


def _fits(hint: Any, tensor: object) -> bool:
    with jaxtyped("context"):
        return isinstance(tensor, hint)


def _every_item(hint: Any) -> Any:
    return Annotated[hint, Is[partial(_all_fit, get_args(hint)[0])]]


def _all_fit(hint: Any, items: Sequence[Any]) -> bool:
    conf = _conf(frozenset(_of_our_own(hint)))
    return all(is_bearable(item, hint, conf=conf) for item in items)
