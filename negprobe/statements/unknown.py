"""A warning about words that a model does not know: it reads all of them as the same token."""

import sys
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from types import FrameType

from transformers import PreTrainedTokenizerBase

from negprobe.errors import NegprobeWarning
from negprobe.statements.tokens import TokenizedStatement, unknown_words

_SHOWN = 12
# Frames between a user's call and this module, where no user's code stands.
_INNER = ("negprobe", "beartype", "jaxtyping", "torch")


def warn_of_unknown_words(statements: Iterable[TokenizedStatement], tokenizer: PreTrainedTokenizerBase) -> None:
    """Issue one `NegprobeWarning` that names the words of the statements that are not in the vocabulary, if any are."""
    words = sorted({word for statement in statements for word in unknown_words(statement, tokenizer)})
    if not words:
        return
    more = f" and {len(words) - _SHOWN} more" if len(words) > _SHOWN else ""
    # The warning is shown with the line of the first caller outside the package.
    level, frame = 1, sys._getframe()
    while frame.f_back is not None and _is_inner(frame):
        level, frame = level + 1, frame.f_back
    warnings.warn(
        f"Not in the model's vocabulary: {', '.join(words[:_SHOWN])}{more}. It reads all unknown words alike, so "
        "what it does with these statements says little about them.",
        NegprobeWarning,
        stacklevel=level,
    )


@contextmanager
def unknown_words_reported() -> Iterator[None]:
    """No `NegprobeWarning` inside: whoever calls reports the unknown words, once for all. Also a decorator."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NegprobeWarning)
        yield


def _is_inner(frame: FrameType) -> bool:
    package = frame.f_globals.get("__name__", "").partition(".")[0]
    return package in _INNER or frame.f_code.co_filename.startswith("<@beartype")
