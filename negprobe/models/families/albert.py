"""ALBERT, whose layers share their weights. Lan et al. 2020, "ALBERT"."""

from typing import Any

from negprobe.base.errors import ModelError
from negprobe.models.config import Head, HookedEncoderConfig
from negprobe.models.config_fields import whole
from negprobe.models.families.bert_like import Names, settings_of, weights_of
from negprobe.models.families.family import Family, Weights

_NAMES = Names(
    prefix="albert",
    attention_q="attention.query",
    attention_k="attention.key",
    attention_v="attention.value",
    attention_out="attention.dense",
    ln1="attention.LayerNorm",
    mlp_in="ffn",
    mlp_out="ffn_output",
    ln2="full_layer_layer_norm",
    lm_dense="predictions.dense",
    lm_ln="predictions.LayerNorm",
    lm_decoder="predictions.decoder",
    lm_act=None,
    class_dense="albert.pooler",
    class_out="classifier",
    class_act="tanh",
)


def _settings(hf_config: Any, head: Head) -> dict[str, Any]:
    return settings_of(_NAMES, hf_config, head) | {
        "d_embed": hf_config.embedding_size,
        "projects_embedding": True,
        "n_layers": hf_config.num_hidden_layers * hf_config.inner_group_num,
        "tied_to": _tied_to(hf_config.num_hidden_layers, hf_config.num_hidden_groups, hf_config.inner_group_num),
    }


def _tied_to(layers: int, groups: int, inner: int) -> tuple[int, ...]:
    """The first block with the weights of each block, where each of the layers consists of `inner` blocks."""
    if groups > layers:
        raise ModelError(
            f"The configuration has num_hidden_groups = {groups}, but only {layers} layers to divide into groups. Give "
            "at most as many groups as layers."
        )
    # The same division of floats as in Hugging Face's model, which rounds where the layers are not divisible.
    group_of = [int(layer / (layers / groups)) for layer in range(layers)]
    return tuple(group_of.index(group) * inner + block for group in group_of for block in range(inner))


def _weights(source: Weights, cfg: HookedEncoderConfig) -> Weights:
    # The modules of the groups, and in each group of its blocks, in the order in which the layers first use them.
    ending = f".{_NAMES.ln2}.weight"
    blocks = [name.removesuffix(ending) for name in source if name.endswith(ending)]
    mapping = "albert.encoder.embedding_hidden_mapping_in"
    return weights_of(_NAMES, source, cfg, blocks) | {
        "embed_project.weight": source[f"{mapping}.weight"],
        "embed_project.bias": source[f"{mapping}.bias"],
    }


ALBERT = Family(
    name="albert",
    model_types=("albert",),
    prefixes=("Albert",),
    settings=_settings,
    weights=_weights,
    fields=dict.fromkeys(("num_hidden_groups", "inner_group_num"), whole(1, 10**3)),
    other_classes={"AlbertForPreTraining": "masked_lm"},
    unused_poolers=("AlbertModel",),
)
