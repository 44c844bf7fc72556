"""Finding a checkpoint: the bundled model, a folder or a hub name, read from safetensors and nothing else."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import transformers
from huggingface_hub import errors as hub_errors
from huggingface_hub import snapshot_download
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from negprobe.errors import ModelError
from negprobe.models.folder import (
    check_files,
    check_tokenizer,
    check_tokenizer_config,
    read_config,
    read_weights,
)

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
    folder: Path, name: str, dtype: torch.dtype, *, without_head: bool = False
) -> tuple[PreTrainedModel, str]:
    """Read model and architecture name from a checkpoint folder; `without_head` leaves out a head that it may have.

    Raises:
        ModelError: without config.json or safetensors, for an unsupported or unnamed architecture, a broken
            configuration, weights that are missing or have another shape than the configuration says, and files that
            are none of the folder's own.
    """
    check_files(folder, name)
    config, hf_class = read_config(folder, name, without_head=without_head)
    weights, others = read_weights(folder, config, name)
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
    return hf_model, architecture


def read_tokenizer(folder: Path, hf_model: PreTrainedModel, name: str) -> PreTrainedTokenizerBase | None:
    """The tokenizer of a folder that `read_checkpoint` has read, or None if it has none.

    Raises:
        ModelError: if it is broken, made by code of the folder's own, or not that of the model.
    """
    if not any((folder / file).is_file() for file in _TOKENIZER_FILES):
        return None
    no_paths = check_tokenizer_config(folder, name)
    try:
        with _quiet_transformers():
            tokenizer = transformers.AutoTokenizer.from_pretrained(
                folder, config=hf_model.config, local_files_only=True, trust_remote_code=False, **no_paths
            )
            check_tokenizer(tokenizer, hf_model.config.vocab_size, name)
    except ModelError:
        raise
    # The library has no error of its own, and its Rust half panics past Exception.
    except BaseException as error:
        if isinstance(error, Exception) or type(error).__name__ == "PanicException":
            raise ModelError(
                f"The tokenizer of {name!r} could not be read: {error}. Get its files afresh, or give a tokenizer."
            ) from error
        raise
    return tokenizer


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
