"""Reading saved predictions, so that a model can be scored without its weights."""

import ast
from pathlib import Path

from negprobe.base.arguments import checked
from negprobe.base.errors import InputError
from negprobe.base.files import read_bytes
from negprobe.base.texts import is_utf8, quoted


@checked
def read_predictions(path: str | Path) -> list[tuple[str, ...]]:
    """The most probable words for each statement of a data set, from a file with one line per statement, in order.

    A line is a list of words in JSON or Python syntax, most probable first: `['fish', 'trout', 'bird']`. Shivagunde et
    al. 2023 released their models' predictions in this format. Empty words are kept, because T5 sometimes predicts a
    single space (`score_predictions_on_clozes` says how they are scored).

    Raises:
        InputError: if the file cannot be read or is not UTF-8, or a line is not a list of words; the message gives the
            line number.
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
        raise InputError(f"{where}: expected a list of words ({error}); write ['first', 'second'].") from error
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        raise InputError(f"{where}: expected a list of words, got {line.strip()[:60]}; write ['first', 'second'].")
    return tuple(word.strip() for word in words)
