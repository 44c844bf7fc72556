"""A hub on the loopback interface, which huggingface_hub's own client talks to as it does to the real one.

It serves the listing of a repository at a revision, the metadata of each file and its content. Small files come from
the hub itself, named by git's hash; large ones (safetensors here) through a redirect to another host, named by their
SHA-256. Every request is kept, and any of them can be answered wrongly.
"""

import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import unquote, urlsplit

import pytest
from huggingface_hub import constants
from huggingface_hub.utils import close_session

LARGE = (".safetensors", ".bin", ".gguf", ".ckpt")
HTML = b"<!doctype html><html><body>Welcome! Please log in to use the network.</body></html>"


@dataclass
class Repository:
    """Files by commit, the commit that each branch or tag stands for, and who may read them.

    `token` is what a private repository needs for everything, and a gated one for its files. For anyone else, as on the
    real hub, a private repository does not exist.
    """

    commits: dict[str, dict[str, bytes]]
    refs: dict[str, str]
    token: str = ""
    gated: bool = False

    def commit(self, revision: str) -> str | None:
        found = self.refs.get(revision, revision)
        return found if found in self.commits else None


@dataclass(frozen=True)
class Answer:
    """What to answer to requests for a path that `pattern` is found in, instead of the right answer.

    Attributes:
        pattern: A regular expression, searched in "METHOD /path".
        status: The status; 0 closes the connection without an answer.
        headers: More headers.
        body: The body.
        length: The length that is announced, if another than the body's.
        times: How often to answer so.
        pieces: How many pieces the body is sent in.
        pause: The seconds before each piece but the first; with one piece, before the whole answer.
    """

    pattern: str
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    length: int | None = None
    times: int = 10**6
    pieces: int = 1
    pause: float = 0


class Hub:
    """The server's state: its repositories, what it was asked, and what it answers wrongly."""

    def __init__(self) -> None:
        self.repositories: dict[str, Repository] = {}
        self.renamed: dict[str, str] = {}
        self.requests: list[str] = []
        self.headers: list[tuple[str, dict[str, str]]] = []
        self.closing = threading.Event()
        self.faults: list[Answer] = []
        self._answered: dict[int, int] = {}
        self.url = ""

    def add(self, name: str, folder_or_files: Path | dict[str, bytes], tag: str = "", branch: str = "main") -> str:
        """Commit files to a repository and move its branch there; returns the commit."""
        files = folder_or_files
        if isinstance(files, Path):
            root = files
            files = {p.relative_to(root).as_posix(): p.read_bytes() for p in root.rglob("*") if p.is_file()}
        repository = self.repositories.setdefault(name, Repository({}, {}))
        content = b"".join(key.encode() + value for key, value in sorted(files.items()))
        commit = hashlib.sha1(content + str(len(repository.commits)).encode()).hexdigest()
        repository.commits[commit] = files
        repository.refs |= {ref: commit for ref in (branch, tag) if ref}
        return commit

    def fault(self, pattern: str, status: int = 200, **options: object) -> None:
        self.faults.append(Answer(pattern, status, **options))

    def asked(self, method: str = "") -> list[str]:
        """The files that were asked for, in order of the alphabet, each once."""
        found = [re.fullmatch(rf"{method or '[A-Z]+'} /[^/]+/[^/]+/resolve/[^/]+/(.+)", line) for line in self.requests]
        return sorted({match[1] for match in found if match})

    def sent(self, header: str, pattern: str = "") -> list[str]:
        """The values of a header in the requests that have it, of those whose line `pattern` is found in."""
        return [found[header] for line, found in self.headers if header in found and re.search(pattern, line)]

    def answer(self, method: str, path: str, headers: dict[str, str]) -> Answer:
        line = f"{method} {path}"
        self.requests.append(line)
        self.headers.append((line, headers))
        for index, fault in enumerate(self.faults):
            if re.search(fault.pattern, line) and self._answered.get(index, 0) < fault.times:
                self._answered[index] = self._answered.get(index, 0) + 1
                return fault
        return self._right_answer(path, headers.get("authorization", ""))

    def _right_answer(self, path: str, authorization: str) -> Answer:
        for old, new in self.renamed.items():
            if re.match(rf"(/api/models)?/{old}/(revision|resolve)/", path):
                return Answer("", 307, {"Location": path.replace(f"/{old}/", f"/{new}/", 1)})
        if match := re.fullmatch(r"/api/models/(.+?)(?:/revision/(.+))?", path):
            return self._listing(match[1], match[2] or "main", authorization)
        if match := re.fullmatch(r"/(.+)/resolve/([^/]+)/(.+)", path):
            return self._file(*match.groups(), authorization)
        if match := re.fullmatch(r"/cdn/([0-9a-f]{64})", path):
            files = [
                body for repo in self.repositories.values() for each in repo.commits.values() for body in each.values()
            ]
            body = next(body for body in files if hashlib.sha256(body).hexdigest() == match[1])
            return Answer(path, 200, {"ETag": f'"{match[1]}"'}, body)
        return Answer(path, 404)

    def _found(self, name: str, revision: str, authorization: str) -> tuple[Repository, str] | Answer:
        known = self.repositories.get(name)
        is_hidden = known is not None and known.token and not known.gated and authorization != f"Bearer {known.token}"
        if known is None or is_hidden:
            status = 404 if authorization or known is None else 401
            return Answer("", status, {"X-Error-Code": "RepoNotFound", "X-Error-Message": "Repository not found"})
        commit = self.repositories[name].commit(revision)
        if commit is None:
            return Answer("", 404, {"X-Error-Code": "RevisionNotFound", "X-Error-Message": "Invalid rev id"})
        return self.repositories[name], commit

    def _listing(self, name: str, revision: str, authorization: str) -> Answer:
        found = self._found(name, revision, authorization)
        if isinstance(found, Answer):
            return found
        repository, commit = found
        siblings = []
        for file, body in repository.commits[commit].items():
            entry: dict[str, object] = {"rfilename": file, "size": len(body), "blobId": git_hash(body)}
            if file.endswith(LARGE):
                entry["lfs"] = {"sha256": hashlib.sha256(body).hexdigest(), "size": len(body), "pointerSize": 134}
            siblings.append(entry)
        content = {"id": name, "modelId": name, "sha": commit, "private": False, "tags": [], "siblings": siblings}
        return Answer("", 200, {"Content-Type": "application/json"}, json.dumps(content).encode())

    def _file(self, name: str, revision: str, file: str, authorization: str) -> Answer:
        found = self._found(name, revision, authorization)
        if isinstance(found, Answer):
            return found
        repository, commit = found
        if repository.gated and authorization != f"Bearer {repository.token}":
            return Answer("", 403 if authorization else 401, {"X-Error-Code": "GatedRepo"})
        headers = {"X-Repo-Commit": commit}
        if file not in repository.commits[commit]:
            return Answer("", 404, headers | {"X-Error-Code": "EntryNotFound", "X-Error-Message": "Entry not found"})
        body = repository.commits[commit][file]
        if not file.endswith(LARGE):
            return Answer("", 200, headers | {"ETag": f'"{git_hash(body)}"'}, body)
        digest = hashlib.sha256(body).hexdigest()
        # Another name for the same machine, which the client takes for another host.
        place = self.url.replace("127.0.0.1", "localhost")
        linked = {"X-Linked-Etag": f'"{digest}"', "X-Linked-Size": str(len(body)), "Location": f"{place}/cdn/{digest}"}
        return Answer("", 302, headers | linked)


