"""The small language of phrases in which a cue does not negate ("not only", "no sooner ... than"), compiled.

The file `languages/english.toml` explains its symbols.
"""

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from negprobe.base.errors import StatementError
from negprobe.base.texts import quoted

APOSTROPHES = "'\u2018\u2019\u201b\u02bc\u2032\u00b4`\uff07\x92"
"""Characters typed as apostrophes, including quotes, primes, accents, the full-width form, and that of Windows-1252."""

# The part of a phrase before its cue is searched in this many characters, so that long texts take linear time.
_WINDOW = 100
_GAP = r"(?:\s+[^\s.?!]+){1,40}?"
_PAUSE = r"(?:[,;:(\u2013\u2014]|--|\s-(?=\s))"
_BEGIN = rf"(?:\A|[^\w\s{APOSTROPHES}-]|(?<!\w)[{APOSTROPHES}]|--|\s-(?=\s))"
_FINISH = rf"\s*(?:\Z|[^\w\s{APOSTROPHES}-]|[{APOSTROPHES}](?!\w)|--|\s-\s)"


@dataclass(frozen=True)
class Context:
    """The words around a form of a cue, by which it negates or does not.

    Attributes:
        before: Matches the words before the cue; None for any words.
        not_before: Matches words that must not be before it; None for none.
        after: Matches the words after it.
        written: The cue in capitals, if only capitals match, and only in a text with lower-case letters; else None.
    """

    before: re.Pattern[str] | None
    not_before: re.Pattern[str] | None
    after: re.Pattern[str]
    written: str | None

    def fits(self, text: str, start: int, end: int) -> bool:
        """Whether the cue at these characters of the text has these words around it."""
        if not self.after.match(text, end) or (self.written and (text[start:end] != self.written or text.isupper())):
            return False
        since = max(0, start - _WINDOW)
        before = self.before is None or self.before.search(text, since, start)
        return bool(before and not (self.not_before and self.not_before.search(text, since, start)))


def phrase_contexts(
    phrase: str, kinds: Mapping[str, str], words: Mapping[str, Sequence[str]], attached: Collection[str]
) -> Iterator[tuple[str, Context]]:
    """The kind and the context of each cue of a phrase.

    Args:
        phrase: The phrase.
        kinds: The kind of each form of a cue.
        words: The lists of words that a phrase can name.
        attached: The forms that are attached to the word before them ("n't").

    Raises:
        StatementError: for a phrase without a cue, or with a symbol or name that has no meaning there.
    """
    tokens = [part for token in phrase.split() for part in _split_attached(token, kinds)]
    found = [at for at, token in enumerate(tokens) if any(choice.lower() in kinds for choice in token.split("|"))]
    if not found:
        raise StatementError(f"The phrase {quoted(phrase)} has no cue; add the word to [cues], or correct the phrase.")
    for at in found:
        before, after = tokens[:at], tokens[at + 1 :]
        excluded = before.pop(0) if before and before[0].startswith("!") else None
        for form in tokens[at].split("|"):
            if form.lower() not in kinds:
                raise StatementError(
                    f"The phrase {quoted(phrase)} offers {quoted(form)} in place of a cue, which it is not; add it to "
                    "[cues], or remove it."
                )
            context = Context(
                before=_compiled(_before(before, phrase, words, glued=form in attached)) if before else None,
                not_before=_compiled(_before([excluded[1:], *before], phrase, words, glued=form in attached))
                if excluded
                else None,
                after=_compiled(_after(after, phrase, words)),
                written=form if form.isupper() else None,
            )
            yield kinds[form.lower()], context


def written(word: str) -> str:
    """The regular expression of a word, with any apostrophe for "'"."""
    return re.escape(word).replace("'", f"[{APOSTROPHES}]")


def _split_attached(token: str, kinds: Mapping[str, str]) -> list[str]:
    """A token such as "isn't" or "ca|couldn't" as auxiliary and cue; other tokens unchanged."""
    last = token.split("|")[-1].lower()
    form = next((form for form in kinds if "'" in form and last.endswith(form) and last != form), None)
    return [token] if form is None else [token[: -len(form)], token[-len(form) :]]


def _before(tokens: Sequence[str], phrase: str, words: Mapping[str, Sequence[str]], *, glued: bool = False) -> str:
    """The expression of the words before a cue, to be searched at the end of a text; `glued` to the cue or not."""
    edges = {"^": _BEGIN, ",": _PAUSE}
    first = tokens[0]
    parts = [edges[first] if first in edges else r"(?<!\w)(?<!\w-)" + _word(first, phrase, words)]
    for previous, token in pairwise(tokens):
        parts.append((r"\s*" if previous in edges else r"\s+") + _word(token, phrase, words))
    return "".join(parts) + (r"\s*\Z" if glued or tokens[-1] in edges else r"\s+\Z")


def _after(tokens: Sequence[str], phrase: str, words: Mapping[str, Sequence[str]]) -> str:
    symbols = {"...": _GAP, "$": _FINISH, ",": rf"\s*{_PAUSE}", "?": r"\s*\?"}
    parts = []
    for token in tokens:
        if token in symbols:
            parts.append(symbols[token])
        elif token.startswith("!"):
            parts.append(rf"(?!\s+(?:{_word(token[1:], phrase, words)}))")
        elif token.startswith("(") and token.endswith(")"):
            parts.append(rf"(?:\s+{_word(token[1:-1], phrase, words)})?")
        else:
            parts.append(rf"\s+{_word(token, phrase, words)}")
    return "".join(parts)


def _word(token: str, phrase: str, words: Mapping[str, Sequence[str]]) -> str:
    """The expression of one word of a phrase, with its choices."""
    choices: list[str] = []
    for choice in token.split("|"):
        name = choice[1:-1] if choice.startswith("{") and choice.endswith("}") else None
        if name is not None and name not in words:
            raise StatementError(f"The phrase {quoted(phrase)} names {choice}, but [words] has no list of this name.")
        choices += [choice] if name is None else words[name]
    if not all(re.fullmatch(rf"[\w{APOSTROPHES}-]+", choice) for choice in choices):
        raise StatementError(f"The phrase {quoted(phrase)} has {quoted(token)} where a word was expected.")
    return rf"(?:{'|'.join(map(written, choices))})(?!\w)"


def _compiled(expression: str) -> re.Pattern[str]:
    return re.compile(expression, re.IGNORECASE)
