"""Reading untrusted model folders: links, pipes, sizes and types are checked before they are used."""

import json
import os
from collections import Counter
from collections.abc import Collection
from pathlib import Path
from typing import Any

import transformers
from safetensors import SafetensorError, safe_open
from torch import Tensor
from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase
from transformers.models.auto.modeling_auto import MODEL_MAPPING_NAMES

from negprobe.base.errors import ModelError
from negprobe.base.memory import is_out_of_memory
from negprobe.base.texts import quoted
from negprobe.models.config import HookedEncoderConfig
from negprobe.models.config_fields import Field, activation, bad_field, number, switch, whole
from negprobe.models.convert import check_supported, checked_problem_type, head_of
from negprobe.models.families import FAMILIES, FAMILY_OF, Family

_READ_SUFFIXES = (".json", ".safetensors", ".txt", ".model", ".jinja")
"""The suffixes of all files that negprobe or transformers' tokenizers open."""

_LARGEST_JSON = 2**28
"""In bytes; ten times the size of the largest published tokenizers."""

_FLOATS = ("F64", "F32", "F16", "BF16")

_LARGEST_VOCABULARY, _MOST_LABELS = 10**7, 10**5

COMMON_FIELDS: dict[str, Field] = {
    "vocab_size": whole(1, _LARGEST_VOCABULARY),
    "max_position_embeddings": whole(1, 10**7),
    "type_vocab_size": whole(1, 10**6),
    "num_labels": whole(1, _MOST_LABELS),
    **dict.fromkeys(("hidden_size", "dim", "intermediate_size", "hidden_dim", "embedding_size"), whole(1, 10**6)),
    **dict.fromkeys(("num_hidden_layers", "n_layers", "num_attention_heads", "n_heads"), whole(1, 10**3)),
    "pad_token_id": whole(0, _LARGEST_VOCABULARY - 1),
    "hidden_act": activation,
    "activation": activation,
    "layer_norm_eps": number(0.0, 1.0),
    "tie_word_embeddings": switch,
}
"""The fields of a configuration that all families read, with their checks. The upper limits of sizes are far above
those of any encoder."""

_INDEX = "model.safetensors.index.json"

MERGE_ADAPTER = "Load it with peft, call merge_and_unload() and save_pretrained(), and give that folder."
"""What to do about a folder that contains an adapter."""

_REFUSED = {
    "pruned_heads": "Give a model without pruned attention heads.",
    "quantization_config": "Give the unquantized model; if its weights are plain floats, remove the field.",
    "compression_config": "Give the uncompressed model; if its weights are plain floats, remove the field.",
    "add_cross_attention": "Give an encoder without cross-attention.",
    "auto_map": "The field names code for the model, and negprobe never runs code from a model folder. If "
    "transformers' own class computes the same, remove the field.",
}
"""Fields with which some version of transformers would compute something else, and what to do about them."""


def check_files(folder: Path, name: str) -> None:
    """Check that a folder contains only regular files, no links to other folders, and no adapter.

    Raises:
        ModelError: for a broken link or a link to another folder (except the hub cache's links to its blobs), for a
            directory, pipe or device in place of a file, and for an adapter.
    """
    try:
        folders = [path for path in (folder, folder / "additional_chat_templates") if path.is_dir()]
        entries = sorted(path for parent in folders for path in parent.iterdir())
    except OSError as error:
        raise ModelError(f"The folder of {name!r} cannot be listed: {error}") from error
    for path in entries:
        if path.suffix in _READ_SUFFIXES:
            _check_file(path, folder, name)
    # transformers would apply an adapter to the weights in this folder, or to another model that the adapter names.
    adapter = next((path.name for path in entries if path.name.startswith(("adapter_config.", "adapter_model."))), None)
    if adapter is not None:
        raise ModelError(f"{name!r} contains an adapter ({adapter}), which negprobe does not apply. {MERGE_ADAPTER}")


