"""What a cache says each component contributed adds up to the state, and every method is right or refused."""

import inspect
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from transformer_lens import ActivationCache
from transformer_lens.hook_points import HookPoint

from negprobe import HookedEncoder
from negprobe.base.errors import InputError
from negprobe.models.cache import EncoderCache
from negprobe.models.norms import Norm
from tests.support import tiny_models
from tests.support.tiny_models import D_MLP, D_MODEL, FAMILIES, N_HEADS, N_LAYERS, largest_difference

TEXTS = ["The door is not [MASK] and the lamp is not bright.", "The soup is [MASK]."]
TOLERANCE = 1e-12


@pytest.fixture(scope="module", params=[*FAMILIES, "tiny-negation"])
def model(request: pytest.FixtureRequest) -> HookedEncoder:
    if request.param == "tiny-negation":
        return HookedEncoder.from_pretrained(request.param, device="cpu", dtype=torch.float64)
    return tiny_models.pair(request.param, "masked_lm", torch.float64)[1]


def run(model: HookedEncoder, **how: object) -> EncoderCache:
    tokens = tiny_models.token_batch(model.cfg.pad_token_id)
    with torch.no_grad():
        _, cache = model.run_with_cache(tokens, **how)
    return cache


@pytest.fixture(scope="module")
def cache(model: HookedEncoder) -> EncoderCache:
    return run(model)


@pytest.fixture
def bert() -> HookedEncoder:
    return tiny_models.pair("bert", "masked_lm", torch.float64)[1]


def state(cache: EncoderCache, layer: int, mlp_input: bool = False, apply_ln: bool = False) -> Tensor:
    """The state itself, as the run had it."""
    model, n_layers = cache.model, cache.model.cfg.n_layers
    if layer == n_layers:
        output = tiny_models.block_outputs(cache, n_layers)[-1]
        return model.ln_final(output).detach() if apply_ln else output
    given = cache["resid_mid" if mlp_input else "resid_pre", layer]
    block = model.blocks[layer]
    reader = block.ln2 if mlp_input and model.cfg.norms == "pre" else block.ln1
    return reader(given).detach() if apply_ln else given


def readable(model: HookedEncoder) -> list[bool]:
    """Whether a norm reads the input of a block: in post-norm models none does."""
    return [False, True] if model.cfg.norms == "pre" else [False]


def decomposed(model: HookedEncoder) -> range:
    """The layers whose input is a sum of what each component wrote: a convolution mixes neighbouring tokens."""
    return range(1 if model.architecture.convolves else model.cfg.n_layers + 1)


WHOLE: dict[str, Callable[..., Tensor]] = {
    "components": lambda cache, *at, **how: cache.decompose_resid(*at, **how),
    "heads and neurons": lambda cache, *at, **how: cache.get_full_resid_decomposition(*at, **how),
    "heads and MLPs": lambda cache, *at, **how: cache.get_full_resid_decomposition(*at, expand_neurons=False, **how),
    "neurons": lambda cache, layer, **how: cache.stack_neuron_results(layer, incl_remainder=True, **how),
    "some neurons": lambda cache, layer, **how: cache.stack_neuron_results(
        layer, incl_remainder=True, neuron_slice=(1, 5), **how
    ),
}


@pytest.mark.sampled(3)
@pytest.mark.parametrize("kind", WHOLE)
def test_terms_add_up_to_the_input_of_every_layer(cache: EncoderCache, kind: str) -> None:
    n_layers = cache.model.cfg.n_layers
    for layer in decomposed(cache.model):
        terms, labels = WHOLE[kind](cache, layer, return_labels=True)
        assert len(terms) == len(labels) == len(set(labels))
        for apply_ln in readable(cache.model):
            terms = WHOLE[kind](cache, layer, apply_ln=apply_ln)
            assert largest_difference(terms.sum(dim=0), state(cache, layer, apply_ln=apply_ln)) < TOLERANCE
    for layer in decomposed(cache.model)[:n_layers]:
        for apply_ln in (False, True):
            terms = WHOLE[kind](cache, layer, mlp_input=True, apply_ln=apply_ln)
            assert largest_difference(terms.sum(dim=0), state(cache, layer, True, apply_ln)) < TOLERANCE
    for last in (None, -1) if n_layers in decomposed(cache.model) else ():
        assert largest_difference(WHOLE[kind](cache, last).sum(dim=0), state(cache, n_layers)) < TOLERANCE


