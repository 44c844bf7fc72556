"""Scores on statements with a gap, affirmative and negated (Ettinger 2020; Shivagunde et al. 2023)."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from negprobe.base.errors import InputError
from negprobe.behaviour.masked import (
    first_words,
    read_gaps,
    shortened,
    tokenizer_of_masked_lm,
    unknown_word_notes,
    unreadable,
)
from negprobe.behaviour.scores import Share, Shares, Words, preference, sensitivity, top_k_accuracy
from negprobe.behaviour.sets import ScoredSet
from negprobe.models import HookedEncoder
from negprobe.statements import TokenizedStatement, tokenize
from negprobe.statements.readers.cloze import Cloze

TOP = (1, 5)
"""The values of k for top-k accuracy."""

# Read more words than the scores need, because punctuation may be removed.
_N_WORDS = 2 * max(TOP)

TRUE_OVER_FALSE = "true over false"
"""The prefix of the scores that compare the probabilities of target and foil."""


@dataclass(frozen=True)
class _AnsweredCloze:
    """An item and a model's answers.

    Attributes:
        cloze: The item.
        affirmative: The most probable words in the affirmative.
        negated: The most probable words in the negation.
        in_affirmative: Log-probabilities of target and foil in the affirmative; None if unknown.
        in_negated: Log-probabilities of target and foil in the negation; None if unknown.
    """

    cloze: Cloze
    affirmative: Words
    negated: Words
    in_affirmative: tuple[float, float] | None = None
    in_negated: tuple[float, float] | None = None


def score_model_on_clozes(part: ScoredSet, model: HookedEncoder) -> tuple[Shares, list[str]]:
    """The scores of the words that a masked LM predicts in the gaps, and notes.

    - "top-1", "top-5": the share of affirmatives in which the target is among the most probable words after its own
      article (Ettinger 2020, word prediction accuracy: NEG-136 is scored only on affirmatives).
    - "sensitivity": the share of pairs with different most probable words in affirmative and negation. The affirmative
      has the target's article and the negation the foil's, as published (Shivagunde et al. 2023). A different article
      alone can change the predicted word, so "sensitivity, one article" leaves out pairs with different articles, and
      pairs that differ by more than the negation (`Cloze.problem`).
    - "true over false, affirmative" and "..., negated": the share of statements in which the word that makes the
      statement true is more probable than the word that makes it false, each after its own article (Ettinger 2020,
      completion sensitivity). Both words must be single tokens, and the statements may differ only by the negation.

    For NEG-136-NAT, items with natural and less natural negations are also scored separately.

    Returns:
        The shares by condition and score, and notes on items left out and on limitations of the scores.

    Raises:
        InputError: if the model has no masked-LM head or no tokenizer.
    """
    clozes, notes = _readable(_clozes(part), model)
    words_of: dict[str, set[str]] = {}
    for cloze in clozes:
        for text in _statements(cloze):
            words_of.setdefault(text, set()).update((cloze.target, cloze.foil))
    found = read_gaps(model, list(words_of), [sorted(words) for words in words_of.values()], k=_N_WORDS)
    gaps = dict(zip(words_of, found, strict=True))
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
        answered.append(_AnsweredCloze(cloze, target_in_affirmative.words, foil_in_negated.words, *scores))
    comparable = [item for item in answered if not item.cloze.problem]
    split = {
        word
        for item in comparable
        for text in _statements(item.cloze)
        for word in (item.cloze.target, item.cloze.foil)
        if word not in gaps[text].log_probabilities
    }
    n_split = sum(item.in_affirmative is None or item.in_negated is None for item in comparable)
    if n_split:
        notes.append(
            f"{n_split} of {len(answered)} items are not scored for true over false, because these words are not "
            f"single tokens of the model: {first_words(sorted(split))}"
        )
    return _shares(part, answered), notes + _nonword_notes(answered) + _problem_notes(clozes)


def score_predictions_on_clozes(part: ScoredSet, predictions: Sequence[Words]) -> tuple[Shares, list[str]]:
    """The scores of `score_model_on_clozes`, except "true over false", for words that a model predicted earlier.

    As in the script of Shivagunde et al. 2023, an empty word or a punctuation mark counts as a wrong prediction. If
    every list begins with one, as for RoBERTa and GPT-2, it is skipped. A note gives the scores without this rule.
    Their script is case-sensitive; this function is not.

    Args:
        part: The data set.
        predictions: The most probable words for each statement, alternating between affirmatives and negations.

    Returns:
        The shares by condition and score, and notes on limitations of the scores.

    Raises:
        InputError: if the number of predictions is not the number of statements.
    """
    if len(predictions) != part.n_statements:
        raise InputError(
            f"There are {len(predictions)} predictions, but {part.name} has {part.n_statements} statements "
            "(affirmatives and negations alternate); give one list of words per statement."
        )
    clozes = _clozes(part)
    skip_first = all(_starts_with_nonword(words) for words in predictions)
    lists = [words[1:] if skip_first else words for words in predictions]
    answered = [_answered_cloze(cloze, lists) for cloze in clozes]
    shortest = min(len(words) for item in answered for words in (item.affirmative, item.negated))
    notes = ["true over false is not scored, because the predicted words have no probabilities"]
    if skip_first:
        unchanged = [_answered_cloze(cloze, predictions) for cloze in clozes]
        notes.append(
            "every list begins with an empty word or a punctuation mark, which is skipped, as the authors of NEG-1500 "
            f"do for RoBERTa and GPT-2; if it counts as a prediction, {_summary(unchanged)}"
        )
    if shortest < max(TOP):
        notes.append(
            f"some predictions have only {shortest} word{'s' * (shortest != 1)}, so top-{max(TOP)} may be too low"
        )
    shares = _shares(part, answered)
    scored = {key: share for key, share in shares.items() if not key[1].startswith(TRUE_OVER_FALSE)}
    return scored, notes + _nonword_notes(answered) + _problem_notes(clozes)


def _answered_cloze(cloze: Cloze, predictions: Sequence[Words]) -> _AnsweredCloze:
    affirmative, negated = cloze.statement_indices
    return _AnsweredCloze(cloze, predictions[affirmative], predictions[negated])


def _starts_with_nonword(words: Words) -> bool:
    """Whether a list begins with an empty word or a punctuation mark."""
    return len(words) > 0 and not any(mark.isalnum() for mark in words[0])


def _nonword_notes(answered: Sequence[_AnsweredCloze]) -> list[str]:
    """A note with the scores that ignore empty words and punctuation, if any list begins with one."""
    n_lists = sum(_starts_with_nonword(words) for item in answered for words in (item.affirmative, item.negated))
    if not n_lists:
        return []
    only_words = [
        replace(item, affirmative=_only_words(item.affirmative), negated=_only_words(item.negated)) for item in answered
    ]
    return [
        f"{n_lists} of {2 * len(answered)} predictions begin with an empty word or a punctuation mark, which counts as "
        f"a wrong word, as in the script of NEG-1500's authors ({_summary(answered)}); without all of these, "
        f"{_summary(only_words)}"
    ]


def _only_words(words: Words) -> Words:
    return [word for word in words if any(mark.isalnum() for mark in word)]


def _summary(answered: Sequence[_AnsweredCloze]) -> str:
    shares = _shares_of_group(answered)
    return ", ".join(f"{name} is {shares[name].share:.3f}" for name in ("top-1", "top-5", "sensitivity"))


def _shares(part: ScoredSet, answered: Sequence[_AnsweredCloze]) -> Shares:
    groups = {part.condition: answered}
    if part.by_category:
        for category in dict.fromkeys(item.cloze.category for item in answered):
            groups[category] = [item for item in answered if item.cloze.category == category]
    return {
        (condition, score): share
        for condition, group in groups.items()
        for score, share in _shares_of_group(group).items()
    }


def _shares_of_group(answered: Sequence[_AnsweredCloze]) -> dict[str, Share]:
    targets = [item.cloze.target for item in answered]
    affirmative, negated = [item.affirmative for item in answered], [item.negated for item in answered]
    shares = {f"top-{k}": top_k_accuracy(affirmative, targets, k) for k in TOP}
    shares["sensitivity"] = sensitivity(affirmative, negated)
    comparable = [item for item in answered if item.cloze.one_article and not item.cloze.problem]
    if len(comparable) < len(answered):
        shares["sensitivity, one article"] = sensitivity(
            [item.affirmative for item in comparable], [item.negated for item in comparable]
        )
    in_affirmative = [item.in_affirmative for item in answered if item.in_affirmative is not None]
    in_negated = [item.in_negated for item in answered if item.in_negated is not None]
    shares[f"{TRUE_OVER_FALSE}, affirmative"] = preference(*_columns(in_affirmative))
    # In the negation, the foil is the word that makes the statement true.
    shares[f"{TRUE_OVER_FALSE}, negated"] = preference(*reversed(_columns(in_negated)))
    return shares


def _columns(scores: Sequence[tuple[float, float]]) -> tuple[list[float], list[float]]:
    return [target for target, _ in scores], [foil for _, foil in scores]


def _readable(clozes: Sequence[Cloze], model: HookedEncoder) -> tuple[list[Cloze], list[str]]:
    """The items the model can read, and notes on items left out and on words outside its vocabulary."""
    tokenizer = tokenizer_of_masked_lm(model)
    kept: list[Cloze] = []
    tokenized: list[list[TokenizedStatement]] = []
    notes = []
    for cloze in clozes:
        statements = [tokenize(text, tokenizer) for text in _statements(cloze)]
        reason = next((reason for reason in (unreadable(statement, model) for statement in statements) if reason), "")
        if reason:
            notes.append(f"left out {shortened(cloze.affirmative)!r}: a statement {reason}")
            continue
        kept.append(cloze)
        tokenized.append(statements)
    return kept, notes + unknown_word_notes(model, tokenized, "items")


def _problem_notes(clozes: Sequence[Cloze]) -> list[str]:
    """A note on the items that are used only for some scores, with the first reason; empty if there are none."""
    problems = [cloze.problem for cloze in clozes if cloze.problem]
    if not problems:
        return []
    return [
        f"{len(problems)} of {len(clozes)} items have statements that differ by more than a 'not'; they count only for "
        f"{', '.join(f'top-{k}' for k in TOP)} and sensitivity. The first: {problems[0]}"
    ]


def _statements(cloze: Cloze) -> tuple[str, str, str, str]:
    """The affirmative with the target's and the foil's article, then the negation with the target's and the foil's."""
    return (
        cloze.for_target(cloze.affirmative),
        cloze.for_foil(cloze.affirmative),
        cloze.for_target(cloze.negated),
        cloze.for_foil(cloze.negated),
    )


def _clozes(part: ScoredSet) -> list[Cloze]:
    return [item for item in part.items if isinstance(item, Cloze)]
