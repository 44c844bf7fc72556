"""Calling a tokenizer, with its prompt, and with one clear error for every kind of failure."""

import copy
from collections.abc import Sequence
from typing import Any

from transformers import BatchEncoding, PreTrainedTokenizerBase

from negprobe.base.errors import InputError, ModelError
from negprobe.base.memory import is_out_of_memory
from negprobe.base.texts import is_utf8, quoted


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


_PROMPT = "negprobe_prompt"


def with_prompt(tokenizer: PreTrainedTokenizerBase | None, prompt: str) -> PreTrainedTokenizerBase | None:
    """A copy of a tokenizer with which negprobe puts `prompt` before each text; the tokenizer itself if it has it.

    The tokenizer carries the prompt, so that whatever tokenizes for a model reads the same text as the model.

    Raises:
        ModelError: for a prompt that is not valid UTF-8 text or contains the mask token, or without a tokenizer.
    """
    if prompt and tokenizer is None:
        raise ModelError(f"The prompt {quoted(prompt)} needs a tokenizer, and the model has none; give one.")
    if tokenizer is None or prompt_of(tokenizer) == prompt:
        return tokenizer
    if not is_utf8(prompt):
        raise ModelError(f"The prompt {quoted(prompt)} is not valid UTF-8 text; correct it.")
    if prompt and tokenizer.mask_token_id in encode(tokenizer, [prompt], verbose=False)["input_ids"][0]:
        raise ModelError(f"The prompt {quoted(prompt)} contains the mask token, which marks the word to predict.")
    copied = copy.deepcopy(tokenizer)
    setattr(copied, _PROMPT, prompt)
    return copied


def prompt_of(tokenizer: PreTrainedTokenizerBase) -> str:
    """The text that negprobe puts before each text; empty for most tokenizers."""
    return str(getattr(tokenizer, _PROMPT, ""))


def prompted(texts: Sequence[str], tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """The texts with the tokenizer's prompt before each of them."""
    return [prompt_of(tokenizer) + text for text in texts]


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
