"""`transformer_lens.patching` runs on our encoder and gives what a loop written by hand on Hugging Face's gives."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import transformers
from torch import Tensor
from torch.nn import functional as F
from transformer_lens import patching
from transformers import PreTrainedModel

from negprobe import HookedEncoder
from negprobe.base.errors import InputError
from tests.support import ROOT, tiny_models
from tests.support.slow_patching import pre_norm_model
from tests.support.tiny_models import largest_difference

FAMILIES = ("bert", "distilbert", "roberta", "electra-narrow", "nomic", "eurobert", "modernbert")


def attention_output(block: torch.nn.Module) -> torch.nn.Module:
    """The linear map whose input is every head's z, side by side."""
    if hasattr(block, "attn"):
        return block.attn.Wo
    if hasattr(block, "self_attn"):
        return block.self_attn.o_proj
    return block.attention.out_lin if hasattr(block.attention, "out_lin") else block.attention.output.dense


def inputs_seen(modules: list[torch.nn.Module], run: Callable[[], Tensor]) -> list[Tensor]:
    """What each module is given in one run."""
    seen: list[Tensor] = []
    handles = [module.register_forward_pre_hook(lambda _, args: seen.append(args[0])) for module in modules]
    run()
    for handle in handles:
        handle.remove()
    return seen


def run_with_input(module: torch.nn.Module, change: Callable[[Tensor], Tensor], run: Callable[[], Tensor]) -> Tensor:
    """One run in which `change` is applied to what the module is given."""
    handle = module.register_forward_pre_hook(lambda _, args: (change(args[0]), *args[1:]))
    try:
        return run()
    finally:
        handle.remove()


def by_hand(
    theirs: PreTrainedModel, corrupted: Callable[[], Tensor], clean: Callable[[], Tensor], n_heads: int
) -> tuple[Tensor, Tensor]:
    """Metric `[layer pos]` of every swapped block input and `[layer head]` of every swapped z, one run each."""
    blocks = list(tiny_models.blocks_of(theirs))
    clean_inputs = inputs_seen(blocks, clean)
    clean_z = inputs_seen([attention_output(block) for block in blocks], clean)
    n_pos, d_head = clean_inputs[0].shape[1], clean_z[0].shape[2] // n_heads
    resid_pre = torch.zeros(len(blocks), n_pos)
    z = torch.zeros(len(blocks), n_heads)
    for layer, block in enumerate(blocks):
        for pos in range(n_pos):

            def swap_position(x: Tensor, layer: int = layer, pos: int = pos) -> Tensor:
                x = x.clone()
                x[:, pos] = clean_inputs[layer][:, pos]
                return x

            resid_pre[layer, pos] = run_with_input(block, swap_position, corrupted)
        for head in range(n_heads):

            def swap_head(x: Tensor, layer: int = layer, head: int = head) -> Tensor:
                x = x.clone()
                columns = slice(head * d_head, (head + 1) * d_head)
                x[..., columns] = clean_z[layer][..., columns]
                return x

            z[layer, head] = run_with_input(attention_output(block), swap_head, corrupted)
    return resid_pre, z


