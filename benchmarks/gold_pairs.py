"""Accuracy of cues, alignment, affected words and controls on negation pairs labelled by hand (gold_pairs.jsonl).

    python benchmarks/gold_pairs.py                          # accuracies by split and by kind
    python benchmarks/gold_pairs.py --split dev --wrong      # and each wrong pair, found and expected
    python benchmarks/gold_pairs.py --model FOLDER           # with another tokenizer

The labels were written from the grammar of English, without reference to the rules that they test. Rules may be
improved on the split "dev" only; "held_out" has the same kinds of pairs with other sentences.

The labels of a pair:

- `cues`: the characters of each negation in the counterfactual that the original lacks. "n't" is a cue within "isn't"
  ("nt" within "dont"), "no longer" and "cannot" are one cue, "can not" contains "not", "no one", "no-one" and "noone"
  contain "no", "neither" and "nor" are two. Question tags, "No. 7", "no doubt", "not only", "nothing but", "none other
  than", "whether or not", "cannot (help) but", "not to mention", the answer "No", the formula NO, a quoted "not" and
  fixed phrases ("in no time") do not negate the statement, and are not labelled.
- `affected`: the first content word (verb, adjective or noun) of the phrase that each cue negates, in the
  counterfactual. Auxiliaries, forms of "be" as a copula, determiners ("a single" too), pronouns, prepositions and
  adverbs are skipped: "is not very safe" -> "safe", "Isn't the door open?" -> "open", "no milk" -> "milk", "Nobody in
  the room laughed" -> "laughed", "Not a single guest left" -> "guest", "without paying" -> "paying". "have" and "do" as
  main verbs count: "does not have a car" -> "have". The list is empty if the negated phrase is left out ("She is not,
  and he knows it."), and null if linguists may disagree ("None of the lights were on.").
- `links`: words that correspond but are written differently: `[original, counterfactual, "inflected" or "case"]`.
- `unmatched_original`, `unmatched_counterfactual`: words without a partner, such as the "does" of "does not like". Each
  entry stands for all occurrences of the word.
- `either`: words of both sentences with a partner that is open to dispute, such as "some" and "any"; not judged.
- `control`: whether neutral words in place of the cue can keep the sentence grammatical and affirmative. "yet" or "any"
  need a negation, and "Isn't the door open?" has no place for an adverb.
- `bad_controls`: ungrammatical sentences that must not be produced.

All other words correspond to the equally written word of the other sentence. The alignment of tokens is judged by
words: those that contain a cue, and those they replace ("now" in "now" -> "not"), are not judged. A pair is right in a
respect if nothing in it is wrong. "control" counts a control where none is possible, or a bad one; "has control" is the
share of pairs with a control among those where one is possible.
"""

import json
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from transformers import PreTrainedTokenizerBase

from negprobe import HookedEncoder, StatementPair
from negprobe.base.errors import NegprobeError
from negprobe.statements import TokenizedStatement, align, complete, tokenize

FILE = Path(__file__).with_suffix(".jsonl")
Span = tuple[int, int]

# Letters and digits, joined by anything typed as an apostrophe. The separator of two texts is not a word.
_WORD = re.compile(r"(?<![^\W_])(?!SEP\])[^\W_]+(?:['\u2019\u00b4`\u2032][^\W_]+)*")


class Split(StrEnum):
    """The part of the set to develop rules on, and the part to test them on."""

    DEV = "dev"
    HELD_OUT = "held_out"


@dataclass(frozen=True)
class GoldPair:
    """A pair and its labels; see the start of this file."""

    id: str
    split: Split
    kind: str
    original: str
    counterfactual: str
    cues: tuple[Span, ...]
    affected: tuple[Span, ...] | None
    links: tuple[tuple[str, str, str], ...]
    unmatched_original: tuple[str, ...]
    unmatched_counterfactual: tuple[str, ...]
    either: tuple[str, ...]
    control: bool
    bad_controls: tuple[str, ...]


