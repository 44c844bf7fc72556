"""Every hook is live and is what its name says: reading, writing and differentiating it agree with Hugging Face."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count

import pytest
import torch
import torch.nn.functional as F
from einops import einsum, rearrange, reduce
from torch import Tensor, nn
from transformer_lens import ActivationCache
from transformer_lens.hook_points import HookPoint
from transformers import PreTrainedModel

from negprobe import HookedEncoder
from negprobe.base.errors import InputError
from negprobe.models.attention import Attention
from tests.support import tiny_models
from tests.support.slow_patching import pre_norm_model
from tests.support.tiny_models import (
    D_HEAD,
    D_MLP,
    D_MODEL,
    D_VOCAB,
    FAMILIES,
    HEADS,
    N_HEADS,
    N_LAYERS,
    largest_difference,
)

ON_REQUEST = {
    "set_use_attn_result": ["attn.hook_result"],
    "set_use_split_qkv_input": ["hook_q_input", "hook_k_input", "hook_v_input"],
    "set_use_hook_mlp_in": ["hook_mlp_in"],
}
"""The hooks of a block that are listed on request."""


def hook_names(ours: HookedEncoder) -> list[str]:
    """The design's table written out for one model, in the order in which the hooks fire."""
    cfg = ours.cfg
    norm = ["hook_scale", "hook_normalized", "hook_out"]
    is_rotary, is_pre = cfg.positions == "rotary", cfg.norms == "pre"
    names = ["embed.hook_embed"]
    names += ["embed.hook_token_type_embed"] if cfg.n_token_types else []
    names += ["embed.hook_pos_embed"] if cfg.embeds_positions else []
    names += ["embed.hook_task_type_embed"] if cfg.n_task_types else []
    names += [f"embed.ln.{name}" for name in norm] if cfg.embed_norm else []
    names += ["hook_full_embed", *(["position_bias.hook_bias"] if cfg.positions == "relative" else [])]
    for layer in range(cfg.n_layers):
        ln1 = [f"ln1.{name}" for name in norm]
        ln2 = [f"ln2.{name}" for name in norm]
        block = [
            "hook_resid_pre",
            *(("hook_q_input", "hook_k_input", "hook_v_input") if cfg.use_split_qkv_input else ()),
            *(ln1 if is_pre and (layer or cfg.first_norm) else []),
            *("attn.hook_q", "attn.hook_k", "attn.hook_v"),
            *(("attn.hook_rot_q", "attn.hook_rot_k") if is_rotary else ()),
            *("attn.hook_attn_scores", "attn.hook_pattern", "attn.hook_z", "attn.hook_result"),
            *("hook_attn_out", "hook_resid_mid", "hook_mlp_in"),
            *(ln2 if is_pre else ln1),
            "mlp.hook_pre",
            *(("mlp.hook_pre_linear",) if cfg.gated_mlp else ()),
            *("mlp.hook_post", "hook_mlp_out", "hook_resid_post"),
            *([] if is_pre else [*ln2, "hook_normalized_resid_post"]),
        ]
        names += [f"blocks.{layer}.{name}" for name in block]
    names += [f"ln_final.{name}" for name in norm] if is_pre else []
    if cfg.head == "masked_lm":
        names += [f"mlm_head.ln.{name}" for name in norm] if cfg.head_transform else []
        names += ["unembed.hook_in", "unembed.hook_out"]
    return names + ([f"classifier.ln.{name}" for name in norm] if cfg.classifier_norm and cfg.labels else [])


def shape_of(name: str, batch: int, pos: int, d_embed: int) -> tuple[int, ...]:
    """The shape the design's table gives a hook."""
    short = name.rsplit(".", 1)[-1]
    if name.startswith("classifier."):
        return batch, 1 if short == "hook_scale" else D_MODEL
    if short in ("hook_attn_scores", "hook_pattern"):
        return batch, N_HEADS, pos, pos
    if short in ("hook_q", "hook_k", "hook_v", "hook_rot_q", "hook_rot_k", "hook_z"):
        return batch, pos, N_HEADS, D_HEAD
    if short in ("hook_result", "hook_q_input", "hook_k_input", "hook_v_input"):
        return batch, pos, N_HEADS, D_MODEL
    if short == "hook_bias":
        return 1, N_HEADS, pos, pos
    if short in ("hook_pre", "hook_pre_linear", "hook_post"):
        return batch, pos, D_MLP
    if short == "hook_scale":
        return batch, pos, 1
    if name == "unembed.hook_out":
        return batch, pos, D_VOCAB
    return batch, pos, d_embed if name.startswith(("embed.", "mlm_head.", "unembed.")) else D_MODEL


