"""Every family with every head: padded batches give what whole forward passes of each statement alone give."""

import numpy as np
import pytest
import torch

from negprobe.base.errors import PatchingError
from negprobe.patching import patch_sweep
from tests.support import slow_patching
from tests.support.sample_pairs import TINY, answering, whole

FAMILIES = (
    *("bert", "distilbert", "roberta", "electra-narrow", "mpnet", "albert", "nomic", "gte", "jina", "eurobert"),
    *("modernbert", "modernbert-biased", "megatron-bert", "xlm-roberta-xl", "ernie-tasks"),
)
HEADS = {"masked_lm": None, "classification": ("LABEL_0", "LABEL_2"), "none": None}
SITES = ("full_embed", "resid_pre", "k", "pattern", "z", "mlp_post", "normalized_resid_post")
# Families whose blocks have parts that BERT's have not; every site of theirs is tested.
OTHER_PARTS = (
    *("mpnet", "albert", "megatron-bert", "xlm-roberta-xl", "modernbert"),
    *("nomic", "gte", "jina", "eurobert", "eurobert-biased"),
)
TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-5}


@pytest.mark.sampled(4)
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("family", FAMILIES)
def test_padded_batches_equal_whole_forward_passes_of_each_statement(family, head, dtype):
    model = slow_patching.tiny_model(family, head, dtype)
    labels = HEADS[head]
    pairs = [answering(of, *labels) if labels else whole(of) for of in TINY] if head != "masked_lm" else TINY
    # Each site one way: which one goes with the family and the head, so that both are seen of each.
    turn = FAMILIES.index(family) + list(HEADS).index(head)
    moved = []
    known = slow_patching.sites_of(model)
    sites = SITES[::3] if dtype == torch.float32 else SITES if head == "masked_lm" else SITES[::2]
    for number, site in enumerate(site for site in sites if site in known):
        direction = ("noising", "denoising")[(number + turn) % 2]
        together = patch_sweep(model, [of.pair for of in pairs], site, by="role", direction=direction)
        # Now one, now the other of the shorter pairs, which are padded.
        index = 1 + number % 2
        expected = slow_patching.swaps(model, pairs[index], site, ("role",), direction)
        found = together["patched"].values[index]
        np.testing.assert_allclose(found, expected, atol=TOLERANCE[dtype], rtol=0, err_msg=f"{site} {direction}")
        # Without position embeddings, aligned tokens that are the same have the same embeddings.
        if site != "full_embed" or model.cfg.embeds_positions:
            moved.append(np.nanmax(abs(found - together["base"].values[index])) > 1e-3)
        if site == "z" and dtype == torch.float64:
            alone = patch_sweep(model, pairs[index].pair, site, by="role", direction=direction).isel(pair=0)
            for name in ("patched", "base", "source"):
                np.testing.assert_allclose(together[name].values[index], alone[name], atol=1e-12)
    assert np.mean(moved) > 0.8, "the patches hardly change anything"


@pytest.mark.sampled(4)
@pytest.mark.parametrize("direction", ["noising", "denoising"])
@pytest.mark.parametrize("site", slow_patching.SITES)
@pytest.mark.parametrize("family", OTHER_PARTS)
def test_every_site_of_a_family_with_other_parts_equals_whole_forward_passes(family, site, direction):
    model = slow_patching.tiny_model(family, "masked_lm")
    if site not in slow_patching.sites_of(model):
        with pytest.raises(PatchingError, match=f"has no '{site}'; its sites are"):
            patch_sweep(model, TINY[0].pair, site, by="position", direction=direction)
        return
    by = slow_patching.parts_of(site)[0]
    result = patch_sweep(model, [of.pair for of in TINY], site, by=by, direction=direction)
    moved = []
    for index, of in enumerate(TINY):
        expected = slow_patching.swaps(model, of, site, by, direction)
        found = result["patched"].values[index][..., : expected.shape[-1]]
        np.testing.assert_allclose(found, expected, atol=1e-10, rtol=0)
        moved.append(np.nanmax(abs(expected - result["base"].values[index])))
    # Pairs may have the same word or position at all aligned tokens, but not all pairs. They have the same type.
    assert max(moved) > 1e-3 or site == "token_type_embed"


@pytest.mark.sampled(3)
@pytest.mark.parametrize("direction", ["noising", "denoising"])
@pytest.mark.parametrize("site", ["mlp_in", "ln1_out", "ln2_out", "resid_pre", "resid_mid", "q", "z"])
def test_blocks_with_norms_before_attention_are_patched_as_the_loop_does(site, direction):
    model = slow_patching.pre_norm_model()
    result = patch_sweep(model, [of.pair for of in TINY], site, by="position", direction=direction)
    for index, of in enumerate(TINY):
        expected = slow_patching.swaps(model, of, site, ("position",), direction)
        found = result["patched"].values[index][..., : expected.shape[-1]]
        np.testing.assert_allclose(found, expected, atol=1e-10, rtol=0)
        assert np.nanmax(abs(expected - result["base"].values[index])) > 1e-3


@pytest.mark.parametrize("norms", ["post", "pre"])
def test_which_sites_give_one_swap_under_two_names(norms):
    """A norm acts on one token at a time, so after attention a swap of its input is the swap of its output."""
    model = slow_patching.tiny_model("bert", "masked_lm") if norms == "post" else slow_patching.pre_norm_model()
    swap = {
        site: patch_sweep(model, TINY[0].pair, site, by="position")["patched"].values
        for site in ("resid_pre", "resid_mid", "mlp_in", "ln1_out", "ln2_out", "resid_post", "mlp_out")
    }
    same = {
        "post": [("resid_mid", "mlp_in"), ("resid_mid", "ln1_out"), ("resid_post", "ln2_out")],
        "pre": [("mlp_in", "ln2_out")],
    }
    other = {
        "post": [("resid_mid", "mlp_out")],
        "pre": [("resid_pre", "ln1_out"), ("resid_mid", "mlp_in")],
    }
    for one, two in same[norms]:
        np.testing.assert_allclose(swap[one], swap[two], atol=1e-10)
    for one, two in other[norms]:
        assert np.nanmax(abs(swap[one] - swap[two])) > 1e-3


@pytest.mark.parametrize("family", ["bert", "roberta"])
def test_embeddings_pooled_from_the_first_token_are_patched_as_the_loop_does(family):
    model = slow_patching.tiny_model(family, "none")
    model.cfg.pooling = "cls"
    for site in ("full_embed", "v"):
        pairs = [whole(of) for of in TINY]
        result = patch_sweep(model, [of.pair for of in pairs], site, by="position", direction="denoising")
        for index, of in enumerate(pairs):
            expected = slow_patching.swaps(model, of, site, ("position",), "denoising")
            found = result["patched"].values[index, :, : expected.shape[1]]
            np.testing.assert_allclose(found, expected, atol=1e-10, err_msg=site)


@pytest.mark.parametrize(
    ("family", "site"),
    [(family, site) for family in ("distilbert", "roberta", "electra-narrow") for site in ("embed", "pos_embed")]
    + [("roberta", "token_type_embed")],
)
def test_the_summands_of_a_familys_embeddings_are_patched_as_the_loop_does(family, site):
    model = slow_patching.tiny_model(family, "masked_lm")
    result = patch_sweep(model, [of.pair for of in TINY], site, by="position", direction="noising")
    for index, of in enumerate(TINY):
        expected = slow_patching.swaps(model, of, site, ("position",), "noising")
        np.testing.assert_allclose(result["patched"].values[index, :, : expected.shape[1]], expected, atol=1e-10)
