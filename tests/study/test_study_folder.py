"""A stopped study resumes where it stopped, and a folder holds only one study."""

import json
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
import torch

from negprobe import HookedEncoder, builtin_pairs
from negprobe.base import provenance
from negprobe.base.errors import StudyError
from negprobe.base.provenance import versions
from negprobe.study import run_study
from negprobe.study.folder import identity, key, study_folder
from negprobe.study.formats import FORMAT
from negprobe.study.results import StudyResults
from negprobe.views import write_study
from tests.support import ROOT


@pytest.fixture(scope="module")
def model() -> HookedEncoder:
    return HookedEncoder.from_pretrained("tiny-negation", device="cpu")


@pytest.fixture
def fingerprint(model: HookedEncoder) -> dict[str, str]:
    return identity(model, builtin_pairs()[:2], {"seed": 0})


@pytest.mark.parametrize("kills", [1, pytest.param(20, marks=pytest.mark.slow)])
def test_a_study_that_is_killed_ends_with_the_same_tables_byte_for_byte(tmp_path: Path, kills: int) -> None:
    script = ROOT / "tests" / "support" / "killed_study.py"
    ended = subprocess.run([sys.executable, script, str(kills), tmp_path], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    undisturbed, *studies, counts = ended.stdout.splitlines()
    assert undisturbed.startswith("14 tables")
    assert studies and set(studies) == {"identical"}
    assert counts == f"{kills} killed, {len(studies)} finished"


def test_a_folder_is_gone_on_with_by_the_same_study_alone(model, fingerprint, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with study_folder(out, fingerprint) as (shards, _):
        (shards / "a").mkdir()
        (out / "figures").mkdir()
        (shards / "a" / "a.parquet").write_text("measured")
        for place in (out, out / "figures", shards / "a"):
            (place / ".b.parquet.17.part").write_text("half")
        (out / ".mine.part").write_text("somebody else's")
    with study_folder(out, fingerprint) as (shards, _):
        kept = [str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()]
        assert sorted(kept) == [".lock", ".mine.part", "shards/a/a.parquet", "study.json"]
    other = identity(model, builtin_pairs()[:2], {"seed": 1})
    with (
        pytest.raises(StudyError, match=r"holds another study \(seed: 0 in the folder, 1 now\)"),
        study_folder(tmp_path / "out", other),
    ):
        pass
    assert (shards / "a" / "a.parquet").read_text() == "measured"


def test_an_identity_hangs_on_weights_pairs_and_options(model, fingerprint) -> None:
    changed = HookedEncoder.from_pretrained("tiny-negation", device="cpu")
    with torch.no_grad():
        changed.embed.W_E[5, 5] += 1e-3
    sharper = HookedEncoder.from_pretrained("tiny-negation", device="cpu")
    sharper.cfg.eps *= 10
    cased = HookedEncoder.from_pretrained("tiny-negation", device="cpu")
    cased.tokenizer.mask_token = "[UNK]"
    prompted = HookedEncoder.from_pretrained("tiny-negation", device="cpu", prompt="it is: ")
    differing = {
        "prompt": identity(prompted, builtin_pairs()[:2], {"seed": 0}),
        "configuration": identity(sharper, builtin_pairs()[:2], {"seed": 0}),
        "tokenizer": identity(cased, builtin_pairs()[:2], {"seed": 0}),
        "weights": identity(changed, builtin_pairs()[:2], {"seed": 0}),
        "pairs": identity(model, builtin_pairs()[1:3], {"seed": 0}),
        "seed": identity(model, builtin_pairs()[:2], {"seed": 1}),
    }
    for name, other in differing.items():
        assert [key for key in fingerprint if fingerprint[key] != other[key]] == [name]
    assert identity(model, builtin_pairs()[:2], {"seed": 0}) == fingerprint
    # Not on how the tokenizer was called last.
    model.to_tokens(["it is open", "it is"], truncate=True)
    assert identity(model, builtin_pairs()[:2], {"seed": 0}) == fingerprint
    half = HookedEncoder.from_pretrained("tiny-negation", device="cpu", dtype=torch.bfloat16)
    assert identity(half, builtin_pairs()[:2], {"seed": 0})["weights"] != fingerprint["weights"]


def test_a_study_is_not_resumed_with_another_prompt(model, fingerprint, tmp_path: Path) -> None:
    prompted = HookedEncoder.from_pretrained("tiny-negation", device="cpu", prompt="it is: ")
    other = identity(prompted, builtin_pairs()[:2], {"seed": 0})
    with study_folder(tmp_path / "out", fingerprint):
        pass
    with (
        pytest.raises(StudyError, match=r"holds another study \(prompt: none in the folder, 'it is: ' now\)"),
        study_folder(tmp_path / "out", other),
    ):
        pass
    assert key(other) != key(fingerprint)
    # A folder that records no prompt was written before there were any.
    recorded = json.loads((tmp_path / "out" / "study.json").read_text())
    assert recorded.pop("prompt") == "none"
    (tmp_path / "out" / "study.json").write_text(json.dumps(recorded))
    with study_folder(tmp_path / "out", fingerprint):
        pass


def test_two_studies_at_once_in_a_folder_are_an_error(fingerprint, tmp_path: Path) -> None:
    with (
        study_folder(tmp_path, fingerprint),
        pytest.raises(StudyError, match="Another study is writing"),
        study_folder(tmp_path, fingerprint),
    ):
        pass
    with study_folder(tmp_path, fingerprint):
        pass


@pytest.mark.slow
def test_a_study_in_another_process_in_the_same_folder_is_an_error(fingerprint, tmp_path: Path) -> None:
    with study_folder(tmp_path, fingerprint):
        other = (
            "import sys; from pathlib import Path; from negprobe.study.folder import study_folder\n"
            "with study_folder(Path(sys.argv[1]), {}): pass"
        )
        ended = subprocess.run([sys.executable, "-c", other, tmp_path], capture_output=True, text=True, check=False)
        assert "Another study is writing" in ended.stderr


def test_a_folder_that_cannot_be_is_an_error(fingerprint, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with (
        pytest.raises(StudyError, match=r"cannot be written to.*Choose another"),
        study_folder(tmp_path / "file" / "out", fingerprint),
    ):
        pass


@pytest.mark.parametrize("name", ["manifest.json", "report.html", "pairs.parquet", "figures"])
def test_what_a_study_would_write_over_is_named_and_stays(fingerprint, tmp_path: Path, name: str) -> None:
    (tmp_path / "notes.txt").write_text("in nobody's way")
    (tmp_path / name).write_text("mine")
    said = rf"holds {name}, which the study would overwrite"
    with pytest.raises(StudyError, match=said), study_folder(tmp_path, fingerprint):
        pass
    assert sorted(path.name for path in tmp_path.iterdir() if path.name != ".lock") == sorted(["notes.txt", name])
    (tmp_path / name).unlink()
    with study_folder(tmp_path, fingerprint):
        pass


def test_a_damaged_folder_is_an_error_and_stays(fingerprint, tmp_path: Path) -> None:
    for content in (
        "{",
        "[]",
        json.dumps(7),
        "{}",
        json.dumps(fingerprint),
        json.dumps(fingerprint | {"threads": "many"}),
    ):
        (tmp_path / "study.json").write_text(content)
        with pytest.raises(StudyError, match=r"study\.json is damaged"), study_folder(tmp_path, fingerprint):
            pass
        assert (tmp_path / "study.json").read_text() == content


def test_a_folder_names_the_threads_that_its_study_began_with(fingerprint, tmp_path: Path) -> None:
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        with study_folder(tmp_path, fingerprint):
            pass
        torch.set_num_threads(1)
        with study_folder(tmp_path, fingerprint) as folder:
            assert folder.threads == 3
            # The library leaves torch's setting to its caller.
            assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("version", "said"),
    [
        (None, r"of an earlier version .*study\.json has format version 1, .*cannot resume.*choose another folder"),
        (
            1 + FORMAT,
            rf"study\.json has format version {1 + FORMAT}, but this .* reads only versions up to {FORMAT}\. Up",
        ),
        ("new", r"study\.json is damaged: 'new' is not a format version"),
    ],
)
def test_the_folder_of_another_format_is_refused_by_its_version(
    fingerprint, tmp_path: Path, version, said: str
) -> None:
    path = tmp_path / "study.json"
    path.write_text(json.dumps(fingerprint | {"threads": 1} | ({} if version is None else {"format": version})))
    before = path.read_bytes()
    with pytest.raises(StudyError, match=said), study_folder(tmp_path, fingerprint):
        pass
    assert path.read_bytes() == before


def test_a_folder_that_was_refused_can_be_gone_on_with_while_the_error_is_kept(fingerprint, tmp_path: Path) -> None:
    with study_folder(tmp_path, fingerprint):
        pass
    with pytest.raises(StudyError) as refused, study_folder(tmp_path, fingerprint | {"seed": "1"}):
        pass
    with study_folder(tmp_path, fingerprint):
        assert "holds another study" in str(refused.value)


@pytest.mark.slow
def test_shards_of_another_study_are_not_taken_for_this_ones(model, without_figures, tmp_path: Path) -> None:
    for out, pairs in (("a", builtin_pairs()[:4]), ("b", builtin_pairs()[8:4:-1]), ("alone", builtin_pairs()[8:4:-1])):
        with study_folder(tmp_path / out, identity(model, pairs, {})) as (shards, _):
            if out == "b":
                shutil.copytree(tmp_path / "a" / "shards", shards, dirs_exist_ok=True)
            write_study(run_study(model, pairs, patch_pairs=0, shards=shards), tmp_path / out)
    tables = [{path.name: path.read_bytes() for path in (tmp_path / out).glob("*.parquet")} for out in ("b", "alone")]
    assert tables[0] == tables[1]
    assert tables[0]["metrics.parquet"] != (tmp_path / "a" / "metrics.parquet").read_bytes()


def with_version(monkeypatch: pytest.MonkeyPatch, package: str, version: str) -> None:
    installed = metadata.version
    monkeypatch.setattr(provenance.metadata, "version", lambda name: version if name == package else installed(name))


def next_of(version: str, part: int) -> str:
    numbers = [int(number) for number in version.split("+")[0].split(".")[:3]]
    numbers[part] += 1
    return ".".join(map(str, numbers))


@pytest.mark.parametrize("package", ["negprobe", "torch", "transformers", "tokenizers", "numpy"])
def test_a_minor_version_that_can_change_numbers_is_another_study_that_says_so(
    model, fingerprint, monkeypatch, tmp_path: Path, package: str
) -> None:
    with study_folder(tmp_path, fingerprint):
        pass
    other = next_of(metadata.version(package), 1)
    with_version(monkeypatch, package, other)
    now = identity(model, builtin_pairs()[:2], {"seed": 0})
    minor = other.rpartition(".")[0]
    said = rf"version of {package}: [\d.]+ in the folder, {minor} now\)\. To resume it, use .* package versions"
    with pytest.raises(StudyError, match=said), study_folder(tmp_path, now):
        pass


@pytest.mark.parametrize("package", ["negprobe", "torch", "transformers", "tokenizers", "numpy", "pandas", "scipy"])
def test_a_patch_release_goes_on_with_the_same_study(
    model, fingerprint, monkeypatch, tmp_path: Path, package: str
) -> None:
    with study_folder(tmp_path, fingerprint):
        pass
    with_version(monkeypatch, package, next_of(metadata.version(package), 2) + "+cu130")
    now = identity(model, builtin_pairs()[:2], {"seed": 0})
    assert (now, key(now)) == (fingerprint, key(fingerprint))
    with study_folder(tmp_path, now):
        pass


@pytest.mark.slow
def test_a_study_resumed_with_another_patch_release_names_both(model, monkeypatch, tmp_path: Path) -> None:
    pairs = builtin_pairs()[:4]

    def run() -> StudyResults:
        return run_study(model, pairs, patch_pairs=0, shards=tmp_path / "shards")

    first = run()
    assert first.environments == run().environments == (versions(),)
    began_with = metadata.version("torch")
    with_version(monkeypatch, "torch", next_of(began_with, 2))
    again = run()
    assert [one["versions"]["torch"] for one in again.environments] == [began_with, metadata.version("torch")]
    write_study(again, tmp_path / "out", "negprobe study")
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["versions"]["torch"] == metadata.version("torch") != began_with
    assert [one["versions"]["torch"] for one in manifest["earlier_environments"]] == [began_with]
    report = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert f"(torch {began_with} and {metadata.version('torch')})" in report
    (environments,) = (tmp_path / "shards").glob("*/environments.json")
    environments.write_text("[7]")
    with pytest.raises(StudyError, match=r"environments\.json is damaged.*Delete it"):
        run()
