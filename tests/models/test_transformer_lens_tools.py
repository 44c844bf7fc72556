"""`transformer_lens.tools.analysis` works on our encoder, or ends in an error that says what to use instead."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import torch
from torch import Tensor
from transformer_lens.tools import analysis

from negprobe import HookedEncoder
from negprobe.base.errors import InputError
from tests.support import tiny_models
from tests.support.slow_patching import pre_norm_model
from tests.support.tiny_models import N_HEADS, N_LAYERS


def metric(logits: Tensor) -> Tensor:
    return (logits[:, 1, 10] - logits[:, 1, 20]).mean()


@pytest.fixture
def model() -> HookedEncoder:
    return tiny_models.pair("bert", "masked_lm", torch.float64)[1]


@contextmanager
def listed(model: HookedEncoder) -> Iterator[None]:
    """The line of docs/porting.md with which attribution patching runs."""
    model.hook_dict["hook_embed"] = model.hook_full_embed
    yield
    del model.hook_dict["hook_embed"]


CLEAN, CORRUPTED = torch.tensor([[2, 7, 9, 6, 3]]), torch.tensor([[2, 7, 12, 6, 3]])

REFUSED: dict[str, tuple[str, Callable[[HookedEncoder], object]]] = {
    "logit_lens": (r"model\.head_output", lambda model: analysis.logit_lens(model, CLEAN)),
    "logit_readout": (r"model\.head_output", lambda model: analysis.logit_readout(model, torch.zeros(1, 5, 24))),
    "direct_logit_attribution": (
        r"negprobe\.patching\.attribute",
        lambda model: analysis.direct_logit_attribution(model, CLEAN, 10),
    ),
    "direct_logit_attribution of heads": (
        r"negprobe\.patching\.attribute",
        lambda model: analysis.direct_logit_attribution(model, CLEAN, 10, unit="head"),
    ),
    "direct_logit_attribution of layers": (
        r'cache\["resid_mid", layer\]',
        lambda model: analysis.direct_logit_attribution(model, CLEAN, 10, unit="layer"),
    ),
    "attribution_patch of edges": (
        "attribute_edges",
        lambda model: analysis.attribution_patch(
            model, CLEAN, CORRUPTED, metric, analysis.EdgeAttributionConfig(granularity="edge")
        ),
    ),
    "get_act_patch_direct_path": (
        "path_patch",
        lambda model: analysis.get_act_patch_direct_path(
            model, CORRUPTED, model.run_with_cache(CLEAN)[1], model.run_with_cache(CORRUPTED)[1], metric, 0, 0
        ),
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_has_no_meaning_for_an_encoder_says_what_to_use(model: HookedEncoder, name: str) -> None:
    advice, call = REFUSED[name]
    with pytest.raises(InputError, match=advice):
        call(model)


def test_a_readout_is_refused_with_norms_before_attention_too() -> None:
    with pytest.raises(InputError, match=r"model\.head_output"):
        analysis.logit_lens(pre_norm_model(), CLEAN)


def test_attribution_patching_of_nodes_is_the_gradient_times_the_change(model: HookedEncoder) -> None:
    with listed(model):
        found = analysis.attribution_patch(model, CLEAN, CORRUPTED, metric).node_scores
    assert "hook_embed" not in model.run_with_cache(CLEAN)[1]
    gradients: dict[str, Tensor] = {}
    _, clean = model.run_with_cache(CLEAN)
    _, corrupted = model.run_with_cache(CORRUPTED)

    def keep(gradient: Tensor, hook: object) -> None:
        gradients[hook.name] = gradient  # type: ignore[attr-defined]

    with model.hooks(bwd_hooks=[(lambda name: True, keep)]):
        metric(model(CORRUPTED)).backward()
    kinds = {"attn_head_out": "attn.hook_z", "mlp_out": "hook_mlp_out"}
    assert len(found) == 5 * (1 + N_LAYERS * (N_HEADS + 1))
    for node, score in found.items():
        name = "hook_full_embed" if node.kind == "embed" else f"blocks.{node.layer}.{kinds[node.kind]}"
        terms = ((clean[name] - corrupted[name]) * gradients[name])[0, node.position]
        expected = terms.sum() if node.head is None else terms[node.head].sum()
        assert abs(score - float(expected)) < 1e-10
    assert max(map(abs, found.values())) > 1e-3


@torch.no_grad()
def test_activations_are_collected(model: HookedEncoder) -> None:
    name = "blocks.1.hook_resid_pre"
    found = analysis.collect_activations(model, name, CLEAN, model, positions=torch.tensor([2]))
    expected = model.run_with_cache(CLEAN)[1][name][:, 2]
    assert (found - expected).abs().max() < 1e-10