def _check_file(path: Path, folder: Path, name: str) -> None:
    root = Path(os.path.realpath(folder))
    # In the hub's cache, a snapshot is a folder of links to blobs that all snapshots of a repository share. Since
    # version 2 of the client, blobs can be links to files that all repositories share. Older sentence-transformers
    # models have the encoder in a subfolder of the snapshot.
    snapshot = next((place for place in (root, root.parent) if place.parent.name == "snapshots"), None)
    allowed = [root] if snapshot is None else [root, *(snapshot.parents[n] / "blobs" for n in (1, 2))]
    shown = os.path.relpath(path, folder)
    target = Path(os.path.realpath(path))
    if not any(target.is_relative_to(parent) for parent in allowed):
        raise ModelError(
            f"{shown!r} of {name!r} links to {str(target)!r}, outside the folder, so it is not read. "
            "Replace the link with a copy of the file."
        )
    if path.exists() and not path.is_file():
        what = "a directory" if path.is_dir() else "a pipe or a device"
        raise ModelError(f"{shown!r} of {name!r} is {what}, not a file. Replace it with the model's own file.")
    if path.is_symlink() and not path.exists():
        raise ModelError(f"{shown!r} of {name!r} is a broken link. Replace it with the model's own file.")


def read_json(folder: Path, file: str, kind: type, name: str) -> Any:
    """The content of a JSON file of the folder, a `dict` or a `list`.

    Raises:
        ModelError: if the file is outside the folder, cannot be read, is not JSON, has a duplicate key, or contains
            another type.
    """
    try:
        path = folder / file
        # `file` may be a path that another file of the folder names, so it could point anywhere.
        _check_file(path, folder, name)
        if path.stat().st_size > _LARGEST_JSON:
            raise ValueError(f"it has {path.stat().st_size} bytes; at most {_LARGEST_JSON} are allowed")
        content = json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=no_repeats)
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"{file} of {name!r} is not readable JSON: {error}") from error
    if not isinstance(content, kind):
        raise ModelError(f"{file} of {name!r} holds a JSON {type(content).__name__}, not a {kind.__name__}.")
    return content


