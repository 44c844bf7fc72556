"""Scores on acceptable and unacceptable sentences (BLiMP, Warstadt et al. 2020)."""

from negprobe.behaviour.likelihood import pseudo_log_likelihoods
from negprobe.behaviour.masked import shortened, tokenizer_of_masked_lm, too_long, unknown_to
from negprobe.behaviour.scores import Shares, preference
from negprobe.behaviour.sets import ScoredSet
from negprobe.models import HookedEncoder
from negprobe.statements import TokenizedStatement, tokenize
from negprobe.statements.readers.blimp import MinimalPair


def score_on_minimal_pairs(part: ScoredSet, model: HookedEncoder) -> tuple[Shares, list[str]]:
    """The share of pairs whose acceptable sentence has the larger pseudo-log-likelihood (Salazar et al. 2020).

    Pairs that the model reads as the same tokens, for it does not know the words that differ, are left out.

    Returns:
        The share by condition and score, and what was left out or weakens it.

    Raises:
        InputError: without a masked-LM head or a tokenizer.
    """
    tokenizer = tokenizer_of_masked_lm(model)
    kept: list[MinimalPair] = []
    read: list[list[TokenizedStatement]] = []
    n_alike, notes = 0, []
    for item in part.items:
        if not isinstance(item, MinimalPair):
            continue
        statements = [tokenize(text, tokenizer) for text in (item.good, item.bad)]
        reason = next((reason for reason in (too_long(one, model) for one in statements) if reason), "")
        if reason:
            notes.append(f"left out {shortened(item.good)!r}: a sentence {reason}")
        elif statements[0].ids == statements[1].ids:
            n_alike += 1
        else:
            kept.append(item)
            read.append(statements)
    if n_alike:
        notes.append(f"{n_alike} of {len(part.items)} pairs are left out: the model reads the same tokens in both")
    notes += unknown_to(model, read, "pairs")
    good, bad = (
        pseudo_log_likelihoods(model, texts).tolist() for texts in ([p.good for p in kept], [p.bad for p in kept])
    )
    return {(part.condition, "acceptable over unacceptable"): preference(good, bad)}, notes
