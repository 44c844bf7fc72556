"""Agreement of estimated effects with exact ones, and the largest differences."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
import xarray as xr
from scipy.stats import pearsonr, spearmanr

from negprobe.base.arguments import checked
from negprobe.base.errors import PatchingError
from negprobe.patching.effects import mean_effect


@dataclass(frozen=True)
class Agreement:
    """The agreement of estimated mean effects with exact ones, over the cells that both have.

    Attributes:
        spearman: Rank correlation, -1 to 1; NaN for fewer than two cells, or if all effects are equal.
        pearson: Linear correlation, -1 to 1; NaN in the same cases.
        n_cells: The number of compared cells.
        worst: The cells with the largest absolute difference, largest first: `layer` and the sweep's parts (or `sender`
            and `receiver`), `exact`, `estimated` and `difference` (estimated minus exact).
    """

    spearman: float
    pearson: float
    n_cells: int
    worst: pd.DataFrame


@checked
def agreement(exact: xr.Dataset, estimated: xr.Dataset, n_worst: int = 10) -> Agreement:
    """The agreement of estimated with exact effects of the same patches, by their `mean_effect` over the pairs.

    Args:
        exact: The result of an exact sweep, or of exact path patching.
        estimated: The result of `attribute` for the same site, or of `attribute_edges` for the same senders and
            receivers.
        n_worst: The number of cells to list in `worst`.

    Raises:
        PatchingError: if the results differ in pairs, cells, site, direction, objective or model.
    """
    for name in ("site", "direction", "how", "key_role", "renormalize", "mlps", "objective", "model"):
        ours, theirs = exact.attrs.get(name), estimated.attrs.get(name)
        if ours != theirs:
            raise PatchingError(
                f"{name} is {ours!r} in the exact results but {theirs!r} in the estimates; compare results of the same "
                f"{name}."
            )
    try:
        exact, estimated = xr.align(exact, estimated, join="exact")
    except ValueError as error:
        raise PatchingError(f"Exact and estimated results have different pairs or parts: {error}") from error
    if exact["patched"].dims != estimated["patched"].dims:
        ours, theirs = exact["patched"].dims, estimated["patched"].dims
        raise PatchingError(
            f"The exact results have the axes {ours}, the estimates {theirs}; compare results with the same axes."
        )
    for name in ("base", "source"):
        # Unpatched runs differ by rounding if their batches differ.
        if not np.allclose(exact[name], estimated[name], rtol=1e-3, atol=1e-3):
            raise PatchingError(
                f"The {name} runs of the exact and the estimated results differ; compare results for the same pairs."
            )
    by_cell = mean_effect(exact).rename("exact"), mean_effect(estimated).rename("estimated")
    dims = [str(dim) for dim in by_cell[0].dims]
    table = xr.merge([cell.reset_coords(drop=True) for cell in by_cell], compat="override").to_dataframe().dropna()
    table = table.reset_index()[[*dims, "exact", "estimated"]]
    table = table.assign(difference=table["estimated"] - table["exact"])
    order = table["difference"].abs().sort_values(ascending=False, kind="stable").index[:n_worst]
    spearman = pearson = np.nan
    if len(table) > 1 and table["exact"].nunique() > 1 and table["estimated"].nunique() > 1:
        spearman = float(spearmanr(table["exact"], table["estimated"]).statistic)
        pearson = float(pearsonr(table["exact"], table["estimated"]).statistic)
    return Agreement(spearman, pearson, len(table), table.loc[order].reset_index(drop=True))
