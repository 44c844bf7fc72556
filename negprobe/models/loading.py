"""Finding a checkpoint: the bundled model, a folder or a hub name, read from safetensors and nothing else."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import transformers
from huggingface_hub import errors as hub_errors
from huggingface_hub import snapshot_download
from torch import Tensor
from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from negprobe.errors import ModelError
from negprobe.models.config import HookedEncoderConfig, Pooling
from negprobe.models.folder import (
    check_files,
    check_tokenizer,
    check_tokenizer_config,
    no_repeats,
    read_config,
    read_json,
    read_weights,
)
from negprobe.tokenizing import is_failure

BUNDLED_MODEL = "tiny-negation"

_BUNDLED_FOLDER = Path(__file__).parent / BUNDLED_MODEL
_TOKENIZER_FILES = ("tokenizer.json", "vocab.txt", "vocab.json", "sentencepiece.bpe.model", "spiece.model")
# Those that transformers reads by itself, whose keys must not be there twice either.
_TOKENIZER_JSON = ("tokenizer.json", "special_tokens_map.json", "added_tokens.json", "vocab.json")
# Other formats of the same weights, and anything that would have to be unpickled, stay on the hub.
_NOT_NEEDED = ["*.bin", "*.pt", "*.h5", "*.msgpack", "*.onnx", "*.ot", "onnx/*", "openvino/*", "*.tflite"]


def checkpoint_folder(name_or_path: str) -> Path:
    """The folder of a model: the bundled one, an existing folder, or a download from the hub.

    Raises:
        ModelError: if the folder or hub name does not exist, or the hub cannot be reached.
    """
    if name_or_path == BUNDLED_MODEL:
        return _BUNDLED_FOLDER
    path = Path(name_or_path)
    try:
        path = path.expanduser()
        # An empty name would be the folder that one stands in.
        if name_or_path and path.is_dir():
            return path
        is_path = not name_or_path or path.exists()
    except (OSError, RuntimeError):  # a name too long for a file, a folder that may not be entered, nobody's home
        is_path = True
    looks_like_path = name_or_path.startswith((".", "/", "~", "\\")) or len(path.parts) != len(name_or_path.split("/"))
    if is_path or looks_like_path or len(path.parts) > 2:
        raise ModelError(
            f"There is no model folder at {name_or_path!r}. Give a folder with config.json and *.safetensors, "
            f"a hub name such as 'google-bert/bert-base-uncased', or {BUNDLED_MODEL!r}."
        )
    return _download(name_or_path)


def _download(name: str) -> Path:
    advice = f"Give the path of a local folder, or {BUNDLED_MODEL!r}, which needs no network."
    try:
        return Path(snapshot_download(name, ignore_patterns=_NOT_NEEDED))
    except hub_errors.GatedRepoError as error:
        raise ModelError(f"The hub wants you to log in and accept the terms of {name!r} first.") from error
    except (hub_errors.RepositoryNotFoundError, hub_errors.HFValidationError) as error:
        raise ModelError(f"There is no folder and no public hub model named {name!r}. {advice}") from error
    except (hub_errors.LocalEntryNotFoundError, hub_errors.HfHubHTTPError, OSError) as error:
        raise ModelError(
            f"{name!r} is not a local folder, not in the local cache, and the hub cannot be reached. {advice}"
        ) from error


def read_checkpoint(
    folder: Path, name: str, dtype: torch.dtype, architecture: str | None = None
) -> tuple[PreTrainedModel, str]:
    """Read model and architecture name from a checkpoint folder.

    Args:
        folder: The folder.
        name: Its name, for messages.
        dtype: Floating-point type of the weights.
        architecture: The class to read it as; by default the one that config.json names.

    Raises:
        ModelError: without config.json or safetensors, for an unsupported or unnamed architecture, a broken
            configuration, weights that are missing, have another shape than the configuration says or are none of the
            model's, adapters, and files that are none of the folder's own.
    """
    check_files(folder, name)
    config, hf_class = read_config(folder, name, architecture)
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
    """Refuse weights that transformers would take for the same one, of which it would use either."""
    named: dict[str, str] = {}
    for key in weights:
        own = key.removeprefix(f"{prefix}.")
        own = own.replace("LayerNorm.gamma", "LayerNorm.weight").replace("LayerNorm.beta", "LayerNorm.bias")
        if named.setdefault(own, key) != key:
            raise ModelError(
                f"The weights of {name!r} hold both {named[own]!r} and {key!r}, two names of the same weight. Remove "
                "the one that is wrong."
            )


def _check_unused(keys: set[str], hf_model: PreTrainedModel, name: str) -> None:
    """Refuse weights inside the encoder or its head that the configuration makes no use of.

    Heads of other tasks, an unused pooler and the position ids that older versions saved are no part of the model.
    """
    # A projection of the embeddings is there only where their width is another than the model's.
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
            f"The weights of {name!r} hold an adapter ({adapted[0]}), which negprobe does not apply. Load it with "
            "peft, call merge_and_unload() and save_pretrained(), and give that folder."
        )
    if unused:
        raise ModelError(
            f"The weights of {name!r} hold {', '.join(unused[:3])}{' and more' if len(unused) > 3 else ''}, for which "
            f"the {type(hf_model).__name__} of its config.json has no place. The configuration describes a smaller or "
            "another model; correct it."
        )


def read_tokenizer(folder: Path, hf_model: PreTrainedModel, name: str) -> PreTrainedTokenizerBase | None:
    """The tokenizer of a folder that `read_checkpoint` has read, or None if it has none.

    Raises:
        ModelError: if it is broken, made by code of the folder's own, or not that of the model.
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
    """Refuse a tokenizer that is not the model's, or that fails; see `check_tokenizer`."""
    try:
        check_tokenizer(tokenizer, config.vocab_size, name)
    except BaseException as error:
        if isinstance(error, ModelError) or not is_failure(error):
            raise
        raise ModelError(f"The tokenizer given for {name!r} fails: {error}. Give another.") from error


