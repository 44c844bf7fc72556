"""Every measure of a model's layers equals what the slow, obvious computation makes of Hugging Face's own model."""

import pytest
import torch

from negprobe.attention.contribution_maps import CONTRIBUTIONS, contributions
from negprobe.base.errors import InputError
from tests.support.slow_contributions import (
    slow_all_heads_norm,
    slow_globenc,
    slow_layers,
    slow_modernbert_layers,
    slow_residual,
    slow_rollout,
    slow_rotary_layers,
    slow_zeroing,
)
from tests.support.tiny_models import pair, token_batch

TEXT = "The museum was never quite open."
SLOW = {
    "all_heads_norm": lambda layers: torch.stack([slow_all_heads_norm(layer) for layer in layers]),
    "residual": lambda layers: torch.stack([slow_residual(layer) for layer in layers]),
    "zeroing": lambda layers: torch.stack([slow_zeroing(layer) for layer in layers]),
    "rollout": slow_rollout,
    "globenc": slow_globenc,
}
VALUES_MATTER = [name for name in CONTRIBUTIONS if name not in ("zeroing", "rollout")]


@pytest.fixture(scope="module")
def tiny():
    _, model = pair("bert", "none", dtype=torch.float64)
    return model


@pytest.mark.parametrize("measure", CONTRIBUTIONS)
def test_measures_equal_hugging_faces_slow_computation(hugging_face, probe, measure):
    model, tokenizer = hugging_face
    inputs = tokenizer(TEXT, return_tensors="pt")
    fast = contributions(probe.model, inputs["input_ids"], inputs["attention_mask"], measure)
    assert fast.shape == (1, 6, *2 * inputs["input_ids"].shape[1:])
    torch.testing.assert_close(fast[0], SLOW[measure](slow_layers(model, inputs)), atol=1e-10, rtol=0)


@pytest.mark.parametrize("measure", VALUES_MATTER)
def test_measures_without_bias_equal_hugging_faces_slow_computation(hugging_face, probe, measure):
    model, tokenizer = hugging_face
    inputs = tokenizer(TEXT, return_tensors="pt")
    fast = contributions(probe.model, inputs["input_ids"], None, measure, include_bias=False)
    slow = SLOW[measure](slow_layers(model, inputs, include_bias=False))
    torch.testing.assert_close(fast[0], slow, atol=1e-10, rtol=0)
    assert not torch.allclose(fast, contributions(probe.model, inputs["input_ids"], None, measure))


@pytest.mark.parametrize("measure", CONTRIBUTIONS)
@pytest.mark.parametrize("family", ["modernbert", "modernbert-biased"])
def test_measures_of_pre_norm_and_gated_blocks_equal_the_slow_computation(family, measure):
    theirs, model = pair(family, "none", dtype=torch.float64)
    tokens = token_batch(model.cfg.pad_token_id, lengths=(9,))
    for include_bias in (True, False) if measure in VALUES_MATTER else (True,):
        fast = contributions(model, tokens, None, measure, include_bias=include_bias)
        slow = slow_modernbert_layers(theirs, {"input_ids": tokens}, include_bias)
        for layer in slow:
            torch.testing.assert_close(layer.resid_post, layer.out, atol=1e-10, rtol=0)
            b_O = layer.module.attn.Wo.bias
            if include_bias:
                written = layer.T.sum(dim=1) + (0 if b_O is None else b_O.detach())
                torch.testing.assert_close(layer.x + written, layer.resid_mid, atol=1e-10, rtol=0)
        torch.testing.assert_close(fast[0], SLOW[measure](slow), atol=1e-10, rtol=0)


