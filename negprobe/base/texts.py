"""Checking, quoting and printing texts."""

import reprlib


def is_utf8(text: str) -> bool:
    """Whether a text can be encoded as UTF-8; one with a lone surrogate, from decoding invalid bytes, cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def quoted(value: object, width: int = 120) -> str:
    """A text in quotes, or the repr of another value, shortened so that an error message stays readable."""
    if not isinstance(value, str):
        return reprlib.repr(value)
    return repr(value) if len(value) <= width else f"{value[:width]!r}…"


# Control characters except tab and line feed, line separators, writing-direction marks, and lone surrogates.
_ESCAPES = {
    code: chr(code).encode("unicode_escape").decode()
    for code in (
        *(code for code in range(0x20) if chr(code) not in "\t\n"),
        *range(0x7F, 0xA0),
        *(0x61C, 0x200E, 0x200F, 0x2028, 0x2029, 0xFEFF),
        *range(0x202A, 0x202F),
        *range(0x2066, 0x206A),
    )
}
_ESCAPES |= {code: f"\\u{code:x}" for code in range(0xD800, 0xE000)}


def shown(text: str) -> str:
    r"""The text with Python escapes for characters that would control a terminal or cannot be printed.

    >>> from negprobe.base.texts import shown
    >>> print(shown("a\x1b[31mb\rc"))
    a\x1b[31mb\rc
    """
    return text.translate(_ESCAPES)
