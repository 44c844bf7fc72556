"""The measures equal what the slow, obvious computation makes of Hugging Face's own weights and activations."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from negprobe.attention.measures import norm_weighted, similarity, value_norms
from negprobe.base.errors import InputError

TEXT = "The museum was never quite open."


@pytest.fixture(scope="module")
def slow(hugging_face):
    """`[layer][head]` of pattern, values and `W_O`, sliced by hand out of Hugging Face's linear maps."""
    model, tokenizer = hugging_face
    with torch.no_grad():
        out = model(**tokenizer(TEXT, return_tensors="pt"), output_attentions=True, output_hidden_states=True)
    heads = []
    for layer, block in enumerate(model.encoder.layer):
        x = out.hidden_states[layer][0]
        with torch.no_grad():
            v = block.attention.self.value(x)
        W = block.attention.output.dense.weight.detach()
        size = model.config.hidden_size // model.config.num_attention_heads
        for head in range(model.config.num_attention_heads):
            part = slice(head * size, (head + 1) * size)
            heads.append((layer, head, out.attentions[layer][0, head], v[:, part], W[:, part]))
    return heads


@pytest.fixture(scope="module")
def fast(probe):
    return probe.run(TEXT)


def test_raw_is_hugging_faces_pattern(slow, fast):
    for layer, head, A, _, _ in slow:
        torch.testing.assert_close(fast.raw[layer, head], A, atol=1e-10, rtol=0)


def test_values_and_outputs_are_hugging_faces(slow, fast):
    for layer, head, A, v, _ in slow:
        torch.testing.assert_close(fast.value[layer, head], v, atol=1e-10, rtol=0)
        torch.testing.assert_close(fast.z[layer, head], A @ v, atol=1e-10, rtol=0)


def test_norm_is_the_norm_of_every_weighted_vector(slow, fast):
    for layer, head, A, v, W in slow:
        n = len(A)
        naive = torch.stack([torch.stack([(A[q, k] * (W @ v[k])).norm() for k in range(n)]) for q in range(n)])
        torch.testing.assert_close(fast.norm[layer, head], naive, atol=1e-10, rtol=0)


def test_similarity_is_the_cosine_of_every_two_outputs(slow, fast):
    for layer, head, A, v, _ in slow:
        z = A @ v
        naive = torch.stack([F.cosine_similarity(z[q], z, dim=-1) for q in range(len(z))])
        torch.testing.assert_close(fast.similarity[layer, head], naive, atol=1e-10, rtol=0)


@given(seed=st.integers(0, 10_000), heads=st.integers(1, 4), tokens=st.integers(1, 6), width=st.integers(1, 5))
def test_value_norms_equal_the_naive_product(seed, heads, tokens, width):
    torch.manual_seed(seed)
    v, W_O = torch.randn(2, tokens, heads, width).double(), torch.randn(heads, width, 7).double()
    naive = torch.stack([(v[:, :, h] @ W_O[h]).norm(dim=-1) for h in range(heads)], dim=-1)
    torch.testing.assert_close(value_norms(v, W_O), naive, atol=1e-10, rtol=0)


def test_without_bias_the_value_bias_is_taken_from_every_vector():
    torch.manual_seed(0)
    pattern = torch.rand(1, 2, 3, 3).double().softmax(dim=-1)
    v, b, W_O = torch.randn(1, 3, 2, 4).double(), torch.randn(2, 4).double(), torch.randn(2, 4, 5).double()
    z = torch.einsum("bhqk,bkhe->bqhe", pattern, v)
    # Rows of the pattern sum to 1, so the bias stands in every z exactly once.
    without = torch.einsum("bhqk,bkhe->bqhe", pattern, v - b)
    torch.testing.assert_close(similarity(z, b, include_bias=False), similarity(without))
    torch.testing.assert_close(
        norm_weighted(pattern, v, W_O, b, include_bias=False), norm_weighted(pattern, v - b, W_O)
    )
    assert not torch.allclose(similarity(z, b, include_bias=False), similarity(z))


def test_leaving_out_a_bias_that_is_not_given_is_an_error():
    with pytest.raises(InputError, match="b_V"):
        similarity(torch.zeros(3, 2, 4), include_bias=False)
