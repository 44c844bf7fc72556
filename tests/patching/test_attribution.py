"""Attribution patching is the derivative of exact patching, averaged over a path where it is asked to be."""

import numpy as np
import pytest
import torch

from negprobe.base.errors import PatchingError
from negprobe.patching import kl_divergence, patch_sweep
from negprobe.patching.attribution import ATTRIBUTION_SITES, attribute
from negprobe.patching.objectives import Readout
from negprobe.patching.sites import SITES
from tests.support import slow_patching, tiny_models
from tests.support.numerical import derivative
from tests.support.sample_pairs import TINY, TINY_EQUAL, TINY_INSERTED, TINY_TWO_TEXTS, answering, whole

PAIRS = [of.pair for of in TINY]
# Of BERT, the tiny model.
SITES_OF_BERT = [site for site in ATTRIBUTION_SITES if site in slow_patching.BERT_SITES]
BY = [("position",), ("role",), ("head",), ("head", "position"), ("head", "role")]


def shifts(tiny, of, direction, points):
    """For each point, hooks that move the input embeddings so far from the base's towards the source's."""
    base, source = of.texts(direction)
    ours, theirs = (slow_patching.unpatched(tiny, text, "full_embed")[0] for text in (base, source))
    change = torch.zeros_like(ours)
    for position, there in of.source_of(direction).items():
        change[position] = theirs[there] - ours[position]
    return [[("hook_full_embed", lambda resid, hook, by=point * change: resid + by)] for point in points]


def slow(tiny, of, site, by, direction, points=(0.0,)):
    """The derivative of each cell's patch as it begins, by whole forward passes: the mean over moved base runs."""
    base, source = of.texts(direction)
    roles, source_of = of.base_roles(direction), of.source_of(direction)
    old = slow_patching.unpatched(tiny, base, site)
    new = slow_patching.unpatched(tiny, source, site)
    new = [slow_patching.in_base_order(site, activation, source_of, len(roles)) for activation in new]
    read = slow_patching.default(tiny, of.pair, base)

    def patched(t):
        # The entries move from where they are in the moved run.
        now = slow_patching.unpatched(tiny, base, site)
        moved = [c + t * (b - a) for a, b, c in zip(old, new, now, strict=True)]
        return slow_patching.sweep(tiny, base, site, by, roles, moved, source_of, read)

    found = []
    for hooks in shifts(tiny, of, direction, points):
        with tiny.hooks(fwd_hooks=hooks):
            found.append(derivative(patched))
    return sum(found) / len(points)


def moved(result, index, expected):
    """The estimated change of a pair's objective, without what is behind its own positions."""
    change = (result["patched"] - result["base"]).isel(pair=index).values
    return change[..., : expected.shape[-1]]


@pytest.mark.sampled(3)
@pytest.mark.parametrize("direction", ["noising", "denoising"])
@pytest.mark.parametrize("site", SITES_OF_BERT)
def test_an_attribution_is_the_derivative_of_the_exact_patch_in_a_padded_batch(tiny, site, direction):
    # Positions both ways and of every pair; of the sums over them one way and one pair are enough.
    for by in slow_patching.parts_of(site)[: None if direction == "noising" else 1]:
        result = attribute(tiny, PAIRS, sites=[site], by=by, direction=direction)[site]
        for index, of in enumerate(TINY) if by == ("position",) else [(1, TINY[1])]:
            expected = slow(tiny, of, site, by, direction)
            np.testing.assert_allclose(moved(result, index, expected), expected, rtol=1e-6, atol=1e-9, err_msg=f"{by}")
            assert np.nanmax(abs(expected)) > 1e-3


