"""Hugging Face's weights in TransformerLens's per-head layout, for each family of encoders."""

from dataclasses import dataclass
from typing import Any

from einops import rearrange
from torch import Tensor
from transformers import PreTrainedModel

from negprobe.base.errors import ModelError
from negprobe.base.texts import quoted
from negprobe.models.config import PROBLEM_TYPES, Head, HookedEncoderConfig, ProblemType

Weights = dict[str, Tensor]


@dataclass(frozen=True)
class Family:
    """Names of the Hugging Face modules that hold a family's weights.

    `prefix` is the base model's name. `blocks` is relative to the base model, `attention_q` to `ln2` are relative to
    one block, and the modules of the heads (`lm_...`, `class_...`) are relative to the whole model. `lm_act=None` means
    that the head uses the same activation function as the model's MLPs.
    """

    prefix: str
    blocks: str
    attention_q: str
    attention_k: str
    attention_v: str
    attention_out: str
    ln1: str
    mlp_in: str
    mlp_out: str
    ln2: str
    lm_dense: str
    lm_ln: str
    lm_decoder: str
    lm_act: str | None
    class_dense: str
    class_out: str
    class_act: str


_BERT_BLOCK = {
    "blocks": "encoder.layer",
    "attention_q": "attention.self.query",
    "attention_k": "attention.self.key",
    "attention_v": "attention.self.value",
    "attention_out": "attention.output.dense",
    "ln1": "attention.output.LayerNorm",
    "mlp_in": "intermediate.dense",
    "mlp_out": "output.dense",
    "ln2": "output.LayerNorm",
}

FAMILIES = {
    "bert": Family(
        prefix="bert",
        **_BERT_BLOCK,
        lm_dense="cls.predictions.transform.dense",
        lm_ln="cls.predictions.transform.LayerNorm",
        lm_decoder="cls.predictions.decoder",
        lm_act=None,
        class_dense="bert.pooler.dense",
        class_out="classifier",
        class_act="tanh",
    ),
    "distilbert": Family(
        prefix="distilbert",
        blocks="transformer.layer",
        attention_q="attention.q_lin",
        attention_k="attention.k_lin",
        attention_v="attention.v_lin",
        attention_out="attention.out_lin",
        ln1="sa_layer_norm",
        mlp_in="ffn.lin1",
        mlp_out="ffn.lin2",
        ln2="output_layer_norm",
        lm_dense="vocab_transform",
        lm_ln="vocab_layer_norm",
        lm_decoder="vocab_projector",
        lm_act=None,
        class_dense="pre_classifier",
        class_out="classifier",
        class_act="relu",
    ),
    "roberta": Family(
        prefix="roberta",
        **_BERT_BLOCK,
        lm_dense="lm_head.dense",
        lm_ln="lm_head.layer_norm",
        lm_decoder="lm_head.decoder",
        lm_act="gelu",
        class_dense="classifier.dense",
        class_out="classifier.out_proj",
        class_act="tanh",
    ),
    "electra": Family(
        prefix="electra",
        **_BERT_BLOCK,
        lm_dense="generator_predictions.dense",
        lm_ln="generator_predictions.LayerNorm",
        lm_decoder="generator_lm_head",
        lm_act="gelu",
        class_dense="classifier.dense",
        class_out="classifier.out_proj",
        class_act="gelu",
    ),
}

# The family of each supported Hugging Face `model_type`, which decides how its weights are converted.
FAMILY_OF = {
    "bert": "bert",
    "distilbert": "distilbert",
    "roberta": "roberta",
    "xlm-roberta": "roberta",
    "camembert": "roberta",
    "electra": "electra",
}


def _classes(*prefixes: str) -> dict[str, Head]:
    suffixes: dict[str, Head] = {
        "ForMaskedLM": "masked_lm",
        "ForSequenceClassification": "classification",
        "Model": "none",
    }
    return {prefix + suffix: head for prefix in prefixes for suffix, head in suffixes.items()}


# The supported transformers classes of each family, with the head of each class.
CLASSES: dict[str, dict[str, Head]] = {
    "bert": _classes("Bert") | {"BertForPreTraining": "masked_lm"},
    "distilbert": _classes("DistilBert"),
    "roberta": _classes("Roberta", "XLMRoberta", "Camembert"),
    # The discriminator predicts no words, so it is loaded without a head.
    "electra": _classes("Electra") | {"ElectraForPreTraining": "none"},
}