def no_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object as a dict, for use as a hook of `json.loads`, which would silently accept duplicate keys.

    Raises:
        ValueError: for a duplicate key.
    """
    content = dict(pairs)
    if len(content) < len(pairs):
        repeated = Counter(key for key, _ in pairs).most_common(1)[0][0]
        raise ValueError(f"the key {quoted(repeated)} appears twice; remove the wrong value")
    return content


# The configuration


def read_config(
    folder: Path, name: str, architecture: str | None = None, *, without_head: bool = False
) -> tuple[PreTrainedConfig, type[PreTrainedModel]]:
    """The configuration of a supported encoder, and the class to read it as.

    The class is `architecture` if given; otherwise, with `without_head`, the family's class without a head; otherwise
    the one named in config.json.

    Only fields that affect the model's arithmetic are taken from config.json. All others (remote code, quantizers,
    kernels) are never passed to a library.

    Raises:
        ModelError: without config.json, for an unsupported or missing architecture, for a field with an effect that
            negprobe does not implement, and in the cases listed at `config_of`.
    """
    if not (folder / "config.json").is_file():
        raise ModelError(f"{name!r} has no config.json, so it is not a model folder in Hugging Face's format.")
    raw = read_json(folder, "config.json", dict, name)
    if architecture is not None:
        # A given class overrides the remote class that the file names.
        raw["auto_map"] = None
        _check_class(raw, architecture, f"{name!r} cannot be read as {architecture!r}: it is not a class")
    elif without_head:
        architecture = _base_architecture(raw)
    else:
        architecture = _architecture(raw, name)
    hf_class = getattr(transformers, architecture)
    config = config_of(raw, hf_class, name)
    _check_renamed(raw, config, name)
    _check_refused(raw, name)
    return config, hf_class


def config_of(raw: dict[str, Any], hf_class: type[PreTrainedModel], name: str) -> PreTrainedConfig:
    """The configuration of a supported encoder, from only those fields that affect its arithmetic.

    Args:
        raw: All fields, as in config.json.
        hf_class: The transformers class that the model is read as.
        name: The model's name, for messages.

    Raises:
        ModelError: for sizes that are not whole numbers, are out of range or contradict each other, for unknown
            activations, for broken labels, and for what transformers' own class refuses.
    """
    family = FAMILY_OF[raw["model_type"]]
    checks = {**COMMON_FIELDS, **family.fields}
    kept: dict[str, Any] = {key: check(raw[key], key, name) for key, check in checks.items() if key in raw}
    for key, other in hf_class.config_class.attribute_map.items():
        if key in kept and kept.get(other, kept[key]) != kept[key]:
            raise bad_field(key, kept[key], f"equal to {other} = {kept[other]}, its synonym", name)
    if head_of(hf_class.__name__) == "classification" and hf_class.__name__ not in family.labels:
        if raw.get("id2label") is not None:
            kept["id2label"] = _labels(raw["id2label"], name)
            n_labels = kept.setdefault("num_labels", len(kept["id2label"]))
            if n_labels != len(kept["id2label"]):
                raise bad_field(
                    "num_labels", n_labels, f"the number of labels in id2label, {len(kept['id2label'])}", name
                )
        n_labels = kept.get("num_labels", 2)
        kept["problem_type"] = checked_problem_type(raw.get("problem_type"), n_labels, name)
    if raw.get("tokenizer_class") is not None:
        # transformers takes the tokenizer's class from the configuration if tokenizer_config.json names none.
        kept["tokenizer_class"] = _tokenizer_class(raw["tokenizer_class"], "config.json", name)
    try:
        config = hf_class.config_class(**kept)
    except Exception as error:  # of many types, by the version of transformers
        reason = " ".join(str(error).split()).rstrip(".")
        raise ModelError(
            f"The configuration of {name!r} is not one that {hf_class.config_class.__name__} accepts: {reason}. "
            "Correct it."
        ) from error
    _check_sizes(config, family, name)
    return config


def _check_refused(raw: dict[str, Any], name: str) -> None:
    for field, advice in _REFUSED.items():
        # transformers writes an empty value where the field has no effect.
        if raw.get(field):
            raise ModelError(
                f"The configuration of {name!r} has {field} = {quoted(raw[field], 60)}, which negprobe does not "
                f"implement. {advice}"
            )


def _check_renamed(raw: dict[str, Any], config: PreTrainedConfig, name: str) -> None:
    """Refuse values of the model's original code under names that transformers' class, with other values, ignores."""
    used = {**config.to_dict(), **(getattr(config, "rope_parameters", None) or {})}
    renamed = FAMILY_OF[config.model_type].renamed
    wrong = {old: new for old, new in renamed.items() if old in raw and raw[old] != used[new]}
    if wrong:
        values = ", ".join(f"{new} = {quoted(raw[old], 20)}" for old, new in wrong.items())
        raise ModelError(
            f"The config.json of {name!r} is for the model's original code, which negprobe never runs: it has "
            f"{', '.join(wrong)}, which transformers' {type(config).__name__} does not read. Add {values} and remove "
            "auto_map, or give the model in transformers' own format."
        )


def _base_architecture(raw: dict[str, Any]) -> str:
    """The class without a head for the model type, as AutoModel chooses it."""
    model_type = raw.get("model_type")
    family = FAMILY_OF.get(model_type) if isinstance(model_type, str) else None
    if family is None:
        architecture = f"{model_type}Model"
    else:
        # An older version of transformers may not know the type.
        architecture = MODEL_MAPPING_NAMES.get(str(model_type), f"{family.prefixes[0]}Model")
    check_supported(_Raw(raw), architecture)
    _check_installed(architecture, FAMILY_OF[raw["model_type"]])
    return architecture


def _architecture(raw: dict[str, Any], name: str) -> str:
    architectures = raw.get("architectures")
    architectures = [] if architectures is None else architectures
    if not isinstance(architectures, list) or not all(isinstance(architecture, str) for architecture in architectures):
        raise bad_field("architectures", architectures, 'a list of one name, such as ["BertForMaskedLM"]', name)
    if len(architectures) != 1:
        raise ModelError(
            f"The config.json of {name!r} names {len(architectures)} architectures; negprobe needs exactly one, such "
            'as "architectures": ["BertForMaskedLM"], to know which head to load.'
        )
    architecture = architectures[0]
    _check_class(raw, architecture, f"The config.json of {name!r} names the architecture {architecture!r}")
    return architecture


def _check_class(raw: dict[str, Any], architecture: str, problem: str) -> None:
    """Check that negprobe supports a class for the model type; `problem` is the start of the error message."""
    check_supported(_Raw(raw), architecture)
    family = FAMILY_OF[raw["model_type"]]
    _check_installed(architecture, family)
    others = [other for other in FAMILIES.values() if other is not family]
    # The class is looked up in transformers by name, so names of anything else must be rejected.
    is_other = any(architecture in other.classes for other in others)
    if is_other or not architecture.startswith(family.prefixes) or not hasattr(transformers, architecture):
        raise ModelError(
            f"{problem} for model type {raw['model_type']!r}; negprobe supports {', '.join(family.classes)}."
        )
    head_of(architecture)


def _check_installed(architecture: str, family: Family) -> None:
    """Check that the installed version of transformers has a class of a supported family."""
    if architecture in family.classes and not hasattr(transformers, architecture):
        raise ModelError(
            f"transformers {transformers.__version__} has no {architecture}. Install a newer version of transformers."
        )


class _Raw:
    """The fields of a config.json as attributes."""

    def __init__(self, raw: dict[str, Any]) -> None:
        self.__dict__ = raw


def _labels(value: object, name: str) -> dict[int, str]:
    expected = "a table of label names numbered from 0, such as {'0': 'no', '1': 'yes'}"
    if not isinstance(value, dict) or not 0 < len(value) <= _MOST_LABELS:
        raise bad_field("id2label", value, expected, name)
    if set(value) != {str(i) for i in range(len(value))}:
        raise bad_field("id2label", value, expected, name)
    for label in value.values():
        # JSON strings can contain half a surrogate pair, which cannot be written to a file.
        if not isinstance(label, (str, int)) or any("\ud800" <= character <= "\udfff" for character in str(label)):
            raise bad_field("id2label", value, expected, name)
    return {int(i): str(label) for i, label in value.items()}


def _check_sizes(config: PreTrainedConfig, family: Family, name: str) -> None:
    if getattr(config, "head_dim", None) is None and config.hidden_size % config.num_attention_heads:
        raise ModelError(
            f"The configuration of {name!r} has hidden_size = {config.hidden_size}, which is not divisible by "
            f"num_attention_heads = {config.num_attention_heads}."
        )
    if config.pad_token_id >= config.vocab_size:
        raise bad_field("pad_token_id", config.pad_token_id, f"an id in a vocabulary of size {config.vocab_size}", name)
    if family.counts_from_padding and config.max_position_embeddings <= config.pad_token_id + 1:
        raise bad_field(
            "max_position_embeddings",
            config.max_position_embeddings,
            f"more than the {config.pad_token_id + 1} positions that {type(config).__name__} reserves for padding",
            name,
        )


# The weights


def read_weights(folder: Path, cfg: HookedEncoderConfig, name: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The floating-point tensors in a folder's safetensors, and the dtype of each tensor that is not floating-point.

    As in transformers, model.safetensors takes precedence over an index. An index decides which shard a tensor is read
    from.

    Raises:
        ModelError: without safetensors, for a broken or missing file, for an index that points outside the folder or
            does not match its shards, and if the configuration needs more than twice as many weights as there are.
    """
    weights: dict[str, Tensor] = {}
    non_float_types: dict[str, str] = {}
    unlisted: dict[str, str] = {}
    for file, listed in _weight_files(folder, name).items():
        keys, floats, others = read_tensors(file, folder, name, listed)
        weights |= floats
        non_float_types |= others
        if listed is not None and not listed <= keys:
            raise ModelError(
                f"{_INDEX} of {name!r} says that {file.name} contains {min(listed - keys)!r}, but it does not. "
                "Download both files again."
            )
        unlisted.update(dict.fromkeys(keys - (keys if listed is None else listed), file.name))
    extra = unlisted.keys() - weights.keys() - non_float_types.keys()
    if extra:
        raise ModelError(
            f"{unlisted[min(extra)]} of {name!r} contains {min(extra)!r}, which {_INDEX} does not list. Download both "
            "files again."
        )
    # transformers creates missing weights, so a size of 10**12 must be rejected before it is allocated.
    stored, needed = sum(tensor.numel() for tensor in weights.values()), _min_weights(cfg)
    if needed > 2 * stored:
        raise ModelError(
            f"The configuration of {name!r} describes a model of at least {needed} weights, but its files hold "
            f"{stored} floating-point numbers. They belong to different models; download both again."
        )
    return weights, non_float_types


