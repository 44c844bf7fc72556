"""An encoder that is part of another `HookedRootModule`, which renames every hook point, gives what it gives alone."""

from functools import cache

import pytest
import torch
from torch import Tensor
from transformer_lens import HookedRootModule, patching
from transformer_lens.hook_points import HookPoint

from negprobe import AttentionProbe, HookedEncoder, patch_sweep
from negprobe.patching import attribute
from tests.support import tiny_models
from tests.support.model_calls import CALLS, PAIRS, assert_same_numbers


class Ranker(HookedRootModule):
    """As retrieval models are wrapped: an encoder, and one number for each text."""

    def __init__(self, encoder: HookedEncoder) -> None:
        super().__init__()
        self.encoder = encoder
        self.hook_score = HookPoint()
        self.setup()

    def forward(self, *args: object, **kwargs: object) -> Tensor:
        return self.hook_score(self.encoder(*args, **kwargs).mean(dim=(1, 2)))


@cache
def alone() -> HookedEncoder:
    return HookedEncoder.from_pretrained("tiny-negation", device="cpu")


@cache
def inside() -> HookedEncoder:
    return Ranker(HookedEncoder.from_pretrained("tiny-negation", device="cpu")).encoder


@pytest.mark.sampled(5)
@pytest.mark.parametrize("name", CALLS)
def test_every_function_gives_what_it_gives_for_the_encoder_alone(name: str) -> None:
    assert inside().embed.hook_embed.name == "encoder.embed.hook_embed"
    assert_same_numbers(CALLS[name](inside()), CALLS[name](alone()))


@torch.no_grad()
def test_caches_have_the_encoders_own_names() -> None:
    tokens = alone().to_tokens(PAIRS[0].original)[0]
    for run in (
        lambda model: model.run_with_cache(tokens)[1],
        lambda model: model.run_with_cache(tokens, remove_batch_dim=True, pos_slice=(1, 4))[1],
        lambda model: model.run_with_cache(tokens, names_filter=["blocks.1.attn.hook_z"])[1],
        lambda model: model.run_with_cache(tokens, return_cache_object=False)[1],
        added_for_good,
    ):
        mine, expected = run(inside()), run(alone())
        assert list(mine.keys()) == list(expected.keys())
        for name, activation in expected.items():
            assert torch.equal(mine[name], activation), name


def added_for_good(model: HookedEncoder) -> dict[str, Tensor]:
    kept: dict[str, Tensor] = {}
    assert model.add_caching_hooks(lambda name: name.endswith("hook_pattern"), cache=kept) is kept
    model(model.to_tokens(PAIRS[0].original)[0])
    model.reset_hooks()
    return kept


def test_gradients_are_cached_under_own_names_too() -> None:
    for model in (alone(), inside()):
        cache, fwd, bwd = model.get_caching_hooks(lambda name: name.endswith("mlp.hook_post"), incl_bwd=True)
        with model.hooks(fwd, bwd):
            model(model.to_tokens(PAIRS[0].original)[0]).sum().backward()
        assert set(cache) == {f"blocks.{at}.mlp.hook_post{end}" for at in range(4) for end in ("", "_grad")}


@torch.no_grad()
def test_transformer_lenss_patching_gives_what_it_gives_for_the_encoder_alone() -> None:
    clean, corrupted = (alone().to_tokens(f"The door is {word} open.")[0] for word in ("now", "not"))
    found = []
    for model in (alone(), inside()):
        _, cache = model.run_with_cache(clean)
        metric = lambda logits: logits[0, -3, 4]  # noqa: E731
        found.append(patching.get_act_patch_attn_head_out_all_pos(model, corrupted, cache, metric))
    assert torch.equal(*found)
    assert float(found[0].std()) > 0


def test_what_the_other_module_hooks_acts_and_outlives_every_run_inside() -> None:
    def halved(activation: Tensor, hook: HookPoint) -> Tensor:
        return 0.5 * activation

    calls = {
        "patch_sweep": lambda model: patch_sweep(model, PAIRS, "z", by="head"),
        "attribute": lambda model: attribute(model, PAIRS, by="head"),
        "metrics": lambda model: AttentionProbe(model).metrics(PAIRS),
        "cache": lambda model: model.run_with_cache(PAIRS[0].original)[1]["resid_pre", 3],
    }
    outer, model = Ranker(HookedEncoder.from_pretrained("tiny-negation", device="cpu")), alone()
    for call in calls.values():
        with model.hooks(fwd_hooks=[("blocks.1.hook_mlp_out", halved)]):
            expected = call(model)
        with outer.hooks(fwd_hooks=[("encoder.blocks.1.hook_mlp_out", halved)]):
            for _ in range(2):
                assert_same_numbers(call(outer.encoder), expected)
        assert not outer.encoder.blocks[1].hook_mlp_out.fwd_hooks
        assert_same_numbers(call(outer.encoder), call(model))


def test_weights_with_the_earlier_name_of_the_first_layer_norm_load_alone_and_inside() -> None:
    model = tiny_models.pair("bert")[1]
    weights = model.state_dict()
    earlier = {name.replace("embed.ln.", "ln_embed."): tensor for name, tensor in weights.items()}
    assert set(earlier) != set(weights)
    other = HookedEncoder(model.cfg)
    other.load_state_dict(earlier)
    assert torch.equal(other.ln_embed.w, model.ln_embed.w)
    outer = Ranker(HookedEncoder(model.cfg))
    outer.load_state_dict({f"encoder.{name}": tensor for name, tensor in earlier.items()})
    tokens = torch.tensor([[2, 5, 6, 3]])
    assert torch.equal(outer.encoder(tokens), model(tokens))
