"""NEG-1500-SIMP as it was published (Shivagunde, Lialin and Rumshisky 2023, arXiv:2303.16445): lines of text in turn.

"A cat is an animal," and "A cat is not a machine,": an affirmative and its negation, each with its own last word. The
article before the last word goes with that word, so it is left open here.
"""

from negprobe.base.errors import StatementError
from negprobe.base.texts import quoted
from negprobe.statements.cues import find_cues
from negprobe.statements.readers.cloze import EITHER_ARTICLE, Cloze
from negprobe.statements.readers.records import TEXT_COLUMN, Read, Table, needed
from negprobe.statements.tokens import MASK

_ARTICLES = ("a", "an")


def neg1500_clozes(table: Table) -> Read[Cloze]:
    """An item for each affirmative line and the negated one below it; the category is the affirmative's last word.

    Left out are a line without its partner and lines that are too short. Items whose lines differ by more than one
    "not" (other subjects, typing errors), or whose last word is the same, say so in their `problem`.

    Raises:
        StatementError: if fewer than half of the lines form an affirmative and its negation.
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
    return Read(tuple(items), tuple(dropped))


def _line(table: Table, number: int) -> str:
    record = table.records[number]
    if record.cells is None:
        raise StatementError(record.problem)
    return needed(record.cells, TEXT_COLUMN)


def _line_below(table: Table, number: int) -> str:
    """The next line's text; empty where there is none, or none that can be read."""
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
    )


def _cut(line: str) -> tuple[list[str], str, str]:
    """The words before the last one, with an article there left open; that article; and the last word."""
    words = line.rstrip(" ,.").split()
    if len(words) < 3:
        raise StatementError(f"{quoted(line)} is too short for a statement with a last word to ask for.")
    article = words[-2] if words[-2] in _ARTICLES else ""
    return [*words[:-2], EITHER_ARTICLE if article else words[-2]], article, words[-1]


def _without_not(words: list[str]) -> list[str] | None:
    """The words without their one "not"; None if there are more, or none."""
    if words.count("not") != 1:
        return None
    at = words.index("not")
    return [*words[:at], *words[at + 1 :]]
