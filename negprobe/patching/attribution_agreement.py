"""How well estimated effects agree with exact ones, and where they do not."""

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
    """How estimated mean effects compare with exact ones, over the cells that both have.

    Attributes:
        spearman: Rank correlation, -1 to 1; NaN for fewer than two cells or equal effects in all of them.
        pearson: Linear correlation, likewise.
        n_cells: How many cells were compared.
        worst: The cells that differ most, first the worst: `layer` and the sweep's parts (or `sender` and `receiver`),
            `exact`, `estimated` and `difference`, estimated minus exact.
    """

    spearman: float
    pearson: float
    n_cells: int
    worst: pd.DataFrame


@checked
def agreement(exact: xr.Dataset, estimated: xr.Dataset, n_worst: int = 10) -> Agreement:
    """Compare estimated with exact effects of the same patches, by their `mean_effect` over the pairs.

    Args:
        exact: The results of an exact sweep, or of exact paths.
        estimated: Those of `attribute` for the same site, or of `attribute_edges` for the same senders and receivers.
        n_worst: How many of the largest disagreements to list.

    Raises:
        PatchingError: for results of other pairs, cells, sites, directions, objectives or models.
    """
    for name in ("site", "direction", "how", "key_role", "renormalize", "mlps", "objective", "model"):
        ours, theirs = exact.attrs.get(name), estimated.attrs.get(name)
        if ours != theirs:
            raise PatchingError(f"The {name} of the exact results is {ours!r}, that of the estimates {theirs!r}.")
    try:
        exact, estimated = xr.align(exact, estimated, join="exact")
    except ValueError as error:
        raise PatchingError(f"Exact and estimated results are not of the same pairs and parts: {error}") from error
    if exact["patched"].dims != estimated["patched"].dims:
        ours, theirs = exact["patched"].dims, estimated["patched"].dims
        raise PatchingError(f"Exact results go by {ours}, estimates by {theirs}; compare like with like.")
    for name in ("base", "source"):
        # Unpatched runs differ by rounding with what else is in their batch.
        if not np.allclose(exact[name], estimated[name], rtol=1e-3, atol=1e-3):
            raise PatchingError(f"Exact and estimated results are not of the same pairs: their {name} runs differ.")
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
