"""Scores of a model, or of its earlier predictions, on whole data sets."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import pandas as pd

from negprobe.base.arguments import checked
from negprobe.base.errors import InputError
from negprobe.base.progress import Progress
from negprobe.base.reprs import short_repr
from negprobe.behaviour.cloze import score_model_on_clozes, score_predictions_on_clozes
from negprobe.behaviour.inference import score_on_inferences
from negprobe.behaviour.minimal_pairs import score_on_minimal_pairs
from negprobe.behaviour.ranking import score_on_rankings
from negprobe.behaviour.scores import Shares
from negprobe.behaviour.sets import Kind, ScoredSet
from negprobe.models import HookedEncoder

SHARES = ("data_set", "condition", "score", "share", "low", "high", "hits", "n")
"""The columns of `Evaluation.shares`."""

_SCORING = {
    "cloze": score_model_on_clozes,
    "minimal pairs": score_on_minimal_pairs,
    "inference": score_on_inferences,
    "ranking": score_on_rankings,
}
_NEEDS: dict[Kind, tuple[str, str]] = {
    "cloze": ("masked_lm", "statements with a [MASK], which need a masked LM"),
    "minimal pairs": ("masked_lm", "acceptable and unacceptable sentences, which need a masked LM"),
    "inference": ("classification", "premises and hypotheses with labels, which need a classifier"),
    "ranking": ("classification", "queries with two documents, which need a classifier with one logit"),
}


@dataclass(frozen=True, repr=False)
class Evaluation:
    """The scores of a model.

    Attributes:
        shares: One row per score, columns `SHARES`: a share, its 95% interval and its counts.
        notes: Items that were left out, with reasons, and limitations of the scores.
    """

    shares: pd.DataFrame
    notes: tuple[str, ...]

    __repr__ = short_repr

    def _repr_html_(self) -> str:
        return self.shares.to_html(index=False, border=0, float_format="{:.3f}".format, escape=True, max_rows=40)


@checked
def evaluate(
    sets: Sequence[ScoredSet],
    model: HookedEncoder | None = None,
    *,
    predictions: Sequence[Sequence[str]] | None = None,
    progress: Progress = lambda step, done, total: None,
) -> Evaluation:
    """The scores of a model on data sets, or of the words it predicted earlier on one of them.

    - NEG-136, NEG-1500 and pairs with a `[MASK]`, on a masked LM: "top-1" and "top-5", "sensitivity", "true over false"
      (see `score_model_on_clozes`).
    - BLiMP, on a masked LM: "acceptable over unacceptable" by pseudo-log-likelihood.
    - ScoNe, MoNLI and pairs whose target and foil are labels, on a classifier: "accuracy", one row per condition;
      pairs have one row for the originals and one for the counterfactuals.
    - Queries with two documents, on a cross-encoder with one logit: "right over other document" for the original and
      for the counterfactual queries (see `score_on_rankings`).

    Args:
        sets: The data sets.
        model: The model.
        predictions: Instead of a model, its most probable words for each statement of a single set, in the order of the
            data set (affirmatives and negations alternate).
        progress: Called with the name of the step, the number of sets done, and the number of sets.

    Raises:
        InputError: if both or neither of model and predictions are given, the model is of the wrong kind, a classifier
            lacks the labels of the data, the predictions are not for a single set of statements with a gap, their
            number is not the number of statements, or no item can be scored.
    """
    if (model is None) == (predictions is None):
        raise InputError("Give either a model or predictions, not both.")
    if predictions is not None and (len(sets) != 1 or sets[0].kind != "cloze"):
        names = ", ".join(dict.fromkeys(part.name for part in sets))
        raise InputError(
            f"Predictions must be for the gaps of one data set; got {names}. Give one file of NEG-136, NEG-1500 or "
            "pairs with a [MASK]."
        )
    if predictions is not None:
        return _evaluation([(sets[0], *score_predictions_on_clozes(sets[0], predictions))])
    assert model is not None
    for part in sets:
        head, what = _NEEDS[part.kind]
        if model.cfg.head != head:
            raise InputError(f"{part.name} has {what}; {model.cfg.model_name!r} has the head {model.cfg.head!r}.")
    scored = []
    for done, part in enumerate(sets):
        progress("scoring", done, len(sets))
        scored.append((part, *_SCORING[part.kind](part, model)))
    progress("scoring", len(sets), len(sets))
    return _evaluation(scored)


def _evaluation(scored: Sequence[tuple[ScoredSet, Shares, list[str]]]) -> Evaluation:
    rows = [
        {"data_set": part.name, "condition": condition, "score": score, **asdict(share)}
        for part, shares, _ in scored
        for (condition, score), share in shares.items()
    ]
    notes = [
        note
        for part, _, reasons in scored
        for note in (*part.dropped, *(f"{part.name} {part.condition}".strip() + f": {reason}" for reason in reasons))
    ]
    if not any(row["n"] for row in rows):
        # The last note is about the model's input; earlier ones may be about broken rows.
        raise InputError(f"Nothing is left to score. {notes[-1].rstrip('.') if notes else 'There are no items'}.")
    return Evaluation(pd.DataFrame(rows, columns=list(SHARES)), tuple(notes))
