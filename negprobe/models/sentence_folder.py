"""The settings of a sentence-transformers folder: each is either applied or rejected; none is silently ignored.

The files and keys are those that sentence-transformers 6.2 reads, including older layouts. The tables below list the
values that each key may have. Settings that do not change the output, such as prompts that `encode` does not use by
default, are accepted.
"""

import copy
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tokenizers.normalizers import Lowercase, Sequence
from transformers import PreTrainedTokenizerBase

from negprobe.base.errors import ModelError
from negprobe.base.texts import quoted
from negprobe.models.config import Head, HookedEncoderConfig, Pooling
from negprobe.models.folder import read_json

_MODULES = "modules.json"
_MODEL_SETTINGS = "config_sentence_transformers.json"
# sentence-transformers reads the first of these files that is not empty.
_ENCODER_SETTINGS = tuple(
    f"sentence_{kind}_config.json"
    for kind in ("bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")
)

_EMBEDDING_MODULES = (["Transformer", "Pooling"], ["Transformer", "Pooling", "Normalize"])
_POOLINGS: dict[str, Pooling] = {
    "pooling_mode_mean_tokens": "mean",
    "mean": "mean",
    "pooling_mode_cls_token": "cls",
    "cls": "cls",
}


@dataclass(frozen=True)
class SentenceFolder:
    """The settings of a model in a sentence-transformers folder.

    Attributes:
        encoder: The folder that has config.json, the weights and the tokenizer.
        head: "none" for a sentence encoder, "classification" for a cross-encoder.
        lower_case: Whether texts are lower-cased before they are tokenized.
        max_seq_length: Maximum number of tokens per text; None means the tokenizer's `model_max_length`.
        width: The width of the pooled states, if the folder specifies it.
        pooling: How the last hidden states are pooled to one embedding.
        normalize: Whether that embedding is scaled to length 1.
    """

    encoder: Path
    head: Head
    lower_case: bool
    max_seq_length: int | None
    width: int | None = None
    pooling: Pooling = "mean"
    normalize: bool = False


@dataclass(frozen=True)
class _Values:
    """The supported values of a setting, and how an error describes them."""

    accepts: Callable[[Any], bool]
    expected: str


def _one_of(*values: Any) -> _Values:
    # Types must match too: 1 and 1.0 are not True.
    return _Values(
        lambda value: any(type(value) is type(other) and value == other for other in values),
        " or ".join(map(repr, values)),
    )


_HARMLESS = _Values(lambda value: True, "any value")
_UNSET = _one_of(None)
_SWITCH = _one_of(True, False)
_TEXT = _Values(lambda value: isinstance(value, str), "a string")
_TEXT_OR_UNSET = _Values(lambda value: value is None or isinstance(value, str), "a string or null")
_EMPTY = _one_of(None, {}, [])
_LENGTH = _Values(lambda value: type(value) is int and value > 0, "a whole number of at least 1")
# sentence-transformers itself ignores `trust_remote_code` in a folder's settings.
_NO_ARGUMENTS = _Values(lambda value: isinstance(value, dict) and set(value) <= {"trust_remote_code"}, "{}")

_ENTRY_KEYS = {"idx": _HARMLESS, "name": _TEXT, "path": _TEXT, "type": _TEXT, "kwargs": _EMPTY}

_MODEL_KEYS = {
    "__version__": _HARMLESS,
    "prompts": _Values(
        lambda value: isinstance(value, dict) and all(_TEXT_OR_UNSET.accepts(prompt) for prompt in value.values()),
        "a table of strings",
    ),
    "default_prompt_name": _TEXT_OR_UNSET,
    "model_type": _one_of("SentenceTransformer", "CrossEncoder"),
    "truncate_dim": _UNSET,
    "keep_in_fp32_modules": _UNSET,
    # These act on finished embeddings, and on the scores that a CrossEncoder's `predict` computes from logits.
    "similarity_fn_name": _TEXT_OR_UNSET,
    "activation_fn": _TEXT_OR_UNSET,
}

