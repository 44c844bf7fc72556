"""Scores on statements with a gap, affirmative and negated (Ettinger 2020; Shivagunde et al. 2023)."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from negprobe.base.errors import InputError
from negprobe.behaviour.masked import (
    read_gaps,
    shortened,
    some,
    tokenizer_of_masked_lm,
    unknown_to,
    unreadable,
)
from negprobe.behaviour.scores import Share, Shares, Words, preference, sensitivity, top_k_accuracy
from negprobe.behaviour.sets import ScoredSet
from negprobe.models import HookedEncoder
from negprobe.statements import TokenizedStatement, tokenize
from negprobe.statements.readers.cloze import Cloze

TOP = (1, 5)
"""Among how many of the most probable words a target is looked for."""

# More than the scores need, because punctuation may be removed.
_N_READ = 2 * max(TOP)

TRUE_OVER_FALSE = "true over false"
"""How the scores begin that compare the probabilities of two words."""


@dataclass(frozen=True)
class _Answered:
    """An item with what was said to it.

    Attributes:
        cloze: The item.
        affirmative: The most probable words for the affirmative.
        negated: Those for the negation.
        in_affirmative: Log-probabilities of the target and of the foil in the affirmative; None if not known.
        in_negated: The same in the negation.
    """

    cloze: Cloze
    affirmative: Words
    negated: Words
    in_affirmative: tuple[float, float] | None = None
    in_negated: tuple[float, float] | None = None


def score_model_on_clozes(part: ScoredSet, model: HookedEncoder) -> tuple[Shares, list[str]]:
    """Ask a masked LM for the words in the gaps.

    - "top-1", "top-5": the share of affirmatives whose target is among the most probable words, with the target's
      article before the gap (Ettinger 2020, word prediction accuracy: NEG-136 is scored on affirmatives alone).
    - "sensitivity": the share of pairs whose most probable word changes under the negation, with the target's article
      in the affirmative and the foil's in the negation, as the lines were published (Shivagunde et al. 2023). Where
      the articles differ they alone may change the word: "sensitivity, one article" leaves those pairs out, and
      those that differ in more than the negation (`Cloze.problem`).
    - "true over false, affirmative" and "..., negated": the share in which the word that makes the statement true is
      more probable than the one that makes it false, each behind its own article (Ettinger 2020, sensitivity of
      completions). Both have to be single tokens, and the statements have to differ in the negation alone.

    NEG-136-NAT is also scored by how natural it is to say its negations.

    Returns:
        The shares by condition and score, and what was left out or weakens them.

    Raises:
        InputError: without a masked-LM head or a tokenizer.
    """
    clozes, notes = _readable(_clozes(part), model)
    asked: dict[str, set[str]] = {}
    for cloze in clozes:
        for text in _statements(cloze):
            asked.setdefault(text, set()).update((cloze.target, cloze.foil))
    found = read_gaps(model, list(asked), [sorted(words) for words in asked.values()], k=_N_READ)
    gaps = dict(zip(asked, found, strict=True))
    answered = []
    for cloze in clozes:
        target_in_affirmative, foil_in_affirmative, target_in_negated, foil_in_negated = (
            gaps[text] for text in _statements(cloze)
        )
        scores = [
            (target.log_probabilities[cloze.target], foil.log_probabilities[cloze.foil])
            if not cloze.problem and cloze.target in target.log_probabilities and cloze.foil in foil.log_probabilities
            else None
            for target, foil in (
                (target_in_affirmative, foil_in_affirmative),
                (target_in_negated, foil_in_negated),
            )
        ]
        answered.append(_Answered(cloze, target_in_affirmative.words, foil_in_negated.words, *scores))
    comparable = [one for one in answered if not one.cloze.problem]
    split = {
        word
        for one in comparable
        for text in _statements(one.cloze)
        for word in (one.cloze.target, one.cloze.foil)
        if word not in gaps[text].log_probabilities
    }
    n_split = sum(one.in_affirmative is None or one.in_negated is None for one in comparable)
    if n_split:
        notes.append(
            f"{n_split} of {len(answered)} items are left out of true over false, for a word that is not one token of "
            f"the model: {some(sorted(split))}"
        )
    return _shares(part, answered), notes + _without_words(answered) + _problems(clozes)


def score_predictions_on_clozes(part: ScoredSet, predictions: Sequence[Words]) -> tuple[Shares, list[str]]:
    """Score the words that a model predicted earlier, as `score_model_on_clozes`, true over false apart.

    As in the script of Shivagunde et al. 2023, an empty word or a punctuation mark counts as a wrong prediction; but if
    every list begins with one, as RoBERTa's and GPT-2's do, it is skipped. A note has the scores under the other rule.
    Their script is case-sensitive; this function is not.

    Args:
        part: The data set.
        predictions: The most probable words for each of its statements, affirmatives and negations in turn.

    Raises:
        InputError: if there are more or fewer predictions than statements.
    """
    if len(predictions) != part.n_statements:
        raise InputError(
            f"There are {len(predictions)} predictions, but {part.name} has {part.n_statements} statements, "
            "affirmatives and negations in turn; give a list of words for each."
        )
    clozes = _clozes(part)
    passed_over = all(_is_no_word(words) for words in predictions)
    lists = [words[1:] if passed_over else words for words in predictions]
    answered = [_Answered(cloze, lists[cloze.places[0]], lists[cloze.places[1]]) for cloze in clozes]
    shortest = min(len(words) for one in answered for words in (one.affirmative, one.negated))
    notes = ["true over false is not scored, for predicted words come without probabilities"]
    if passed_over:
        as_given = [_Answered(cloze, predictions[cloze.places[0]], predictions[cloze.places[1]]) for cloze in clozes]
        notes.append(
            "every list begins with an empty word or a punctuation mark, which is skipped, as the authors of NEG-1500 "
            f"do for RoBERTa and GPT-2; counted as a prediction, {_in_short(as_given)}"
        )
    if shortest < max(TOP):
        notes.append(
            f"some predictions have only {shortest} word{'s' * (shortest != 1)}, so top-{max(TOP)} may be too low"
        )
    shares = _shares(part, answered)
    scored = {key: share for key, share in shares.items() if not key[1].startswith(TRUE_OVER_FALSE)}
    return scored, notes + _without_words(answered) + _problems(clozes)


def _is_no_word(words: Words) -> bool:
    """Whether a list begins with an empty word or a punctuation mark."""
    return len(words) > 0 and not any(mark.isalnum() for mark in words[0])


def _without_words(answered: Sequence[_Answered]) -> list[str]:
    """A note with the scores without empty words and punctuation, if any list begins with one."""
    n_lists = sum(_is_no_word(words) for one in answered for words in (one.affirmative, one.negated))
    if not n_lists:
        return []
    bare = [
        replace(one, affirmative=_only_words(one.affirmative), negated=_only_words(one.negated)) for one in answered
    ]
    return [
        f"{n_lists} of {2 * len(answered)} predictions begin with an empty word or a punctuation mark, which counts as "
        f"a wrong word, as in the script of NEG-1500's authors ({_in_short(answered)}); left out of all lists, "
        f"{_in_short(bare)}"
    ]


def _only_words(words: Words) -> Words:
    return [word for word in words if any(mark.isalnum() for mark in word)]


def _in_short(answered: Sequence[_Answered]) -> str:
    shares = _shares_of_group(answered)
    return ", ".join(f"{name} is {shares[name].share:.3f}" for name in ("top-1", "top-5", "sensitivity"))


def _shares(part: ScoredSet, answered: Sequence[_Answered]) -> Shares:
    groups = {part.condition: answered}
    if part.by_category:
        for category in dict.fromkeys(one.cloze.category for one in answered):
            groups[category] = [one for one in answered if one.cloze.category == category]
    return {
        (condition, score): share
        for condition, group in groups.items()
        for score, share in _shares_of_group(group).items()
    }


def _shares_of_group(answered: Sequence[_Answered]) -> dict[str, Share]:
    targets = [one.cloze.target for one in answered]
    affirmative, negated = [one.affirmative for one in answered], [one.negated for one in answered]
    shares = {f"top-{k}": top_k_accuracy(affirmative, targets, k) for k in TOP}
    shares["sensitivity"] = sensitivity(affirmative, negated)
    alike = [one for one in answered if one.cloze.one_article and not one.cloze.problem]
    if len(alike) < len(answered):
        shares["sensitivity, one article"] = sensitivity(
            [one.affirmative for one in alike], [one.negated for one in alike]
        )
    in_affirmative = [one.in_affirmative for one in answered if one.in_affirmative is not None]
    in_negated = [one.in_negated for one in answered if one.in_negated is not None]
    shares[f"{TRUE_OVER_FALSE}, affirmative"] = preference(*_columns(in_affirmative))
    # Under the negation the foil is the word that makes the statement true.
    shares[f"{TRUE_OVER_FALSE}, negated"] = preference(*reversed(_columns(in_negated)))
    return shares


def _columns(scores: Sequence[tuple[float, float]]) -> tuple[list[float], list[float]]:
    return [target for target, _ in scores], [foil for _, foil in scores]


def _readable(clozes: Sequence[Cloze], model: HookedEncoder) -> tuple[list[Cloze], list[str]]:
    """The items whose statements the model can read, and what was left out or holds words it does not know."""
    tokenizer = tokenizer_of_masked_lm(model)
    kept: list[Cloze] = []
    read: list[list[TokenizedStatement]] = []
    notes = []
    for cloze in clozes:
        statements = [tokenize(text, tokenizer) for text in _statements(cloze)]
        reason = next((reason for reason in (unreadable(one, model) for one in statements) if reason), "")
        if reason:
            notes.append(f"left out {shortened(cloze.affirmative)!r}: a statement {reason}")
            continue
        kept.append(cloze)
        read.append(statements)
    return kept, notes + unknown_to(model, read, "items")


def _problems(clozes: Sequence[Cloze]) -> list[str]:
    """How many items count for fewer scores, and the first one's reason; nothing if there are none."""
    problems = [cloze.problem for cloze in clozes if cloze.problem]
    if not problems:
        return []
    return [
        f"{len(problems)} of {len(clozes)} items, whose statements differ by more than a 'not', count for "
        f"{', '.join(f'top-{k}' for k in TOP)} and sensitivity alone; the first: {problems[0]}"
    ]


def _statements(cloze: Cloze) -> tuple[str, str, str, str]:
    """The affirmative and the negation, each with the target's and with the foil's article."""
    return (
        cloze.for_target(cloze.affirmative),
        cloze.for_foil(cloze.affirmative),
        cloze.for_target(cloze.negated),
        cloze.for_foil(cloze.negated),
    )


def _clozes(part: ScoredSet) -> list[Cloze]:
    return [item for item in part.items if isinstance(item, Cloze)]
