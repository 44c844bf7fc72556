"""EuroBERT, such as EuroBERT-210m. Boizard et al. 2025, "EuroBERT: Scaling Multilingual Encoders"."""

from typing import Any

from negprobe.models.config import ClassifierPooling, Head, HookedEncoderConfig
from negprobe.models.config_fields import number, one_of, optional, switch, whole
from negprobe.models.families.bert_like import Names, block_weights, head_weights, norm
from negprobe.models.families.family import Family, Weights
from negprobe.models.families.rotary import ROTARY_FIELDS, rotary_settings

_NAMES = Names(
    prefix="model",
    blocks="layers",
    attention_q="self_attn.q_proj",
    attention_k="self_attn.k_proj",
    attention_v="self_attn.v_proj",
    attention_out="self_attn.o_proj",
    ln1="input_layernorm",
    mlp_gate="mlp.gate_proj",
    mlp_in="mlp.up_proj",
    mlp_out="mlp.down_proj",
    ln2="post_attention_layernorm",
    lm_dense=None,
    lm_ln=None,
    lm_decoder="lm_head",
    lm_act=None,
    class_dense="dense",
    class_out="classifier",
    class_act="gelu",
)

_POOLINGS: dict[str, ClassifierPooling] = {"bos": "cls", "mean": "mean", "late": "late"}


def _settings(hf_config: Any, head: Head) -> dict[str, Any]:
    return rotary_settings(hf_config) | {
        "n_key_value_groups": hf_config.num_key_value_heads,
        "d_mlp": hf_config.intermediate_size,
        "n_ctx": hf_config.max_position_embeddings,
        "normalization_type": "RMS",
        "eps": float(hf_config.rms_norm_eps),
        "norms": "pre",
        "embed_norm": False,
        "act_fn": hf_config.hidden_act,
        "gated_mlp": True,
        "head_act": _NAMES.class_act,
        "head_transform": False,
        "classifier_pooling": _POOLINGS[hf_config.classifier_pooling],
    }


def _weights(source: Weights, cfg: HookedEncoderConfig) -> Weights:
    weights = {"embed.W_E": source["model.embed_tokens.weight"], **norm(source, "model.norm", "ln_final")}
    for layer in range(cfg.n_layers):
        block = block_weights(source, f"model.{_NAMES.blocks}.{layer}", _NAMES, cfg)
        weights |= {f"blocks.{layer}.{name}": weight for name, weight in block.items()}
    return weights | head_weights(source, _NAMES, cfg)


EUROBERT = Family(
    name="eurobert",
    model_types=("eurobert",),
    prefixes=("EuroBert",),
    settings=_settings,
    weights=_weights,
    fields={
        **ROTARY_FIELDS,
        "head_dim": optional(whole(1, 10**6)),
        "num_key_value_heads": optional(whole(1, 10**3)),
        "rms_norm_eps": number(0.0, 1.0),
        **dict.fromkeys(("attention_bias", "mlp_bias"), switch),
        "classifier_pooling": one_of(*_POOLINGS),
    },
    renamed={"clf_pooling": "classifier_pooling"},
)
