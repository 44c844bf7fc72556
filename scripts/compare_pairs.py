"""A cluster job that measures the attention of every head on many pairs with the Python API.

    python scripts/compare_pairs.py MODEL PAIRS OUT

`negprobe study --patch-pairs 0 --contribution-pairs 0` writes the same tables with tests and a report.
"""

import sys
from pathlib import Path

from negprobe import AttentionProbe, HookedEncoder, load_pairs
from negprobe.study.tables import metrics_tables


def main(model_name: str, pairs: str, out: Path) -> None:
    """Write `metrics`, `metrics_by_role` and `distances` as parquet, a row per pair, layer and head."""
    probe = AttentionProbe(HookedEncoder.from_pretrained(model_name))
    loaded = load_pairs(pairs)
    print(*loaded.dropped, sep="\n")
    out.mkdir(parents=True, exist_ok=True)
    for name, table in metrics_tables(probe.metrics(loaded.pairs)).items():
        table.to_parquet(out / f"{name}.parquet", index=False)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]))
