"""Peak memory of `negprobe study` as its pairs grow: one study after another, each in a process of its own.

Every pair is one of the built-in grammar's with another clause beside it ("The bath is hot and the door is open."),
over all the nouns and states of the lexicon. As many are patched and searched for a circuit each time, so that only
the number of pairs measured grows.

    python benchmarks/memory.py --pairs 1000 --pairs 10000
"""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import cycle, islice, product
from pathlib import Path
from typing import Annotated

import pandas as pd
import typer
from rich.console import Console
from rich.table import Table

from negprobe.base.files import write_csv
from negprobe.statements.grammar import CONTROLS, NEGATIONS, UNMARKED, Clause, conclusion
from negprobe.statements.lexicon import held_out_combinations, training_combinations


def main(
    pairs: Annotated[list[int], typer.Option(help="How many pairs; more than once for several studies.")],
    model: Annotated[str, typer.Option(help="'tiny-negation', a model folder, or a hub name.")] = "tiny-negation",
    patch_pairs: Annotated[int, typer.Option(min=1, help="Pairs that are patched, and searched for a circuit.")] = 40,
) -> None:
    """Print the table."""
    table = Table(title=f"negprobe study of {model}, {patch_pairs} pairs patched")
    for column in ("pairs", "peak memory (MB)", "seconds", "pairs / s", "shards (MB)"):
        table.add_column(column, justify="right")
    for n_pairs in pairs:
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder) / "study"
            write_csv(pd.DataFrame(islice(written_pairs(), n_pairs)), Path(folder) / "pairs.csv")
            numbers = ["--patch-pairs", str(patch_pairs), "--circuit-pairs", str(patch_pairs)]
            command = ["study", model, "--pairs", f"{folder}/pairs.csv", *numbers, "--out", str(out)]
            start = time.perf_counter()
            process = subprocess.Popen([sys.executable, "-m", "negprobe", *command], stdout=subprocess.DEVNULL)
            _, status, used = os.wait4(process.pid, 0)
            seconds = time.perf_counter() - start
            if status:
                raise typer.Exit(1)
            kept = sum(path.stat().st_size for path in out.glob("shards/*/*"))
        # Linux counts it in KiB, macOS in bytes.
        peak = used.ru_maxrss * (1 if sys.platform == "darwin" else 1024)
        row = (f"{n_pairs:,}", f"{peak / 1e6:,.0f}", f"{seconds:.0f}", f"{n_pairs / seconds:.1f}", f"{kept / 1e6:.1f}")
        table.add_row(*row)
    Console(width=100).print(table)


def written_pairs() -> Iterator[dict[str, str]]:
    """Pairs as rows of a file, no two the same."""
    combinations = [*held_out_combinations(), *training_combinations()]
    cues = cycle(NEGATIONS)
    for asked, beside in product(combinations, combinations):
        if asked.noun == beside.noun:
            continue
        clause, other = (Clause(each.noun, each.scale, each.scale.states[0]) for each in (asked, beside))
        cue = next(cues)
        sides = {"original": UNMARKED, "counterfactual": NEGATIONS, "control": CONTROLS}
        texts = {side: conclusion(other, clause.stating(phrases[cue]), asked=1) for side, phrases in sides.items()}
        yield texts | {"target": asked.scale.states[0], "foil": asked.scale.states[1], "cue": cue}


if __name__ == "__main__":
    typer.run(main)
