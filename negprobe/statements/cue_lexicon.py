"""Lexicons: the negation cues of a language and the phrases in which they do not negate, read from a TOML file."""

import hashlib
import json
import re
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from negprobe.base.arguments import checked
from negprobe.base.errors import StatementError
from negprobe.base.files import read_bytes
from negprobe.base.reprs import short_repr
from negprobe.base.texts import quoted
from negprobe.statements.cue_matcher import Matcher, form_words, is_affix, matcher
from negprobe.statements.cue_phrases import APOSTROPHES
from negprobe.statements.languages import word_lists

FUNCTION = "function"
"""The class of cues that is always searched: "not", "never", "no", ..."""

OPTIONAL_CLASSES = ("lexical", "affixal")
"""The classes that are searched only if a lexicon has them in `classes`: "refuse", "un-"."""

Lists = tuple[tuple[str, tuple[str, ...]], ...]
"""Names and the words of each."""


@checked
@dataclass(frozen=True, repr=False)
class Lexicon:
    """The cues that `find_cues` searches for. The file `statements/languages/english.toml` explains the fields.

    `english_lexicon()` is the default, `read_lexicon` adds a file to it, `with_cue` adds a word, and `use_lexicon` sets
    the lexicon that the process uses.

    Attributes:
        language: The language, for messages.
        classes: The optional classes that are searched.
        cues: For each class, the forms of each kind of cue.
        auxiliaries: For each attached form of a cue ("n't"), the auxiliaries as written before it.
        homographs: For each attached form, the auxiliaries that make another word with it ("cant").
        compounds: Hyphenated words of which the first part is a cue; they are found without the hyphen too.
        numbers: Forms of cues that abbreviate "number" too.
        derived: The endings of words that are derived from a word with an affix.
        words: The lists of words that phrases name.
        contexts: Phrases in which a word of `homographs` contains a cue.
        phrases: Phrases in which a cue does not negate.
        neutral: For kinds of cues, words that can replace them in a control, besides those of `neutral_words`.

    Example:
        >>> from negprobe.statements import english_lexicon, find_cues
        >>> text = "He refused to open the unsafe door."
        >>> find_cues(text)
        ()
        >>> [cue.kind for cue in find_cues(text, lexicon=english_lexicon(classes=("lexical", "affixal")))]
        ['refuse', 'un-']
    """

    language: str
    classes: tuple[str, ...]
    cues: tuple[tuple[str, Lists], ...]
    auxiliaries: Lists
    homographs: Lists
    compounds: tuple[str, ...]
    numbers: tuple[str, ...]
    derived: tuple[str, ...]
    words: Lists
    contexts: tuple[str, ...]
    phrases: tuple[str, ...]
    neutral: Lists = ()

    __repr__ = short_repr

    @property
    def searched(self) -> tuple[str, ...]:
        """The kinds of cues that are searched for."""
        return tuple(kind for name, kinds in self.cues if name in (FUNCTION, *self.classes) for kind, _ in kinds)

    def with_cue(self, word: str, kind: str | None = None) -> "Lexicon":
        """The lexicon with one more word or phrase as a cue, of the kind `word` or of another one.

        Raises:
            StatementError: for a word without letters, or one that is a cue already.

        Example:
            >>> from negprobe.statements import english_lexicon, find_cues
            >>> find_cues("It came sans doors.", lexicon=english_lexicon().with_cue("sans", "without"))
            (Cue(text='sans', kind='without', span=(8, 12)),)
        """
        where = f"The cue {quoted(word)}"
        of_class = next((name for name, kinds in self.cues if kind in dict(kinds)), FUNCTION)
        added = _parsed({"cues": {of_class: {word if kind is None else kind: [word]}}}, where)
        return _checked_entries(_added(self, added, where), where)

    @property
    def fingerprint(self) -> str:
        """A digest of all entries: two lexicons find the same cues if it is equal."""
        return hashlib.sha256(json.dumps(asdict(self)).encode()).hexdigest()[:16]

    @cached_property
    def matcher(self) -> Matcher:
        """The compiled expressions."""
        return matcher(
            {kind: forms for _, kinds in self.cues for kind, forms in kinds},
            self.searched,
            auxiliaries=dict(self.auxiliaries),
            homographs=dict(self.homographs),
            compounds=self.compounds,
            numbers=self.numbers,
            derived=self.derived,
            words=dict(self.words),
            contexts=self.contexts,
            phrases=self.phrases,
        )


@checked
def english_lexicon(*, classes: tuple[str, ...] = ()) -> Lexicon:
    """The lexicon of English, with the cues of optional classes (`OPTIONAL_CLASSES`) if they are given.

    Raises:
        StatementError: for an unknown class.
    """
    return replace(_english(), classes=_known_classes(classes, "The English lexicon")) if classes else _english()


