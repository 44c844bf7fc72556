"""Words that a model predicted earlier, so that it can be scored without its weights."""

import ast
from pathlib import Path

from negprobe.base.arguments import checked
from negprobe.base.errors import InputError
from negprobe.base.files import read_bytes
from negprobe.base.texts import is_utf8, quoted


@checked
def read_predictions(path: str | Path) -> list[tuple[str, ...]]:
    """Read the most probable words for each statement of a data set, a line a statement in the data set's order.

    A line is a list of words, the most probable first, as JSON or as Python writes it: `['fish', 'trout', 'bird']`.
    This is how Shivagunde et al. 2023 released their models' predictions. Empty words are kept: in their files, T5's
    are predictions of a lone space (counted as in `score_predictions_on_clozes`).

    Raises:
        InputError: for a file that cannot be read or is not UTF-8, or for a line that is not a list of words, with its
            number.
    """
    if not is_utf8(str(path)):
        raise InputError(f"The name {quoted(str(path))} is not UTF-8 text; rename the file.")
    try:
        text = read_bytes(path).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"The predictions {path} cannot be read as text: save the file as UTF-8.") from error
    except OSError as error:
        raise InputError(f"The predictions {path} cannot be read: {error}.") from error
    lines = [(number, line) for number, line in enumerate(text.split("\n"), start=1) if line.strip()]
    if not lines:
        raise InputError(f"The predictions {path} are empty; give a list of words for each statement.")
    return [_words(line, f"{path}, line {number}") for number, line in lines]


def _words(line: str, where: str) -> tuple[str, ...]:
    try:
        words = ast.literal_eval(line.strip())
    except (ValueError, SyntaxError, MemoryError, RecursionError) as error:
        raise InputError(f"{where}: not a list of words ({error}); write ['first', 'second'].") from error
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        raise InputError(f"{where}: not a list of words but {line.strip()[:60]}; write ['first', 'second'].")
    return tuple(word.strip() for word in words)
