"""Finding a checkpoint: the bundled model, a folder or a hub name, read from safetensors and nothing else."""

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
_TOKENIZER_FILES = ("tokenizer.json", "vocab.txt", "vocab.json", "sentencepiece.bpe.model", "spiece.model")
# Read by transformers itself, so negprobe checks them for duplicate keys beforehand.
_TOKENIZER_JSON = ("tokenizer.json", "special_tokens_map.json", "added_tokens.json", "vocab.json")


@dataclass(frozen=True)
class Checkpoint:
    """Where a model's files are.

    Attributes:
        name: The model's name without the revision: the bundled one, the folder as given, or a hub name.
        folder: The folder with the files.
        revision: The commit on the hub; empty for a folder and for the bundled model.
    """

    name: str
    folder: Path
    revision: str = ""


def find_checkpoint(name_or_path: str, revision: str | None = None) -> Checkpoint:
    """Find a model: the bundled one, an existing folder, or a hub name, downloaded if necessary.

    Args:
        name_or_path: A hub name may end in "@" and a revision. An existing folder of that name takes precedence.
        revision: A branch, tag or commit on the hub, instead of "@" in the name; by default "main".

    Raises:
        ModelError: if the folder, hub name or revision does not exist, if a revision is given for a model that is not
            on the hub, or if the download fails.
    """
    if _is_folder(name_or_path):
        _refuse_revision(name_or_path, revision)
        return Checkpoint(name_or_path, _BUNDLED_FOLDER if name_or_path == BUNDLED_MODEL else _path(name_or_path))
    name, at, named = name_or_path.partition("@")
    if at and revision is not None:
        raise ModelError(f"{name_or_path!r} already contains a revision, but revision={revision!r}; give only one.")
    wanted = named if at else revision
    if _is_folder(name):
        _refuse_revision(name, wanted)
    path = _path(name)
    looks_like_path = name.startswith((".", "/", "~", "\\")) or len(path.parts) != len(name.split("/"))
    if looks_like_path or len(path.parts) > 2 or _exists(path) or _exists(_path(name_or_path)):
        raise ModelError(
            f"There is no model folder at {name_or_path!r}. Give a folder with config.json and *.safetensors, "
            f"a hub name such as 'google-bert/bert-base-uncased', or {BUNDLED_MODEL!r}."
        )
    folder = hub_folder(name) if wanted is None else hub_folder(name, wanted)
    return Checkpoint(name, folder, folder.name)


def _is_folder(name: str) -> bool:
    try:
        # An empty name would be the current folder.
        return name == BUNDLED_MODEL or (name != "" and _path(name).is_dir())
    except OSError:  # a name too long for a file, a folder that may not be entered
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


def _refuse_revision(name: str, revision: str | None) -> None:
    if revision is not None:
        what = "the bundled model" if name == BUNDLED_MODEL else "a local folder"
        raise ModelError(
            f"{name!r} is {what}, which has no revisions, but {revision!r} was given. Omit the revision, or give a hub "
            "model."
        )


