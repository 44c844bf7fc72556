"""Layers that share their weights have one set of parameters, and hooks of their own."""

import copy
import json
import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from negprobe import HookedEncoder
from negprobe.base.errors import ModelError
from tests.support import tiny_models
from tests.support.tiny_models import N_LAYERS, largest_difference

TIED = {"albert": (0, 0, 0), "albert-groups": (0, 0, 2)}


def model_of(family: str) -> HookedEncoder:
    return tiny_models.pair(family, "masked_lm", torch.float64)[1]


def assert_tied(model: HookedEncoder) -> None:
    for block, first in zip(model.blocks, model.cfg.tied_to, strict=True):
        for name, parameter in block.named_parameters():
            assert parameter is model.blocks[first].get_parameter(name), name
    n_blocks = len({id(block.attn.W_Q) for block in model.blocks})
    assert n_blocks == len(set(model.cfg.tied_to)) < N_LAYERS


def reloaded(model: HookedEncoder, assign: bool) -> HookedEncoder:
    model.load_state_dict({name: tensor.clone() for name, tensor in model.state_dict().items()}, assign=assign)
    return model


def allocated_later(model: HookedEncoder) -> HookedEncoder:
    """As a model is loaded whose weights come after it: its parameters are allocated without values."""
    with torch.device("meta"):
        empty = HookedEncoder(model.cfg)
    empty.to_empty(device="cpu")
    empty.load_state_dict(model.state_dict())
    return empty


@pytest.mark.parametrize("family", TIED)
@pytest.mark.parametrize(
    "change",
    [
        lambda model: model,
        lambda model: model.float().double(),
        copy.deepcopy,
        lambda model: pickle.loads(pickle.dumps(model.state_dict())) and model,
        lambda model: reloaded(model, assign=False),
        lambda model: reloaded(model, assign=True),
        allocated_later,
    ],
    ids=["loaded", "converted", "copied", "pickled", "reloaded", "assigned", "allocated later"],
)
def test_blocks_share_their_parameters_whatever_happens_to_the_model(
    family: str, change: Callable[[HookedEncoder], HookedEncoder]
) -> None:
    model = model_of(family)
    assert model.cfg.tied_to == TIED[family]
    tokens = tiny_models.token_batch(model.cfg.pad_token_id)
    before = model(tokens)
    changed = change(model)
    assert_tied(changed)
    assert largest_difference(changed(tokens), before) < 1e-4


@pytest.mark.parametrize("family", TIED)
def test_a_model_holds_as_many_weights_as_hugging_faces(family: str) -> None:
    theirs, ours = tiny_models.pair(family, "classification")
    assert sum(p.numel() for p in ours.parameters()) == sum(p.numel() for p in theirs.parameters())


@pytest.mark.parametrize("family", TIED)
def test_the_gradient_of_a_shared_weight_is_hugging_faces(family: str) -> None:
    theirs, ours = tiny_models.pair(family, "masked_lm", torch.float64)
    tokens = tiny_models.token_batch(theirs.config.pad_token_id, (7, 7))
    for out in (ours(tokens), theirs(**tiny_models.hf_inputs(theirs, tokens)).logits):
        (out * torch.linspace(-1, 1, out.shape[-1])).sum().backward()
    for block, other in zip(ours.blocks, tiny_models.blocks_of(theirs), strict=True):
        assert largest_difference(block.mlp.W_in.grad, other.ffn.weight.grad.T) < 1e-10
    # A step of an optimiser counts a shared weight once.
    before = ours.blocks[0].mlp.W_in.detach().clone()
    torch.optim.SGD(ours.parameters(), lr=0.1).step()
    assert_tied(ours)
    assert largest_difference(ours.blocks[0].mlp.W_in, before - 0.1 * ours.blocks[0].mlp.W_in.grad) < 1e-12


def test_a_hook_is_of_one_layer_and_a_weight_of_all() -> None:
    model = model_of("albert")
    tokens = tiny_models.token_batch(model.cfg.pad_token_id)
    _, before = model.run_with_cache(tokens)
    with model.hooks([("blocks.1.hook_mlp_out", lambda mlp_out, hook: mlp_out + 1)]):
        _, hooked = model.run_with_cache(tokens)
    assert largest_difference(hooked["mlp_out", 0], before["mlp_out", 0]) == 0
    assert largest_difference(hooked["mlp_out", 1], before["mlp_out", 1] + 1) == 0
    with torch.no_grad():
        model.blocks[1].mlp.b_out += 1
    _, changed = model.run_with_cache(tokens)
    assert largest_difference(changed["mlp_out", 0], before["mlp_out", 0] + 1) < 1e-12


@pytest.mark.parametrize("left_out", [0, 1])
def test_weights_that_are_stored_once_are_those_of_all_layers(left_out: int) -> None:
    model = model_of("albert-groups")
    tokens = tiny_models.token_batch(model.cfg.pad_token_id)
    weights = model.state_dict()
    stored = {name: weight for name, weight in weights.items() if not name.startswith(f"blocks.{left_out}.")}
    assert len(stored) < len(weights)
    other = HookedEncoder(model.cfg)
    other.load_state_dict(stored)
    assert largest_difference(other(tokens), model(tokens)) < 1e-12


def test_weights_that_differ_between_layers_that_share_them_are_refused() -> None:
    model = model_of("albert")
    weights = model.state_dict()
    weights["blocks.2.attn.W_Q"] = weights["blocks.2.attn.W_Q"] + 1
    with pytest.raises(ModelError, match=r"blocks\.2\.attn\.W_Q is not what other layers have"):
        model.load_state_dict(weights)
    # Two groups have weights of their own.
    other = model_of("albert-groups")
    other.load_state_dict({name: tensor + name.startswith("blocks.2") for name, tensor in other.state_dict().items()})


def test_a_folder_with_many_layers_of_few_weights_is_read(tmp_path: Path) -> None:
    theirs = tiny_models.hf_model("albert", "masked_lm", torch.float64)
    theirs.save_pretrained(tmp_path)
    config = tmp_path / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"num_hidden_layers": 40}))
    theirs.config.num_hidden_layers = 40
    ours = HookedEncoder.from_pretrained(tmp_path, device="cpu", dtype=torch.float64)
    tokens = tiny_models.token_batch(ours.cfg.pad_token_id, (7, 7))
    with torch.no_grad():
        expected = theirs(**tiny_models.hf_inputs(theirs, tokens)).logits
        assert largest_difference(ours(tokens), expected) < 1e-10
    config.write_text(json.dumps(json.loads(config.read_text()) | {"inner_group_num": 40}))
    with pytest.raises(ModelError, match="They belong to different models"):
        HookedEncoder.from_pretrained(tmp_path, device="cpu")


def test_more_groups_than_layers_are_refused(tmp_path: Path) -> None:
    theirs = tiny_models.hf_model("albert", "masked_lm", num_hidden_groups=5)
    theirs.save_pretrained(tmp_path)
    for model in (tmp_path, theirs):
        with pytest.raises(ModelError, match="num_hidden_groups = 5, but only 3 layers"):
            HookedEncoder.from_pretrained(model, device="cpu")


@pytest.mark.parametrize("tied_to", [(0, 0), (0, 2, 2), (0, 0, 1), (0, 0, 5)])
def test_a_block_cannot_share_what_is_not_there(tied_to: tuple[int, ...]) -> None:
    with pytest.raises(ModelError, match="tied_to"):
        replace(model_of("albert").cfg, tied_to=tied_to)