def read_tensors(
    file: Path, folder: Path, name: str, chosen: Collection[str] | None = None
) -> tuple[set[str], dict[str, Tensor], dict[str, str]]:
    """The names in a safetensors file, its floating-point tensors, and the dtype of each tensor of another type.

    Args:
        file: The file.
        folder: The model's folder, which the file must not link out of.
        name: The model's name, for messages.
        chosen: The names of the tensors to read; by default all.

    Raises:
        ModelError: if the file is outside the folder, broken or missing.
    """
    _check_file(file, folder, name)
    floats: dict[str, Tensor] = {}
    others: dict[str, str] = {}
    try:
        with safe_open(file, framework="pt") as opened:
            keys = set(opened.keys())
            for key in keys if chosen is None else keys & set(chosen):
                kind = opened.get_slice(key).get_dtype()
                if kind in _FLOATS:
                    floats[key] = opened.get_tensor(key)
                else:
                    others[key] = kind
    except (SafetensorError, OSError, ValueError, RuntimeError) as error:
        if is_out_of_memory(error):
            raise
        raise ModelError(
            f"The weights of {name!r} could not be read: {file.name} is broken or missing ({error}). Download the file "
            "again."
        ) from error
    return keys, floats, others


def _weight_files(folder: Path, name: str) -> dict[Path, set[str] | None]:
    """The files to read, each with the names of the tensors to read from it; None for all of them."""
    if not any(folder.glob("*.safetensors")):
        found = ", ".join(sorted(p.name for p in folder.glob("*.bin"))) or "no weights"
        raise ModelError(
            f"{name!r} holds {found}, but negprobe reads *.safetensors only, because loading other formats can run "
            "code. Load it once with transformers and call save_pretrained() to convert it."
        )
    if (folder / "model.safetensors").is_file():
        return {folder / "model.safetensors": None}
    if not (folder / _INDEX).is_file():
        raise ModelError(
            f"The weights of {name!r} could not be read: there is no model.safetensors and no {_INDEX}. Download the "
            "model's files again."
        )
    shards = read_json(folder, _INDEX, dict, name).get("weight_map")
    if not isinstance(shards, dict) or not all(isinstance(shard, str) for shard in shards.values()):
        raise ModelError(f"{_INDEX} of {name!r} has no weight_map with the file of each weight. Download it again.")
    for shard in shards.values():
        if not shard.endswith(".safetensors") or shard != Path(shard).name or "\\" in shard or "\0" in shard:
            raise ModelError(
                f"{_INDEX} of {name!r} names the file {shard!r}; only *.safetensors in the same folder are read."
            )
    return {
        folder / file: {key for key, shard in shards.items() if shard == file} for file in sorted(set(shards.values()))
    }


