"""Commands on models and data sets of the hub: revisions, the commit in the manifest, one line for each failure."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
from click.testing import Result
from typer.testing import CliRunner

from negprobe import HookedEncoder, models
from negprobe.base.errors import StatementError
from negprobe.cli import _same_model, app
from negprobe.statements import load_pairs
from negprobe.study.folder import identity
from tests.support import hub_server
from tests.support.hub_server import HTML, Hub

NAME = "someone/tiny"
BUNDLED = Path(models.__file__).parent / "tiny-negation"
SENTENCES = ("The door is open. So the door is [MASK].", "The door is not open. So the door is [MASK].")
COMMANDS = {
    "study": ["study", NAME, "--limit", "2", "--out", "out"],
    "compare": ["compare", *SENTENCES, "--model", NAME, "--out", "out"],
    "view": ["view", "--model", NAME, "--limit", "1", "--out", "out/view.html"],
    "patch": ["patch", *SENTENCES, "--target", "open", "--foil", "closed", "--model", NAME, "--out", "out"],
    "evaluate": ["evaluate", "builtin", "--model", NAME],
}


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    monkeypatch.chdir(tmp_path)
    with hub_server.serving(tmp_path / "cache", monkeypatch) as hub:
        hub.add(NAME, BUNDLED, tag="v1")
        yield hub


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, arguments)


@pytest.mark.slow
@pytest.mark.usefixtures("without_figures")
def test_a_study_by_hub_name_records_the_commit(hub: Hub) -> None:
    commit = hub.repositories[NAME].refs["v1"]
    # The branch has moved on, to what is no model.
    hub.add(NAME, {"README.md": b""})
    result = run("study", f"{NAME}@v1", "--limit", "4", "--patch-pairs", "2", "--circuit-pairs", "2")
    assert result.exit_code == 0, result.output
    model = json.loads(Path("negprobe-study/manifest.json").read_text())["model"]
    assert (model["name"], model["revision"]) == (NAME, commit)


@pytest.mark.slow
def test_a_study_of_a_private_model_in_a_process_of_its_own_and_again_without_the_hub(hub: Hub, tmp_path: Path) -> None:
    """All settings are the client's own environment variables; nothing is patched."""
    hub.repositories[NAME].token = "hf_right"
    settings = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGING"))}
    settings |= {"HF_HOME": str(tmp_path / "home")}
    counts = ["--limit", "2", "--patch-pairs", "1", "--circuit-pairs", "0", "--contribution-pairs", "0"]

    def study(out: str, **environment: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "negprobe", "study", f"{NAME}@v1", *counts, "--out", out]
        return subprocess.run(command, capture_output=True, text=True, env=settings | environment, check=False)

    refused = study("a", HF_ENDPOINT=hub.url)
    assert refused.returncode == 1 and refused.stderr.startswith("Error: There is no folder and no public hub model")
    assert refused.stderr.count("\n") == 1 and hub.asked() == []
    online = study("a", HF_ENDPOINT=hub.url, HF_TOKEN="hf_right")
    assert online.returncode == 0, online.stderr
    assert hub.asked() == sorted(path.name for path in BUNDLED.iterdir() if path.name != "README.md")
    hub.requests.clear()
    offline = study("b", HF_ENDPOINT=hub.url, HF_HUB_OFFLINE="1")
    assert offline.returncode == 0 and hub.requests == [], offline.stderr
    a, b = (pd.read_parquet(tmp_path / out / "patching.parquet") for out in "ab")
    pd.testing.assert_frame_equal(a, b)
    manifests = [json.loads((tmp_path / out / "manifest.json").read_text())["model"] for out in "ab"]
    assert manifests[0] == manifests[1] and manifests[0]["revision"] == hub.repositories[NAME].refs["v1"]


def test_the_same_weights_in_another_commit_are_the_same_study(hub: Hub) -> None:
    fingerprints = []
    for revision in (
        "v1",
        hub.add(NAME, {**hub.repositories[NAME].commits[hub.repositories[NAME].refs["v1"]], "x": b""}),
    ):
        model = HookedEncoder.from_pretrained(NAME, revision=revision, device="cpu")
        fingerprints.append((model.cfg.revision, identity(model, [], {})))
    (commit, one), (other_commit, other) = fingerprints
    assert commit != other_commit and one == other


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_says_in_one_line_what_failed_at_the_hub(hub: Hub, command: str) -> None:
    hub.fault("", body=HTML)
    result = run(*COMMANDS[command])
    assert result.exit_code == 1 and isinstance(result.exception, SystemExit)
    assert result.stderr.startswith("Error: The server at http://127.0.0.1") and result.stderr.count("\n") == 1


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_takes_a_revision(hub: Hub, command: str) -> None:
    result = run(*COMMANDS[command], "--revision", "v9")
    assert result.exit_code == 1
    assert (
        result.stderr
        == f"Error: '{NAME}' has no revision 'v9' on the hub. Give one of its branches, tags or commits.\n"
    )