@pytest.mark.sampled(4)
@pytest.mark.parametrize("site", ATTRIBUTION_SITES)
@pytest.mark.parametrize(
    "family",
    [
        "mpnet",
        "modernbert",
        "modernbert-biased",
        "nomic",
        "gte",
        "jina",
        "eurobert",
        "albert",
        "ernie-tasks",
        "megatron-bert",
        "xlm-roberta-xl",
    ],
)
def test_attributions_in_families_with_other_parts_are_derivatives_too(family, site):
    model = slow_patching.tiny_model(family, "masked_lm")
    if site not in slow_patching.sites_of(model):
        with pytest.raises(PatchingError, match=f"has no '{site}'"):
            attribute(model, PAIRS, sites=[site], by="position")
        return
    result = attribute(model, PAIRS, sites=[site], by="position")[site]
    for index in (0, 1):
        expected = slow(model, TINY[index], site, ("position",), "noising")
        np.testing.assert_allclose(moved(result, index, expected), expected, rtol=1e-6, atol=1e-9)


@pytest.mark.sampled(3)
@pytest.mark.parametrize("site", ["full_embed", "k", "pattern", "mlp_post", "normalized_resid_post"])
def test_integrated_gradients_average_derivatives_at_midpoints_of_the_way_to_the_sources_embeddings(tiny, site):
    pairs = [TINY_EQUAL, TINY_INSERTED]
    result = attribute(tiny, [of.pair for of in pairs], sites=[site], by="position", steps=3)[site]
    for index, of in enumerate(pairs):
        expected = slow(tiny, of, site, ("position",), "noising", points=(1 / 6, 3 / 6, 5 / 6))
        np.testing.assert_allclose(moved(result, index, expected), expected, rtol=1e-6, atol=1e-9)
    assert result.attrs["estimate"] == "integrated gradients"
    assert result.attrs["steps"] == 3


@pytest.mark.parametrize("of", [TINY_EQUAL, TINY_INSERTED], ids=["equal", "inserted"])
def test_integrated_gradients_of_the_embeddings_add_up_to_the_swap_of_all_of_them(tiny, of):
    base, _ = of.texts("denoising")
    read = slow_patching.default(tiny, of.pair, base)
    with torch.no_grad():
        unpatched = read(tiny(base)).item()
        (hooks,) = shifts(tiny, of, "denoising", [1.0])
        swing = read(tiny.run_with_hooks(base, fwd_hooks=hooks)).item() - unpatched

    def error(steps):
        result = attribute(tiny, of.pair, sites=["full_embed"], by="position", direction="denoising", steps=steps)
        result = result["full_embed"]
        return abs((result["patched"] - result["base"]).sum().item() - swing)

    few, many = error(8), error(64)
    assert abs(swing) > 1e-2
    assert many < 1e-3 * abs(swing)
    # The midpoint rule's error falls with the square of the steps, that of the paper's rule with the steps.
    assert many < few / 40


def linear(model, runs, side):
    """A linear function of all last hidden states of a run, padding left out."""
    generator = torch.Generator().manual_seed(0)
    weights = torch.randn(64, model.cfg.d_model, generator=generator, dtype=model.cfg.dtype)

    def read(resid, pair):
        real = side.mask[pair][..., None] * weights[: resid.shape[1]]
        return (resid * real).sum(dim=(1, 2))

    return Readout(None, read)


@pytest.mark.parametrize("by", ["position", "role"])
def test_where_the_objective_is_linear_in_a_site_the_estimate_is_the_exact_patch(tiny, by):
    exact = patch_sweep(tiny, PAIRS, "normalized_resid_post", by=by, objective=linear)
    for steps in (None, 2):
        estimate = attribute(tiny, PAIRS, sites=["normalized_resid_post"], by=by, objective=linear, steps=steps)[
            "normalized_resid_post"
        ]
        last = tiny.cfg.n_layers - 1
        np.testing.assert_allclose(
            estimate["patched"].sel(layer=last), exact["patched"].sel(layer=last), rtol=1e-9, atol=1e-9
        )
        assert abs(estimate["patched"].sel(layer=0) - exact["patched"].sel(layer=0)).max() > 1e-3