@dataclass(frozen=True)
class Case:
    """Both models, tokens of three texts (two of them padded), and the name of the family and the head."""

    family: str
    head: str
    theirs: PreTrainedModel
    ours: HookedEncoder
    tokens: Tensor

    @property
    def mask(self) -> Tensor:
        return (self.tokens != self.ours.cfg.pad_token_id).long()

    def output(self, hooks: list[tuple[str, Callable]] | None = None) -> Tensor:
        """Our output at real tokens under hooks."""
        out = self.ours.run_with_hooks(self.tokens, fwd_hooks=hooks or [])
        return out[self.mask.bool()] if self.head == "masked_lm" else out

    def hf_output(self) -> Tensor:
        out = tiny_models.hf_output(self.theirs, self.head, tiny_models.hf_inputs(self.theirs, self.tokens))
        return out[self.mask.bool()] if self.head == "masked_lm" else out


def make_case(family: str, head: str) -> Case:
    theirs, ours = tiny_models.pair(family, head, torch.float64)
    for request in ON_REQUEST:
        # Where LN1 precedes attention, it has the heads' copies then, as in TransformerLens, and not the plain input.
        getattr(ours, request)(request != "set_use_split_qkv_input" or ours.cfg.norms == "post")
    return Case(family, head, theirs, ours, tiny_models.token_batch(theirs.config.pad_token_id))


@pytest.fixture(scope="module", params=[(family, head) for family in FAMILIES for head in HEADS], ids="-".join)
def case(request: pytest.FixtureRequest) -> Case:
    return make_case(*request.param)


@pytest.fixture
def bert() -> Case:
    return make_case("bert", "masked_lm")


def zeroed(tensor: Tensor, hook: HookPoint) -> Tensor:
    return torch.zeros_like(tensor)


def spoiled(tensor: Tensor, hook: HookPoint) -> Tensor:
    """Zeros, but for what is divided by."""
    assert hook.name is not None
    return 2 * tensor if hook.name.endswith("hook_scale") else torch.zeros_like(tensor)


def part(family: str, block: nn.Module, hook: str) -> nn.Module:
    """The module of a block of Hugging Face's that computes or reads what one of our hooks holds."""
    return block.get_submodule(FAMILIES[family].places[hook][0])


def linear_of(family: str, block: nn.Module, hook: str) -> tuple[Tensor, Tensor | float]:
    """The weight and bias that compute what one of our hooks holds, in Hugging Face's layout; 0 if there is no bias."""
    module, rows = part(family, block, hook), columns_of(FAMILIES[family].places[hook])
    weight = for_each_head(family, hook, module.weight[rows])
    return weight, 0 if module.bias is None else for_each_head(family, hook, module.bias[rows])


def for_each_head(family: str, hook: str, rows: Tensor) -> Tensor:
    """Keys or values, the first axis the entries of all groups of heads, repeated for each head of a group."""
    if not hook.endswith(("hook_k", "hook_v")):
        return rows
    groups = rows.unflatten(0, (-1, D_HEAD))
    return torch.repeat_interleave(groups, FAMILIES[family].heads_per_group, dim=0).flatten(0, 1)


def columns_of(place: tiny_models.Place) -> slice:
    return place[2] if len(place) == 3 else slice(None)


def visible_keys(case: Case, layer: int) -> Tensor:
    """The keys that each query can see, `[batch query key]`: real ones in its window; if there are none, itself."""
    window = case.ours.cfg.windows[layer] if case.ours.cfg.windows else None
    position = torch.arange(case.tokens.shape[1])
    distance = (position[:, None] - position).abs()
    near = distance <= (len(position) if window is None else window)
    seen = case.mask[:, None, :].bool() & near
    return seen | (~seen.any(dim=-1, keepdim=True) & (distance == 0))


@pytest.mark.sampled(4)
def test_the_hooks_are_those_of_the_table(case: Case) -> None:
    assert set(case.ours.hook_dict) == set(hook_names(case.ours))


def test_every_hook_fires_in_order_with_the_shape_of_the_table(case: Case) -> None:
    with torch.no_grad():
        _, cache = case.ours.run_with_cache(case.tokens)
    assert list(cache.keys()) == hook_names(case.ours)
    batch, pos = case.tokens.shape
    for name, activation in cache.items():
        assert activation.shape == shape_of(name, batch, pos, case.ours.cfg.d_embed), name


