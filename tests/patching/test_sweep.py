"""A sweep gives, cell by cell, what a whole forward pass gives in which those entries are overwritten."""

import numpy as np
import pytest
import torch
from transformer_lens import patching

from negprobe.base.errors import InputError, PatchingError
from negprobe.patching import SITES, objective_values, patch_sweep
from negprobe.statements import ROLES, StatementPair
from tests.support import slow_patching
from tests.support.sample_pairs import PAIRS, TINY, TINY_EQUAL, TINY_INSERTED, TINY_TWO_TEXTS, WORDPIECES

DIRECTIONS = ("noising", "denoising")


def assert_equals_the_loop(result, expected, by, atol=1e-10):
    """Compare a pair of a sweep with its slow values; behind a pair's own positions there is nothing."""
    ours = result["patched"].values
    if "position" in by:
        assert np.isnan(ours[..., expected.shape[-1] :]).all()
        ours = ours[..., : expected.shape[-1]]
    assert ours.shape == expected.shape
    np.testing.assert_allclose(ours, expected, atol=atol, rtol=0, err_msg=f"{by}")


def test_the_loop_knows_every_site():
    assert sorted(slow_patching.SITES) == sorted(SITES)


@pytest.mark.sampled(3)
@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("site", slow_patching.BERT_SITES)
def test_every_part_of_every_site_equals_whole_forward_passes_in_a_padded_batch(tiny, site, direction):
    # The finest parts both ways; of the others one way is enough.
    for by in slow_patching.parts_of(site)[: None if direction == "noising" else 1]:
        result = patch_sweep(tiny, [of.pair for of in TINY], site, by=by, direction=direction)
        assert result["patched"].dims == ("pair", "layer", *by)
        for index, of in enumerate(TINY):
            expected = slow_patching.swaps(tiny, of, site, by, direction)
            assert_equals_the_loop(result.isel(pair=index), expected, by)
        # A swap of token types changes nothing in single texts; all others have something to say.
        moved = abs(result["patched"] - result["base"]).max(["layer", *by])
        assert (moved < 1e-12).all() if site == "token_type_embed" else moved.max() > 1e-3


@pytest.mark.sampled(3)
@pytest.mark.parametrize("keys", [None, "cue", "affected"])
@pytest.mark.parametrize("renormalize", [False, True])
def test_a_pattern_can_be_swapped_key_by_key_and_its_rows_renormalised(tiny, keys, renormalize):
    for direction in DIRECTIONS:
        by = ("head", "position")
        result = patch_sweep(
            tiny, [of.pair for of in TINY], "pattern", by=by, direction=direction, keys=keys, renormalize=renormalize
        )
        for index, of in enumerate(TINY):
            expected = slow_patching.swaps(tiny, of, "pattern", by, direction, keys=keys, renormalize=renormalize)
            assert_equals_the_loop(result.isel(pair=index), expected, by)


def test_scores_can_be_swapped_key_by_key(tiny):
    result = patch_sweep(tiny, [of.pair for of in TINY], "attn_scores", by=("role", "head"), keys="affected")
    for index, of in enumerate(TINY):
        expected = slow_patching.swaps(tiny, of, "attn_scores", ("head", "role"), "noising", keys="affected")
        assert_equals_the_loop(result.isel(pair=index), expected, ("head", "role"))


@pytest.mark.parametrize("site", ["embed", "pos_embed", "token_type_embed", "full_embed", "resid_pre", "k", "mlp_out"])
def test_a_statement_of_two_texts_keeps_its_token_types(tiny, site):
    # Beside a longer statement of one text, so that its own types are padded.
    for index, batch in enumerate(([TINY_TWO_TEXTS], [TINY_EQUAL, TINY_TWO_TEXTS])):
        result = patch_sweep(tiny, [of.pair for of in batch], site, by="position", direction="denoising")
        expected = slow_patching.swaps(tiny, TINY_TWO_TEXTS, site, ("position",), "denoising")
        assert_equals_the_loop(result.isel(pair=index), expected, ("position",))


@pytest.mark.sampled(5)
@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize(
    ("site", "by"), [("resid_pre", ("position",)), ("mlp_out", ("role",)), ("z", ("head", "role"))]
)
def test_wordpieces_and_words_of_several_of_them_are_patched_as_the_loop_does(masked_lm, direction, site, by):
    _, model = masked_lm
    result = patch_sweep(model, [of.pair for of in WORDPIECES], site, by=by, direction=direction)
    for index, of in enumerate(WORDPIECES):
        expected = slow_patching.swaps(model, of, site, by, direction)
        assert_equals_the_loop(result.isel(pair=index), expected, by)


