"""How Python, torch and safetensors say that memory has run out."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error means that there was not enough memory, of the computer or of the GPU."""
    # torch has a type of its own for GPUs, and a bare RuntimeError for the CPU and for MPS.
    said = str(error).lower()
    return (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryError"
        or any(part in said for part in ("can't allocate memory", "cannot allocate memory", "out of memory"))
    )
