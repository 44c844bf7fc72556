"""Premises and hypotheses with their label: ScoNe and MoNLI, known by their columns.

ScoNe (She et al. 2023, ACL) has six files of contrast sets, one a condition. In each, row by row, stands the item with
one negation that is in scope (`sentence1`, `sentence2`, `gold_label`) and the same edited to the file's condition
(`..._edited`). MoNLI (Geiger, Richardson and Potts 2020, BlackboxNLP) has a file of negated items (nmonli.jsonl) and
one of affirmative ones (pmonli.jsonl).
"""

import re
from dataclasses import dataclass
from pathlib import Path

from negprobe.base.errors import StatementError
from negprobe.base.texts import quoted
from negprobe.statements.cues import Cue, find_cues
from negprobe.statements.pair import StatementPair
from negprobe.statements.readers.records import Read, Row, Table, each, needed
from negprobe.statements.tokens import SEPARATOR

SCONE_COLUMNS = frozenset({"sentence1", "sentence2", "sentence1_lex", "sentence2_lex"})
MONLI_COLUMNS = frozenset({"sentence1", "sentence2", "gold_label", "depth"})

# Does the hypothesis follow from the premise, or not? A negation in scope turns one into the other.
_TURNED = {"entailment": "neutral", "neutral": "entailment"}


@dataclass(frozen=True)
class Inference:
    """A premise, a hypothesis, and whether it follows.

    Attributes:
        premise: The text that is taken to be true.
        hypothesis: The text that may follow from it; empty if the premise alone is labelled.
        label: "entailment" or "neutral", or another label of a classifier.
    """

    premise: str
    hypothesis: str
    label: str

    @property
    def text(self) -> str:
        """Both as one statement."""
        return f"{self.premise} {SEPARATOR} {self.hypothesis}" if self.hypothesis else self.premise


def scone_source(table: Table) -> str:
    """ "ScoNe", with "train" or "test" behind it if the file stands in the folder of that name, as published."""
    folder = Path(table.where).parent.name
    return f"ScoNe {folder}" if folder in ("train", "test") else "ScoNe"


def scone_inferences(table: Table) -> Read[Inference]:
    """The items of a file's own condition: the edited ones, or in one_scoped.csv the only ones.

    Left out are rows whose premise and hypothesis differ by more than the words that are compared: where the published
    files replaced one word by another, they did so inside other words as well ("that" became "tsunhat" for "hat").
    """
    return each(table, lambda row, _: _scone_own(row))


def scone_pairs(table: Table) -> Read[StatementPair]:
    """The affirmative and the negated item of no_negation.csv, whose labels are the target and the foil.

    The category is "minimal" where "not" is all that was put in, in premise and hypothesis, and "reworded" where more
    had to change ("likes", "did not like") or did ("shakily", "confidently not").
    """
    return each(table, lambda row, _: _scone_pair(row, scone_source(table)))


def monli_inferences(table: Table) -> Read[Inference]:
    """The items of a file, an item a row."""
    return each(table, lambda row, _: _inference(row))


def monli_pairs(table: Table) -> Read[StatementPair]:
    """Each negated item, and as its affirmative the same without "not" in premise and hypothesis.

    Which of the two words is the wider one decides the label, and a negation turns it round (upward and downward
    monotonicity), so the affirmative's label, the target, is the other one.
    """
    return each(table, lambda row, _: _monli_pair(row))


def _scone_own(row: Row) -> Inference:
    edited = _inference(row, "_edited") if "sentence1_edited" in row else _inference(row)
    words = needed(row, "sentence1_lex"), needed(row, "sentence2_lex")
    if _with_article_a(_replaced(edited.premise, *words)) != _with_article_a(_replaced(edited.hypothesis, words[1])):
        raise StatementError(
            f"{quoted(edited.premise)} and {quoted(edited.hypothesis)} differ by more than "
            f"{quoted(words[0])} and {quoted(words[1])}, so a word in them is broken."
        )
    return edited


def _scone_pair(row: Row, source: str) -> StatementPair:
    if "sentence1_edited" not in row:
        raise StatementError("ScoNe's affirmatives stand in no_negation.csv, and pairs are made from that file alone.")
    if find_cues(_inference(row, "_edited").text):
        raise StatementError("ScoNe's sentences of this condition have a negation; only no_negation.csv gives pairs.")
    affirmative = _scone_own(row)
    negated = _inference(row)
    if negated.label != _TURNED[affirmative.label]:
        raise StatementError(f"the label stays {negated.label!r} under the negation.")
    minimal = _without(negated.text, find_cues(negated.text)).lower() == affirmative.text.lower()
    return _pair(affirmative, negated, "minimal" if minimal else "reworded", source)


def _monli_pair(row: Row) -> StatementPair:
    negated = _inference(row)
    cues = [find_cues(text) for text in (negated.premise, negated.hypothesis)]
    if not any(cues):
        raise StatementError("The item has no negation to take out.")
    if [[cue.kind for cue in found] for found in cues] != [["not"], ["not"]]:
        raise StatementError(f"{quoted(negated.text)} has not just one 'not' in premise and hypothesis.")
    premise, hypothesis = (
        _without(text, found) for text, found in zip((negated.premise, negated.hypothesis), cues, strict=True)
    )
    return _pair(Inference(premise, hypothesis, _TURNED[negated.label]), negated, "minimal", "MoNLI")


def _inference(row: Row, suffix: str = "") -> Inference:
    gold = needed(row, f"gold_label{suffix}")
    if gold not in _TURNED:
        raise StatementError(f"The label {quoted(gold)} is not one of {', '.join(_TURNED)}.")
    return Inference(needed(row, f"sentence1{suffix}"), needed(row, f"sentence2{suffix}"), gold)


def _pair(affirmative: Inference, negated: Inference, category: str, source: str) -> StatementPair:
    return StatementPair(
        affirmative.text, negated.text, affirmative.label, negated.label, category=category, source=source
    )


def _without(text: str, cues: tuple[Cue, ...]) -> str:
    """The text without its cues and the space before each."""
    kept, at = "", 0
    for cue in cues:
        kept += text[at : cue.span[0]].rstrip()
        at = cue.span[1]
    return (kept + text[at:]).lstrip()


def _replaced(text: str, old: str, new: str | None = None) -> str:
    """The text in small letters, with the whole word `old` replaced."""
    small = old.lower()
    return re.sub(rf"(?<!\w){re.escape(small)}(?!\w)", lambda _: (new or old).lower(), text.lower())


def _with_article_a(text: str) -> str:
    """The text with one article for every noun, and no mark at its end."""
    return re.sub(r"\ban\b", "a", text).rstrip(".")
