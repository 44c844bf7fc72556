"""Models on the hub, through its own client and a server that speaks its protocol: files, revisions, damage, errors."""

import errno
import hashlib
import json
import os
import re
import shutil
import warnings
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import save

from negprobe import HookedEncoder
from negprobe.base.errors import ModelError
from negprobe.models.hub import hub_folder
from negprobe.models.loading import BUNDLED_MODEL
from tests.support import hub_server, tiny_models
from tests.support.hub_server import HTML, Hub
from tests.support.tiny_models import largest_difference

NAME = "someone/tiny"
WEIGHTS = "model.safetensors"
SETTINGS = ["config.json", "tokenizer.json", "tokenizer_config.json"]


@pytest.fixture(scope="module")
def model_files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    return files_of("bert", "masked_lm", tmp_path_factory.mktemp("masked"))


@pytest.fixture(scope="module")
def encoder_files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    return files_of("bert", "none", tmp_path_factory.mktemp("headless"))


def files_of(family: str, head: str, folder: Path, **options: object) -> dict[str, bytes]:
    tiny_models.hf_model(family, head).save_pretrained(folder, **options)
    tiny_models.tokenizer().save_pretrained(folder)
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def hub(cache: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with hub_server.serving(cache, monkeypatch) as hub, warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        yield hub


@pytest.fixture
def commit(hub: Hub, model_files: dict[str, bytes]) -> str:
    return hub.add(NAME, model_files)


def load(name: str = NAME, **options: object) -> HookedEncoder:
    return HookedEncoder.from_pretrained(name, device="cpu", **options)


def refusal(name: str = NAME, **options: object) -> str:
    """What is said when a model is refused, on one line."""
    with pytest.raises(ModelError) as raised:
        load(name, **options)
    assert "\n" not in str(raised.value)
    return str(raised.value)


def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)


# What is downloaded


CLUTTER = [
    *("README.md", ".gitattributes", "pytorch_model.bin", "tf_model.h5", "flax_model.msgpack", "rust_model.ot"),
    *(
        "model.onnx",
        "onnx/model.onnx",
        "onnx/config.json",
        "openvino/openvino_model.xml",
        "openvino/openvino_model.bin",
    ),
    *("model-Q4_K_M.gguf", "last.ckpt", "results.csv", "training_args.bin", "trainer_state.json", "optimizer.pt"),
    *("model.fp16.safetensors", "adapter_model.safetensors", "checkpoints-500/model.safetensors", "eval/results.json"),
    *("checkpoint-1000/config.json", "checkpoint-1000/optimizer.pt", "modeling_evil.py", "coreml/model.mlmodel"),
    *("generation_config.json", "preprocessor_config.json", "vocab.csv", "logs/events.tfevents", "data/train.jsonl"),
]


@torch.no_grad()
def test_of_a_cluttered_repository_only_what_is_read_is_asked_for(hub: Hub, model_files: dict[str, bytes]) -> None:
    extra = {"vocab.txt": b"[PAD]\n", "special_tokens_map.json": b"{}", "added_tokens.json": b"{}"}
    hub.add(NAME, model_files | extra | dict.fromkeys(CLUTTER, b"clutter"))
    ours = load()
    assert hub.asked() == sorted([*SETTINGS, *extra, WEIGHTS])
    assert ours.cfg.model_name == NAME
    tokens = tiny_models.token_batch(0, (7,))
    assert largest_difference(ours(tokens), tiny_models.hf_model("bert")(tokens).logits) < 1e-5


def test_shards_that_the_index_names_and_no_others(hub: Hub, tmp_path: Path) -> None:
    files = files_of("bert", "masked_lm", tmp_path / "model", max_shard_size="20KB")
    shards = [file for file in files if file.endswith(".safetensors")]
    assert len(shards) > 1
    hub.add(NAME, files | {"model.fp16.safetensors": b"", "model-00001-of-00009.safetensors": b"old"})
    load()
    assert hub.asked() == sorted([*SETTINGS, "model.safetensors.index.json", *shards])