@pytest.mark.sampled(4)
@torch.no_grad()
def test_zeroing_any_hook_moves_every_output(case: Case) -> None:
    before = case.output()
    for name in hook_names(case.ours):
        after = case.output([(name, spoiled)])
        moved = (after - before).abs().amax(dim=-1)
        ends = (
            f"{N_LAYERS - 1}.hook_normalized_resid_post",
            *(() if case.ours.cfg.norms == "pre" else (f"{N_LAYERS - 1}.ln2.hook_out",)),
            "ln_final.hook_out",
        )
        if name.endswith(ends) and case.head == "none":
            moved = after.norm(dim=-1) < 1e-9  # nothing is left to pool
        assert (moved > 1e-3).all(), name
    assert largest_difference(case.output(), before) == 0  # and the hooks are gone


@torch.no_grad()
def test_zeroing_any_hook_at_one_position_moves_the_output() -> None:
    for family in FAMILIES:
        case = make_case(family, "masked_lm")
        before = case.output()
        for name in hook_names(case.ours):
            for position in (0, 2):
                axis = 2 if name.endswith(("scores", "pattern", "bias")) else 1

                def at_position(tensor: Tensor, hook: HookPoint, axis: int = axis, position: int = position) -> Tensor:
                    tensor = tensor.clone()
                    part = tensor.select(axis, position)
                    part.copy_(spoiled(part, hook))
                    return tensor

                assert largest_difference(case.output([(name, at_position)]), before) > 1e-3, (family, name)


def test_finite_gradients_reach_every_hook(case: Case) -> None:
    kept: dict[str, Tensor] = {}

    def keep(tensor: Tensor, hook: HookPoint) -> None:
        tensor.retain_grad()
        assert hook.name is not None
        kept[hook.name] = tensor

    out = case.output([(lambda name: True, keep)])
    (out * torch.linspace(-1, 1, out.shape[-1])).sum().backward()
    assert set(kept) == set(hook_names(case.ours))
    for name, tensor in kept.items():
        assert tensor.grad is not None and tensor.grad.isfinite().all(), name
        assert tensor.grad.abs().max() > 1e-4, name


def test_gradients_equal_hugging_faces(case: Case) -> None:
    def loss_of(out: Tensor) -> Tensor:
        return (out * torch.linspace(-1, 1, out.shape[-1])).sum()

    grads: dict[str, Tensor] = {}

    def keep_gradient(grad: Tensor, hook: HookPoint) -> None:
        assert hook.name is not None
        grads[hook.name] = grad

    with case.ours.hooks(bwd_hooks=[(lambda name: True, keep_gradient)]):
        out = case.ours(case.tokens)
        loss_of(out[case.mask.bool()] if case.head == "masked_lm" else out).backward()
    inputs = tiny_models.hf_inputs(case.theirs, case.tokens)
    expected = case.theirs(**inputs, output_hidden_states=True, output_attentions=True)
    for tensor in (*expected.hidden_states, *expected.attentions):
        tensor.retain_grad()
    if case.head == "none":
        loss_of(tiny_models.mean_over_real(expected.last_hidden_state, case.mask)).backward()
    else:
        loss_of(expected.logits[case.mask.bool()] if case.head == "masked_lm" else expected.logits).backward()
    real = case.mask.bool()
    for layer in range(N_LAYERS):
        mine = grads[f"blocks.{layer}.hook_resid_pre"], grads[f"blocks.{layer}.attn.hook_pattern"]
        theirs = expected.hidden_states[layer].grad, expected.attentions[layer].grad
        assert largest_difference(mine[0][real], theirs[0][real]) < 1e-10
        # At real queries and keys: what a padded query looks at is nobody's business.
        both_real = (real[:, :, None] & real[:, None, :])[:, None].expand_as(mine[1])
        assert largest_difference(mine[1][both_real], theirs[1][both_real]) < 1e-10


