"""The four metrics equal numpy's and scipy's answers on the aligned part of two maps."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from negprobe.attention.metrics import METRICS, comparison_metrics
from negprobe.statements import Alignment


def planted(seed, n_original, n_counterfactual, batch=1, layers=2, heads=3, width=4):
    rng = torch.Generator().manual_seed(seed)
    patterns = [
        torch.randn(batch, layers, heads, n, n, generator=rng).double().softmax(dim=-1)
        for n in (n_original, n_counterfactual)
    ]
    outputs = [
        torch.randn(batch, layers, n, heads, width, generator=rng).double() for n in (n_original, n_counterfactual)
    ]
    return *patterns, *outputs


def identity(n):
    return Alignment(tuple(range(n)), tuple(range(n)), (), ())


@given(seed=st.integers(0, 10_000), n=st.integers(2, 7), data=st.data())
def test_metrics_equal_scipy_on_the_aligned_tokens(seed, n, data):
    inserted = data.draw(st.integers(0, 3))
    at = data.draw(st.integers(0, n))
    m = n + inserted
    there = tuple(i if i < at else i + inserted for i in range(n))
    alignment = Alignment(tuple(range(n)), there, (), tuple(range(at, at + inserted)))
    A, B, z, y = planted(seed, n, m)
    metrics = comparison_metrics(A, B, z, y, [alignment])
    for layer in range(2):
        for head in range(3):
            a, b = A[0, layer, head].numpy(), B[0, layer, head].numpy()[np.ix_(there, there)]
            u, w = z[0, layer, :, head].numpy(), y[0, layer, :, head].numpy()[list(there)]
            expected = {
                "max_attention_diff": np.abs(a - b).max(),
                "mean_attention_diff": np.abs(a - b).mean(),
                "attention_pattern_correlation": stats.pearsonr(a.ravel(), b.ravel()).statistic,
                "value_output_correlation": stats.pearsonr(u.ravel(), w.ravel()).statistic,
            }
            for name in METRICS:
                assert metrics[name][0, layer, head].item() == pytest.approx(expected[name], abs=1e-10)


def test_padding_and_neighbours_in_the_batch_change_nothing():
    A, B, z, y = planted(0, 6, 7, batch=2)
    short = Alignment((0, 1, 2), (0, 2, 3), (), (1,))
    full = Alignment(tuple(range(6)), (0, 1, 2, 4, 5, 6), (), (3,))
    together = comparison_metrics(A, B, z, y, [short, full])
    alone = comparison_metrics(A[:1, ..., :3, :3], B[:1, ..., :4, :4], z[:1, :, :3], y[:1, :, :4], [short])
    for name in METRICS:
        torch.testing.assert_close(together[name][:1], alone[name], atol=1e-12, rtol=0)


def test_a_statement_compared_with_itself_does_not_differ():
    A, _, z, _ = planted(1, 5, 5)
    metrics = comparison_metrics(A, A, z, z, [identity(5)])
    assert metrics["max_attention_diff"].max() == 0
    assert metrics["mean_attention_diff"].max() == 0
    torch.testing.assert_close(metrics["attention_pattern_correlation"], torch.ones(1, 2, 3).double())
    torch.testing.assert_close(metrics["value_output_correlation"], torch.ones(1, 2, 3).double())


@pytest.mark.parametrize("n", [1, 3, 7, 10])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_correlation_with_a_constant_map_is_nan_and_the_rest_is_not(n, dtype):
    A, B, z, y = (t.to(dtype) for t in planted(2, n, n))
    # Uniform attention as softmax gives it, with its rounding: constant, though its variance is not exactly zero.
    B[0, 0, 0] = torch.full((n, n), 3.7, dtype=dtype).softmax(dim=-1)
    B[0, 0, 0] = B[0, 0, 0] * (1 + torch.finfo(dtype).eps * torch.arange(n) * 0.4)
    metrics = comparison_metrics(A, B, z, y, [identity(n)])
    assert metrics["attention_pattern_correlation"][0, 0, 0].isnan()
    assert metrics["max_attention_diff"].isfinite().all()
    if n > 1:
        assert metrics["attention_pattern_correlation"][0, 1].isfinite().all()
        assert metrics["value_output_correlation"].isfinite().all()
