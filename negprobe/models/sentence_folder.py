"""The settings of a sentence-transformers folder: each is either applied or rejected; none is silently ignored.

The files and keys are those that sentence-transformers 6.2 reads, including older layouts. The tables below list the
values that each key may have. Settings that do not change the output are accepted.
"""

import copy
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tokenizers.normalizers import Lowercase, Sequence
from transformers import PreTrainedTokenizerBase

from negprobe.base.errors import ModelError
from negprobe.base.texts import quoted
from negprobe.models.config import Head, HookedEncoderConfig
from negprobe.models.embedding_modules import MODULES_AFTER_POOLING, EmbeddingModules, read_embedding_modules
from negprobe.models.folder import read_json
from negprobe.models.sentence_settings import (
    EMPTY,
    HARMLESS,
    LENGTH,
    SWITCH,
    TEXT,
    TEXT_OR_UNSET,
    UNSET,
    Values,
    check,
    one_of,
)
from negprobe.models.tokenizing import encode

_MODULES = "modules.json"
_MODEL_SETTINGS = "config_sentence_transformers.json"
# sentence-transformers reads the first of these files that is not empty.
_ENCODER_SETTINGS = tuple(
    f"sentence_{kind}_config.json"
    for kind in ("bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")
)


@dataclass(frozen=True)
class SentenceFolder:
    """The settings of a model in a sentence-transformers folder.

    Attributes:
        encoder: The folder that has config.json, the weights and the tokenizer.
        head: "none" for a sentence encoder, "classification" for a cross-encoder.
        lower_case: Whether texts are lower-cased before they are tokenized.
        max_seq_length: Maximum number of tokens per text; None means the tokenizer's `model_max_length`.
        prompts: The text of each prompt, by its name.
        default_prompt: The text that is put before each text by default; empty for none.
        embedding: How the last hidden states of a sentence encoder become one embedding.
    """

    encoder: Path
    head: Head
    lower_case: bool
    max_seq_length: int | None
    prompts: Mapping[str, str]
    default_prompt: str
    embedding: EmbeddingModules = field(default_factory=EmbeddingModules)


# sentence-transformers itself ignores `trust_remote_code` in a folder's settings.
_NO_ARGUMENTS = Values(lambda value: isinstance(value, dict) and set(value) <= {"trust_remote_code"}, "{}")

_ENTRY_KEYS = {"idx": HARMLESS, "name": TEXT, "path": TEXT, "type": TEXT, "kwargs": EMPTY}

_MODEL_KEYS = {
    "__version__": HARMLESS,
    "prompts": Values(
        lambda value: isinstance(value, dict) and all(TEXT_OR_UNSET.accepts(prompt) for prompt in value.values()),
        "a table of strings",
    ),
    "default_prompt_name": TEXT_OR_UNSET,
    "model_type": one_of("SentenceTransformer", "CrossEncoder"),
    "truncate_dim": UNSET,
    "keep_in_fp32_modules": UNSET,
    # These act on finished embeddings, and on the scores that a CrossEncoder's `predict` computes from logits.
    "similarity_fn_name": TEXT_OR_UNSET,
    "activation_fn": TEXT_OR_UNSET,
}

_ENCODER_KEYS = {
    "max_seq_length": Values(lambda value: value is None or LENGTH.accepts(value), f"{LENGTH.expected}, or null"),
    "do_lower_case": SWITCH,
    "processing_kwargs": EMPTY,
    # Removing padding changes only the speed.
    "unpad_inputs": one_of(None, True, False),
    "query_length": UNSET,
    "document_length": UNSET,
    "query_expansion": UNSET,
    "tokenizer_name_or_path": UNSET,
    **dict.fromkeys(("model_args", "tokenizer_args", "config_args"), _NO_ARGUMENTS),
    **dict.fromkeys(("model_kwargs", "processor_kwargs", "config_kwargs"), _NO_ARGUMENTS),
}
_ENCODER_KEYS_OF_HEAD: dict[Head, dict[str, Values]] = {
    "none": {
        "transformer_task": one_of("feature-extraction"),
        "module_output_name": one_of("token_embeddings"),
        "modality_config": one_of({"text": {"method": "forward", "method_output_name": "last_hidden_state"}}),
    },
    "classification": {
        "transformer_task": one_of("sequence-classification"),
        "module_output_name": one_of("scores"),
        "modality_config": one_of({"text": {"method": "forward", "method_output_name": "logits"}}),
    },
}


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
    head, prompts, default_prompt = _model_settings(folder, name)
    kinds = [_kind(module["type"]) for module in modules]
    supported = ["Transformer"] if head == "classification" else ["Transformer", "Pooling"]
    further = kinds[len(supported) :]
    if kinds != supported + further or (further and (head != "none" or not {*further} <= {*MODULES_AFTER_POOLING})):
        raise ModelError(
            f"{_MODULES} of {name!r} has the modules {quoted(', '.join(kinds))}. negprobe reads sentence-transformers' "
            f"Transformer and Pooling, followed by any of {', '.join(MODULES_AFTER_POOLING)}; or only the Transformer "
            "if the model_type is CrossEncoder. Other modules would change the output. Choose a model without them."
        )
    encoder = _encoder_folder(folder, modules[0]["path"], name)
    settings = _encoder_settings(encoder, head, name)
    others = [(kind, module["path"]) for kind, module in zip(kinds, modules, strict=True)][1:]
    return SentenceFolder(
        encoder,
        head,
        settings.get("do_lower_case", False),
        settings.get("max_seq_length"),
        prompts,
        default_prompt,
        read_embedding_modules(folder, others, name) if others else EmbeddingModules(),
    )


