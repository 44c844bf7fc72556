"""A patched path gives what two whole forward passes give in which everything off the path is overwritten by hand."""

import copy

import numpy as np
import pytest
import torch

from negprobe.base.errors import PatchingError
from negprobe.patching import mean_effect, patch_sweep
from negprobe.patching.paths import path_patch
from negprobe.statements import StatementPair
from tests.support import slow_patching, tiny_models
from tests.support.sample_pairs import TINY, TINY_EQUAL, TINY_INSERTED, TINY_TWO_TEXTS, answering, whole

PAIRS = [of.pair for of in TINY]
INPUTS = ("q", "k", "v")


def all_receivers(model):
    layers, heads = range(model.cfg.n_layers), range(model.cfg.n_heads)
    return [(layer, head, site) for layer in layers for head in heads for site in INPUTS]


def sender_run(model, of, direction, layer, head, mlps):
    """What a run gives in which one head writes what it writes in the source: its output and every q, k and v.

    All other heads, and the MLPs if they are frozen, write what they write in the base.
    """
    base, source = of.texts(direction)
    z, theirs = (slow_patching.unpatched(model, text, "z") for text in (base, source))
    for position, there in of.source_of(direction).items():
        z[layer][position, head] = theirs[layer][there, head]
    kept = {(site, at): None for site in INPUTS for at in range(model.cfg.n_layers)}
    hooks = [(f"blocks.{at}.attn.hook_z", lambda old, hook, new=new: new[None]) for at, new in enumerate(z)]
    if mlps == "frozen":
        written = slow_patching.unpatched(model, base, "mlp_out")
        hooks += [(f"blocks.{at}.hook_mlp_out", lambda old, hook, new=new: new[None]) for at, new in enumerate(written)]
    for site, at in kept:

        def look(activation, hook, key=(site, at)):
            kept[key] = activation[0].clone()

        hooks.append((f"blocks.{at}.attn.hook_{site}", look))
    tokens, types, mask = slow_patching.inputs(model, base)
    with torch.no_grad():
        output = model.run_with_hooks(tokens, token_type_ids=types, one_zero_attention_mask=mask, fwd_hooks=hooks)
    return output, kept


def slow(model, of, direction, receivers, mlps):
    """The objective of every path: `[sender receiver]`, the output where there are no receivers."""
    base, _ = of.texts(direction)
    read = slow_patching.default(model, of.pair, base)
    senders = [(layer, head) for layer in range(model.cfg.n_layers) for head in range(model.cfg.n_heads)]
    found = np.full((len(senders), len(receivers) or 1), np.nan)
    for row, (layer, head) in zip(found, senders, strict=True):
        output, seen = sender_run(model, of, direction, layer, head, mlps)
        if not receivers:
            row[0] = read(output).item()
        for i, (above, to, site) in enumerate(receivers):
            if above > layer:

                def write(activation, new=seen[site, above], to=to):
                    activation[:, to] = new[:, to]

                patched = slow_patching.runs(model, base, slow_patching.hook_name(site, above), [write])
                row[i] = read(patched).item()
    return found


@pytest.mark.sampled(3)
@pytest.mark.parametrize(
    ("direction", "mlps"), [("noising", "live"), ("denoising", "frozen"), ("noising", "frozen"), ("denoising", "live")]
)
def test_paths_to_the_output_equal_two_whole_forward_passes_in_a_padded_batch(tiny, direction, mlps):
    pairs = [*TINY, TINY_TWO_TEXTS]
    result = path_patch(tiny, [of.pair for of in pairs], direction=direction, mlps=mlps)
    assert result["patched"].dims == ("pair", "sender", "receiver")
    assert list(result["sender"].values) == [f"{layer}.{head}" for layer in range(3) for head in range(4)]
    assert list(result["sender_layer"].values) == [0] * 4 + [1] * 4 + [2] * 4
    assert list(result["sender_head"].values) == [0, 1, 2, 3] * 3
    assert list(result["receiver"].values) == ["output"]
    for index, of in enumerate(pairs):
        expected = slow(tiny, of, direction, [], mlps)
        np.testing.assert_allclose(result["patched"].sel(pair=index).values, expected, atol=1e-10)
    assert abs(result["patched"] - result["base"]).min("pair").max() > 1e-3


