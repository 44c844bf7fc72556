"""Which pairs a model can answer, so that a patch has something to move."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import torch
from transformers import PreTrainedTokenizerBase

from negprobe.base.arguments import checked
from negprobe.base.errors import PatchingError, StatementError
from negprobe.base.reprs import short_repr
from negprobe.base.texts import quoted
from negprobe.models import HookedEncoder
from negprobe.models.batching import length_batches
from negprobe.models.labels import label_index, predicted_labels, why_no_single_label
from negprobe.patching.objectives import Objective, answer_id, default_objective, readout_for
from negprobe.patching.runs import last_hidden_states, pair_runs, tokenized_run
from negprobe.statements import StatementPair, readable_by, tokenize

_PAIRS_AT_ONCE = 64


@dataclass(frozen=True, repr=False)
class Answerable:
    """The pairs that have an objective.

    Attributes:
        pairs: The pairs by their index in what was asked for, with a classifier's labels where a pair had none.
        unanswerable: For each other index, the reason.
        own_labels: The indices whose labels are the classifier's own and not the pair's, so that they say nothing about
            whether it is right.
        same_labels: The indices of pairs without labels whose two statements the classifier gives the same label.
    """

    pairs: dict[int, StatementPair]
    unanswerable: dict[int, str]
    own_labels: tuple[int, ...] = ()
    same_labels: tuple[int, ...] = ()

    __repr__ = short_repr


@checked
def answerable(model: HookedEncoder, pairs: Sequence[StatementPair]) -> Answerable:
    """Sort out the pairs whose objective (see `default_objective`) can be read.

    No statement may be longer than the model reads. A masked LM needs target and foil, each a single token in the place
    of [MASK], and one [MASK] in every statement. A classifier needs two labels: the pair's target and foil (upper or
    lower case), or, if the pair has neither and the model chooses exactly one label, those that it gives the original
    and the counterfactual. A model with a single logit, or without a head, has an objective for every pair. Without a
    masked-LM head, a [MASK] is filled with the target.

    Raises:
        PatchingError: for a model without a tokenizer.
    """
    if model.tokenizer is None:
        raise PatchingError("Statements need a tokenizer; give one to HookedEncoder.from_pretrained.")
    kept: dict[int, StatementPair] = {}
    reasons: dict[int, str] = {}
    own_labels, same_labels = [], []
    for index, given in enumerate(pairs):
        try:
            (pair,) = readable_by(model.cfg.head, [given], model.cfg.labels)
        except StatementError as error:
            reasons[index] = str(error).rstrip(".")
            continue
        if too_long := _too_long(model, model.tokenizer, pair):
            reasons[index] = too_long
            continue
        if _chooses_a_label(model) and pair.target is None and pair.foil is None:
            target, foil = _predicted_labels(model, pair)
            if target == foil:
                reasons[index] = f"the model labels both statements {target!r}"
                same_labels.append(index)
                continue
            pair = replace(pair, target=target, foil=foil)
            own_labels.append(index)
        reason = _reason(model, model.tokenizer, pair)
        if reason:
            reasons[index] = reason
        else:
            kept[index] = pair
    return Answerable(kept, reasons, tuple(own_labels), tuple(same_labels))


@checked
@torch.no_grad()
def objective_values(
    model: HookedEncoder, pairs: Sequence[StatementPair], objective: Objective | None = None
) -> pd.DataFrame:
    """The objective of each pair's unpatched runs.

    Returns:
        A row per pair with the columns `original`, `counterfactual` and `control`, NaN where a pair has no control.

    Raises:
        PatchingError: for an objective that the model or a pair does not have.
        StatementError, InputError: for a statement that cannot be run.
    """
    objective = objective or default_objective(model)
    table = pd.DataFrame(np.nan, index=range(len(pairs)), columns=["original", "counterfactual", "control"])
    for indices in length_batches([len(pair.counterfactual) for pair in pairs], _PAIRS_AT_ONCE):
        runs = pair_runs(model, [pairs[i] for i in indices], "noising")
        # A missing control is run as the original, which keeps the rows together, and then struck out.
        controls = tokenized_run(model, [pair.control or pair.original for pair in runs.pairs])
        sides = {"original": runs.base, "counterfactual": runs.source, "control": controls}
        rows = torch.arange(len(indices), device=model.device)
        for side, run in sides.items():
            table.loc[indices, side] = (
                readout_for(objective, model, runs, run)(last_hidden_states(model, run), rows).cpu().double().numpy()
            )
    table.loc[[pair.control is None for pair in pairs], "control"] = np.nan
    return table


def _chooses_a_label(model: HookedEncoder) -> bool:
    return model.cfg.head == "classification" and not why_no_single_label(model.cfg)


@torch.no_grad()
def _predicted_labels(model: HookedEncoder, pair: StatementPair) -> tuple[str, str]:
    """The labels a classifier gives the original and the counterfactual."""
    resid = last_hidden_states(model, tokenized_run(model, [pair.original, pair.counterfactual]))
    original, counterfactual = predicted_labels(model.classifier(resid), model.cfg)
    return original, counterfactual


def _too_long(model: HookedEncoder, tokenizer: PreTrainedTokenizerBase, pair: StatementPair) -> str:
    longest = max(len(tokenize(text, tokenizer)) for text in (pair.original, pair.counterfactual))
    return f"{longest} tokens, more than the {model.cfg.n_ctx} the model reads" if longest > model.cfg.n_ctx else ""


def _reason(model: HookedEncoder, tokenizer: PreTrainedTokenizerBase, pair: StatementPair) -> str:
    if model.cfg.head == "none" or len(model.cfg.labels) == 1:
        return ""
    if not pair.target or not pair.foil:
        return "the pair names no target and foil"
    if pair.target == pair.foil:
        return f"target and foil are both {quoted(pair.target)}"
    if model.cfg.head == "classification":
        indices = {label: label_index(model.cfg.labels, label) for label in (pair.target, pair.foil)}
        unknown = [label for label, index in indices.items() if index is None]
        if unknown:
            return f"{quoted(sorted(unknown)[0])} is not a label of the model"
        return _same(pair) if len(set(indices.values())) == 1 else ""
    for text in (pair.original, pair.counterfactual, pair.control):
        if text is None:
            continue
        statement = tokenize(text, tokenizer)
        masks = statement.ids.count(tokenizer.mask_token_id)
        if masks != 1:
            return f"a statement has {masks} mask tokens, not one"
        try:
            target, foil = (answer_id(model, statement, word) for word in (pair.target, pair.foil))
        except PatchingError as error:
            return str(error).partition(";")[0]
        if target == foil:
            return _same(pair)
    return ""


def _same(pair: StatementPair) -> str:
    return f"target and foil are the same to the model: {quoted(pair.target)} and {quoted(pair.foil)}"