_ENCODER_KEYS = {
    "max_seq_length": _Values(lambda value: value is None or _LENGTH.accepts(value), f"{_LENGTH.expected}, or null"),
    "do_lower_case": _SWITCH,
    "processing_kwargs": _EMPTY,
    # Removing padding changes only the speed.
    "unpad_inputs": _one_of(None, True, False),
    "query_length": _UNSET,
    "document_length": _UNSET,
    "query_expansion": _UNSET,
    "tokenizer_name_or_path": _UNSET,
    **dict.fromkeys(("model_args", "tokenizer_args", "config_args"), _NO_ARGUMENTS),
    **dict.fromkeys(("model_kwargs", "processor_kwargs", "config_kwargs"), _NO_ARGUMENTS),
}
_ENCODER_KEYS_OF_HEAD: dict[Head, dict[str, _Values]] = {
    "none": {
        "transformer_task": _one_of("feature-extraction"),
        "module_output_name": _one_of("token_embeddings"),
        "modality_config": _one_of({"text": {"method": "forward", "method_output_name": "last_hidden_state"}}),
    },
    "classification": {
        "transformer_task": _one_of("sequence-classification"),
        "module_output_name": _one_of("scores"),
        "modality_config": _one_of({"text": {"method": "forward", "method_output_name": "logits"}}),
    },
}

_POOLING_KEYS = {
    "embedding_dimension": _LENGTH,
    "word_embedding_dimension": _LENGTH,
    "pooling_mode": _HARMLESS,  # checked together with the switches of older folders
    "pooling_mode_cls_token": _SWITCH,
    "pooling_mode_max_tokens": _SWITCH,
    "pooling_mode_mean_tokens": _SWITCH,
    "pooling_mode_mean_sqrt_len_tokens": _SWITCH,
    "pooling_mode_weightedmean_tokens": _SWITCH,
    "pooling_mode_lasttoken": _SWITCH,
    # Whether the tokens of a prompt are pooled; negprobe adds no prompts.
    "include_prompt": _SWITCH,
}

_NORMALIZE_KEYS = dict.fromkeys(("module_input_name", "module_output_name"), _one_of("sentence_embedding", None))


def read_sentence_folder(folder: Path, name: str) -> SentenceFolder | None:
    """The settings of a sentence-transformers folder, or None for a folder without a modules.json.

    modules.json takes precedence over the head that config.json names: sentence-transformers loads no head for an
    encoder, and many published encoders name one that their weights lack.

    Raises:
        ModelError: for broken files, for settings that negprobe does not support, and for the encoder's own folder
            inside a sentence-transformers folder, which does not say how its states are pooled.
    """
    if not os.path.lexists(folder / _MODULES):
        _reject_module_folder(folder, name)
        return None
    modules = _read_modules(folder, name)
    head = _check_model_settings(folder, name)
    kinds = [_kind(module["type"]) for module in modules]
    if kinds not in (_EMBEDDING_MODULES if head == "none" else (["Transformer"],)):
        raise ModelError(
            f"{_MODULES} of {name!r} has the modules {quoted(', '.join(kinds))}. negprobe reads sentence-transformers' "
            "Transformer, Pooling (mean, CLS) and Normalize, in this order, or only the Transformer if the model_type "
            "is CrossEncoder. Other modules would change the output. Choose a model without them."
        )
    encoder = _encoder_folder(folder, modules[0]["path"], name)
    settings = _encoder_settings(encoder, head, name)
    sentence_folder = SentenceFolder(
        encoder, head, settings.get("do_lower_case", False), settings.get("max_seq_length")
    )
    if head == "classification":
        return sentence_folder
    pooling, width = _pooling(folder, modules[1]["path"], name)
    for module in modules[2:]:
        file = Path(module["path"], "config.json")
        if os.path.lexists(folder / file):
            _check(read_json(folder, str(file), dict, name), _NORMALIZE_KEYS, str(file), name)
    return replace(sentence_folder, width=width, pooling=pooling, normalize=len(modules) > 2)


