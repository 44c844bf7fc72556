"""Scores on acceptable and unacceptable sentences (BLiMP, Warstadt et al. 2020)."""

from negprobe.behaviour.likelihood import pseudo_log_likelihoods
from negprobe.behaviour.masked import shortened, tokenizer_of_masked_lm, too_long, unknown_word_notes
from negprobe.behaviour.scores import Shares, preference
from negprobe.behaviour.sets import ScoredSet
from negprobe.models import HookedEncoder
from negprobe.statements import TokenizedStatement, tokenize
from negprobe.statements.readers.blimp import MinimalPair


def score_on_minimal_pairs(part: ScoredSet, model: HookedEncoder) -> tuple[Shares, list[str]]:
    """The share of pairs whose acceptable sentence has the larger pseudo-log-likelihood (Salazar et al. 2020).

    Pairs whose sentences have the same tokens, because the words that differ are not in the vocabulary, are left out.

    Returns:
        The share by condition and score, and notes on pairs left out and on limitations of the score.

    Raises:
        InputError: if the model has no masked-LM head or no tokenizer.
    """
    tokenizer = tokenizer_of_masked_lm(model)
    kept: list[MinimalPair] = []
    tokenized: list[list[TokenizedStatement]] = []
    n_identical, notes = 0, []
    for item in part.items:
        if not isinstance(item, MinimalPair):
            continue
        statements = [tokenize(text, tokenizer) for text in (item.good, item.bad)]
        reason = next((reason for reason in (too_long(statement, model) for statement in statements) if reason), "")
        if reason:
            notes.append(f"left out {shortened(item.good)!r}: a sentence {reason}")
        elif statements[0].ids == statements[1].ids:
            n_identical += 1
        else:
            kept.append(item)
            tokenized.append(statements)
    if n_identical:
        notes.append(
            f"{n_identical} of {len(part.items)} pairs are left out: both sentences have the same tokens for this model"
        )
    notes += unknown_word_notes(model, tokenized, "pairs")
    good, bad = (
        pseudo_log_likelihoods(model, texts).tolist() for texts in ([p.good for p in kept], [p.bad for p in kept])
    )
    return {(part.condition, "acceptable over unacceptable"): preference(good, bad)}, notes
