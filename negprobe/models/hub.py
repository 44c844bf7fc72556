"""Models on the Hugging Face hub: choosing the files, downloading and verifying them, and explaining what failed."""

import errno
import hashlib
import json
import os
import re
import warnings
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Literal

from huggingface_hub import (
    _CACHED_NO_EXIST,
    HfApi,
    constants,
    get_token,
    hf_hub_download,
    try_to_load_from_cache,
)
from huggingface_hub import errors as hub_errors
from huggingface_hub.utils import validate_repo_id

from negprobe.base.errors import ModelError, NegprobeWarning
from negprobe.base.files import whole_file

_SETTINGS = (
    "config.json",
    "adapter_config.json",
    "modules.json",
    "config_sentence_transformers.json",
    "sentence_*_config.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "tokenizer.json",
    "tokenizer.*.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "sentencepiece.bpe.model",
    "spiece.model",
)
"""The files, apart from the weights, that determine what an encoder and its tokenizer compute."""

_WEIGHTS = "model.safetensors"
_INDEX = "model.safetensors.index.json"
_TIMEOUT_SECONDS = 10
_MAX_REASON_LENGTH = 300
_NO_NETWORK = {
    "model": "A local folder, or the bundled 'tiny-negation', needs no network.",
    "data set": "Your own files, or the built-in pairs, need no network.",
}
_READ_BYTES = 2**20


def hub_folder(name: str, revision: str = constants.DEFAULT_REVISION) -> Path:
    """The folder of a model in the hub's local cache, downloaded if necessary; its name is the commit.

    If the hub cannot be reached, a complete cached copy is used, with a warning.

    Args:
        name: The repository, as "owner/name" or "name".
        revision: A branch, tag or commit.

    Raises:
        ModelError: if the hub does not provide the model and the local cache does not hold it, if the repository lacks
            a configuration or safetensors, or if a file's content does not match the hub's hash.
    """
    try:
        validate_repo_id(name)
    except hub_errors.HFValidationError as error:
        raise ModelError(explain(error, name, revision)) from error
    # The cache has a file named after each branch, so the name must be a safe path.
    if ".." in revision or not re.fullmatch(r"[^\s/\\\0][^\s\\\0]*", revision):
        raise ModelError(f"{revision!r} is not a revision; give a branch, tag or commit of {name!r}.")
    if constants.HF_HUB_OFFLINE:
        cached = _cached(name, revision)
        if cached is None:
            raise ModelError(
                f"{name!r} is not a local folder, its revision {revision!r} is not in the local cache, and the hub "
                f"cannot be reached, because HF_HUB_OFFLINE is set. {_NO_NETWORK['model']}"
            )
        return cached
    try:
        return _downloaded(name, revision)
    except ModelError:
        raise
    # The client passes on whatever its HTTP and JSON libraries raise, and has no base class for its own errors.
    except Exception as error:
        problem = explain(error, name, revision)
        # A cached copy does not help if the revision no longer exists or the disk is full.
        is_final = isinstance(error, hub_errors.RevisionNotFoundError) or _is_disk_full(error)
        cached = None if is_final else _cached(name, revision)
        if cached is None:
            raise ModelError(problem) from error
        warnings.warn(
            f"{problem} The local cache's copy of {name!r} is used (commit {cached.name}).",
            NegprobeWarning,
            stacklevel=2,
        )
        return cached


def hub_problem(name: str) -> str:
    """The reason why the hub cannot be used, or an empty string if it can; determined within seconds."""
    try:
        _listed(name, constants.DEFAULT_REVISION)
    except Exception as error:
        return explain(error, name, constants.DEFAULT_REVISION)
    return ""


# Downloading


@dataclass(frozen=True)
class _Hash:
    """The expected hash of a file: SHA-256 for large files, git's SHA-1 for small ones."""

    value: str

    def matches(self, path: Path) -> bool:
        if len(self.value) == 64:
            digest = hashlib.sha256()
        else:
            digest = hashlib.sha1(b"blob %d\0" % path.stat().st_size, usedforsecurity=False)
        with path.open("rb") as file:
            while block := file.read(_READ_BYTES):
                digest.update(block)
        return digest.hexdigest() == self.value


def _downloaded(name: str, revision: str) -> Path:
    listed, commit = _listed(name, revision)

    def fetch(file: str) -> Path:
        path = Path(hf_hub_download(name, file, revision=commit))
        known = listed[file] or _hash_of_link(path)
        if known is None or known.matches(path):
            return path
        # Corrupted by this download or an earlier one.
        _remove(path)
        path = Path(hf_hub_download(name, file, revision=commit))
        if known.matches(path):
            return path
        _remove(path)
        raise ModelError(
            f"{file} of {name!r} was corrupt after two downloads: its content does not match the hub's hash. It was "
            "removed from the local cache. Try again, or use another network."
        )

    folder = _fetch_needed(name, listed, fetch)
    _record_download(folder, revision, commit, lacks_modules="modules.json" not in listed)
    return folder


