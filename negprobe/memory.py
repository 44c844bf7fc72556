"""How Python, torch and safetensors say that memory has run out, and how negprobe does."""

from collections.abc import Iterator
from contextlib import contextmanager

from negprobe.errors import ModelError

_SIGNS = (
    "can't allocate memory",
    "cannot allocate memory",
    "not enough memory",
    "out of memory",
    "defaultcpuallocator",
    "cublas_status_alloc_failed",
)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error means that there was not enough memory, of the computer or of the GPU."""
    # torch has a type of its own for GPUs, and a bare RuntimeError for the CPU and for MPS.
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    text = str(error).lower()
    return any(sign in text for sign in _SIGNS)


@contextmanager
def explaining_out_of_memory(message: str) -> Iterator[None]:
    """Where memory runs out, raise `ModelError` with this message; other errors pass. Decorates functions too."""
    try:
        yield
    except (MemoryError, RuntimeError, OSError) as error:
        if not is_out_of_memory(error):
            raise
        raise ModelError(message) from error