def test_heads_and_the_remainder_add_up_to_the_input_of_every_layer(cache: EncoderCache) -> None:
    n_heads = cache.model.cfg.n_heads
    for layer in decomposed(cache.model):
        for apply_ln in readable(cache.model)[::-1]:
            heads, labels = cache.stack_head_results(layer, return_labels=True, incl_remainder=True, apply_ln=apply_ln)
            assert labels == [f"L{at}H{head}" for at in range(layer) for head in range(n_heads)] + ["remainder"]
            assert largest_difference(heads.sum(dim=0), state(cache, layer, apply_ln=apply_ln)) < TOLERANCE
        components, names = cache.decompose_resid(layer, return_labels=True)
        full, full_names = cache.get_full_resid_decomposition(layer, return_labels=True)
        assert ((full[: len(heads) - 1] - heads[:-1]).abs() < TOLERANCE).all()
        embeddings = [names.index(name) for name in names if name.endswith("embed")]
        same = [full_names.index(names[at]) for at in embeddings]
        assert largest_difference(components[embeddings], full[same]) < TOLERANCE


def test_a_term_is_what_zeroing_its_head_takes_away_with_deviations_held(model: HookedEncoder) -> None:
    """Whatever else is written stays the run's, and so does what each LayerNorm divides by."""
    cache = run(model)
    if model.architecture.convolves:
        with pytest.raises(InputError, match="a convolution adds activations of neighbouring tokens"):
            cache.stack_head_results()
        return
    n_layers, n_heads, is_pre = model.cfg.n_layers, model.cfg.n_heads, model.cfg.norms == "pre"
    inputs = {}
    if model.cfg.embed_norm:
        inputs["embed.ln"] = sum(cache[name] for name in cache if name.startswith("embed.hook"))
    for layer in range(0 if is_pre else n_layers):
        inputs |= {f"blocks.{layer}.ln1": cache["resid_mid", layer], f"blocks.{layer}.ln2": cache["resid_post", layer]}
    if is_pre:
        inputs["ln_final"] = state(cache, n_layers)

    def with_deviation_of(y: Tensor) -> Callable[..., Tensor]:
        def frozen(norm: Norm, given: tuple[Tensor], output: Tensor) -> Tensor:
            x, whole = (t - t.mean(dim=-1, keepdim=True) if norm.centres else t for t in (given[0], y))
            deviation = (whole.square().mean(dim=-1, keepdim=True) + norm.eps).sqrt()
            return x / deviation * norm.w + (norm.b if norm.centres else 0)

        return frozen

    for layer, head in ((0, 1), (n_layers - 1, 0)):

        def as_in_the_run(old: Tensor, hook: HookPoint, layer: int = layer, head: int = head) -> Tensor:
            new = cache[str(hook.name)].clone()
            if hook.name == f"blocks.{layer}.attn.hook_z":
                new[:, :, head] = 0
            return new

        names = [f"blocks.{at}.{name}" for at in range(n_layers) for name in ("attn.hook_z", "hook_mlp_out")]
        handles = [model.get_submodule(name).register_forward_hook(with_deviation_of(y)) for name, y in inputs.items()]
        with torch.no_grad():
            without = model.run_with_hooks(
                tiny_models.token_batch(model.cfg.pad_token_id),
                stop_at_layer=n_layers,
                fwd_hooks=[(name, as_in_the_run) for name in names],
            )
            without = model.ln_final(without)
        for handle in handles:
            handle.remove()
        term = cache.stack_head_results(apply_ln=is_pre)[layer * n_heads + head]
        assert largest_difference(state(cache, n_layers, apply_ln=is_pre) - without, term) < 1e-11
        assert float(term.abs().max()) > 1e-3


