"""Labelled premises and hypotheses (natural language inference): ScoNe and MoNLI, recognised by their columns.

ScoNe (She et al. 2023, ACL) has six files of contrast sets, one per condition. Each row has an item with one negation
that is in scope (`sentence1`, `sentence2`, `gold_label`), and the same item edited for the condition of the file
(`..._edited`). MoNLI (Geiger, Richardson and Potts 2020, BlackboxNLP) has a file of negated items (nmonli.jsonl) and
one of affirmative items (pmonli.jsonl).
"""

import re
from dataclasses import dataclass
from pathlib import Path

from negprobe.base.errors import StatementError
from negprobe.base.texts import quoted
from negprobe.statements.cues import Cue, find_cues
from negprobe.statements.pair import StatementPair
from negprobe.statements.readers.records import ParsedRows, Row, Table, parse_rows, required_text, stripped_text
from negprobe.statements.tokens import SEPARATOR

SCONE_COLUMNS = frozenset({"sentence1", "sentence2", "sentence1_lex", "sentence2_lex"})
MONLI_COLUMNS = frozenset({"sentence1", "sentence2", "gold_label", "depth"})

# Whether the hypothesis follows from the premise. A negation in scope changes one label into the other.
_OPPOSITE = {"entailment": "neutral", "neutral": "entailment"}


@dataclass(frozen=True)
class Inference:
    """A premise, a hypothesis, and the label of the two.

    Attributes:
        premise: The text that is assumed to be true.
        hypothesis: The text that may follow from it; empty if only the premise is labelled.
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
    """ "ScoNe", or "ScoNe train" or "ScoNe test" for a file in a folder "train" or "test", as published."""
    folder = Path(table.where).parent.name
    return f"ScoNe {folder}" if folder in ("train", "test") else "ScoNe"


def scone_inferences(table: Table) -> ParsedRows[Inference]:
    """The items of the file's condition: the edited ones, or those of one_scoped.csv, which has no others.

    Rows whose premise and hypothesis differ by more than the two compared words are left out. The published files
    contain such rows because words were also replaced inside other words ("that" became "tsunhat" for "hat").
    """
    return parse_rows(table, lambda row, _: _scone_item(row))


def scone_pairs(table: Table) -> ParsedRows[StatementPair]:
    """Pairs of the affirmative and the negated item in each row of no_negation.csv; their labels are target and foil.

    The category is "minimal" if only "not" was inserted, in premise and hypothesis, and "reworded" if other words
    differ too ("likes" and "did not like", "shakily" and "confidently not").
    """
    return parse_rows(table, lambda row, _: _scone_pair(row, scone_source(table)))


def monli_inferences(table: Table) -> ParsedRows[Inference]:
    """One item per row."""
    return parse_rows(table, lambda row, _: _inference(row))


def monli_pairs(table: Table) -> ParsedRows[StatementPair]:
    """Pairs of each negated item and its affirmative, made by removing "not" from premise and hypothesis.

    The label depends on which of the two compared words is more general. Negation reverses that relation (upward and
    downward monotonicity), so the affirmative's label, which is the target, is the opposite one.
    """
    return parse_rows(table, lambda row, _: _monli_pair(row))


def _scone_item(row: Row) -> Inference:
    item = _inference(row, "_edited") if "sentence1_edited" in row else _inference(row)
    words = required_text(row, "sentence1_lex"), required_text(row, "sentence2_lex")
    if _normalized(_replaced(item.premise, *words)) != _normalized(_replaced(item.hypothesis, words[1])):
        raise StatementError(
            f"{quoted(item.premise)} and {quoted(item.hypothesis)} differ by more than "
            f"{quoted(words[0])} and {quoted(words[1])}, so another word in them was changed by mistake."
        )
    return item


def _scone_pair(row: Row, source: str) -> StatementPair:
    if "sentence1_edited" not in row:
        raise StatementError("ScoNe's affirmatives are in no_negation.csv, and only that file gives pairs.")
    if find_cues(_inference(row, "_edited").text):
        raise StatementError("ScoNe's items of this condition have a negation; only no_negation.csv gives pairs.")
    affirmative = _scone_item(row)
    negated = _inference(row)
    if negated.label != _OPPOSITE[affirmative.label]:
        raise StatementError(f"the negation does not change the label, {negated.label!r}.")
    minimal = _without(negated.text, find_cues(negated.text)).lower() == affirmative.text.lower()
    return _pair(affirmative, negated, "minimal" if minimal else "reworded", source, cluster=_frame(row))


def _monli_pair(row: Row) -> StatementPair:
    negated = _inference(row)
    cues = [find_cues(text) for text in (negated.premise, negated.hypothesis)]
    if not any(cues):
        raise StatementError("The item has no negation to remove.")
    if [[cue.kind for cue in found] for found in cues] != [["not"], ["not"]]:
        raise StatementError(f"{quoted(negated.text)} does not have exactly one 'not' in premise and hypothesis.")
    premise, hypothesis = (
        _without(text, found) for text, found in zip((negated.premise, negated.hypothesis), cues, strict=True)
    )
    affirmative = Inference(premise, hypothesis, _OPPOSITE[negated.label])
    return _pair(affirmative, negated, "minimal", "MoNLI", cluster=_frame(row))


def _inference(row: Row, suffix: str = "") -> Inference:
    gold = required_text(row, f"gold_label{suffix}")
    if gold not in _OPPOSITE:
        raise StatementError(f"The label {quoted(gold)} is not one of {', '.join(_OPPOSITE)}.")
    return Inference(required_text(row, f"sentence1{suffix}"), required_text(row, f"sentence2{suffix}"), gold)


def _pair(affirmative: Inference, negated: Inference, category: str, source: str, *, cluster: str) -> StatementPair:
    return StatementPair(
        affirmative.text,
        negated.text,
        affirmative.label,
        negated.label,
        category=category,
        source=source,
        cluster=cluster,
    )


def _frame(row: Row) -> str:
    """The sentence that the items were made from, with "_" for the compared word; it is shared by many items.

    The few premises that do not contain their word ("anything" for "objects") have it in the hypothesis.
    """
    for sentence in ("sentence1", "sentence2"):
        text, word = required_text(row, sentence).lower(), stripped_text(row, f"{sentence}_lex")
        frame = _replaced(text, word, "_") if word else text
        if frame != text:
            return _normalized(frame)
    return _normalized(required_text(row, "sentence1").lower())


def _without(text: str, cues: tuple[Cue, ...]) -> str:
    """The text without its cues and the spaces before them."""
    kept, at = "", 0
    for cue in cues:
        kept += text[at : cue.span[0]].rstrip()
        at = cue.span[1]
    return (kept + text[at:]).lstrip()


def _replaced(text: str, old: str, new: str | None = None) -> str:
    """The text in lower case, with the whole word `old` replaced by `new`."""
    return re.sub(rf"(?<!\w){re.escape(old.lower())}(?!\w)", lambda _: (new or old).lower(), text.lower())


def _normalized(text: str) -> str:
    """The text with "a" for every "an" and without a full stop at its end."""
    return re.sub(r"\ban\b", "a", text).rstrip(".")