def test_a_whole_file_of_weights_is_taken_before_shards(hub: Hub, model_files: dict[str, bytes]) -> None:
    index = json.dumps({"weight_map": {"a": "model-00001-of-00001.safetensors"}}).encode()
    shard = {"model.safetensors.index.json": index, "model-00001-of-00001.safetensors": b"?"}
    hub.add(NAME, model_files | shard)
    load()
    assert hub.asked() == sorted([*SETTINGS, WEIGHTS])


@pytest.mark.parametrize("shard", ["model-00002-of-00002.safetensors", "../x.safetensors", "sub/x.safetensors"])
def test_a_shard_that_is_not_there_is_named_before_any_is_downloaded(
    hub: Hub, model_files: dict[str, bytes], shard: str
) -> None:
    files = {name: body for name, body in model_files.items() if name != WEIGHTS}
    index = json.dumps({"weight_map": {"a": "model-1.safetensors", "b": shard}}).encode()
    hub.add(NAME, files | {"model.safetensors.index.json": index, "model-1.safetensors": b"", "sub/x.safetensors": b""})
    assert f"names {shard!r}, which the repository does not have" in refusal()
    assert not any(file.endswith(".safetensors") for file in hub.asked())


def modules(encoder: str) -> bytes:
    kinds = [(encoder, "Transformer"), ("1_Pooling", "Pooling"), ("2_Normalize", "Normalize")]
    described = [
        {"idx": i, "path": path, "type": f"sentence_transformers.models.{kind}"} for i, (path, kind) in enumerate(kinds)
    ]
    return json.dumps(described).encode()


SENTENCE = {
    "config_sentence_transformers.json": b"{}",
    "sentence_bert_config.json": b"{}",
    "1_Pooling/config.json": b'{"pooling_mode_cls_token": true}',
}


def test_a_sentence_encoder_with_the_settings_of_its_modules(hub: Hub, encoder_files: dict[str, bytes]) -> None:
    others = {"3_Dense/config.json": b"{}", "3_Dense/model.safetensors": b"?", "1_Pooling/x.bin": b""}
    hub.add(NAME, encoder_files | SENTENCE | others | {"modules.json": modules("")})
    ours = load()
    assert (ours.cfg.pooling, ours.cfg.normalize) == ("cls", True)
    assert hub.asked() == sorted([*SETTINGS, *SENTENCE, "modules.json", WEIGHTS])


