"""What every room asks of a text."""

import reprlib


def is_utf8(text: str) -> bool:
    """Whether a text can be written: not with half of a surrogate pair, as bytes that are not UTF-8 leave behind."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def quoted(value: object, width: int = 120) -> str:
    """As much of a text, or of another value, as tells which one it is, in quotes: errors are to be read."""
    if not isinstance(value, str):
        return reprlib.repr(value)
    return repr(value) if len(value) <= width else f"{value[:width]!r}…"
