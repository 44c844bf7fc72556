"""How many negations of natural text the default lexicon does not search for: those in content words and affixes.

Each cell of a tab-separated file that has a space in it is read as a sentence; equal sentences count once. The optional
classes of cues miss some and find a few false ones (tests/statements/test_optional_cues.py measures both), so these are
shares of what they find.

    python benchmarks/undetected_cues.py FILE...
"""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from negprobe.statements import english_lexicon, find_cues


def sentences(path: Path) -> set[str]:
    """The different sentences of a file."""
    cells = (cell.strip() for line in path.read_text(encoding="utf-8").splitlines() for cell in line.split("\t"))
    return {cell for cell in cells if " " in cell}


def main(files: Annotated[list[Path], typer.Argument(help="Tab-separated texts.")]) -> None:
    """Print the number of cues of each class in each file."""
    lexicons = {"function": english_lexicon()} | {
        name: english_lexicon(classes=(name,)) for name in ("lexical", "affixal")
    }
    table = Table("file", "sentences", "function words", "content words", "affixes")
    for path in files:
        texts = sentences(path)
        found = {
            name: sum(len(find_cues(text, lexicon=lexicon)) for text in texts) for name, lexicon in lexicons.items()
        }
        extra = {name: found[name] - found["function"] for name in ("lexical", "affixal")}
        total = found["function"] + sum(extra.values())
        counts = (found["function"], extra["lexical"], extra["affixal"])
        table.add_row(path.name, str(len(texts)), *(f"{count} ({count / max(total, 1):.0%})" for count in counts))
    Console().print(table)


if __name__ == "__main__":
    typer.run(main)
