"""Recognising out-of-memory errors of Python, torch and safetensors, and reporting them."""

from collections.abc import Iterator
from contextlib import contextmanager

from negprobe.base.errors import ModelError

_SIGNS = (
    "can't allocate memory",
    "cannot allocate memory",
    "not enough memory",
    "out of memory",
    "defaultcpuallocator",
    "cublas_status_alloc_failed",
)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error means that main memory or GPU memory ran out."""
    # torch has its own error type for CUDA, but raises a plain RuntimeError on the CPU and MPS.
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    text = str(error).lower()
    return any(sign in text for sign in _SIGNS)


@contextmanager
def explaining_out_of_memory(message: str) -> Iterator[None]:
    """Convert out-of-memory errors to a `ModelError` with this message; also usable as a decorator."""
    try:
        yield
    except (MemoryError, RuntimeError, OSError) as error:
        if not is_out_of_memory(error):
            raise
        raise ModelError(message) from error
