"""How the statements of a study's pairs are aligned, as a table."""

from collections.abc import Sequence

import pandas as pd

from negprobe.statements import PreparedPair
from negprobe.statements.alignment import LINK_KINDS


def alignment_table(pairs: Sequence[PreparedPair]) -> pd.DataFrame:
    """The alignment of each pair's original with its counterfactual, on the tokens that metrics compare.

    Returns:
        One row per pair: the number of aligned tokens of each kind (`aligned_same`, `aligned_case`,
        `aligned_inflected`, `aligned_replaced`; see `statements.alignment.LinkKind`), and `affected_aligned`, whether
        the affected word has an aligned token (None for a pair without an affected word).
    """
    rows = [
        {f"aligned_{kind}": pair.alignments[0].kinds.count(kind) for kind in LINK_KINDS}
        | {"affected_aligned": pair.affected_is_aligned}
        for pair in pairs
    ]
    return pd.DataFrame(rows).astype({"affected_aligned": "boolean"})
