"""Chained maps are the products written out, and their rows are shares."""

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from negprobe.attention.rollout import globenc, normalized_rows, rollout


def random_patterns(seed=0, batch=2, layers=4, heads=3, tokens=5):
    torch.manual_seed(seed)
    return torch.randn(batch, layers, heads, tokens, tokens).double().softmax(dim=-1)


@given(seed=st.integers(0, 10_000), layers=st.integers(1, 5), tokens=st.integers(1, 6))
def test_rollout_is_the_product_of_the_layers(seed, layers, tokens):
    patterns = random_patterns(seed, layers=layers, tokens=tokens)
    for text, rolled in zip(patterns.numpy(), rollout(patterns), strict=True):
        factors = [0.5 * layer.mean(axis=0) + 0.5 * np.eye(tokens) for layer in text]
        for depth in range(layers):
            product = np.linalg.multi_dot([*factors[depth::-1], np.eye(tokens)]) if depth else factors[0]
            np.testing.assert_allclose(rolled[depth], product, atol=1e-12)


def test_rollout_of_attention_to_oneself_stays_with_oneself():
    identity = torch.eye(4).expand(1, 3, 2, 4, 4)
    torch.testing.assert_close(rollout(identity), torch.eye(4).expand(1, 3, 4, 4))


def test_rollout_of_padded_texts_is_that_of_the_text_alone():
    patterns = random_patterns()
    mask = torch.tensor([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]])
    patterns[0, ..., 3:] = 0
    patterns[0] /= patterns[0].sum(dim=-1, keepdim=True)
    rolled = rollout(patterns, mask)
    torch.testing.assert_close(rolled[0, :, :3, :3], rollout(patterns[:1, :, :, :3, :3])[0], atol=1e-12, rtol=0)
    assert (rolled[0, :, 3:] == 0).all() and (rolled[0, :, :, 3:] == 0).all()
    torch.testing.assert_close(rolled[1].sum(dim=-1), torch.ones(4, 5).double())


def test_globenc_is_the_papers_product_with_its_rows_made_shares():
    norms = random_patterns().sum(dim=2) * torch.rand(2, 4, 5, 1).double() * 30
    for text, chained in zip(norms.numpy(), globenc(norms), strict=True):
        product = np.eye(5)
        for depth, layer in enumerate(text):
            product = layer @ product
            np.testing.assert_allclose(chained[depth], product / product.sum(axis=-1, keepdims=True), atol=1e-12)


def test_globenc_of_many_layers_of_large_norms_is_finite():
    norms = 1e3 * torch.rand(1, 48, 6, 6)
    chained = globenc(norms)
    torch.testing.assert_close(chained.sum(dim=-1), torch.ones(1, 48, 6))


def test_rows_of_zeros_stay_zeros():
    shares = normalized_rows(torch.tensor([[1.0, 3.0], [0.0, 0.0]]))
    torch.testing.assert_close(shares, torch.tensor([[0.25, 0.75], [0.0, 0.0]]), atol=0, rtol=0)
    assert not globenc(torch.zeros(1, 2, 3, 3)).any()