@pytest.mark.sampled(3)
@pytest.mark.parametrize("measure", CONTRIBUTIONS)
@pytest.mark.parametrize("family", ["nomic", "gte", "jina", "eurobert", "eurobert-biased"])
def test_measures_of_rotary_families_equal_the_slow_computation(family, measure):
    theirs, model = pair(family, "none", dtype=torch.float64)
    tokens = token_batch(model.cfg.pad_token_id, lengths=(9,))
    for include_bias in (True, False) if measure in VALUES_MATTER else (True,):
        fast = contributions(model, tokens, None, measure, include_bias=include_bias)
        slow = SLOW[measure](slow_rotary_layers(theirs, {"input_ids": tokens}, include_bias))
        torch.testing.assert_close(fast[0], slow, atol=1e-10, rtol=0)


@pytest.mark.sampled(3)
@pytest.mark.parametrize("measure", CONTRIBUTIONS)
@pytest.mark.parametrize(
    "family",
    [
        "bert",
        "distilbert",
        "roberta",
        "electra-narrow",
        "mpnet",
        "modernbert",
        "nomic",
        "eurobert",
        "deberta",
        "deberta-v2",
    ],
)
def test_a_padded_batch_equals_its_texts_one_by_one(family, measure):
    _, model = pair(family, "none", dtype=torch.float64)
    tokens = token_batch(model.cfg.pad_token_id)
    together = contributions(model, tokens, None, measure)
    assert not together.isnan().any()
    for row, ids in zip(together, tokens, strict=True):
        n = int((ids != model.cfg.pad_token_id).sum())
        alone = contributions(model, ids[None, :n], None, measure)[0]
        torch.testing.assert_close(row[:, :n, :n], alone, atol=1e-10, rtol=0)
        assert (row[:, n:] == 0).all() and (row[:, :, n:] == 0).all()


@pytest.mark.parametrize("measure", ["rollout", "globenc"])
def test_what_reaches_a_token_from_all_input_tokens_is_everything(tiny, measure):
    tokens = token_batch(tiny.cfg.pad_token_id)
    real = (tokens != tiny.cfg.pad_token_id).double()
    rows = contributions(tiny, tokens, None, measure).sum(dim=-1)
    torch.testing.assert_close(rows, real[:, None].expand_as(rows), atol=1e-12, rtol=0)


@pytest.mark.parametrize("measure", CONTRIBUTIONS)
def test_the_mask_and_the_token_types_reach_the_model(tiny, measure):
    tokens = token_batch(tiny.cfg.pad_token_id, lengths=(6, 6))
    mask = torch.tensor([[1, 1, 1, 1, 0, 0], [1] * 6])
    masked = contributions(tiny, tokens, mask, measure)
    torch.testing.assert_close(masked[0, :, :4, :4], contributions(tiny, tokens[:1, :4], None, measure)[0])
    types = torch.tensor([[0, 0, 0, 1, 1, 1]] * 2)
    typed = contributions(tiny, tokens, mask, measure, token_type_ids=types)
    assert not torch.allclose(typed, masked)


def test_the_models_hooks_see_one_forward_pass(tiny):
    tokens, calls = token_batch(tiny.cfg.pad_token_id), []
    names = ("hook_pre", "hook_post", "hook_v", "hook_pattern", "hook_resid_mid", "hook_normalized_resid_post")
    with tiny.hooks([(lambda name: name.endswith(names), lambda activation, hook: calls.append(hook.name))]):
        for measure in CONTRIBUTIONS:
            calls.clear()
            contributions(tiny, tokens, None, measure)
            assert len(calls) == len(set(calls)) == len(names) * tiny.cfg.n_layers


def test_an_unknown_measure_is_an_error_that_names_those_there_are(tiny):
    with pytest.raises(InputError, match=r"'attention'.*all_heads_norm, residual, zeroing, rollout, globenc"):
        contributions(tiny, token_batch(0), None, "attention")


@pytest.mark.parametrize("measure", ["zeroing", "rollout"])
def test_leaving_out_a_bias_a_measure_does_not_have_is_an_error(tiny, measure):
    with pytest.raises(InputError, match="include_bias"):
        contributions(tiny, token_batch(0), None, measure, include_bias=False)
