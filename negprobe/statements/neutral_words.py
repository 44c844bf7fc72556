"""The neutral words that can replace a negation cue at its place in an English sentence.

The place is found by simple grammar: the auxiliary before the cue and the word after it. The words are listed in
`languages/english_controls.toml`. Where no list fits, there are none, because an ungrammatical control would differ
from the counterfactual by more than the negation.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import dropwhile, pairwise, takewhile

from negprobe.statements.cue_lexicon import lexicon_in_use
from negprobe.statements.cues import APOSTROPHES, Cue, find_cues
from negprobe.statements.languages import word_lists
from negprobe.statements.pair import Span
from negprobe.statements.word_forms import is_irregular_form

_BOUNDARY = re.compile(r"[.?!;:]+(?=\s|$)|\[SEP\]|\n")
# Markdown's marks and quotation marks are left out, as they are no part of a sentence's grammar.
_WORD = re.compile(rf"[{APOSTROPHES}]?[^\W_]+(?:[{APOSTROPHES}-][^\W_]+)*|[,;:.?!()\[\]-]")
_ONE = re.compile(r"(?:\s+|-?)one\b(?!-\w)", re.IGNORECASE)
_CLITIC = re.compile(rf"[^\W_](?P<clitic>[{APOSTROPHES}](?:m|s|re|ve|ll|d))$", re.IGNORECASE)


@dataclass(frozen=True)
class _Table:
    """The lists of `english_controls.toml`.

    Attributes:
        neutral: The phrases by place.
        contracted: The full auxiliaries of contractions that lose letters.
        words: The words by the name of their list.
        polarity: The phrases that need a negation.
    """

    neutral: Mapping[str, tuple[str, ...]]
    contracted: Mapping[str, str]
    words: Mapping[str, frozenset[str]]
    polarity: tuple[str, ...]


@dataclass(frozen=True)
class _Place:
    """The words of a cue's sentence, in lower case, with punctuation marks as words.

    Attributes:
        before: The words before the cue; for "n't", also before its auxiliary.
        after: The words after the cue.
        stem: The auxiliary that the cue is attached to, as written ("ca" in "can't"); "" if there is none.
        auxiliary: The same as a full word ("can").
        question: Whether the sentence is a question.
        with_one: Whether the cue is the "no" of "no one", "no-one" or "noone", of which "one" is not in `after`.
    """

    before: tuple[str, ...]
    after: tuple[str, ...]
    stem: str
    auxiliary: str
    question: bool
    with_one: bool

    @property
    def previous(self) -> str:
        """The word before; "" at the start of a clause."""
        return self.before[-1] if self.before and _is_word(self.before[-1]) else ""

    @property
    def next(self) -> str:
        """The word after; "" at the end of a clause."""
        return self.after[0] if self.after and _is_word(self.after[0]) else ""

    @property
    def inverted(self) -> bool:
        """Whether an auxiliary follows that changes places with its subject, as in "Never have I seen"."""
        follows = len(self.after) > 1 and self.after[1] in _words("subject")
        return _is_auxiliary(self.next) and (not self.previous or (self.previous in ("and", "but") and follows))


def neutral_phrases(text: str, cue: Cue) -> tuple[str, ...]:
    """The phrases that can replace a cue, best first; those for "n't" begin with its auxiliary.

    Those for the "no" of "no one" replace both words.

    Example:
        >>> from negprobe.statements import find_cues
        >>> from negprobe.statements.neutral_words import neutral_phrases
        >>> for text in ("He does not smoke.", "Isn't it open?"):
        ...     print(neutral_phrases(text, find_cues(text)[0])[:3])
        ('really', 'indeed', 'also')
        ()
    """
    place = _place(text, cue)
    # The formula NO, of a pair that marks its cues, and the "no" of "no doubt" do not negate.
    negates = cue.kind != "no" or any(found.span == cue.span for found in find_cues(text))
    candidates = _candidates(place, cue.kind) if negates and not _needs_negation(text, cue) else ()
    nearby = {*place.before[-2:], *place.after[:2]} - {"in"}
    sentence = {*place.before, *place.after}
    phrases = [
        phrase
        for phrase in candidates
        # "really really surprised" and "is now open today", but "is in fact in the house".
        if nearby.isdisjoint(phrase.split()) and not ("now" in phrase.split() and sentence & _words("not_now"))
    ]
    attached = cue.kind == "n't" and cue.span[0] > 0 and text[cue.span[0] - 1].isalpha()
    return tuple(f"{place.auxiliary} {phrase}" if attached else phrase for phrase in phrases)


def _candidates(place: _Place, kind: str) -> tuple[str, ...]:
    """The phrases for a place, best first: those of the lexicon in use, and those of `english_controls.toml`."""
    given = () if place.with_one else dict(lexicon_in_use().neutral).get(kind, ())
    if kind not in _PLACES:
        return given
    name = _PLACES[kind](place)
    if name is None or (name not in _INVERTED and _is_fronted(place, kind)):
        return ()
    return (*given, *_table().neutral[name])


def replaced_span(text: str, cue: Cue) -> Span:
    """The characters that neutral words replace: the cue, with the auxiliary of "n't" and the "one" of "no one"."""
    start, end = cue.span
    while cue.kind == "n't" and start > 0 and text[start - 1].isalpha():
        start -= 1
    return (start, end_with_one(text, cue.span)) if cue.kind == "no" else (start, end)


def end_with_one(text: str, span: Span) -> int:
    """The end of "no one", "no-one" or "noone" if the characters of a span are its "no"; else that of the span."""
    one = _ONE.match(text, span[1]) if text[slice(*span)].lower() == "no" else None
    return one.end() if one else span[1]


@cache
def _table() -> _Table:
    found, classes = word_lists("english_controls"), word_lists("english_word_classes")
    words = found["words"] | {
        "preposition": classes["prepositions"].split(),
        "adjective": [*found["words"]["adjective"], *classes["adjectives"].split()],
        "possessive": classes["possessives"].split(),
    }
    return _Table(
        {name: tuple(phrases) for name, phrases in found["neutral"].items()},
        found["contracted"],
        {name: frozenset(listed) for name, listed in words.items()},
        tuple(found["polarity"]["phrases"]),
    )


def _words(name: str) -> frozenset[str]:
    return _table().words[name]


def _is_word(word: str) -> bool:
    return word[-1].isalnum()


def _is_fronted(place: _Place, kind: str) -> bool:
    """Whether the cue is in a phrase that an inverted auxiliary follows: "At no point did she", "Not once has it"."""
    before, phrase = place.before, _clause(place.after)
    preposed = bool(before) and before[-1] in _words("preposition")
    start = before[:-1] if preposed else before
    if kind in _ATTACHED or (start and _is_word(start[-1]) and start[-1] not in _words("clause_start")):
        return False
    at = next((at for at, word in enumerate(phrase) if _is_auxiliary(word)), None)
    if at is None:
        return False
    is_adverbial = preposed or (
        kind in _ADVERBS and phrase[0] in _words("preposition") | _words("fronted_adverb") and at > 0
    )
    return _precedes_subject(phrase, at) or (is_adverbial and not _has_subject(phrase[:at]))


def _has_subject(phrase: Sequence[str]) -> bool:
    """Whether a noun phrase begins in a phrase, but not behind a preposition: "warning the dog", not "once in a"."""
    begins = _words("subject") | _words("determiner")
    # "in the last ten years"
    goes_on = _words("preposition") | _words("determiner") | _words("adjective")
    return any(word in begins and before not in goes_on for before, word in pairwise(phrase))


def _precedes_subject(phrase: Sequence[str], at: int) -> bool:
    """Whether the auxiliary at an index has a pronoun behind it that must be its subject: "did she", "may you"."""
    following = phrase[at + 1] if at + 1 < len(phrase) else ""
    # "Nobody is there" and "Nobody did it", but "Nothing could it" is inverted.
    return following in _words("nominative") or (phrase[at] in _words("modal") and following in _words("subject"))


def _is_auxiliary(word: str) -> bool:
    return any(word in _words(name) for name in ("be", "have", "do", "modal"))


def _split(text: str) -> tuple[str, ...]:
    apostrophes = str.maketrans(dict.fromkeys(APOSTROPHES, "'"))
    return tuple(word.translate(apostrophes).lower() for word in _WORD.findall(text))


def _place(text: str, cue: Cue) -> _Place:
    """The words around a cue in its sentence."""
    start, end_of_cue = replaced_span(text, cue)
    left = _BOUNDARY.split(text[:start])[-1]
    right, mark = text[end_of_cue:], ""
    if end := _BOUNDARY.search(right):
        right, mark = right[: end.start()], end[0]
    before = _split(left)
    stem = text[start : cue.span[0]].lower()
    if cue.kind == "n't" and not stem and before:
        # "is n't": the auxiliary is a word of its own.
        *rest, stem = before
        before = tuple(rest)
    with_one = cue.kind == "no" and end_of_cue > cue.span[1]
    return _Place(before, _split(right), stem, _full_auxiliary(stem, before), "?" in mark, with_one)


def _full_auxiliary(stem: str, before: tuple[str, ...]) -> str:
    if stem == "ai":
        subject = before[-1] if before else ""
        return "am" if subject == "i" else "are" if subject in ("you", "we", "they") or subject.endswith("s") else "is"
    return _table().contracted.get(stem, stem)


def _needs_negation(text: str, cue: Cue) -> bool:
    """Whether a word of the cue's sentence is only possible after a negation: "has not eaten yet"."""
    rest = text[cue.span[1] :]
    if end := _BOUNDARY.search(rest):
        rest = rest[: end.start()]
    following = find_cues(rest)
    if following and following[0].kind == "nor" and cue.kind not in ("neither", "nor"):
        return True
    # Behind a further cue, the word depends on that one.
    words = _split(rest[: following[0].span[0]] if following else rest)
    return any(_occurs(phrase.split(), words) for phrase in _table().polarity)


