"""The compiled expressions of a lexicon, which find the cues of a text."""

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from negprobe.base.errors import StatementError
from negprobe.base.texts import quoted
from negprobe.statements.cue_phrases import APOSTROPHES, Context, phrase_contexts, written
from negprobe.statements.pair import Span

# Combining accents belong to the word that they follow.
_LETTER = r"[\w\u0300-\u036f]"
_APOSTROPHE = f"[{APOSTROPHES}]"
# An underscore is part of a word ("not_a"), except as Markdown emphasis ("_not_", "__not__").
_START = rf"(?: (?<!{_LETTER}) (?<!{_LETTER}-) | (?<=\b_) | (?<=\b__) )"
_ATTACHED_END = rf"(?! (?!__?(?!\w)) {_LETTER} )"
_END = rf"(?! (?!__?(?!\w)) {_LETTER} | -{_LETTER} )"

# Letters that `re.IGNORECASE` takes for an "i", and `str.casefold` does not.
_DOTTED_AND_DOTLESS = str.maketrans("\u0130\u0131", "ii")

_QUOTES = {"'": "'", '"': '"', "`": "`", "\u2018": "\u2019", "\u201c": "\u201d", "\u00ab": "\u00bb"}


@dataclass(frozen=True)
class Matcher:
    """Finds cues.

    Attributes:
        candidates: Matches every form of a cue, whatever the words around it.
        kinds: The kind of each form.
        contexts: For each kind, the contexts in which it does not negate.
        homographs: For each kind, the contexts in which a word that is spelled like it is a cue.
    """

    candidates: re.Pattern[str]
    kinds: Mapping[str, str]
    contexts: Mapping[str, Sequence[Context]]
    homographs: Mapping[str, Sequence[Context]]

    def cues(self, text: str) -> Iterator[tuple[str, Span]]:
        """The kind and the characters of each cue of a text, from left to right."""
        for found in self.candidates.finditer(text):
            group = str(found.lastgroup)
            start, end = span = found.span(group)
            kind = self.kinds[_key(group, found[group])]
            if _is_quoted(text, start, end) or _fits_any(self.contexts.get(kind, ()), text, span):
                continue
            if not group.startswith("homograph") or _fits_any(self.homographs.get(kind, ()), text, span):
                yield kind, span


def _fits_any(contexts: Sequence[Context], text: str, span: Span) -> bool:
    return any(context.fits(text, *span) for context in contexts)


