"""Calling a tokenizer, with one clear error for every kind of failure."""

from collections.abc import Sequence
from typing import Any

from transformers import BatchEncoding, PreTrainedTokenizerBase

from negprobe.base.errors import InputError
from negprobe.base.memory import is_out_of_memory
from negprobe.base.texts import quoted


def encode(
    tokenizer: PreTrainedTokenizerBase, first: Sequence[str], second: Sequence[str] | None = None, **options: Any
) -> BatchEncoding:
    """A tokenizer's output for texts, or pairs of texts; `options` are passed to the tokenizer.

    Raises:
        InputError: if the tokenizer fails, quoting the text that it fails on.
    """
    try:
        return tokenizer(list(first), None if second is None else list(second), **options)
    except BaseException as error:
        if not is_failure(error):
            raise
        texts = list(first) if second is None else list(zip(first, second, strict=True))
        text = next((text for text in texts if _fails(tokenizer, text, options)), texts[0])
        raise InputError(
            f"The tokenizer fails on {quoted(text)}: {error}. Change the text, or load the model with a tokenizer that "
            "can read it."
        ) from error


def is_failure(error: BaseException) -> bool:
    """Whether an error is a tokenizer failure, including Rust panics, which do not derive from Exception."""
    return type(error).__name__ == "PanicException" or (isinstance(error, Exception) and not is_out_of_memory(error))


def _fails(tokenizer: PreTrainedTokenizerBase, text: str | tuple[str, str], options: dict[str, Any]) -> bool:
    try:
        tokenizer([text], **options)
    except BaseException as error:
        if is_failure(error):
            return True
        raise
    return False
