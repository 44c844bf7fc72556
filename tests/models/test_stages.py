"""A block's arithmetic stands in one place: its stage functions, which the hooked pass and everything else call."""

import ast
from functools import cache
from pathlib import Path

import pytest
import torch
from torch import Tensor

import negprobe
from negprobe.models.attention import key_mask
from negprobe.models.norms import FrozenNorm, LayerNorm
from tests.support import tiny_models
from tests.support.tiny_models import N_LAYERS

PACKAGE = Path(negprobe.__file__).parent

# The site of each stage's activation, in order, with the hook that reads it in the model's own pass.
HOOKS = {
    **{site: f"attn.hook_{site}" for site in ("q", "k", "v", "attn_scores", "pattern", "z", "result")},
    **{site: f"hook_{site}" for site in ("attn_out", "resid_mid")},
    **{f"mlp_{site}": f"mlp.hook_{site}" for site in ("pre", "post")},
    **{site: f"hook_{site}" for site in ("mlp_out", "resid_post", "normalized_resid_post")},
}


@pytest.mark.parametrize("family", ["bert", "distilbert", "roberta", "electra"])
def test_the_hooked_pass_and_the_stages_agree_at_every_site(family: str) -> None:
    theirs, model = tiny_models.pair(family, "masked_lm", torch.float64)
    model.set_use_attn_result(True)
    tokens = tiny_models.token_batch(theirs.config.pad_token_id)
    with torch.no_grad():
        _, cache = model.run_with_cache(tokens, return_cache_object=False)
        mask = key_mask((tokens != model.cfg.pad_token_id).long())
        for layer in range(N_LAYERS):
            seen: dict[str, Tensor] = {}

            def keep(site: str, activation: Tensor, seen: dict[str, Tensor] = seen) -> Tensor:
                seen[site] = activation
                return activation

            block, x = model.blocks[layer], cache[f"blocks.{layer}.hook_resid_pre"]
            q, k, v = (keep(site, block.project(site, x)) for site in ("q", "k", "v"))
            z = block.attn.mix(q, k, v, mask, keep)
            block.after_attention(x, block.attn.out(z, keep, by_head=True), keep)
            assert list(seen) == list(HOOKS)
            for site, hook in HOOKS.items():
                torch.testing.assert_close(seen[site], cache[f"blocks.{layer}.{hook}"], rtol=1e-10, atol=1e-10)
            # The two shortcuts: the kernel that never forms the pattern, and a few queries alone.
            torch.testing.assert_close(block.attn.mix(q, k, v, mask), z, rtol=1e-10, atol=1e-10)
            few = torch.tensor([[2, 0]]).expand(len(tokens), -1)
            torch.testing.assert_close(block.attn.mix_of_few(x, few, mask), z[:, [2, 0]], rtol=1e-10, atol=1e-10)


def test_an_edit_of_a_stage_is_what_a_hook_at_its_site_is() -> None:
    theirs, model = tiny_models.pair("bert", "masked_lm", torch.float64)
    model.set_use_attn_result(True)
    tokens = tiny_models.token_batch(theirs.config.pad_token_id)
    mask = key_mask((tokens != model.cfg.pad_token_id).long())
    with torch.no_grad():
        x = model(tokens, stop_at_layer=1)
        block = model.blocks[1]
        for edited, hook in HOOKS.items():

            def halve(site: str, activation: Tensor, edited: str = edited) -> Tensor:
                return activation / 2 if site == edited else activation

            q, k, v = (halve(site, block.project(site, x)) for site in ("q", "k", "v"))
            z = block.attn.mix(q, k, v, mask, halve)
            by_stages = block.after_attention(x, block.attn.out(z, halve, by_head=True), halve)
            name = f"blocks.1.{hook}"
            by_hook = model.run_with_hooks(tokens, stop_at_layer=2, fwd_hooks=[(name, lambda a, hook: a / 2)])
            torch.testing.assert_close(by_stages, by_hook, rtol=1e-10, atol=1e-10)


def test_the_linear_views_of_a_layer_norm_are_its_derivative_and_its_terms() -> None:
    torch.manual_seed(0)
    norm = LayerNorm(8, 1e-3).double()
    norm.w.data, norm.b.data = torch.randn(8).double(), torch.randn(8).double()
    y, change = torch.randn(2, 3, 8).double(), torch.randn(2, 3, 5, 8).double()
    for row in range(2):
        for at in range(3):
            for i in range(5):
                _, moved = torch.func.jvp(norm.normalized, (y[row, at],), (change[row, at, i],))
                torch.testing.assert_close(norm.jacobian(y, change)[row, at, i], moved)
    torch.testing.assert_close(FrozenNorm.at(norm, y).carried(y) + norm.b, norm(y))
    output, inverse_std = norm.normalized_and_inverse_std(y)
    torch.testing.assert_close(output, norm(y))
    torch.testing.assert_close(1 / inverse_std[..., 0], FrozenNorm.at(norm, y).std)


@cache
def expressions() -> list[tuple[str, ast.AST]]:
    """Every node of every module of the package, with the module's path inside it."""
    return [
        (path.relative_to(PACKAGE).as_posix(), node)
        for path in sorted(PACKAGE.rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
    ]


def callers(*names: str) -> set[str]:
    """The modules that call a function or method of one of these names."""
    calls = ((path, node.func) for path, node in expressions() if isinstance(node, ast.Call))
    return {path for path, called in calls if isinstance(called, ast.Attribute) and called.attr in names}


def test_the_arithmetic_of_a_block_stands_in_one_module() -> None:
    assert callers("layer_norm", "native_layer_norm") == {"models/layer_norm.py"}
    # A variance is a LayerNorm's, but for the statistics'.
    assert {path for path in callers("var") if not path.startswith("statistics/")} == {"models/layer_norm.py"}
    assert callers("scaled_dot_product_attention") == {"models/layers.py"}
    # The other softmaxes turn a head's answers into probabilities.
    assert callers("softmax") - {"models/labels.py", "patching/objectives.py"} == {"models/layers.py"}
    scaled = {
        path
        for path, node in expressions()
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Pow) and "d_head" in ast.dump(node.left)
    }
    roots = {
        path
        for path, node in expressions()
        if isinstance(node, ast.Call) and "sqrt" in ast.dump(node.func) and "d_head" in ast.dump(node)
    }
    assert scaled | roots == {"models/layers.py"}
