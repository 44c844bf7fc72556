"""A cluster job that compares estimates from gradients with exact patching: as `negprobe patch --attribution`.

    python scripts/compare_attribution.py MODEL PAIRS OUT

It prints the correlation over all cells between the exact mean effects and those of attribution patching (one gradient)
and of integrated gradients, and saves the cells with the largest differences.
"""

import sys
from pathlib import Path

from negprobe import HookedEncoder, load_pairs
from negprobe.base.files import write_csv
from negprobe.patching import estimate_agreement, patchable_pairs, planned_sweeps, run_sweeps


def main(model_name: str, pairs: str, out: Path) -> None:
    """Compare the estimates for the heads by role, in both directions."""
    model = HookedEncoder.from_pretrained(model_name)
    ready = patchable_pairs(model, load_pairs(pairs).pairs)
    print(*ready.left_out, sep="\n")
    out.mkdir(parents=True, exist_ok=True)
    for sweep, exact in run_sweeps(model, ready.swaps, planned_sweeps(["z"])):
        agreement, worst = estimate_agreement(model, ready.swaps, sweep, exact, steps=[None, 8])
        print(agreement.to_string(index=False), flush=True)
        write_csv(worst, out / f"{sweep.name}.csv")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]))