@pytest.mark.parametrize("endpoint", ["http://localhost:80x", "http://[::1"])
def test_an_endpoint_that_the_hubs_client_cannot_be_imported_with(endpoint: str) -> None:
    command = [sys.executable, "-m", "negprobe", "doctor"]
    environment = os.environ | {"HF_ENDPOINT": endpoint}
    ended = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert ended.returncode == 1
    assert ended.stderr.startswith(f"Error: HF_ENDPOINT='{endpoint}' is not a valid URL")
    assert ended.stderr.count("\n") == 1


def test_a_copy_in_the_cache_is_used_with_one_line_of_warning(hub: Hub) -> None:
    assert run(*COMMANDS["view"]).exit_code == 0
    hub.fault("", 503)
    result = run(*COMMANDS["view"])
    assert result.exit_code == 0, result.output
    assert "Warning: The hub reports a server error (503). Try again later. The local cache's copy" in result.stderr
    assert "hub.py" not in result.output


def test_a_revision_without_a_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "words.csv").write_text("['open']\n")
    result = run("evaluate", "builtin", "--predictions", str(tmp_path / "words.csv"), "--revision", "v1")
    assert result.exit_code == 1 and "--revision applies only to --model" in result.output


def test_a_worker_loads_the_commit_that_was_loaded_here(hub: Hub) -> None:
    encoder = HookedEncoder.from_pretrained(f"{NAME}@v1", device="cpu")
    assert _same_model(encoder, f"{NAME}@v1") == (NAME, hub.repositories[NAME].refs["v1"])
    Path("model@v1").symlink_to(BUNDLED)
    local = HookedEncoder.from_pretrained("model@v1", device="cpu")
    assert _same_model(local, "model@v1") == (str(Path("model@v1").resolve()), None)


# doctor


def test_doctor_says_that_the_hub_answers(hub: Hub) -> None:
    hub.add("google-bert/bert-base-uncased", {})
    result = run("doctor")
    assert result.exit_code == 0 and f"{hub.url} is reachable right" in " ".join(
        result.output.replace("│", " ").split()
    )


@pytest.mark.parametrize(
    "status, body, said",
    [
        (200, HTML, "does not answer like the hub"),
        (0, b"", "cannot be reached"),
        (429, b"", "limits the rate"),
        (407, b"", "proxy on"),
    ],
)
def test_doctor_says_what_is_wrong_with_the_hub(hub: Hub, status: int, body: bytes, said: str) -> None:
    hub.fault("", status, body=body)
    result = run("doctor")
    printed = " ".join(result.output.replace("│", " ").split())
    assert result.exit_code == 0 and said in printed and "load models from local folders" in printed


# Data sets


@pytest.fixture
def data_sets(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hub:
    """The same hub for Hugging Face's own `datasets`."""
    config = pytest.importorskip("datasets", reason="needs: pip install 'negprobe[datasets]'").config
    monkeypatch.setattr(config, "HF_ENDPOINT", hub.url)
    monkeypatch.setattr(config, "HF_HUB_OFFLINE", False)
    for name in ("HF_DATASETS_CACHE", "HF_MODULES_CACHE"):
        monkeypatch.setattr(config, name, str(tmp_path / name))
    return hub


@pytest.mark.parametrize(
    "status, options, said",
    [
        (200, {"body": HTML}, "does not answer like the hub"),
        (0, {}, "cannot be reached"),
        (401, {}, "does not accept the token"),
        (403, {}, "denies access to 'a/set'"),
        (407, {}, "proxy on the way"),
        (429, {"headers": {"Retry-After": "37"}}, "limits the rate of requests.* in 37 seconds"),
        (503, {}, r"a server error \(503\)"),
        (404, {"headers": {"X-Error-Code": "RepoNotFound"}}, "doesn't exist on the Hub"),
        (403, {"headers": {"X-Error-Code": "GatedRepo"}}, "a gated dataset on the Hub"),
    ],
)
def test_each_failure_with_a_data_set(data_sets: Hub, status: int, options: dict, said: str) -> None:
    data_sets.fault("", status, **options)
    with pytest.raises(StatementError, match=f"^There is no file or folder a/set,.*{said}") as raised:
        load_pairs("a/set")
    assert "\n" not in str(raised.value)


def test_an_odd_token_is_not_shown_for_a_data_set_either(data_sets: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_se\x01cret")
    with pytest.raises(
        StatementError, match=r"token for the hub .* contains a character that cannot be sent"
    ) as raised:
        load_pairs("a/set")
    assert "hf_" not in str(raised.value)


@pytest.mark.parametrize("error", [KeyError("splits"), TypeError("a list"), RecursionError("deep"), EOFError("early")])
def test_whatever_a_data_set_raises_is_one_clear_error(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def load_dataset(*_: object) -> None:
        raise error

    monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(load_dataset=load_dataset))
    with pytest.raises(StatementError, match="could not be loaded as a data set"):
        load_pairs("a/set")