def _occurs(phrase: list[str], words: tuple[str, ...]) -> bool:
    """Whether a phrase, in the notation of the TOML file, is among the words."""
    after_comma = phrase[0] != "!,"
    at_end = phrase[-1] == "$"
    wanted = tuple(word for word in phrase if word not in ("!,", "$"))
    for at in range(len(words) - len(wanted) + 1):
        end = at + len(wanted)
        if words[at:end] != wanted or (not after_comma and at > 0 and words[at - 1] == ","):
            continue
        if not at_end or end == len(words) or not _is_word(words[end]):
            return True
    return False


def _of_not(place: _Place) -> str | None:
    if place.next in _words("negative_adverb"):
        return None
    auxiliary, subject_before = _auxiliary_before(place)
    if auxiliary and not subject_before and place.question and place.before[:1] == (auxiliary,):
        # "Is not the door open?"
        return None
    if not auxiliary:
        return _of_bare_not(place)
    if place.before in (("do",), ("please", "do")) and not place.question:
        return "request"
    return _after_auxiliary(auxiliary, place)


def _auxiliary_before(place: _Place) -> tuple[str, bool]:
    """The auxiliary that "not" follows, "" for none, and whether its subject is between them: "Are they not"."""
    before = place.before
    if not place.previous:
        return "", False
    clitic = _CLITIC.search(before[-1])
    if clitic:
        return clitic["clitic"].lower(), False
    if place.previous in _words("adverb") or place.previous.endswith("ly"):
        before = before[:-1]
    if before and (_is_auxiliary(before[-1]) or before[-1] in _words("negative_modal")):
        return before[-1], False
    if len(before) > 1 and before[-1] in _words("subject") and _is_auxiliary(before[-2]):
        return before[-2], True
    if place.question and before and _is_auxiliary(before[0]):
        # "Is the door not open?"
        return before[0], True
    return "", False


