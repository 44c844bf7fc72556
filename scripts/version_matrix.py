"""Run the tests on the oldest or newest dependencies that pyproject.toml allows, in a fresh virtual environment.

    python scripts/version_matrix.py oldest
    python scripts/version_matrix.py newest --python python3.13
    python scripts/version_matrix.py oldest --pin torch==2.13.0 tests/models tests/attention

`oldest` installs the lower bound of every dependency that has one. `newest` installs the newest version on the index.
"""

import subprocess
import sys
import tempfile
import tomllib
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parent.parent
_SHOWN = ("transformer-lens", "transformers", "torch", "tokenizers", "numpy", "pandas", "xarray", "scipy", "matplotlib")


class End(StrEnum):
    """The end of the allowed range of versions."""

    OLDEST = "oldest"
    NEWEST = "newest"


def main(
    end: Annotated[End, typer.Argument(help="Which end of the allowed range of versions.")],
    tests: Annotated[list[str] | None, typer.Argument(help="Tests to run (default: all).")] = None,
    python: Annotated[str, typer.Option(help="Python interpreter of the environment.")] = sys.executable,
    pin: Annotated[list[str] | None, typer.Option(help="A fixed version, such as torch==2.13.0.")] = None,
) -> None:
    """Run the tests; the exit status is 1 if they fail."""
    if not passes(end, python, pin or [], tests or []):
        print(f"The tests fail on the {end} versions.")
        raise typer.Exit(1)


def passes(end: End, python: str, pins: list[str], tests: list[str]) -> bool:
    """Whether the tests pass in a new environment with these versions."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([python, "-m", "venv", folder], check=True)
        own = Path(folder) / ("Scripts" if sys.platform == "win32" else "bin") / "python"
        wanted = Path(folder) / "constraints.txt"
        pinned = {Requirement(each).name for each in pins}
        bounds = lower_bounds() if end is End.OLDEST else {}
        lines = [*pins, *(f"{name}=={bound}" for name, bound in bounds.items() if name not in pinned)]
        wanted.write_text("\n".join(lines) + "\n", encoding="utf-8")
        subprocess.run([own, "-m", "pip", "install", "-q", "-c", wanted, "-e", f"{ROOT}[test]"], check=True)
        show = f"from importlib.metadata import version; print(*(f'{{n}} {{version(n)}}' for n in {_SHOWN}), sep=', ')"
        print(f"{end}:", flush=True)
        subprocess.run([own, "-c", f"import sys; print('Python', sys.version.split()[0]); {show}"], check=True)
        command = [own, "-m", "pytest", "-m", "slow or not slow", *tests]
        return subprocess.run(command, cwd=ROOT, check=False).returncode == 0


def lower_bounds() -> dict[str, str]:
    """The lowest allowed version of each dependency that has a lower bound in pyproject.toml."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    named = [*project["dependencies"], *project["optional-dependencies"]["test"]]
    bounds = {}
    for requirement in map(Requirement, named):
        lowest = [each.version for each in requirement.specifier if each.operator in (">=", "==")]
        if lowest:
            bounds[requirement.name] = lowest[0]
    return bounds


if __name__ == "__main__":
    typer.run(main)