def test_a_linear_map_of_a_site_has_its_attribution(tiny):
    by_position = {site: result["patched"] for site, result in attribute(tiny, PAIRS, by="position").items()}
    heads = attribute(tiny, PAIRS, sites=["z"], by=("head", "position"))["z"]
    moved = (heads["patched"] - heads["base"]).sum("head", skipna=False) + heads["base"]
    assert (by_position["z"] != by_position["resid_mid"]).any()
    np.testing.assert_allclose(by_position["attn_out"], by_position["z"], atol=1e-9)
    np.testing.assert_allclose(by_position["attn_out"], moved.transpose("pair", "layer", "position"), atol=1e-9)
    np.testing.assert_allclose(by_position["mlp_out"], by_position["mlp_post"], atol=1e-9)
    np.testing.assert_allclose(by_position["full_embed"][:, 0], by_position["resid_pre"][:, 0], atol=1e-9)
    np.testing.assert_allclose(by_position["normalized_resid_post"][:, :-1], by_position["resid_pre"][:, 1:], atol=1e-9)


@pytest.mark.parametrize("head", ["classification", "none"])
def test_other_heads_attributions_are_the_derivatives_of_their_own_objectives(head):
    model = tiny_models.pair("distilbert", head, torch.float64)[1]
    pairs = [answering(of, *model.cfg.labels[:2]) if head == "classification" else whole(of) for of in TINY]
    result = attribute(model, [of.pair for of in pairs], sites=["v"], by="head")["v"]
    for index, of in enumerate(pairs):
        expected = slow(model, of, "v", ("head",), "noising")
        np.testing.assert_allclose(moved(result, index, expected), expected, rtol=1e-6, atol=1e-9)


def test_a_batch_of_pairs_of_different_length_gives_each_what_it_gets_alone(tiny):
    for steps in (None, 2):
        together = attribute(tiny, PAIRS, sites=SITES_OF_BERT, by="role", direction="denoising", steps=steps)
        for index, pair in enumerate(PAIRS):
            alone = attribute(tiny, pair, sites=SITES_OF_BERT, by="role", direction="denoising", steps=steps)
            for site, result in together.items():
                for name in ("patched", "base", "source"):
                    np.testing.assert_allclose(
                        result[name].sel(pair=index), alone[site][name].squeeze("pair"), atol=1e-9, err_msg=site
                    )


@pytest.mark.parametrize("by", BY, ids=str)
def test_an_estimate_has_the_cells_coordinates_and_unpatched_runs_of_its_exact_sweep(tiny, by):
    pairs = [*PAIRS, TINY_TWO_TEXTS.pair]
    estimates = attribute(tiny, pairs, by=by, direction="denoising")
    expected = [name for name in SITES_OF_BERT if not SITES[name].is_map]
    assert list(estimates) == [name for name in expected if "head" not in by or SITES[name].has_heads]
    for site in ("z", "pattern") if "head" in by else ("z", "full_embed", "attn_scores", "resid_post"):
        exact = patch_sweep(tiny, pairs, site, by=by, direction="denoising")
        estimate = attribute(tiny, pairs, sites=[site], by=by, direction="denoising")[site]
        assert exact["patched"].dims == estimate["patched"].dims
        for name in exact.coords:
            assert exact.coords[name].equals(estimate.coords[name]), name
        assert estimate.attrs == exact.attrs | {"estimate": "attribution"}
        np.testing.assert_array_equal(np.isnan(exact["patched"]), np.isnan(estimate["patched"]))
        np.testing.assert_allclose(exact["base"], estimate["base"], atol=1e-12)
        np.testing.assert_allclose(exact["source"], estimate["source"], atol=1e-12)


def test_float32_attributions_equal_those_of_float64_to_1e_4(tiny):
    double = attribute(tiny, PAIRS, by="role", steps=2)
    tiny.to(torch.float32)
    try:
        single = attribute(tiny, PAIRS, by="role", steps=2)
    finally:
        tiny.to(torch.float64)
    for site in double:
        np.testing.assert_allclose(single[site]["patched"], double[site]["patched"], rtol=1e-4, atol=1e-4, err_msg=site)


def failing(model, runs, side):
    """Can be read once, by the source; what reads the base breaks inside the run that is differentiated."""

    def read(resid, pair):
        if resid.requires_grad:
            raise ZeroDivisionError
        return resid.sum(dim=(1, 2))

    return Readout(None, read)


