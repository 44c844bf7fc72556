"""Zeros, means, other pairs' activations and knocked-out attention: as loops by hand have it, and as identities do."""

import numpy as np
import pytest
import torch

from negprobe.base.errors import PatchingError
from negprobe.patching import logit_difference, patch_sweep
from negprobe.patching.edits import Edit
from negprobe.patching.engine import base_run, run_edited
from negprobe.patching.runs import pair_runs
from negprobe.statements import ROLES, StatementPair
from tests.support import slow_patching
from tests.support.sample_pairs import TINY, TINY_EQUAL, TINY_INSERTED, TINY_REPLACED, TINY_TWO_TEXTS

PAIRS = [of.pair for of in TINY]
DIRECTIONS = ("noising", "denoising")


def finest(site, tokens="role"):
    return ("head", tokens) if site in slow_patching.HEADS or site in slow_patching.MAPS else (tokens,)


def ablated(model, of, site, by, direction, new, available=None, **more):
    """The slow sweep with given values."""
    roles, text = of.base_roles(direction), of.texts(direction)[0]
    available = range(len(roles)) if available is None else available
    read = slow_patching.default(model, of.pair, text)
    return slow_patching.sweep(model, text, site, by, roles, new, available, read, **more)


def compare(result, index, expected):
    found = result["patched"].values[index][..., : expected.shape[-1]]
    np.testing.assert_allclose(found, expected, atol=1e-10, rtol=0)


@pytest.mark.sampled(2)
@pytest.mark.parametrize(
    ("site", "tokens"),
    [(site, "role") for site in ("embed", "token_type_embed", "k", "attn_scores", "pattern", "result")]
    + [(site, "position") for site in ("token_type_embed", "resid_pre", "pattern")],
)
def test_zeros_are_put_in_at_every_token_aligned_or_not(tiny, site, tokens):
    batch = [*TINY, TINY_TWO_TEXTS]
    by = finest(site, tokens)
    result = patch_sweep(tiny, [of.pair for of in batch], site, by=by, direction="denoising", how="zero")
    assert result.attrs["how"] == "zero"
    for index, of in enumerate(batch):
        new = [torch.zeros_like(found) for found in slow_patching.unpatched(tiny, of.pair.counterfactual, site)]
        expected = ablated(tiny, of, site, by, "denoising", new)
        assert "position" not in by or not np.isnan(expected).any()
        compare(result, index, expected)


def means_by_hand(model, reference, site):
    """For each layer and role the mean over all of its tokens, one statement after another."""
    found = {}
    for of in reference:
        for text, roles in zip((of.pair.original, of.pair.counterfactual), of.roles, strict=True):
            for layer, activation in enumerate(slow_patching.unpatched(model, text, site)):
                for position, role in enumerate(roles):
                    found.setdefault((layer, role), []).append(activation[position])
    return {where: torch.stack(activations).mean(dim=0) for where, activations in found.items()}


@pytest.mark.sampled(3)
@pytest.mark.parametrize("site", ["embed", "resid_mid", "v", "mlp_post"])
@pytest.mark.parametrize("given", [None, [TINY_EQUAL, TINY_INSERTED]], ids=["own", "reference"])
def test_means_are_of_all_tokens_of_the_role_in_both_statements_of_the_reference(tiny, site, given):
    by = finest(site)
    means = means_by_hand(tiny, given or TINY, site)
    reference = None if given is None else [of.pair for of in given]
    for direction in DIRECTIONS:
        result = patch_sweep(tiny, PAIRS, site, by=by, direction=direction, how="mean", reference=reference)
        for index, of in enumerate(TINY):
            roles = of.base_roles(direction)
            # A role that the reference does not have has no mean: "target" stands in the replaced pair alone.
            known = [position for position, role in enumerate(roles) if (0, role) in means]
            assert (len(known) < len(roles)) == (given is not None and of is TINY_REPLACED)
            new = []
            for layer, activation in enumerate(slow_patching.unpatched(tiny, of.texts(direction)[0], site)):
                new.append(torch.full_like(activation, torch.nan))
                for position in known:
                    new[-1][position] = means[layer, roles[position]]
            compare(result, index, ablated(tiny, of, site, by, direction, new, known))


