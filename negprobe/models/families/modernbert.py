"""ModernBERT: also Ettin, mmBERT, gte-modernbert and granite-embedding. Warner et al. 2024, "Smarter, Better, Faster,
Longer".
"""

from typing import Any

from einops import rearrange
from torch import Tensor

from negprobe.base.errors import ModelError
from negprobe.models.config import Head, HookedEncoderConfig
from negprobe.models.config_fields import activation, bad_field, number, one_of, switch, whole
from negprobe.models.families.family import Family, Weights

_FULL, _SLIDING = "full_attention", "sliding_attention"


def _layer_types(value: object, field: str, name: str) -> list[str] | None:
    """The kind of attention of each block, or None."""
    if value is None or (isinstance(value, list) and all(kind in (_FULL, _SLIDING) for kind in value)):
        return value
    raise bad_field(field, value, f"null or a list of {_FULL!r} and {_SLIDING!r}", name)


def _rope_parameters(value: object, field: str, name: str) -> dict[str, Any] | None:
    """The rotation of each kind of block, or None."""
    if value is None:
        return None
    if not isinstance(value, dict) or not value.keys() <= {_FULL, _SLIDING}:
        raise bad_field(field, value, f"null or a table with the entries {_FULL!r} and {_SLIDING!r}", name)
    for kind, given in value.items():
        where = f"{field}.{kind}"
        if not isinstance(given, dict):
            raise bad_field(where, given, "a table", name)
        for key in ("rope_type", "type"):
            if key in given:
                one_of("default")(given[key], f"{where}.{key}", name)
        if "rope_theta" in given:
            _BASE(given["rope_theta"], f"{where}.rope_theta", name)
    # transformers changes the tables that it is given.
    return {kind: dict(given) for kind, given in value.items()}


_BASE = number(1e-3, 1e30)


def _settings(hf_config: Any, head: Head) -> dict[str, Any]:
    kinds = hf_config.layer_types
    d_head = hf_config.hidden_size // hf_config.num_attention_heads
    if getattr(hf_config, "head_dim", d_head) != d_head:
        raise ModelError(
            f"The configuration has head_dim = {hf_config.head_dim}, but ModernBERT's heads have width hidden_size / "
            f"num_attention_heads = {d_head}. Correct or remove head_dim."
        )
    return {
        "d_mlp": hf_config.intermediate_size,
        "n_ctx": hf_config.max_position_embeddings,
        "eps": float(hf_config.norm_eps),
        "act_fn": hf_config.hidden_activation,
        "gated_mlp": True,
        "norms": "pre",
        "first_norm": False,
        "embeds_positions": False,
        "positions": "rotary",
        "rotary_bases": tuple(float(hf_config.rope_parameters[kind]["rope_theta"]) for kind in kinds),
        "windows": tuple(hf_config.sliding_window if kind == _SLIDING else None for kind in kinds),
        "head_act": hf_config.classifier_activation,
        "classifier_pooling": hf_config.classifier_pooling,
        "classifier_norm": True,
    }


def _weights(source: Weights, cfg: HookedEncoderConfig) -> Weights:
    weights = {
        "embed.W_E": source["model.embeddings.tok_embeddings.weight"],
        **_norm(source, "model.embeddings.norm", "embed.ln"),
        **_norm(source, "model.final_norm", "ln_final"),
    }
    for layer in range(cfg.n_layers):
        block = _block(source, f"model.layers.{layer}", cfg, has_ln1=layer > 0)
        weights |= {f"blocks.{layer}.{name}": weight for name, weight in block.items()}
    return weights | _head(source, cfg)


def _block(source: Weights, block: str, cfg: HookedEncoderConfig, has_ln1: bool) -> Weights:
    heads = {"three": 3, "head": cfg.n_heads}
    W_qkv, b_qkv = _linear(source, f"{block}.attn.Wqkv")
    W_qkv = rearrange(W_qkv, "(three head d_head) d_model -> three head d_model d_head", **heads)
    b_qkv = rearrange(b_qkv, "(three head d_head) -> three head d_head", **heads)
    W_O, b_O = _linear(source, f"{block}.attn.Wo")
    W_i, b_i = _linear(source, f"{block}.mlp.Wi")
    # The first half of the rows is for what the activation function is applied to.
    (W_gate, W_in), (b_gate, b_in) = W_i.chunk(2), b_i.chunk(2)
    W_out, b_out = _linear(source, f"{block}.mlp.Wo")
    return {
        **(_norm(source, f"{block}.attn_norm", "ln1") if has_ln1 else {}),
        **{f"attn.W_{name}": W for name, W in zip("QKV", W_qkv, strict=True)},
        **{f"attn.b_{name}": b for name, b in zip("QKV", b_qkv, strict=True)},
        "attn.W_O": rearrange(W_O, "d_model (head d_head) -> head d_head d_model", head=cfg.n_heads),
        "attn.b_O": b_O,
        **_norm(source, f"{block}.mlp_norm", "ln2"),
        **{"mlp.W_gate": W_gate.T, "mlp.b_gate": b_gate, "mlp.W_in": W_in.T, "mlp.b_in": b_in},
        **{"mlp.W_out": W_out.T, "mlp.b_out": b_out},
    }


def _head(source: Weights, cfg: HookedEncoderConfig) -> Weights:
    if cfg.head == "none":
        return {}
    W, b = _linear(source, "head.dense")
    if cfg.head == "masked_lm":
        W_U, b_U = _linear(source, "decoder")
        return {
            **{"mlm_head.W": W.T, "mlm_head.b": b, **_norm(source, "head.norm", "mlm_head.ln")},
            **{"unembed.W_U": W_U.T, "unembed.b_U": b_U},
        }
    W_label, b_label = _linear(source, "classifier")
    return {
        **{"classifier.W_pool": W.T, "classifier.b_pool": b, **_norm(source, "head.norm", "classifier.ln")},
        **{"classifier.W_label": W_label.T, "classifier.b_label": b_label},
    }


def _linear(source: Weights, module: str) -> tuple[Tensor, Tensor]:
    """The weight and the bias of a module; a bias that the model does not have is 0."""
    weight = source[f"{module}.weight"]
    return weight, source.get(f"{module}.bias", weight.new_zeros(len(weight)))


def _norm(source: Weights, module: str, name: str) -> Weights:
    weight, bias = _linear(source, module)
    return {f"{name}.w": weight, f"{name}.b": bias}


MODERNBERT = Family(
    name="modernbert",
    model_types=("modernbert",),
    prefixes=("ModernBert",),
    settings=_settings,
    weights=_weights,
    fields={
        "hidden_activation": activation,
        "classifier_activation": activation,
        "classifier_pooling": one_of("cls", "mean"),
        "norm_eps": number(0.0, 1.0),
        **dict.fromkeys(("norm_bias", "attention_bias", "mlp_bias", "decoder_bias", "classifier_bias"), switch),
        "layer_types": _layer_types,
        "global_attn_every_n_layers": whole(1, 10**3),
        "local_attention": whole(0, 10**7),
        "sliding_window": whole(0, 10**7),
        "rope_parameters": _rope_parameters,
        "rope_scaling": one_of(None),
        "global_rope_theta": _BASE,
        "local_rope_theta": _BASE,
        "head_dim": whole(1, 10**6),
    },
)
