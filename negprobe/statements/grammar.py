"""How a statement is written from the lexicon: "The door is not open. So the door is [MASK]."

One grammar serves both the training of the bundled model and the built-in pairs. A clause joins a noun and a state by a
phrase ("is not", "is now really", "cannot be"). It may be inside a frame ("it is not true that ..."), which contains a
phrase too.
"""

from dataclasses import dataclass, replace

from negprobe.statements.lexicon import Scale

MASK = "[MASK]"

DETERMINERS = ("the", "this", "that", "my", "your", "his", "her", "our")
CONNECTIVES = ("and", "but", "while")


@dataclass(frozen=True)
class Phrase:
    """The words between a subject and its state.

    Attributes:
        text: The words, with `{be}` for "is" or "was".
        cue: The negation cue among them; None for an affirmative phrase.
    """

    text: str
    cue: str | None = None

    @property
    def modal(self) -> bool:
        """Whether the phrase has its own verb instead of `{be}`, and so has no past tense."""
        return "{be}" not in self.text


PLAIN = Phrase("{be}")
NEGATIONS = {
    phrase.cue: phrase
    for phrase in (
        Phrase("{be} not", "not"),
        Phrase("{be}n't", "n't"),
        Phrase("{be} never", "never"),
        Phrase("{be} no longer", "no longer"),
        Phrase("{be} hardly", "hardly"),
        Phrase("{be} barely", "barely"),
        Phrase("{be} scarcely", "scarcely"),
        Phrase("cannot be", "cannot"),
    )
    if phrase.cue
}
"""The negating phrases by the kind of their cue."""

CONTROLS = {
    "not": Phrase("{be} now"),
    "n't": Phrase("{be} now really"),
    "never": Phrase("{be} always"),
    "no longer": Phrase("{be} now really"),
    "hardly": Phrase("{be} really"),
    "barely": Phrase("{be} truly"),
    "scarcely": Phrase("{be} certainly"),
    "cannot": Phrase("will be"),
}
"""For each kind of cue, an affirmative phrase with the same number of tokens ("isn't" has three: isn ' t)."""

UNMARKED = {cue: Phrase("must be") if cue == "cannot" else PLAIN for cue in NEGATIONS}
"""For each kind of cue, the affirmative phrase that it negates."""

FRAME_CUES = ("not", "n't", "no longer", "hardly")
"""The cues that can negate a whole clause: "it is no longer true that ..."."""

INNER_CUES = ("not", "n't", "no longer", "hardly")
"""The cues for which a double negation is an affirmation; "it is not true that it is never open" is weaker than one."""

_FIRST = ("now", "still", "always", "certainly", "indeed", "clearly", "also", "just")
_SECOND = ("really", "truly", "actually", "quite")
_NEUTRAL = (*_FIRST, *_SECOND, "surely", "simply")

AFFIRMATIONS = (
    *(Phrase(f"{{be}} {adverb}") for adverb in _NEUTRAL),
    *(Phrase(f"{{be}} {first} {second}") for first in _FIRST for second in _SECOND),
    Phrase("must be"),
    Phrase("will be"),
)
"""Phrases that mean the same as "is", with one or two neutral words in the place of a cue."""

EMPHATIC_NEGATIONS = (
    *(Phrase(f"{{be}} {adverb} not", "not") for adverb in ("still", "certainly", "indeed", "clearly", "now")),
    *(Phrase(f"{{be}} {adverb} never", "never") for adverb in ("certainly", "indeed")),
    *(Phrase(f"{{be}} {adverb} no longer", "no longer") for adverb in ("now", "certainly")),
)
"""Negations with a neutral word before the cue, so that a neutral word does not imply an affirmation."""


@dataclass(frozen=True)
class Clause:
    """A clause that states, affirms or negates a state of a noun.

    Attributes:
        noun: The noun.
        scale: The scale of the state.
        state: The state that the clause names; `truth` is the state that it asserts.
        phrase: The words between noun and state.
        frame: The phrase in "it ... true that", or None for a clause without that frame.
        determiner: The word before the noun.
        past: "was" instead of "is".
    """

    noun: str
    scale: Scale
    state: str
    phrase: Phrase = PLAIN
    frame: Phrase | None = None
    determiner: str = "the"
    past: bool = False

    @property
    def subject(self) -> str:
        """Determiner and noun."""
        return f"{self.determiner} {self.noun}"

    @property
    def be(self) -> str:
        """The verb of the clause's tense."""
        return "was" if self.past else "is"

    @property
    def text(self) -> str:
        """The clause in lower case, without punctuation."""
        frame = f"it {self.frame.text.format(be=self.be)} true that " if self.frame else ""
        return f"{frame}{self.subject} {self.phrase.text.format(be=self.be)} {self.state}"

    @property
    def truth(self) -> str:
        """The state that the clause asserts: the named one after an even number of cues, otherwise its opposite."""
        cues = [phrase.cue for phrase in (self.phrase, self.frame) if phrase and phrase.cue]
        return self.state if len(cues) % 2 == 0 else self.scale.opposite(self.state)

    def stating(self, phrase: Phrase) -> "Clause":
        """The same clause with another phrase."""
        return replace(self, phrase=phrase)

    def framed(self, frame: Phrase) -> "Clause":
        """The same clause in a frame."""
        return replace(self, frame=frame)


def conclusion(*clauses: Clause, about: int = 0, connective: str = "and") -> str:
    """A statement with a conclusion in which [MASK] stands for the true state of one clause's noun.

    Args:
        clauses: One or more clauses, joined by `connective`.
        about: The index of the clause that the conclusion is about.
        connective: The word between clauses.

    Returns:
        For example "The door is not open and the window is dry. So the door is [MASK]."
    """
    premise = f" {connective} ".join(clause.text for clause in clauses)
    clause = clauses[about]
    return f"{_capitalised(premise)}. So {clause.subject} {clause.be} {MASK}."


def question(clause: Clause, state: str) -> str:
    """A statement and a yes/no question: "The door is not open. Is the door closed? [MASK]."."""
    return f"{_capitalised(clause.text)}. {_capitalised(clause.be)} {clause.subject} {state}? {MASK}."


def question_answer(clause: Clause, state: str) -> str:
    """The word that belongs at the [MASK] of `question`: "yes" or "no"."""
    return "yes" if state == clause.truth else "no"


def _capitalised(text: str) -> str:
    return text[0].upper() + text[1:]