def donated(model, of, donor, site, direction):
    """Values and positions from another pair: the k-th token of a role gets that of the k-th there, over and over."""
    roles, theirs = of.base_roles(direction), donor.base_roles(direction)
    source_of = {}
    for role in ROLES:
        here, there = ([at for at, found in enumerate(side) if found == role] for side in (roles, theirs))
        if there:
            repeated = there * (1 + len(here) // len(there))
            source_of |= dict(zip(here, repeated, strict=False))
    activations = slow_patching.unpatched(model, donor.texts(direction)[0], site)
    return [slow_patching.in_base_order(site, found, source_of, len(roles)) for found in activations], source_of


@pytest.mark.parametrize(
    ("site", "direction"), [("mlp_out", "noising"), ("z", "denoising"), ("full_embed", "denoising")]
)
def test_resampling_takes_every_token_from_one_other_pair(tiny, site, direction):
    by = finest(site)
    seen = set()
    for seed in range(3):
        result = patch_sweep(tiny, PAIRS, site, by=by, direction=direction, how="resample", seed=seed)
        again = patch_sweep(tiny, PAIRS, site, by=by, direction=direction, how="resample", seed=seed)
        np.testing.assert_array_equal(result["patched"], again["patched"])
        for index, of in enumerate(TINY):
            fitting = []
            for donor in TINY:
                if donor is of:
                    continue
                new, available = donated(tiny, of, donor, site, direction)
                expected = ablated(tiny, of, site, by, direction, new, available)
                if np.allclose(result["patched"].values[index], expected, atol=1e-10, rtol=0, equal_nan=True):
                    fitting.append(TINY.index(donor))
            assert len(fitting) == 1, "the values are those of none of the other pairs, or of several"
            seen.add((index, *fitting))
    assert len(seen) > len(TINY), "another seed draws the same pairs"


def test_a_resampled_pair_is_never_given_itself(tiny):
    # With itself as the donor nothing would change: six copies of statements that do not differ.
    pairs = [StatementPair(of.pair.original, of.pair.original, "dog", "house") for of in TINY]
    for seed in range(5):
        result = patch_sweep(tiny, pairs, "resid_pre", by="role", how="resample", seed=seed)
        assert (abs(result["patched"] - result["base"]).max(["layer", "role"]) > 1e-4).all()


@pytest.mark.sampled(2)
@pytest.mark.parametrize("how", ["swap", "zero", "mean", "resample"])
def test_nothing_hangs_on_how_much_is_done_at_once(tiny, monkeypatch, how):
    pairs = [*PAIRS, TINY_TWO_TEXTS.pair, StatementPair("It is [MASK].", "It is not [MASK].", "big", "red")]
    sweeps = [("resid_pre", ("role",)), ("v", ("head", "position"))]
    whole = [patch_sweep(tiny, pairs, site, by=by, how=how, seed=3) for site, by in sweeps]
    monkeypatch.setattr("negprobe.patching.runs._PAIRS_AT_ONCE", 2)
    monkeypatch.setattr("negprobe.patching.engine._HIDDEN_BUDGET", {"cpu": 5 * 14 * 40, "other": 1})
    for (site, by), expected in zip(sweeps, whole, strict=True):
        calls = []
        found = patch_sweep(tiny, pairs, site, by=by, how=how, seed=3, progress=lambda *told, to=calls: to.append(told))
        assert [call[1:] for call in calls] == [(2, 5), (4, 5), (5, 5)]
        for name in ("patched", "base", "source"):
            np.testing.assert_allclose(found[name], expected[name], atol=1e-11, rtol=0)


def test_so_little_memory_that_runs_go_one_by_one_is_enough(tiny, monkeypatch):
    whole = patch_sweep(tiny, PAIRS, "attn_scores", by="role")
    monkeypatch.setattr("negprobe.patching.runs._KEPT_BUDGET", 1)
    monkeypatch.setattr("negprobe.patching.engine._PATTERN_BUDGET", 1)
    told = []
    found = patch_sweep(tiny, PAIRS, "attn_scores", by="role", progress=lambda step, done, total: told.append(done))
    assert told == [1, 2, 3]
    np.testing.assert_allclose(found["patched"], whole["patched"], atol=1e-11)


@pytest.mark.parametrize("by", [("position",), ("role",), ("head",), ("head", "role")])
@pytest.mark.parametrize("direction", DIRECTIONS)
def test_a_knocked_out_cue_has_scores_of_minus_infinity(tiny, by, direction):
    result = patch_sweep(tiny, PAIRS, "attn_scores", by=by, direction=direction, how="knock_out", keys="cue")
    for index, of in enumerate(TINY):
        roles = of.base_roles(direction)
        text = of.texts(direction)[0]
        new = [torch.full_like(found, -torch.inf) for found in slow_patching.unpatched(tiny, text, "attn_scores")]
        cue = [at for at, role in enumerate(roles) if role == "cue"]
        # Without a cue, as in the originals that have no word in its place, nothing can be knocked out.
        assert bool(cue) == (direction == "denoising" or of is TINY_EQUAL)
        expected = ablated(tiny, of, "attn_scores", by, direction, new, keys=cue)
        assert np.isnan(expected).all() == (not cue)
        compare(result, index, expected)


def test_knocking_out_is_zeroing_the_pattern_and_scaling_its_rows_again(tiny):
    by = ("head", "role")
    out = patch_sweep(tiny, PAIRS, "attn_scores", by=by, direction="denoising", how="knock_out", keys="cue")
    zero = patch_sweep(tiny, PAIRS, "pattern", by=by, direction="denoising", how="zero", keys="cue", renormalize=True)
    np.testing.assert_allclose(out["patched"], zero["patched"], atol=1e-11)
    assert abs(out["patched"] - out["base"]).max() > 1e-2


def without_positions():
    """A model to which a statement is a bag of words: only attention tells it that a word is there."""
    model = slow_patching.tiny_model("bert", "masked_lm")
    with torch.no_grad():
        model.embed.W_pos[:] = model.embed.W_pos[0]
    return model


def test_with_no_one_looking_at_it_an_inserted_cue_is_as_good_as_deleted():
    model = without_positions()
    runs = pair_runs(model, [TINY_INSERTED.pair, TINY_EQUAL.pair], "denoising")
    base, every = base_run(model, runs.base), torch.arange(2)
    is_cue = runs.role == ROLES.index("cue")
    where = is_cue[:, None, None, :].expand(-1, model.cfg.n_heads, is_cue.shape[1], -1)
    values = torch.full(where.shape, -torch.inf, dtype=torch.float64)
    edits = [Edit("attn_scores", layer, where, values, every) for layer in range(model.cfg.n_layers)]
    with torch.no_grad():
        found = run_edited(model, base, every, edits, logit_difference(model, runs, runs.base))
    shortened = ("A dog is big, [MASK].", "The door is open. So the dog is [MASK].")
    for value, pair, text in zip(found.tolist(), runs.pairs, shortened, strict=True):
        with torch.no_grad():
            expected = slow_patching.default(model, pair, text)(model(text)).item()
        assert value == pytest.approx(expected, abs=1e-11)


def test_in_one_layer_the_mask_that_does_not_look_at_the_cue_answers_as_if_there_were_none():
    model = without_positions()
    # Blocks that pass on what they get would need other weights: this is the model of the first block alone.
    model.blocks, model.cfg.n_layers = model.blocks[:1], 1
    result = patch_sweep(
        model, TINY_INSERTED.pair, "attn_scores", by="role", direction="denoising", how="knock_out", keys="cue"
    )
    assert abs(result["source"] - result["base"]).item() > 1e-3
    assert result["patched"].sel(role="mask").item() == pytest.approx(result["source"].item(), abs=1e-11)
    for role in ("cls", "sep", "other", "affected", "cue"):
        assert result["patched"].sel(role=role).item() == pytest.approx(result["base"].item(), abs=1e-11)


def test_a_mean_over_one_token_is_that_token_and_changes_nothing(tiny):
    # Role by role: [CLS], the mask and the cue stand once in each statement, and these two are the same.
    same = StatementPair(TINY_EQUAL.pair.original, TINY_EQUAL.pair.original, "big", "red")
    result = patch_sweep(tiny, same, "resid_pre", by="role", how="mean")
    moved = abs(result["patched"] - result["base"]).max("layer").squeeze("pair")
    for role in ("cls", "mask", "sep"):
        assert moved.sel(role=role) < 1e-11
    assert moved.sel(role="other") > 1e-3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"how": "knock_out", "site": "pattern", "keys": "cue"}, "needs the site 'attn_scores'"),
        ({"how": "knock_out", "site": "z"}, "needs the site 'attn_scores'"),
        ({"how": "knock_out"}, "leave queries without any token to attend to"),
        ({"how": "mean"}, "size differs between statements"),
        ({"how": "resample", "site": "pattern"}, "size differs between statements"),
        ({"how": "resample", "site": "z", "pairs": TINY_EQUAL.pair}, "at least two pairs"),
        ({"how": "mean", "site": "z", "reference": []}, "no reference pairs"),
        ({"how": "knock_out", "keys": "cues"}, "no role 'cues'"),
        ({"how": "zero", "site": "resid_pre", "keys": "cue"}, "has no keys"),
        ({"how": "zero", "site": "attn_scores", "renormalize": True}, "renormalize needs the site 'pattern'"),
    ],
)
def test_an_ablation_that_does_not_exist_is_a_clear_error(tiny, change, message):
    asked = {"site": "attn_scores", "pairs": PAIRS, "by": "role"} | change
    with pytest.raises(PatchingError, match=message):
        patch_sweep(tiny, asked.pop("pairs"), asked.pop("site"), **asked)


def test_a_pattern_of_nothing_cannot_be_scaled_to_sum_one(tiny):
    with pytest.raises(PatchingError, match="leave queries without any token to attend to"):
        patch_sweep(tiny, PAIRS, "pattern", by="role", how="zero", renormalize=True)
