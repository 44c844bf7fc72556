"""Scores of a classifier on premises and hypotheses (ScoNe, She et al. 2023; MoNLI, Geiger et al. 2020)."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from negprobe.base.errors import InputError
from negprobe.behaviour.masked import shortened, too_long, unknown_word_notes
from negprobe.behaviour.scores import Shares, share
from negprobe.behaviour.sets import ScoredSet
from negprobe.models import HookedEncoder
from negprobe.models.batching import length_batches, pad_token_types, pad_tokens
from negprobe.models.labels import label_index, why_no_single_label
from negprobe.statements import TokenizedStatement, tokenize
from negprobe.statements.readers.nli import Inference


def score_on_inferences(part: ScoredSet, model: HookedEncoder) -> tuple[Shares, list[str]]:
    """The accuracy of a classifier: the share of items whose label is its most probable one.

    Labels are matched by name, ignoring case. Predicting a label that the data do not have ("contradiction") counts as
    an error.

    Returns:
        The share by condition and score, and notes on items left out and on limitations of the score.

    Raises:
        InputError: if the classifier's labels are not mutually exclusive, it lacks a label of the data, or it has no
            tokenizer.
    """
    if model.tokenizer is None:
        raise InputError(f"{model.cfg.model_name!r} has no tokenizer; load it from a folder that has one.")
    if why := why_no_single_label(model.cfg):
        raise InputError(
            f"{part.name} needs a classifier that predicts one of several labels; {model.cfg.model_name!r} {why}."
        )
    items = [item for item in part.items if isinstance(item, Inference)]
    labels = sorted({item.label for item in items})
    index_of = {label: label_index(model.cfg.labels, label) for label in labels}
    if None in index_of.values():
        raise InputError(
            f"{part.name} has the labels {', '.join(labels)}, but those of {model.cfg.model_name!r} are "
            f"{', '.join(model.cfg.labels)}. Name the model's labels when it is loaded (from_pretrained's "
            "labels), or in its config.json, under id2label."
        )
    kept: list[Inference] = []
    statements: list[TokenizedStatement] = []
    notes = []
    for item in items:
        statement = tokenize(item.text, model.tokenizer)
        reason = too_long(statement, model)
        if reason:
            notes.append(f"left out {shortened(item.premise)!r}: with its hypothesis it {reason}")
            continue
        kept.append(item)
        statements.append(statement)
    notes += unknown_word_notes(model, [[statement] for statement in statements], "items")
    predicted = classify(model, statements)
    hits = [found == index_of[item.label] for found, item in zip(predicted, kept, strict=True)]
    return {(part.condition, "accuracy"): share(hits)}, notes


def classify(model: HookedEncoder, statements: Sequence[TokenizedStatement]) -> list[int]:
    """The index of a classifier's most probable label for each statement."""
    return label_logits(model, statements).argmax(dim=-1).tolist()


@torch.no_grad()
def label_logits(
    model: HookedEncoder, statements: Sequence[TokenizedStatement], batch_size: int = 64
) -> Float[Tensor, "statement label"]:
    """A classifier's logits for each statement."""
    found = torch.empty(len(statements), len(model.cfg.labels), dtype=model.dtype, device=model.device)
    for rows in length_batches([len(statement) for statement in statements], batch_size):
        batch = [statements[row] for row in rows]
        tokens, mask = pad_tokens([statement.ids for statement in batch], model.cfg.pad_token_id, model.device)
        types = pad_token_types([statement.token_types for statement in batch], [*map(len, batch)], model.device)
        found[rows] = model(tokens, token_type_ids=types, one_zero_attention_mask=mask)
    return found