def chosen_prompt(prompt: str | None, settings: SentenceFolder | None, name: str) -> str:
    """The text to put before each text.

    Args:
        prompt: The name of one of the folder's prompts, or a text; None for the folder's default prompt.
        settings: The folder's settings; None for another kind of model.
        name: The model's name, for messages.

    Raises:
        ModelError: for a single word that is not the name of a prompt: as a text, it would run into the word after it.
    """
    if prompt is None:
        return "" if settings is None else settings.default_prompt
    prompts = {} if settings is None else settings.prompts
    if prompt in prompts:
        return prompts[prompt]
    if re.fullmatch(r"[\w.-]*\w", prompt):
        known = f"its prompts are {', '.join(map(quoted, prompts))}" if prompts else "its folder names no prompts"
        raise ModelError(
            f"{name!r} has no prompt named {quoted(prompt)}; {known}. To put a text before each text, end it with a "
            "space or a punctuation mark."
        )
    return prompt


def apply_sentence_folder(
    settings: SentenceFolder, cfg: HookedEncoderConfig, tokenizer: PreTrainedTokenizerBase | None
) -> PreTrainedTokenizerBase | None:
    """Set `cfg.n_ctx`, and how `cfg` makes an embedding, according to the folder and `cfg.prompt`.

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
    embedding = settings.embedding
    if embedding.width not in (None, cfg.d_model):
        raise ModelError(
            f"The pooling of {name!r} has word_embedding_dimension = {embedding.width}, but its encoder has states of "
            f"width {cfg.d_model}: they belong to different models."
        )
    cfg.pooling, cfg.embedding_steps, cfg.normalize = embedding.pooling, embedding.steps, embedding.normalize
    cfg.n_ctx = _max_tokens(settings, cfg, tokenizer)
    if tokenizer is None:
        return None
    if settings.lower_case:
        tokenizer = _lower_casing(tokenizer, name)
    if cfg.prompt and not embedding.include_prompt:
        cfg.pool_from = _prompt_length(cfg.prompt, tokenizer, cfg.n_ctx)
    return tokenizer


def _prompt_length(prompt: str, tokenizer: PreTrainedTokenizerBase, n_ctx: int) -> int:
    """The number of tokens that sentence-transformers excludes from the pooling for a prompt.

    It is the number for the prompt alone, [CLS] included and [SEP] not, even if the prompt's last token merges with the
    text.
    """
    ids = encode(tokenizer, [prompt], truncation=True, max_length=n_ctx, verbose=False)["input_ids"][0]
    return len(ids) - (ids[-1] in tokenizer.all_special_ids)


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
        check(module, _ENTRY_KEYS, _MODULES, name)
    names = [module["name"] for module in modules if "name" in module]
    if len(set(names)) < len(names):
        raise ModelError(f"{_MODULES} of {name!r} gives two modules the same name; rename one of them.")
    return modules


def _kind(reference: str) -> str:
    """A class name without its module path for sentence-transformers' own classes; the paths differ by version."""
    return reference.rsplit(".", 1)[-1] if reference.startswith("sentence_transformers.") else reference


def _model_settings(folder: Path, name: str) -> tuple[Head, dict[str, str], str]:
    """The model's head, its prompts by their names, and the text of the default prompt (empty for none)."""
    settings: dict[str, Any] = {}
    if os.path.lexists(folder / _MODEL_SETTINGS):
        settings = read_json(folder, _MODEL_SETTINGS, dict, name)
        check(settings, _MODEL_KEYS, _MODEL_SETTINGS, name)
    head: Head = "classification" if settings.get("model_type") == "CrossEncoder" else "none"
    # sentence-transformers always defines these two prompts of an encoder; they are empty unless the folder sets them.
    always = {"query": "", "document": ""} if head == "none" else {}
    prompts = {key: prompt or "" for key, prompt in (always | settings.get("prompts", {})).items()}
    default = settings.get("default_prompt_name")
    if default is not None and default not in prompts:
        raise ModelError(
            f"{_MODEL_SETTINGS} of {name!r} has default_prompt_name = {quoted(default)}, which is not one of its "
            f"prompts ({', '.join(map(quoted, prompts)) or 'none'}). Name one of them, or set it to null."
        )
    return head, prompts, "" if default is None else prompts[default]


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
            check(settings, _ENCODER_KEYS | _ENCODER_KEYS_OF_HEAD[head], file, name)
            return settings
    return {}


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