def test_accumulated_states_are_the_inputs_of_the_blocks(cache: EncoderCache) -> None:
    n_layers = cache.model.cfg.n_layers
    for layer in range(n_layers + 1):
        states, labels = cache.accumulated_resid(layer, return_labels=True)
        assert labels == [
            *(f"{at}_pre" for at in range(min(layer + 1, n_layers))),
            *(["final_post"] * (layer == n_layers)),
        ]
        for at, found in enumerate(states):
            assert largest_difference(found, state(cache, at)) == 0
    assert largest_difference(cache.accumulated_resid()[-1], state(cache, n_layers)) == 0


@pytest.mark.parametrize("family", ["modernbert", "modernbert-biased"])
def test_accumulated_states_of_a_pre_norm_model_can_be_those_in_between_and_as_they_are_read(family: str) -> None:
    cache = run(tiny_models.pair(family, "masked_lm", torch.float64)[1])
    named = {f"{at}_pre": cache["resid_pre", at] for at in range(N_LAYERS)}
    named |= {f"{at}_mid": cache["resid_mid", at] for at in range(N_LAYERS)}
    named["final_post"] = cache["resid_post", N_LAYERS - 1]
    # Block 0 has no norm before its attention.
    read = {f"{at}_pre": cache[f"blocks.{at}.ln1.hook_out"] for at in range(1, N_LAYERS)}
    read |= {f"{at}_mid": cache[f"blocks.{at}.ln2.hook_out"] for at in range(N_LAYERS)}
    read |= {"0_pre": named["0_pre"], "final_post": cache["ln_final.hook_out"]}
    for how, expected in (
        ({"layer": 1}, ["0_pre", "1_pre"]),
        ({"layer": 1, "incl_mid": True}, ["0_pre", "0_mid", "1_pre"]),
        ({"layer": 1, "mlp_input": True}, ["0_pre", "1_pre", "1_mid"]),
        ({"layer": 1, "incl_mid": True, "mlp_input": True}, ["0_pre", "0_mid", "1_pre", "1_mid"]),
        ({"incl_mid": True}, [f"{at}_{part}" for at in range(N_LAYERS) for part in ("pre", "mid")] + ["final_post"]),
    ):
        for apply_ln, states in ((False, named), (True, read)):
            found, labels = cache.accumulated_resid(**how, apply_ln=apply_ln, return_labels=True)
            assert labels == expected
            for one, label in zip(found, labels, strict=True):
                assert largest_difference(one, states[label]) < TOLERANCE
    with pytest.raises(InputError, match="no MLP after the last layer"):
        cache.accumulated_resid(mlp_input=True)


def test_what_components_write_themselves_adds_up_within_their_layer(cache: EncoderCache) -> None:
    cache.compute_head_results()
    for layer, block in enumerate(cache.model.blocks):
        written = cache.get_neuron_results(layer).sum(dim=-2) + block.mlp.b_out
        assert largest_difference(written, cache["mlp_out", layer]) < TOLERANCE
        heads = cache["result", layer].sum(dim=-2) + block.attn.b_O
        assert largest_difference(heads, cache["attn_out", layer]) < TOLERANCE
    assert largest_difference(cache.get_neuron_results(-1), cache.get_neuron_results(cache.model.cfg.n_layers - 1)) == 0
    few = cache.get_neuron_results(
        0, neuron_slice=(1, 4), pos_slice=(0, 2), project_output_onto=torch.eye(len(cache.model.blocks[0].attn.b_O))[0]
    )
    assert largest_difference(few, cache.get_neuron_results(0)[:, :2, 1:4, 0]) < TOLERANCE
    stacked = cache.stack_activation("pattern")
    assert all(largest_difference(stacked[at], cache["pattern", at]) == 0 for at in range(len(stacked)))


def test_parts_and_orders_of_terms(bert: HookedEncoder) -> None:
    cache = run(bert)
    embeddings = ["embed", "token_type_embed", "pos_embed"]
    layers = [f"{layer}_{part}_out" for layer in range(N_LAYERS) for part in ("attn", "mlp")]
    terms, labels = cache.decompose_resid(return_labels=True)
    assert labels == [*embeddings, *layers, "bias"]
    for mode, part in (("attn", layers[::2]), ("mlp", layers[1::2]), ("all", layers)):
        some, names = cache.decompose_resid(mode=mode, incl_embeds=False, return_labels=True)
        assert names == part
        assert largest_difference(some, terms[[labels.index(name) for name in part]]) == 0
    assert cache.decompose_resid(mode="attn", return_labels=True)[1] == [*embeddings, *layers[::2]]
    full = cache.get_full_resid_decomposition(return_labels=True)[1]
    assert full[0] == "L0H0" and full[N_LAYERS * N_HEADS] == "L0N0" and full[-4:] == [*embeddings, "bias"]
    assert len(full) == N_LAYERS * (N_HEADS + D_MLP) + 4


