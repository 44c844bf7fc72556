"""Packages import only from packages above them, also inside functions."""

import ast
from collections.abc import Iterator

import pytest

from tests.support import ROOT

ORDER = ("base", "statistics", "models", "statements", "attention", "patching", "behaviour", "study", "views")


def imported(tree: ast.AST) -> Iterator[str]:
    """The modules that a file imports, at the top or inside functions."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def against_the_order(package: str, source: str) -> list[str]:
    """The imports of a package's file that point to a package below it, or to the whole of negprobe."""
    below = ORDER[ORDER.index(package) + 1 :]
    own = [name.split(".") for name in imported(ast.parse(source)) if name.split(".")[0] == "negprobe"]
    return [".".join(parts) for parts in own if len(parts) < 2 or parts[1] in below or parts[1] not in ORDER]


def test_every_package_has_a_place_in_the_order() -> None:
    assert {path.parent.name for path in (ROOT / "negprobe").glob("*/__init__.py")} == set(ORDER)


@pytest.mark.parametrize("package", ORDER)
def test_packages_import_only_from_above(package: str) -> None:
    for path in sorted((ROOT / "negprobe" / package).rglob("*.py")):
        assert against_the_order(package, path.read_text(encoding="utf-8")) == [], path


def test_an_import_inside_a_function_is_found() -> None:
    source = "def draw():\n    from negprobe.views.page import page\n    import negprobe.study.run\n"
    assert against_the_order("patching", source) == ["negprobe.views.page.page", "negprobe.study.run"]
    assert against_the_order("views", source) == []