def read_checkpoint(
    folder: Path, name: str, dtype: torch.dtype, architecture: str | None = None, *, without_head: bool = False
) -> tuple[PreTrainedModel, str]:
    """Read model and architecture name from a checkpoint folder.

    Args:
        folder: The folder.
        name: Its name, for messages.
        dtype: Floating-point type of the weights.
        architecture: The class to read it as; by default the one named in config.json.
        without_head: Whether to ignore the head that config.json names; has no effect if `architecture` is given.

    Raises:
        ModelError: without config.json or safetensors, for an unsupported or missing architecture, a broken
            configuration, missing, misshaped or unexpected weights, adapters, and links to files outside the folder.
    """
    check_files(folder, name)
    config, hf_class = read_config(folder, name, architecture, without_head=without_head)
    weights, others = read_weights(folder, config, name)
    _check_twice(weights, hf_class.base_model_prefix, name)
    architecture = hf_class.__name__
    options: dict[str, Any] = {"add_pooling_layer": False} if architecture in _HAS_UNUSED_POOLER else {}
    with _quiet_transformers():
        # The library gets no folder, so that it finds no adapter, code or file that was not checked.
        hf_model, info = hf_class.from_pretrained(
            None,
            config=config,
            state_dict=weights,
            dtype=dtype,
            output_loading_info=True,
            # Reported here, with the names of the weights, instead of raised without them.
            ignore_mismatched_sizes=True,
            local_files_only=True,
            **options,
        )
    unfit = sorted(info["missing_keys"]) + sorted(key for key, *_ in info["mismatched_keys"])
    stored_otherwise = [key for key in unfit if key in others]
    if stored_otherwise:
        key = stored_otherwise[0]
        raise ModelError(
            f"{name!r} stores {key} as {others[key]}; negprobe reads floating-point weights (F64, F32, F16, BF16). "
            "Give the model before it was quantized."
        )
    if unfit:
        raise ModelError(
            f"{name!r} says it is a {architecture}, but its weights lack or misshape {', '.join(unfit[:3])}"
            f"{' and more' if len(unfit) > 3 else ''}. The checkpoint is incomplete or its config.json names the "
            "wrong architecture."
        )
    unused = {*info["unexpected_keys"], *others} - hf_model.state_dict().keys()
    _check_unused(unused, hf_model, name)
    return hf_model, architecture


def _check_twice(weights: dict[str, Tensor], prefix: str, name: str) -> None:
    """Refuse two weights that transformers would load into the same parameter, where either might win."""
    named: dict[str, str] = {}
    for key in weights:
        own = key.removeprefix(f"{prefix}.")
        own = own.replace("LayerNorm.gamma", "LayerNorm.weight").replace("LayerNorm.beta", "LayerNorm.bias")
        if named.setdefault(own, key) != key:
            raise ModelError(
                f"The weights of {name!r} contain both {named[own]!r} and {key!r}, two names of the same weight. "
                "Remove the wrong one."
            )


def _check_unused(keys: set[str], hf_model: PreTrainedModel, name: str) -> None:
    """Refuse weights of the encoder or its head that the configuration does not use.

    Other heads, an unused pooler and the position ids that older versions saved may be present.
    """
    # Only a model whose embeddings differ in width from its states has a projection.
    parts = {"embeddings_project"} | {
        part for module in (hf_model, hf_model.base_model) for part, _ in module.named_children()
    }
    unused = sorted(
        key
        for key in keys
        if key.removeprefix(f"{hf_model.base_model_prefix}.").split(".")[0] in parts
        and not key.endswith((".position_ids", ".token_type_ids"))
        and not key.startswith("cls.seq_relationship.")
    )
    adapted = sorted(key for key in keys if "lora_" in key)
    if adapted:
        raise ModelError(
            f"The weights of {name!r} contain an adapter ({adapted[0]}), which negprobe does not apply. {MERGE_ADAPTER}"
        )
    if unused:
        raise ModelError(
            f"The weights of {name!r} contain {', '.join(unused[:3])}{' and more' if len(unused) > 3 else ''}, which "
            f"the {type(hf_model).__name__} of its config.json does not have. The configuration describes a smaller or "
            "different model; correct it."
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
            f"The tokenizer of {name!r} could not be read: {error}. Get its files afresh, or give a tokenizer."
        ) from error


def check_given_tokenizer(tokenizer: PreTrainedTokenizerBase, config: PreTrainedConfig, name: str) -> None:
    """Refuse a given tokenizer that fails or does not fit the model; see `check_tokenizer`."""
    try:
        check_tokenizer(tokenizer, config.vocab_size, name)
    except BaseException as error:
        if isinstance(error, ModelError) or not is_failure(error):
            raise
        raise ModelError(f"The tokenizer given for {name!r} fails: {error}. Give another.") from error


_HAS_UNUSED_POOLER = {"BertModel", "RobertaModel", "XLMRobertaModel", "CamembertModel"}


@contextmanager
def _quiet_transformers() -> Iterator[None]:
    """No progress bar and no report of unused weights; missing ones become an error of ours."""
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
