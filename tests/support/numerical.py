"""Derivatives without a graph."""

from collections.abc import Callable

import numpy as np


def derivative(function: Callable[[float], np.ndarray], step: float = 2e-4) -> np.ndarray:
    """The derivative at 0 by a five-point stencil, whose error falls with the fourth power of the step."""
    near, far = function(step) - function(-step), function(2 * step) - function(-2 * step)
    return (8 * near - far) / (12 * step)
