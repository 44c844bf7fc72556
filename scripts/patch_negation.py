"""A cluster job that patches many pairs with the Python API: as `negprobe patch --pairs PAIRS`.

    python scripts/patch_negation.py MODEL PAIRS OUT

Each sweep is saved as NetCDF as soon as it is done, so a job that is stopped keeps the finished ones.
"""

import sys
from pathlib import Path

import pandas as pd

from negprobe import HookedEncoder, load_pairs
from negprobe.patching import patchable_pairs, planned_sweeps, run_sweeps, save_results, sweep_averages


def main(model_name: str, pairs: str, out: Path) -> None:
    """Swap heads by role and residual streams by role, and save the effects with their bootstrap intervals."""
    sweeps = planned_sweeps(["z", "resid_pre"], directions=["denoising"])
    model = HookedEncoder.from_pretrained(model_name)
    ready = patchable_pairs(model, load_pairs(pairs).pairs)
    print(*ready.left_out, sep="\n")
    out.mkdir(parents=True, exist_ok=True)
    averages = []
    for sweep, results in run_sweeps(model, ready.swaps, sweeps):
        save_results(results, out / f"{sweep.name}.nc")
        averages.append(sweep_averages(sweep, results))
        print(f"{sweep.name} is done.", flush=True)
    pd.concat(averages).to_parquet(out / "averages.parquet", index=False)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]))
