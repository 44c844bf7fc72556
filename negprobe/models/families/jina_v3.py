"""jina-embeddings-v3, without its task adapters. Sturua et al. 2024, "jina-embeddings-v3: Multilingual Embeddings With
Task LoRA".
"""

from functools import partial
from typing import Any

from negprobe.models.config import Head
from negprobe.models.families.bert_like import Names, settings_of, weights_of
from negprobe.models.families.family import Family
from negprobe.models.families.rotary import ROTARY_FIELDS, rotary_settings

_NAMES = Names(
    prefix="roberta",
    blocks="layers",
    attention_q="self_attn.q_proj",
    attention_k="self_attn.k_proj",
    attention_v="self_attn.v_proj",
    attention_out="self_attn.o_proj",
    ln1="post_attention_layernorm",
    mlp_in="mlp.fc1",
    mlp_out="mlp.fc2",
    ln2="post_mlp_layernorm",
    lm_dense="lm_head.dense",
    lm_ln="lm_head.layer_norm",
    lm_decoder="lm_head.decoder",
    lm_act="gelu",
    class_dense="classifier.dense",
    class_out="classifier.out_proj",
    class_act="tanh",
)


def _settings(hf_config: Any, head: Head) -> dict[str, Any]:
    return settings_of(_NAMES, hf_config, head) | rotary_settings(hf_config)


JINA_V3 = Family(
    name="jina_embeddings_v3",
    model_types=("jina_embeddings_v3",),
    prefixes=("JinaEmbeddingsV3",),
    settings=_settings,
    weights=partial(weights_of, _NAMES),
    fields=ROTARY_FIELDS,
    unused_poolers=("JinaEmbeddingsV3Model",),
)
