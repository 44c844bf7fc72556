"""The batched engine gives what one full forward pass per patch gives, by our own loop and by TransformerLens."""

import numpy as np
import pytest
import torch
from sample_pairs import EQUAL, INSERTED, LONGER, PAIRS
from transformer_lens import patching

from negprobe.errors import PatchingError
from negprobe.patching import objective_values, patch_sweep
from negprobe.statements import ROLES, StatementPair

HOOKS = {
    "resid_pre": "blocks.{}.hook_resid_pre",
    "attn_out": "blocks.{}.hook_attn_out",
    "mlp_out": "blocks.{}.hook_mlp_out",
    "z": "blocks.{}.attn.hook_z",
}

# Written by hand: [original position, counterfactual position] of every aligned token, and the counterfactual's roles.
ALIGNED = {
    # [CLS] the door is now|not open . so the door is [MASK] . [SEP]
    EQUAL: [(i, i) for i in range(14)],
    # [CLS] the soup is|isn'-t hot . so it is [MASK] . [SEP]
    LONGER: [(0, 0), (1, 1), (2, 2), (4, 6), (5, 7), (6, 8), (7, 9), (8, 10), (9, 11), (10, 12), (11, 13)],
    # [CLS] the cat is | no longer | awake and [MASK] . [SEP]
    INSERTED: [(0, 0), (1, 1), (2, 2), (3, 3), (4, 6), (5, 7), (6, 8), (7, 9), (8, 10)],
}
ROLE_OF = {
    EQUAL: {0: "cls", 4: "cue", 5: "affected", 11: "mask", 13: "sep"},
    LONGER: {0: "cls", 3: "cue", 4: "cue", 5: "cue", 6: "affected", 11: "mask", 13: "sep"},
    INSERTED: {0: "cls", 4: "cue", 5: "cue", 6: "affected", 8: "mask", 10: "sep"},
}


def tokens_of(tokenizer, text):
    return tokenizer(text, return_tensors="pt")["input_ids"]


def logit_difference(model, tokenizer, pair, tokens):
    """Reads full logits, without anything the engine uses."""
    target, foil = tokenizer.convert_tokens_to_ids([pair.target, pair.foil])
    at = (tokens[0] == tokenizer.mask_token_id).nonzero().item()
    return lambda logits: logits[0, at, target] - logits[0, at, foil]


def sides(pair, direction):
    return (pair.original, pair.counterfactual) if direction == "noising" else (pair.counterfactual, pair.original)


def links(pair, direction):
    """Base position -> source position."""
    return dict(ALIGNED[pair]) if direction == "noising" else {j: i for i, j in ALIGNED[pair]}


def slow(model, tokenizer, pair, site, direction, chosen, head=None):
    """One full forward pass with the base positions `chosen` (those aligned) overwritten, for every layer."""
    base, source = (tokens_of(tokenizer, text) for text in sides(pair, direction))
    _, cache = model.run_with_cache(source)
    read = logit_difference(model, tokenizer, pair, base)
    source_of = links(pair, direction)
    values = []
    for layer in range(model.cfg.n_layers):
        name = HOOKS[site].format(layer)

        def overwrite(activation, hook, name=name):
            activation = activation.clone()
            for position in chosen:
                if position in source_of:
                    where = (0, position) if head is None else (0, position, head)
                    there = (0, source_of[position]) if head is None else (0, source_of[position], head)
                    activation[where] = cache[name][there]
            return activation

        values.append(read(model.run_with_hooks(base, fwd_hooks=[(name, overwrite)])).item())
    return values


@pytest.mark.parametrize("pair", PAIRS, ids=["equal", "replaced", "inserted"])
@pytest.mark.parametrize("direction", ["noising", "denoising"])
@pytest.mark.parametrize("site", HOOKS)
def test_patches_by_position_equal_one_forward_pass_each(masked_lm, tokenizer, pair, direction, site):
    _, model = masked_lm
    result = patch_sweep(model, pair, site, by="position", direction=direction)["patched"].squeeze("pair")
    n = tokens_of(tokenizer, sides(pair, direction)[0]).shape[1]
    assert result.sizes["position"] == n
    for position in range(n):
        ours = result.sel(position=position).values
        if position in links(pair, direction):
            np.testing.assert_allclose(ours, slow(model, tokenizer, pair, site, direction, [position]), atol=1e-9)
        else:
            assert np.isnan(ours).all(), "an unmatched token has nothing to be swapped with"


@pytest.mark.parametrize("pair", PAIRS, ids=["equal", "replaced", "inserted"])
@pytest.mark.parametrize("direction", ["noising", "denoising"])
@pytest.mark.parametrize("site", ["resid_pre", "z"])
def test_patches_by_role_equal_one_forward_pass_each(masked_lm, tokenizer, pair, direction, site):
    _, model = masked_lm
    result = patch_sweep(model, pair, site, by="role", direction=direction)["patched"].squeeze("pair")
    # Only aligned positions can be swapped, and an aligned position has one role on both sides.
    aligned = [(i if direction == "noising" else j, ROLE_OF[pair].get(j)) for i, j in ALIGNED[pair]]
    target_is_affected = {p for p, r in aligned if r is None}
    for role in ROLES:
        chosen = [p for p, r in aligned if r == role] if role != "other" else sorted(target_is_affected)
        ours = result.sel(role=role).values
        if chosen:
            np.testing.assert_allclose(ours, slow(model, tokenizer, pair, site, direction, chosen), atol=1e-9)
        else:
            assert np.isnan(ours).all(), role


