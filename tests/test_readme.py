"""What the README shows runs as it stands there."""

import re
import tomllib

import pytest

from tests.support import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_five_lines_of_python_run(capsys):
    code = re.search(r"```python\n(.*?)```", README, re.DOTALL)
    assert code is not None
    assert len(code[1].strip().splitlines()) <= 6
    exec(compile(code[1], "README.md", "exec"), {})
    printed = capsys.readouterr().out
    assert "attention_to_cue" in printed
    assert "DataArray" in printed


def test_every_file_it_points_to_is_there():
    links = re.findall(r"\]\(([^)]+)\)", README)
    assert links
    for link in links:
        assert (ROOT / link).exists(), link


@pytest.mark.parametrize("marker", ["study command", "test command"])
def test_each_command_is_one_line_that_installs_the_tested_versions(marker):
    block = re.search(rf"<!-- {marker} -->\n```bash\n(.*?)\n```", README, re.DOTALL)
    assert block is not None
    assert "\n" not in block[1]
    assert "-c constraints.txt" in block[1]


def test_every_direct_dependency_has_a_tested_version():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    named = [*project["dependencies"], *project["optional-dependencies"]["test"]]
    pinned = re.findall(r"^([\w.-]+)==", (ROOT / "constraints.txt").read_text(encoding="utf-8"), re.MULTILINE)
    assert {re.match(r"[\w.-]+", name)[0] for name in named} <= set(pinned)