@checked
def read_lexicon(path: str | Path) -> Lexicon:
    """The English lexicon with the entries of a TOML file added.

    The file has the tables of `statements/languages/english.toml`, all of them optional.

    Raises:
        StatementError: for a file that cannot be read or is not TOML in UTF-8; for an unknown key, an empty or repeated
            word, one that is a cue already, or a phrase that cannot be used.

    Example:
        >>> from pathlib import Path
        >>> from tempfile import mkdtemp
        >>> from negprobe.statements import find_cues, read_lexicon
        >>> file = Path(mkdtemp(), "cues.toml")
        >>> _ = file.write_text('[cues.function]\\nsans = ["sans"]')
        >>> [cue.kind for cue in find_cues("It came sans doors.", lexicon=read_lexicon(file))]
        ['sans']
    """
    where = f"The lexicon {quoted(str(path))}"
    try:
        # Some editors begin a UTF-8 file with a byte order mark.
        tables = tomllib.loads(read_bytes(path).decode("utf-8-sig"))
    except OSError as error:
        raise StatementError(f"{where} cannot be read: {error}.") from error
    except UnicodeDecodeError as error:
        raise StatementError(f"{where} is not UTF-8 text ({error}); save it as UTF-8.") from error
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise StatementError(f"{where} is not a TOML file: {error}.") from error
    return _checked_entries(_added(_english(), _parsed(tables, where), where), where)


_in_use: Lexicon | None = None


def lexicon_in_use() -> Lexicon:
    """The lexicon that `find_cues` and everything that searches for cues use; English if none was set."""
    return _in_use or _english()


@checked
def use_lexicon(lexicon: Lexicon | None) -> Lexicon:
    """Set the lexicon of this process, or English with None, and return the previous one.

    Every search for cues that starts later uses it: completing pairs, reading data sets, and studies, which pass it to
    the workers of a cluster and record it in their fingerprint, so that a study is not resumed with other cues.

    Example:
        >>> from negprobe.statements import english_lexicon, find_cues, use_lexicon
        >>> before = use_lexicon(english_lexicon(classes=("lexical",)))
        >>> [cue.kind for cue in find_cues("It lacks doors.")]
        ['lack']
        >>> _ = use_lexicon(before)
    """
    global _in_use
    before = lexicon_in_use()
    _in_use = lexicon
    return before


@cache
def _english() -> Lexicon:
    return _checked_entries(_parsed(word_lists("english"), "The English lexicon"), "The English lexicon")


_TABLES = (
    "language", "classes", "cues", "auxiliaries", "homographs", "spelling", "words", "contexts", "idioms", "neutral",
)  # fmt: skip


def _parsed(tables: Mapping[str, Any], where: str) -> Lexicon:
    """The entries of a file, each of the right type; `_checked_entries` checks how they fit together."""
    _check_keys(tables, _TABLES, where)
    language = tables.get("language", "")
    if not isinstance(language, str):
        raise StatementError(f"{where}: language must be a text, got {quoted(language)}.")
    cues, spelling, contexts, idioms = (
        _table(tables, name, where) for name in ("cues", "spelling", "contexts", "idioms")
    )
    _check_keys(cues, (FUNCTION, *OPTIONAL_CLASSES), f"{where}, [cues]")
    _check_keys(spelling, ("compounds", "numbers", "derived"), f"{where}, [spelling]")
    _check_keys(contexts, ("phrases",), f"{where}, [contexts]")
    _check_keys(idioms, ("phrases",), f"{where}, [idioms]")
    return Lexicon(
        language=language,
        classes=_known_classes(_texts(tables.get("classes", []), f"{where}, classes"), where),
        cues=tuple((name, _lists(cues, name, f"{where}, [cues]")) for name in cues),
        auxiliaries=_lists(tables, "auxiliaries", where),
        homographs=_lists(tables, "homographs", where),
        compounds=_texts(spelling.get("compounds", []), f"{where}, compounds"),
        numbers=_texts(spelling.get("numbers", []), f"{where}, numbers"),
        derived=_texts(spelling.get("derived", []), f"{where}, derived"),
        words=_lists(tables, "words", where),
        contexts=_texts(contexts.get("phrases", []), f"{where}, [contexts]", lower=False),
        phrases=_texts(idioms.get("phrases", []), f"{where}, phrases", lower=False),
        neutral=_lists(tables, "neutral", where),
    )