def check_supported(config: Any, architecture: str) -> None:
    """Check that a configuration describes a supported encoder.

    Args:
        config: Hugging Face's configuration.
        architecture: The class that the checkpoint was saved from, such as "BertForMaskedLM".

    Raises:
        ModelError: for decoders, unknown families, relative position embeddings and a model without a padding token.
    """
    supported = ", ".join(FAMILY_OF)
    model_type = getattr(config, "model_type", "?")
    generative = architecture.endswith(("ForCausalLM", "LMHeadModel", "ForConditionalGeneration"))
    if getattr(config, "is_decoder", False) or getattr(config, "is_encoder_decoder", False) or generative:
        raise ModelError(
            f"{architecture} ({model_type}) is a decoder or contains one, but negprobe supports encoders only. "
            f"Load a model of one of these types: {supported}."
        )
    if not isinstance(model_type, str) or model_type not in FAMILY_OF:
        raise ModelError(
            f"negprobe has no conversion for model type {model_type!r} ({architecture}). "
            f"Supported types are {supported}."
        )
    if getattr(config, "position_embedding_type", None) not in (None, "absolute"):
        raise ModelError(
            f"{architecture} has {config.position_embedding_type!r} position embeddings; "
            "negprobe supports only absolute ones. Load a model that has them."
        )
    if getattr(config, "pad_token_id", 0) is None:
        raise ModelError(
            f"{architecture} has no pad_token_id, which negprobe needs to distinguish padding from text. Set it in "
            "config.json."
        )


def head_of(architecture: str) -> Head:
    """The head of a class in `CLASSES`; raises `ModelError` for any other class."""
    for classes in CLASSES.values():
        if architecture in classes:
            return classes[architecture]
    raise ModelError(
        f"{architecture} has a head that negprobe does not support; it supports masked language models "
        "(…ForMaskedLM), sequence classifiers (…ForSequenceClassification) and plain encoders (…Model)."
    )


def checked_problem_type(value: object, n_labels: int, name: str) -> ProblemType | None:
    """A classifier's `problem_type`, or None if its configuration has none.

    Raises:
        ModelError: for an unknown value, or for "single_label_classification" with one label.
    """
    found = next((known for known in PROBLEM_TYPES if known == value), None)
    if found is None and value is not None:
        raise ModelError(
            f"The configuration of {name!r} has problem_type = {quoted(value)}; choose one of "
            f"{', '.join(PROBLEM_TYPES)}, or null."
        )
    if found == "single_label_classification" and n_labels == 1:
        raise ModelError(
            f"The configuration of {name!r} has problem_type = {found!r} and only one label, so its probability would "
            "always be 1. Write 'regression' for a score, or 'multi_label_classification' for a probability."
        )
    return found


def encoder_config(hf_config: Any, architecture: str, name: str) -> HookedEncoderConfig:
    """The `HookedEncoderConfig` of a supported Hugging Face configuration (see `check_supported`)."""
    family = FAMILY_OF[hf_config.model_type]
    layout = FAMILIES[family]
    head = head_of(architecture)
    is_roberta, is_distilbert = family == "roberta", family == "distilbert"
    act_fn = hf_config.activation if is_distilbert else hf_config.hidden_act
    first_position = hf_config.pad_token_id + 1 if is_roberta else 0
    is_classifier = head == "classification"
    labels = tuple(hf_config.id2label[i] for i in range(hf_config.num_labels)) if is_classifier else ()
    head_act = {"masked_lm": layout.lm_act or act_fn, "classification": layout.class_act, "none": act_fn}[head]
    return HookedEncoderConfig(
        model_name=name,
        family=family,
        head=head,
        d_model=hf_config.hidden_size,
        d_head=hf_config.hidden_size // hf_config.num_attention_heads,
        n_heads=hf_config.num_attention_heads,
        n_layers=hf_config.num_hidden_layers,
        d_mlp=hf_config.hidden_dim if is_distilbert else hf_config.intermediate_size,
        d_vocab=hf_config.vocab_size,
        d_embed=hf_config.embedding_size if family == "electra" else hf_config.hidden_size,
        n_ctx=hf_config.max_position_embeddings - first_position,
        n_token_types=0 if is_distilbert else hf_config.type_vocab_size,
        first_position=first_position,
        pad_token_id=hf_config.pad_token_id,
        eps=1e-12 if is_distilbert else float(hf_config.layer_norm_eps),
        act_fn=act_fn,
        head_act=head_act,
        labels=labels,
        problem_type=checked_problem_type(hf_config.problem_type, len(labels), name) if is_classifier else None,
        positional_embedding_type="standard",
        default_prepend_bos=False,
        device="cpu",
    )