@contextmanager
def at_hugging_face(case: Case, name: str, change: Callable[[Tensor], Tensor | None]) -> Iterator[None]:
    """Give `change` what the hook holds (heads flattened) inside Hugging Face's model, and use what it returns."""
    family = FAMILIES[case.family]
    if name.startswith("blocks."):
        _, layer, short = name.split(".", 2)
        place = family.places[short]
        blocks = list(tiny_models.blocks_of(case.theirs))
        block = blocks[int(layer)]
        module = block.get_submodule(place[0])
        # A module that several layers share is called once for each of them.
        earlier = blocks[: int(layer)].count(block)
    else:
        place = family.embeddings[name]
        module, earlier = case.theirs.base_model.get_submodule(place[0]), 0
    calls = count()

    def at_columns(tensor: Tensor) -> Tensor | None:
        changed = change(tensor[..., columns_of(place)]) if next(calls) == earlier else None
        if changed is None:
            return None
        whole = tensor.clone()
        whole[..., columns_of(place)] = changed
        return whole

    def on_input(_: object, args: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:
        changed = at_columns(args[0])
        return None if changed is None else (changed, *args[1:])

    if place[1] == "input":
        handle = module.register_forward_pre_hook(on_input)
    else:
        handle = module.register_forward_hook(lambda _, args, output: at_columns(output))
    try:
        yield
    finally:
        handle.remove()


def places(case: Case) -> list[str]:
    """The hooks whose activation Hugging Face's model computes in a module of its own."""
    family = FAMILIES[case.family]
    return [
        name
        for name in hook_names(case.ours)
        if (name.split(".", 2)[2] in family.places if name.startswith("blocks.") else name in family.embeddings)
    ]


@pytest.mark.sampled(2)
@torch.no_grad()
def test_every_hook_reads_what_hugging_face_computes(case: Case) -> None:
    _, cache = case.ours.run_with_cache(case.tokens)
    batch, pos = case.tokens.shape
    for name in places(case):
        seen: list[Tensor] = []
        with at_hugging_face(case, name, seen.append):
            case.hf_output()
        expected = for_each_head(case.family, name, seen[0].movedim(-1, 0)).movedim(0, -1)
        mine = cache[name].reshape(batch, pos, -1)
        # Hugging Face may look up one row of positions or token types for the whole batch.
        real = case.mask.bool()
        assert largest_difference(mine[real], expected.expand_as(mine)[real]) < 1e-10, name


@pytest.mark.sampled(4)
@torch.no_grad()
def test_writing_to_a_hook_does_what_the_same_write_does_to_hugging_face(case: Case) -> None:
    for name in (name for name in places(case) if not name.endswith(FAMILIES[case.family].read_only)):
        with at_hugging_face(case, name, lambda tensor: 0.5 * tensor - 0.1):
            expected = case.hf_output()
        mine = case.output([(name, lambda tensor, hook: 0.5 * tensor - 0.1)])
        assert largest_difference(mine, expected) < 1e-10, name


@pytest.mark.sampled(4)
@torch.no_grad()
def test_writing_scores_and_pattern_does_what_their_meaning_says(case: Case) -> None:
    """Hugging Face's model cannot be written to there, but z, which these two make, can."""
    _, cache = case.ours.run_with_cache(case.tokens)
    for layer in range(N_LAYERS):
        z = f"blocks.{layer}.attn.hook_z"
        # Scores of zero look at all visible tokens alike: z is their mean value. Padding stays out.
        seen = visible_keys(case, layer).double()
        weights = seen / seen.sum(dim=-1, keepdim=True)
        mean_value = einsum(
            cache["v", layer], weights, "batch key head d_head, batch query key -> batch query head d_head"
        )
        flat = rearrange(mean_value, "batch query head d_head -> batch query (head d_head)")
        with at_hugging_face(case, z, lambda tensor, flat=flat: flat):
            expected = case.hf_output()
        assert largest_difference(case.output([(f"blocks.{layer}.attn.hook_attn_scores", zeroed)]), expected) < 1e-10
        # A pattern that is the identity lets every token read its own value.
        own = rearrange(cache["v", layer], "batch pos head d_head -> batch pos (head d_head)")
        with at_hugging_face(case, z, lambda tensor, own=own: own):
            expected = case.hf_output()
        identity = case.output(
            [
                (
                    f"blocks.{layer}.attn.hook_pattern",
                    lambda pattern, hook: torch.eye(pattern.shape[-1], dtype=pattern.dtype).expand_as(pattern),
                )
            ]
        )
        assert largest_difference(identity, expected) < 1e-10


@torch.no_grad()
def test_scores_pattern_z_and_result_by_hand(case: Case) -> None:
    _, cache = case.ours.run_with_cache(case.tokens)
    for layer, block in enumerate(tiny_models.blocks_of(case.theirs)):
        rot = "rot_" if case.ours.cfg.positions == "rotary" else ""
        q, k, v = cache[f"{rot}q", layer], cache[f"{rot}k", layer], cache["v", layer]
        scores = einsum(q, k, "b query head d, b key head d -> b head query key") / D_HEAD**0.5
        scores = scores + cache["position_bias.hook_bias"] if case.ours.cfg.positions == "relative" else scores
        assert largest_difference(cache["attn_scores", layer], scores) < 1e-12
        exponentials = scores.exp() * visible_keys(case, layer)[:, None]
        pattern = exponentials / exponentials.sum(dim=-1, keepdim=True)
        assert largest_difference(cache["pattern", layer], pattern) < 1e-12
        z = einsum(pattern, v, "b head query key, b key head d -> b query head d")
        assert largest_difference(cache["z", layer], z) < 1e-12
        dense = part(case.family, block, "hook_attn_out")
        for head in range(N_HEADS):
            columns = dense.weight[:, head * D_HEAD : (head + 1) * D_HEAD]
            assert largest_difference(cache["result", layer][:, :, head], z[:, :, head] @ columns.T) < 1e-12
        bias = linear_of(case.family, block, "hook_attn_out")[1]
        total = reduce(cache["result", layer], "b pos head d -> b pos d", "sum") + bias
        assert largest_difference(cache["attn_out", layer], total) < 1e-12


@torch.no_grad()
def test_the_residual_stream_adds_up(case: Case) -> None:
    _, cache = case.ours.run_with_cache(case.tokens)

    def normalised(x: Tensor, norm: nn.Module) -> Tensor:
        if isinstance(norm, nn.Identity):
            return x
        eps = norm.variance_epsilon if hasattr(norm, "variance_epsilon") else norm.eps
        assert eps == case.ours.cfg.eps
        centred = x - x.mean(dim=-1, keepdim=True) if isinstance(norm, nn.LayerNorm) else x
        unit = centred / (centred.square().mean(dim=-1, keepdim=True) + eps).sqrt()
        return unit * norm.weight + (0 if getattr(norm, "bias", None) is None else norm.bias)

    is_pre = case.ours.cfg.norms == "pre"
    outputs = tiny_models.block_outputs(cache, N_LAYERS)
    assert largest_difference(cache["resid_pre", 0], cache["hook_full_embed"]) == 0
    for layer, block in enumerate(tiny_models.blocks_of(case.theirs)):
        ln1, ln2 = (part(case.family, block, f"{name}.hook_out") for name in ("ln1", "ln2"))
        assert largest_difference(cache["resid_mid", layer], cache["resid_pre", layer] + cache["attn_out", layer]) == 0
        if is_pre:
            q_rows, bias = linear_of(case.family, block, "attn.hook_q")
            q = normalised(cache["resid_pre", layer], ln1) @ q_rows.T + bias
            assert largest_difference(cache["q", layer].flatten(-2), q) < 1e-12
            rows, bias = linear_of(case.family, block, "mlp.hook_pre")
            pre = normalised(cache["resid_mid", layer], ln2) @ rows.T + bias
            assert largest_difference(cache["pre", layer, "mlp"], pre) < 1e-12
        stream = cache["resid_mid", layer] if is_pre else normalised(cache["resid_mid", layer], ln1)
        assert largest_difference(cache["resid_post", layer], stream + cache["mlp_out", layer]) < 1e-12
        after = cache["resid_post", layer] if is_pre else normalised(cache["resid_post", layer], ln2)
        assert largest_difference(outputs[layer], after) < 1e-12


@torch.no_grad()
def test_the_fused_path_equals_the_one_that_forms_the_pattern(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    fused_calls = []
    kernel = F.scaled_dot_product_attention

    def counted(*args: Tensor, **kwargs: Tensor) -> Tensor:
        fused_calls.append(1)
        return kernel(*args, **kwargs)

    monkeypatch.setattr(F, "scaled_dot_product_attention", counted)
    fused = case.output()
    assert len(fused_calls) == N_LAYERS
    for name in ("attn.hook_pattern", "attn.hook_attn_scores"):
        fused_calls.clear()
        formed = case.output([(f"blocks.{i}.{name}", lambda tensor, hook: None) for i in range(N_LAYERS)])
        assert not fused_calls
        assert largest_difference(formed, fused) < 1e-10


def test_a_plain_pytorch_hook_is_seen_too(bert: Case) -> None:
    seen = []
    point = bert.ours.blocks[1].attn.hook_pattern
    handle = point.register_forward_hook(lambda module, args, output: seen.append(output))
    bert.ours(bert.tokens)
    handle.remove()
    assert len(seen) == 1
    with bert.ours.hooks(bwd_hooks=[("blocks.1.attn.hook_attn_scores", lambda grad, hook: seen.append(grad))]):
        bert.ours(bert.tokens).square().sum().backward()
    assert len(seen) == 2


@torch.no_grad()
def test_padding_stays_masked_whatever_a_hook_writes(case: Case) -> None:
    seen: list[Tensor] = []
    case.output(
        [
            ("blocks.0.attn.hook_attn_scores", lambda scores, hook: scores + 100 * torch.ones_like(scores)),
            ("blocks.0.attn.hook_pattern", lambda pattern, hook: seen.append(pattern)),
        ]
    )
    padding = (case.mask == 0)[:, None, None, :].expand_as(seen[0])
    assert padding.any() and seen[0][padding].abs().max() == 0


@torch.no_grad()
@pytest.mark.parametrize(("request_", "short"), [(one, name) for one, names in ON_REQUEST.items() for name in names])
def test_large_activations_can_be_asked_for_and_left_out(bert: Case, request_: str, short: str) -> None:
    before = bert.output()
    name = f"blocks.1.{short}"
    set_listed = getattr(bert.ours, request_)
    set_listed(False)
    assert not getattr(bert.ours.cfg, request_.removeprefix("set_"))
    _, cache = bert.ours.run_with_cache(bert.tokens)
    assert not any(key.endswith(short) for key in cache.keys())  # noqa: SIM118
    assert largest_difference(bert.output(), before) < 1e-12
    # Named explicitly it is live all the same, and gone afterwards.
    assert largest_difference(bert.output([(name, zeroed)]), before) > 1e-3
    assert largest_difference(bert.output(), before) < 1e-12
    set_listed(True)
    assert getattr(bert.ours.cfg, request_.removeprefix("set_"))
    assert name in bert.ours.run_with_cache(bert.tokens)[1]
    assert largest_difference(bert.output([(name, zeroed)]), before) > 1e-3


@torch.no_grad()
@pytest.mark.parametrize("norms", ["post", "pre"])
@pytest.mark.parametrize("site", ["q", "k", "v"])
def test_each_head_reads_its_own_copy_of_the_input(norms: str, site: str) -> None:
    model = tiny_models.pair("bert", "masked_lm", torch.float64)[1] if norms == "post" else pre_norm_model()
    tokens = tiny_models.token_batch(0)
    block, attn = model.blocks[1], model.blocks[1].attn
    before = model(tokens)
    name, seen = f"blocks.1.hook_{site}_input", {}
    # Another one for each position: one for all keys would change no pattern.
    shift = torch.sin(torch.arange(tokens.shape[1] * D_MODEL, dtype=torch.float64)).view(-1, D_MODEL)

    def shift_head_2(copies: Tensor, hook: HookPoint) -> Tensor:
        seen["copies"] = copies.clone()
        copies[:, :, 2] += shift
        return copies

    resid = model(tokens, stop_at_layer=1)
    shifted = model.run_with_hooks(tokens, fwd_hooks=[(name, shift_head_2)])
    assert all(largest_difference(seen["copies"][:, :, head], resid) == 0 for head in range(N_HEADS))
    # By hand: what this head projects, of the shifted input alone.
    moved = resid + shift
    if norms == "pre":
        moved = F.layer_norm(moved, (D_MODEL,), block.ln1.w, block.ln1.b, model.cfg.eps)
    letter = site.upper()
    own = moved @ getattr(attn, f"W_{letter}")[2] + getattr(attn, f"b_{letter}")[2]

    def set_head_2(activation: Tensor, hook: HookPoint) -> Tensor:
        activation = activation.clone()
        activation[:, :, 2] = own
        return activation

    expected = model.run_with_hooks(tokens, fwd_hooks=[(f"blocks.1.attn.hook_{site}", set_head_2)])
    assert largest_difference(shifted, expected) < 1e-12
    assert largest_difference(shifted, before) > 1e-3
    # A hook that changes nothing changes nothing.
    assert largest_difference(model.run_with_hooks(tokens, fwd_hooks=[(name, lambda a, hook: a)]), before) < 1e-12


@torch.no_grad()
def test_writing_to_the_input_of_the_mlp_in_place_leaves_the_residual_stream(bert: Case) -> None:
    for model in (bert.ours, pre_norm_model()):
        seen: list[Tensor] = []

        def zero_in_place(mlp_in: Tensor, hook: HookPoint) -> Tensor:
            return mlp_in.zero_()

        def note(activation: Tensor, hook: HookPoint, seen: list[Tensor] = seen) -> None:
            seen.append(activation)

        hooks = [("blocks.1.hook_resid_mid", note), ("blocks.1.hook_mlp_in", zero_in_place)]
        model.run_with_hooks(bert.tokens, fwd_hooks=hooks)
        assert seen[0].abs().max() > 1e-3


def test_hooks_on_request_that_nobody_uses_cost_nothing(bert: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*args: object) -> None:
        raise AssertionError("each head's input was copied")

    monkeypatch.setattr(Attention, "project_by_head", refused)
    bert.output()
    with pytest.raises(AssertionError, match="copied"):
        bert.output([("blocks.1.hook_q_input", zeroed)])


def test_a_hook_point_that_is_not_there_is_named(bert: Case) -> None:
    for use in (
        lambda name: bert.output([(name, zeroed)]),
        lambda name: bert.ours.add_hook(name, zeroed),
        lambda name: bert.ours.run_with_hooks(bert.tokens, bwd_hooks=[(name, zeroed)]),
    ):
        with pytest.raises(
            InputError, match=r"no hook point 'blocks\.1\.attn\.hook_zz'.*mean 'blocks\.1\.attn\.hook_z'"
        ):
            use("blocks.1.attn.hook_zz")
        with pytest.raises(InputError, match=r"no hook point 'blocks\.1\.attn' in this model"):
            use("blocks.1.attn")


@pytest.mark.sampled(4)
@torch.no_grad()
@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("family", FAMILIES)
def test_starting_and_stopping_at_every_layer(family: str, head: str) -> None:
    case = make_case(family, head)
    ours, mask = case.ours, case.mask
    whole, cache = ours.run_with_cache(case.tokens)
    states = [cache["hook_full_embed"], *tiny_models.block_outputs(cache, N_LAYERS)]
    for layer in range(N_LAYERS + 1):
        assert largest_difference(ours(case.tokens, stop_at_layer=layer), states[layer]) < 1e-12
        resumed = ours(states[layer], start_at_layer=layer, one_zero_attention_mask=mask)
        assert largest_difference(resumed, whole) < 1e-12
        for last in range(layer, N_LAYERS + 1):
            part = ours(states[layer], start_at_layer=layer, stop_at_layer=last, one_zero_attention_mask=mask)
            assert largest_difference(part, states[last]) < 1e-12
    for layer in range(-N_LAYERS, 0):
        assert largest_difference(ours(case.tokens, stop_at_layer=layer), states[layer - 1]) < 1e-12
        resumed = ours(states[layer - 1], start_at_layer=layer, one_zero_attention_mask=mask)
        assert largest_difference(resumed, whole) < 1e-12
    # Without the mask nothing is padding: a text alone needs none.
    alone = ours(states[1][:1], start_at_layer=1)
    assert largest_difference(alone, whole[:1]) < 1e-12
    assert largest_difference(ours(states[1], start_at_layer=1)[1:], whole[1:]) > 1e-3


def test_blocks_that_are_skipped_do_not_run(bert: Case) -> None:
    fired: list[str] = []

    def note(tensor: Tensor, hook: HookPoint) -> None:
        assert hook.name is not None
        fired.append(hook.name)

    bert.ours.run_with_hooks(bert.tokens, stop_at_layer=1, fwd_hooks=[(lambda name: name.endswith("resid_pre"), note)])
    resid = torch.zeros(1, 4, D_MODEL, dtype=torch.float64)
    bert.ours.run_with_hooks(resid, start_at_layer=2, fwd_hooks=[(lambda name: name.endswith("resid_pre"), note)])
    assert fired == ["blocks.0.hook_resid_pre", "blocks.2.hook_resid_pre"]


@pytest.mark.parametrize("layer", [-N_LAYERS - 1, N_LAYERS + 1])
def test_a_layer_that_is_not_there(bert: Case, layer: int) -> None:
    with pytest.raises(InputError, match=f"stop_at_layer must be from -{N_LAYERS} to {N_LAYERS}.*got {layer}"):
        bert.ours(bert.tokens, stop_at_layer=layer)
    with pytest.raises(InputError, match=f"start_at_layer must be from -{N_LAYERS} to {N_LAYERS}.*got {layer}"):
        bert.ours(torch.zeros(1, 4, D_MODEL, dtype=torch.float64), start_at_layer=layer)


@torch.no_grad()
def test_the_cache_is_transformer_lenss(bert: Case) -> None:
    output, cache = bert.ours.run_with_cache(bert.tokens)
    assert isinstance(cache, ActivationCache) and cache.has_batch_dim
    assert cache["pattern", 0] is cache["blocks.0.attn.hook_pattern"]
    assert cache["resid_pre", -1] is cache[f"blocks.{N_LAYERS - 1}.hook_resid_pre"]
    assert largest_difference(output, bert.ours(bert.tokens)) < 1e-10
    filtered = bert.ours.run_with_cache(bert.tokens, names_filter=lambda name: name.endswith("hook_z"))[1]
    assert list(filtered.keys()) == [f"blocks.{layer}.attn.hook_z" for layer in range(N_LAYERS)]
    _, as_dict = bert.ours.run_with_cache(bert.tokens, return_cache_object=False)
    assert type(as_dict) is dict and set(as_dict) == set(hook_names(bert.ours))


@torch.no_grad()
def test_the_batch_axis_of_one_text_can_be_removed(bert: Case) -> None:
    _, cache = bert.ours.run_with_cache(bert.tokens[:1], remove_batch_dim=True)
    _, whole = bert.ours.run_with_cache(bert.tokens[:1])
    assert not cache.has_batch_dim
    for name, activation in whole.items():
        assert largest_difference(cache[name], activation[0]) == 0
    assert bert.ours.run_with_cache("the door", remove_batch_dim=True)[1]["pattern", 0].shape == (N_HEADS, 4, 4)
    for two in (bert.tokens[:2], ["the door", "a house"]):
        with pytest.raises(InputError, match="2"):
            bert.ours.run_with_cache(two, remove_batch_dim=True)


@torch.no_grad()
def test_hooks_added_for_good_stay_until_they_are_reset(bert: Case) -> None:
    before = bert.output()
    bert.ours.add_hook("blocks.1.hook_mlp_out", zeroed)
    assert largest_difference(bert.ours(bert.tokens)[bert.mask.bool()], before) > 1e-3
    bert.ours.reset_hooks()
    assert largest_difference(bert.output(), before) == 0
    with bert.ours.hooks(fwd_hooks=[("blocks.1.hook_mlp_out", zeroed)]):
        assert largest_difference(bert.ours(bert.tokens)[bert.mask.bool()], before) > 1e-3
    assert largest_difference(bert.output(), before) == 0


@torch.no_grad()
@pytest.mark.parametrize("family", FAMILIES)
def test_parameters_per_head_are_hugging_faces(family: str) -> None:
    theirs, ours = tiny_models.pair(family, "masked_lm", torch.float64)
    x = torch.randn(5, D_MODEL, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert ours.W_Q.shape == ours.W_K.shape == ours.W_V.shape == (N_LAYERS, N_HEADS, D_MODEL, D_HEAD)
    assert ours.W_O.shape == (N_LAYERS, N_HEADS, D_HEAD, D_MODEL)
    assert ours.QK.shape == ours.OV.shape == (N_LAYERS, N_HEADS, D_MODEL, D_MODEL)
    for layer, block in enumerate(tiny_models.blocks_of(theirs)):
        query, key, value = (linear_of(family, block, f"attn.hook_{name}") for name in "qkv")
        out, lin2 = (linear_of(family, block, name) for name in ("hook_attn_out", "hook_mlp_out"))
        reads = (
            {"mlp.hook_pre": "in"} if not ours.cfg.gated_mlp else {"mlp.hook_pre": "gate", "mlp.hook_pre_linear": "in"}
        )
        for head in range(N_HEADS):
            rows = slice(head * D_HEAD, (head + 1) * D_HEAD)
            for (weight, bias), W, b in (
                (query, ours.W_Q, ours.b_Q),
                (key, ours.W_K, ours.b_K),
                (value, ours.W_V, ours.b_V),
            ):
                expected = (x @ weight.T + bias)[:, rows]
                assert largest_difference(x @ W[layer, head] + b[layer, head], expected) < 1e-12
            w_q, w_k, w_v = (weight[rows] for weight, _ in (query, key, value))
            w_o = out[0][:, rows]
            assert largest_difference(ours.W_O[layer, head], w_o.T) == 0
            assert largest_difference(ours.QK.AB[layer, head], w_q.T @ w_k) < 1e-12
            assert largest_difference(ours.OV.AB[layer, head], (w_o @ w_v).T) < 1e-12
        assert ((ours.b_O[layer] - out[1]) == 0).all()
        for name, W in reads.items():
            weight, bias = linear_of(family, block, name)
            mlp = ours.blocks[layer].mlp
            mine = x @ mlp.get_parameter(f"W_{W}") + mlp.get_parameter(f"b_{W}")
            assert largest_difference(mine, x @ weight.T + bias) < 1e-12
        post = torch.ones(1, D_MLP, dtype=torch.float64)
        assert largest_difference(post @ ours.W_out[layer] + ours.b_out[layer], post @ lin2[0].T + lin2[1]) < 1e-12
    assert largest_difference(ours.W_E, theirs.get_input_embeddings().weight) == 0
    if ours.cfg.embeds_positions:
        assert largest_difference(ours.W_pos, theirs.base_model.embeddings.position_embeddings.weight) == 0
    decoder = theirs.get_output_embeddings()
    assert largest_difference(ours.W_U, decoder.weight.T) == 0
    assert ((ours.b_U - (0 if decoder.bias is None else decoder.bias)) == 0).all()
    assert ours.all_head_labels()[:5] == ["L0H0", "L0H1", "L0H2", "L0H3", "L1H0"]


def test_no_unembedding_without_a_masked_lm_head() -> None:
    _, ours = tiny_models.pair("bert", "none")
    for name in ("W_U", "b_U"):
        with pytest.raises(InputError, match="no masked-LM head"):
            getattr(ours, name)
