"""A classifier's labels: their names, probabilities and predictions."""

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from negprobe.base.errors import InputError
from negprobe.base.texts import quoted
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