@pytest.mark.parametrize(
    ("direction", "theirs"),
    [
        (
            "noising",
            {
                ("resid_pre", "position"): patching.get_act_patch_resid_pre,
                ("q", "head"): patching.get_act_patch_attn_head_q_all_pos,
                ("v", "head"): patching.get_act_patch_attn_head_v_all_pos,
                ("pattern", "head"): patching.get_act_patch_attn_head_pattern_all_pos,
            },
        ),
        (
            "denoising",
            {
                ("mlp_out", "position"): patching.get_act_patch_mlp_out,
                ("z", "head"): patching.get_act_patch_attn_head_out_all_pos,
                ("k", "head"): patching.get_act_patch_attn_head_k_all_pos,
            },
        ),
    ],
)
def test_equal_length_pairs_give_what_transformer_lens_patching_gives(tiny, direction, theirs):
    base, source = TINY_EQUAL.texts(direction)
    tokens, _, _ = slow_patching.inputs(tiny, base)
    _, cache = tiny.run_with_cache(source)
    read = slow_patching.default(tiny, TINY_EQUAL.pair, base)
    for (site, by), sweep in theirs.items():
        with torch.no_grad():
            expected = sweep(tiny, tokens, cache, lambda logits: read(logits)[0]).double().numpy()
        ours = patch_sweep(tiny, TINY_EQUAL.pair, site, by=by, direction=direction)["patched"].squeeze("pair").values
        # TransformerLens stores its results in float32.
        np.testing.assert_allclose(ours, expected, atol=1e-5, err_msg=site)


@pytest.mark.parametrize("site", ["embed", "pattern", "resid_mid"])
def test_a_pair_gets_in_a_batch_what_it_gets_alone(tiny, site):
    together = patch_sweep(tiny, [of.pair for of in TINY], site, by="role", direction="denoising")
    for index, of in enumerate(TINY):
        alone = patch_sweep(tiny, of.pair, site, by="role", direction="denoising").squeeze("pair")
        for name in ("patched", "base", "source"):
            np.testing.assert_allclose(together[name].sel(pair=index), alone[name], atol=1e-12, err_msg=name)


def test_a_pair_is_in_its_own_row_whatever_the_lengths_of_the_others(tiny):
    pairs = [of.pair for of in TINY]
    there, back = (patch_sweep(tiny, order, "mlp_out", by="role") for order in (pairs, pairs[::-1]))
    for name in ("patched", "base", "source"):
        np.testing.assert_allclose(there[name], back[name][::-1], atol=1e-12)
    assert list(there["unmatched"].values) == list(back["unmatched"].values[::-1]) == ["", "really", ""]


def test_swapping_all_that_differs_gives_the_source_run(tiny):
    # Before the first block the two runs differ in the cue's embedding alone.
    for site in ("embed", "full_embed", "resid_pre"):
        for direction in DIRECTIONS:
            result = patch_sweep(tiny, TINY_EQUAL.pair, site, by="role", direction=direction)
            assert abs(result["base"] - result["source"]).item() > 1e-3
            assert result["patched"].sel(role="cue", layer=0).item() == pytest.approx(
                result["source"].item(), abs=1e-11
            )


@pytest.mark.parametrize("site", slow_patching.BERT_SITES)
def test_swapping_nothing_gives_the_base_run_exactly(tiny, site):
    # Of different length from one another, so that one of the runs is padded.
    same = [StatementPair(of.pair.original, of.pair.original, "dog", "house") for of in TINY]
    result = patch_sweep(tiny, same, site, by=("head", "position") if site in slow_patching.HEADS else "position")
    assert (result["base"] == result["source"]).all()
    patched = result["patched"].where(result["patched"].notnull(), result["base"])
    assert (patched == result["base"]).all(), "a cell is not the base to the last bit"
    assert result["patched"].notnull().any()


SITES_WITH_HEADS = [site for site in slow_patching.BERT_SITES if SITES[site].has_heads]


@pytest.mark.parametrize("site", SITES_WITH_HEADS)
def test_a_silenced_head_has_no_effect(site):
    model = slow_patching.tiny_model("bert", "masked_lm")
    with torch.no_grad():
        model.blocks[1].attn.W_O[2] = 0
    result = patch_sweep(model, [of.pair for of in TINY], site, by="head", direction="denoising")
    moved = abs(result["patched"] - result["base"]).max("pair")
    assert moved.sel(layer=1, head=2).item() < 1e-13
    others = moved.values.flatten()[np.arange(moved.size) != 1 * model.cfg.n_heads + 2]
    assert (others > 1e-6).all()


