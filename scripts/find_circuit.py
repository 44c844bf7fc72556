"""A cluster job that searches the circuit of a negation with the Python API: as `negprobe find-circuit`.

    python scripts/find_circuit.py MODEL PAIRS OUT

A copy of this file is the place for what the command has no option for: an objective of your own, other pairs.
"""

import sys
from pathlib import Path

from negprobe import HookedEncoder, load_pairs
from negprobe.patching import find_circuit, patchable_pairs


def main(model_name: str, pairs: str, out: Path) -> None:
    """Search the circuit on half of the pairs, test it on the others, and save it for `Circuit.load`."""
    model = HookedEncoder.from_pretrained(model_name)
    ready = patchable_pairs(model, load_pairs(pairs).pairs)
    print(*ready.left_out, sep="\n")
    circuit = find_circuit(
        model,
        list(ready.swaps.values()),
        direction="denoising",
        ablation="mean",
        progress=lambda step, done, total: print(f"{step}: {done} of {total}", flush=True),
    )
    out.mkdir(parents=True, exist_ok=True)
    circuit.save(out / "circuit.json")
    circuit.draw().savefig(out / "circuit.png")
    print(circuit)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]))