def _after_auxiliary(auxiliary: str, place: _Place) -> str | None:
    if auxiliary in _words("negative_modal"):
        return "infinitive" if place.next == "to" else None
    if not place.next:
        if auxiliary.startswith("'"):
            # "I'm now." would end in a contraction.
            return None
        return "do_ellipsis" if auxiliary in _words("do") else "ellipsis"
    if auxiliary in _words("be"):
        return "be"
    # "have not a clue"
    if place.next in _words("determiner"):
        return None
    return next((name for name in ("have", "do", "modal") if auxiliary in _words(name)), None)


def _of_bare_not(place: _Place) -> str | None:
    """The place of a "not" that does not follow an auxiliary."""
    previous, following = place.previous, place.next
    if not following or previous in _words("clause_verb") or "but" in place.after:
        # "not on Friday, but on Saturday" would lose its contrast.
        return None
    if place.before[-2:] == ("let", "us") or previous == "let's":
        return "proposal"
    if following == "to":
        # "Not to vote is a choice" has the infinitive as its subject.
        return "infinitive" if previous else None
    if following in _words("universal"):
        return "universal"
    if _is_participle(following):
        return "gerund" if previous in _words("preposition") else "participle"
    if following in _words("adjunct") or previous in ("and", "but"):
        return "adjunct"
    if place.before[-1:] == (",",):
        return "adjunct" if following in _words("determiner") else None
    if following in _words("amount"):
        return "amount"
    if previous:
        is_attribute = previous in _words("determiner") and following not in _words("intensifier")
        return "manner" if is_attribute else None
    return "manner" if following.endswith("ly") or following in _words("manner") else None


