"""NomicBERT, such as nomic-embed-text-v1.5. Nussbaum et al. 2024, "Nomic Embed"."""

from functools import partial
from typing import Any

from negprobe.models.config import Head
from negprobe.models.config_fields import one_of, optional, whole
from negprobe.models.families.bert_like import Names, settings_of, weights_of
from negprobe.models.families.family import Family
from negprobe.models.families.rotary import ROTARY_FIELDS, rotary_settings

_NAMES = Names(
    prefix="nomic_bert",
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
    lm_dense="cls.predictions.transform.dense",
    lm_ln="cls.predictions.transform.layer_norm",
    lm_decoder="cls.predictions.decoder",
    lm_act=None,
    class_dense="nomic_bert.pooler.dense",
    class_out="classifier",
    class_act="tanh",
)


def _settings(hf_config: Any, head: Head) -> dict[str, Any]:
    return settings_of(_NAMES, hf_config, head) | rotary_settings(hf_config)


NOMIC_BERT = Family(
    name="nomic_bert",
    model_types=("nomic_bert",),
    prefixes=("NomicBert",),
    settings=_settings,
    weights=partial(weights_of, _NAMES),
    fields={
        **ROTARY_FIELDS,
        "head_dim": optional(whole(1, 10**6)),
        # Settings of the original code; transformers' class computes only these values.
        **dict.fromkeys(("causal", "prenorm", "use_rms_norm", "parallel_block"), one_of(False)),
        **{"activation_function": one_of("swiglu"), "rotary_emb_fraction": one_of(1, 1.0)},
        **{"rotary_emb_interleaved": one_of(False), "rotary_scaling_factor": one_of(None)},
    },
    renamed={
        "n_embd": "hidden_size",
        "n_layer": "num_hidden_layers",
        "n_head": "num_attention_heads",
        "n_inner": "intermediate_size",
        "n_positions": "max_position_embeddings",
        "layer_norm_epsilon": "layer_norm_eps",
        "rotary_emb_base": "rope_theta",
    },
)
