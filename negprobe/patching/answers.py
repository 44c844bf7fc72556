"""Selecting the pairs that a model can answer, and the objective of their unpatched runs."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
import xarray as xr
from transformers import PreTrainedTokenizerBase

from negprobe.base.arguments import checked
from negprobe.base.errors import PatchingError, StatementError
from negprobe.base.reprs import short_repr
from negprobe.base.texts import quoted
from negprobe.models import HookedEncoder
from negprobe.models.batching import length_batches
from negprobe.models.labels import label_index, predicted_labels, why_no_single_label
from negprobe.patching.margins import with_margins
from negprobe.patching.objectives import Objective, answer_id, default_objective, readout_for
from negprobe.patching.runs import last_hidden_states, pair_runs, tokenized_run
from negprobe.statements import StatementPair, readable_by, tokenize
from negprobe.statements.documents import ranks_documents, with_foil

_PAIRS_AT_ONCE = 64


@dataclass(frozen=True, repr=False)
class Answerable:
    """The pairs for which the default objective is defined.

    Attributes:
        pairs: The answerable pairs, by their index in the given sequence. A pair without target and foil has those that
            the classifier predicts.
        unanswerable: The reason for each other index.
        own_labels: The indices of pairs whose target and foil are the classifier's own predictions. They cannot be used
            to compute an accuracy.
        same_labels: The indices of pairs without labels for which the classifier predicts the same label twice.
    """

    pairs: dict[int, StatementPair]
    unanswerable: dict[int, str]
    own_labels: tuple[int, ...] = ()
    same_labels: tuple[int, ...] = ()

    __repr__ = short_repr


@checked
def answerable(model: HookedEncoder, pairs: Sequence[StatementPair]) -> Answerable:
    """The pairs for which the default objective is defined (see `default_objective`), and why the others are not.

    No statement may be longer than the model's context. A masked LM needs a target and a foil, each a single token in
    the place of [MASK], and one [MASK] in each statement. A classifier needs two different labels: the pair's target
    and foil (in upper or lower case) or, if the pair has neither and the model predicts exactly one label per text, its
    predictions for the original and the counterfactual. For a model with a single logit, or without a head, every pair
    is answerable; a second document (see `statements.document_pair`) may not be longer than the context either. For
    models without a masked-LM head, a [MASK] is filled with the target.

    Raises:
        PatchingError: for a model without a tokenizer.
    """
    if model.tokenizer is None:
        raise PatchingError("The model has no tokenizer; pass one to HookedEncoder.from_pretrained.")
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
@with_margins
@torch.no_grad()
def objective_values(
    model: HookedEncoder, pairs: Sequence[StatementPair], objective: Objective | None = None
) -> xr.Dataset:
    """The objective of each pair's unpatched runs.

    Returns:
        `original`, `counterfactual` and `control`, each `[pair]`; NaN where a pair has no control.

    Raises:
        PatchingError: for an objective that is not defined for the model or a pair.
        StatementError, InputError: for a statement that cannot be run.
    """
    objective = objective or default_objective(model)
    values = {side: np.full(len(pairs), np.nan) for side in ("original", "counterfactual", "control")}
    for indices in length_batches([len(pair.counterfactual) for pair in pairs], _PAIRS_AT_ONCE):
        runs = pair_runs(model, [pairs[i] for i in indices], "noising")
        # The original is run in place of a missing control, to keep one row per pair, and set to NaN below.
        controls = tokenized_run(model, [pair.control or pair.original for pair in runs.pairs])
        sides = {"original": runs.base, "counterfactual": runs.source, "control": controls}
        rows = torch.arange(len(indices), device=model.device)
        for side, run in sides.items():
            values[side][indices] = (
                readout_for(objective, model, runs, run)(last_hidden_states(model, run), rows).cpu().double().numpy()
            )
    values["control"][[pair.control is None for pair in pairs]] = np.nan
    return xr.Dataset({side: ("pair", found) for side, found in values.items()}, coords={"pair": np.arange(len(pairs))})


def _chooses_a_label(model: HookedEncoder) -> bool:
    return model.cfg.head == "classification" and not why_no_single_label(model.cfg)


@torch.no_grad()
def _predicted_labels(model: HookedEncoder, pair: StatementPair) -> tuple[str, str]:
    """The labels that a classifier predicts for the original and the counterfactual."""
    run = tokenized_run(model, [pair.original, pair.counterfactual])
    logits = model.head_output(last_hidden_states(model, run), run.mask)
    original, counterfactual = predicted_labels(logits, model.cfg)
    return original, counterfactual


def _too_long(model: HookedEncoder, tokenizer: PreTrainedTokenizerBase, pair: StatementPair) -> str:
    one_logit = len(model.cfg.labels) == 1
    read = (pair, with_foil(pair)) if one_logit and ranks_documents(pair) else (pair,)
    texts = [text for one in read for text in (one.original, one.counterfactual)]
    longest = max(len(tokenize(text, tokenizer)) for text in texts)
    return f"{longest} tokens, more than the {model.cfg.n_ctx} the model reads" if longest > model.cfg.n_ctx else ""


def _reason(model: HookedEncoder, tokenizer: PreTrainedTokenizerBase, pair: StatementPair) -> str:
    if model.cfg.head == "none" or len(model.cfg.labels) == 1:
        return ""
    if not pair.target or not pair.foil:
        return "the pair has no target or foil"
    if pair.target == pair.foil:
        return f"target and foil are both {quoted(pair.target)}"
    if model.cfg.head == "classification":
        indices = {label: label_index(model.cfg.labels, label) for label in (pair.target, pair.foil)}
        unknown = [label for label, index in indices.items() if index is None]
        if unknown:
            return f"{quoted(sorted(unknown)[0])} is not a label of the model ({quoted(', '.join(model.cfg.labels))})"
        return _same(pair) if len(set(indices.values())) == 1 else ""
    for text in (pair.original, pair.counterfactual, pair.control):
        if text is None:
            continue
        statement = tokenize(text, tokenizer)
        masks = statement.ids.count(tokenizer.mask_token_id)
        if masks != 1:
            return f"a statement has {masks} mask tokens instead of one"
        try:
            target, foil = (answer_id(model, statement, word) for word in (pair.target, pair.foil))
        except PatchingError as error:
            return str(error).partition(";")[0]
        if target == foil:
            return _same(pair)
    return ""


def _same(pair: StatementPair) -> str:
    return f"target and foil are the same for the model: {quoted(pair.target)} and {quoted(pair.foil)}"