def _is_participle(word: str) -> bool:
    return word.endswith("ing") and len(word) > 4 and word not in _words("noun")


def _of_contraction(place: _Place) -> str | None:
    auxiliary, previous, following = place.auxiliary, place.previous, place.next
    if (place.stem == "ai" and following in _words("perfect")) or following in _words("negative_adverb"):
        return None
    if following in _words("subject") or previous in _words("question"):
        return None
    asks = place.question and place.before[:1] and place.before[0] in _words("question") | _words("subject_question")
    if asks and following in _words("determiner") | {"that"}:
        # "What isn't the door made of?", "How long isn't that?"
        return None
    if not previous and place.question:
        return None
    if auxiliary == "do" and previous in ("", "please"):
        return "request"
    return _after_auxiliary(auxiliary, place)


def _of_cannot(place: _Place) -> str | None:
    return "cannot"


def _of_never(place: _Place) -> str | None:
    if place.inverted:
        return "fronted_frequency"
    if not place.next:
        return None
    if place.previous:
        return "frequency"
    stays = place.next in _words("adjunct") or place.next in _words("determiner") or place.next in ("again", "mind")
    return None if stays else "initial_frequency"


def _of_no_longer(place: _Place) -> str | None:
    return None if place.inverted or not place.next else "duration"


def _of_hardly(place: _Place) -> str | None:
    if place.inverted or not place.next:
        return None
    if place.next in _words("determiner") or place.next[0].isdigit():
        return "amount"
    return "degree"


def _of_no(place: _Place) -> str | None:
    if place.with_one:
        return _of_no_one(place)
    if not place.next or place.next in _words("fixed_after_no") or _is_compared(place):
        return None
    noun = _noun_phrase(place.after)[-1]
    second = place.after[1] if len(place.after) > 1 else ""
    if place.previous not in _words("clause_start") | {""} and _is_word(second or ".") and _ends_in_s(second):
        # "has no known allergies", but not "No dog barks".
        noun = second
    if _is_existential(place) or _is_telegraphic(place):
        return "count" if noun in _words("count_noun") else "indefinite"
    if place.previous in _words("indefinite_after") or place.next in _words("indefinite_before"):
        return "indefinite"
    if place.next in _words("comparison"):
        return None
    return "plural" if _is_plural(noun) else "determiner"


def _of_no_one(place: _Place) -> str | None:
    # "no one door", "no one else", "no one but him", "She is no one".
    is_predicate = place.previous in _words("be") and not _is_existential(place)
    fits = not is_predicate and place.next not in _words("count_noun") | _words("after_no_one")
    return "person_one" if fits else None


def _is_compared(place: _Place) -> bool:
    """Whether an adjective that follows is a comparative: "no faster than mine", "is no faster", but not "no water"."""
    is_predicate = len(_clause(place.after)) == 1 and place.previous in _words("be") and not _is_existential(place)
    return place.next.endswith("er") and ("than" in place.after[1:4] or is_predicate)


def _is_existential(place: _Place) -> bool:
    return not {"there", "there's"}.isdisjoint(place.before[-4:])


def _clause(words: Sequence[str]) -> tuple[str, ...]:
    """The words before the first punctuation mark."""
    return tuple(takewhile(_is_word, words))


def _noun_phrase(words: Sequence[str]) -> tuple[str, ...]:
    """The adjectives at the beginning of some words, and the word after them, which is probably a noun."""
    adjectives = tuple(takewhile(_words("adjective").__contains__, _clause(words)[:-1]))
    return tuple(words[: len(adjectives) + 1])


def _is_plural(noun: str) -> bool:
    return noun in _words("several") or _ends_in_s(noun)


def _ends_in_s(word: str) -> bool:
    """Whether a word ends in the "s" of a plural or of a verb: "doors", "opens", but not "class" or "bus"."""
    return word.endswith("s") and word[-2:] not in ("ss", "us", "is", "'s") and word not in _words("singular_s")


def _is_telegraphic(place: _Place) -> bool:
    """Whether the cue begins a note without a finite verb: "No fever or cough.", "Lungs clear, no wheezes heard."."""
    following = _clause(place.after)
    if place.previous not in _words("clause_start") | {""} or any(map(_is_auxiliary, following)):
        return False
    rest = following[len(_noun_phrase(place.after)) :]
    return not any(map(_may_be_finite, rest)) or rest[0] in _words("note")


