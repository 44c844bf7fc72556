"""Arguments of another type than a public function takes are refused at its door, before they fail somewhere inside.

By beartype. Of a sequence it looks at one item, taken at random; whoever reads the items checks each.
"""

from typing import Any, TypeVar

import numpy as np
from beartype import BeartypeConf, BeartypeViolationVerbosity, FrozenDict, beartype
from jaxtyping import jaxtyped

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
    """A function, or a class that holds no tensors, that refuses arguments of other types than the annotations name.

    Raises:
        ArgumentError: by the function, naming itself, the argument, what was given and what is taken.
    """
    refusing = beartype(conf=_CONF)(public)
    # The names of axes are to be this call's own, whatever a caller of ours or of the user's has bound them to.
    return refusing if isinstance(public, type) else jaxtyped(refusing, typechecker=None)
