"""A converted model is the model that was loaded that way: type and device are those of the parameters, everywhere."""

import copy
import pickle
from collections.abc import Callable
from functools import cache

import pytest
import torch
from torch import nn

from negprobe import AttentionProbe, HookedEncoder, NegprobeError, patch_sweep
from negprobe.base.errors import ModelError
from negprobe.patching import attribute
from tests.support import tiny_models
from tests.support.model_calls import CALLS, PAIRS, assert_same_numbers

CONVERSIONS: dict[str, tuple[torch.dtype, Callable[[nn.Module], nn.Module]]] = {
    "half": (torch.float16, lambda model: model.half()),
    "bfloat16": (torch.bfloat16, lambda model: model.bfloat16()),
    "to": (torch.float64, lambda model: model.to(torch.float64)),
    "type": (torch.float64, lambda model: model.type(torch.float64)),
    "inside": (torch.float64, lambda model: nn.Sequential(model).double()[0]),
    "back": (torch.float32, lambda model: model.double().float()),
    "like": (torch.float64, lambda model: model.to(torch.zeros((), dtype=torch.float64))),
}


@cache
def loaded(dtype: torch.dtype) -> HookedEncoder:
    return HookedEncoder.from_pretrained("tiny-negation", device="cpu", dtype=dtype)


@cache
def doubled() -> HookedEncoder:
    return HookedEncoder.from_pretrained("tiny-negation", device="cpu").double()


def bert(head: str = "masked_lm") -> HookedEncoder:
    return tiny_models.pair("bert", head)[1]


@pytest.mark.sampled(5)
@pytest.mark.parametrize("name", CALLS)
def test_a_model_converted_to_float64_gives_what_one_loaded_in_float64_gives(name: str) -> None:
    assert_same_numbers(CALLS[name](doubled()), CALLS[name](loaded(torch.float64)))


@pytest.mark.parametrize("name", CONVERSIONS)
def test_every_conversion_gives_what_loading_gives(name: str) -> None:
    dtype, convert = CONVERSIONS[name]
    model = convert(HookedEncoder.from_pretrained("tiny-negation", device="cpu"))
    assert model.dtype == model.cfg.dtype == model.W_E.dtype == dtype
    assert model.cfg.device == str(model.device) == "cpu"
    for call in ("patch_sweep", "metrics"):
        assert_same_numbers(CALLS[call](model), CALLS[call](loaded(dtype)))


def test_a_probe_follows_a_model_that_is_converted_later() -> None:
    model = HookedEncoder.from_pretrained("tiny-negation", device="cpu")
    probe = AttentionProbe(model)
    model.double()
    expected = AttentionProbe(loaded(torch.float64)).metrics(PAIRS)
    assert probe.metrics(PAIRS).attrs == expected.attrs
    assert_same_numbers(probe.metrics(PAIRS), expected)


@torch.no_grad()
@pytest.mark.parametrize("hooked", [False, True])
def test_autocast_masks_padding_in_the_type_of_the_scores(hooked: bool) -> None:
    model = loaded(torch.float32)
    tokens = model.to_tokens([PAIRS[0].original, "The door is [MASK]."])[0]
    hooks = [("blocks.0.attn.hook_pattern", lambda pattern, hook: None)] if hooked else []
    n_real = int((tokens[1] != model.cfg.pad_token_id).sum())
    with torch.autocast("cpu", torch.bfloat16):
        together, alone = (model.run_with_hooks(one, fwd_hooks=hooks) for one in (tokens, tokens[1:, :n_real]))
    assert tiny_models.largest_difference(together[1:, :n_real], alone) < 0.1


def test_configuration_follows_weights_that_are_loaded_in_another_type() -> None:
    model = bert()
    weights = {name: tensor.double() for name, tensor in model.state_dict().items()}
    model.load_state_dict(weights, assign=True)
    assert model.cfg.dtype == torch.float64


def test_two_models_of_one_configuration_are_converted_apart() -> None:
    one = bert()
    other = HookedEncoder(one.cfg)
    other.double()
    assert (one.cfg.dtype, other.cfg.dtype) == (torch.float32, torch.float64)


def test_a_model_is_made_in_the_type_of_its_configuration() -> None:
    cfg = bert().cfg
    cfg.dtype = torch.float64
    assert HookedEncoder(cfg).dtype == torch.float64


@pytest.mark.parametrize(
    ("head", "part"),
    [
        ("masked_lm", part)
        for part in ("embed", "embed.ln", "blocks.1", "blocks.0.attn", "blocks.2.mlp", "blocks.0.ln1", "mlm_head.ln")
    ]
    + [("masked_lm", "unembed"), ("classification", "classifier")],
)
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_a_model_of_several_types_is_refused_by_name(head: str, part: str, dtype: torch.dtype) -> None:
    model = bert(head)
    model.get_submodule(part).to(dtype)
    for run in (lambda: model("the door"), lambda: AttentionProbe(model).run("the door")):
        with pytest.raises(ModelError, match=rf"{part}.*{dtype}.*model\.to"):
            run()
    with pytest.raises(NegprobeError):
        patch_sweep(model, PAIRS, "z", by="head")


def test_a_single_parameter_of_another_type_is_refused_by_name() -> None:
    model = HookedEncoder.from_pretrained("tiny-negation", device="cpu")
    model.blocks[1].attn.b_K = nn.Parameter(model.blocks[1].attn.b_K.double())
    with pytest.raises(ModelError, match=r"blocks\.1\.attn\.b_K is torch\.float64"):
        attribute(model, PAIRS, by="head")


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_a_copy_is_converted_apart(copied: Callable[[HookedEncoder], HookedEncoder]) -> None:
    model = bert()
    other = copied(model).double()
    assert (model.cfg.dtype, other.cfg.dtype, other.dtype) == (torch.float32, torch.float64, torch.float64)


def test_a_model_loaded_or_converted_in_inference_mode_works_outside_of_it() -> None:
    theirs, ours = tiny_models.pair("bert")
    with torch.inference_mode():
        models = [
            HookedEncoder.from_pretrained("tiny-negation", device="cpu"),
            HookedEncoder.from_pretrained(copy.deepcopy(theirs).half().float(), device="cpu"),
            tiny_models.pair("bert")[1].half().float(),
            HookedEncoder(ours.cfg),
        ]
    for model in models:
        assert not any(parameter.is_inference() for parameter in model.parameters())
        tokens = torch.tensor([[2, 5, 6, 3]])
        model(tokens).sum().backward()
        assert all(parameter.grad is not None for parameter in model.blocks.parameters())
    expected = attribute(loaded(torch.float32), PAIRS, by="head")
    assert_same_numbers(attribute(models[0], PAIRS, by="head"), expected)