def _may_be_finite(word: str) -> bool:
    """Whether a word has the form of a verb with a singular subject: "opens", "smiled", "fell"."""
    return word.endswith("ed") or _ends_in_s(word) or is_irregular_form(word)


def _of_none(place: _Place) -> str | None:
    if place.next in ("too", "the", "so", "other"):
        return None
    if place.next == "of" and not _names_several(place):
        return "none_mass"
    return "none_singular" if _takes_singular(place) else "none_plural"


def _takes_singular(place: _Place) -> bool:
    """Whether the verb after the cue is singular: "of them has", "of my friends speaks"."""
    verbs = (word for word in place.after if word in _words("singular_verb") | _words("plural_verb"))
    if found := next(verbs, ""):
        return found in _words("singular_verb")
    words = [word for word in _clause(place.after) if not word.endswith("ly") and word not in _words("adverb")]
    return any(_is_plural(noun) and _is_plural(verb) for noun, verb in pairwise(words))


def _names_several(place: _Place) -> bool:
    """Whether the words between the cue and its verb are plural: "of us", "of the lights"."""
    subject: list[str] = []
    for word in place.after:
        if _is_auxiliary(word):
            break
        subject.append(word)
    return any(word in _words("several") or (word.endswith("s") and word != "this") for word in subject)


def _of_nobody(place: _Place) -> str | None:
    return "person"


def _of_nothing(place: _Place) -> str | None:
    return "thing"


def _of_nowhere(place: _Place) -> str | None:
    if place.inverted or place.next in _words("comparison"):
        return None
    return "location" if place.next else "final_location"


def _of_neither(place: _Place) -> str | None:
    if not place.next:
        return None
    if _is_auxiliary(place.next):
        return _of_neither_before_auxiliary(place)
    partner = next((word for word in place.after if word in ("nor", "and", "or")), "")
    if place.next == "of":
        return "each_of" if _takes_singular(place) else "both_of"
    # "nor" is replaced before: "and" for "both", "or" for "either".
    if partner in ("and", "or"):
        return {"and": "both", "or": "either"}[partner]
    # "Neither door is open", but not "neither red nor blue" with its "nor".
    return None if partner else "either" if not place.previous else None


def _of_neither_before_auxiliary(place: _Place) -> str | None:
    """The place of "Neither does my sister", "Neither could swim"."""
    subject = place.after[1] if len(place.after) > 1 else ""
    if place.next in _words("do") or subject in _words("subject") | _words("possessive"):
        return "so" if _is_elliptic(place) and place.previous in ("", "and", "but") else None
    # "Neither is the door open" has its subject after the verb.
    if place.previous or subject == "the":
        return None
    return "both_of" if place.next in _words("plural_verb") else "each_of"


def _is_elliptic(place: _Place) -> bool:
    """Whether a clause is only an auxiliary and its subject: "does my old sister", "am I"."""
    subject = tuple(dropwhile(_words("determiner").__contains__, _clause(place.after)[1:]))
    return 0 < len(subject) == len(_noun_phrase(subject))


def _of_nor(place: _Place) -> str | None:
    if _is_auxiliary(place.next):
        # "nor does he drink", and "Nor am I".
        return "so" if not place.before and _is_elliptic(place) else None
    is_subject = place.before[:1] == ("neither",) and _takes_singular(place)
    return "or" if is_subject else "and"


def _of_without(place: _Place) -> str | None:
    if not place.next or place.previous in _words("dispense"):
        return None
    return "while" if _is_participle(place.next) else "with"


# Cues that follow an auxiliary, and those that can begin a fronted adverbial ("not in years has it").
_ATTACHED = frozenset({"n't", "cannot"})
_ADVERBS = frozenset({"not", "never", "nowhere", "hardly", "barely", "scarcely", "no longer"})

# The places whose neutral words an inverted auxiliary can follow: "Often have I seen", "So am I", "Very often do we".
_INVERTED = frozenset({"fronted_frequency", "so", "manner"})

_PLACES: Mapping[str, Callable[[_Place], str | None]] = {
    "not": _of_not,
    "n't": _of_contraction,
    "cannot": _of_cannot,
    "never": _of_never,
    "no longer": _of_no_longer,
    **dict.fromkeys(("hardly", "barely", "scarcely"), _of_hardly),
    "no": _of_no,
    "none": _of_none,
    "nobody": _of_nobody,
    "nothing": _of_nothing,
    "nowhere": _of_nowhere,
    "neither": _of_neither,
    "nor": _of_nor,
    "without": _of_without,
}
"""Finds the place of each kind of cue by its name in `english_controls.toml`; None if none fits."""
