"""Short reprs that identify an object and its size, so that notebook output stays readable."""

import html
from collections.abc import Iterable, Mapping, Set
from dataclasses import MISSING, Field, fields, is_dataclass
from typing import Any, SupportsIndex, TypeVar, overload

from negprobe.base.texts import quoted

T = TypeVar("T")

# Maximum number of characters of a nested value.
_VALUE = 160
# Maximum number of items of a collection shown in full, and number of items shown of a longer `Listed`.
_FEW, _SHOWN = 20, 3


def short_repr(instance: Any) -> str:
    """The repr of a dataclass, omitting default values and showing arrays by shape and large collections by size.

    >>> from dataclasses import dataclass
    >>> from negprobe.base.reprs import short_repr
    >>> @dataclass(repr=False)
    ... class Found:
    ...     name: str
    ...     numbers: list
    ...     note: str = ""
    ...     __repr__ = short_repr
    >>> Found("a", list(range(50)))
    Found(name='a', numbers=<list of 50>)
    """
    shown = ((field, getattr(instance, field.name)) for field in fields(instance) if field.repr)
    parts = [f"{field.name}={_short(value)}" for field, value in shown if not _is_default(field, value)]
    return f"{type(instance).__name__}({', '.join(parts)})"


class Listed(list[T]):
    """A list with a short repr: the first few items and the total number; slices are `Listed` too."""

    def __repr__(self) -> str:
        if len(self) <= _SHOWN:
            return super().__repr__()
        first = ",\n ".join(map(repr, self[:_SHOWN]))
        return f"[{first},\n … {len(self):,} items]"

    @overload
    def __getitem__(self, index: SupportsIndex) -> T: ...
    @overload
    def __getitem__(self, index: slice) -> list[T]: ...
    def __getitem__(self, index: SupportsIndex | slice) -> T | list[T]:
        found = super().__getitem__(index)
        return Listed(found) if isinstance(index, slice) else found  # type: ignore[arg-type]


def html_table(title: str, rows: Iterable[tuple[str, str]]) -> str:
    """An HTML table of named values for a notebook; all text is escaped."""
    cells = "".join(
        f"<tr><th style='text-align:left'>{html.escape(name)}</th>"
        f"<td style='text-align:left'>{html.escape(value)}</td></tr>"
        for name, value in rows
    )
    return f"<div><p>{html.escape(title)}</p><table>{cells}</table></div>"


def _is_default(field: Field[Any], value: object) -> bool:
    # Only plain values are compared, because `==` on an array compares element by element.
    plain = isinstance(value, str | tuple | int | float | None)
    return field.default is not MISSING and plain and value == field.default


def _short(value: object) -> str:
    """A value in at most about `_VALUE` characters."""
    name = type(value).__name__
    if isinstance(value, str):
        return quoted(value)
    sizes = getattr(value, "sizes", None)
    if isinstance(sizes, Mapping):
        return f"<{name} {', '.join(f'{dim}: {size}' for dim, size in sizes.items())}>"
    if hasattr(value, "shape"):
        return f"<{name} {' × '.join(map(str, value.shape))}>"
    if isinstance(value, Mapping | Set | list | tuple):
        few = len(value) <= _FEW and len(repr(value)) <= _VALUE
        return repr(value) if few else f"<{name} of {len(value):,}>"
    whole = repr(value)
    if len(whole) <= _VALUE:
        return whole
    return f"<{name} {_short(getattr(value, fields(value)[0].name))} …>" if is_dataclass(value) else f"<{name}>"
