"""A configuration no encoder can be made of is refused by its setting's name; names mean what TransformerLens says."""

from typing import Any

import pytest
import torch

from negprobe.base.errors import ModelError
from negprobe.models import HookedEncoder, HookedEncoderConfig
from negprobe.models.config import DenseStep, LayerNormStep, NormalizeStep
from tests.support import tiny_models
from tests.support.tiny_models import largest_difference

SMALL: dict[str, Any] = {"d_model": 8, "d_head": 4, "n_layers": 2, "n_ctx": 6, "d_vocab": 20, "act_fn": "gelu"}

WRONG: dict[str, Any] = {
    "d_model": 0,
    "d_head": -4,
    "n_layers": 0,
    "n_ctx": 1.5,
    "d_vocab": "many",
    "n_heads": 0,
    "d_mlp": -1,
    "d_embed": -8,
    "n_token_types": -2,
    "pad_token_id": 20,
    "first_position": -1,
    "act_fn": "loud",
    "head_act": "loud",
    "head": "decoder",
    "pooling": "loud",
    "pool_from": -1,
    "embedding_steps": (DenseStep(3, 4),),
    "labels": (),
    "attn_only": True,
    "uses_rms_norm": True,
    "final_rms": True,
    "layer_norm_folding": True,
    "num_experts": 4,
    "experts_per_token": 2,
    "normalization_type": "none",
    "norms": "both",
    "positions": "learned",
    "rotary_bases": (1e4,),
    "windows": (2, None, 2),
    "positional_embedding_type": "rotary",
    "n_key_value_heads": 1,
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_setting_is_refused_by_its_name(name: str) -> None:
    cfg = HookedEncoderConfig(**SMALL)
    if name == "labels":
        cfg.head = "classification"
    # Set afterwards, for tests check the types of what a dataclass is made with.
    setattr(cfg, name, WRONG[name])
    with pytest.raises(ModelError, match=rf"\b{name}\b"):
        cfg.__post_init__()


@pytest.mark.parametrize("changes, message", [
    ({"pooling": ()}, "pooling is"), ({"pooling": ("mean", "loud")}, "pooling is"),
    ({"embedding_steps": (DenseStep(8, 3), DenseStep(4, 3))}, r"DenseStep\(d_in=4.*width 3"),
    ({"pooling": ("cls", "mean"), "embedding_steps": (LayerNormStep(8),)}, "width 16"),
    ({"embedding_steps": (DenseStep(8, 3, act_fn="loud"),)}, "act_fn of"),
    ({"embedding_steps": ("loud",)}, "embedding_steps has 'loud'"),
    ({"embedding_steps": (NormalizeStep(),), "head": "masked_lm"}, "need a model without a head"),
], ids=str)  # fmt: skip
def test_wrong_poolings_and_steps_after_them(changes: dict[str, Any], message: str) -> None:
    cfg = HookedEncoderConfig(**SMALL, model_name="mine")
    for name, value in changes.items():
        setattr(cfg, name, value)
    with pytest.raises(ModelError, match=message):
        cfg.__post_init__()


def test_a_missing_size_is_filled_in_or_refused_by_its_name() -> None:
    cfg = HookedEncoderConfig(**SMALL)
    assert (cfg.d_embed, cfg.n_heads, cfg.d_mlp) == (8, 2, 32)
    assert HookedEncoder(cfg).W_E.shape == (20, 8)
    assert HookedEncoder(HookedEncoderConfig(**SMALL, d_embed=4)).W_E.shape == (20, 4)
    with pytest.raises(ModelError, match="d_vocab is missing"):
        HookedEncoderConfig(**{name: size for name, size in SMALL.items() if name != "d_vocab"})
    with pytest.raises(ModelError, match=r"d_head.*n_heads"):
        HookedEncoderConfig(**SMALL | {"d_head": 3})


def test_a_configuration_that_was_spoiled_later_is_refused_when_a_model_is_made() -> None:
    cfg = HookedEncoderConfig(**SMALL)
    cfg.n_layers = -1
    with pytest.raises(ModelError, match="n_layers"):
        HookedEncoder(cfg)


@torch.no_grad()
@pytest.mark.parametrize("family", tiny_models.FAMILIES)
def test_embed_returns_the_state_after_layer_norm_as_in_transformer_lens(family: str) -> None:
    theirs, ours = tiny_models.pair(family, "masked_lm", torch.float64)
    tokens = tiny_models.token_batch(theirs.config.pad_token_id)
    base = theirs.base_model
    if hasattr(base, "embeddings"):
        # The oldest transformers computes these models' token types from the positions.
        of_types = family in ("nomic", "jina")
        expected = base.embeddings(tokens, **{"token_type_ids": torch.zeros_like(tokens)} if of_types else {})
    else:
        expected = base.embed_tokens(tokens)
    assert largest_difference(ours.embed(tokens), expected) < 1e-10
    assert largest_difference(ours.embed(tokens, torch.zeros_like(tokens)), expected) < 1e-10
    if family == "bert":
        types = torch.ones_like(tokens)
        expected = base.embeddings(tokens, token_type_ids=types)
        assert largest_difference(ours.embed(tokens, types), expected) < 1e-10


@torch.no_grad()
def test_predictions_of_one_row_are_a_string_as_in_transformer_lens_and_of_several_a_list() -> None:
    ours = tiny_models.pair("bert", "masked_lm")[1]
    one, two = "the door is [MASK]", ["the door is [MASK]", "a dog is [MASK]"]
    predicted = ours(one, return_type="predictions")
    assert isinstance(predicted, str)
    for given in ([one], ours.to_tokens(one)[0]):
        assert ours(given, return_type="predictions") == predicted
    assert ours(two, return_type="predictions")[0] == predicted and len(ours(two, return_type="predictions")) == 2
    classifier = tiny_models.pair("bert", "classification")[1]
    assert classifier(["the door", "a dog"], return_type="predictions")[0] == classifier(
        ["the door"], return_type="predictions"
    )