def test_results_name_their_parts_and_say_what_they_are(tiny):
    result = patch_sweep(tiny, TINY_EQUAL.pair, "resid_pre", by="position", direction="noising")
    assert result["patched"].dims == ("pair", "layer", "position")
    assert list(result["token"].values[:6]) == ["[CLS]", "The", "door", "is", "now", "open"]
    expected = {"site": "resid_pre", "how": "swap", "direction": "noising", "objective": "logit_difference"}
    assert expected.items() <= result.attrs.items()
    result = patch_sweep(tiny, [of.pair for of in TINY], "z", by=("role", "head"))
    assert result["patched"].dims == ("pair", "layer", "head", "role")
    assert list(result["role"].values) == list(ROLES)
    assert patch_sweep(tiny, TINY_EQUAL.pair, "full_embed", by="role").sizes["layer"] == 1


def test_progress_is_told_of_every_pair(tiny, monkeypatch):
    monkeypatch.setattr("negprobe.patching.runs._PAIRS_AT_ONCE", 2)
    told = []
    patch_sweep(
        tiny, [of.pair for of in TINY], "mlp_out", by="role", progress=lambda step, done, total: told.append(done)
    )
    assert told == [2, 3]


def test_unpatched_objectives_equal_hugging_face(masked_lm, tokenizer):
    theirs, model = masked_lm
    pairs = [*PAIRS, StatementPair(PAIRS[0].original, PAIRS[0].counterfactual, "dog", "cat", control=PAIRS[1].original)]
    values = objective_values(model, pairs).to_dataframe()
    swept = patch_sweep(model, pairs, "mlp_out", by="role", direction="denoising")
    for index, pair in enumerate(pairs):
        target, foil = tokenizer.convert_tokens_to_ids([pair.target, pair.foil])
        for side in ("original", "counterfactual", "control"):
            text = getattr(pair, side)
            if text is None:
                assert np.isnan(values.loc[index, side])
                continue
            tokens = tokenizer(text, return_tensors="pt")["input_ids"]
            with torch.no_grad():
                logits = theirs(tokens).logits[0, tokens[0] == tokenizer.mask_token_id][0]
            assert values.loc[index, side] == pytest.approx((logits[target] - logits[foil]).item(), abs=1e-9)
        assert swept["base"].values[index] == pytest.approx(values.loc[index, "counterfactual"], abs=1e-11)
        assert swept["source"].values[index] == pytest.approx(values.loc[index, "original"], abs=1e-11)


ASKED = {"pairs": TINY_EQUAL.pair, "site": "resid_pre", "by": "position"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"site": "resid"}, "no site 'resid'; choose one of embed, "),
        ({"by": "head"}, "has no heads"),
        ({"by": ("head", "role")}, "has no heads"),
        ({"by": ()}, "by must be 'position', 'role', 'head'"),
        ({"by": ("role", "role")}, "by must be 'position', 'role', 'head'"),
        ({"site": "z", "by": ("head", "role", "position")}, "by must be 'position', 'role', 'head'"),
        ({"pairs": []}, "no pairs"),
        ({"keys": "cue"}, "'resid_pre' has no keys"),
        ({"site": "z", "keys": "cue"}, "'z' has no keys"),
        ({"site": "pattern", "keys": "negation"}, "no role 'negation'; choose one of cue, "),
        ({"renormalize": True}, "renormalize needs the site 'pattern'"),
        ({"site": "attn_scores", "renormalize": True}, "renormalize needs the site 'pattern'"),
        ({"pairs": StatementPair("It is open.", "It is not open.", "big", "red")}, "0 mask tokens"),
    ],
)
def test_a_sweep_that_does_not_exist_is_a_clear_error(tiny, change, message):
    asked = ASKED | change
    with pytest.raises(PatchingError, match=message):
        patch_sweep(tiny, asked.pop("pairs"), asked.pop("site"), **asked)


def test_an_embedding_that_the_family_does_not_have_is_a_clear_error():
    model = slow_patching.tiny_model("distilbert", "masked_lm")
    with pytest.raises(
        PatchingError,
        match=r"has no 'token_type_embed'; its sites are embed, pos_embed, full_embed, ",
    ):
        patch_sweep(model, TINY_EQUAL.pair, "token_type_embed", by="position")


def test_a_statement_that_is_too_long_is_refused(tiny):
    long = StatementPair("The dog is [MASK]" + ", now" * 10, "The dog is not [MASK]" + ", now" * 10, "big", "red")
    with pytest.raises(InputError, match="26 tokens, but the model reads at most 16"):
        patch_sweep(tiny, [TINY_INSERTED.pair, long], "mlp_out", by="role")
