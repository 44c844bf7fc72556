"""What the families derived from BERT share: one module per projection, norms after the sums, and similar heads."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from einops import rearrange, repeat
from torch import Tensor

from negprobe.models.config import Head, HookedEncoderConfig
from negprobe.models.families.family import Weights


@dataclass(frozen=True)
class Names:
    """Names of the Hugging Face modules that hold a family's weights.

    `prefix` is the base model's name. `blocks` is relative to the base model, `attention_q` to `ln2` are relative to
    one block, and the modules of the heads (`lm_...`, `class_...`) are relative to the whole model. `lm_act=None` means
    that the head uses the same activation function as the model's MLPs, `lm_dense=None` and `lm_ln=None` that a masked
    LM's head is the decoder alone, and `mlp_gate=None` that the MLPs are not gated. `ln_final` is
    the last norm of a pre-norm model, relative to the base model.
    """

    prefix: str
    lm_dense: str | None
    lm_ln: str | None
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
    mlp_gate: str | None = None
    mlp_in: str = "intermediate.dense"
    mlp_out: str = "output.dense"
    ln2: str = "output.LayerNorm"
    ln_final: str | None = None


def settings_of(names: Names, hf_config: Any, head: Head) -> dict[str, Any]:
    """The family's own fields of a `HookedEncoderConfig`, for a configuration with BERT's field names."""
    act_fn = hf_config.hidden_act
    return {
        "d_mlp": hf_config.intermediate_size,
        "n_ctx": hf_config.max_position_embeddings,
        "n_token_types": getattr(hf_config, "type_vocab_size", 0),
        "eps": float(hf_config.layer_norm_eps),
        "act_fn": act_fn,
        "gated_mlp": names.mlp_gate is not None,
        "head_act": {"masked_lm": names.lm_act or act_fn, "classification": names.class_act, "none": act_fn}[head],
    }


def counting_from_padding(settings: dict[str, Any], padding: int) -> dict[str, Any]:
    """The settings of a model whose first position embeddings are for padding."""
    first = padding + 1
    return settings | {"first_position": first, "n_ctx": settings["n_ctx"] - first}


def weights_of(names: Names, source: Weights, cfg: HookedEncoderConfig, blocks: Iterable[str] | None = None) -> Weights:
    """The weights by `HookedEncoder`'s parameter names.

    `blocks` are the names of the modules of `cfg.weight_layers`, if they are not numbered like the layers.
    """
    if blocks is None:
        blocks = [f"{names.prefix}.{names.blocks}.{layer}" for layer in cfg.weight_layers]
    weights = _embedding_weights(source, names.prefix, cfg)
    for layer, block in zip(cfg.weight_layers, blocks, strict=True):
        weights |= {f"blocks.{layer}.{k}": v for k, v in block_weights(source, block, names, cfg).items()}
    if names.ln_final is not None:
        weights["ln_final.w"] = source[f"{names.prefix}.{names.ln_final}.weight"]
        weights["ln_final.b"] = source[f"{names.prefix}.{names.ln_final}.bias"]
    return weights | head_weights(source, names, cfg)


def head_weights(source: Weights, names: Names, cfg: HookedEncoderConfig) -> Weights:
    """The weights of the head."""
    if cfg.head == "masked_lm":
        W_U, b_U = linear(source, names.lm_decoder)
        unembed = {"unembed.W_U": W_U.T, "unembed.b_U": b_U}
        if names.lm_dense is None or names.lm_ln is None:
            return unembed
        return unembed | {
            "mlm_head.W": source[f"{names.lm_dense}.weight"].T,
            "mlm_head.b": source[f"{names.lm_dense}.bias"],
            **norm(source, names.lm_ln, "mlm_head.ln"),
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
    }
    if cfg.embeds_positions:
        # A sentence encoder may be limited to fewer tokens than it has position embeddings.
        n_positions = cfg.first_position + cfg.n_ctx
        weights["embed.W_pos"] = source[f"{embeddings}.position_embeddings.weight"][:n_positions]
    if cfg.embed_norm:
        weights |= norm(source, f"{embeddings}.LayerNorm", "embed.ln")
    if cfg.n_token_types:
        weights["embed.W_token_type"] = source[f"{embeddings}.token_type_embeddings.weight"]
    return weights


def block_weights(source: Weights, block: str, names: Names, cfg: HookedEncoderConfig) -> Weights:
    """The weights of the block with this name."""
    W_in, b_in = linear(source, f"{block}.{names.mlp_in}")
    W_out, b_out = linear(source, f"{block}.{names.mlp_out}")
    W_O, b_O = linear(source, f"{block}.{names.attention_out}")
    weights = {
        **norm(source, f"{block}.{names.ln1}", "ln1"),
        "mlp.W_in": W_in.T,
        "mlp.b_in": b_in,
        "mlp.W_out": W_out.T,
        "mlp.b_out": b_out,
        **norm(source, f"{block}.{names.ln2}", "ln2"),
        "attn.W_O": rearrange(W_O, "d_model (head d_head) -> head d_head d_model", head=cfg.n_heads),
        "attn.b_O": b_O,
    }
    if names.mlp_gate is not None:
        W_gate, weights["mlp.b_gate"] = linear(source, f"{block}.{names.mlp_gate}")
        weights["mlp.W_gate"] = W_gate.T
    for name, module in (("Q", names.attention_q), ("K", names.attention_k), ("V", names.attention_v)):
        n_groups = cfg.n_heads if name == "Q" else cfg.n_key_value_groups
        of_heads = projection(source, f"{block}.{module}", name, cfg.n_heads, n_groups)
        weights |= {f"attn.{parameter}": tensor for parameter, tensor in of_heads.items()}
    return weights


def projection(source: Weights, module: str, name: str, n_heads: int, n_groups: int) -> Weights:
    """The weights `W_{name}` and `b_{name}` of each head, of a linear map with the same output for a group of heads."""
    sizes = {"group": n_groups, "copy": n_heads // n_groups}
    W, b = (
        repeat(tensor, "(group d_head) ... -> (group copy d_head) ...", **sizes) for tensor in linear(source, module)
    )
    return {
        f"W_{name}": rearrange(W, "(head d_head) d_model -> head d_model d_head", head=n_heads),
        f"b_{name}": rearrange(b, "(head d_head) -> head d_head", head=n_heads),
    }


def linear(source: Weights, module: str) -> tuple[Tensor, Tensor]:
    """The weight and the bias of a linear map; a bias that the class does not have is 0."""
    weight = source[f"{module}.weight"]
    return weight, source.get(f"{module}.bias", weight.new_zeros(len(weight)))


def norm(source: Weights, module: str, name: str) -> Weights:
    """The gain of a norm and, if it has one, the bias, as parameters of the norm `name`."""
    found = {"w": source[f"{module}.weight"], "b": source.get(f"{module}.bias")}
    return {f"{name}.{key}": tensor for key, tensor in found.items() if tensor is not None}
