"""Agreement is scipy's correlations of mean effects, and names the cells that differ most."""

import numpy as np
import pytest
import xarray as xr
from scipy.stats import rankdata

from negprobe.base.errors import PatchingError
from negprobe.patching.attribution_agreement import agreement

ATTRS = {"site": "z", "direction": "noising", "how": "swap", "objective": "logit_difference", "model": "m"}


def results(patched, **changes):
    """Three pairs, two layers, four heads, from base 1 to source 3."""
    n_pairs = patched.shape[0]
    return xr.Dataset(
        {
            "patched": (("pair", "layer", "head"), patched),
            "base": ("pair", np.ones(n_pairs)),
            "source": ("pair", np.full(n_pairs, 3.0)),
        },
        coords={"pair": np.arange(n_pairs), "layer": [0, 1], "head": np.arange(4)},
        attrs=ATTRS | changes,
    )


@pytest.fixture
def patched():
    exact = np.random.default_rng(0).normal(size=(3, 2, 4))
    return exact, exact + 0.5 * np.random.default_rng(1).normal(size=(3, 2, 4))


def test_correlations_are_those_of_mean_effects_over_the_cells_that_both_have(patched):
    exact, estimated = patched
    exact[:, 1, 2] = np.nan
    found = agreement(results(exact), results(estimated))
    # All swings are 2, so that a mean effect is the mean over pairs of (patched - 1) / 2.
    kept = ~np.isnan(exact).any(axis=0)
    a, b = (((values.mean(axis=0) - 1) / 2)[kept] for values in (exact, estimated))
    assert found.n_cells == 7
    assert found.pearson == pytest.approx(np.corrcoef(a, b)[0, 1])
    assert found.spearman == pytest.approx(np.corrcoef(rankdata(a), rankdata(b))[0, 1])
    assert found.pearson != pytest.approx(found.spearman, abs=1e-3)


def test_the_worst_cells_come_first_with_what_they_are_and_by_how_much_they_differ(patched):
    exact, _ = patched
    estimated = exact.copy()
    estimated[:, 0, 3] -= 4
    estimated[:, 1, 1] += 2
    worst = agreement(results(exact), results(estimated), n_worst=2).worst
    assert list(worst.columns) == ["layer", "head", "exact", "estimated", "difference"]
    assert worst[["layer", "head"]].values.tolist() == [[0, 3], [1, 1]]
    np.testing.assert_allclose(worst["difference"], [-2, 1])
    np.testing.assert_allclose(worst["exact"], ((exact.mean(axis=0) - 1) / 2)[[0, 1], [3, 1]])
    np.testing.assert_allclose(worst["estimated"], worst["exact"] + worst["difference"])


@pytest.mark.filterwarnings("error")
def test_a_correlation_that_is_undefined_is_nan(patched):
    exact, _ = patched
    constant = agreement(results(exact), results(np.ones_like(exact)))
    assert np.isnan(constant.spearman)
    assert np.isnan(constant.pearson)
    none = agreement(results(np.full_like(exact, np.nan)), results(exact))
    assert none.n_cells == 0
    assert np.isnan(none.pearson)
    assert len(none.worst) == 0


def test_results_of_other_patches_are_not_compared(patched):
    exact, estimated = patched
    with pytest.raises(PatchingError, match="site is 'z' in the exact results but 'q' in the estimates"):
        agreement(results(exact), results(estimated, site="q"))
    with pytest.raises(PatchingError, match="different pairs or parts"):
        agreement(results(exact), results(estimated[:2]))
    with pytest.raises(PatchingError, match="The base runs of the exact and the estimated results differ"):
        agreement(results(exact), results(estimated).assign(base=("pair", np.zeros(3))))
    with pytest.raises(PatchingError, match="compare results with the same axes"):
        agreement(results(exact), results(estimated).isel(head=0, drop=True))