def git_hash(body: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(body) + body).hexdigest()


def _handler(hub: Hub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _serve(self) -> None:
            answer = hub.answer(
                self.command,
                unquote(urlsplit(self.path).path),
                {name.lower(): value for name, value in self.headers.items()},
            )
            self.close_connection = True
            if answer.pieces == 1:
                hub.closing.wait(answer.pause)
            if answer.status == 0 or hub.closing.is_set():
                return
            body, status, headers = answer.body, answer.status, dict(answer.headers)
            if status == 200 and (match := re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))):
                headers["Content-Range"] = f"bytes {match[1]}-{len(body) - 1}/{len(body)}"
                body, status = body[int(match[1]) :], 206
            self.send_response(status)
            for key, value in headers.items():
                self.send_header(key, value)
            self.send_header("Content-Length", str(len(body) if answer.length is None else answer.length))
            self.send_header("Connection", "close")
            self.end_headers()
            if self.command == "HEAD":
                return
            size = -(-len(body) // answer.pieces) or 1
            for start in range(0, len(body), size):
                if start:
                    hub.closing.wait(answer.pause)
                with suppress(ConnectionError):  # the client has given up
                    self.wfile.write(body[start : start + size])

        do_GET = do_HEAD = _serve

        def log_message(self, *_: object) -> None:
            pass

    return Handler


@contextmanager
def serving(cache: Path, patch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub that huggingface_hub, in this process, takes for the real one, with an empty cache and no waiting."""
    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(hub))
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    reaching(hub.url, cache, patch)
    try:
        yield hub
    finally:
        hub.closing.set()
        close_session()
        server.shutdown()
        server.server_close()


def reaching(url: str, cache: Path, patch: pytest.MonkeyPatch) -> None:
    """Let huggingface_hub, which reads its settings once, ask another address and keep files in another place."""
    patch.setattr(constants, "HF_HUB_OFFLINE", False)
    patch.setattr(constants, "ENDPOINT", url)
    patch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", url + "/{repo_id}/resolve/{revision}/{filename}")
    patch.setattr(constants, "HF_HUB_CACHE", str(cache))
    patch.setattr(constants, "HF_TOKEN_PATH", str(cache / "token"))
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        patch.delenv(name, raising=False)
    no_wait = SimpleNamespace(sleep=lambda seconds: None)
    patch.setattr("huggingface_hub.utils._http.time", no_wait)
    patch.setattr("huggingface_hub.file_download.time", no_wait)
    close_session()
