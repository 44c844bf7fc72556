"""ELECTRA."""

from typing import Any

from negprobe.models.config import Head, HookedEncoderConfig
from negprobe.models.families.bert_like import Names, settings_of, weights_of
from negprobe.models.families.family import Family, Weights

_NAMES = Names(
    prefix="electra",
    lm_dense="generator_predictions.dense",
    lm_ln="generator_predictions.LayerNorm",
    lm_decoder="generator_lm_head",
    lm_act="gelu",
    class_dense="classifier.dense",
    class_out="classifier.out_proj",
    class_act="gelu",
)


def _settings(hf_config: Any, head: Head) -> dict[str, Any]:
    return settings_of(_NAMES, hf_config, head) | {"d_embed": hf_config.embedding_size}


def _weights(source: Weights, cfg: HookedEncoderConfig) -> Weights:
    weights = weights_of(_NAMES, source, cfg)
    if cfg.projects_embedding:
        weights["embed_project.weight"] = source["electra.embeddings_project.weight"]
        weights["embed_project.bias"] = source["electra.embeddings_project.bias"]
    return weights


ELECTRA = Family(
    name="electra",
    model_types=("electra",),
    prefixes=("Electra",),
    settings=_settings,
    weights=_weights,
    # The discriminator predicts no words, so it is loaded without a head.
    other_classes={"ElectraForPreTraining": "none"},
)
