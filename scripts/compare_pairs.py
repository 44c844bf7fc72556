"""Compare original and counterfactual of a file of pairs, head by head, and write the metrics as parquet.

    python scripts/compare_pairs.py tiny-negation --pairs pairs.csv --out results/metrics

OUT gets `metrics.parquet`, a row per pair, layer and head, and `control_metrics.parquet`, the same against the
length-matched controls of the pairs that have one.
"""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from negprobe.attention import AttentionProbe
from negprobe.errors import NegprobeError
from negprobe.models import HookedEncoder
from negprobe.statements import LoadedPairs, builtin_pairs, complete, load_pairs


def main(
    model: Annotated[str, typer.Argument(help="'tiny-negation', a model folder, or a hub name.")] = "tiny-negation",
    pairs: Annotated[str, typer.Option(help="'builtin', or a CSV, TSV or JSONL file.")] = "builtin",
    out: Annotated[Path, typer.Option(help="The folder to write to.")] = Path("negprobe-metrics"),
    limit: Annotated[int | None, typer.Option(min=1, help="Use only the first pairs.")] = None,
) -> None:
    """Compare and write."""
    console = Console()
    try:
        out.mkdir(parents=True, exist_ok=True)
        encoder = HookedEncoder.from_pretrained(model)
        probe = AttentionProbe(encoder)
        loaded = LoadedPairs(tuple(builtin_pairs())) if pairs == "builtin" else load_pairs(pairs)
        for reason in loaded.dropped:
            console.print(f"left out {reason}", highlight=False, markup=False)
        chosen = [complete(pair, encoder.tokenizer) for pair in loaded.pairs[:limit]]
        probe.metrics(chosen).to_parquet(out / "metrics.parquet", index=False)
        probe.control_metrics(chosen).to_parquet(out / "control_metrics.parquet", index=False)
        console.print(f"Wrote the metrics of {len(chosen)} pairs to {out}.", highlight=False, markup=False)
    except (NegprobeError, OSError) as error:
        raise SystemExit(f"Error: {error}") from error


if __name__ == "__main__":
    typer.run(main)
