"""Hooks of the caller's own, wherever they are, act in every measure as they do in the model, or are refused."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook

from negprobe import AttentionProbe, HookedEncoder
from negprobe.attention import contributions
from negprobe.base.errors import InputError, PatchingError
from negprobe.behaviour import read_gaps
from negprobe.behaviour.likelihood import pseudo_log_likelihoods
from negprobe.models.heads import Unembed
from negprobe.patching import (
    OBJECTIVES,
    attribute,
    attribute_edges,
    objective_values,
    patch_sweep,
    path_patch,
)
from negprobe.patching.engine import has_hooks
from negprobe.patching.objectives import logit_difference
from negprobe.patching.runs import pair_runs
from tests.support import slow_patching
from tests.support.sample_pairs import TINY, answering

PAIRS = [of.pair for of in TINY]


def changed(output: Tensor) -> Tensor:
    """Another number at every position and in every entry; at the same position the same in any batch."""
    scale = torch.linspace(0.6, 1.2, 16 * output.shape[-1], dtype=output.dtype).unflatten(0, (16, -1))
    if output.ndim == 2:
        return output * scale[0]
    scale = scale[: output.shape[1]]
    return output * (scale if output.ndim == 3 else scale[:, None])


@contextmanager
def hook_on(model: HookedEncoder, part: str) -> Iterator[None]:
    handle = model.get_submodule(part).register_forward_hook(lambda module, inputs, output: changed(output))
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def hook_before(model: HookedEncoder, part: str) -> Iterator[None]:
    module = model.get_submodule(part)
    handle = module.register_forward_pre_hook(lambda module, inputs: (changed(inputs[0]), *inputs[1:]))
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def hook_across(model: HookedEncoder, part: str) -> Iterator[None]:
    """Every position is given some of the second, so that it matters which positions the part is called with."""
    handle = model.get_submodule(part).register_forward_pre_hook(
        lambda module, inputs: (inputs[0] + inputs[0][:, 1:2], *inputs[1:])
    )
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def forward_of(model: HookedEncoder, part: str) -> Iterator[None]:
    module = model.get_submodule(part)
    own = module.forward
    module.forward = lambda *given: changed(own(*given))
    try:
        yield
    finally:
        del module.forward


@contextmanager
def hook_on_every_module(model: HookedEncoder, part: str) -> Iterator[None]:
    chosen = model.get_submodule(part)
    handle = register_module_forward_hook(lambda module, inputs, output: changed(output) if module is chosen else None)
    try:
        yield
    finally:
        handle.remove()


class _OtherUnembed(Unembed):
    def forward(self, x: Tensor) -> Tensor:
        return changed(super().forward(x))


@contextmanager
def class_of(model: HookedEncoder, part: str) -> Iterator[None]:
    module = model.get_submodule(part)
    module.__class__ = _OtherUnembed
    try:
        yield
    finally:
        module.__class__ = Unembed


Placed = tuple[Callable[[HookedEncoder, str], AbstractContextManager[None]], str]
BODY: list[Placed] = [
    *((hook_on, part) for part in ("embed", "embed.ln", "blocks.1", "blocks.1.attn", "blocks.0.ln1", "blocks.1.ln2")),
    *((hook_on, part) for part in ("blocks.0.mlp", "blocks.1.mlp.act_fn", "blocks.0.hook_mlp_out")),
    *((hook_on, part) for part in ("blocks.1.attn.hook_result", "embed.hook_pos_embed")),
    *((hook_before, part) for part in ("blocks.1", "blocks.0.mlp", "blocks.2.ln2")),
    (forward_of, "blocks.1.mlp"),
    (hook_on_every_module, "blocks.1.attn"),
    (hook_on_every_module, "blocks.1.attn.hook_z"),
]
HEAD: list[Placed] = [
    *((hook_on, part) for part in ("unembed", "mlm_head", "mlm_head.ln", "mlm_head.act_fn")),
    *((hook_before, part) for part in ("unembed", "mlm_head")),
    (hook_across, "mlm_head"),
    (forward_of, "unembed"),
    (class_of, "unembed"),
    (hook_on_every_module, "unembed"),
]
CLASSIFIER: list[Placed] = [
    *((place, "classifier") for place in (hook_on, hook_before, forward_of, hook_on_every_module)),
    (hook_on, "classifier.act_fn"),
    (hook_across, "classifier"),
]


def name_of(placed: Placed) -> str:
    return f"{placed[0].__name__} {placed[1]}"


@pytest.fixture(scope="module")
def model() -> HookedEncoder:
    return slow_patching.tiny_model("bert", "masked_lm")


@pytest.fixture(scope="module")
def classifier() -> HookedEncoder:
    return slow_patching.tiny_model("bert", "classification")


def assert_patches_equal_whole_runs(model: HookedEncoder, pairs: list, placed: Placed) -> None:
    """Every patch is a whole run of its own, the hook in it, and is another number than without the hook."""
    place, part = placed
    without = patch_sweep(model, [of.pair for of in pairs], "z", by="head")
    with place(model, part):
        found = patch_sweep(model, [of.pair for of in pairs], "z", by="head")
        for index, of in enumerate(pairs):
            expected = slow_patching.swaps(model, of, "z", ("head",), "noising")
            np.testing.assert_allclose(found["patched"].values[index], expected, atol=1e-10, rtol=0)
    assert np.abs(found["base"] - without["base"]).min() > 1e-4
    assert (patch_sweep(model, [of.pair for of in pairs], "z", by="head")["patched"] == without["patched"]).all()


@pytest.mark.sampled(4)
@pytest.mark.parametrize("placed", BODY + HEAD, ids=name_of)
def test_every_patch_has_the_hook_in_it(model: HookedEncoder, placed: Placed) -> None:
    assert_patches_equal_whole_runs(model, TINY, placed)


@pytest.mark.sampled(3)
@pytest.mark.parametrize("placed", CLASSIFIER, ids=name_of)
def test_every_patch_of_a_classifier_has_the_hook_in_it(classifier: HookedEncoder, placed: Placed) -> None:
    assert_patches_equal_whole_runs(classifier, [answering(of, "LABEL_0", "LABEL_2") for of in TINY], placed)


@pytest.mark.sampled(3)
@torch.no_grad()
@pytest.mark.parametrize("placed", HEAD, ids=name_of)
def test_objectives_and_scores_of_words_are_read_from_the_models_own_logits(
    model: HookedEncoder, placed: Placed
) -> None:
    place, part = placed
    with place(model, part):
        gaps = read_gaps(model, [pair.original for pair in PAIRS], [[pair.target] for pair in PAIRS])
        found = {
            name: objective_values(model, PAIRS, OBJECTIVES[name]).to_dataframe()
            for name in ("logit_difference", "target_probability", "kl_divergence")
        }
        for row, (pair, gap) in enumerate(zip(PAIRS, gaps, strict=True)):
            answers = {}
            for side in ("original", "counterfactual"):
                tokens = model.to_tokens(getattr(pair, side))[0]
                at = int((tokens[0] == model.tokenizer.mask_token_id).nonzero())
                answers[side] = model(tokens)[0, at].log_softmax(dim=-1)
            target, foil = (model.to_single_token(f" {word}") for word in (pair.target, pair.foil))
            assert gap.log_probabilities[pair.target] == pytest.approx(float(answers["original"][target]), abs=1e-10)
            for side, answer in answers.items():
                kl = (answers["original"].exp() * (answers["original"] - answer)).sum()
                expected = {
                    "logit_difference": answer[target] - answer[foil],
                    "target_probability": answer[target].exp(),
                    "kl_divergence": kl,
                }
                for name, value in expected.items():
                    assert found[name].loc[row, side] == pytest.approx(float(value), abs=1e-10), name
        tokens = model.to_tokens("the red door")[0]
        total = 0.0
        for at in range(1, 4):
            masked = tokens.clone()
            masked[0, at] = model.tokenizer.mask_token_id
            total += float(model(masked)[0, at].log_softmax(dim=-1)[tokens[0, at]])
        assert float(pseudo_log_likelihoods(model, ["the red door", "a dog"])[0]) == pytest.approx(total, abs=1e-10)


def test_attribution_has_forward_and_backward_hooks_in_it(model: HookedEncoder) -> None:
    plain = attribute(model, PAIRS, sites=["z"], by="head")["z"]
    expected = plain["patched"] - plain["base"]
    for place in (
        lambda: model.unembed.register_forward_hook(lambda module, inputs, output: 3 * output),
        lambda: model.unembed.register_full_backward_hook(lambda module, given, out: (3 * given[0],)),
        lambda: model.mlm_head.register_full_backward_pre_hook(lambda module, out: (3 * out[0],)),
        lambda: model.blocks[2].register_full_backward_pre_hook(lambda module, out: (3 * out[0],)),
    ):
        handle = place()
        found = attribute(model, PAIRS, sites=["z"], by="head")["z"]
        handle.remove()
        np.testing.assert_allclose(found["patched"] - found["base"], 3 * expected, atol=1e-10)
    assert abs(expected).max() > 1e-3


@pytest.mark.parametrize("placed", [(hook_on, "unembed"), (hook_on, "blocks.1.mlp.act_fn"), *BODY[-3:]], ids=name_of)
def test_paths_and_edges_which_would_pass_hooks_by_are_refused(model: HookedEncoder, placed: Placed) -> None:
    place, part = placed
    with place(model, part):
        for measure in (path_patch, attribute_edges):
            with pytest.raises(PatchingError, match="has hooks"):
                measure(model, PAIRS)
    handle = model.blocks[0].mlp.register_full_backward_hook(lambda module, given, out: None)
    with pytest.raises(PatchingError, match="has hooks"):
        attribute_edges(model, PAIRS)
    handle.remove()


def _subclassed(model: HookedEncoder) -> AbstractContextManager[None]:
    class Other(HookedEncoder):
        def forward(self, *args: object, **kwargs: object) -> Tensor:
            return 2 * super().forward(*args, **kwargs)

    model.__class__ = Other
    return nullcontext()


@pytest.mark.parametrize(
    "place",
    [
        lambda model: model.register_forward_hook(lambda module, inputs, output: 2 * output),
        lambda model: model.register_forward_pre_hook(lambda module, inputs: inputs),
        lambda model: setattr(model, "forward", lambda *given, **how: None),
        _subclassed,
    ],
    ids=["hook", "pre-hook", "forward", "subclass"],
)
def test_a_hook_on_the_whole_model_is_refused_where_only_its_parts_are_run(
    place: Callable[[HookedEncoder], object],
) -> None:
    model = slow_patching.tiny_model("bert", "masked_lm")
    place(model)
    for measure in (
        lambda: patch_sweep(model, PAIRS, "z", by="head"),
        lambda: attribute(model, PAIRS, by="head"),
        lambda: attribute_edges(model, PAIRS),
        lambda: path_patch(model, PAIRS),
        lambda: objective_values(model, PAIRS),
    ):
        with pytest.raises(PatchingError, match="model itself"):
            measure()
    with pytest.raises(InputError, match="model itself"):
        read_gaps(model, [PAIRS[0].original], [["big"]])
    with pytest.raises(InputError, match="model itself"):
        pseudo_log_likelihoods(model, ["the door"])


def test_measures_that_compute_a_block_themselves_refuse_a_hook_that_changes_it(model: HookedEncoder) -> None:
    tokens = model.to_tokens(["the door is not open", "a dog"])[0]
    measures = ("all_heads_norm", "residual", "zeroing", "globenc")
    without = [contributions(model, tokens, None, measure) for measure in measures]
    for part in ("1.mlp", "0.ln1", "2.hook_attn_out", "1.attn.hook_z", "1.mlp.act_fn", "1", "2.ln2"):
        with hook_on(model, f"blocks.{part}"):
            for measure in measures:
                with pytest.raises(InputError, match=f"block {part[0]} .*'{measure}'.*'rollout'"):
                    contributions(model, tokens, None, measure)
            contributions(model, tokens, None, "rollout")
    with hook_on_every_module(model, "blocks.0.mlp"), pytest.raises(InputError, match="block 0"):
        AttentionProbe(model).cue_shares(PAIRS)
    # What the measures read themselves may be changed, as may what comes before and behind.
    for part in ("blocks.1.attn.hook_pattern", "blocks.1.attn.hook_v", "blocks.0.hook_resid_pre", "unembed", "embed"):
        with hook_on(model, part):
            for measure in measures:
                contributions(model, tokens, None, measure)
    # A hook that looks and changes nothing is no reason to refuse.
    with hook_on_every_module(model, "unembed"):
        for measure, expected in zip(measures, without, strict=True):
            np.testing.assert_allclose(contributions(model, tokens, None, measure), expected, atol=1e-12)


def test_without_hooks_the_shortcuts_are_taken(model: HookedEncoder, classifier: HookedEncoder) -> None:
    assert not has_hooks(model) and not has_hooks(classifier)
    runs = pair_runs(model, PAIRS, "noising")
    assert logit_difference(model, runs, runs.base).positions is not None
    with hook_on(model, "blocks.0.attn"):
        assert has_hooks(model)
        assert logit_difference(model, runs, runs.base).positions is not None
    with hook_on(model, "unembed"):
        assert logit_difference(model, runs, runs.base).positions is None
    assert isinstance(model, nn.Module)
