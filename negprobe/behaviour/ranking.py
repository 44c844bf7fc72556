"""Scores of a cross-encoder on queries with two documents."""

from negprobe.base.errors import InputError
from negprobe.behaviour.inference import label_logits
from negprobe.behaviour.masked import shortened, too_long, unknown_word_notes
from negprobe.behaviour.scores import Shares, preference
from negprobe.behaviour.sets import ScoredSet
from negprobe.models import HookedEncoder
from negprobe.statements import TokenizedStatement, tokenize
from negprobe.statements.documents import joined
from negprobe.statements.readers.queries import Ranking


def score_on_rankings(part: ScoredSet, model: HookedEncoder) -> tuple[Shares, list[str]]:
    """The share of queries for which the right document has the higher score, the single logit.

    Returns:
        The share by condition and score, and notes on items left out and on unknown words.

    Raises:
        InputError: if the model does not have exactly one logit, or has no tokenizer.
    """
    if model.tokenizer is None:
        raise InputError(f"{model.cfg.model_name!r} has no tokenizer; load it from a folder that has one.")
    if len(model.cfg.labels) != 1:
        raise InputError(
            f"{part.name} needs a classifier with one logit, which scores a query and a document; "
            f"{model.cfg.model_name!r} has {len(model.cfg.labels)}."
        )
    kept: list[tuple[TokenizedStatement, TokenizedStatement]] = []
    notes = []
    for item in part.items:
        if not isinstance(item, Ranking):
            continue
        better, worse = (
            tokenize(joined(item.query, document), model.tokenizer) for document in (item.better, item.worse)
        )
        if reason := too_long(better, model) or too_long(worse, model):
            notes.append(f"left out {shortened(item.query)!r}: with a document it {reason}")
        else:
            kept.append((better, worse))
    notes += unknown_word_notes(model, kept, "queries")
    scores = [label_logits(model, [pair[side] for pair in kept])[:, 0].tolist() for side in (0, 1)]
    return {(part.condition, "right over other document"): preference(*scores)}, notes