@pytest.mark.sampled(2)
@pytest.mark.parametrize(("direction", "mlps"), [("noising", "live"), ("denoising", "frozen")])
def test_paths_to_every_head_equal_two_whole_forward_passes_in_a_padded_batch(tiny, direction, mlps):
    receivers = all_receivers(tiny)
    result = path_patch(tiny, PAIRS, receivers=receivers, direction=direction, mlps=mlps)
    assert list(result["receiver"].values) == [f"{layer}.{head} {site}" for layer, head, site in receivers]
    for index, of in enumerate(TINY[1:], start=1):
        expected = slow(tiny, of, direction, receivers, mlps)
        np.testing.assert_allclose(result["patched"].sel(pair=index).values, expected, atol=1e-10)
    for site in INPUTS:
        of_site = result.sel(receiver=result["receiver"].str.endswith(site))
        assert abs(of_site["patched"] - of_site["base"]).max() > 1e-3, site


@pytest.mark.sampled(2)
@pytest.mark.parametrize("head", ["classification", "none"])
def test_paths_of_other_heads_and_families_equal_two_whole_forward_passes(head):
    model = tiny_models.pair("distilbert", head, torch.float64)[1]
    pairs = [answering(of, *model.cfg.labels[:2]) if head == "classification" else whole(of) for of in TINY]
    receivers = [(2, 3, "v"), (1, 0, "k"), (2, 1, "q")]
    for to in ([], receivers):
        result = path_patch(model, [of.pair for of in pairs], receivers=to or "output")
        for index in (0, 2):
            expected = slow(model, pairs[index], "noising", to, "live")
            np.testing.assert_allclose(result["patched"].sel(pair=index).values, expected, atol=1e-10)


@pytest.mark.sampled(3)
@pytest.mark.parametrize("mlps", ["live", "frozen"])
@pytest.mark.parametrize("head", tiny_models.HEADS)
@pytest.mark.parametrize(
    "family",
    [
        "modernbert",
        "modernbert-biased",
        "nomic",
        "gte",
        "jina",
        "eurobert",
        "albert",
        "megatron-bert",
        "roberta-prelayernorm",
        "xlm-roberta-xl",
    ],
)
def test_paths_through_pre_norm_and_gated_blocks_equal_two_whole_forward_passes(family, head, mlps):
    model = tiny_models.pair(family, head, torch.float64)[1]
    labels = model.cfg.labels[:2]
    pairs = TINY if head == "masked_lm" else [answering(of, *labels) if labels else whole(of) for of in TINY]
    for to in ([], [(2, 3, "v"), (1, 0, "k"), (2, 1, "q")]):
        result = path_patch(model, [of.pair for of in pairs], receivers=to or "output", mlps=mlps)
        for index in (0, 2):
            expected = slow(model, pairs[index], "noising", to, mlps)
            np.testing.assert_allclose(result["patched"].sel(pair=index).values, expected, atol=1e-10)
        assert abs(result["patched"] - result["base"]).max() > 1e-3


def test_from_the_last_layer_the_path_to_the_output_is_all_there_is(tiny):
    paths = path_patch(tiny, PAIRS)
    swaps = patch_sweep(tiny, PAIRS, "z", by="head")
    direct = paths["patched"].squeeze("receiver")

    def difference(layer):
        from_layer = direct.sel(sender=direct["sender_layer"] == layer)
        return abs(from_layer.values - swaps["patched"].sel(layer=layer).values).max()

    assert difference(layer=tiny.cfg.n_layers - 1) < 1e-10
    assert difference(layer=0) > 1e-3
    for name in ("base", "source"):
        np.testing.assert_allclose(paths[name], swaps[name], atol=1e-10)