@torch.no_grad()
@pytest.mark.parametrize("family", FAMILIES)
def test_on_small_models_with_padding(family: str) -> None:
    theirs, ours = tiny_models.pair(family, "masked_lm", torch.float64)
    corrupted = tiny_models.token_batch(theirs.config.pad_token_id, (6, 4))
    clean = corrupted.clone()
    clean[:, 2] = torch.tensor([7, 8])

    def metric(logits: Tensor) -> Tensor:
        return (logits[:, 1, 10] - logits[:, 1, 20]).mean()

    _, clean_cache = ours.run_with_cache(clean)
    resid_pre = patching.get_act_patch_resid_pre(ours, corrupted, clean_cache, metric)
    z = patching.get_act_patch_attn_head_out_all_pos(ours, corrupted, clean_cache, metric)
    expected_resid_pre, expected_z = by_hand(
        theirs,
        lambda: metric(theirs(**tiny_models.hf_inputs(theirs, corrupted)).logits),
        lambda: metric(theirs(**tiny_models.hf_inputs(theirs, clean)).logits),
        tiny_models.N_HEADS,
    )
    # Also where heads share keys in Hugging Face's model.
    keys = patching.get_act_patch_attn_head_k_all_pos(ours, corrupted, clean_cache, metric)
    assert keys.shape == z.shape and ((keys - metric(ours(corrupted)).float()).abs() > 1e-6).any(dim=0).all()
    # TransformerLens keeps its results in float32.
    assert largest_difference(resid_pre, expected_resid_pre) < 1e-6
    assert largest_difference(z, expected_z) < 1e-6
    # Every patch that can act does: the two texts differ at position 2 alone, and mix from the first block on.
    base = metric(ours(corrupted)).float()
    assert (resid_pre[0] - base).abs().argmax() == 2
    assert ((resid_pre[1:, :4] - base).abs() > 1e-4).all() and ((z - base).abs() > 1e-4).all()
    # What padding holds never matters.
    _, second = ours.run_with_cache(clean[1:])
    only_padding = patching.get_act_patch_resid_pre(ours, corrupted[1:], second, metric)
    assert (only_padding[:, 4:] - metric(ours(corrupted[1:])).float()).abs().max() < 1e-6


@torch.no_grad()
def test_on_a_real_encoder(minilm_path: Path) -> None:
    theirs = transformers.BertModel.from_pretrained(minilm_path, attn_implementation="eager").eval()
    ours = HookedEncoder.from_pretrained(minilm_path, device="cpu")
    clean, _, _ = ours.to_tokens("the door is not open")
    corrupted, _, _ = ours.to_tokens("the door is now open")
    reference = ours("the door is closed")[0]

    def run(tokens: Tensor) -> Tensor:
        return F.cosine_similarity(theirs(tokens).last_hidden_state.mean(dim=1)[0], reference, dim=0)

    def metric(embedding: Tensor) -> Tensor:
        return F.cosine_similarity(embedding[0], reference, dim=0)

    _, clean_cache = ours.run_with_cache(clean)
    resid_pre = patching.get_act_patch_resid_pre(ours, corrupted, clean_cache, metric)
    z = patching.get_act_patch_attn_head_out_all_pos(ours, corrupted, clean_cache, metric)
    expected_resid_pre, expected_z = by_hand(theirs, lambda: run(corrupted), lambda: run(clean), ours.cfg.n_heads)
    assert resid_pre.shape == (6, 7) and z.shape == (6, 12)
    assert largest_difference(resid_pre, expected_resid_pre) < 1e-5
    assert largest_difference(z, expected_z) < 1e-5
    # Swapping the one word that differs at the embeddings makes the clean run of the corrupted one.
    assert abs(resid_pre[0, 4] - metric(ours(clean))) < 1e-5
    assert abs(metric(ours(clean)) - metric(ours(corrupted))) > 0.01


@torch.no_grad()
def test_every_other_helper_of_transformer_lens_runs() -> None:
    _, ours = tiny_models.pair("bert", "masked_lm")
    ours.set_use_attn_result(True)
    corrupted = tiny_models.token_batch(0, (5,))
    clean = corrupted.roll(1, dims=1)
    _, clean_cache = ours.run_with_cache(clean)

    def metric(logits: Tensor) -> Tensor:
        return logits[:, 1, 10].mean()

    base = metric(ours(corrupted))
    for name in ("resid_mid", "attn_out", "mlp_out"):
        effect = getattr(patching, f"get_act_patch_{name}")(ours, corrupted, clean_cache, metric)
        assert effect.shape == (3, 5) and (effect - base).abs().max() > 1e-3
    for name in ("q", "k", "v", "pattern"):
        effect = getattr(patching, f"get_act_patch_attn_head_{name}_all_pos")(ours, corrupted, clean_cache, metric)
        assert effect.shape == (3, 4) and (effect - base).abs().max() > 1e-3
    every = patching.get_act_patch_block_every(ours, corrupted, clean_cache, metric)
    assert every.shape == (3, 3, 5)