@dataclass(frozen=True)
class Answer:
    """What is right in a pair, and a line for each thing that is not."""

    pair: GoldPair
    cues: bool
    alignment: bool
    affected: bool
    control: bool
    has_control: bool
    wrong: tuple[str, ...]

    @property
    def all_right(self) -> bool:
        """Whether nothing is wrong."""
        return self.cues and self.alignment and self.affected and self.control


def gold_pairs() -> list[GoldPair]:
    """The labelled pairs of both splits."""
    return [_gold_pair(json.loads(line)) for line in FILE.read_text(encoding="utf-8").splitlines()]


def words(text: str) -> list[Span]:
    """The characters of each word."""
    return [found.span() for found in _WORD.finditer(text)]


def expected_partners(pair: GoldPair, *, latest: bool = False) -> tuple[dict[Span, Span | None], set[Span]]:
    """The counterfactual word of each judged original word (None without one), and the unmatched counterfactual words.

    `latest` matches from the end of the sentences. Labels that are complete give the same partners either way.

    Raises:
        ValueError: if a counterfactual word has no partner and no label.
    """
    kin = {(original, counterfactual) for original, counterfactual, _ in pair.links}
    partners: dict[Span, Span | None] = {}
    unmatched = set()
    for span in words(pair.original):
        if pair.original[slice(*span)] in pair.unmatched_original:
            partners[span] = None
    for span in words(pair.counterfactual):
        if pair.counterfactual[slice(*span)] in pair.unmatched_counterfactual:
            unmatched.add(span)
    step = -1 if latest else 1
    candidates = iter([w for w in words(pair.original) if _is_open(pair.original, w, pair.either, partners)][::step])
    for span in words(pair.counterfactual)[::step]:
        word = pair.counterfactual[slice(*span)]
        if has_cue(pair, span) or not _is_open(pair.counterfactual, span, pair.either, unmatched):
            continue
        for candidate in candidates:
            written = pair.original[slice(*candidate)]
            if written == word or (written, word) in kin:
                partners[candidate] = span
                break
        else:
            raise ValueError(f"{pair.id}: {word!r} of the counterfactual has no partner and no label.")
    return partners, unmatched


def has_cue(pair: GoldPair, word: Span) -> bool:
    """Whether a word of the counterfactual contains an added cue."""
    return any(_overlap(word, cue) for cue in pair.cues)


def answer(pair: GoldPair, tokenizer: PreTrainedTokenizerBase) -> Answer:
    """What negprobe finds in a pair, compared with the labels."""
    given = StatementPair(pair.original, pair.counterfactual)
    try:
        completed = complete(given, tokenizer)
    except NegprobeError:
        completed = given
    text = pair.counterfactual
    misaligned = _misaligned(pair, tokenizer)
    has_control = completed.control is not None
    checks = {
        "cues": _differences("cue", text, completed.cue_spans, pair.cues),
        "alignment": misaligned,
        "affected": []
        if pair.affected is None
        else _differences("affected", text, completed.affected_spans, pair.affected),
        "control": [f"control: found {completed.control!r}"]
        if has_control and (not pair.control or completed.control in pair.bad_controls)
        else [],
    }
    return Answer(
        pair,
        **{name: not lines for name, lines in checks.items()},
        has_control=has_control,
        wrong=tuple(line for lines in checks.values() for line in lines),
    )