def matcher(
    kinds: Mapping[str, Sequence[str]],
    searched: Collection[str],
    *,
    auxiliaries: Mapping[str, Sequence[str]],
    homographs: Mapping[str, Sequence[str]],
    compounds: Sequence[str],
    numbers: Sequence[str],
    derived: Sequence[str],
    words: Mapping[str, Sequence[str]],
    contexts: Sequence[str],
    phrases: Sequence[str],
) -> Matcher:
    """The compiled expressions of a lexicon's entries (see `cue_lexicon.Lexicon`), of which some kinds are searched.

    Raises:
        StatementError: for a phrase that cannot be compiled.
    """
    affixes = {kind: kinds[kind] for kind in searched if is_affix(kind)}
    kind_of = {form_words(form): kind for kind, forms in kinds.items() if not is_affix(kind) for form in forms}
    whole = [form for kind in searched if kind not in affixes for form in kinds[kind] if form not in auxiliaries]
    # Longer forms first: "no longer" before "no".
    forms = "|".join(_form(form) for form in sorted(whole, key=len, reverse=True))
    # "No. 5", "no. 5", "No 5" and "the no. of doors" stand for "number"; "no 5 doors" is a negation.
    is_number = "|".join(
        rf"{word}\.\s*(?:\d|of\b) | (?-i:{word[0].upper()}(?:{word[1:]}|{word[1:].upper()}))\s+\d" for word in numbers
    )
    parts = [map(written, word.split("-", 1)) for word in compounds]
    in_compounds = "|".join(rf"{first}(?=-?{second}\b)" for first, second in parts)
    # The cues that begin where a word begins, so that this is checked once.
    at_start = [rf"(?P<word> {in_compounds or '(?!)'} | (?!{is_number or '(?!)'}) (?:{forms}) {_END})"]
    anywhere = []
    for number, (attached, stems) in enumerate(auxiliaries.items()):
        before = "|".join(map(re.escape, stems))
        if "'" in attached:
            # Only after an auxiliary is a separated "n ' t" a cue.
            spaced = rf"\s*{_APOSTROPHE}\s*".join(map(re.escape, attached.split("'")))
            at_start.append(rf"(?:{before})\s* (?P<split{number}> {spaced}) {_ATTACHED_END}")
            anywhere.append(rf"(?P<attached{number}> {written(attached)}) {_ATTACHED_END}")
        else:
            at_start.append(rf"(?:{before}) (?P<joined{number}> {re.escape(attached)}) {_END}")
    for number, (attached, stems) in enumerate(homographs.items()):
        before = "|".join(map(re.escape, stems))
        at_start.append(rf"(?:{before}) (?P<homograph{number}> {written(attached)}) {_ATTACHED_END}")
    for number, (affix, stems) in enumerate(affixes.items()):
        letters = re.escape(affix.strip("-"))
        if affix.endswith("-"):
            any_word = rf"-{_LETTER} |" if "*" in stems else ""
            at_start.append(rf"(?P<prefix{number}> {letters}) (?= {any_word} -?(?:{_derived(stems, derived)}) {_END})")
        else:
            endings = _derived([""], [ending for ending in derived if ">" not in ending])
            at_start.append(rf"(?:{_derived(stems, ())}) (?P<suffix{number}> {letters}) (?= (?:{endings}) {_END})")
    expression = " | ".join([rf"{_START} (?: {' | '.join(at_start)} )", *anywhere])
    attached_forms = {*auxiliaries, *homographs}
    negating, other = (_by_kind(listed, kind_of, words, attached_forms) for listed in (contexts, phrases))
    kind_of |= {affix: affix for affix in affixes}
    return Matcher(re.compile(expression, re.IGNORECASE | re.VERBOSE), kind_of, other, negating)


def _by_kind(
    phrases: Sequence[str], kinds: Mapping[str, str], words: Mapping[str, Sequence[str]], attached: Collection[str]
) -> dict[str, list[Context]]:
    """The contexts that some phrases describe, by the kind of their cue."""
    found: dict[str, list[Context]] = {}
    for phrase in phrases:
        for kind, context in phrase_contexts(phrase, kinds, words, attached):
            found.setdefault(kind, []).append(context)
    return found


def form_words(form: str) -> str:
    """A form without the words that must not follow it ("no longer !than" -> "no longer")."""
    return form.partition(" !")[0]


def _form(form: str) -> str:
    words, _, following = form.partition(" !")
    if not re.fullmatch(r"[\w' -]+", words) or not re.fullmatch(r"[\w'|-]*", following):
        raise StatementError(f"The cue {quoted(form)} has a symbol that no word has; correct it.")
    expression = r"\s+".join(map(written, words.split()))
    return expression + (rf"(?! \s+(?:{following})\b )" if following else "")


def _derived(stems: Sequence[str], derived: Sequence[str]) -> str:
    """The expression of words and of those derived from them: with an ending, or ("y>ily") with one replaced."""
    words = set(stems)
    for old, new in ((ending.rpartition(">")[::2]) for ending in derived):
        words |= {stem.removesuffix(old) + new for stem in stems if stem.endswith(old)}
    return "|".join(map(re.escape, sorted(words, key=len, reverse=True)))


def is_affix(kind: str) -> bool:
    """Whether a kind is a prefix ("un-") or a suffix ("-less")."""
    return kind.startswith("-") or kind.endswith("-")


def _key(group: str, text: str) -> str:
    """The form, as the lexicon writes it, that a group of the expression matched."""
    folded = text.translate(_DOTTED_AND_DOTLESS).casefold()
    if group.startswith("prefix"):
        return f"{folded}-"
    if group.startswith("suffix"):
        return f"-{folded}"
    plain = re.sub(_APOSTROPHE, "'", folded)
    return "".join(plain.split()) if group.startswith(("split", "attached")) else " ".join(plain.split())


def _is_quoted(text: str, start: int, end: int) -> bool:
    """Whether a cue is mentioned and not used: alone in quotation marks."""
    return start > 0 and end < len(text) and _QUOTES.get(text[start - 1]) == text[end]