def test_positions_projections_and_batch_axes_are_those_of_the_whole(bert: HookedEncoder) -> None:
    cache, onto = run(bert), torch.randn(D_MODEL, 2, dtype=torch.float64)
    for stack in (
        cache.decompose_resid,
        cache.stack_head_results,
        cache.accumulated_resid,
        cache.get_full_resid_decomposition,
        lambda **how: cache.stack_neuron_results(None, **how),
    ):
        whole = stack()
        assert largest_difference(stack(pos_slice=(1, 4)), whole[:, :, 1:4]) < TOLERANCE
        assert largest_difference(stack(pos_slice=2), whole[:, :, 2]) < TOLERANCE
    for stack in (cache.get_full_resid_decomposition, lambda **how: cache.stack_neuron_results(None, **how)):
        assert largest_difference(stack(project_output_onto=onto), stack() @ onto) < TOLERANCE
        assert largest_difference(stack(project_output_onto=onto[:, 0]), stack() @ onto[:, 0]) < TOLERANCE
    tokens = tiny_models.token_batch(bert.cfg.pad_token_id)
    whole = cache.get_full_resid_decomposition()
    some = cache.apply_slice_to_batch_dim((1, 3))
    assert isinstance(some, EncoderCache)
    assert largest_difference(some.get_full_resid_decomposition(), whole[:, 1:3]) < TOLERANCE
    for one in (
        cache.apply_slice_to_batch_dim(1),
        bert.run_with_cache(tokens[1:2], remove_batch_dim=True)[1],
        bert.run_with_cache(tokens[1:2])[1].remove_batch_dim(),
    ):
        assert not one.has_batch_dim
        found = one.get_full_resid_decomposition()
        assert found.ndim == 3
        assert largest_difference(found, whole[:, 1, : found.shape[1]]) < 1e-10
    _, sliced = bert.run_with_cache(tokens, pos_slice=(0, 3))
    assert largest_difference(sliced.decompose_resid(), cache.decompose_resid()[:, :, :3]) < TOLERANCE


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_smaller_types_add_up_to_their_rounding(dtype: torch.dtype) -> None:
    model = HookedEncoder.from_pretrained("tiny-negation", device="cpu", dtype=dtype)
    with torch.no_grad():
        cache = model.run_with_cache(TEXTS)[1]
    found = cache.decompose_resid().sum(dim=0)
    assert found.dtype == torch.float32
    missed = float((found - state(cache, model.cfg.n_layers)).abs().max())
    assert missed < {torch.float32: 1e-4, torch.bfloat16: 0.2}[dtype]


def test_a_state_that_a_hook_changed_is_refused_and_not_missed(bert: HookedEncoder) -> None:
    hooks = [("blocks.1.hook_resid_mid", lambda resid, hook: resid + 1 + resid.roll(1, dims=-1))]
    with bert.hooks(fwd_hooks=hooks):
        cache = run(bert)
    for whole in (cache.decompose_resid, cache.get_full_resid_decomposition):
        with pytest.raises(InputError, match=r"differ from the state by .* hook"):
            whole()
    assert largest_difference(cache.decompose_resid(1).sum(dim=0), state(cache, 1)) < TOLERANCE
    # What a component writes may be changed: the terms are of what was written.
    with bert.hooks(fwd_hooks=[("blocks.1.hook_mlp_out", lambda out, hook: 2 * out)]):
        cache = run(bert)
    assert largest_difference(cache.decompose_resid().sum(dim=0), state(cache, N_LAYERS)) < TOLERANCE
    heads = cache.stack_head_results(incl_remainder=True)
    assert largest_difference(heads.sum(dim=0), state(cache, N_LAYERS)) < TOLERANCE
    with pytest.raises(InputError, match="differ from the state"):
        cache.get_full_resid_decomposition()