def _listed(name: str, revision: str) -> tuple[dict[str, _Hash | None], str]:
    """The files of a repository with their hashes, and the commit that a revision stands for."""
    problem = token_problem()
    if problem:
        raise ValueError(problem)
    try:
        info = HfApi().model_info(name, revision=revision, files_metadata=True, timeout=_TIMEOUT_SECONDS)
    except (KeyError, TypeError, AttributeError) as error:  # JSON of another structure
        raise hub_errors.FileMetadataError("The answer is not a list of files.") from error
    if not isinstance(info.sha, str) or not re.fullmatch("[0-9a-f]{40}", info.sha) or info.siblings is None:
        raise hub_errors.FileMetadataError("The answer has no commit or no list of files.")
    hashes = {str(file.rfilename): file.lfs.sha256 if file.lfs else file.blob_id for file in info.siblings}
    return {file: _hash(value) for file, value in hashes.items()}, info.sha


def _hash(value: object) -> _Hash | None:
    is_hash = isinstance(value, str) and re.fullmatch("[0-9a-f]{40}|[0-9a-f]{64}", value)
    return _Hash(str(value)) if is_hash else None


def _hash_of_link(path: Path) -> _Hash | None:
    """The hash of a cached file, from the name of the blob that it links to; None for a copy, as on Windows."""
    return _hash(path.readlink().name) if path.is_symlink() else None


def _remove(path: Path) -> None:
    """Delete a file from the cache: the link, its blob, and the file that the blob may link to."""
    cache = Path(constants.HF_HUB_CACHE).expanduser().resolve()
    while path.is_relative_to(cache):
        target = Path(os.path.normpath(path.parent / path.readlink())) if path.is_symlink() else None
        path.unlink(missing_ok=True)
        if target is None:
            break
        path = target


def _record_download(folder: Path, revision: str, commit: str, lacks_modules: bool) -> None:
    """Record in the cache, in its documented layout, what a later offline load needs.

    This is written last, so that a branch points to a snapshot only once the snapshot is complete.
    """
    repository = folder.parents[1]
    # A read-only cache can still be used.
    with suppress(OSError):
        if revision != commit:
            ref = repository / "refs" / revision
            ref.parent.mkdir(parents=True, exist_ok=True)
            with whole_file(ref) as part:
                part.write_text(commit, encoding="utf-8")
        if lacks_modules:
            absent = repository / ".no_exist" / commit / "modules.json"
            absent.parent.mkdir(parents=True, exist_ok=True)
            absent.touch()


# The files that are needed


def _fetch_needed(name: str, listed: Collection[str], fetch: Callable[[str], Path]) -> Path:
    """Fetch only the files that loading reads: settings first, weights last.

    Args:
        name: The repository, for messages.
        listed: The repository's files.
        fetch: Function that downloads one file and returns its path.

    Returns:
        The folder with the files.

    Raises:
        ModelError: without a configuration, without safetensors, or if a shard is missing.
    """
    paths = _module_paths(fetch("modules.json")) if "modules.json" in listed else [""]
    encoder = f"{paths[0]}/" if paths[0] else ""
    if f"{encoder}config.json" not in listed:
        raise ModelError(f"{name!r} has no {encoder}config.json, so it is not a model in Hugging Face's format.")
    single, index = f"{encoder}{_WEIGHTS}", f"{encoder}{_INDEX}"
    if single not in listed and index not in listed:
        raise _no_safetensors(name, listed, encoder)
    for file in sorted(listed):
        folder, _, base = file.rpartition("/")
        is_setting = any(fnmatchcase(base, setting) for setting in _SETTINGS)
        is_of_module = folder in paths[1:] and base in ("config.json", _WEIGHTS)
        if (is_setting and folder in ("", paths[0])) or (is_of_module and folder != paths[0]):
            fetch(file)
    root = fetch(f"{encoder}config.json").parents[encoder.count("/")]
    for file in [single] if single in listed else [index, *_shards(fetch(index), name, encoder, listed)]:
        fetch(file)
    return root


def _module_paths(modules_file: Path) -> list[str]:
    """The folders of a sentence encoder's modules, encoder first; only the root if modules.json is malformed."""
    content = _json(modules_file)
    modules = content if isinstance(content, list) else []
    paths = [module.get("path") for module in modules if isinstance(module, dict)]
    return [path.strip("/") for path in paths if isinstance(path, str)] or [""]


