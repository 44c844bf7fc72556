"""Peak memory of `negprobe study` for growing numbers of pairs: each study runs in its own process.

Each pair combines two clauses of the built-in grammar ("The bath is hot and the door is open."), with all nouns and
states of the lexicon. The numbers of pairs used for patching and for the circuit search are constant.

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
    pairs: Annotated[list[int], typer.Option(help="Number of pairs; repeat the option to run several studies.")],
    model: Annotated[str, typer.Option(help="'tiny-negation', a model folder, or a hub name.")] = "tiny-negation",
    patch_pairs: Annotated[
        int, typer.Option(min=1, help="Number of pairs for patching and for the circuit search.")
    ] = 40,
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
        # ru_maxrss is in KiB on Linux and in bytes on macOS.
        peak = used.ru_maxrss * (1 if sys.platform == "darwin" else 1024)
        row = (f"{n_pairs:,}", f"{peak / 1e6:,.0f}", f"{seconds:.0f}", f"{n_pairs / seconds:.1f}", f"{kept / 1e6:.1f}")
        table.add_row(*row)
    Console(width=100).print(table)


def written_pairs() -> Iterator[dict[str, str]]:
    """Distinct pairs, as rows of a file."""
    combinations = [*held_out_combinations(), *training_combinations()]
    cues = cycle(NEGATIONS)
    for queried, added in product(combinations, combinations):
        if queried.noun == added.noun:
            continue
        clause, other = (Clause(each.noun, each.scale, each.scale.states[0]) for each in (queried, added))
        cue = next(cues)
        sides = {"original": UNMARKED, "counterfactual": NEGATIONS, "control": CONTROLS}
        texts = {side: conclusion(other, clause.stating(phrases[cue]), about=1) for side, phrases in sides.items()}
        yield texts | {"target": queried.scale.states[0], "foil": queried.scale.states[1], "cue": cue}


if __name__ == "__main__":
    typer.run(main)
