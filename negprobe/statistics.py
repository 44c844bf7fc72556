"""Statistics over pairs: the pair is the unit, and the length-matched control is what negation is held against."""

import numpy as np
import pandas as pd
from scipy import stats


def negation_effect(metrics: pd.DataFrame, metric: str, seed: int = 0) -> pd.DataFrame:
    """How much more a head changes for the negation than for a neutral word of the same length.

    Per pair, layer and head the effect is the metric of original against counterfactual minus that of original against
    control; reported are its mean over pairs and the percentile bootstrap interval.

    Both comparisons are to be taken on the same tokens, as `AttentionProbe.control_metrics` does.

    Args:
        metrics: Columns `pair`, `compared` ("counterfactual" or "control"), `layer`, `head` and the metric.
        metric: The metric's column.
        seed: Seed of the bootstrap.

    Returns:
        One row per layer and head: `counterfactual` and `control` (the means), `effect`, `low`, `high` (95 % interval)
        and `n`, the pairs that have both. `low` and `high` are NaN with fewer than two pairs.
    """
    wide = metrics.pivot_table(index=["layer", "head", "pair"], columns="compared", values=metric)
    wide = wide.reindex(columns=["counterfactual", "control"]).dropna().reset_index()
    rows = []
    for (layer, head), group in wide.groupby(["layer", "head"]):
        difference = (group["counterfactual"] - group["control"]).to_numpy()
        low, high = _interval(difference, seed)
        rows.append(
            {
                "layer": layer,
                "head": head,
                "counterfactual": group["counterfactual"].mean(),
                "control": group["control"].mean(),
                "effect": difference.mean(),
                "low": low,
                "high": high,
                "n": len(group),
            }
        )
    columns = ["layer", "head", "counterfactual", "control", "effect", "low", "high", "n"]
    return pd.DataFrame(rows, columns=columns)


def _interval(values: np.ndarray, seed: int) -> tuple[float, float]:
    """95 % percentile bootstrap interval of the mean."""
    if len(values) < 2:
        return float("nan"), float("nan")
    result = stats.bootstrap(
        (values,), np.mean, n_resamples=2000, method="percentile", rng=np.random.default_rng(seed), batch=200
    )
    return float(result.confidence_interval.low), float(result.confidence_interval.high)
