"""The folder of a study: its fingerprint, its lock against other processes, and its shards."""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, fields
from pathlib import Path
from typing import NamedTuple

import torch
from filelock import FileLock, Timeout

from negprobe.base.errors import InputError, StudyError
from negprobe.base.files import PART, read_bytes, whole_file
from negprobe.base.provenance import numeric_versions, versions
from negprobe.base.texts import is_utf8, quoted
from negprobe.models import HookedEncoder
from negprobe.patching import default_objective, objective_named
from negprobe.patching.circuit_search import Effort
from negprobe.statements import StatementPair
from negprobe.study.formats import FORMAT, checked_format

_NAME = "study.json"
_THREADS = "threads"
_FORMAT = "format"
_ENVIRONMENTS = "environments.json"

# The files that a study writes; a folder that has one of them but no study.json belongs to something else.
_WRITTEN = ("manifest.json", "report.html", "circuit.json", "figure_data.npz", "figures", "shards", "*.parquet", "*.nc")

DEFAULT_OBJECTIVE = "default"
"""The name of the model's default objective in a fingerprint, whether or not it was given explicitly."""

# The values of entries that an older study.json lacks.
_UNRECORDED = {"objective": DEFAULT_OBJECTIVE}

Identity = dict[str, str]
"""What a study's numbers depend on, by name."""


class StudyFolder(NamedTuple):
    """The folder of a study while it runs.

    Attributes:
        shards: The folder of its shards.
        threads: The number of threads that the study began with. With another number, results are valid but can differ
            in the last bits, because sums are split differently.
    """

    shards: Path
    threads: int


