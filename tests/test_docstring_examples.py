"""Every `>>>` example in the docstrings of negprobe gives the result that it shows."""

import doctest
import re
from importlib import import_module
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "negprobe"
PROMPT = re.compile(r"^ *>>> ", re.MULTILINE)
N_EXAMPLES = {
    file: len(PROMPT.findall(file.read_text(encoding="utf-8"))) for file in sorted(PACKAGE.rglob("*.py"))
}  # fmt: skip
FILES = [file for file, n in N_EXAMPLES.items() if n]


def module_name(file: Path) -> str:
    return ".".join(file.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")


def test_there_are_examples() -> None:
    assert len(FILES) > 10


@pytest.mark.parametrize("file", FILES, ids=module_name)
def test_examples_give_what_they_show(file: Path) -> None:
    name = module_name(file)
    tests = [test for test in doctest.DocTestFinder().find(import_module(name), name, globs={}) if test.examples]
    examples = [example for test in tests for example in test.examples]
    # The finder sees only what the module exposes; an example elsewhere would never run.
    assert len(examples) == N_EXAMPLES[file]
    assert not any(doctest.SKIP in example.options for example in examples)
    failures: list[str] = []
    for test in tests:
        doctest.DocTestRunner().run(test, out=failures.append)
    assert not failures, "".join(failures)
