"""Baidu's ERNIE: a BERT, from version 2 on with an embedding of the task. Sun et al. 2020, "ERNIE 2.0"."""

from dataclasses import replace
from typing import Any

from negprobe.models.config import Head, HookedEncoderConfig
from negprobe.models.config_fields import switch, whole
from negprobe.models.families.bert import NAMES
from negprobe.models.families.bert_like import settings_of, weights_of
from negprobe.models.families.family import Family, Weights

_NAMES = replace(NAMES, prefix="ernie", class_dense="ernie.pooler.dense")


def _settings(hf_config: Any, head: Head) -> dict[str, Any]:
    n_task_types = hf_config.task_type_vocab_size if hf_config.use_task_id else 0
    return settings_of(_NAMES, hf_config, head) | {"n_task_types": n_task_types}


def _weights(source: Weights, cfg: HookedEncoderConfig) -> Weights:
    weights = weights_of(_NAMES, source, cfg)
    if cfg.n_task_types:
        weights["embed.W_task_type"] = source["ernie.embeddings.task_type_embeddings.weight"]
    return weights


ERNIE = Family(
    name="ernie",
    model_types=("ernie",),
    prefixes=("Ernie",),
    settings=_settings,
    weights=_weights,
    fields={"use_task_id": switch, "task_type_vocab_size": whole(1, 10**6)},
    other_classes={"ErnieForPreTraining": "masked_lm"},
    unused_poolers=("ErnieModel",),
)