def test_parameters_their_flags_and_hooks_are_as_before_even_after_an_error(tiny):
    frozen = list(tiny.parameters())[::2]
    flags = {name: parameter.requires_grad for name, parameter in tiny.named_parameters()}
    expected = attribute(tiny, TINY_EQUAL.pair, by="head")["z"]
    try:
        for parameter in frozen:
            parameter.requires_grad_(False)
        mixed = {name: parameter.requires_grad for name, parameter in tiny.named_parameters()}
        again = attribute(tiny, TINY_EQUAL.pair, by="head")["z"]
        np.testing.assert_allclose(again["patched"], expected["patched"], atol=1e-12)
        with pytest.raises(ZeroDivisionError):
            attribute(tiny, TINY_EQUAL.pair, by="head", objective=failing)
        assert {name: parameter.requires_grad for name, parameter in tiny.named_parameters()} == mixed
        assert all(parameter.grad is None for parameter in tiny.parameters())
        assert not any(module._forward_hooks or module._backward_hooks for module in tiny.modules())
    finally:
        for name, parameter in tiny.named_parameters():
            parameter.requires_grad_(flags[name])


def test_attributions_know_nothing_of_a_callers_no_grad_and_take_a_callers_hooks_in(tiny):
    expected = attribute(tiny, TINY_EQUAL.pair, by="head")["z"]
    with torch.no_grad():
        np.testing.assert_array_equal(attribute(tiny, TINY_EQUAL.pair, by="head")["z"]["patched"], expected["patched"])

    def cut(activation, hook):
        return torch.zeros_like(activation)

    with tiny.hooks(fwd_hooks=[("blocks.1.hook_attn_out", cut)]):
        without = attribute(tiny, TINY_EQUAL.pair, by="head")["z"]
    np.testing.assert_allclose(without["patched"].sel(layer=1), without["base"].item(), atol=1e-12)
    assert abs(without["base"] - expected["base"]).item() > 1e-3


def test_progress_is_told_until_all_pairs_are_done(tiny):
    told = []
    attribute(tiny, PAIRS * 12, sites=["z"], by="head", progress=lambda step, done, total: told.append(done))
    assert told == sorted(told)
    assert told[-1] == 36


def test_an_objective_that_is_least_at_the_base_has_no_attribution_but_integrated_gradients(tiny):
    asked = {"sites": ["resid_pre"], "by": "role", "objective": kl_divergence}
    with pytest.raises(PatchingError, match=r"its gradient there is 0.*steps=8"):
        attribute(tiny, TINY_EQUAL.pair, **asked)
    result = attribute(tiny, TINY_EQUAL.pair, steps=4, **asked)["resid_pre"]
    assert abs(result["patched"] - result["base"]).sel(role="cue", layer=0).item() > 1e-3


def test_gradients_are_taken_in_inference_mode_too(tiny):
    expected = attribute(tiny, TINY_EQUAL.pair, by="head")["z"]
    with torch.inference_mode():
        found = attribute(tiny, TINY_EQUAL.pair, by="head")["z"]
    np.testing.assert_array_equal(found["patched"], expected["patched"])


def rounded(model, runs, side):
    return Readout(None, lambda resid, pair: torch.tensor(resid.sum(dim=(1, 2)).tolist(), dtype=resid.dtype))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sites": ["resid"]}, "no site 'resid'"),
        ({"sites": ["result"]}, "'result' cannot be estimated"),
        ({"sites": ["embed"]}, "'embed' cannot be estimated"),
        ({"sites": ["resid_pre"], "by": "head"}, "has no heads"),
        ({"pairs": []}, "no pairs"),
        ({"steps": 0}, "at least one step, not 0"),
        ({"objective": rounded}, "no gradient"),
    ],
)
def test_an_attribution_that_does_not_exist_is_a_clear_error(tiny, change, message):
    asked = {"pairs": TINY_EQUAL.pair, "by": "position"} | change
    with pytest.raises(PatchingError, match=message):
        attribute(tiny, asked.pop("pairs"), **asked)
