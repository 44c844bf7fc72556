"""The folder of a study: whose it is, that nobody else writes to it, and where its shards are."""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from importlib import metadata
from pathlib import Path

import torch
from filelock import FileLock, Timeout

from negprobe.errors import StudyError
from negprobe.files import PART, read_bytes, whole_file
from negprobe.models import HookedEncoder
from negprobe.statements import StatementPair

_NAME = "study.json"
_PACKAGES = ("negprobe", "torch", "transformers", "tokenizers", "numpy", "scipy")

Identity = dict[str, str]
"""What a study's numbers hang on, by name."""


def identity(model: HookedEncoder, pairs: Sequence[StatementPair], options: Mapping[str, object]) -> Identity:
    """What the numbers of a study hang on: weights, tokenizer, pairs, options, and versions of what computes them.

    Args:
        model: The model.
        pairs: The pairs, as they came.
        options: Other arguments, such as the seed.
    """
    weights = hashlib.sha256()
    for name, tensor in model.state_dict().items():
        weights.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        # Bytes whatever the type: numpy has no bfloat16.
        weights.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    tokenizer = getattr(model.tokenizer, "backend_tokenizer", None)
    return {
        "model": model.cfg.model_name,
        "weights": weights.hexdigest(),
        "tokenizer": _digest(tokenizer.to_str() if tokenizer is not None else repr(model.tokenizer)),
        "device": str(model.cfg.device).split(":")[0],
        "pairs": f"{len(pairs)}, {_digest(json.dumps([asdict(pair) for pair in pairs]))}",
        **{name: str(value) for name, value in options.items()},
        **{f"version of {name}": metadata.version(name) for name in _PACKAGES},
    }


@contextmanager
def study_folder(out: Path, whose: Identity) -> Iterator[Path]:
    """Hold a folder for one study while it runs, and give the folder of its shards.

    A folder that the same study began is gone on with.

    Raises:
        StudyError: for a folder that another process is writing to, that holds another study, or that cannot be made
            or written to.
    """
    shards = out / "shards"
    # The system lets go of it when the process ends, however it ends.
    lock = FileLock(out / ".lock", timeout=0)
    try:
        shards.mkdir(parents=True, exist_ok=True)
        lock.acquire()
        _claim(out, whose)
        for leftover in shards.glob(f".*{PART}"):
            leftover.unlink()
    except Timeout as error:
        raise StudyError(
            f"Another study is writing to {out} at this moment; wait for it, or choose another folder with --out."
        ) from error
    except OSError as error:
        raise StudyError(f"The folder {out} cannot be written to: {error}. Choose another with --out.") from error
    with lock:
        lock.release()  # the first of the two times that it was taken
        yield shards


def _claim(out: Path, whose: Identity) -> None:
    """Check that the folder is this study's, and say so in it if it is new."""
    path = out / _NAME
    if not path.exists():
        if (out / "manifest.json").exists():
            raise StudyError(f"{out} holds a study that cannot be gone on with; choose another folder with --out.")
        with whole_file(path) as part:
            part.write_text(json.dumps(whose, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        return
    try:
        found = json.loads(read_bytes(path).decode())
        different = [name for name in {**found, **whose} if found.get(name) != whose.get(name)]
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise StudyError(f"{path} is damaged: {error}. Choose another folder with --out.") from error
    if different:
        told = "; ".join(f"{name}: {found.get(name, 'none')}, here {whose.get(name, 'none')}" for name in different)
        raise StudyError(f"{out} holds another study ({told}). Choose another folder with --out.")


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]
