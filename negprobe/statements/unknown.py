"""The warning about words outside the vocabulary, all of which become the same token."""

import sys
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from types import FrameType

from transformers import PreTrainedTokenizerBase

from negprobe.base.errors import UnknownWordsWarning
from negprobe.statements.tokens import TokenizedStatement, unknown_words

_SHOWN = 12
# Packages whose frames may lie between the user's call and this module.
_INNER = ("negprobe", "beartype", "jaxtyping", "torch")


def warn_of_unknown_words(statements: Iterable[TokenizedStatement], tokenizer: PreTrainedTokenizerBase) -> None:
    """Issue one `UnknownWordsWarning` that names the statements' words outside the vocabulary, if there are any."""
    words = sorted({word for statement in statements for word in unknown_words(statement, tokenizer)})
    if not words:
        return
    more = f" and {len(words) - _SHOWN} more" if len(words) > _SHOWN else ""
    # The warning points at the first caller outside these packages.
    level, frame = 1, sys._getframe()
    while frame.f_back is not None and _is_inner(frame):
        level, frame = level + 1, frame.f_back
    warnings.warn(
        f"Not in the model's vocabulary: {', '.join(words[:_SHOWN])}{more}. All unknown words become the same token, "
        "so results on these statements say little about them.",
        UnknownWordsWarning,
        stacklevel=level,
    )


@contextmanager
def unknown_words_reported() -> Iterator[None]:
    """Suppress `UnknownWordsWarning`, because the caller reports all unknown words at once. Also a decorator."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UnknownWordsWarning)
        yield


def _is_inner(frame: FrameType) -> bool:
    package = frame.f_globals.get("__name__", "").partition(".")[0]
    return package in _INNER or frame.f_code.co_filename.startswith("<@beartype")
