"""DeBERTa, and DeBERTa-v2, whose classes also hold DeBERTa-v3 and mDeBERTa.

He et al. 2021, "DeBERTa: Decoding-enhanced BERT with Disentangled Attention".
"""

from dataclasses import replace
from typing import Any, get_args

import torch
from einops import rearrange

from negprobe.models.config import Head, HookedEncoderConfig, PositionTerm
from negprobe.models.config_fields import Field, activation, bad_field, one_of, switch, whole
from negprobe.models.families.bert_like import Names, norm, projection, settings_of, weights_of
from negprobe.models.families.family import Family, Weights

_LM_HEAD = "lm_predictions.lm_head"

_LEGACY = Names(
    prefix="deberta",
    attention_q="attention.self.query_proj",
    attention_k="attention.self.key_proj",
    attention_v="attention.self.value_proj",
    lm_dense="cls.predictions.transform.dense",
    lm_ln="cls.predictions.transform.LayerNorm",
    lm_decoder="cls.predictions.decoder",
    lm_act=None,
    class_dense="pooler.dense",
    class_out="classifier",
    class_act="gelu",
)
_NAMES = replace(_LEGACY, lm_dense=f"{_LM_HEAD}.dense", lm_ln=f"{_LM_HEAD}.LayerNorm", lm_decoder=f"{_LM_HEAD}.decoder")

_POSITION_MODULES = {"c2p": ("pos_K", "pos_key_proj"), "p2c": ("pos_Q", "pos_query_proj")}
"""Our name and DeBERTa-v2's for the weights that project the embeddings of distances, by the term they are for."""

_MOST_DISTANCES = 10**5


def _position_terms(value: object, field: str, name: str) -> list[str] | None:
    """Terms of the scores, as a list or as a string such as "c2p|p2c"."""
    terms = [term.strip() for term in value.lower().split("|")] if isinstance(value, str) else value
    if terms is None:
        return None
    if not isinstance(terms, list) or not all(term in get_args(PositionTerm) for term in terms):
        raise bad_field(field, value, "a list of 'c2p' and 'p2c', the terms that negprobe supports", name)
    if len(set(terms)) < len(terms):
        raise bad_field(field, value, "a list without repetitions", name)
    return terms


def _relative_norm(value: object, field: str, name: str) -> str:
    """How embeddings of distances are normalised, as a string such as "layer_norm"."""
    if not isinstance(value, str) or not set(_parts(value)) <= {"none", "layer_norm"}:
        raise bad_field(field, value, "'layer_norm' or 'none', which negprobe supports", name)
    return value


def _kernel_size(value: object, field: str, name: str) -> int:
    """An odd number of tokens, or a number below 1 for no convolution."""
    if not isinstance(value, int) or isinstance(value, bool) or value > 99 or (value > 0 and value % 2 == 0):
        raise bad_field(field, value, "an odd whole number below 100, or 0 for no convolution", name)
    return value