def _misaligned(pair: GoldPair, tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """A line for each judged word with other partners than expected."""
    original, counterfactual = tokenize(pair.original, tokenizer), tokenize(pair.counterfactual, tokenizer)
    try:
        aligned = align(original, counterfactual)
    except NegprobeError as error:
        return [f"alignment: {error}"]
    of_original, of_counterfactual = _word_of_token(original), _word_of_token(counterfactual)
    found = {
        (of_original[i], of_counterfactual[j])
        for i, j in zip(aligned.original, aligned.counterfactual, strict=True)
        if i in of_original and j in of_counterfactual and not has_cue(pair, of_counterfactual[j])
    }
    partners, unmatched = expected_partners(pair)
    expected = {(word, partner) for word, partner in partners.items() if partner}
    judged_original, judged_counterfactual = set(partners), unmatched | {partner for _, partner in expected}
    lines = []
    for (word, partner), problem in [
        *((match, "missing") for match in sorted(expected - found)),
        *((match, "not expected") for match in sorted(found - expected)),
    ]:
        if word in judged_original or partner in judged_counterfactual:
            lines.append(
                f"alignment: {pair.original[slice(*word)]} - {pair.counterfactual[slice(*partner)]} is {problem}"
            )
    return lines


def _word_of_token(statement: TokenizedStatement) -> dict[int, Span]:
    return {position: word for word in words(statement.text) for position in statement.positions(word, missing_ok=True)}


def _differences(name: str, text: str, found: Sequence[Span], expected: Sequence[Span]) -> list[str]:
    if set(found) == set(expected):
        return []
    shown = [", ".join(repr(text[slice(*span)]) for span in sorted(spans)) or "none" for spans in (found, expected)]
    return [f"{name}: found {shown[0]}, expected {shown[1]}"]


def _is_open(text: str, word: Span, either: Iterable[str], settled: Iterable[Span]) -> bool:
    return text[slice(*word)] not in either and word not in settled


def _overlap(first: Span, second: Span) -> bool:
    return first[0] < second[1] and second[0] < first[1]


def _gold_pair(entry: dict[str, Any]) -> GoldPair:
    return GoldPair(**{name: _tupled(value) for name, value in entry.items()} | {"split": Split(entry["split"])})


def _tupled(value: Any) -> Any:
    return tuple(map(_tupled, value)) if isinstance(value, list) else value


def _share(answers: Sequence[Answer], right: Callable[[Answer], bool]) -> str:
    count = sum(map(right, answers))
    return f"{count}/{len(answers)} {count / len(answers):4.0%}" if answers else "-"


def _row(answers: Sequence[Answer]) -> list[str]:
    return [
        _share(answers, lambda a: a.cues),
        _share(answers, lambda a: a.alignment),
        _share(answers, lambda a: a.affected),
        _share(answers, lambda a: a.control),
        _share([a for a in answers if a.pair.control], lambda a: a.has_control),
        _share(answers, lambda a: a.all_right),
    ]


def main(
    model: Annotated[str, typer.Option(help="The model with the tokenizer: a name or a folder.")] = "tiny-negation",
    split: Annotated[Split | None, typer.Option(help="One split only.")] = None,
    wrong: Annotated[bool, typer.Option("--wrong", help="List each wrong pair.")] = False,
) -> None:
    """Print the accuracies by split and by kind."""
    tokenizer = HookedEncoder.from_pretrained(model, device="cpu").tokenizer
    console = Console(width=150, highlight=False)
    for part in [split] if split else list(Split):
        answers = [answer(pair, tokenizer) for pair in gold_pairs() if pair.split == part]
        table = Table(title=f"{part}: right pairs, with the tokenizer of {model}")
        for column in ("kind", "cues", "alignment", "affected", "control", "has control", "all"):
            table.add_column(column, justify="left" if column == "kind" else "right")
        for kind in dict.fromkeys(a.pair.kind for a in answers):
            table.add_row(kind, *_row([a for a in answers if a.pair.kind == kind]))
        table.add_section()
        table.add_row("all pairs", *_row(answers))
        console.print(table)
        for a in answers:
            if wrong and not a.all_right:
                console.print(f"\n{a.pair.id}\n  {a.pair.original}\n  {a.pair.counterfactual}", markup=False)
                for line in a.wrong:
                    console.print(f"    {line}", markup=False)


if __name__ == "__main__":
    typer.run(main)