def _shards(index_file: Path, name: str, encoder: str, listed: Collection[str]) -> list[str]:
    content = _json(index_file)
    weight_map = content.get("weight_map") if isinstance(content, dict) else None
    # A malformed index is reported when the folder is read.
    shards = sorted({str(shard) for shard in weight_map.values()}) if isinstance(weight_map, dict) else []
    missing = [shard for shard in shards if "/" in shard or f"{encoder}{shard}" not in listed]
    if missing:
        raise ModelError(
            f"{name!r} is incomplete: {encoder}{_INDEX} names {missing[0]!r}, which the repository does not have. "
            "Choose another revision, or report this to the model's owner."
        )
    return [f"{encoder}{shard}" for shard in shards]


def _json(file: Path) -> object:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError):
        return None


def _no_safetensors(name: str, listed: Collection[str], encoder: str) -> ModelError:
    formats = (".bin", ".h5", ".msgpack")
    others = [file for file in sorted(listed) if file.startswith(encoder) and file.endswith(formats)]
    found = f"its weights are in {', '.join(others[:3])} only" if others else f"it has no {encoder}{_WEIGHTS}"
    return ModelError(
        f"{name!r} cannot be read: {found}, and negprobe reads safetensors only, because loading other formats can run "
        "code. Nothing was downloaded. Load it once with transformers, call save_pretrained() to convert it, and load "
        "that folder; or look for a revision with safetensors among the pull requests on its page."
    )


# The cache


def _cached(name: str, revision: str) -> Path | None:
    """The folder of a model in the local cache, or None if it is missing or incomplete.

    Raises:
        ModelError: if a file is corrupt, or the cache does not record whether a sentence encoder has a modules.json.
    """
    try:
        paths = [try_to_load_from_cache(name, file, revision=revision) for file in ("config.json", "modules.json")]
    except (OSError, ValueError):
        return None
    found = next((Path(path) for path in paths if isinstance(path, str)), None)
    if found is None:
        return None
    folder = found.parent
    files = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    needed: list[Path] = []

    def fetch(file: str) -> Path:
        needed.append(files[file])
        return files[file]

    try:
        _fetch_needed(name, files, fetch)
    except ModelError:
        return None
    for path in needed:
        known = _hash_of_link(path)
        if known is not None and not known.matches(path):
            raise ModelError(
                f"{path.name} of {name!r} is corrupt in the local cache: its content does not match its hash. "
                f"Delete {str(path.resolve())!r} and load the model again while online."
            )
    if not isinstance(paths[1], str) and paths[1] is not _CACHED_NO_EXIST and _is_headless(files.get("config.json")):
        raise ModelError(
            f"The local cache has {name!r} but does not record whether it has a modules.json, which would decide how "
            "its embedding is pooled. Load it once while online, or give the path of a folder with all its files."
        )
    return folder


def _is_headless(config: Path | None) -> bool:
    content = None if config is None else _json(config)
    architectures = content.get("architectures") if isinstance(content, dict) else None
    return isinstance(architectures, list) and not any("For" in str(architecture) for architecture in architectures)


# What failed


