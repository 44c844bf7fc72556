"""Sweep any site of a model over pairs of statements, and write what every patch does as NetCDF and parquet.

    python scripts/patch_negation.py tiny-negation --site z --by head,role --direction denoising --out results/z
    python scripts/patch_negation.py MODEL --pairs neg136 --site attn_scores --by head --how knock_out --keys cue

For each site and direction OUT gets `SITE-BY-HOW-DIRECTION.nc`, the objective of every patched run, to be opened with
xarray, as soon as its sweep is done, and in the end `averages.parquet`, the effect over all pairs with its bootstrap
interval as a tidy table. By default residual stream, attention, MLP and heads are swapped, both ways.
"""

from pathlib import Path
from typing import Annotated

import pandas as pd
import typer

from negprobe.base.files import whole_file
from negprobe.models import HookedEncoder
from negprobe.patching import (
    DIRECTIONS,
    OBJECTIVES,
    SITES,
    answerable,
    averages,
    objective_named,
    patch_sweep,
    save_results,
)
from negprobe.patching.sites import site_for
from negprobe.patching.sweep import checked_sweep
from negprobe.statements import from_control, load_pairs
from negprobe.study.run import prepared
from negprobe.terminal import PlainConsole, clear_errors, printed_warnings, progress_on


def main(
    model: Annotated[str, typer.Argument(help="'tiny-negation', a model folder, or a hub name.")] = "tiny-negation",
    pairs: Annotated[
        list[str] | None,
        typer.Option(help="'builtin', a file of pairs, or a public data set; more than once for all."),
    ] = None,
    site: Annotated[
        list[str] | None,
        typer.Option(help=f"One of {', '.join(SITES)}; more than once for several."),
    ] = None,
    by: Annotated[
        str | None,
        typer.Option(help="'role', 'position', 'head', 'head,role' or 'head,position'; by default what the site has."),
    ] = None,
    direction: Annotated[list[str] | None, typer.Option(help="'noising' or 'denoising'; by default both.")] = None,
    how: Annotated[str, typer.Option(help="'swap', 'zero', 'mean', 'resample' or 'knock_out'.")] = "swap",
    keys: Annotated[str | None, typer.Option(help="Of an attention map, only the edges to keys of this role.")] = None,
    renormalize: Annotated[bool, typer.Option(help="Scale the rows of a patched pattern to sum 1 again.")] = False,
    objective: Annotated[
        str | None, typer.Option(help=f"One of {', '.join(OBJECTIVES)}, or 'cosine:SENTENCE'; by default the head's.")
    ] = None,
    control: Annotated[
        bool, typer.Option(help="Swap between counterfactual and length-matched control where a pair has one.")
    ] = False,
    out: Annotated[Path, typer.Option(help="The folder to write to.")] = Path("negprobe-patching"),
    limit: Annotated[int | None, typer.Option(min=1, help="Use only the first pairs of each.")] = None,
    device: Annotated[str | None, typer.Option(help="Where to run; by default a GPU if there is one.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of resampling and of the bootstrap.")] = 0,
) -> None:
    """Patch and write."""
    console = PlainConsole()
    with clear_errors(), printed_warnings():
        out.mkdir(parents=True, exist_ok=True)
        # All of it before the model is loaded and the first sweep is done.
        sweeps = []
        for name in site or ["resid_pre", "attn_out", "mlp_out", "z"]:
            parts = tuple((by or ("head,role" if site_for(name).has_heads else "role")).split(","))
            for way in direction or DIRECTIONS:
                checked_sweep(name, parts, how, keys, renormalize, way)
                sweeps.append((name, parts, way))
        encoder = HookedEncoder.from_pretrained(model, device=device)
        patched_objective = objective_named(encoder, objective)
        loaded = [load_pairs(name) for name in pairs or ["builtin"]]
        for reason in (reason for part in loaded for reason in part.dropped):
            console.print(f"left out {reason}")
        asked = answerable(encoder, [pair for part in loaded for pair in part.pairs[:limit]])
        for index, reason in asked.unanswerable.items():
            console.print(f"left out pair {index}: {reason}")
        chosen = list(asked.pairs.values())
        if control:
            chosen = []
            for index, pair in asked.pairs.items():
                member, problem = prepared(encoder, pair)
                if problem:
                    console.print(f"left out the control of pair {index}: {problem}")
                chosen.append(from_control(member.pair))
        tables = []
        with progress_on(console) as report:
            for name, parts, way in sweeps:
                step = f"{name} by {' and '.join(parts)}, {how}, {way}"
                report(step, 0, len(chosen))
                results = patch_sweep(
                    encoder,
                    chosen,
                    name,
                    by=parts,  # type: ignore[arg-type]
                    direction=way,  # type: ignore[arg-type]
                    how=how,  # type: ignore[arg-type]
                    keys=keys,
                    renormalize=renormalize,
                    objective=patched_objective,
                    seed=seed,
                    progress=lambda done, step=step: report(step, done, len(chosen)),  # type: ignore[misc]
                )
                # The pairs' own numbers, as in what was left out.
                results = results.assign_coords(pair=list(asked.pairs))
                save_results(results, out / f"{name}-{'-'.join(parts)}-{how}-{way}.nc")
                tables.append(averages(results, seed=seed).assign(site=name, how=how, direction=way))
        with whole_file(out / "averages.parquet") as part:
            pd.concat(tables).to_parquet(part, index=False)
        console.print(f"Wrote {len(tables)} sweeps over {len(chosen)} pairs to {out}.", soft_wrap=True)


if __name__ == "__main__":
    typer.run(main)
