"""`Family`: how the models of one family are read from Hugging Face's classes."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from negprobe.models.config import Head, HookedEncoderConfig
from negprobe.models.config_fields import Field

Weights = dict[str, Tensor]

SUFFIXES: dict[str, Head] = {
    "ForMaskedLM": "masked_lm",
    "ForSequenceClassification": "classification",
    "Model": "none",
}
"""How the names of transformers' classes end, with the head of each class."""


@dataclass(frozen=True)
class Family:
    """How the models of one family are read.

    Attributes:
        name: The family's name, `HookedEncoderConfig.family`.
        model_types: The `model_type` of each kind of model in config.json.
        prefixes: How the names of the family's transformers classes begin.
        settings: Computes the family's own fields of a `HookedEncoderConfig` from Hugging Face's configuration. The
            sizes, labels and names that all families share are set by `convert.encoder_config`.
        weights: Computes the weights by `HookedEncoder`'s parameter names from those by Hugging Face's; the names of
            the base model's weights start with its prefix.
        fields: The fields of config.json that affect the output, besides those that all families have
            (`folder.COMMON_FIELDS`), with the check of each. A field can replace a common one.
        renamed: Fields of the models' original code that transformers' class does not read, each with the field that it
            reads instead.
        other_classes: Supported classes with other endings, with the head of each.
        labels: The labels of classifiers whose logits have a fixed meaning, by class; others have those of config.json.
        unused_poolers: The classes that create a pooler unless told otherwise, although their head does not use it.
        counts_from_padding: Whether positions are counted from the id of the padding token, leaving out padding.
    """

    name: str
    model_types: tuple[str, ...]
    prefixes: tuple[str, ...]
    settings: Callable[[Any, Head], dict[str, Any]]
    weights: Callable[[Weights, HookedEncoderConfig], Weights]
    fields: Mapping[str, Field] = field(default_factory=dict)
    renamed: Mapping[str, str] = field(default_factory=dict)
    other_classes: Mapping[str, Head] = field(default_factory=dict)
    labels: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    unused_poolers: tuple[str, ...] = ()
    counts_from_padding: bool = False

    @property
    def classes(self) -> dict[str, Head]:
        """The supported transformers classes, with the head of each."""
        named = {prefix + suffix: head for prefix in self.prefixes for suffix, head in SUFFIXES.items()}
        return named | dict(self.other_classes)
