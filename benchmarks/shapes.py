"""Randomly initialised masked LMs of the shapes of known models, for the other benchmarks."""

from collections.abc import Callable

import transformers
from transformers import PreTrainedConfig, PreTrainedModel


def bert(layers: int, width: int, heads: int) -> Callable[[], PreTrainedConfig]:
    """Makes the configuration of a BERT of this shape."""
    return lambda: transformers.BertConfig(
        num_hidden_layers=layers, hidden_size=width, num_attention_heads=heads, intermediate_size=4 * width
    )


def deberta_v3_base() -> PreTrainedConfig:
    """The configuration of microsoft/deberta-v3-base."""
    return transformers.DebertaV2Config(
        hidden_size=768,
        num_hidden_layers=12,
        num_attention_heads=12,
        intermediate_size=3072,
        vocab_size=128100,
        type_vocab_size=0,
        layer_norm_eps=1e-7,
        relative_attention=True,
        max_relative_positions=-1,
        position_buckets=256,
        norm_rel_ebd="layer_norm",
        share_att_key=True,
        pos_att_type=["p2c", "c2p"],
        position_biased_input=False,
    )


SHAPES: dict[str, Callable[[], PreTrainedConfig]] = {
    "2 x 128": bert(2, 128, 2),
    "6 x 768": bert(6, 768, 12),
    "12 x 768": bert(12, 768, 12),
    "MPNet-base": lambda: transformers.MPNetConfig(max_position_embeddings=514),
    "ModernBERT-base": transformers.ModernBertConfig,
    "DeBERTa-v3-base": deberta_v3_base,
}


def masked_lm(name: str, attention: str = "eager", **changes: object) -> PreTrainedModel | None:
    """A masked LM of this shape, or None if it does not have this implementation of attention."""
    config = SHAPES[name]()
    for field, value in changes.items():
        setattr(config, field, value)
    try:
        return transformers.AutoModelForMaskedLM.from_config(config, attn_implementation=attention).eval()
    except ValueError:
        return None
