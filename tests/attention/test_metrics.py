"""Each metric equals numpy's and scipy's answer, one head and one row at a time."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy import stats
from scipy.spatial.distance import jensenshannon

from negprobe.attention.metrics import (
    MAP_METRICS,
    attention_distance,
    entropy,
    js_divergence,
    map_metrics,
    relative_change,
    relative_distance,
    spread,
    to_distribution,
)


def planted(seed, n, batch=1, heads=3, width=4):
    rng = torch.Generator().manual_seed(seed)
    patterns = [torch.randn(batch, heads, n, n, generator=rng).double().softmax(dim=-1) for _ in range(2)]
    return *patterns, *(torch.randn(batch, heads, n, width, generator=rng).double() for _ in range(2))


def valid(*lengths):
    return torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]


@given(seed=st.integers(0, 10_000), n=st.integers(2, 7), padding=st.integers(0, 2))
def test_map_metrics_equal_scipy_on_the_valid_tokens(seed, n, padding):
    A, B, z, y = planted(seed, n + padding)
    metrics = map_metrics(A, B, z, y, torch.arange(n + padding)[None] < n)
    for head in range(3):
        a, b = A[0, head, :n, :n].numpy(), B[0, head, :n, :n].numpy()
        u, w = z[0, head, :n].numpy(), y[0, head, :n].numpy()
        expected = {
            "max_attention_diff": np.abs(a - b).max(),
            "mean_attention_diff": np.abs(a - b).mean(),
            "attention_pattern_correlation": stats.pearsonr(a.ravel(), b.ravel()).statistic,
            "value_output_correlation": stats.pearsonr(u.ravel(), w.ravel()).statistic,
        }
        for name in MAP_METRICS:
            assert metrics[name][0, head].item() == pytest.approx(expected[name], abs=1e-10)


def test_neighbours_in_the_batch_change_nothing():
    A, B, z, y = planted(0, 6, batch=2)
    together = map_metrics(A, B, z, y, valid(3, 6))
    alone = map_metrics(A[:1, :, :3, :3], B[:1, :, :3, :3], z[:1, :, :3], y[:1, :, :3], valid(3))
    for name in MAP_METRICS:
        torch.testing.assert_close(together[name][:1], alone[name], atol=1e-12, rtol=0)


def test_a_statement_compared_with_itself_does_not_differ():
    A, _, z, _ = planted(1, 5)
    metrics = map_metrics(A, A, z, z, valid(5))
    assert metrics["max_attention_diff"].max() == 0
    assert metrics["mean_attention_diff"].max() == 0
    torch.testing.assert_close(metrics["attention_pattern_correlation"], torch.ones(1, 3).double())
    torch.testing.assert_close(metrics["value_output_correlation"], torch.ones(1, 3).double())
    assert js_divergence(A, A).max() == 0
    assert relative_change(z, z).max() == 0


@pytest.mark.parametrize("n", [1, 3, 7, 10])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_correlation_with_a_constant_map_is_nan_and_the_rest_is_not(n, dtype):
    A, B, z, y = (t.to(dtype) for t in planted(2, n))
    # Uniform attention as softmax gives it, with its rounding: constant, though its variance is not exactly zero.
    B[0, 0] = torch.full((n, n), 3.7, dtype=dtype).softmax(dim=-1)
    B[0, 0] = B[0, 0] * (1 + torch.finfo(dtype).eps * torch.arange(n) * 0.4)
    metrics = map_metrics(A, B, z, y, valid(n))
    assert metrics["attention_pattern_correlation"][0, 0].isnan()
    assert metrics["max_attention_diff"].isfinite().all()
    if n > 1:
        assert metrics["attention_pattern_correlation"][0, 1:].isfinite().all()
        assert metrics["value_output_correlation"][0, 1:].isfinite().all()


rows = arrays.arrays(
    float, st.integers(1, 8).map(lambda n: (2, n)), elements=st.just(0.0) | st.floats(1e-300, 1)
).filter(lambda pair: (pair.sum(axis=1) > 1e-6).all())


@given(rows)
def test_divergence_and_entropy_equal_scipys_in_bits(pair):
    p, q = (row / row.sum() for row in pair)
    ours = js_divergence(torch.from_numpy(p), torch.from_numpy(q)).item()
    # scipy's own takes a root, which is NaN where equal rows round to less than 0.
    middle = (p + q) / 2
    assert ours == pytest.approx((stats.entropy(p, middle, base=2) + stats.entropy(q, middle, base=2)) / 2, abs=1e-12)
    assert entropy(torch.from_numpy(p)).item() == pytest.approx(stats.entropy(p, base=2), abs=1e-12)


def test_divergence_is_0_to_1_and_finite_where_rows_share_no_key():
    p, q = torch.tensor([0.5, 0.5, 0, 0]), torch.tensor([0, 0, 0.25, 0.75])
    assert js_divergence(p, q).item() == pytest.approx(1, abs=1e-5)
    assert js_divergence(p, p).item() == 0
    assert js_divergence(torch.zeros(3), torch.zeros(3)).item() == 0


def test_divergence_of_nearly_equal_rows_is_accurate_in_single_precision():
    rng = np.random.default_rng(0)
    p = rng.dirichlet(np.ones(20), size=200)
    q = p * (1 + 1e-3 * rng.normal(size=p.shape))
    p, q = (rows.astype(np.float32) for rows in (p, q / q.sum(axis=1, keepdims=True)))
    exact = jensenshannon(p.astype(float), q.astype(float), base=2, axis=1) ** 2
    np.testing.assert_allclose(js_divergence(torch.from_numpy(p), torch.from_numpy(q)).numpy(), exact, rtol=5e-4)


def test_a_row_of_zeros_stays_one():
    scaled = to_distribution(torch.tensor([[0.0, 0.0], [1.0, 3.0]]))
    assert scaled.tolist() == [[0, 0], [0.25, 0.75]]


def test_relative_change_has_the_values_its_formula_says():
    z = torch.tensor([[3.0, 4.0], [1.0, 0.0], [1.0, 0.0], [0.0, 0.0]])
    y = torch.tensor([[3.0, 4.0], [0.0, 1.0], [-1.0, 0.0], [0.0, 0.0]])
    change = relative_change(z, y)
    assert change[:3].tolist() == pytest.approx([0, 2**0.5, 2])
    assert change[3].isnan()


@given(st.lists(st.floats(0.01, 10), min_size=1, max_size=6), st.integers(0, 3))
def test_spread_and_distance_equal_the_formulas_spelled_out(change, padding):
    n = len(change)
    steps = [float((3 * i) % 5 + 1) for i in range(n)]
    where = torch.arange(n + padding) < n
    padded = torch.tensor([*change, *[7.0] * padding]).double()
    distance = torch.tensor([*steps, *[9.0] * padding]).double()
    assert spread(padded, where).item() == pytest.approx(sum(change) ** 2 / (n * sum(c * c for c in change)))
    mean = sum(c * d for c, d in zip(change, steps, strict=True)) / sum(change)
    assert relative_distance(padded, distance, where).item() == pytest.approx(mean / (sum(steps) / n))


def test_spread_is_1_for_a_change_everywhere_and_1_in_n_for_one_token():
    everywhere, one = torch.full((5,), 0.3), torch.tensor([0, 0, 2.0, 0, 0])
    where = torch.ones(5, dtype=torch.bool)
    assert spread(everywhere, where).item() == pytest.approx(1)
    assert spread(one, where).item() == pytest.approx(0.2)
    assert spread(torch.zeros(5), where).isnan()
    assert relative_distance(everywhere, torch.arange(5.0), where).item() == pytest.approx(1)


@given(st.integers(0, 1000), st.integers(2, 7), st.data())
def test_attention_distance_equals_a_loop_over_the_words(seed, n, data):
    words = data.draw(st.lists(st.booleans(), min_size=n, max_size=n).filter(any))
    A = torch.randn(2, n, n, generator=torch.Generator().manual_seed(seed)).double().softmax(dim=-1)
    weight = torch.rand(2, n, generator=torch.Generator().manual_seed(seed)).double() + 0.1
    found = attention_distance(A, weight, torch.tensor(words))
    A = A * weight[:, None]
    at = [i for i in range(n) if words[i]]
    for head in range(2):
        means = []
        for q in at:
            total = sum(A[head, q, k].item() for k in at)
            means.append(sum(A[head, q, k].item() * abs(q - k) for k in at) / total)
        assert found[head].item() == pytest.approx(np.mean(means))
