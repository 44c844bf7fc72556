"""Run a study as a cluster job: one model, one file of pairs, one folder.

The same as `negprobe study`, for job scripts that run a Python file:

    python scripts/study.py google-bert/bert-base-uncased --pairs pairs.csv --out results/bert-base
"""

import typer

from negprobe.cli import study

if __name__ == "__main__":
    typer.run(study)
