"""What tokens contribute in one layer equals vectors made for every two tokens, and never makes them itself."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from negprobe.attention import layer_measures
from negprobe.attention.layer_measures import (
    FrozenNorm,
    all_heads_norm,
    mixing_ratio,
    residual_norm,
    value_zeroing,
    without_padding,
)
from negprobe.attention.measures import norm_weighted
from negprobe.base.errors import InputError
from negprobe.models.norms import LayerNorm
from tests.support.slow_contributions import parts, slow_layers, slow_mixing_ratio
from tests.support.tiny_models import pair, token_batch

TEXT = "The museum was never quite open."


@pytest.fixture(scope="module")
def slow(hugging_face):
    model, tokenizer = hugging_face
    return slow_layers(model, tokenizer(TEXT, return_tensors="pt"))


@pytest.fixture(scope="module")
def tiny():
    """A small random model, and every activation of a padded batch."""
    _, model = pair("bert", "none", dtype=torch.float64)
    tokens = token_batch(model.cfg.pad_token_id)
    with torch.no_grad():
        _, cache = model.run_with_cache(tokens)
    return model, tokens, cache


def random_layer(seed=0, tokens=5, heads=3, d_head=4, d_model=7, batch=2):
    torch.manual_seed(seed)
    pattern = torch.randn(batch, heads, tokens, tokens).double().softmax(dim=-1)
    v, b_V = torch.randn(batch, tokens, heads, d_head).double(), torch.randn(heads, d_head).double()
    W_O, x = torch.randn(heads, d_head, d_model).double(), torch.randn(batch, tokens, d_model).double()
    return pattern, v, b_V, W_O, x


def random_layer_norm(seed=0, d_model=7):
    torch.manual_seed(seed)
    layer_norm = LayerNorm(d_model, 1e-5).double().requires_grad_(False)
    layer_norm.w.normal_()
    layer_norm.b.normal_()
    return layer_norm


def naive_T(pattern, v, W_O):
    """A vector for every batch, head, query and key, summed over heads."""
    return torch.einsum("bhqk,bkhe,hem->bhqkm", pattern, v, W_O).sum(dim=1)


def test_what_tokens_write_and_the_bias_are_attentions_output(slow):
    for layer in slow:
        b_O = layer.module.attention.output.dense.bias
        torch.testing.assert_close(layer.T.sum(dim=1) + b_O + layer.x, layer.resid_mid, atol=1e-10, rtol=0)


def test_what_tokens_write_and_the_bias_are_the_hooks_attn_out(tiny):
    model, _, cache = tiny
    for layer in range(model.cfg.n_layers):
        T = naive_T(cache["pattern", layer], cache["v", layer], model.W_O[layer])
        torch.testing.assert_close(T.sum(dim=2) + model.b_O[layer], cache["attn_out", layer], atol=1e-10, rtol=0)


@given(seed=st.integers(0, 10_000), tokens=st.integers(1, 6), heads=st.integers(1, 5), d_head=st.integers(1, 5))
def test_the_gram_form_is_the_norm_of_the_sum(seed, tokens, heads, d_head):
    pattern, v, _, W_O, _ = random_layer(seed, tokens, heads, d_head)
    torch.testing.assert_close(
        all_heads_norm(pattern, v, W_O), naive_T(pattern, v, W_O).norm(dim=-1), atol=1e-10, rtol=0
    )


def test_one_head_is_its_own_norm_and_several_are_at_most_their_sum():
    pattern, v, _, W_O, _ = random_layer()
    one = all_heads_norm(pattern[:, :1], v[:, :, :1], W_O[:1])
    torch.testing.assert_close(one, norm_weighted(pattern[:, :1], v[:, :, :1], W_O[:1])[:, 0], atol=1e-12, rtol=0)
    assert (all_heads_norm(pattern, v, W_O) < norm_weighted(pattern, v, W_O).sum(dim=1)).all()


def test_heads_that_cancel_contribute_nothing():
    pattern, v, _, W_O, _ = random_layer(heads=2)
    pattern, v = pattern[:, :1].repeat(1, 2, 1, 1), v[:, :, :1].repeat(1, 1, 2, 1)
    opposed = torch.stack([W_O[0], -W_O[0]])
    norms = all_heads_norm(pattern, v, opposed)
    assert not norms.isnan().any()
    torch.testing.assert_close(norms, torch.zeros_like(norms), atol=1e-7, rtol=0)


def test_the_decomposition_and_the_biases_are_the_first_layer_norms_output(slow):
    for layer in slow:
        b_O = layer.module.attention.output.dense.bias.detach()
        frozen = FrozenNorm(
            layer.ln1.weight.detach(), torch.sqrt(layer.resid_mid.var(-1, correction=0) + layer.ln1.eps)
        )
        bias = frozen.scaled(b_O) / frozen.scale[:, None] + layer.ln1.bias
        torch.testing.assert_close(parts(layer).sum(dim=1) + bias, layer.ln1(layer.resid_mid), atol=1e-10, rtol=0)


def test_a_frozen_layer_norm_takes_its_summands_apart():
    layer_norm, summands = random_layer_norm(), torch.randn(4, 2, 5, 7).double()
    frozen = FrozenNorm.at(layer_norm, summands.sum(dim=0))
    apart = sum(frozen.scaled(summand) / frozen.scale[..., None] for summand in summands)
    torch.testing.assert_close(apart + layer_norm.b, layer_norm(summands.sum(dim=0)), atol=1e-12, rtol=0)


@pytest.mark.parametrize("n_layer_norms", [0, 1, 2])
def test_residual_norm_is_the_norm_of_every_part(n_layer_norms):
    pattern, v, _, W_O, x = random_layer()
    frozen, vectors = [], naive_T(pattern, v, W_O) + torch.diag_embed(x.mT).permute(0, 2, 3, 1)
    for seed in range(n_layer_norms):
        layer_norm, whole = random_layer_norm(seed), random_layer(seed + 1)[-1]
        frozen.append(FrozenNorm.at(layer_norm, whole))
        deviation = torch.sqrt(whole.var(dim=-1, correction=0) + layer_norm.eps)[:, :, None, None]
        vectors = (vectors - vectors.mean(dim=-1, keepdim=True)) / deviation * layer_norm.w
    torch.testing.assert_close(residual_norm(pattern, v, W_O, x, frozen), vectors.norm(dim=-1), atol=1e-10, rtol=0)
    context = vectors.sum(dim=2) - vectors.diagonal(dim1=1, dim2=2).mT
    context, own = context.norm(dim=-1), vectors.diagonal(dim1=1, dim2=2).mT.norm(dim=-1)
    torch.testing.assert_close(mixing_ratio(pattern, v, W_O, x, frozen), context / (context + own), atol=1e-10, rtol=0)


@pytest.mark.parametrize("both", [False, True])
def test_mixing_ratio_is_hugging_faces(slow, probe, both):
    _, cache = probe.model.run_with_cache(TEXT)
    for index, (layer, block) in enumerate(zip(slow, probe.model.blocks, strict=True)):
        layer_norms = [FrozenNorm.at(block.ln1, cache["resid_mid", index])]
        if both:
            layer_norms.append(FrozenNorm.at(block.ln2, cache["resid_post", index]))
        fast = mixing_ratio(
            cache["pattern", index], cache["v", index], block.attn.W_O, cache["resid_pre", index], layer_norms
        )
        torch.testing.assert_close(fast[0].detach(), slow_mixing_ratio(layer, both), atol=1e-10, rtol=0)


def test_a_token_alone_mixes_nothing_in():
    pattern, v, _, W_O, x = random_layer(tokens=1)
    assert (mixing_ratio(pattern, v, W_O, x, []) == 0).all()


def test_without_bias_the_value_bias_is_taken_from_every_vector():
    pattern, v, b_V, W_O, x = random_layer()
    ln = [FrozenNorm.at(random_layer_norm(), x)]
    for with_bias, without, bare in (
        (
            all_heads_norm(pattern, v, W_O, b_V),
            all_heads_norm(pattern, v, W_O, b_V, include_bias=False),
            all_heads_norm(pattern, v - b_V, W_O),
        ),
        (
            residual_norm(pattern, v, W_O, x, ln, b_V),
            residual_norm(pattern, v, W_O, x, ln, b_V, include_bias=False),
            residual_norm(pattern, v - b_V, W_O, x, ln),
        ),
        (
            mixing_ratio(pattern, v, W_O, x, ln, b_V),
            mixing_ratio(pattern, v, W_O, x, ln, b_V, include_bias=False),
            mixing_ratio(pattern, v - b_V, W_O, x, ln),
        ),
    ):
        torch.testing.assert_close(without, bare, atol=1e-12, rtol=0)
        assert not torch.allclose(with_bias, without)


def test_leaving_out_a_bias_that_is_not_given_is_an_error():
    pattern, v, _, W_O, x = random_layer()
    for measure in (
        all_heads_norm,
        lambda *a, **k: residual_norm(*a, x, [], **k),
        lambda *a, **k: mixing_ratio(*a, x, [], **k),
    ):
        with pytest.raises(InputError, match="b_V"):
            measure(pattern, v, W_O, include_bias=False)


@pytest.mark.parametrize(
    "family",
    [
        "bert",
        "mpnet",
        "albert",
        "megatron-bert",
        "roberta-prelayernorm",
        "xlm-roberta-xl",
        "modernbert",
        "modernbert-biased",
    ],
)
def test_zeroing_is_the_model_run_again_with_the_values_zeroed(family):
    _, model = pair(family, "none", dtype=torch.float64)
    tokens = token_batch(model.cfg.pad_token_id)
    with torch.no_grad():
        _, cache = model.run_with_cache(tokens)
    mask = (tokens != model.cfg.pad_token_id).long()
    for layer, block in enumerate(model.blocks):
        fast = value_zeroing(cache["pattern", layer], cache["v", layer], cache["resid_mid", layer], block, mask=mask)
        output = f"blocks.{layer}.hook_{'resid_post' if block.is_pre_norm else 'normalized_resid_post'}"
        h = cache[output]
        for t in range(tokens.shape[1]):
            turned = {}

            def zero(v, hook, t=t):
                v = v.clone()
                v[:, t] = 0
                return v

            def keep(h, hook, turned=turned):
                turned["h"] = h

            with torch.no_grad():
                model.run_with_hooks(tokens, fwd_hooks=[(f"blocks.{layer}.attn.hook_v", zero), (output, keep)])
            again = (1 - torch.cosine_similarity(turned["h"], h, dim=-1)) * mask * mask[:, t : t + 1]
            torch.testing.assert_close(fast[:, :, t], again, atol=1e-10, rtol=0)


def test_the_closed_form_of_zeroing_is_what_the_stages_of_the_block_give(tiny, monkeypatch):
    model, tokens, cache = tiny
    mask = (tokens != model.cfg.pad_token_id).long()
    given_to = (cache["pattern", 1], cache["v", 1], cache["resid_mid", 1], model.blocks[1])
    closed = value_zeroing(*given_to, mask=mask)
    monkeypatch.setattr(layer_measures, "_outputs_in_closed_form", layer_measures._outputs_by_stages)
    torch.testing.assert_close(value_zeroing(*given_to, mask=mask), closed, atol=1e-12, rtol=0)


@pytest.mark.parametrize("budget", [1, 40 * 5, 40 * 12, 40 * 40])
def test_zeroing_in_chunks_is_zeroing_at_once(tiny, monkeypatch, budget):
    for outputs in ("_outputs_in_closed_form", "_outputs_by_stages"):
        with monkeypatch.context() as patched:
            patched.setattr(layer_measures, "_outputs_in_closed_form", getattr(layer_measures, outputs))
            model, _, cache = tiny
            given_to = (cache["pattern", 1], cache["v", 1], cache["resid_mid", 1], model.blocks[1])
            at_once = value_zeroing(*given_to)
            patched.setattr(layer_measures, "_CHUNK_BUDGET", budget)
            torch.testing.assert_close(value_zeroing(*given_to), at_once, atol=1e-14, rtol=0)


def test_zeroing_keeps_its_digits_where_an_output_hardly_turns():
    """In float32 the cosine itself would round every distance below 6e-8 to nothing, or to less than nothing."""
    _, model = pair("bert", "none", dtype=torch.float64)
    tokens = token_batch(model.cfg.pad_token_id, lengths=(8,))
    with torch.no_grad():
        _, cache = model.run_with_cache(tokens)
        exact = value_zeroing(cache["pattern", 0], 1e-4 * cache["v", 0], cache["resid_mid", 0], model.blocks[0])
        single = (cache[name, 0].float() for name in ("pattern", "v", "resid_mid"))
        pattern, v, resid_mid = single
        rounded = value_zeroing(pattern, 1e-4 * v, resid_mid, model.to(torch.float32).blocks[0])
    assert exact.min() > 0 and exact.max() < 1e-7
    torch.testing.assert_close(rounded.double(), exact, rtol=0.02, atol=1e-13)


def test_zeroing_leaves_the_users_hooks_alone(tiny):
    model, _, cache = tiny
    block, calls = model.blocks[0], []
    expected = value_zeroing(cache["pattern", 0], cache["v", 0], cache["resid_mid", 0], block)

    def halve(activation, hook):
        calls.append(hook.name)
        return activation / 2

    with model.hooks([("blocks.0.mlp.hook_pre", halve), ("blocks.0.mlp.hook_post", halve)]):
        hooked = value_zeroing(cache["pattern", 0], cache["v", 0], cache["resid_mid", 0], block)
    assert not calls
    torch.testing.assert_close(hooked, expected, atol=0, rtol=0)


def test_padding_is_exactly_zero_whatever_stands_there():
    pattern, v, _, W_O, x = random_layer()
    mask = torch.tensor([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]])
    pattern[0, :, :, 3:] = 0
    v[0, 3:], x[0, 3:] = torch.nan, torch.inf
    norms = all_heads_norm(pattern, v, W_O, mask=mask)
    residual = residual_norm(pattern, v, W_O, x, [], mask=mask)
    for pairs in (norms, residual, without_padding(torch.full((2, 5, 5), torch.nan).double(), mask)[:1]):
        assert (pairs[0, 3:] == 0).all() and (pairs[0, :, 3:] == 0).all()
    assert not residual.isnan().any()
    clean = residual_norm(pattern[:1, :, :3, :3], v[:1, :3], W_O, x[:1, :3], [])
    torch.testing.assert_close(residual[:1, :3, :3], clean, atol=1e-12, rtol=0)
    ratio = mixing_ratio(pattern, v.nan_to_num(0), W_O, x, [], mask=mask)
    assert (ratio[0, 3:] == 0).all() and (ratio[1] > 0).all()


class LargestTensor(TorchDispatchMode):
    """The number of elements of the largest tensor any operation makes, views of what there was aside."""

    numel = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **kwargs or {})
        made = [
            leaf.untyped_storage().nbytes() // leaf.element_size() for leaf in tree_leaves(out) if torch.is_tensor(leaf)
        ]
        self.numel = max([self.numel, *made])
        return out


BATCH, TOKENS, HEADS, D_HEAD = 2, 48, 4, 6
D_MODEL, D_MLP = 24, 40


def test_no_vector_for_every_two_tokens_is_made():
    pattern, v, _, W_O, x = random_layer(tokens=TOKENS, heads=HEADS, d_head=D_HEAD, d_model=D_MODEL, batch=BATCH)
    ln = [FrozenNorm.at(random_layer_norm(seed, D_MODEL), x) for seed in range(2)]
    for measure in (
        lambda: all_heads_norm(pattern, v, W_O),
        lambda: residual_norm(pattern, v, W_O, x, ln),
        lambda: mixing_ratio(pattern, v, W_O, x, ln),
    ):
        with LargestTensor() as largest:
            measure()
        # The pattern's own size is the most; a vector for every query and key would be six times that.
        assert largest.numel <= pattern.numel() < BATCH * TOKENS**2 * D_MODEL
    with LargestTensor() as naive:
        naive_T(pattern, v, W_O)
    assert naive.numel == BATCH * HEADS * TOKENS**2 * D_MODEL


@pytest.mark.parametrize("family", ["bert", "albert", "megatron-bert", "xlm-roberta-xl", "modernbert"])
def test_zeroings_memory_does_not_grow_with_the_length(monkeypatch, family):
    _, model = pair(family, "none", dtype=torch.float64)
    block = model.blocks[0]
    monkeypatch.setattr(layer_measures, "_CHUNK_BUDGET", 8 * TOKENS * D_MLP)
    for tokens in (TOKENS, 4 * TOKENS):
        pattern, v, _, _, x = random_layer(tokens=tokens, heads=HEADS, d_head=D_HEAD, d_model=D_MODEL, batch=1)
        with LargestTensor() as largest:
            value_zeroing(pattern, v, x, block)
        own = max(pattern.numel(), tokens * D_MLP)
        assert largest.numel <= max(own, 8 * TOKENS * D_MLP) < tokens**2 * D_MODEL
        assert math.isclose(pattern[0, 0, 0].sum(), 1)
