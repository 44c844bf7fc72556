"""Compare original and counterfactual of a file of pairs, head by head, and write the metrics as parquet.

    python scripts/compare_pairs.py tiny-negation --pairs pairs.csv --out results/metrics

OUT gets `metrics.parquet`, a row per pair, layer and head, against the counterfactual and against the length-matched
control of the pairs that have one; `metrics_by_role.parquet`; and `distances.parquet`, how far the heads look in the
originals.
"""

from pathlib import Path
from typing import Annotated

import typer

from negprobe.attention import AttentionProbe
from negprobe.base.files import whole_file
from negprobe.models import HookedEncoder
from negprobe.statements import load_pairs
from negprobe.study.tables import metrics_tables
from negprobe.terminal import PlainConsole, clear_errors, printed_warnings


def main(
    model: Annotated[str, typer.Argument(help="'tiny-negation', a model folder, or a hub name.")] = "tiny-negation",
    pairs: Annotated[str, typer.Option(help="'builtin', or a CSV, TSV or JSONL file.")] = "builtin",
    out: Annotated[Path, typer.Option(help="The folder to write to.")] = Path("negprobe-metrics"),
    limit: Annotated[int | None, typer.Option(min=1, help="Use only the first pairs.")] = None,
) -> None:
    """Compare and write."""
    console = PlainConsole()
    with clear_errors(), printed_warnings():
        out.mkdir(parents=True, exist_ok=True)
        probe = AttentionProbe(HookedEncoder.from_pretrained(model))
        loaded = load_pairs(pairs)
        for reason in loaded.dropped:
            console.print(f"left out {reason}")
        chosen = loaded.pairs[:limit]
        for name, table in metrics_tables(probe.metrics(chosen)).items():
            with whole_file(out / f"{name}.parquet") as part:
                table.to_parquet(part, index=False)
        console.print(f"Wrote the metrics of {len(chosen)} pairs to {out}.")


if __name__ == "__main__":
    typer.run(main)
