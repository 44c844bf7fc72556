"""MPNet, such as all-mpnet-base-v2. Song et al. 2020, "MPNet"."""

from typing import Any

from negprobe.models.config import Head, HookedEncoderConfig
from negprobe.models.config_fields import one_of
from negprobe.models.families.bert_like import Names, counting_from_padding, settings_of, weights_of
from negprobe.models.families.family import Family, Weights

_NAMES = Names(
    prefix="mpnet",
    attention_q="attention.attn.q",
    attention_k="attention.attn.k",
    attention_v="attention.attn.v",
    attention_out="attention.attn.o",
    ln1="attention.LayerNorm",
    lm_dense="lm_head.dense",
    lm_ln="lm_head.layer_norm",
    lm_decoder="lm_head.decoder",
    lm_act="gelu",
    class_dense="classifier.dense",
    class_out="classifier.out_proj",
    class_act="tanh",
)

# Hugging Face's model uses these numbers whatever its configuration says.
_BUCKETS, _MAX_DISTANCE, _PADDING = 32, 128, 1


def _settings(hf_config: Any, head: Head) -> dict[str, Any]:
    return counting_from_padding(settings_of(_NAMES, hf_config, head), _PADDING) | {
        "n_token_types": 0,
        "positions": "relative",
        "relative_buckets": _BUCKETS,
        "relative_max_distance": _MAX_DISTANCE,
    }


def _weights(source: Weights, cfg: HookedEncoderConfig) -> Weights:
    return weights_of(_NAMES, source, cfg) | {"position_bias.W": source["mpnet.encoder.relative_attention_bias.weight"]}


MPNET = Family(
    name="mpnet",
    model_types=("mpnet",),
    prefixes=("MPNet",),
    settings=_settings,
    weights=_weights,
    fields={"relative_attention_num_buckets": one_of(_BUCKETS), "pad_token_id": one_of(_PADDING)},
    unused_poolers=("MPNetModel",),
    counts_from_padding=True,
)
