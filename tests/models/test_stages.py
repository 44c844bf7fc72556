"""A block's arithmetic stands in one place: its stage functions, which the hooked pass and everything else call."""

import ast
from functools import cache
from pathlib import Path

import pytest
import torch
from torch import Tensor

import negprobe
from negprobe.models.attention import AttentionContext
from negprobe.models.block import Block
from negprobe.models.norms import FrozenNorm, LayerNorm, Norm, RMSNorm
from negprobe.models.stage_edit import StageEdit, unedited
from tests.support import tiny_models
from tests.support.tiny_models import N_LAYERS

PACKAGE = Path(negprobe.__file__).parent

# The site of each stage's activation, in order, with the hook that reads it in the model's own pass.
NORM_SITES = {f"{norm}_out": f"{norm}.hook_out" for norm in ("ln1", "ln2")}
ATTENTION_SITES = ("q", "k", "v", "rot_q", "rot_k", "attn_scores", "pattern", "z", "result")
HOOKS = {
    **{site: f"attn.hook_{site}" for site in ATTENTION_SITES},
    **{site: f"hook_{site}" for site in ("attn_out", "resid_mid", "mlp_in")},
    **NORM_SITES,
    **{f"mlp_{site}": f"mlp.hook_{site}" for site in ("pre", "pre_linear", "post")},
    **{site: f"hook_{site}" for site in ("mlp_out", "resid_post", "normalized_resid_post")},
}


def hooks_of(block: Block) -> dict[str, str]:
    """The sites of a block, with their hooks."""
    names = {name for name, _ in block.named_modules()}
    return {site: hook for site, hook in HOOKS.items() if hook in names}


def z_of(block: Block, x: Tensor, context: AttentionContext, edit: StageEdit | None = None) -> Tensor:
    """The heads' outputs by the stages, from the block's input."""
    each = edit or unedited
    read = block.attn_in(x, each)
    q, k, v = (each(site, block.attn.project(site, read)) for site in ("q", "k", "v"))
    return block.attn.mix(block.attn.placed("q", q, each), block.attn.placed("k", k, each), v, context, edit)


@pytest.mark.parametrize("family", tiny_models.FAMILIES)
def test_the_hooked_pass_and_the_stages_agree_at_every_site(family: str) -> None:
    theirs, model = tiny_models.pair(family, "masked_lm", torch.float64)
    model.set_use_attn_result(True)
    model.set_use_hook_mlp_in(True)
    tokens = tiny_models.token_batch(theirs.config.pad_token_id)
    with torch.no_grad():
        _, cache = model.run_with_cache(tokens, return_cache_object=False)
        context = model.attention_context((tokens != model.cfg.pad_token_id).long())
        for layer in range(N_LAYERS):
            seen: dict[str, Tensor] = {}

            def keep(site: str, activation: Tensor, seen: dict[str, Tensor] = seen) -> Tensor:
                seen[site] = activation
                return activation

            block, x = model.blocks[layer], cache[f"blocks.{layer}.hook_resid_pre"]
            z = z_of(block, x, context, keep)
            block.after_attention(x, block.attn.out(z, keep, by_head=True), keep)
            # Norms have another place in each kind of block; `test_hooks.py` has their order.
            assert [site for site in seen if site not in NORM_SITES] == [
                site for site in hooks_of(block) if site not in NORM_SITES
            ]
            assert set(seen) == set(hooks_of(block))
            for site, hook in hooks_of(block).items():
                torch.testing.assert_close(seen[site], cache[f"blocks.{layer}.{hook}"], rtol=1e-10, atol=1e-10)
            # The two shortcuts: the kernel that never forms the pattern, and a few queries alone.
            real = model.cfg.pad_token_id != tokens
            torch.testing.assert_close(z_of(block, x, context)[real], z[real], rtol=1e-10, atol=1e-10)
            few = torch.tensor([[2, 0]]).expand(len(tokens), -1)
            if block.architecture.linear_keys:
                found = block.attn.mix_of_few(block.attn_in(x), few, context)
                torch.testing.assert_close(found, z[:, [2, 0]], rtol=1e-10, atol=1e-10)


@pytest.mark.sampled(4)
@pytest.mark.parametrize("family", tiny_models.FAMILIES)
def test_an_edit_of_a_stage_is_what_a_hook_at_its_site_is(family: str) -> None:
    theirs, model = tiny_models.pair(family, "masked_lm", torch.float64)
    model.set_use_attn_result(True)
    model.set_use_hook_mlp_in(True)
    tokens = tiny_models.token_batch(theirs.config.pad_token_id)
    real = tokens != model.cfg.pad_token_id
    context = model.attention_context(real.long())
    with torch.no_grad():
        x = model(tokens, stop_at_layer=1)
        block = model.blocks[1]
        for edited, hook in hooks_of(block).items():

            def halve(site: str, activation: Tensor, edited: str = edited) -> Tensor:
                return activation / 2 if site == edited else activation

            z = z_of(block, x, context, halve)
            by_stages = block.after_attention(x, block.attn.out(z, halve, by_head=True), halve)
            name = f"blocks.1.{hook}"
            by_hook = model.run_with_hooks(tokens, stop_at_layer=2, fwd_hooks=[(name, lambda a, hook: a / 2)])
            torch.testing.assert_close(by_stages[real], by_hook[real], rtol=1e-10, atol=1e-10)


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
    torch.testing.assert_close(1 / inverse_std[..., 0], FrozenNorm.at(norm, y).scale)


def test_an_rms_norm_is_torchs_and_its_linear_views_are_its_derivative_and_its_terms() -> None:
    torch.manual_seed(0)
    norm, reference = RMSNorm(8, 1e-3).double(), torch.nn.RMSNorm(8, 1e-3).double()
    norm.w.data = reference.weight.data = torch.randn(8).double()
    y, change = torch.randn(3, 8).double(), torch.randn(3, 1, 8).double()
    torch.testing.assert_close(norm(y), reference(y))
    _, moved = torch.func.jvp(norm.normalized, (y,), (change[:, 0],))
    torch.testing.assert_close(norm.jacobian(y, change)[:, 0], moved)
    torch.testing.assert_close(FrozenNorm.at(norm, y).carried(y), norm(y))


@pytest.mark.parametrize("kind", [LayerNorm, RMSNorm])
def test_a_norm_whose_scale_is_hooked_computes_the_same(kind: type[Norm]) -> None:
    torch.manual_seed(0)
    norm = kind(8, 1e-3).double()
    norm.w.data = torch.randn(8).double()
    y, seen = torch.randn(3, 8).double(), []
    plain = norm(y)
    norm.hook_scale.add_hook(lambda scale, hook: seen.append(scale))
    torch.testing.assert_close(norm(y), plain)
    torch.testing.assert_close(seen[0][:, 0], FrozenNorm.at(norm, y).scale)


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
    assert callers("layer_norm", "native_layer_norm", "rms_norm") == {"models/norms.py"}
    # Variances are the statistics'.
    assert {path for path in callers("var") if not path.startswith("statistics/")} == set()
    assert callers("scaled_dot_product_attention") == {"models/attention.py"}
    # The other softmaxes turn a head's answers into probabilities.
    assert callers("softmax") - {"models/labels.py", "patching/objectives.py"} == {"models/attention.py"}
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
    assert scaled | roots == {"models/architecture.py"}