def _check(hf_config: Any, head: Head, name: str) -> None:
    """Check the fields that depend on each other; with these values transformers fails, or computes nonsense."""
    width = hf_config.hidden_size
    expected = {"embedding_size": width, "attention_head_size": width // hf_config.num_attention_heads}
    if head == "classification":
        expected["pooler_hidden_size"] = width
    for field, size in expected.items():
        if getattr(hf_config, field, size) != size:
            raise bad_field(field, getattr(hf_config, field), f"{size}, the only size that negprobe supports", name)
    if _kernel(hf_config) and width % _groups(hf_config):
        raise bad_field("conv_groups", _groups(hf_config), f"a divisor of hidden_size = {width}", name)
    if _kernel(hf_config) and hf_config.num_hidden_layers == 1:
        raise bad_field(
            "num_hidden_layers", 1, "at least 2, which negprobe needs for a model with conv_kernel_size", name
        )
    buckets, distance = _buckets(hf_config), _max_distance(hf_config)
    if buckets == 1 or (buckets and buckets // 2 >= distance - 1):
        expected_buckets = f"at least 2, and less than twice max_relative_positions - 1 = {distance - 1}"
        raise bad_field("position_buckets", buckets, expected_buckets, name)


def _settings(hf_config: Any, head: Head) -> dict[str, Any]:
    terms = tuple(hf_config.pos_att_type or ())
    has_terms = hf_config.relative_attention and bool(terms)
    width = hf_config.hidden_size // hf_config.num_attention_heads
    # Hugging Face's models round the scale to float32, and count the terms even if relative_attention is off.
    scale = float(torch.tensor(width * (1 + len(terms)), dtype=torch.float32).sqrt())
    settings = settings_of(_LEGACY, hf_config, head) | {
        "embeds_positions": hf_config.position_biased_input,
        "positions": "disentangled" if has_terms else "absolute",
        "position_terms": terms if has_terms else (),
        "shared_position_weights": has_terms and getattr(hf_config, "share_att_key", False),
        "relative_buckets": _buckets(hf_config) if has_terms else 0,
        "relative_max_distance": _max_distance(hf_config) if has_terms else 0,
        "relative_norm": has_terms and "layer_norm" in _parts(getattr(hf_config, "norm_rel_ebd", "none")),
        "attn_scale": scale,
        "conv_kernel_size": _kernel(hf_config),
        "conv_groups": _groups(hf_config),
        "conv_act": getattr(hf_config, "conv_act", "tanh"),
    }
    return settings | ({"head_act": hf_config.pooler_hidden_act} if head == "classification" else {})


def _parts(value: str) -> list[str]:
    return [part.strip() for part in value.lower().split("|")]


def _kernel(hf_config: Any) -> int:
    """The number of tokens that the convolution reads; 0 if there is none."""
    return max(0, getattr(hf_config, "conv_kernel_size", 0))


def _groups(hf_config: Any) -> int:
    return int(getattr(hf_config, "conv_groups", 1))


def _buckets(hf_config: Any) -> int:
    """The number of buckets of distances on each side; 0 for one bucket per distance."""
    return max(0, getattr(hf_config, "position_buckets", 0))


def _max_distance(hf_config: Any) -> int:
    given = int(hf_config.max_relative_positions)
    return given if given > 0 else int(hf_config.max_position_embeddings)


def _weights(source: Weights, cfg: HookedEncoderConfig) -> Weights:
    names = _LEGACY
    if f"{_LM_HEAD}.bias" in source:
        names = _NAMES
        source = source | {
            f"{_LM_HEAD}.decoder.weight": source["deberta.embeddings.word_embeddings.weight"],
            f"{_LM_HEAD}.decoder.bias": source[f"{_LM_HEAD}.bias"],
        }
    weights = weights_of(names, source, cfg)
    if cfg.positions == "disentangled":
        weights["rel_embed.W"] = source["deberta.encoder.rel_embeddings.weight"]
        for layer in range(cfg.n_layers if not cfg.shared_position_weights else 0):
            for term in cfg.position_terms:
                ours, theirs = _POSITION_MODULES[term]
                module = f"deberta.encoder.layer.{layer}.attention.self.{theirs}"
                of_heads = projection(source, module, ours, cfg.n_heads, cfg.n_heads)
                weights |= {f"blocks.{layer}.attn.{parameter}": tensor for parameter, tensor in of_heads.items()}
    if cfg.relative_norm:
        weights |= norm(source, "deberta.encoder.LayerNorm", "rel_embed.ln")
    if cfg.conv_kernel_size:
        weights |= norm(source, "deberta.encoder.conv.LayerNorm", "blocks.0.conv.ln")
        weights["blocks.0.conv.W"] = source["deberta.encoder.conv.conv.weight"]
        weights["blocks.0.conv.b"] = source["deberta.encoder.conv.conv.bias"]
    return weights


def _weights_of_first_version(source: Weights, cfg: HookedEncoderConfig) -> Weights:
    """The weights of DeBERTa, whose projections are one matrix, and whose keys have no bias, by the later names."""
    renamed = dict(source)
    for layer in range(cfg.n_layers):
        attention = f"deberta.encoder.layer.{layer}.attention.self"
        fused = rearrange(source[f"{attention}.in_proj.weight"], "(head n d) m -> n (head d) m", head=cfg.n_heads, n=3)
        # Contiguous, so that no call has to copy the weights of all heads into one matrix.
        for name, weight in zip(("query_proj", "key_proj", "value_proj"), fused.contiguous(), strict=True):
            renamed[f"{attention}.{name}.weight"] = weight
        renamed[f"{attention}.query_proj.bias"] = source[f"{attention}.q_bias"]
        renamed[f"{attention}.value_proj.bias"] = source[f"{attention}.v_bias"]
        for theirs, ours in (("pos_proj", "pos_key_proj"), ("pos_q_proj", "pos_query_proj")):
            renamed |= {
                f"{attention}.{ours}.{part}": source[f"{attention}.{theirs}.{part}"]
                for part in ("weight", "bias")
                if f"{attention}.{theirs}.{part}" in source
            }
    return _weights(renamed, cfg)


_FIELDS: dict[str, Field] = {
    "type_vocab_size": whole(0, 10**6),
    "relative_attention": switch,
    "max_relative_positions": whole(-1, _MOST_DISTANCES),
    "position_biased_input": switch,
    "pos_att_type": _position_terms,
    "pooler_hidden_act": activation,
    "pooler_hidden_size": whole(1, 10**6),
    "legacy": switch,
}

DEBERTA = Family(
    name="deberta",
    model_types=("deberta",),
    prefixes=("Deberta",),
    settings=_settings,
    weights=_weights_of_first_version,
    fields=_FIELDS | {"talking_head": one_of(False)},
    check=_check,
)

DEBERTA_V2 = Family(
    name="deberta-v2",
    model_types=("deberta-v2",),
    prefixes=("DebertaV2",),
    settings=_settings,
    weights=_weights,
    fields=_FIELDS
    | {
        "attention_head_size": whole(1, 10**6),
        "share_att_key": switch,
        "position_buckets": whole(-1, _MOST_DISTANCES),
        "norm_rel_ebd": _relative_norm,
        "conv_kernel_size": _kernel_size,
        "conv_groups": whole(1, 10**6),
        "conv_act": activation,
    },
    check=_check,
)
