"""The effect of negation is the paired difference to the control, with scipy's interval."""

import numpy as np
import pandas as pd
import pytest

from negprobe.statistics import negation_effect


def planted(effects, n_pairs, seed=0):
    """A table in which head h's metric is larger by `effects[h]` under negation than under the control, plus noise."""
    rng = np.random.default_rng(seed)
    rows = []
    for pair in range(n_pairs):
        for head, effect in enumerate(effects):
            shared = rng.normal(5)
            for compared, shift in (("counterfactual", effect), ("control", 0.0)):
                value = shared + shift + rng.normal(scale=0.1)
                rows.append({"pair": pair, "compared": compared, "layer": 0, "head": head, "metric": value})
    return pd.DataFrame(rows)


def test_the_effect_is_the_mean_of_paired_differences():
    table = planted([0.0, 0.5, -1.0], 40)
    result = negation_effect(table, "metric").set_index("head")
    for head in range(3):
        here = table[table["head"] == head]
        under = here[here["compared"] == "counterfactual"].sort_values("pair")["metric"].to_numpy()
        control = here[here["compared"] == "control"].sort_values("pair")["metric"].to_numpy()
        assert result.loc[head, "effect"] == pytest.approx((under - control).mean())
        assert result.loc[head, "counterfactual"] == pytest.approx(under.mean())
        assert result.loc[head, "control"] == pytest.approx(control.mean())
        # A normal interval, which a bootstrap of 40 near-normal differences must come close to.
        error = (under - control).std(ddof=1) / np.sqrt(40)
        assert result.loc[head, "low"] == pytest.approx(result.loc[head, "effect"] - 1.96 * error, abs=0.3 * error)
        assert result.loc[head, "high"] == pytest.approx(result.loc[head, "effect"] + 1.96 * error, abs=0.3 * error)


def test_the_interval_covers_the_planted_effect_about_as_often_as_it_says():
    covered = 0
    for seed in range(100):
        row = negation_effect(planted([0.2], 30, seed), "metric").iloc[0]
        covered += row["low"] <= 0.2 <= row["high"]
    # 95 of 100 expected; under 86 has a probability below 0.001 if the interval is right.
    assert covered >= 86


def test_a_pair_without_a_control_or_with_an_undefined_metric_is_not_counted():
    table = planted([0.1], 10)
    table = table[~((table["pair"] == 3) & (table["compared"] == "control"))]
    table.loc[table["pair"] == 7, "metric"] = np.nan
    assert negation_effect(table, "metric").iloc[0]["n"] == 8


def test_one_pair_has_an_effect_and_no_interval():
    row = negation_effect(planted([0.1], 1), "metric").iloc[0]
    assert np.isfinite(row["effect"])
    assert np.isnan(row["low"])
    assert np.isnan(row["high"])


def test_without_any_control_there_is_no_row():
    table = planted([0.1], 5)
    assert negation_effect(table[table["compared"] == "counterfactual"], "metric").empty


def test_the_same_seed_gives_the_same_interval():
    table = planted([0.1], 20)
    pd.testing.assert_frame_equal(negation_effect(table, "metric", seed=3), negation_effect(table, "metric", seed=3))
    assert negation_effect(table, "metric", seed=3)["low"][0] != negation_effect(table, "metric", seed=4)["low"][0]
