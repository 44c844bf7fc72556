"""Shortcuts ask the description of the architecture whether they may be taken."""

from dataclasses import replace

import pytest
import torch
import xarray as xr

from negprobe import HookedEncoder, StatementPair, patch_sweep
from negprobe.attention import layer_measures
from negprobe.attention.contribution_maps import contribution_work, contributions
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


def test_zeroing_reads_whole_blocks_only_where_it_has_no_closed_form(
    model: HookedEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = []
    by_stages = layer_measures._outputs_by_stages
    monkeypatch.setattr(layer_measures, "_outputs_by_stages", lambda *given: whole.append(1) or by_stages(*given))
    tokens = torch.tensor([[2, 5, 3]])
    closed = contributions(model, tokens, None, "zeroing")
    assert not whole
    # The same numbers: the description only says whether the shortcut may be taken.
    for block in model.blocks:
        block.architecture = replace(block.architecture, gated_mlp=True)
    torch.testing.assert_close(contributions(model, tokens, None, "zeroing"), closed, atol=1e-6, rtol=0)
    assert len(whole) == model.cfg.n_layers


def test_the_work_of_the_measures_is_that_of_the_maps_they_compute(model: HookedEncoder) -> None:
    gated = replace(model.cfg, gated_mlp=True)
    assert contribution_work(gated, 9) == 3 * contribution_work(model.cfg, 9)


def test_the_configuration_decides_the_kinds_of_parts(model: HookedEncoder) -> None:
    rotary = {"positions": "rotary", "rotary_bases": (1e4,) * model.cfg.n_layers}
    cfg = replace(model.cfg, norms="pre", gated_mlp=True, normalization_type="RMS", embeds_positions=False, **rotary)
    other = HookedEncoder(cfg)
    block = other.blocks[0]
    assert (other.architecture.norms, other.architecture.positions, other.architecture.norm) == ("pre", "rotary", "RMS")
    assert block.is_pre_norm and block.mlp.is_gated and isinstance(block.ln1, RMSNorm)
    assert isinstance(other.ln_final, RMSNorm) and isinstance(model.ln_final, NoNorm)
    assert not hasattr(other.embed, "W_pos") and hasattr(model.embed, "W_pos")