def apply_sentence_folder(
    settings: SentenceFolder, cfg: HookedEncoderConfig, tokenizer: PreTrainedTokenizerBase | None
) -> PreTrainedTokenizerBase | None:
    """Set `cfg.pooling`, `cfg.normalize` and `cfg.n_ctx` according to the folder.

    Returns:
        The tokenizer, or a copy that lower-cases texts if the folder requires it.

    Raises:
        ModelError: if the settings do not fit the encoder or its tokenizer.
    """
    name = cfg.model_name
    if cfg.head != settings.head:
        raise ModelError(
            f"{_MODEL_SETTINGS} of {name!r} describes a CrossEncoder, but its config.json names no sequence "
            "classifier. In config.json, name the class of the weights, such as BertForSequenceClassification."
        )
    if settings.width not in (None, cfg.d_model):
        raise ModelError(
            f"The pooling of {name!r} has word_embedding_dimension = {settings.width}, but its encoder has states of "
            f"width {cfg.d_model}: they belong to different models."
        )
    cfg.pooling, cfg.normalize = settings.pooling, settings.normalize
    cfg.n_ctx = _max_tokens(settings, cfg, tokenizer)
    return _lower_casing(tokenizer, name) if settings.lower_case and tokenizer is not None else tokenizer


def _reject_module_folder(folder: Path, name: str) -> None:
    folder = folder.resolve()
    if not (folder.parent / _MODULES).is_file():
        return
    try:
        modules = read_json(folder.parent, _MODULES, list, name)
    except ModelError:  # not a description of this folder
        return
    if any(isinstance(module, dict) and module.get("path") == folder.name for module in modules):
        raise ModelError(
            f"{name!r} is one module of the sentence-transformers model in its parent folder, and does not specify how "
            "its states are pooled. Load the parent folder, which has modules.json."
        )


def _read_modules(folder: Path, name: str) -> list[dict[str, Any]]:
    modules = read_json(folder, _MODULES, list, name)
    fields = [module.get(key) for module in modules if isinstance(module, dict) for key in ("type", "path")]
    if not modules or len(fields) != 2 * len(modules) or not all(isinstance(field, str) for field in fields):
        raise ModelError(
            f"{_MODULES} of {name!r} must give the type and path of each module, but does not. Save the model again "
            "with sentence-transformers, or remove the file to use mean pooling."
        )
    for module in modules:
        _check(module, _ENTRY_KEYS, _MODULES, name)
    names = [module["name"] for module in modules if "name" in module]
    if len(set(names)) < len(names):
        raise ModelError(f"{_MODULES} of {name!r} gives two modules the same name; rename one of them.")
    return modules


def _kind(reference: str) -> str:
    """A class name without its module path for sentence-transformers' own classes; the paths differ by version."""
    return reference.rsplit(".", 1)[-1] if reference.startswith("sentence_transformers.") else reference


def _check_model_settings(folder: Path, name: str) -> Head:
    """The model's head; raises `ModelError` for model-wide settings that would change the output."""
    if not os.path.lexists(folder / _MODEL_SETTINGS):
        return "none"
    settings = read_json(folder, _MODEL_SETTINGS, dict, name)
    _check(settings, _MODEL_KEYS, _MODEL_SETTINGS, name)
    default = settings.get("default_prompt_name")
    # sentence-transformers always defines these two prompts; they are empty unless the folder sets them.
    prompts = {"query": "", "document": ""} | settings.get("prompts", {})
    if default is not None and (default not in prompts or prompts[default]):
        prompt = f"stands for {quoted(prompts[default])}" if default in prompts else "is not one of its prompts"
        raise ModelError(
            f"{_MODEL_SETTINGS} of {name!r} has default_prompt_name = {quoted(default)}, which {prompt}. negprobe adds "
            "no prompts. Set it to null, and write the prompt into the texts."
        )
    return "classification" if settings.get("model_type") == "CrossEncoder" else "none"


def _encoder_folder(folder: Path, path: str, name: str) -> Path:
    """The folder of the Transformer module; older versions kept it in 0_Transformer."""
    if not path:
        return folder
    encoder = folder / path
    try:
        is_inside = Path(os.path.realpath(encoder)).is_relative_to(os.path.realpath(folder))
        if is_inside and encoder.is_dir():
            return encoder
    except (OSError, ValueError):  # not a valid folder name
        pass
    raise ModelError(
        f"{_MODULES} of {name!r} says that the encoder is in {quoted(path)}, which is not a folder inside it. Download "
        "the model's files again."
    )