def test_the_weights_of_the_modules_after_the_pooling(
    hub: Hub, encoder_files: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = {"linear.weight": torch.ones(5, 24), "linear.bias": torch.ones(5)}
    dense = {
        "2_Dense/config.json": b'{"in_features": 24, "out_features": 5}',
        "2_Dense/model.safetensors": save(weights),
    }
    described = modules("").replace(b"Normalize", b"Dense")
    hub.add(NAME, encoder_files | SENTENCE | dense | {"modules.json": described, "2_Dense/pytorch_model.bin": b"?"})
    assert load()("now").shape == (1, 5)
    assert hub.asked() == sorted([*SETTINGS, *SENTENCE, *dense, "modules.json", WEIGHTS])
    offline(monkeypatch)
    assert load()("now").shape == (1, 5)


def test_an_encoder_in_a_folder_of_its_own(hub: Hub, encoder_files: dict[str, bytes]) -> None:
    """As old sentence-transformers have it; the whole folder is fetched, whoever reads it then."""
    inside = {f"0_Transformer/{name}": body for name, body in encoder_files.items()}
    hub.add(NAME, inside | SENTENCE | {"modules.json": modules("0_Transformer"), "pytorch_model.bin": b""})
    folder = hub_folder(NAME)
    assert hub.asked() == sorted([*inside, *SENTENCE, "modules.json"])
    assert (folder / "0_Transformer" / WEIGHTS).is_file()


def test_an_adapter_beside_the_weights_is_not_overlooked(hub: Hub, model_files: dict[str, bytes]) -> None:
    hub.add(NAME, model_files | {"adapter_config.json": b"{}", "adapter_model.safetensors": b"?"})
    assert (hub_folder(NAME) / "adapter_config.json").is_file()
    assert "adapter_model.safetensors" not in hub.asked()


@pytest.mark.parametrize("evil", ["../../evil.json", "/etc/evil.json", "..\\evil.json", "a/../../config.json"])
def test_listed_names_that_lead_out_are_not_asked_for(hub: Hub, model_files: dict[str, bytes], evil: str) -> None:
    hub.add(NAME, model_files | {evil: b"{}"})
    load()
    assert hub.asked() == sorted([*SETTINGS, WEIGHTS])


def test_weights_in_other_formats_alone_are_refused_and_not_downloaded(hub: Hub, model_files: dict[str, bytes]) -> None:
    files = {name: body for name, body in model_files.items() if name != WEIGHTS}
    hub.add(NAME, files | {"pytorch_model.bin": b"?" * 1000, "optimizer.bin": b""})
    said = refusal()
    assert "weights are in optimizer.bin, pytorch_model.bin only" in said and "save_pretrained()" in said
    assert hub.asked() == []
    hub.add(NAME, files)
    assert "has no model.safetensors" in refusal() and hub.asked() == []


def test_a_repository_without_a_configuration(hub: Hub) -> None:
    hub.add(NAME, {"README.md": b"", WEIGHTS: b"?"})
    assert f"{NAME!r} has no config.json, so it is not a model" in refusal()
    assert hub.asked() == []


# Revisions


@pytest.fixture
def two_commits(hub: Hub, model_files: dict[str, bytes], encoder_files: dict[str, bytes]) -> dict[str, str]:
    old = hub.add(NAME, encoder_files, tag="v1")
    new = hub.add(NAME, model_files, tag="refs/pr/2")
    return {"v1": old, "main": new, "refs/pr/2": new, old: old, new: new}


def test_each_kind_of_revision_gives_its_commit(hub: Hub, two_commits: dict[str, str]) -> None:
    heads = {two_commits["v1"]: "none", two_commits["main"]: "masked_lm"}
    for revision, commit in two_commits.items():
        for ours in (load(revision=revision), load(f"{NAME}@{revision}")):
            assert (ours.cfg.revision, ours.cfg.model_name, ours.cfg.head) == (commit, NAME, heads[commit])
    assert load().cfg.revision == two_commits["main"]


def test_a_branch_that_moves_is_followed_and_what_is_there_is_not_downloaded_again(
    hub: Hub, commit: str, model_files: dict[str, bytes]
) -> None:
    load()
    hub.requests.clear()
    assert load().cfg.revision == commit
    assert hub.requests == [f"GET /api/models/{NAME}/revision/main"]
    moved = hub.add(NAME, model_files | {"vocab.txt": b"[PAD]\n"})
    assert load().cfg.revision == moved
    assert hub.asked("GET") == ["vocab.txt"]


@pytest.mark.parametrize("name", [BUNDLED_MODEL, "folder", "folder@v2", "a/b@c"])
def test_a_revision_is_of_the_hub_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model_files: dict[str, bytes], name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    if name != BUNDLED_MODEL:
        Path(name).mkdir(parents=True)
        for file, body in model_files.items():
            (Path(name) / file).write_bytes(body)
    ours = load(name)
    assert (ours.cfg.model_name, ours.cfg.revision) == (name, "")
    what = "the bundled model" if name == BUNDLED_MODEL else "a local folder"
    assert f"{name!r} is {what}, which has no revisions, but 'v1' was given" in refusal(name, revision="v1")
    assert "which has no revisions" in refusal(f"{name}@v1") or "@" in name


def test_a_revision_for_a_loaded_model() -> None:
    with pytest.raises(ModelError, match="revision='v1' applies to hub models only, but a loaded model was given"):
        HookedEncoder.from_pretrained(tiny_models.hf_model("bert"), revision="v1")


@pytest.mark.parametrize("revision", ["", "../../x", "/etc", "a b", "a\\b", "a\0b", "a\n"])
def test_what_is_no_revision_is_refused_before_the_hub_is_asked(hub: Hub, commit: str, revision: str) -> None:
    for said in (refusal(revision=revision), refusal(f"{NAME}@{revision}")):
        assert f"{revision!r} is not a revision; give a branch, tag or commit" in said
    assert hub.requests == []


def test_two_revisions_at_once(hub: Hub) -> None:
    assert "already contains a revision, but revision='v2' was given too; give only one" in refusal(
        f"{NAME}@v1", revision="v2"
    )


def test_a_model_that_was_renamed(hub: Hub, commit: str) -> None:
    """As bert-base-uncased, which is google-bert/bert-base-uncased by now."""
    hub.renamed["tiny"] = NAME
    ours = load("tiny")
    assert (ours.cfg.model_name, ours.cfg.revision) == ("tiny", commit)


# Damage


def flipped(body: bytes) -> bytes:
    """Of the same size, with one bit changed in the middle of the last half."""
    place = len(body) * 3 // 4
    return body[:place] + bytes([body[place] ^ 1]) + body[place + 1 :]


@pytest.fixture
def damaged(hub: Hub, commit: str, model_files: dict[str, bytes]) -> Callable[..., None]:
    """Let the hub answer a file's content with one of another content, so many times."""

    def damage(file: str, times: int) -> None:
        body = model_files[file]
        place = "GET /cdn/" if file == WEIGHTS else rf"GET /{NAME}/resolve/.*/{file}"
        hub.fault(place, body=flipped(body), times=times)

    return damage


@torch.no_grad()
@pytest.mark.parametrize("file", [WEIGHTS, "tokenizer.json"])
def test_content_damaged_on_the_way_is_fetched_again(damaged: Callable[..., None], file: str) -> None:
    damaged(file, 1)
    tokens = tiny_models.token_batch(0, (7,))
    assert largest_difference(load()(tokens), tiny_models.hf_model("bert")(tokens).logits) < 1e-5


@pytest.mark.parametrize("file", [WEIGHTS, "tokenizer.json"])
def test_content_damaged_twice_is_refused_and_not_kept(damaged: Callable[..., None], cache: Path, file: str) -> None:
    damaged(file, 2)
    assert f"{file} of {NAME!r} was corrupt after two downloads" in refusal()
    assert not [path for path in cache.rglob("*") if path.name == file or (path.is_symlink() and not path.exists())]
    load()


@torch.no_grad()
@pytest.mark.parametrize("copied", [False, True], ids=["links", "copies"])
@pytest.mark.parametrize("file", [WEIGHTS, "config.json"])
def test_a_damaged_file_in_the_cache_is_replaced(
    hub: Hub, commit: str, model_files: dict[str, bytes], file: str, copied: bool
) -> None:
    """Also where the cache has no links, as on Windows."""
    path = hub_folder(NAME) / file
    if copied:
        shutil.move(path.resolve(), path)
    path.resolve().write_bytes(flipped(model_files[file]))
    hub.requests.clear()
    tokens = tiny_models.token_batch(0, (7,))
    assert largest_difference(load()(tokens), tiny_models.hf_model("bert")(tokens).logits) < 1e-5
    assert hub.asked() == [file]


def test_without_the_hub_a_damaged_file_is_refused(
    hub: Hub, commit: str, model_files: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    blob = (hub_folder(NAME) / WEIGHTS).resolve()
    blob.write_bytes(flipped(model_files[WEIGHTS]))
    offline(monkeypatch)
    assert f"{WEIGHTS} of {NAME!r} is corrupt in the local cache" in refusal()
    assert blob.is_file()


def test_a_content_that_ends_early_is_not_taken(hub: Hub, commit: str, model_files: dict[str, bytes]) -> None:
    body = model_files[WEIGHTS]
    hub.fault("GET /cdn/", body=body[:-100], length=len(body))
    assert NAME in refusal() or "cannot be reached" in refusal()
    hub.faults.clear()
    load()


def test_files_that_the_cache_shares_between_repositories(hub: Hub, commit: str, cache: Path) -> None:
    """As the hub's client keeps large files since version 2: a blob is itself a link."""
    blob = (hub_folder(NAME) / WEIGHTS).resolve()
    shared = cache / "blobs" / "ab" / ("ab" * 32)
    shared.parent.mkdir(parents=True)
    shutil.move(blob, shared)
    blob.symlink_to(os.path.relpath(shared, blob.parent))
    load()
    shared.write_bytes(flipped(shared.read_bytes()))
    load()


# What goes wrong


def fault(pattern: str, status: int, **options: object) -> Callable[[Hub], None]:
    return lambda hub: hub.fault(pattern, status, **options)


LISTING, FILE, CONTENT = "GET /api/models", "HEAD .*config.json", "GET /cdn/"
HTML_PAGE = {"headers": {"Content-Type": "text/html"}, "body": HTML}
GATED = {"headers": {"X-Error-Code": "GatedRepo"}}
FAULTS = {
    "login page": (fault("", 200, **HTML_PAGE), "The server at http://127.* does not answer like the hub.*login page"),
    "login page for a file": (fault(FILE, 200, **HTML_PAGE), "does not answer like the hub.*login page"),
    "login page elsewhere": (
        lambda hub: (
            hub.fault("/api/models", 302, headers={"Location": f"{hub.url}/login"})
            or hub.fault("/login", 200, **HTML_PAGE)
        ),
        "does not answer like the hub.*login page",
    ),
    "another service": (fault(LISTING, 200, body=b'["a list"]'), "does not answer like the hub"),
    "another list": (fault(LISTING, 200, body=b'{"siblings": [{"name": "a"}]}'), "does not answer like the hub"),
    "a listing without a commit": (
        fault(LISTING, 200, body=b'{"id": "a/b", "siblings": []}'),
        "does not answer like the hub",
    ),
    "dropped": (fault("", 0), "hub cannot be reached at 'http://127.*RemoteProtocolError"),
    "dropped for a file": (fault(CONTENT, 0), "hub cannot be reached.*RemoteProtocolError"),
    "bad token": (fault("", 401), "does not accept the token"),
    "gated": (fault(FILE, 401, **GATED), rf"'{NAME}' is gated. Accept its terms at http.*/{NAME}, then log in"),
    "gated, not allowed": (fault(FILE, 403, **GATED), rf"'{NAME}' is gated"),
    "forbidden": (fault(LISTING, 403, body=b'{"error": "ask the owner"}'), r"denies access.*ask the owner"),
    "an answer for terminals": (fault(LISTING, 403, body=b'{"error": "a\\u001b[31m\\nb"}'), r"denies access.*a\[31m b"),
    "a long answer": (fault(LISTING, 403, body=b"x" * 10**5), r"denies access.*x…\)\.$"),
    "rate": (
        fault(LISTING, 429, headers={"Retry-After": "37"}),
        r"limits the rate of requests \(429\).* in 37 seconds",
    ),
    "rate of the API": (
        fault(LISTING, 429, headers={"RateLimit": '"api";r=0;t=55'}),
        "limits the rate.* in 55 seconds",
    ),
    "rate until a date": (
        fault(LISTING, 429, headers={"Retry-After": "Wed, 21 Oct 2026 07:28:00 GMT"}),
        "limits the rate.* after Wed, 21 Oct 2026",
    ),
    "rate for a file": (fault("/cdn/", 429, headers={"Retry-After": "9"}), "limits the rate.* in 9 seconds"),
    "rate, no time": (fault(LISTING, 429), "limits the rate.* in a few minutes"),
    "down": (fault(LISTING, 503), r"hub reports a server error \(503\). Try again later"),
    "down for a file": (fault(FILE, 500), r"hub reports a server error \(500\)"),
    "proxy": (fault("", 407), r"proxy on the way to http.* refuses the connection.*Check HTTPS_PROXY"),
    "no such page": (fault("", 404), "The hub at http.* refuses the request.*404.*HF_ENDPOINT"),
    "gateway for a file": (fault(CONTENT, 504), r"hub reports a server error \(504\)"),
    "a file without a hash": (fault(FILE, 200, body=b"{}"), "does not answer like the hub"),
    "a file that is gone": (
        fault(f"/resolve/.*/{WEIGHTS}", 404, headers={"X-Error-Code": "EntryNotFound"}),
        f"A file that the hub lists for '{NAME}' is missing.*{WEIGHTS}",
    ),
    "content of a file that is gone": (fault(CONTENT, 404), "refuses the request.*404"),
    "redirected in circles": (
        lambda hub: hub.fault("/api/models", 302, headers={"Location": f"{hub.url}/api/models/{NAME}"}),
        "hub cannot be reached.*TooManyRedirects",
    ),
    "a listing that ends early": (
        fault(LISTING, 200, body=b'{"id": ', length=60),
        "hub cannot be reached.*RemoteProtocolError",
    ),
    "a file that ends early": (
        fault(CONTENT, 200, body=b"x" * 50, length=60),
        "hub cannot be reached.*RemoteProtocolError",
    ),
    "disabled": (fault("", 403, headers={"X-Error-Message": "Access to this resource is disabled."}), "has disabled"),
}


@pytest.mark.sampled(3)
@pytest.mark.parametrize("harm, said", FAULTS.values(), ids=FAULTS)
def test_each_failure_is_one_sentence_that_says_what_to_do(
    hub: Hub, commit: str, harm: Callable[[Hub], None], said: str
) -> None:
    harm(hub)
    with pytest.raises(ModelError, match=said) as raised:
        load()
    assert str(raised.value).isprintable() and "--" not in str(raised.value)


# A copy is complete, so that of its files none is asked for.
AT_LISTING = {name: fault for name, fault in FAULTS.items() if "file" not in name and "gated" not in name}


@pytest.mark.sampled(5)
@pytest.mark.parametrize("harm, said", AT_LISTING.values(), ids=AT_LISTING)
def test_with_a_copy_in_the_cache_each_failure_is_a_warning(
    hub: Hub, commit: str, harm: Callable[[Hub], None], said: str
) -> None:
    before = load().state_dict()
    harm(hub)
    with pytest.warns(
        UserWarning, match=rf"{said.rstrip('$')}.*local cache's copy of '{NAME}' is used \(commit {commit}\)"
    ):
        ours = load()
    assert ours.cfg.revision == commit
    assert all(torch.equal(tensor, before[name]) for name, tensor in ours.state_dict().items())


def test_no_such_model_and_no_such_name(hub: Hub) -> None:
    for name in ("someone/else", "not a name", "a/b--c", "nobody"):
        assert f"no public hub model named {name!r}" in refusal(name) and BUNDLED_MODEL in refusal(name)


def test_no_such_revision_is_not_answered_from_the_cache(hub: Hub, commit: str) -> None:
    load()
    assert f"{NAME!r} has no revision 'v9' on the hub. Give one of its branches" in refusal(revision="v9")
    del hub.repositories[NAME].refs["main"]
    assert f"{NAME!r} has no revision 'main'" in refusal()
    assert load(revision=commit).cfg.revision == commit


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk(hub: Hub, commit: str, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr("huggingface_hub.file_download.http_get", full)
    assert f"disk is full, so {NAME!r} cannot be downloaded to {constants.HF_HUB_CACHE}. Free some space" in refusal()


def test_a_cache_that_cannot_be_written_to(hub: Hub, commit: str, cache: Path) -> None:
    cache.mkdir()
    (cache / "models--someone--tiny").write_text("a file where a folder should be")
    assert f"{NAME!r} could not be downloaded: " in refusal() and str(cache) in refusal()


def test_a_stored_token_that_cannot_be_read(hub: Hub, commit: str, cache: Path) -> None:
    (cache / "token").mkdir(parents=True)
    assert "token for the hub cannot be read" in refusal()


ENDPOINTS = ["", "hub.corp", "ftp://hub.corp", "http://", "http://127.0.0.1:1", "http://[::1", "http://127.0.0.1:x"]


@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_an_endpoint_that_leads_nowhere(cache: Path, monkeypatch: pytest.MonkeyPatch, endpoint: str) -> None:
    hub_server.reaching(endpoint, cache, monkeypatch)
    said = refusal()
    assert f"cannot be reached at {endpoint!r}" in said and "HF_ENDPOINT" in said


@pytest.mark.parametrize("token", ["hf_sécret", "hf_se cret", "hf_sec\x01ret", "‘hf_secret’"])
def test_an_odd_token_is_named_and_not_shown(
    hub: Hub, commit: str, monkeypatch: pytest.MonkeyPatch, token: str
) -> None:
    monkeypatch.setenv("HF_TOKEN", token)
    said = refusal()
    assert "token for the hub" in said and "contains a character that cannot be sent" in said
    assert "hf_" not in said and hub.requests == []


def test_a_proxy_that_refuses(hub: Hub, commit: str, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.fault("", 407)
    monkeypatch.setenv("https_proxy", hub.url)
    monkeypatch.setenv("no_proxy", "")
    hub_server.reaching("https://hub.corp", Path(constants.HF_HUB_CACHE), monkeypatch)
    assert "proxy on the way to https://hub.corp refuses the connection" in refusal()


# Without the hub


def test_offline_the_cache_is_used_without_asking_or_warning(
    hub: Hub, two_commits: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    load(revision="v1"), load()
    hub.requests.clear()
    offline(monkeypatch)
    for revision in ("v1", "main", two_commits["v1"]):
        assert load(revision=revision).cfg.revision == two_commits[revision]
    assert "its revision 'refs/pr/2' is not in the local cache" in refusal(revision="refs/pr/2")
    assert "'someone/else' is not a local folder" in refusal("someone/else")
    assert hub.requests == []


@pytest.mark.parametrize("lost", [WEIGHTS, "config.json"])
def test_half_a_copy_is_none(hub: Hub, commit: str, monkeypatch: pytest.MonkeyPatch, lost: str) -> None:
    (hub_folder(NAME) / lost).unlink()
    offline(monkeypatch)
    assert "is not in the local cache" in refusal()


def test_a_download_that_was_cut_short_is_no_copy(hub: Hub, commit: str, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.fault(CONTENT, 0)
    refusal()
    offline(monkeypatch)
    assert "is not in the local cache" in refusal()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    hub.faults.clear()
    hub.requests.clear()
    load()
    assert hub.asked() == [WEIGHTS]


def test_a_copy_by_another_program_may_lack_how_an_embedding_is_pooled(
    hub: Hub, encoder_files: dict[str, bytes], model_files: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import hf_hub_download

    for name, files in {"a/encoder": encoder_files, "a/masked": model_files}.items():
        hub.add(name, files)
        for file in files:
            hf_hub_download(name, file)
    offline(monkeypatch)
    assert "does not record whether it has a modules.json" in refusal("a/encoder")
    load("a/masked")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    load("a/encoder")
    offline(monkeypatch)
    load("a/encoder")


# Tokens


def private(hub: Hub, model_files: dict[str, bytes], *, gated: bool = False) -> str:
    commit = hub.add(NAME, model_files)
    hub.repositories[NAME].token, hub.repositories[NAME].gated = "hf_right", gated
    return commit


@pytest.mark.parametrize("place", ["HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "stored"])
def test_a_private_model_is_read_with_the_token_that_the_client_finds(
    hub: Hub, model_files: dict[str, bytes], cache: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    commit = private(hub, model_files)
    if place == "stored":
        cache.mkdir()
        (cache / "token").write_text("hf_right\n")
    else:
        monkeypatch.setenv(place, "hf_right")
    assert load().cfg.revision == commit
    assert set(hub.sent("authorization", "/api/|/resolve/")) == {"Bearer hf_right"}
    # Files come from another host, which has no business with the token.
    assert any("/cdn/" in line for line in hub.requests) and hub.sent("authorization", "/cdn/") == []


@pytest.mark.parametrize("token", ["", "hf_wrong"])
def test_without_its_token_a_private_model_does_not_exist(
    hub: Hub, model_files: dict[str, bytes], monkeypatch: pytest.MonkeyPatch, token: str
) -> None:
    private(hub, model_files)
    monkeypatch.setenv("HF_TOKEN", token)
    said = refusal()
    assert f"no public hub model named {NAME!r}" in said and "for a private model, log in" in said
    assert hub.asked() == [] and "hf_wrong" not in said


@pytest.mark.parametrize("token", ["", "hf_wrong", "hf_right"])
def test_a_gated_model_needs_a_token_for_its_files(
    hub: Hub, model_files: dict[str, bytes], monkeypatch: pytest.MonkeyPatch, token: str
) -> None:
    commit = private(hub, model_files, gated=True)
    monkeypatch.setenv("HF_TOKEN", token)
    if token == "hf_right":
        assert load().cfg.revision == commit
    else:
        assert f"{NAME!r} is gated. Accept its terms at {hub.url}/{NAME}, then log in" in refusal()


def test_no_token_is_sent_where_the_client_is_told_to_send_none(
    hub: Hub, commit: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_IMPLICIT_TOKEN", True)
    monkeypatch.setenv("HF_TOKEN", "‘odd, and of no importance’")
    assert load().cfg.revision == commit and hub.sent("authorization") == []


def test_a_token_that_cannot_be_obtained_is_one_sentence(
    hub: Hub, commit: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As for a token of a CI provider, for which the client raises an error of its own."""

    def failing() -> str:
        raise RuntimeError("no OIDC id token is available:\nnot in a supported CI provider")

    monkeypatch.setattr("negprobe.models.hub.get_token", failing)
    assert "token for the hub cannot be read (no OIDC id token is available: not in" in refusal()
    assert hub.requests == []


# Slow and broken transfers


@torch.no_grad()
def test_a_transfer_that_breaks_off_is_continued_where_it_ended(
    hub: Hub, commit: str, model_files: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 1000)
    body = model_files[WEIGHTS]
    hub.fault("GET /cdn/", body=body[:-100], length=len(body), times=1)
    with suppress(ModelError):  # version 1 of the client keeps what it has, and continues when it is asked again
        load()
    tokens = tiny_models.token_batch(0, (7,))
    assert largest_difference(load()(tokens), tiny_models.hf_model("bert")(tokens).logits) < 1e-5
    (continued,) = hub.sent("range", "GET /cdn/")
    assert len(body) - 1100 <= int(continued.removeprefix("bytes=").removesuffix("-")) <= len(body) - 100


def test_a_slow_transfer_is_waited_for(
    hub: Hub, commit: str, model_files: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each piece comes in time, though all of them do not."""
    monkeypatch.setattr(constants, "HF_HUB_DOWNLOAD_TIMEOUT", 0.5)
    hub.fault("GET /cdn/", body=model_files[WEIGHTS], pieces=6, pause=0.15)
    load()
    assert hub.sent("range", "GET /cdn/") == []


def test_a_transfer_that_stalls_is_continued(
    hub: Hub, commit: str, model_files: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_DOWNLOAD_TIMEOUT", 0.2)
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 1000)
    hub.fault("GET /cdn/", body=model_files[WEIGHTS], pieces=2, pause=60, times=1)
    load()
    assert len(hub.sent("range", "GET /cdn/")) == 1


@pytest.mark.parametrize("what", ["listing", "details of a file", "content"])
def test_a_hub_that_does_not_go_on_answering_is_one_sentence(
    hub: Hub, commit: str, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_DOWNLOAD_TIMEOUT", 0.05)
    # The first try, and the client's last one.
    monkeypatch.setattr(constants, "HF_HUB_ETAG_TIMEOUT", 0.05)
    monkeypatch.setattr("huggingface_hub.file_download._ETAG_RETRY_TIMEOUT", 0.05, raising=False)
    monkeypatch.setattr("negprobe.models.hub._TIMEOUT_SECONDS", 0.05)
    pattern = {"listing": "GET /api/models", "details of a file": "HEAD ", "content": "GET /cdn/"}[what]
    hub.fault(pattern, body=b"never sent", pause=60)
    assert "The hub cannot be reached at 'http://127" in refusal()


def test_what_was_whole_of_a_broken_download_is_not_asked_for_again(
    hub: Hub, model_files: dict[str, bytes], tmp_path: Path
) -> None:
    files = files_of("bert", "masked_lm", tmp_path / "model", max_shard_size="20KB")
    shards = sorted(file for file in files if re.fullmatch(r"model-.*\.safetensors", file))
    hub.add(NAME, files)
    last = f"/cdn/{hashlib.sha256(files[shards[-1]]).hexdigest()}"
    hub.fault(last, 503)
    assert "server error (503)" in refusal()
    hub.faults.clear()
    hub.requests.clear()
    load()
    assert [line for line in hub.requests if "/cdn/" in line] == [f"GET {last}"]
    assert hub.asked() == [shards[-1]]
