"""Shortcuts ask the description of the architecture, and what an architecture does not define is refused."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
import xarray as xr

from negprobe import HookedEncoder, StatementPair, patch_sweep
from negprobe.attention.contribution_maps import contributions
from negprobe.attention.layer_measures import value_zeroing
from negprobe.base.errors import InputError, NegprobeError
from negprobe.models.attention import Attention
from negprobe.models.norms import NoNorm, RMSNorm

PAIR = StatementPair("The door is really open, so it is [MASK].", "The door is not open, so it is [MASK].")


@pytest.fixture
def model() -> HookedEncoder:
    return HookedEncoder.from_pretrained("tiny-negation")


def test_the_description_has_the_sizes_of_the_configuration(model: HookedEncoder) -> None:
    one, cfg = model.architecture, model.cfg
    assert (one.d_model, one.n_heads, one.d_head, one.d_mlp) == (cfg.d_model, cfg.n_heads, cfg.d_head, cfg.d_mlp)
    assert (one.act_fn, one.eps) == (cfg.act_fn, cfg.eps)
    assert all(block.architecture is one for block in model.blocks)


def test_keys_are_folded_into_queries_only_where_they_are_linear(
    model: HookedEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert model.architecture.linear_keys
    assert not replace(model.architecture, positions="rotary").linear_keys
    folded = []
    few = Attention.mix_of_few
    monkeypatch.setattr(Attention, "mix_of_few", lambda *given: folded.append(1) or few(*given))

    def sweep() -> xr.DataArray:
        return patch_sweep(model, replace(PAIR, target="open", foil="closed"), "resid_pre", by="position")["patched"]

    by_folding = sweep()
    assert folded
    folded.clear()
    for block in model.blocks:
        block.architecture = replace(block.architecture, positions="rotary")
    xr.testing.assert_allclose(sweep(), by_folding, atol=1e-5)
    assert not folded


def zero(model: HookedEncoder) -> object:
    block, architecture = model.blocks[0], model.architecture
    block.architecture = architecture
    v = torch.zeros(1, 2, architecture.n_heads, architecture.d_head)
    pattern = torch.full((1, architecture.n_heads, 2, 2), 0.5)
    return value_zeroing(pattern, v, torch.randn(1, 2, architecture.d_model), block)


def decompose(model: HookedEncoder) -> object:
    return model.run_with_cache("The door is open.")[1].decompose_resid()


@pytest.mark.parametrize(
    ("call", "error"),
    [
        *(
            (lambda model, measure=measure: contributions(model, torch.tensor([[2, 5, 3]]), None, measure), InputError)
            for measure in ("residual", "zeroing", "globenc")
        ),
        (zero, InputError),
        (decompose, InputError),
    ],
    ids=["residual", "zeroing", "globenc", "value_zeroing", "decompose_resid"],
)
def test_what_needs_post_layer_norm_blocks_says_so_for_others(
    model: HookedEncoder, call: Callable[[HookedEncoder], object], error: type[NegprobeError]
) -> None:
    call(model)
    model.architecture = replace(model.architecture, norms="pre")
    with pytest.raises(error, match="norms='pre'"):
        call(model)


def test_value_zeroing_refuses_a_gated_mlp(model: HookedEncoder) -> None:
    model.architecture = replace(model.architecture, gated_mlp=True)
    with pytest.raises(InputError, match="gated_mlp=True"):
        zero(model)


def test_the_configuration_decides_the_kinds_of_parts(model: HookedEncoder) -> None:
    rotary = {"positions": "rotary", "rotary_bases": (1e4,) * model.cfg.n_layers}
    cfg = replace(model.cfg, norms="pre", gated_mlp=True, normalization_type="RMS", embeds_positions=False, **rotary)
    other = HookedEncoder(cfg)
    block = other.blocks[0]
    assert (other.architecture.norms, other.architecture.positions, other.architecture.norm) == ("pre", "rotary", "RMS")
    assert block.is_pre_norm and block.mlp.is_gated and isinstance(block.ln1, RMSNorm)
    assert isinstance(other.ln_final, RMSNorm) and isinstance(model.ln_final, NoNorm)
    assert not hasattr(other.embed, "W_pos") and hasattr(model.embed, "W_pos")
