"""Finding and reading checkpoints: the bundled model, local folders and hub models, from safetensors only."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor
from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from negprobe.base.errors import ModelError
from negprobe.models.convert import encoder_config
from negprobe.models.families import FAMILY_OF
from negprobe.models.folder import (
    MERGE_ADAPTER,
    check_files,
    check_tokenizer,
    check_tokenizer_config,
    no_repeats,
    read_config,
    read_weights,
)
from negprobe.models.hub import hub_folder
from negprobe.models.tokenizing import is_failure

BUNDLED_MODEL = "tiny-negation"

_BUNDLED_FOLDER = Path(__file__).parent / BUNDLED_MODEL
_TOKENIZER_FILES = ("tokenizer.json", "vocab.txt", "vocab.json", "sentencepiece.bpe.model", "spiece.model", "spm.model")
# transformers parses these files, so negprobe first checks them for duplicate keys.
_TOKENIZER_JSON = ("tokenizer.json", "special_tokens_map.json", "added_tokens.json", "vocab.json")


@dataclass(frozen=True)
class Checkpoint:
    """Where a model's files are.

    Attributes:
        name: The model's name without the revision: "tiny-negation", the folder as given, or a hub name.
        folder: The folder with the files.
        revision: The commit on the hub; empty for a local folder and for the bundled model.
    """

    name: str
    folder: Path
    revision: str = ""


def find_checkpoint(name_or_path: str, revision: str | None = None) -> Checkpoint:
    """The checkpoint of the bundled model, an existing folder, or a hub model, which is downloaded if necessary.

    Args:
        name_or_path: The model. A hub name may end in "@" and a revision. An existing folder takes precedence.
        revision: A branch, tag or commit on the hub, as an alternative to "@"; by default "main".

    Raises:
        ModelError: if the folder, hub name or revision does not exist, if a revision is given for a model that is not
            on the hub, or if the download fails.
    """
    if _is_folder(name_or_path):
        _reject_revision(name_or_path, revision)
        return Checkpoint(name_or_path, _BUNDLED_FOLDER if name_or_path == BUNDLED_MODEL else _path(name_or_path))
    name, separator, suffix = name_or_path.partition("@")
    if separator and revision is not None:
        raise ModelError(
            f"{name_or_path!r} already contains a revision, but revision={revision!r} was given too; give only one."
        )
    requested = suffix if separator else revision
    if _is_folder(name):
        _reject_revision(name, requested)
    path = _path(name)
    looks_like_path = name.startswith((".", "/", "~", "\\")) or len(path.parts) != len(name.split("/"))
    if looks_like_path or len(path.parts) > 2 or _exists(path) or _exists(_path(name_or_path)):
        raise ModelError(
            f"There is no model folder at {name_or_path!r}. Give a folder with config.json and *.safetensors, "
            f"a hub name such as 'google-bert/bert-base-uncased', or {BUNDLED_MODEL!r}."
        )
    folder = hub_folder(name) if requested is None else hub_folder(name, requested)
    return Checkpoint(name, folder, folder.name)


def _is_folder(name: str) -> bool:
    try:
        # Path("") would be the current folder.
        return name == BUNDLED_MODEL or (name != "" and _path(name).is_dir())
    except OSError:  # a name that is too long, or a folder without permission
        return False


def _path(name: str) -> Path:
    try:
        return Path(name).expanduser()
    except RuntimeError:  # "~" of an unknown user
        return Path(name)


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:
        return True


def _reject_revision(name: str, revision: str | None) -> None:
    if revision is not None:
        what = "the bundled model" if name == BUNDLED_MODEL else "a local folder"
        raise ModelError(
            f"{name!r} is {what}, which has no revisions, but {revision!r} was given. Omit the revision, or give a hub "
            "model."
        )


def read_checkpoint(
    folder: Path, name: str, dtype: torch.dtype, architecture: str | None = None, *, without_head: bool = False
) -> tuple[PreTrainedModel, str]:
    """The Hugging Face model in a checkpoint folder, and the name of its class.

    Args:
        folder: The folder.
        name: The model's name, for messages.
        dtype: Floating-point type of the weights.
        architecture: The class to read it as; by default the one named in config.json.
        without_head: Whether to ignore the head that config.json names; has no effect if `architecture` is given.

    Raises:
        ModelError: without config.json or safetensors, for an unsupported or missing architecture, a broken
            configuration, missing, misshaped or unexpected weights, adapters, or links to files outside the folder.
    """
    check_files(folder, name)
    config, hf_class = read_config(folder, name, architecture, without_head=without_head)
    cfg = encoder_config(config, hf_class.__name__, name)
    weights, non_float_types = read_weights(folder, cfg, name)
    adapted = next((key for key in sorted(weights | non_float_types) if "lora_" in key), None)
    if adapted is not None:
        raise ModelError(
            f"The weights of {name!r} contain an adapter ({adapted}), which negprobe does not apply. {MERGE_ADAPTER}"
        )
    _check_duplicates(weights, hf_class.base_model_prefix, name)
    architecture = hf_class.__name__
    has_unused_pooler = architecture in FAMILY_OF[config.model_type].unused_poolers
    options: dict[str, Any] = {"add_pooling_layer": False} if has_unused_pooler else {}
    with _quiet_transformers():
        # transformers gets no folder, so it cannot open an adapter, code or any file that was not checked.
        try:
            hf_model, info = hf_class.from_pretrained(
                None,
                config=config,
                state_dict=weights,
                dtype=dtype,
                output_loading_info=True,
                # negprobe reports mismatches itself, with the names of the weights.
                ignore_mismatched_sizes=True,
                local_files_only=True,
                **options,
            )
        except AttributeError as error:  # such as transformers 5.9 with the newer head of DeBERTa (`legacy` false)
            raise ModelError(
                f"transformers {transformers.__version__} cannot load {name!r}, a {architecture}: {error}. Install a "
                "newer version of transformers."
            ) from error
    unusable = sorted(info["missing_keys"]) + sorted(key for key, *_ in info["mismatched_keys"])
    non_float = next((key for key in unusable if key in non_float_types), None)
    if non_float is not None:
        raise ModelError(
            f"{name!r} stores {non_float} as {non_float_types[non_float]}; negprobe reads only floating-point weights "
            "(F64, F32, F16, BF16). Give the original, unquantized model."
        )
    if unusable:
        raise ModelError(
            f"{name!r} is a {architecture} according to its config.json, but these weights are missing or have the "
            f"wrong shape: {', '.join(unusable[:3])}{' and more' if len(unusable) > 3 else ''}. The checkpoint is "
            "incomplete, or its config.json names the wrong architecture."
        )
    unused = {*info["unexpected_keys"], *non_float_types} - hf_model.state_dict().keys()
    _check_unused(unused, hf_model, name)
    return hf_model, architecture


def _check_duplicates(weights: dict[str, Tensor], prefix: str, name: str) -> None:
    """Reject two weights that transformers would load into the same parameter, where either might win."""
    key_of: dict[str, str] = {}
    for key in weights:
        parameter = key.removeprefix(f"{prefix}.")
        parameter = parameter.replace("LayerNorm.gamma", "LayerNorm.weight").replace("LayerNorm.beta", "LayerNorm.bias")
        if key_of.setdefault(parameter, key) != key:
            raise ModelError(
                f"The weights of {name!r} contain both {key_of[parameter]!r} and {key!r}, which name the same weight. "
                "Remove the wrong one."
            )


def _check_unused(keys: set[str], hf_model: PreTrainedModel, name: str) -> None:
    """Reject weights of the encoder or its head that the configuration does not use.

    Other heads, an unused pooler and the position ids that older versions saved are allowed.
    """
    # `embeddings_project` is a module only of models that have embeddings of another width than their states.
    parts = {"embeddings_project"} | {
        part for module in (hf_model, hf_model.base_model) for part, _ in module.named_children()
    }
    # BERT is trained with two heads, and its classes have either or both.
    other_heads = tuple(
        f"{head}." for head in ("cls.predictions", "cls.seq_relationship") if head not in dict(hf_model.named_modules())
    )
    unused = sorted(
        key
        for key in keys
        if key.removeprefix(f"{hf_model.base_model_prefix}.").split(".")[0] in parts
        and not key.endswith((".position_ids", ".token_type_ids"))
        and not key.startswith(other_heads)
    )
    if unused:
        raise ModelError(
            f"The weights of {name!r} contain {', '.join(unused[:3])}{' and more' if len(unused) > 3 else ''}, which "
            f"the {type(hf_model).__name__} described by its config.json does not have. Correct config.json, which "
            "describes a smaller or a different model."
        )


def read_tokenizer(folder: Path, hf_model: PreTrainedModel, name: str) -> PreTrainedTokenizerBase | None:
    """The tokenizer of a folder that `read_checkpoint` has read, or None if it has none.

    Raises:
        ModelError: if it is broken, needs code from the folder, or does not fit the model.
    """
    if not any((folder / file).is_file() for file in _TOKENIZER_FILES):
        return None
    no_paths = check_tokenizer_config(folder, name)
    try:
        for path in (folder / file for file in _TOKENIZER_JSON):
            if path.is_file():
                json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=no_repeats)
        with _quiet_transformers():
            tokenizer = transformers.AutoTokenizer.from_pretrained(
                folder, config=hf_model.config, local_files_only=True, trust_remote_code=False, **no_paths
            )
            check_tokenizer(tokenizer, hf_model.config.vocab_size, name)
        return tokenizer
    except BaseException as error:
        if isinstance(error, ModelError) or not is_failure(error):
            raise
        raise ModelError(
            f"The tokenizer of {name!r} could not be read: {error}. Download its files again, or give a tokenizer."
        ) from error


def check_given_tokenizer(tokenizer: PreTrainedTokenizerBase, config: PreTrainedConfig, name: str) -> None:
    """Check that a given tokenizer works and fits the model; see `check_tokenizer`."""
    try:
        check_tokenizer(tokenizer, config.vocab_size, name)
    except BaseException as error:
        if isinstance(error, ModelError) or not is_failure(error):
            raise
        raise ModelError(f"The tokenizer given for {name!r} fails: {error}. Give a different one.") from error


@contextmanager
def _quiet_transformers() -> Iterator[None]:
    """Silence transformers; negprobe reports missing and unused weights itself."""
    log = transformers.utils.logging
    verbosity, bar = log.get_verbosity(), log.is_progress_bar_enabled()
    log.set_verbosity_error()
    log.disable_progress_bar()
    try:
        yield
    finally:
        log.set_verbosity(verbosity)
        if bar:
            log.enable_progress_bar()