def test_a_sender_that_writes_nothing_or_nothing_new_gives_the_base_run(tiny):
    receivers = all_receivers(tiny)[12:]
    same = StatementPair("The door is [MASK].", "The door is [MASK].", "big", "red")
    mute = copy.deepcopy(tiny)
    with torch.no_grad():
        mute.blocks[0].attn.W_O[2] = 0
    for to in ("output", receivers):
        unmoved = path_patch(tiny, same, receivers=to)
        np.testing.assert_allclose(unmoved["patched"].sel(sender="0.1"), unmoved["base"].item(), atol=1e-10)
        silent = path_patch(mute, TINY_EQUAL.pair, receivers=to)
        np.testing.assert_allclose(silent["patched"].sel(sender="0.2"), silent["base"].item(), atol=1e-10)
        assert abs(silent["patched"] - silent["base"]).sel(sender=["0.1", "0.3"]).max() > 1e-4


def test_a_receiver_hears_no_sender_of_its_own_layer_or_a_higher_one(tiny):
    receivers = [(0, 1, "q"), (1, 2, "v"), (2, 0, "k")]
    heard = path_patch(tiny, TINY_INSERTED.pair, receivers=receivers)["patched"].squeeze("pair").notnull()
    for receiver, (layer, _, _) in enumerate(receivers):
        np.testing.assert_array_equal(heard.isel(receiver=receiver), heard["sender_layer"] < layer)


def test_each_receiver_is_patched_by_itself_whatever_others_are_asked_for(tiny):
    receivers = [(2, 0, "q"), (1, 3, "v"), (2, 2, "q")]
    together = path_patch(tiny, PAIRS, receivers=receivers)
    for receiver in receivers:
        alone = path_patch(tiny, PAIRS, receivers=[receiver])
        name = alone["receiver"].values[0]
        np.testing.assert_allclose(alone["patched"].sel(receiver=name), together["patched"].sel(receiver=name))


def test_float32_paths_equal_those_of_float64_to_1e_4(tiny):
    receivers = all_receivers(tiny)
    double = [path_patch(tiny, PAIRS, receivers=to)["patched"] for to in ("output", receivers)]
    tiny.to(torch.float32)
    try:
        single = [path_patch(tiny, PAIRS, receivers=to)["patched"] for to in ("output", receivers)]
    finally:
        tiny.to(torch.float64)
    for ours, expected in zip(single, double, strict=True):
        np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-4)


def test_results_say_what_they_are_and_have_effects(tiny):
    told = []
    result = path_patch(
        tiny, PAIRS * 12, direction="denoising", mlps="frozen", progress=lambda step, done, total: told.append(done)
    )
    assert told == sorted(told)
    assert told[-1] == 36
    assert result.attrs["direction"] == "denoising"
    assert result.attrs["mlps"] == "frozen"
    assert result.attrs["site"] == "path"
    assert result.attrs["objective"] == "logit_difference"
    effects = mean_effect(result)
    assert effects.dims == ("sender", "receiver")
    assert effects.notnull().all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"receivers": []}, r"at least one \(layer, head"),
        ({"receivers": [(3, 0, "q")]}, "layers go from 0 to 2"),
        ({"receivers": [(1, 4, "q")]}, "heads from 0 to 3"),
        ({"pairs": []}, "no pairs"),
    ],
)
def test_a_path_that_does_not_exist_is_a_clear_error(tiny, change, message):
    asked = {"pairs": TINY_EQUAL.pair} | change
    with pytest.raises(PatchingError, match=message):
        path_patch(tiny, asked.pop("pairs"), **asked)


def test_a_model_with_hooks_is_refused_because_a_path_would_pass_them_by(tiny):
    hooks = [("blocks.1.hook_mlp_out", lambda activation, hook: activation * 0)]
    with tiny.hooks(fwd_hooks=hooks), pytest.raises(PatchingError, match="has hooks"):
        path_patch(tiny, TINY_EQUAL.pair)