NOT_HERE = {"get_act_patch_direct_path", "get_act_patch_direct_path_all_sources"}
"""What README says is refused in blocks with norms after attention."""


@pytest.mark.sampled(5)
@torch.no_grad()
@pytest.mark.parametrize("name", sorted(name for name in vars(patching) if name.startswith("get_act_patch_")))
def test_all_functions_run_but_those_of_direct_paths_which_are_refused_with_norms_after_attention(name: str) -> None:
    ours = HookedEncoder.from_pretrained("tiny-negation", device="cpu")
    clean, _, _ = ours.to_tokens("It is now [MASK].")
    corrupted, _, _ = ours.to_tokens("It is not [MASK].")
    _, clean_cache = ours.run_with_cache(clean)
    _, corrupted_cache = ours.run_with_cache(corrupted)
    function = getattr(patching, name)

    def metric(logits: Tensor) -> Tensor:
        return logits[0, 4, 10] - logits[0, 4, 20]

    if name in NOT_HERE:
        source = (0, 0) if name == "get_act_patch_direct_path" else ()
        with pytest.raises(InputError, match=r"[Uu]se negprobe\.patching\.path_patch"):
            function(ours, corrupted, clean_cache, corrupted_cache, metric, *source)
        assert not ours.cfg.use_split_qkv_input
    else:
        effects = function(ours, corrupted, clean_cache, metric)
        assert effects.isfinite().all()
        assert (effects - metric(ours(corrupted))).abs().max() > 1e-3


@torch.no_grad()
@pytest.mark.parametrize("component", ["q", "k", "v"])
def test_direct_paths_are_exact_in_blocks_with_norms_before_attention(component: str) -> None:
    """What a head writes is then what later heads read of it, so that the change can be added to their input."""
    model = pre_norm_model()
    corrupted = tiny_models.token_batch(0, (6, 4))
    clean = corrupted.clone()
    clean[:, 2] = torch.tensor([7, 8])
    _, clean_cache = model.run_with_cache(clean)
    _, cache = model.run_with_cache(corrupted)

    def metric(logits: Tensor) -> Tensor:
        return (logits[:, 1, 10] - logits[:, 1, 20]).mean()

    found = patching.get_act_patch_direct_path_all_sources(
        model, corrupted, clean_cache, cache, metric, component, verbose=False
    )
    assert not model.cfg.use_split_qkv_input
    layers, heads = range(model.cfg.n_layers), range(model.cfg.n_heads)
    for source in layers:
        for source_head in heads:
            change = (clean_cache["z", source] - cache["z", source])[:, :, source_head] @ model.W_O[source, source_head]
            for layer in range(source + 1, model.cfg.n_layers):
                block = model.blocks[layer]
                resid = cache["resid_pre", layer] + change
                read = F.layer_norm(resid, resid.shape[-1:], block.ln1.w, block.ln1.b, model.cfg.eps)
                for head in heads:
                    letter = component.upper()
                    new = read @ getattr(block.attn, f"W_{letter}")[head] + getattr(block.attn, f"b_{letter}")[head]

                    def use(activation: Tensor, hook: object, head: int = head, new: Tensor = new) -> Tensor:
                        activation = activation.clone()
                        activation[:, :, head] = new
                        return activation

                    hooks = [(f"blocks.{layer}.attn.hook_{component}", use)]
                    expected = metric(model.run_with_hooks(corrupted, fwd_hooks=hooks))
                    # TransformerLens keeps its results in float32.
                    assert abs(found[source, source_head, layer, head] - expected.float()) < 1e-6
    assert (found[0, :, 1:] - metric(model(corrupted)).float()).abs().max() > 1e-3


def test_readme_names_the_functions_that_do_not_run() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert set(re.findall(r"get_act_patch_\w+", readme)) == NOT_HERE