def identity(model: HookedEncoder, pairs: Sequence[StatementPair], options: Mapping[str, object]) -> Identity:
    """What the numbers of a study depend on: model, tokenizer, pairs, options, and the packages that compute them.

    Only major and minor versions count (see `provenance.numeric_versions`), so that a study can be resumed after a
    patch release of a package; `noted_environments` records the exact versions.

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
    cfg = {field.name: str(getattr(model.cfg, field.name)) for field in fields(model.cfg)}
    # The weights themselves are compared, and several commits may have the same ones.
    del cfg["revision"]
    device = cfg.pop("device").split(":")[0]
    return {
        "model": cfg.pop("model_name"),
        "configuration": _digest(json.dumps(cfg, sort_keys=True)),
        "weights": weights.hexdigest(),
        "tokenizer": _digest(_tokenizer_text(model.tokenizer)),
        "device": device,
        "pairs": f"{len(pairs)}, {_digest(json.dumps([asdict(pair) for pair in pairs]))}",
        **{name: str(value) for name, value in options.items()},
        **{f"version of {name}": version for name, version in numeric_versions().items()},
    }


def options_of_study(
    model: HookedEncoder,
    *,
    patch_pairs: int | None,
    circuit_pairs: int | None,
    contribution_pairs: int | None,
    circuit_effort: Effort,
    seed: int,
    objective: str | None,
) -> dict[str, object]:
    """The arguments of `run_study` that its numbers depend on, by the names they have in a fingerprint.

    Raises:
        PatchingError: for an objective that does not exist, or that the model does not have.
        InputError: for the name of an objective that UTF-8 cannot represent.
    """
    if objective is not None and not is_utf8(objective):
        raise InputError(f"The objective {quoted(objective)} cannot be represented in UTF-8; correct its text.")
    is_default = objective_named(model, objective) is default_objective(model)
    return {
        "patched pairs": patch_pairs,
        "pairs of the circuit": circuit_pairs,
        "pairs of contributions": contribution_pairs,
        "effort of the circuit's search": circuit_effort,
        "seed": seed,
        "objective": DEFAULT_OBJECTIVE if is_default else objective,
    }


def key(fingerprint: Identity) -> str:
    """The name of the folder with the shards of one study.

    Entries with the value that older versions assumed do not change it, so that their shards are found.
    """
    recorded = {name: value for name, value in fingerprint.items() if _UNRECORDED.get(name) != value}
    return _digest(json.dumps(recorded, sort_keys=True))


def noted_environments(shards: Path) -> list[dict[str, object]]:
    """Record this run's Python and exact package versions in a folder of shards; returns those of all its runs.

    Raises:
        StudyError: if the recorded list is damaged, or cannot be written.
    """
    path, current = shards / _ENVIRONMENTS, versions()
    try:
        found = json.loads(read_bytes(path).decode()) if path.exists() else []
        if not isinstance(found, list) or not all(isinstance(one, dict) and "versions" in one for one in found):
            raise ValueError("it is not a list of versions")
        if current not in found:
            found.append(current)
            with whole_file(path) as part:
                part.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise _unwritable(shards, error) from error
    except (ValueError, RecursionError) as error:
        raise StudyError(
            f"{path} is damaged: {error}. Delete it; the manifest then names only this run's versions."
        ) from error
    return found


@contextmanager
def study_folder(out: Path, fingerprint: Identity) -> Iterator[StudyFolder]:
    """Lock a folder for one study while it runs; returns the folder of its shards, and the threads to use.

    A study that was stopped resumes in its folder.

    Raises:
        StudyError: for a folder that another process is writing to, that holds another study, one that another
            format version of negprobe began, or what a study would overwrite, or that cannot be made or written to.
    """
    shards = out / "shards"
    # The system releases the lock when the process ends, even by `kill -9`.
    lock = FileLock(out / ".lock", timeout=0)
    try:
        out.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout as error:
        raise StudyError(
            f"Another study is writing to {out}; wait until it has finished, or choose another folder."
        ) from error
    except OSError as error:
        raise _unwritable(out, error) from error
    try:
        try:
            threads = _claim(out, fingerprint)
            shards.mkdir(exist_ok=True)
            for place in (out, out / "figures", *shards.iterdir()):
                for leftover in place.glob(f".*.[0-9]*{PART}"):
                    leftover.unlink()
        except OSError as error:
            raise _unwritable(out, error) from error
        yield StudyFolder(shards, threads)
    finally:
        lock.release()


def _claim(out: Path, fingerprint: Identity) -> int:
    """Check that the folder is this study's, write its fingerprint if it is new; returns the threads it began with."""
    path = out / _NAME
    if not path.exists():
        strangers = sorted(found.name for pattern in _WRITTEN for found in out.glob(pattern))
        if strangers:
            raise StudyError(
                f"{out} has no {_NAME}, so it is not a folder of this study, but it holds {', '.join(strangers[:3])}, "
                "which the study would write over. Choose another folder."
            )
        threads = torch.get_num_threads()
        with whole_file(path) as part:
            content = json.dumps({_FORMAT: FORMAT} | fingerprint | {_THREADS: threads}, indent=2, ensure_ascii=False)
            part.write_text(content + "\n", encoding="utf-8")
        return threads
    try:
        found = json.loads(read_bytes(path).decode())
        version = checked_format(path, found.pop(_FORMAT, None))
        threads = found.pop(_THREADS)
        found, current = _UNRECORDED | found, _UNRECORDED | fingerprint
        different = [name for name in {**found, **current} if found.get(name) != current.get(name)]
        if type(threads) is not int or not 0 < threads < 10_000:
            raise ValueError(f"{threads!r} threads")
    except (ValueError, TypeError, AttributeError, KeyError, RecursionError) as error:
        raise StudyError(f"{path} is damaged: {error}. Choose another folder.") from error
    if version < FORMAT:
        raise StudyError(
            f"{out} holds a study of an earlier version of negprobe (format {version} of {_NAME}, now {FORMAT}), which "
            "this version cannot resume. Its tables can still be read and compared; to run the study, choose another "
            "folder."
        )
    if different:
        differences = "; ".join(
            f"{name}: {found.get(name, 'none')}, here {current.get(name, 'none')}" for name in different
        )
        raise StudyError(
            f"{out} holds another study ({differences}). To resume that one, use the same model, pairs, options and "
            "versions; for a new study, choose another folder."
        )
    return threads


def _unwritable(out: Path, error: OSError) -> StudyError:
    return StudyError(f"The folder {out} cannot be written to: {error}. Choose another.")


def _tokenizer_text(tokenizer: object) -> str:
    """A text that determines how a tokenizer splits statements."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    special = getattr(tokenizer, "special_tokens_map", None)
    return f"{backend.to_str() if backend is not None else repr(tokenizer)} {special}"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]
