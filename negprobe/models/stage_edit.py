"""The edits that a block's stage functions apply to activations on the way."""

from collections.abc import Callable
from typing import TypeAlias

from torch import Tensor

StageEdit: TypeAlias = Callable[[str, Tensor], Tensor]
"""A function of a site's name (`"q"`, `"resid_mid"`, ...) and its activation that returns the activation to go on with.

The hooked forward pass calls the site's hook point, the patching engine replaces entries, and all other callers use
`unedited`.
"""


def unedited(site: str, activation: Tensor) -> Tensor:
    """The activation, unchanged."""
    return activation
