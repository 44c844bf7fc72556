"""Time of `negprobe study` by phase, for one or several checkouts of negprobe on the same machine.

Every round runs the command from each checkout; the order is reversed after each round. The time of a phase is measured
between lines of the command's progress output, and a phase is named by the first word of its lines: measuring heads and
contributions, reading the answers, patching, knocking out the cue, testing, searching the circuit, writing the report.
"starting" is the time before the first line (imports, loading the model and the pairs), "ending" the time after the
last one. Seconds are medians over the rounds; the ratio is last checkout / first checkout. Do not run anything else on
the machine.

Example:
    python benchmarks/study.py --checkout ../before --checkout . -- MODEL --pairs FILE --limit 80
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path

from rich.console import Console
from rich.table import Table

_COMMAND = "from negprobe.cli import app; app()"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--checkout", type=Path, action="append", help="checkout of negprobe; repeat the option to compare several"
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("study", nargs="*", help="arguments of negprobe study, after --")
    arguments = parser.parse_args()
    checkouts = arguments.checkout or [Path()]
    rounds: dict[Path, list[dict[str, float]]] = defaultdict(list)
    for number in range(arguments.rounds):
        for checkout in checkouts[:: -1 if number % 2 else 1]:
            rounds[checkout].append(phases(checkout.resolve(), arguments.study))
    table = Table(title=" ".join(["negprobe study", *arguments.study]) + f", {arguments.rounds} rounds")
    table.add_column("phase")
    for checkout in checkouts:
        table.add_column(f"{checkout} (s)", justify="right")
    if len(checkouts) > 1:
        table.add_column("ratio", justify="right")
    for phase in rounds[checkouts[-1]][0]:
        medians = [statistics.median(one.get(phase, 0.0) for one in rounds[checkout]) for checkout in checkouts]
        ratio = [f"{medians[-1] / medians[0]:.2f}" if medians[0] else ""] if len(checkouts) > 1 else []
        table.add_row(phase, *(f"{seconds:.1f}" for seconds in medians), *ratio)
    Console(width=120).print(table)


def phases(checkout: Path, study: list[str]) -> dict[str, float]:
    """The seconds of each phase of one study, and of the whole study ("all")."""
    found: dict[str, float] = defaultdict(float)
    environment = os.environ | {"PYTHONPATH": str(checkout), "PYTHONUNBUFFERED": "1"}
    with tempfile.TemporaryDirectory() as out:
        command = [sys.executable, "-c", _COMMAND, "study", *study, "--out", out]
        start = last = time.perf_counter()
        with subprocess.Popen(
            command, cwd=checkout, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        ) as process:
            assert process.stdout is not None
            ended = False
            for line in process.stdout:
                # The progress ends with the first line that begins with a bullet; findings and the path follow.
                ended = ended or line.startswith("•")
                if not ended:
                    now = time.perf_counter()
                    found[line.split()[0] if found else "starting"] += now - last
                    last = now
        if process.returncode:
            raise SystemExit(f"The study from {checkout} failed; run the same command there to see the error.")
        end = time.perf_counter()
    return dict(found) | {"ending": end - last, "all": end - start}


if __name__ == "__main__":
    main()
