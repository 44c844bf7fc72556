"""Finding a checkpoint: the bundled model, a folder or a hub name, read from safetensors and nothing else."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
import transformers
from huggingface_hub import errors as hub_errors
from huggingface_hub import snapshot_download
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from negprobe.errors import ModelError
from negprobe.models.config import HookedEncoderConfig, Pooling
from negprobe.models.convert import check_supported

BUNDLED_MODEL = "tiny-negation"

_BUNDLED_FOLDER = Path(__file__).parent / BUNDLED_MODEL
_TOKENIZER_FILES = ("tokenizer.json", "vocab.txt", "vocab.json", "sentencepiece.bpe.model", "spiece.model")
# Other formats of the same weights, and anything that would have to be unpickled, stay on the hub.
_NOT_NEEDED = ["*.bin", "*.pt", "*.h5", "*.msgpack", "*.onnx", "*.ot", "onnx/*", "openvino/*", "*.tflite"]


def checkpoint_folder(name_or_path: str) -> Path:
    """The folder of a model: the bundled one, an existing folder, or a download from the hub.

    Raises:
        ModelError: if the folder or hub name does not exist, or the hub cannot be reached.
    """
    if name_or_path == BUNDLED_MODEL:
        return _BUNDLED_FOLDER
    path = Path(name_or_path).expanduser()
    if path.is_dir():
        return path
    looks_like_path = name_or_path.startswith((".", "/", "~", "\\")) or len(path.parts) != len(name_or_path.split("/"))
    if looks_like_path or len(path.parts) > 2 or path.exists():
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
    folder: Path, name: str, dtype: torch.dtype
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase | None, str]:
    """Read model, tokenizer (None if the folder has none) and architecture name from a checkpoint folder.

    Raises:
        ModelError: without config.json or safetensors, for an unsupported or unnamed architecture, for weights that are
            missing or have another shape than the configuration says.
    """
    if not (folder / "config.json").is_file():
        raise ModelError(f"{name!r} has no config.json, so it is not a model folder in Hugging Face's format.")
    raw = _raw_config(folder, name)
    architecture = str(raw["architectures"][0])
    # Checked before transformers reads the file, so that an unknown type gets our error and not the library's.
    check_supported(SimpleNamespace(**raw), architecture)
    if not any(folder.glob("*.safetensors")):
        found = ", ".join(sorted(p.name for p in folder.glob("*.bin"))) or "no weights"
        raise ModelError(
            f"{name!r} holds {found}, but negprobe reads *.safetensors only, because loading other formats can run "
            "code. Load it once with transformers and call save_pretrained() to convert it."
        )
    options: dict[str, Any] = {"add_pooling_layer": False} if architecture in _HAS_UNUSED_POOLER else {}
    try:
        with _quiet_transformers():
            hf_model, info = getattr(transformers, architecture).from_pretrained(
                folder,
                dtype=dtype,
                use_safetensors=True,
                output_loading_info=True,
                # Reported here, with the names of the weights, instead of raised without them.
                ignore_mismatched_sizes=True,
                local_files_only=True,
                **options,
            )
    except Exception as error:
        raise ModelError(f"The weights of {name!r} could not be read: {error}") from error
    unfit = sorted(info["missing_keys"]) + sorted(key for key, *_ in info["mismatched_keys"])
    if unfit:
        raise ModelError(
            f"{name!r} says it is a {architecture}, but its weights lack or misshape {', '.join(unfit[:3])}"
            f"{' and more' if len(unfit) > 3 else ''}. The checkpoint is incomplete or its config.json names the "
            "wrong architecture."
        )
    return hf_model, _read_tokenizer(folder, name), architecture


def apply_pooling_of_folder(cfg: HookedEncoderConfig, folder: Path) -> None:
    """Set `cfg.pooling` and `cfg.normalize` as a sentence-transformers folder's modules.json says.

    Folders without one keep the defaults (mean, not normalised).

    Raises:
        ModelError: for modules or pooling modes other than mean, CLS and Normalize.
    """
    modules_file = folder / "modules.json"
    if cfg.head != "none" or not modules_file.is_file():
        return
    for module in _read_json(modules_file, list, cfg.model_name)[1:]:
        kind = module["type"].rsplit(".", 1)[-1]
        if kind == "Normalize":
            cfg.normalize = True
        elif kind == "Pooling":
            pooling = _read_json(folder / module["path"] / "config.json", dict, cfg.model_name)
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


def _raw_config(folder: Path, name: str) -> dict[str, Any]:
    config = _read_json(folder / "config.json", dict, name)
    architectures = config.get("architectures") or []
    if len(architectures) != 1:
        raise ModelError(
            f"The config.json of {name!r} names {len(architectures)} architectures; negprobe needs exactly one, such "
            'as "architectures": ["BertForMaskedLM"], to know which head to load.'
        )
    return config


def _read_json(file: Path, kind: type, name: str) -> Any:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{file.name} of {name!r} is not readable JSON: {error}") from error
    if not isinstance(content, kind):
        raise ModelError(f"{file.name} of {name!r} holds a JSON {type(content).__name__}, not a {kind.__name__}.")
    return content


def _read_tokenizer(folder: Path, name: str) -> PreTrainedTokenizerBase | None:
    if not any((folder / file).is_file() for file in _TOKENIZER_FILES):
        return None
    try:
        return transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except Exception as error:
        raise ModelError(f"The tokenizer of {name!r} could not be read: {error}") from error


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