RIGHT = {
    "accumulated_resid",
    "apply_slice_to_batch_dim",
    "compute_head_results",
    "decompose_resid",
    "get_full_resid_decomposition",
    "get_neuron_results",
    "remove_batch_dim",
    "ssm_layers",
    "stack_activation",
    "stack_head_results",
    "stack_neuron_results",
}
PLAIN = {"items", "keys", "to", "toggle_autodiff", "values"}
REFUSED: dict[str, Callable[[EncoderCache], object]] = {
    "apply_ln_to_stack": lambda cache: cache.apply_ln_to_stack(cache.decompose_resid()),
    "compute_ssm_effective_attention": lambda cache: cache.compute_ssm_effective_attention(),
    "compute_ssm_state": lambda cache: cache.compute_ssm_state(0),
    "logit_attrs": lambda cache: cache.logit_attrs(cache.decompose_resid(), 5),
    "logit_lens": lambda cache: cache.logit_lens(top_k=1),
}
WRONG: dict[str, Callable[[EncoderCache], object]] = {
    "a layer": lambda cache: cache.decompose_resid(N_LAYERS + 1),
    "a negative layer": lambda cache: cache.stack_activation("pattern", -2),
    "no layers": lambda cache: cache.stack_activation("pattern", 0),
    "a neuron's layer": lambda cache: cache.get_neuron_results(N_LAYERS),
    "the MLP behind the last layer": lambda cache: cache.decompose_resid(mlp_input=True),
    "a norm that is passed": lambda cache: cache.decompose_resid(apply_ln=True),
    "heads through it": lambda cache: cache.stack_head_results(apply_ln=True),
    "neurons through it": lambda cache: cache.stack_neuron_results(1, apply_ln=True),
    "states through it": lambda cache: cache.accumulated_resid(apply_ln=True),
    "states before a norm": lambda cache: cache.accumulated_resid(incl_mid=True),
    "a state before a norm": lambda cache: cache.accumulated_resid(1, mlp_input=True),
    "results nobody cached": lambda cache: cache.stack_activation("result"),
    "the axis of three texts": lambda cache: cache.remove_batch_dim(),
    "a position": lambda cache: cache.decompose_resid(pos_slice=99),
    "positions": lambda cache: cache.accumulated_resid(pos_slice=[0, 99]),
    "neurons": lambda cache: cache.get_neuron_results(0, neuron_slice=[99]),
    "a text": lambda cache: cache.apply_slice_to_batch_dim(9),
    "a projection": lambda cache: cache.get_full_resid_decomposition(project_output_onto=torch.ones(D_MODEL + 1)),
    "a neuron's projection": lambda cache: cache.get_neuron_results(0, project_output_onto=torch.ones(1)),
    "no axis": lambda cache: cache.apply_slice_to_batch_dim(0).apply_slice_to_batch_dim(0),
}


@pytest.mark.parametrize("name", REFUSED | WRONG)
def test_what_has_no_meaning_is_refused(bert: HookedEncoder, name: str) -> None:
    with pytest.raises(InputError):
        (REFUSED | WRONG)[name](run(bert))


def test_every_public_method_of_transformer_lenss_cache_is_right_plain_or_refused(bert: HookedEncoder) -> None:
    methods = {name for name, _ in inspect.getmembers(ActivationCache, callable) if not name.startswith("_")}
    assert methods == RIGHT | PLAIN | set(REFUSED)
    own = vars(EncoderCache)
    assert set(own) >= RIGHT | set(REFUSED)
    assert run(bert).ssm_layers() == []


@pytest.mark.parametrize("left_out", ["embed.hook_pos_embed", "blocks.1.hook_resid_post", "blocks.1.hook_attn_out"])
def test_a_cache_without_what_is_needed_says_so(bert: HookedEncoder, left_out: str) -> None:
    cache = run(bert, names_filter=lambda name: name != left_out)
    with pytest.raises(InputError, match=f"{left_out}.*names_filter"):
        cache.decompose_resid()
    assert largest_difference(cache.accumulated_resid(), run(bert).accumulated_resid()) == 0