def explain(error: BaseException, name: str, revision: str = "", kind: Literal["model", "data set"] = "model") -> str:
    """A one-line description of a hub error and what to do about it.

    Args:
        error: The exception that the hub client raised.
        name: The repository.
        revision: The requested revision.
        kind: The kind of repository.
    """
    problem = token_problem()
    if problem:
        return problem
    error = _root_cause(error)
    text = _on_one_line(str(error)) or type(error).__name__
    response = getattr(error, "response", None)
    status = getattr(response, "status_code", None)
    endpoint = constants.ENDPOINT
    if isinstance(error, hub_errors.GatedRepoError):
        page = f"{endpoint}/{name}" if kind == "model" else f"{endpoint}/datasets/{name}"
        return (
            f"{name!r} is gated. Accept its terms at {page}, then log in with `hf auth login` or set HF_TOKEN to "
            "a token that may read it."
        )
    if isinstance(error, (hub_errors.RepositoryNotFoundError, hub_errors.HFValidationError)):
        return (
            f"There is no folder and no public hub {kind} named {name!r}. Check the spelling; for a private {kind}, "
            f"log in with `hf auth login` or set HF_TOKEN. {_NO_NETWORK[kind]}"
        )
    if isinstance(error, hub_errors.RevisionNotFoundError):
        return f"{name!r} has no revision {revision!r} on the hub. Give one of its branches, tags or commits."
    if isinstance(error, hub_errors.RemoteEntryNotFoundError):
        return f"A file that the hub lists for {name!r} is missing ({text}). Try again, or choose another revision."
    if isinstance(error, hub_errors.DisabledRepoError):
        return f"The hub has disabled access to {name!r}."
    if _is_disk_full(error):
        return (
            f"The disk is full, so {name!r} cannot be downloaded to {constants.HF_HUB_CACHE}. Free some space, or set "
            "HF_HOME to a folder on another disk."
        )
    if status == 401:
        return (
            "The hub does not accept the token (HF_TOKEN, or the stored one). Log in again with `hf auth login`, or "
            "remove the token for public models."
        )
    if status == 403:
        return f"The hub denies access to {name!r}: the token, or its account, lacks the permission ({text})."
    if status == 407 or type(error).__name__ == "ProxyError":
        return (
            f"The proxy on the way to {endpoint} refuses the connection ({text}). Check HTTPS_PROXY, with user and "
            "password if it needs them."
        )
    if status == 429:
        return (
            f"The hub limits the rate of requests (429). Try again {_when_to_retry(response)}; logging in raises the "
            "limit."
        )
    if isinstance(status, int) and status >= 500:
        return f"The hub reports a server error ({status}). Try again later."
    if isinstance(error, (json.JSONDecodeError, UnicodeDecodeError, hub_errors.FileMetadataError)):
        return (
            f"The server at {endpoint} does not answer like the hub ({text}). If the network has a login page, log in "
            "there first; otherwise check HF_ENDPOINT."
        )
    if status is not None:
        return f"The hub at {endpoint} refuses the request ({text.rstrip('.')}). Check HF_ENDPOINT."
    if isinstance(error, OSError) and not isinstance(error, (ConnectionError, TimeoutError)):
        return f"{name!r} could not be downloaded: {text.rstrip('.')}. Try again."
    return (
        f"The hub cannot be reached at {endpoint!r} ({type(error).__name__}: {text}). Check the network, the proxy "
        f"settings and HF_ENDPOINT. {_NO_NETWORK[kind]}"
    )


def hub_error(error: BaseException) -> BaseException | None:
    """The hub error that caused an error of another library, or None."""
    found: BaseException | None = error
    while found is not None:
        # The client uses different HTTP libraries in different versions. A missing file is not an error here, because
        # the caller then tries other file names.
        from_hub = type(found).__module__.partition(".")[0] in ("huggingface_hub", "httpx", "httpx2", "requests")
        if from_hub and not isinstance(found, hub_errors.RemoteEntryNotFoundError):
            return found
        found = found.__cause__ or found.__context__
    return error if isinstance(error, json.JSONDecodeError) else None


def token_problem() -> str:
    """Why the hub token cannot be sent, or an empty string if it can; the client's own error would show the token."""
    if constants.HF_HUB_DISABLE_IMPLICIT_TOKEN:  # the client then sends no token, and does not read it either
        return ""
    try:
        token = get_token()
    except Exception as error:  # of many types: a token can be stored, refreshed or requested from a CI provider
        cause = _on_one_line(str(error))
        return f"The token for the hub cannot be read ({cause}). Log in again with `hf auth login`, or set HF_TOKEN."
    if not token or re.fullmatch(r"[!-~]+", token):
        return ""
    return (
        "The token for the hub (HF_TOKEN, or the stored one) contains a character that cannot be sent. Set it again, "
        "without quotes, spaces or line breaks."
    )


def _on_one_line(text: str) -> str:
    """Text from a server on one line, shortened and without control characters."""
    line = "".join(character for character in " ".join(text.split()) if character.isprintable())
    return line if len(line) <= _MAX_REASON_LENGTH else f"{line[:_MAX_REASON_LENGTH]}…"


def _root_cause(error: BaseException) -> BaseException:
    """The error of the download, from the client's error that the file is not in the cache either."""
    while isinstance(error, hub_errors.LocalEntryNotFoundError) and error.__cause__ is not None:
        error = error.__cause__
    return error


def _is_disk_full(error: BaseException) -> bool:
    # Downloads through Xet report the operating system's error only as text.
    return getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT) or "No space left on device" in str(error)


def _when_to_retry(response: object) -> str:
    """When to retry, from the response headers."""
    headers = getattr(response, "headers", {})
    after = headers.get("Retry-After", "").strip()
    limit = re.search(r";\s*t\s*=\s*(\d+)", headers.get("RateLimit", ""))
    seconds = after if after.isdigit() else limit[1] if limit else ""
    return f"in {seconds} seconds" if seconds else f"after {after}" if after else "in a few minutes"
