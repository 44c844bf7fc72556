"""A classifier's labels: their names, probabilities and predictions."""

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from negprobe.base.errors import InputError, ModelError
from negprobe.base.texts import is_utf8, quoted
from negprobe.models.config import HookedEncoderConfig

LabelFunction = Literal["softmax", "sigmoid", "none"]
"""softmax: exactly one label holds; sigmoid: each label holds independently; none: the logits are plain numbers."""


def label_function(cfg: HookedEncoderConfig) -> LabelFunction:
    """The function that turns a classifier's logits into probabilities.

    The rules are those of Hugging Face's text-classification pipeline: none for `problem_type` "regression", a sigmoid
    for "multi_label_classification" and for a single label, a softmax for everything else.
    """
    if cfg.problem_type == "regression":
        return "none"
    return "sigmoid" if cfg.problem_type == "multi_label_classification" or len(cfg.labels) == 1 else "softmax"


def label_probabilities(logits: Float[Tensor, "... label"], cfg: HookedEncoderConfig) -> Float[Tensor, "... label"]:
    """The probability of each label.

    Raises:
        InputError: for a regression model.
    """
    function = _probability_function(cfg)
    return logits.softmax(dim=-1) if function == "softmax" else logits.sigmoid()


def label_log_likelihoods(logits: Float[Tensor, "... label"], cfg: HookedEncoderConfig) -> Float[Tensor, "... outcome"]:
    """The log-probability of each outcome.

    With a softmax the outcomes are the labels. With a sigmoid they are each label holding, then each label not holding,
    so that a divergence summed over them is that of all labels together.

    Raises:
        InputError: for a regression model.
    """
    function = _probability_function(cfg)
    return logits.log_softmax(dim=-1) if function == "softmax" else F.logsigmoid(torch.cat([logits, -logits], dim=-1))


def predicted_labels(logits: Float[Tensor, "batch label"], cfg: HookedEncoderConfig) -> list[str]:
    """The most probable label of each text.

    Raises:
        InputError: unless the labels exclude each other.
    """
    if why := why_no_single_label(cfg):
        raise InputError(f"{quoted(cfg.model_name)} {why}, so it predicts no single label; read its logits.")
    return [cfg.labels[index] for index in logits.argmax(dim=-1).tolist()]


def why_no_single_label(cfg: HookedEncoderConfig) -> str:
    """Why a classifier does not predict exactly one label; empty if it does."""
    if len(cfg.labels) == 1:
        return "has one logit"
    return {
        "softmax": "",
        "sigmoid": "has labels that do not exclude each other (multi_label_classification)",
        "none": "is a regression model",
    }[label_function(cfg)]


def renamed_labels(cfg: HookedEncoderConfig, names: Mapping[str, str] | Sequence[str]) -> tuple[str, ...]:
    """The labels of a classifier under other names, in the order of its logits.

    Args:
        cfg: The classifier's configuration.
        names: All names in the order of the logits, or new names by the present ones, which may be in any case; labels
            that are not in it keep their names.

    Raises:
        ModelError: for a model that is not a classifier, another number of names than of labels, a label that the model
            does not have, and names that are empty, repeated or not valid UTF-8.
    """
    present = ", ".join(cfg.labels)
    if cfg.head != "classification":
        raise ModelError(f"{quoted(cfg.model_name)} is not a classifier, so it has no labels to name; omit the labels.")
    if isinstance(names, str):
        raise ModelError(f"The labels are the text {quoted(names)}; give a list of names, or a dict of new names.")
    if isinstance(names, Mapping):
        index_of = {old: label_index(cfg.labels, old) for old in names}
        if unknown := [old for old, index in index_of.items() if index is None]:
            raise ModelError(
                f"{quoted(cfg.model_name)} has no label {quoted(unknown[0])} to rename; its labels are {present}."
            )
        new_of = {index_of[old]: new for old, new in names.items()}
        if len(new_of) < len(names):
            raise ModelError(f"Two of the new names, {quoted(', '.join(names.values()))}, are for the same label.")
        renamed = tuple(new_of.get(index, label) for index, label in enumerate(cfg.labels))
    else:
        renamed = tuple(names)
    if len(renamed) != len(cfg.labels):
        raise ModelError(
            f"{len(renamed)} label names were given, but {quoted(cfg.model_name)} has {len(cfg.labels)} labels, "
            f"{present}; give one name for each, in this order."
        )
    unusable = [name for name in renamed if not name.strip() or not is_utf8(name) or renamed.count(name) > 1]
    if unusable:
        raise ModelError(f"The label name {quoted(unusable[0])} is empty, repeated or not UTF-8 text; choose another.")
    return renamed


def label_index(labels: Sequence[str], name: str) -> int | None:
    """The index of the label with this name: an exact match, else the only match that ignores case; None if neither."""
    for same in (name.__eq__, lambda label: label.casefold() == name.casefold()):
        found = [index for index, label in enumerate(labels) if same(label)]
        if found:
            return found[0] if len(found) == 1 else None
    return None


def _probability_function(cfg: HookedEncoderConfig) -> LabelFunction:
    function = label_function(cfg)
    if function == "none":
        raise InputError(
            f"{quoted(cfg.model_name)} is a regression model, so its logits are not probabilities; read the logits."
        )
    return function