def convert(hf_model: PreTrainedModel, cfg: HookedEncoderConfig) -> Weights:
    """Views (not copies) of a Hugging Face model's weights, by `HookedEncoder`'s parameter names."""
    family = FAMILIES[cfg.family]
    source = {name: tensor.detach() for name, tensor in hf_model.state_dict().items()}
    # A plain encoder's weights have no prefix. Add it, so that all models have the same names.
    if hf_model.base_model is hf_model:
        source = {f"{family.prefix}.{name}": tensor for name, tensor in source.items()}

    weights = _embedding_weights(source, family, cfg)
    for layer in range(cfg.n_layers):
        block = f"{family.prefix}.{family.blocks}.{layer}"
        weights |= {f"blocks.{layer}.{k}": v for k, v in _block_weights(source, block, family, cfg).items()}
    if cfg.head == "masked_lm":
        weights |= {
            "mlm_head.W": source[f"{family.lm_dense}.weight"].T,
            "mlm_head.b": source[f"{family.lm_dense}.bias"],
            "mlm_head.ln.w": source[f"{family.lm_ln}.weight"],
            "mlm_head.ln.b": source[f"{family.lm_ln}.bias"],
            "unembed.W_U": source[f"{family.lm_decoder}.weight"].T,
            "unembed.b_U": source[f"{family.lm_decoder}.bias"],
        }
    elif cfg.head == "classification":
        weights |= {
            "classifier.W_pool": source[f"{family.class_dense}.weight"].T,
            "classifier.b_pool": source[f"{family.class_dense}.bias"],
            "classifier.W_label": source[f"{family.class_out}.weight"].T,
            "classifier.b_label": source[f"{family.class_out}.bias"],
        }
    return weights


def _embedding_weights(source: Weights, family: Family, cfg: HookedEncoderConfig) -> Weights:
    embeddings = f"{family.prefix}.embeddings"
    weights = {
        "embed.W_E": source[f"{embeddings}.word_embeddings.weight"],
        # A sentence encoder may be limited to fewer tokens than it has position embeddings.
        "embed.W_pos": source[f"{embeddings}.position_embeddings.weight"][: cfg.first_position + cfg.n_ctx],
        "embed.ln.w": source[f"{embeddings}.LayerNorm.weight"],
        "embed.ln.b": source[f"{embeddings}.LayerNorm.bias"],
    }
    if cfg.n_token_types:
        weights["embed.W_token_type"] = source[f"{embeddings}.token_type_embeddings.weight"]
    if cfg.d_embed != cfg.d_model:
        weights["embed_project.weight"] = source[f"{family.prefix}.embeddings_project.weight"]
        weights["embed_project.bias"] = source[f"{family.prefix}.embeddings_project.bias"]
    return weights


def _block_weights(source: Weights, block: str, family: Family, cfg: HookedEncoderConfig) -> Weights:
    weights = {
        "ln1.w": source[f"{block}.{family.ln1}.weight"],
        "ln1.b": source[f"{block}.{family.ln1}.bias"],
        "mlp.W_in": source[f"{block}.{family.mlp_in}.weight"].T,
        "mlp.b_in": source[f"{block}.{family.mlp_in}.bias"],
        "mlp.W_out": source[f"{block}.{family.mlp_out}.weight"].T,
        "mlp.b_out": source[f"{block}.{family.mlp_out}.bias"],
        "ln2.w": source[f"{block}.{family.ln2}.weight"],
        "ln2.b": source[f"{block}.{family.ln2}.bias"],
        "attn.b_O": source[f"{block}.{family.attention_out}.bias"],
        "attn.W_O": rearrange(
            source[f"{block}.{family.attention_out}.weight"],
            "d_model (head d_head) -> head d_head d_model",
            head=cfg.n_heads,
        ),
    }
    for name, module in (("Q", family.attention_q), ("K", family.attention_k), ("V", family.attention_v)):
        W, b = source[f"{block}.{module}.weight"], source[f"{block}.{module}.bias"]
        weights[f"attn.W_{name}"] = rearrange(W, "(head d_head) d_model -> head d_model d_head", head=cfg.n_heads)
        weights[f"attn.b_{name}"] = rearrange(b, "(head d_head) -> head d_head", head=cfg.n_heads)
    return weights