def _min_weights(cfg: HookedEncoderConfig) -> int:
    """A lower bound on the number of a model's weights: its matrices, without biases and heads."""
    assert cfg.d_mlp is not None
    positions = cfg.first_position + cfg.n_ctx if cfg.embeds_positions else 0
    embedding = (cfg.d_vocab + positions + cfg.n_token_types + cfg.n_task_types) * cfg.d_embed
    attention = 4 * cfg.d_model * cfg.n_heads * cfg.d_head
    mlp = (3 if cfg.gated_mlp else 2) * cfg.d_model * cfg.d_mlp
    return embedding + len(cfg.weight_layers) * (attention + mlp)


# The tokenizer


def check_tokenizer_config(folder: Path, name: str) -> dict[str, None]:
    """Check that a tokenizer_config.json names no code, no class other than a tokenizer, and no files elsewhere.

    Returns:
        Arguments for `AutoTokenizer.from_pretrained` that set all file paths in it to None. Many published files
        contain paths of the machine that they were saved on, and transformers before 5.10 opens those instead of the
        folder's own files.

    Raises:
        ModelError: if it is broken, or names code, a class that is not a tokenizer, or files elsewhere.
    """
    if not (folder / "tokenizer_config.json").exists():
        return {}
    raw = read_json(folder, "tokenizer_config.json", dict, name)
    if raw.get("tokenizer_class") is not None:
        _tokenizer_class(raw["tokenizer_class"], "tokenizer_config.json", name)
    if raw.get("auto_map"):
        raise ModelError(
            f"The tokenizer_config.json of {name!r} has auto_map = {quoted(raw['auto_map'], 60)}, which names code for "
            "the tokenizer; negprobe never runs code from a model folder. Give a tokenizer, or, if transformers' own "
            "class does the same, remove the field."
        )
    versions = raw.get("fast_tokenizer_files", [])
    is_outside = not isinstance(versions, list) or any(Path(str(file)).name != file for file in versions)
    # These fields hold vocabularies, or paths of files to read them from.
    vocabularies = [key for key in ("vocab", "merges", "gguf_file", "init_inputs") if raw.get(key)]
    if is_outside or vocabularies:
        fields = ", ".join(vocabularies) or "fast_tokenizer_files"
        raise ModelError(
            f"The tokenizer_config.json of {name!r} sets {fields}, which could name files outside the folder; the "
            "vocabulary is read only from tokenizer.json or vocab.txt. Remove the field."
        )
    return {key: None for key in raw if key.endswith(("_file", "_spm"))}


