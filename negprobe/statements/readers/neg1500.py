"""NEG-1500-SIMP as published (Shivagunde, Lialin and Rumshisky 2023, arXiv:2303.16445): alternating lines of text.

Each affirmative line is followed by its negation, which has another last word: "A cat is an animal," and "A cat is not
a machine,". The article before the last word depends on that word, so items leave it open.
"""

from negprobe.base.errors import StatementError
from negprobe.base.texts import quoted
from negprobe.statements.cues import find_cues
from negprobe.statements.readers.cloze import EITHER_ARTICLE, Cloze
from negprobe.statements.readers.records import TEXT_COLUMN, ParsedRows, Table, required_text
from negprobe.statements.tokens import MASK

_ARTICLES = ("a", "an")


def neg1500_clozes(table: Table) -> ParsedRows[Cloze]:
    """An item for each affirmative line followed by its negation; the category is the affirmative's last word.

    The items of a category form a cluster: they fill one template with words of the same kind and share the target.

    Unpaired and too short lines are left out. Items whose lines differ by more than one "not" (different subjects,
    typing errors), or have the same last word, are kept with a `problem`.

    Raises:
        StatementError: if fewer than half of the lines form such pairs.
    """
    items: list[tuple[int, Cloze]] = []
    dropped: list[tuple[int, str]] = []
    number = 0
    while number < len(table.records):
        line = table.records[number].line
        try:
            sentence, following = _line(table, number), _line_below(table, number)
            if find_cues(sentence):
                raise StatementError("a negated line without its affirmative above it.")
            if not find_cues(following):
                raise StatementError("an affirmative line without its negation below it.")
        except StatementError as error:
            dropped.append((line, str(error)))
            number += 1
            continue
        try:
            items.append((line, _cloze(sentence, following, number)))
        except StatementError as error:
            dropped.append((line, str(error)))
        number += 2
    # Other texts contain such pairs of lines by chance: of SICK's lines, more than a third form one.
    if table.records and 4 * len(items) < len(table.records):
        raise StatementError(
            f"{table.where} has an unknown format: plain text is read as NEG-1500, affirmatives and their negations in "
            f"turn, but only {2 * len(items)} of {len(table.records)} lines form such pairs. Put your own pairs into a "
            ".csv, .tsv or .jsonl file with the columns original and counterfactual."
        )
    return ParsedRows(tuple(items), tuple(dropped))


def _line(table: Table, number: int) -> str:
    record = table.records[number]
    if record.cells is None:
        raise StatementError(record.problem)
    return required_text(record.cells, TEXT_COLUMN)


def _line_below(table: Table, number: int) -> str:
    """The text of the next line; empty if there is none or it cannot be read."""
    try:
        return _line(table, number + 1) if number + 1 < len(table.records) else ""
    except StatementError:
        return ""


def _cloze(affirmative: str, negated: str, number: int) -> Cloze:
    (context, article, target), (negated_context, negated_article, foil) = map(_cut, (affirmative, negated))
    problem = ""
    if context != _without_not(negated_context):
        problem = f"{quoted(affirmative)} and {quoted(negated)} differ by more than one 'not' and the last word."
    elif target == foil:
        problem = f"the affirmative and its negation both end in {quoted(target)}."
    return Cloze(
        f"{' '.join(context)} {MASK}.",
        f"{' '.join(negated_context)} {MASK}.",
        target,
        foil,
        (article, negated_article),
        target,
        (number, number + 1),
        problem,
        cluster=target,
    )


def _cut(line: str) -> tuple[list[str], str, str]:
    """The words before the last word, with an article at their end left open; that article; and the last word."""
    words = line.rstrip(" ,.").split()
    if len(words) < 3:
        raise StatementError(f"{quoted(line)} is too short; a statement needs at least three words.")
    article = words[-2] if words[-2] in _ARTICLES else ""
    return [*words[:-2], EITHER_ARTICLE if article else words[-2]], article, words[-1]


def _without_not(words: list[str]) -> list[str] | None:
    """The words without their "not"; None unless there is exactly one."""
    if words.count("not") != 1:
        return None
    at = words.index("not")
    return [*words[:at], *words[at + 1 :]]