@pytest.mark.parametrize("pair", PAIRS, ids=["equal", "replaced", "inserted"])
@pytest.mark.parametrize("direction", ["noising", "denoising"])
def test_patches_by_head_equal_one_forward_pass_each(masked_lm, tokenizer, pair, direction):
    _, model = masked_lm
    result = patch_sweep(model, pair, "z", by="head", direction=direction)["patched"].squeeze("pair")
    everywhere = list(links(pair, direction))
    for head in range(model.cfg.n_heads):
        expected = slow(model, tokenizer, pair, "z", direction, everywhere, head=head)
        np.testing.assert_allclose(result.sel(head=head).values, expected, atol=1e-9)


@pytest.mark.parametrize("direction", ["noising", "denoising"])
def test_equal_length_pairs_give_what_transformer_lens_patching_gives(masked_lm, tokenizer, direction):
    _, model = masked_lm
    base, source = (tokens_of(tokenizer, text) for text in sides(EQUAL, direction))
    _, cache = model.run_with_cache(source)
    read = logit_difference(model, tokenizer, EQUAL, base)
    theirs = {
        ("resid_pre", "position"): patching.get_act_patch_resid_pre,
        ("attn_out", "position"): patching.get_act_patch_attn_out,
        ("mlp_out", "position"): patching.get_act_patch_mlp_out,
        ("z", "head"): patching.get_act_patch_attn_head_out_all_pos,
    }
    for (site, by), sweep in theirs.items():
        expected = sweep(model, base, cache, read).double().numpy()
        ours = patch_sweep(model, EQUAL, site, by=by, direction=direction)["patched"].squeeze("pair").values
        # TransformerLens stores its results in float32.
        np.testing.assert_allclose(ours, expected, atol=1e-5, err_msg=site)


def test_float32_patches_equal_the_loop_to_1e_5(masked_lm, tokenizer):
    _, model = masked_lm
    model.to(torch.float32)
    try:
        result = patch_sweep(model, LONGER, "resid_pre", by="position")["patched"].squeeze("pair")
        for position in links(LONGER, "noising"):
            expected = slow(model, tokenizer, LONGER, "resid_pre", "noising", [position])
            np.testing.assert_allclose(result.sel(position=position).values, expected, atol=1e-5)
    finally:
        model.to(torch.float64)


def test_a_batch_of_pairs_of_different_length_gives_each_what_it_gets_alone(masked_lm):
    _, model = masked_lm
    together = patch_sweep(model, PAIRS, "mlp_out", by="role", direction="denoising")
    for index, pair in enumerate(PAIRS):
        alone = patch_sweep(model, pair, "mlp_out", by="role", direction="denoising").squeeze("pair")
        for name in ("patched", "base", "source"):
            np.testing.assert_allclose(together[name].sel(pair=index), alone[name], atol=1e-9, err_msg=name)


def test_swapping_all_that_differs_gives_the_source_run_and_swapping_nothing_the_base_run(masked_lm):
    _, model = masked_lm
    # Before the first block the two runs differ in the cue's embedding alone.
    result = patch_sweep(model, EQUAL, "resid_pre", by="role", direction="noising")
    assert abs(result["base"] - result["source"]).item() > 1e-3
    assert result["patched"].sel(role="cue", layer=0).item() == pytest.approx(result["source"].item(), abs=1e-9)
    untouched = patch_sweep(model, StatementPair("A [MASK].", "A [MASK].", "dog", "cat"), "resid_pre", by="position")
    np.testing.assert_allclose(untouched["patched"].squeeze("pair"), untouched["base"].item(), atol=1e-12)


def test_results_name_their_parts_and_say_what_they_are(masked_lm):
    _, model = masked_lm
    result = patch_sweep(model, EQUAL, "resid_pre", by="position", direction="noising")
    assert result["patched"].dims == ("pair", "layer", "position")
    assert list(result["token"].values[:5]) == ["[CLS]", "the", "door", "is", "now"]
    assert result.attrs["site"] == "resid_pre"
    assert result.attrs["direction"] == "noising"
    assert result.attrs["objective"] == "logit_difference"
    assert list(patch_sweep(model, PAIRS, "z", by="role")["role"].values) == list(ROLES)


def test_unpatched_objectives_equal_hugging_face(masked_lm, tokenizer):
    theirs, model = masked_lm
    pairs = [*PAIRS, StatementPair(EQUAL.original, EQUAL.counterfactual, "dog", "cat", control=LONGER.original)]
    values = objective_values(model, pairs)
    for index, pair in enumerate(pairs):
        for side in ("original", "counterfactual", "control"):
            text = getattr(pair, side)
            if text is None:
                continue
            tokens = tokens_of(tokenizer, text)
            with torch.no_grad():
                expected = logit_difference(model, tokenizer, pair, tokens)(theirs(tokens).logits).item()
            assert values.loc[index, side] == pytest.approx(expected, abs=1e-9)
    assert values.loc[[0, 1, 2], "control"].isna().all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"site": "resid"}, "no site 'resid'"),
        ({"by": "head"}, "not made of heads"),
        ({"by": "token"}, "'position', 'role' or 'head'"),
        ({"direction": "both"}, "'noising' or 'denoising'"),
        ({"pairs": []}, "no pairs"),
    ],
)
def test_a_patch_that_does_not_exist_is_a_clear_error(masked_lm, change, message):
    _, model = masked_lm
    asked = {"pairs": EQUAL, "site": "resid_pre", "by": "position", "direction": "noising"} | change
    # The names are checked by us, not by the runtime type checks that only tests have.
    unchecked = getattr(patch_sweep, "__wrapped__", patch_sweep)
    with pytest.raises(PatchingError, match=message):
        unchecked(model, asked["pairs"], asked["site"], by=asked["by"], direction=asked["direction"])
