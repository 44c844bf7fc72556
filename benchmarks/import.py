"""Seconds that `import negprobe` takes beside `import transformer_lens`, and that `negprobe --help` takes to answer.

    python benchmarks/import.py

`import negprobe` opens no room; what is imported from it does, so all of its names are timed as well. Each is the
median of processes run in turn.
"""

import subprocess
import sys
import time
from statistics import median
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

COMMANDS = {
    "import transformer_lens": ["-c", "import transformer_lens"],
    "import negprobe": ["-c", "import negprobe"],
    "from negprobe import *": ["-c", "from negprobe import *"],
    "negprobe --help": ["-m", "negprobe", "--help"],
}


def main(rounds: Annotated[int, typer.Option(min=1, help="Processes of each.")] = 5) -> None:
    """Print the table."""
    seconds: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for _ in range(rounds + 1):
        for name, arguments in COMMANDS.items():
            start = time.perf_counter()
            subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)
            seconds[name].append(time.perf_counter() - start)
    # The first round reads the files from the disk.
    medians = {name: median(taken[1:]) for name, taken in seconds.items()}
    table = Table(title=f"median of {rounds} processes")
    for column in ("", "seconds", "beside transformer_lens"):
        table.add_column(column, justify="right" if column else "left")
    for name, taken in medians.items():
        table.add_row(name, f"{taken:.2f}", f"{taken / medians['import transformer_lens']:.2f}")
    Console(width=100).print(table)


if __name__ == "__main__":
    typer.run(main)