def _tokenizer_class(value: object, file: str, name: str) -> str:
    # For a class that it does not have (remote code), transformers uses one of its own tokenizers.
    found = getattr(transformers, value, None) if isinstance(value, str) and value.isidentifier() else None
    is_tokenizer = isinstance(found, type) and issubclass(found, PreTrainedTokenizerBase)
    if not isinstance(value, str) or (found is not None and not is_tokenizer):
        raise ModelError(
            f"The {file} of {name!r} has tokenizer_class = {value!r}, which is not a tokenizer. Name a tokenizer class "
            "of transformers, such as 'BertTokenizer'; negprobe never runs code from a model folder."
        )
    return value


def check_tokenizer(tokenizer: PreTrainedTokenizerBase, vocabulary: int, name: str) -> None:
    """Check that a tokenizer works, and that the model has embeddings for its special tokens.

    Args:
        tokenizer: The folder's tokenizer, or one that was given.
        vocabulary: The number of the model's token embeddings.
        name: The model's name, for messages.

    Raises:
        ModelError: if it has no padding token, if a special token's id is outside the vocabulary, or if it produces no
            tokens for a text.
    """
    if tokenizer.pad_token_id is None:
        raise ModelError(
            f"The tokenizer of {name!r} has no padding token, which a batch of texts of different lengths needs. Set "
            "pad_token in its tokenizer_config.json."
        )
    for kind in ("pad", "unk", "cls", "sep", "mask"):
        token, index = getattr(tokenizer, f"{kind}_token"), getattr(tokenizer, f"{kind}_token_id")
        if index is not None and not 0 <= index < vocabulary:
            raise ModelError(
                f"The tokenizer of {name!r} gives {token!r} the id {index}, but the model has embeddings for 0 to "
                f"{vocabulary - 1} only: the tokenizer and the weights belong to different models."
            )
    # A broken tokenizer may fail only when it is used; the caller turns any exception into a ModelError.
    for texts in (["not", "not a word"], [("not", "a word"), ("a", "b")]):
        encoded = tokenizer(texts, padding=True, padding_side="right", return_attention_mask=True, return_tensors="pt")
        if encoded["input_ids"].numel() == 0:
            raise ModelError(
                f"The tokenizer of {name!r} produces no tokens for {texts[0]!r}. Download its files again."
            )


def padding_id(tokenizer: PreTrainedTokenizerBase, config: PreTrainedConfig, name: str) -> int:
    """The id of a tokenizer's padding token.

    The configuration may name a different id, because only the attention mask marks padding. The ids must agree for
    RoBERTa's family, which counts positions from `pad_token_id`.

    Raises:
        ModelError: if the ids differ and the model counts positions from the configuration's.
    """
    if FAMILY_OF[config.model_type].counts_from_padding and tokenizer.pad_token_id != config.pad_token_id:
        raise ModelError(
            f"The tokenizer of {name!r} pads with {tokenizer.pad_token!r} (id {tokenizer.pad_token_id}), but the model "
            f"counts positions from its pad_token_id, {config.pad_token_id}. Give the tokenizer of this model, or "
            "correct pad_token_id in its config.json."
        )
    return int(tokenizer.pad_token_id)