def apply_pooling_of_folder(cfg: HookedEncoderConfig, folder: Path) -> None:
    """Set `cfg.pooling` and `cfg.normalize` as a sentence-transformers folder's modules.json says.

    Folders without one keep the defaults (mean, not normalised).

    Raises:
        ModelError: for modules or pooling modes other than mean, CLS and Normalize.
    """
    modules_file = folder / "modules.json"
    if cfg.head != "none" or not modules_file.is_file():
        return
    modules = read_json(folder, "modules.json", list, cfg.model_name)
    described = [module.get(key) for module in modules if isinstance(module, dict) for key in ("type", "path")]
    if len(described) != 2 * len(modules) or not all(isinstance(text, str) for text in described):
        raise ModelError(
            f"modules.json of {cfg.model_name!r} does not give type and path of each module, as sentence-transformers "
            "does. Save the model again, or remove the file to pool by the mean."
        )
    for module in modules[1:]:
        kind = module["type"].rsplit(".", 1)[-1]
        if kind == "Normalize":
            cfg.normalize = True
        elif kind == "Pooling":
            pooling = read_json(folder, f"{module['path']}/config.json", dict, cfg.model_name)
            modes = [key for key, on in pooling.items() if key.startswith("pooling_mode_") and on is True]
            # Older folders switch modes on one by one, newer ones name a single mode.
            mode = modes[0] if len(modes) == 1 else pooling.get("pooling_mode")
            if not isinstance(mode, str) or mode not in _POOLINGS:
                raise ModelError(
                    f"{cfg.model_name!r} pools by {modes or mode}; negprobe supports mean and CLS pooling."
                )
            cfg.pooling = _POOLINGS[mode]
        else:
            raise ModelError(
                f"{cfg.model_name!r} has a {kind} module after its encoder, which negprobe would ignore; "
                "it supports Pooling (mean, CLS) and Normalize."
            )


_HAS_UNUSED_POOLER = {"BertModel", "RobertaModel", "XLMRobertaModel", "CamembertModel"}
_POOLINGS: dict[str, Pooling] = {
    "pooling_mode_mean_tokens": "mean",
    "mean": "mean",
    "pooling_mode_cls_token": "cls",
    "cls": "cls",
}


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
