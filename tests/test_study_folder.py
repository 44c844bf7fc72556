"""A study that is stopped goes on where it was, and a folder is one study's."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from negprobe import HookedEncoder, builtin_pairs
from negprobe.errors import StudyError
from negprobe.study_folder import identity, study_folder

KILLS = 20


@pytest.fixture(scope="module")
def model() -> HookedEncoder:
    return HookedEncoder.from_pretrained("tiny-negation", device="cpu")


@pytest.fixture
def whose(model: HookedEncoder) -> dict[str, str]:
    return identity(model, builtin_pairs()[:2], {"seed": 0})


def test_a_study_killed_twenty_times_ends_with_the_same_tables_byte_for_byte(tmp_path: Path) -> None:
    script = Path(__file__).with_name("killed_study.py")
    ended = subprocess.run([sys.executable, script, str(KILLS), tmp_path], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    undisturbed, *studies, counts = ended.stdout.splitlines()
    assert undisturbed.startswith("13 tables")
    assert studies and set(studies) == {"identical"}
    assert counts == f"{KILLS} killed, {len(studies)} finished"


def test_a_folder_is_gone_on_with_by_the_same_study_alone(model, whose, tmp_path: Path) -> None:
    with study_folder(tmp_path / "out", whose) as shards:
        (shards / "a.parquet").write_text("measured")
        (shards / ".b.parquet.17.part").write_text("half")
    with study_folder(tmp_path / "out", whose) as shards:
        assert [path.name for path in shards.iterdir()] == ["a.parquet"]
    other = identity(model, builtin_pairs()[:2], {"seed": 1})
    with (
        pytest.raises(StudyError, match=r"holds another study \(seed: 0, here 1\)"),
        study_folder(tmp_path / "out", other),
    ):
        pass
    assert (shards / "a.parquet").read_text() == "measured"


def test_an_identity_hangs_on_weights_pairs_and_options(model, whose) -> None:
    changed = HookedEncoder.from_pretrained("tiny-negation", device="cpu")
    with torch.no_grad():
        changed.embed.W_E[5, 5] += 1e-3
    differing = {
        "weights": identity(changed, builtin_pairs()[:2], {"seed": 0}),
        "pairs": identity(model, builtin_pairs()[1:3], {"seed": 0}),
        "seed": identity(model, builtin_pairs()[:2], {"seed": 1}),
    }
    for name, other in differing.items():
        assert [key for key in whose if whose[key] != other[key]] == [name]
    assert identity(model, builtin_pairs()[:2], {"seed": 0}) == whose
    half = HookedEncoder.from_pretrained("tiny-negation", device="cpu", dtype=torch.bfloat16)
    assert identity(half, builtin_pairs()[:2], {"seed": 0})["weights"] != whose["weights"]


def test_two_studies_at_once_in_a_folder_are_an_error(whose, tmp_path: Path) -> None:
    with study_folder(tmp_path, whose):
        with pytest.raises(StudyError, match="Another study is writing"), study_folder(tmp_path, whose):
            pass
        other = (
            "import sys; from pathlib import Path; from negprobe.study_folder import study_folder\n"
            "with study_folder(Path(sys.argv[1]), {}): pass"
        )
        ended = subprocess.run([sys.executable, "-c", other, tmp_path], capture_output=True, text=True, check=False)
        assert "Another study is writing" in ended.stderr
    with study_folder(tmp_path, whose):
        pass


def test_a_folder_that_cannot_be_is_an_error(whose, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with (
        pytest.raises(StudyError, match=r"cannot be written to.*Choose another"),
        study_folder(tmp_path / "file" / "out", whose),
    ):
        pass


def test_a_study_of_before_and_a_damaged_folder_are_errors_and_stay(whose, tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text("{}")
    with pytest.raises(StudyError, match="holds a study that cannot be gone on with"), study_folder(tmp_path, whose):
        pass
    assert (tmp_path / "manifest.json").read_text() == "{}"
    for content in ("{", "[]", json.dumps(7)):
        (tmp_path / "study.json").write_text(content)
        with pytest.raises(StudyError, match=r"study\.json is damaged"), study_folder(tmp_path, whose):
            pass
