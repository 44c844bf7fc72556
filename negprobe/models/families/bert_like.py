"""What the families derived from BERT share: one module per projection, with a bias, and similar heads."""

from dataclasses import dataclass
from typing import Any

from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from negprobe.models.config import Head, HookedEncoderConfig
from negprobe.models.families.family import Weights


@dataclass(frozen=True)
class Names:
    """Names of the Hugging Face modules that hold a family's weights.

    `prefix` is the base model's name. `blocks` is relative to the base model, `attention_q` to `ln2` are relative to
    one block, and the modules of the heads (`lm_...`, `class_...`) are relative to the whole model. `lm_act=None` means
    that the head uses the same activation function as the model's MLPs.
    """

    prefix: str
    lm_dense: str
    lm_ln: str
    lm_decoder: str
    lm_act: str | None
    class_dense: str
    class_out: str
    class_act: str
    blocks: str = "encoder.layer"
    attention_q: str = "attention.self.query"
    attention_k: str = "attention.self.key"
    attention_v: str = "attention.self.value"
    attention_out: str = "attention.output.dense"
    ln1: str = "attention.output.LayerNorm"
    mlp_in: str = "intermediate.dense"
    mlp_out: str = "output.dense"
    ln2: str = "output.LayerNorm"


def settings_of(names: Names, hf_config: Any, head: Head) -> dict[str, Any]:
    """The family's own fields of a `HookedEncoderConfig`, for a configuration with BERT's field names."""
    act_fn = hf_config.hidden_act
    return {
        "d_mlp": hf_config.intermediate_size,
        "n_ctx": hf_config.max_position_embeddings,
        "n_token_types": getattr(hf_config, "type_vocab_size", 0),
        "eps": float(hf_config.layer_norm_eps),
        "act_fn": act_fn,
        "head_act": {"masked_lm": names.lm_act or act_fn, "classification": names.class_act, "none": act_fn}[head],
    }


def counting_from_padding(settings: dict[str, Any], padding: int) -> dict[str, Any]:
    """The settings of a model whose first position embeddings are for padding."""
    first = padding + 1
    return settings | {"first_position": first, "n_ctx": settings["n_ctx"] - first}


def weights_of(names: Names, source: Weights, cfg: HookedEncoderConfig) -> Weights:
    """The weights by `HookedEncoder`'s parameter names."""
    weights = _embedding_weights(source, names.prefix, cfg)
    for layer in range(cfg.n_layers):
        block = f"{names.prefix}.{names.blocks}.{layer}"
        weights |= {f"blocks.{layer}.{k}": v for k, v in block_weights(source, block, names, cfg).items()}
    return weights | head_weights(source, names, cfg)


def head_weights(source: Weights, names: Names, cfg: HookedEncoderConfig) -> Weights:
    """The weights of the head."""
    if cfg.head == "masked_lm":
        return {
            "mlm_head.W": source[f"{names.lm_dense}.weight"].T,
            "mlm_head.b": source[f"{names.lm_dense}.bias"],
            "mlm_head.ln.w": source[f"{names.lm_ln}.weight"],
            "mlm_head.ln.b": source[f"{names.lm_ln}.bias"],
            "unembed.W_U": source[f"{names.lm_decoder}.weight"].T,
            "unembed.b_U": source[f"{names.lm_decoder}.bias"],
        }
    if cfg.head == "classification":
        return {
            "classifier.W_pool": source[f"{names.class_dense}.weight"].T,
            "classifier.b_pool": source[f"{names.class_dense}.bias"],
            "classifier.W_label": source[f"{names.class_out}.weight"].T,
            "classifier.b_label": source[f"{names.class_out}.bias"],
        }
    return {}


def _embedding_weights(source: Weights, prefix: str, cfg: HookedEncoderConfig) -> Weights:
    embeddings = f"{prefix}.embeddings"
    weights = {
        "embed.W_E": source[f"{embeddings}.word_embeddings.weight"],
        "embed.ln.w": source[f"{embeddings}.LayerNorm.weight"],
        "embed.ln.b": source[f"{embeddings}.LayerNorm.bias"],
    }
    if cfg.embeds_positions:
        # A sentence encoder may be limited to fewer tokens than it has position embeddings.
        positions = source[f"{embeddings}.position_embeddings.weight"]
        weights["embed.W_pos"] = positions[: cfg.first_position + cfg.n_ctx]
    if cfg.n_token_types:
        weights["embed.W_token_type"] = source[f"{embeddings}.token_type_embeddings.weight"]
    return weights


def block_weights(source: Weights, block: str, names: Names, cfg: HookedEncoderConfig) -> Weights:
    """The weights of the block with this name."""
    weights = {
        "ln1.w": source[f"{block}.{names.ln1}.weight"],
        "ln1.b": source[f"{block}.{names.ln1}.bias"],
        "mlp.W_in": source[f"{block}.{names.mlp_in}.weight"].T,
        "mlp.b_in": source[f"{block}.{names.mlp_in}.bias"],
        "mlp.W_out": source[f"{block}.{names.mlp_out}.weight"].T,
        "mlp.b_out": source[f"{block}.{names.mlp_out}.bias"],
        "ln2.w": source[f"{block}.{names.ln2}.weight"],
        "ln2.b": source[f"{block}.{names.ln2}.bias"],
        "attn.b_O": source[f"{block}.{names.attention_out}.bias"],
        "attn.W_O": rearrange(
            source[f"{block}.{names.attention_out}.weight"],
            "d_model (head d_head) -> head d_head d_model",
            head=cfg.n_heads,
        ),
    }
    for name, module in (("Q", names.attention_q), ("K", names.attention_k), ("V", names.attention_v)):
        W, b = by_head(source[f"{block}.{module}.weight"], source[f"{block}.{module}.bias"], cfg)
        weights |= {f"attn.W_{name}": W, f"attn.b_{name}": b}
    return weights


def by_head(
    weight: Float[Tensor, "width d_model"], bias: Float[Tensor, " width"], cfg: HookedEncoderConfig
) -> tuple[Float[Tensor, "head d_model d_head"], Float[Tensor, "head d_head"]]:
    """The weight and bias of a projection, as views for each head."""
    return (
        rearrange(weight, "(head d_head) d_model -> head d_model d_head", head=cfg.n_heads),
        rearrange(bias, "(head d_head) -> head d_head", head=cfg.n_heads),
    )
