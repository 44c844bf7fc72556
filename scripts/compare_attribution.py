"""How well attribution patching tells what exact patching finds, and where it does not.

    python scripts/compare_attribution.py tiny-negation --pairs builtin --limit 40 --site z --site resid_pre

For each site and direction: the rank correlation over all cells between the exact mean effects and those estimated
from one gradient (attribution patching) and from several (integrated gradients), the seconds each took, and the cells
that are estimated worst.
"""

import time
from pathlib import Path
from typing import Annotated

import pandas as pd
import typer
from rich.table import Table

from negprobe.base.files import write_csv
from negprobe.models import HookedEncoder
from negprobe.patching import DIRECTIONS, agreement, answerable, attribute, patch_sweep
from negprobe.patching.sites import site_for
from negprobe.statements import from_control, load_pairs
from negprobe.study.run import prepared
from negprobe.terminal import PlainConsole, clear_errors, printed_warnings

STEPS = 8


def main(
    model: Annotated[str, typer.Argument(help="'tiny-negation', a model folder, or a hub name.")] = "tiny-negation",
    pairs: Annotated[str, typer.Option(help="'builtin', a file of pairs, or a public data set.")] = "builtin",
    site: Annotated[list[str] | None, typer.Option(help="Sites to compare; more than once for several.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="Use only the first pairs.")] = 40,
    steps: Annotated[int, typer.Option(min=1, help="Of the integrated gradients.")] = STEPS,
    out: Annotated[Path | None, typer.Option(help="A .csv file to write the worst disagreements to.")] = None,
) -> None:
    """Compare and print."""
    console = PlainConsole(width=120)
    with clear_errors(), printed_warnings():
        # Before the model is loaded and minutes are spent.
        sites = [site_for(name) for name in site or ["resid_pre", "attn_out", "mlp_out", "z"]]
        if out is not None:
            out.parent.mkdir(parents=True, exist_ok=True)
        encoder = HookedEncoder.from_pretrained(model)
        asked = answerable(encoder, load_pairs(pairs).pairs[:limit])
        chosen = []
        for index, pair in asked.pairs.items():
            member, problem = prepared(encoder, pair)
            if problem:
                console.print(f"left out the control of pair {index}: {problem}")
            chosen.append(from_control(member.pair))
        table = Table(title=f"{encoder.cfg.model_name}: attribution beside exact patching, {len(chosen)} pairs")
        for column in ("site", "direction", "cells", "method", "Spearman", "Pearson", "exact (s)", "estimate (s)"):
            table.add_column(column, justify="right")
        worst = []
        for where in sites:
            name = where.name
            by = ("head", "role") if where.has_heads else ("role",)
            for direction in DIRECTIONS:
                start = time.perf_counter()
                exact = patch_sweep(encoder, chosen, name, by=by, direction=direction)
                exact_seconds = time.perf_counter() - start
                for method, n in (("gradient", None), (f"integrated, {steps}", steps)):
                    start = time.perf_counter()
                    estimate = attribute(encoder, chosen, sites=[name], by=by, direction=direction, steps=n)[name]
                    seconds = time.perf_counter() - start
                    found = agreement(exact, estimate)
                    worst.append(found.worst.assign(site=name, direction=direction, method=method))
                    cells = int(exact["patched"].notnull().any("pair").sum())
                    table.add_row(
                        *(name, direction, str(cells), method, f"{found.spearman:.3f}", f"{found.pearson:.3f}"),
                        *(f"{exact_seconds:.1f}", f"{seconds:.1f}"),
                    )
        console.print(table)
        disagreements = pd.concat(worst, ignore_index=True)
        largest = disagreements.sort_values("difference", key=abs, ascending=False).head(10).convert_dtypes()
        console.print("The worst disagreements of all:\n", largest.round(3).to_string(index=False))
        if out is not None:
            write_csv(disagreements, out)


if __name__ == "__main__":
    typer.run(main)