def _checked_entries(lexicon: Lexicon, where: str) -> Lexicon:
    """The lexicon, if its cues are different, well-formed and known where other entries name them.

    Raises:
        StatementError: otherwise.
    """
    class_of: dict[str, str] = {}
    kind_of: dict[str, str] = {}
    for name, kinds in lexicon.cues:
        for kind, forms in kinds:
            if class_of.setdefault(kind, name) != name:
                raise StatementError(f"{where}: {quoted(kind)} is a kind of the class {class_of[kind]!r} already.")
            if is_affix(kind) != (name == "affixal"):
                raise StatementError(
                    f"{where}: {quoted(kind)} is in the class {name!r}; kinds of the class 'affixal', and no others, "
                    "begin or end with a hyphen."
                )
            for form in forms if name != "affixal" else ():
                other = kind_of.setdefault(form_words(form), kind)
                if other != kind:
                    raise StatementError(
                        f"{where}: {quoted(form)} is a cue of the kinds {other!r} (class {class_of[other]!r}) and "
                        f"{kind!r} (class {name!r}); a cue has one kind, which cannot be changed."
                    )
    for entry, names in (
        ("auxiliaries", dict(lexicon.auxiliaries)),
        ("homographs", dict(lexicon.homographs)),
        ("numbers", lexicon.numbers),
    ):
        for form in names:
            if form not in kind_of:
                raise StatementError(f"{where}: {quoted(form)} in {entry} is not a cue; add it to [cues.{FUNCTION}].")
    for compound in lexicon.compounds:
        if compound.partition("-")[0] not in kind_of or not compound.partition("-")[2]:
            raise StatementError(
                f"{where}: {quoted(compound)} in compounds must be a cue, a hyphen and another word, as in 'no-one'."
            )
    # Phrases are checked when they are compiled.
    try:
        cues_of = lexicon.matcher.cues
    except StatementError as error:
        raise StatementError(f"{where}: {error}") from error
    for kind, phrases in lexicon.neutral:
        if kind not in class_of:
            raise StatementError(
                f"{where}: {quoted(kind)} in neutral is not a kind of cue; the kinds are {', '.join(class_of)}."
            )
        for phrase in phrases:
            if any(True for _ in cues_of(phrase)):
                raise StatementError(f"{where}: {quoted(phrase)} in neutral contains a cue; give affirmative words.")
    return lexicon


def _added(base: Lexicon, more: Lexicon, where: str) -> Lexicon:
    """The entries of both lexicons; `more` must not repeat any."""
    base_cues, more_cues = dict(base.cues), dict(more.cues)
    return Lexicon(
        language=more.language or base.language,
        classes=tuple(dict.fromkeys([*base.classes, *more.classes])),
        cues=tuple(
            (name, _joined(base_cues.get(name, ()), more_cues.get(name, ()), where))
            for name in dict.fromkeys([*base_cues, *more_cues])
        ),
        auxiliaries=_joined(base.auxiliaries, more.auxiliaries, where),
        homographs=_joined(base.homographs, more.homographs, where),
        compounds=_new(base.compounds, more.compounds, where),
        numbers=_new(base.numbers, more.numbers, where),
        derived=_new(base.derived, more.derived, where),
        words=_joined(base.words, more.words, where),
        contexts=_new(base.contexts, more.contexts, where),
        phrases=_new(base.phrases, more.phrases, where),
        neutral=_joined(base.neutral, more.neutral, where),
    )


def _joined(base: Lists, more: Lists, where: str) -> Lists:
    """The lists of both, those of the same name joined."""
    joined = dict(base)
    for name, texts in more:
        joined[name] = _new(joined.get(name, ()), texts, where)
    return tuple(joined.items())


def _new(base: tuple[str, ...], more: tuple[str, ...], where: str) -> tuple[str, ...]:
    for text in more:
        if text in base:
            raise StatementError(f"{where}: {quoted(text)} is in the lexicon already; remove it.")
    return (*base, *more)


def _known_classes(names: tuple[str, ...], where: str) -> tuple[str, ...]:
    for name in names:
        if name not in OPTIONAL_CLASSES:
            raise StatementError(
                f"{where}: there is no optional class {quoted(name)} of cues; choose from "
                f"{', '.join(OPTIONAL_CLASSES)}."
            )
    return tuple(dict.fromkeys(names))


def _check_keys(table: Mapping[str, Any], names: tuple[str, ...], where: str) -> None:
    for name in table:
        if name not in names:
            raise StatementError(f"{where}: the key {quoted(name)} is unknown; possible keys are {', '.join(names)}.")


def _table(tables: Mapping[str, Any], name: str, where: str) -> Mapping[str, Any]:
    table = tables.get(name, {})
    if not isinstance(table, dict):
        raise StatementError(f"{where}: {name} must be a table, got {quoted(table)}.")
    return table


def _lists(tables: Mapping[str, Any], name: str, where: str) -> Lists:
    lists = tuple(
        (_cleaned(key, f"{where}, {name}"), _texts(texts, f"{where}, {name}, {quoted(key)}"))
        for key, texts in _table(tables, name, where).items()
    )
    for key, texts in lists:
        if not texts:
            raise StatementError(f"{where}, {name}: the list of {quoted(key)} is empty; give at least one word.")
    return lists


def _texts(texts: Any, where: str, *, lower: bool = True) -> tuple[str, ...]:
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise StatementError(f"{where} must be a list of texts in quotation marks, got {quoted(texts)}.")
    cleaned = tuple(_cleaned(text, where, lower=lower) for text in texts)
    for text in cleaned:
        if cleaned.count(text) > 1:
            raise StatementError(f"{where}: {quoted(text)} is listed twice; remove one of them.")
    return cleaned


def _cleaned(text: str, where: str, *, lower: bool = True) -> str:
    """A word or phrase with single spaces and plain apostrophes, in lower case."""
    if text != "*" and not any(character.isalpha() for character in text):
        raise StatementError(f"{where}: {quoted(text)} has no letter; give a word.")
    plain = re.sub(f"[{APOSTROPHES}]", "'", " ".join(text.split()))
    return plain.lower() if lower else plain
