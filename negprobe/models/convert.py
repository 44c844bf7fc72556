"""From Hugging Face's configuration and weights to `HookedEncoder`'s."""

from typing import Any

from transformers import PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from negprobe.base.errors import ModelError
from negprobe.base.texts import quoted
from negprobe.models.config import PROBLEM_TYPES, Head, HookedEncoderConfig, ProblemType
from negprobe.models.families import FAMILIES, FAMILY_OF, Weights


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
    # Encoders can have a causal class too, so these are decoders only if no family reads them.
    causal = isinstance(model_type, str) and model_type in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.keys() - FAMILY_OF.keys()
    if getattr(config, "is_decoder", False) or getattr(config, "is_encoder_decoder", False) or generative or causal:
        raise ModelError(
            f"{architecture} ({model_type}) is a decoder or contains one, but negprobe supports encoders only, not "
            f"decoders that are used as embedders. Load a model of one of these types: {supported}."
        )
    if architecture.startswith("New") and model_type == "new":
        raise ModelError(
            f"{architecture} (model type 'new') is the format of GTE's original code, which negprobe never runs. Give "
            "the model in transformers' own format (model type 'gte'), such as "
            "'alibaba-nlp-community/gte-multilingual-base'."
        )
    if not isinstance(model_type, str) or model_type not in FAMILY_OF:
        raise ModelError(
            f"negprobe has no conversion for model type {model_type!r} ({architecture}). "
            f"Supported types are {supported}."
        )
    if model_type == "xlm-roberta" and getattr(config, "position_embedding_type", None) == "rotary":
        raise ModelError(
            f"{architecture} with rotary positions is the format of jina-embeddings-v3's original code, which negprobe "
            "never runs. Give the model in transformers' own format, 'jinaai/jina-embeddings-v3-hf'."
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
    """The head of a supported class; raises `ModelError` for any other class."""
    for family in FAMILIES.values():
        if architecture in family.classes:
            return family.classes[architecture]
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
    family, head = FAMILY_OF[hf_config.model_type], head_of(architecture)
    fixed = family.labels.get(architecture)
    reads_labels = head == "classification" and fixed is None
    labels = tuple(hf_config.id2label[i] for i in range(hf_config.num_labels)) if reads_labels else fixed or ()
    common: dict[str, Any] = {
        "model_name": name,
        "family": family.name,
        "head": head,
        "d_model": hf_config.hidden_size,
        "d_head": hf_config.hidden_size // hf_config.num_attention_heads,
        "n_heads": hf_config.num_attention_heads,
        "n_layers": hf_config.num_hidden_layers,
        "d_vocab": hf_config.vocab_size,
        "pad_token_id": hf_config.pad_token_id,
        "labels": labels,
        "problem_type": checked_problem_type(hf_config.problem_type, len(labels), name) if reads_labels else None,
        "default_prepend_bos": False,
        "device": "cpu",
    }
    return HookedEncoderConfig(**common | family.settings(hf_config, head))


def convert(hf_model: PreTrainedModel, cfg: HookedEncoderConfig) -> Weights:
    """Views (not copies) of a Hugging Face model's weights, by `HookedEncoder`'s parameter names."""
    source = {name: tensor.detach() for name, tensor in hf_model.state_dict().items()}
    # A plain encoder's weights have no prefix. Add it, so that all models have the same names.
    if hf_model.base_model is hf_model:
        source = {f"{hf_model.base_model_prefix}.{name}": tensor for name, tensor in source.items()}
    return FAMILIES[cfg.family].weights(source, cfg)
