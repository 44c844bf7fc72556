"""The folder of a study: lock it, check that its fingerprint matches, and locate its shards."""

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
from negprobe.statements import StatementPair, english_lexicon, lexicon_in_use
from negprobe.study.formats import FORMAT, checked_format

_NAME = "study.json"
_THREADS = "threads"
_FORMAT = "format"
_ENVIRONMENTS = "environments.json"

# The files that a study writes. A folder with any of them but without study.json was not made by `study_folder`.
_WRITTEN = ("manifest.json", "report.html", "circuit.json", "figure_data.npz", "figures", "shards", "*.parquet", "*.nc")

DEFAULT_OBJECTIVE = "default"
"""The name of the model's default objective in a fingerprint, whether or not it was given explicitly."""

DEFAULT_CUES = "English"
"""The name of the default lexicon in a fingerprint; of another one, its digest is recorded."""

NO_PROMPT = "none"
"""The name of an empty prompt in a fingerprint; another one is recorded in quotation marks."""

# What a missing entry of study.json means; earlier versions did not record these entries.
_UNRECORDED = {"objective": DEFAULT_OBJECTIVE, "cues": DEFAULT_CUES, "prompt": NO_PROMPT}

_NOT_IN_A_CALL = {"padding": None, "truncation": None}

Identity = dict[str, str]
"""A fingerprint: everything that a study's numbers depend on, by name."""


class StudyFolder(NamedTuple):
    """The folder of a study while it runs.

    Attributes:
        shards: The folder of its shards.
        threads: The number of threads that the study started with. Another number gives valid results, but they can
            differ in the last bits, because sums are split differently.
    """

    shards: Path
    threads: int


def identity(model: HookedEncoder, pairs: Sequence[StatementPair], options: Mapping[str, object]) -> Identity:
    """The fingerprint of a study: model, tokenizer, pairs, options, and the versions of the packages that compute.

    It has only major and minor versions (see `provenance.numeric_versions`), so that a study can be resumed after a
    patch release of a package; `noted_environments` records the exact versions.

    Args:
        model: The model.
        pairs: The pairs as given.
        options: Other arguments that the numbers depend on, such as the seed.
    """
    weights = hashlib.sha256()
    for name, tensor in model.state_dict().items():
        weights.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        # Hash the raw bytes, because numpy has no bfloat16.
        weights.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    cfg = {field.name: str(getattr(model.cfg, field.name)) for field in fields(model.cfg)}
    # The revision is left out: different commits may have the same weights, and the weights themselves are hashed.
    del cfg["revision"]
    device = cfg.pop("device").split(":")[0]
    prompt = cfg.pop("prompt")
    # Named, so that the error about another study shows them; other configurations keep the digest that they had.
    labels = {"labels": json.dumps(model.cfg.labels, ensure_ascii=False)} if model.cfg.labels else {}
    for name in labels:
        del cfg[name]
    return {
        "model": cfg.pop("model_name"),
        **labels,
        "configuration": _digest(json.dumps(cfg, sort_keys=True)),
        "weights": weights.hexdigest(),
        "tokenizer": _digest(_tokenizer_text(model.tokenizer)),
        "prompt": repr(prompt) if prompt else NO_PROMPT,
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
    pairs: Sequence[StatementPair] = (),
) -> dict[str, object]:
    """The arguments of `run_study` that its numbers depend on, and the cues in use, by their names in a fingerprint.

    Raises:
        PatchingError: for an unknown objective, or one that the model does not have.
        InputError: for an objective that is not valid UTF-8 text.
    """
    if objective is not None and not is_utf8(objective):
        raise InputError(f"The objective {quoted(objective)} is not valid UTF-8 text; correct it.")
    patched = objective_named(model, objective, pairs)
    is_default = patched is default_objective(model)
    lexicon = lexicon_in_use()
    return {
        "patched pairs": patch_pairs,
        "pairs of the circuit": circuit_pairs,
        "pairs of contributions": contribution_pairs,
        "effort of the circuit's search": circuit_effort,
        "seed": seed,
        "objective": DEFAULT_OBJECTIVE if is_default else objective or patched.__name__,
        "cues": DEFAULT_CUES if lexicon == english_lexicon() else lexicon.fingerprint,
    }


def key(fingerprint: Identity) -> str:
    """The name of the folder that holds the shards of the study with this fingerprint.

    Entries that earlier versions did not record are left out if they have the value that those versions used, so that
    the shards of earlier versions are found.
    """
    recorded = {name: value for name, value in fingerprint.items() if _UNRECORDED.get(name) != value}
    return _digest(json.dumps(recorded, sort_keys=True))


def noted_environments(shards: Path) -> list[dict[str, object]]:
    """The Python and exact package versions of all runs that wrote to a folder of shards; this run's are added.

    Raises:
        StudyError: if the recorded list is damaged or cannot be written.
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
            f"{path} is damaged: {error}. Delete it and run the study again; the manifest will then list only the "
            "versions of that run."
        ) from error
    return found


@contextmanager
def study_folder(out: Path, fingerprint: Identity) -> Iterator[StudyFolder]:
    """The folder of a study, locked until the block ends: the folder of its shards, and the number of threads to use.

    A study that was stopped resumes in its folder.

    Raises:
        StudyError: if another process is writing to the folder; if it holds another study, a study of another format
            version, or other files that the study would overwrite; or if it cannot be created or written to.
    """
    shards = out / "shards"
    # The operating system releases the lock when the process ends, even by `kill -9`.
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
    """The number of threads the study started with; checks the folder's fingerprint, or writes it to a new folder."""
    path = out / _NAME
    if not path.exists():
        strangers = sorted(found.name for pattern in _WRITTEN for found in out.glob(pattern))
        if strangers:
            raise StudyError(
                f"{out} has no {_NAME}, so it is not the folder of a study that can be resumed, but it holds "
                f"{', '.join(strangers[:3])}, which the study would overwrite. Choose another folder."
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
            raise ValueError(f"it records {threads!r} threads")
    except (ValueError, TypeError, AttributeError, KeyError, RecursionError) as error:
        raise StudyError(f"{path} is damaged: {error}. Choose another folder.") from error
    if version < FORMAT:
        raise StudyError(
            f"{out} holds a study of an earlier version of negprobe ({_NAME} has format version {version}, the current "
            f"one is {FORMAT}), which this version cannot resume. Its tables can still be read and compared; to run "
            "the study, choose another folder."
        )
    if different:
        differences = "; ".join(
            f"{name}: {found.get(name, 'none')} in the folder, {current.get(name, 'none')} now" for name in different
        )
        raise StudyError(
            f"{out} holds another study ({differences}). To resume it, use the same model, pairs, options and package "
            "versions; to start a new study, choose another folder."
        )
    return threads


def _unwritable(out: Path, error: OSError) -> StudyError:
    return StudyError(f"The folder {out} cannot be written to: {error}. Choose another folder.")


def _tokenizer_text(tokenizer: object) -> str:
    """The tokenizer's complete definition as text, without the padding and truncation of its last call."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    special = getattr(tokenizer, "special_tokens_map", None)
    definition = repr(tokenizer) if backend is None else json.dumps(json.loads(backend.to_str()) | _NOT_IN_A_CALL)
    return f"{definition} {special}"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]
