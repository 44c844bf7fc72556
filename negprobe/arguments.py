"""Arguments of another type than a public function takes are refused at its door, before they fail somewhere inside.

By beartype, which TransformerLens brings along. Of a sequence it looks at one item, taken at random; whoever reads the
items checks each.
"""

from typing import Any, TypeVar

import numpy as np
from beartype import BeartypeConf, BeartypeViolationVerbosity, FrozenDict, beartype

from negprobe.errors import ArgumentError

_Checked = TypeVar("_Checked", bound=Any)

_CONF = BeartypeConf(
    violation_param_type=ArgumentError,
    violation_verbosity=BeartypeViolationVerbosity.MINIMAL,
    # Numbers out of arrays and tables are as good as Python's own.
    hint_overrides=FrozenDict(
        {bool: bool | np.bool_, int: int | np.integer, float: float | int | np.floating | np.integer}
    ),
)


def checked(public: _Checked) -> _Checked:
    """A function, or a class whose methods, refuse arguments of other types than their annotations name.

    Raises:
        ArgumentError: by the function, naming itself, the argument, what was given and what is taken.
    """
    return beartype(conf=_CONF)(public)
