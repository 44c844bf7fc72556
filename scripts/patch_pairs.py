"""Patch every site of a model over a file of pairs, and write the normalised effects as NetCDF and parquet.

    python scripts/patch_pairs.py tiny-negation --pairs pairs.csv --out results/patching

For each of resid_pre, attn_out, mlp_out and z (by role) and z (by head), in both directions, OUT gets
`SITE-BY-DIRECTION.nc` with the objective of every patched run, to be opened with xarray, and `effects.parquet` with the
effect over all pairs as a tidy table. Activations are swapped between original and counterfactual at aligned tokens.
"""

from pathlib import Path
from typing import Annotated

import pandas as pd
import typer
from rich.console import Console
from rich.progress import Progress

from negprobe.errors import NegprobeError
from negprobe.models import HookedEncoder
from negprobe.patching import DIRECTIONS, SITES, By, answerable, mean_effect, patch_sweep
from negprobe.statements import load_pairs


def main(
    model: Annotated[str, typer.Argument(help="'tiny-negation', a model folder, or a hub name.")] = "tiny-negation",
    pairs: Annotated[str, typer.Option(help="'builtin', or a CSV, TSV or JSONL file.")] = "builtin",
    out: Annotated[Path, typer.Option(help="The folder to write to.")] = Path("negprobe-patching"),
    limit: Annotated[int | None, typer.Option(min=1, help="Use only the first pairs.")] = None,
) -> None:
    """Patch and write."""
    console = Console()
    try:
        encoder = HookedEncoder.from_pretrained(model)
        loaded = load_pairs(pairs)
        for reason in loaded.dropped:
            console.print(f"left out {reason}", highlight=False, markup=False)
        asked = answerable(encoder, loaded.pairs[:limit])
        for index, reason in asked.unanswerable.items():
            console.print(f"left out pair {index}: {reason}", highlight=False, markup=False)
        out.mkdir(parents=True, exist_ok=True)
        tables = []
        sweeps: list[tuple[str, By]] = [*((site, "role") for site in SITES), ("z", "head")]
        with Progress(console=console) as bars:
            for site, by in sweeps:
                for direction in DIRECTIONS:
                    task = bars.add_task(f"{site} by {by}, {direction}", total=len(asked.pairs))
                    results = patch_sweep(
                        encoder,
                        list(asked.pairs.values()),
                        site,
                        by=by,
                        direction=direction,
                        progress=lambda done, task=task: bars.update(task, completed=done),
                    )
                    results = results.assign_coords(pair=list(asked.pairs))
                    results.to_netcdf(out / f"{site}-{by}-{direction}.nc", engine="scipy")
                    table = mean_effect(results).to_dataframe("effect").reset_index().rename(columns={by: "part"})
                    tables.append(table.assign(site=site, by=by, direction=direction, part=table["part"].astype(str)))
        pd.concat(tables).to_parquet(out / "effects.parquet", index=False)
        console.print(f"Wrote {len(sweeps) * len(DIRECTIONS)} sweeps over {len(asked.pairs)} pairs to {out}.")
    except (NegprobeError, OSError) as error:
        raise SystemExit(f"Error: {error}") from error


if __name__ == "__main__":
    typer.run(main)
