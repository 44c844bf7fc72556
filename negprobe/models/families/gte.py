"""GTE, such as gte-multilingual-base and gte-base-en-v1.5. Zhang et al. 2024, "mGTE: Generalized Long-Context Text
Representation and Reranking Models for Multilingual Text Retrieval".
"""

from functools import partial
from typing import Any

from negprobe.models.config import Head
from negprobe.models.config_fields import one_of, whole
from negprobe.models.families.bert_like import Names, settings_of, weights_of
from negprobe.models.families.family import Family
from negprobe.models.families.rotary import ROTARY_FIELDS, rotary_settings

_NAMES = Names(
    prefix="gte",
    blocks="layers",
    attention_q="self_attn.q_proj",
    attention_k="self_attn.k_proj",
    attention_v="self_attn.v_proj",
    attention_out="self_attn.o_proj",
    ln1="post_attention_layernorm",
    mlp_gate="mlp.gate_proj",
    mlp_in="mlp.up_proj",
    mlp_out="mlp.down_proj",
    ln2="post_mlp_layernorm",
    lm_dense="lm_head.dense",
    lm_ln="lm_head.layer_norm",
    lm_decoder="lm_head.decoder",
    lm_act="gelu",
    class_dense="gte.pooler.dense",
    class_out="classifier",
    class_act="tanh",
)


def _settings(hf_config: Any, head: Head) -> dict[str, Any]:
    return settings_of(_NAMES, hf_config, head) | rotary_settings(hf_config)


GTE = Family(
    name="gte",
    model_types=("gte",),
    prefixes=("Gte",),
    settings=_settings,
    weights=partial(weights_of, _NAMES),
    fields={
        **ROTARY_FIELDS,
        "type_vocab_size": whole(0, 10**6),
        # Settings of the original code; transformers' class computes only these values.
        **{"logn_attention_scale": one_of(False), "layer_norm_type": one_of("layer_norm")},
    },
)
