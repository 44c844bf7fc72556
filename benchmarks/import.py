"""Seconds that `import negprobe` and `negprobe --help` take, compared with `import transformer_lens`.

    python benchmarks/import.py

`import negprobe` loads none of its subpackages until a name is used, so importing all names is timed as well. Each time
is the median over new processes, which alternate.
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


def main(rounds: Annotated[int, typer.Option(min=1, help="Number of processes per command.")] = 5) -> None:
    """Print the table."""
    seconds: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for _ in range(rounds + 1):
        for name, arguments in COMMANDS.items():
            start = time.perf_counter()
            subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)
            seconds[name].append(time.perf_counter() - start)
    # The first round is discarded, because it reads the files from disk.
    medians = {name: median(taken[1:]) for name, taken in seconds.items()}
    table = Table(title=f"median of {rounds} processes")
    for column in ("", "seconds", "relative to transformer_lens"):
        table.add_column(column, justify="right" if column else "left")
    for name, taken in medians.items():
        table.add_row(name, f"{taken:.2f}", f"{taken / medians['import transformer_lens']:.2f}")
    Console(width=100).print(table)


if __name__ == "__main__":
    typer.run(main)