def _encoder_settings(encoder: Path, head: Head, name: str) -> dict[str, Any]:
    for file in _ENCODER_SETTINGS:
        settings = read_json(encoder, file, dict, name) if os.path.lexists(encoder / file) else {}
        if settings:
            _check(settings, _ENCODER_KEYS | _ENCODER_KEYS_OF_HEAD[head], file, name)
            return settings
    return {}


def _pooling(folder: Path, path: str, name: str) -> tuple[Pooling, int | None]:
    """The mode of a Pooling module, and the width of what it pools, if given."""
    file = str(Path(path, "config.json"))
    settings = read_json(folder, file, dict, name)
    _check(settings, _POOLING_KEYS, file, name)
    # Older folders have a switch for each mode; newer ones list the names of the modes.
    modes = [key for key, on in settings.items() if key.startswith("pooling_mode_") and on]
    mode = settings.get("pooling_mode", modes[0] if len(modes) == 1 else modes)
    if not isinstance(mode, str) or mode not in _POOLINGS:
        raise ModelError(
            f"{file} of {name!r} has pooling_mode = {quoted(mode)}; negprobe supports mean and CLS pooling. "
            "Choose a model with one of them."
        )
    widths = {settings[key] for key in ("embedding_dimension", "word_embedding_dimension") if key in settings}
    if len(widths) > 1:
        raise ModelError(
            f"{file} of {name!r} has different values for embedding_dimension and word_embedding_dimension."
        )
    return _POOLINGS[mode], next(iter(widths), None)


def _check(settings: Mapping[str, Any], supported: Mapping[str, _Values], file: str, name: str) -> None:
    """Check that all settings and their values are supported."""
    for key, value in settings.items():
        if key not in supported:
            raise ModelError(
                f"{file} of {name!r} has {key} = {quoted(value)}, an unknown setting that may change the output. "
                "Remove it to load the model without it."
            )
        if not supported[key].accepts(value):
            raise ModelError(
                f"{file} of {name!r} has {key} = {quoted(value)}, but negprobe supports only "
                f"{supported[key].expected}. Other values would change the output."
            )


def _max_tokens(settings: SentenceFolder, cfg: HookedEncoderConfig, tokenizer: PreTrainedTokenizerBase | None) -> int:
    """The maximum number of tokens per text, including special tokens."""
    longest: Any = settings.max_seq_length
    kind = "max_seq_length"
    if longest is None:
        if tokenizer is None:
            return cfg.n_ctx
        longest, kind = tokenizer.model_max_length, "model_max_length"
    least = 1 if tokenizer is None else 1 + tokenizer.num_special_tokens_to_add(settings.head == "classification")
    if not isinstance(longest, int | float) or not longest >= least or longest % 1:
        raise ModelError(
            f"{cfg.model_name!r} has {kind} = {quoted(longest)}; it must be a whole number of tokens, at least {least}."
        )
    return int(min(cfg.n_ctx, longest))


def _lower_casing(tokenizer: PreTrainedTokenizerBase, name: str) -> PreTrainedTokenizerBase:
    """A copy of a tokenizer that lower-cases texts first; its offsets still refer to the original text."""
    if not tokenizer.is_fast:
        raise ModelError(
            f"{name!r} has do_lower_case = True, which needs a fast tokenizer, but its tokenizer is a "
            f"{type(tokenizer).__name__}. Give a tokenizer with a tokenizer.json."
        )
    lowered = copy.deepcopy(tokenizer)
    steps: Any = lowered.backend_tokenizer.normalizer
    if not isinstance(steps, Sequence):
        steps = [] if steps is None else [steps]
    if not any(isinstance(step, Lowercase) for step in steps):
        lowered.backend_tokenizer.normalizer = Sequence([Lowercase(), *steps])
    return lowered
