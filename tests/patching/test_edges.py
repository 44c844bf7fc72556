"""Edges are the derivatives of exact paths past frozen heads and MLPs, and add up to the components' attributions."""

import numpy as np
import pytest
import torch

from negprobe.base.errors import PatchingError
from negprobe.models.norms import NoNorm
from negprobe.patching import kl_divergence, mean_effect
from negprobe.patching.attribution import attribute
from negprobe.patching.attribution_agreement import agreement
from negprobe.patching.edges import attribute_edges, edge_names
from negprobe.patching.objectives import Readout
from negprobe.patching.paths import path_patch
from tests.support import slow_patching, tiny_models
from tests.support.numerical import derivative
from tests.support.sample_pairs import TINY, TINY_EQUAL, TINY_INSERTED, TINY_REPLACED, TINY_TWO_TEXTS, answering, whole

PAIRS = [of.pair for of in TINY]
MLP_READS = ("mlp_pre", "mlp_pre_linear")
WRITTEN = ("full_embed", "z", "mlp_out")


def activations(model, of, direction):
    """What base and source write, and the inputs of the base's LayerNorms, by site and layer."""
    base, source = of.texts(direction)
    ours, theirs = ({site: slow_patching.unpatched(model, text, site) for site in WRITTEN} for text in (base, source))
    inputs = {site: slow_patching.unpatched(model, base, site) for site in ("resid_pre", "resid_mid", "resid_post")}
    return ours, theirs, inputs


def mlp_reads(model):
    """The sites at which an MLP reads: two if it is gated."""
    return [site for site in MLP_READS if site in slow_patching.sites_of(model)]


def sender_run(model, of, direction, sender, t, frozen, known):
    """What a run gives in which one component's output is moved a share `t` towards the source's.

    All other heads and MLPs write what they write in the base; if `frozen`, LayerNorms divide by the base's deviations.
    Gives the output, and what the MLPs and the heads' queries, keys and values make of what they read.
    """
    ours, theirs, normalised = known
    site, layer, head = parsed(sender)
    now = ours[site][layer].clone()
    for position, there in of.source_of(direction).items():
        where, from_where = (position, there) if head is None else ((position, head), (there, head))
        now[where] = now[where] + t * (theirs[site][layer][from_where] - now[where])
    written = {(of_site, at): new for of_site in WRITTEN for at, new in enumerate(ours[of_site])} | {(site, layer): now}
    hooks = [(slow_patching.hook_name(*key), lambda old, hook, new=new: new[None]) for key, new in written.items()]
    seen = {}

    def look(activation, hook):
        seen[hook.name] = activation[0].clone()

    read = ("q", "k", "v", *mlp_reads(model))
    hooks += [(slow_patching.hook_name(site, at), look) for site in read for at in range(model.cfg.n_layers)]
    handles = []
    for at, block in enumerate(model.blocks):
        sites = ("resid_pre", "resid_mid") if model.cfg.norms == "pre" else ("resid_mid", "resid_post")
        for norm, site in zip((block.ln1, block.ln2), sites, strict=True):

            def divide(norm, inputs, output, y=normalised[site][at]):
                x, y = (t - t.mean(dim=-1, keepdim=True) if norm.centres else t for t in (inputs[0], y))
                scale = ((y**2).mean(dim=-1, keepdim=True) + norm.eps).sqrt()
                return x / scale * norm.w + (norm.b if norm.centres else 0)

            if frozen and not isinstance(norm, NoNorm):
                handles.append(norm.register_forward_hook(divide))
    tokens, types, mask = slow_patching.inputs(model, of.texts(direction)[0])
    try:
        with torch.no_grad():
            output = model.run_with_hooks(tokens, token_type_ids=types, one_zero_attention_mask=mask, fwd_hooks=hooks)
    finally:
        for handle in handles:
            handle.remove()
    return output, seen


def parsed(name):
    """Site, layer and head of a component's output."""
    if name == "embed":
        return "full_embed", 0, None
    if name.startswith("mlp "):
        return "mlp_out", int(name[4:]), None
    layer, head = name.split(".")
    return "z", int(layer), int(head)


def slow_paths(model, of, direction, sender, t, frozen, known):
    """The objective of a run for each receiver, which alone reads what arrives from the moved sender."""
    base, _ = of.texts(direction)
    read = slow_patching.default(model, of.pair, base)
    output, seen = sender_run(model, of, direction, sender, t, frozen, known)
    values = []

    def writing(name, head):
        def write(row):
            where = slice(None) if head is None else (slice(None), head)
            row[where] = seen[name][where]

        return write

    for layer in range(model.cfg.n_layers):
        of_inputs = []
        for site in "qkv":
            name = slow_patching.hook_name(site, layer)
            writes = [writing(name, head) for head in range(model.cfg.n_heads)]
            of_inputs.append(read(slow_patching.runs(model, base, name, writes)))
        values.append(torch.stack(of_inputs, dim=1).flatten())
        names = [slow_patching.hook_name(site, layer) for site in mlp_reads(model)]
        hooks = [(name, lambda old, hook: seen[hook.name][None]) for name in names]
        tokens, types, mask = slow_patching.inputs(model, base)
        with torch.no_grad():
            how = {"token_type_ids": types, "one_zero_attention_mask": mask, "fwd_hooks": hooks}
            values.append(read(model.run_with_hooks(tokens, **how)))
    return torch.cat([*values, read(output)]).numpy()


def slow(model, of, direction, frozen):
    """Derivatives along every edge: `[sender receiver]`; exactly 0 where nothing arrives."""
    known = activations(model, of, direction)
    senders, _ = edge_names(model)
    return np.stack([derivative(lambda t, u=u: slow_paths(model, of, direction, u, t, frozen, known)) for u in senders])


def before(sender, receiver):
    """Whether a component writes before another reads, told from their names."""
    if sender == "embed" or receiver == "output":
        return True
    layer = int(sender[4:]) if sender.startswith("mlp") else int(sender.split(".")[0])
    if receiver.startswith("mlp"):
        at = int(receiver[4:])
        return at > layer if sender.startswith("mlp") else at >= layer
    return int(receiver.split(".")[0]) > layer


def moved(result, index):
    return (result["patched"] - result["base"]).isel(pair=index).values


def assert_are_the_derivatives(result, index, model, of, direction, frozen):
    ours, expected = moved(result, index), slow(model, of, direction, frozen)
    exists = np.array([[before(u, v) for v in result["receiver"].values] for u in result["sender"].values])
    np.testing.assert_array_equal(~np.isnan(ours), exists)
    np.testing.assert_allclose(ours[exists], expected[exists], rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(expected[~exists], 0, atol=1e-9)


@pytest.mark.sampled(3)
@pytest.mark.parametrize(
    ("of", "direction", "layer_norm"),
    [
        (TINY_REPLACED, "noising", "differentiated"),
        (TINY_REPLACED, "noising", "frozen"),
        (TINY_INSERTED, "denoising", "differentiated"),
        (TINY_INSERTED, "denoising", "frozen"),
    ],
    ids=["replaced, differentiated", "replaced, frozen", "inserted, differentiated", "inserted, frozen"],
)
def test_every_edge_is_the_derivative_of_its_exact_path_in_a_padded_batch(tiny, of, direction, layer_norm):
    pairs = [TINY_TWO_TEXTS, TINY_EQUAL, of]
    result = attribute_edges(tiny, [one.pair for one in pairs], direction=direction, layer_norm=layer_norm)
    assert result["patched"].dims == ("pair", "sender", "receiver")
    assert_are_the_derivatives(result, 2, tiny, of, direction, layer_norm == "frozen")
    assert (abs(moved(result, 2)) > 1e-4).sum() > 100


@pytest.mark.slow
@pytest.mark.parametrize(
    ("family", "head", "changes"),
    [
        ("distilbert", "classification", {}),
        ("bert", "none", {"layer_norm_eps": 0.05}),
        ("eurobert", "classification", {}),
        ("gte", "none", {}),
    ],
)
def test_edges_of_other_heads_families_and_epsilons_are_derivatives_too(family, head, changes):
    model = tiny_models.pair(family, head, torch.float64, **changes)[1]
    of = answering(TINY_INSERTED, *model.cfg.labels[:2]) if head == "classification" else whole(TINY_INSERTED)
    assert_are_the_derivatives(attribute_edges(model, of.pair), 0, model, of, "noising", False)


@pytest.mark.slow
@pytest.mark.parametrize("layer_norm", ["differentiated", "frozen"])
@pytest.mark.parametrize(
    "family",
    ["modernbert", "modernbert-biased", "nomic", "jina", "eurobert", "albert", "megatron-bert", "xlm-roberta-xl"],
)
def test_edges_of_pre_norm_and_gated_blocks_are_derivatives_too(family, layer_norm):
    model = tiny_models.pair(family, "masked_lm", torch.float64)[1]
    pairs = [TINY_EQUAL, TINY_INSERTED]
    result = attribute_edges(model, [of.pair for of in pairs], direction="denoising", layer_norm=layer_norm)
    assert_are_the_derivatives(result, 1, model, TINY_INSERTED, "denoising", layer_norm == "frozen")
    assert (abs(moved(result, 1)) > 1e-4).sum() > 100


@pytest.mark.parametrize(
    "family",
    [
        "bert",
        "mpnet",
        "modernbert",
        "modernbert-biased",
        "nomic",
        "gte",
        "eurobert",
        "albert",
        "megatron-bert",
        "xlm-roberta-xl",
    ],
)
@pytest.mark.parametrize("direction", ["noising", "denoising"])
def test_the_edges_from_a_component_add_up_to_its_own_attribution(family, direction):
    tiny = tiny_models.pair(family, "masked_lm", torch.float64)[1]
    edges = attribute_edges(tiny, PAIRS, direction=direction)
    totals = (edges["patched"] - edges["base"]).sum("receiver")
    heads = attribute(tiny, PAIRS, sites=["z"], by="head", direction=direction)["z"]
    others = attribute(tiny, PAIRS, sites=["mlp_out", "full_embed"], by="position", direction=direction)
    for layer in range(tiny.cfg.n_layers):
        for head in range(tiny.cfg.n_heads):
            own = heads["patched"].sel(layer=layer, head=head) - heads["base"]
            np.testing.assert_allclose(totals.sel(sender=f"{layer}.{head}"), own, atol=1e-10)
        own = (others["mlp_out"]["patched"].sel(layer=layer) - heads["base"]).sum("position")
        np.testing.assert_allclose(totals.sel(sender=f"mlp {layer}"), own, atol=1e-10)
    own = (others["full_embed"]["patched"].sel(layer=0) - heads["base"]).sum("position")
    np.testing.assert_allclose(totals.sel(sender="embed"), own, atol=1e-10)
    for name in ("base", "source"):
        np.testing.assert_allclose(edges[name], heads[name], atol=1e-10)


def test_edges_can_be_compared_with_the_exact_paths_between_heads(tiny):
    receivers = [(layer, head, site) for layer in range(1, 3) for head in range(4) for site in "qkv"]
    exact = path_patch(tiny, PAIRS, receivers=receivers, mlps="frozen")
    edges = attribute_edges(tiny, PAIRS)
    compared = agreement(exact, edges.sel(sender=exact["sender"], receiver=exact["receiver"]))
    assert compared.n_cells == 4 * 24 + 4 * 12
    assert compared.spearman > 0.7
    assert list(compared.worst.columns) == ["sender", "receiver", "exact", "estimated", "difference"]


def test_edges_are_named_in_the_order_in_which_they_are_computed(tiny):
    senders, receivers = edge_names(tiny)
    assert senders[:7] == ["embed", "0.0", "0.1", "0.2", "0.3", "mlp 0", "1.0"]
    assert senders[-1] == "mlp 2"
    assert receivers[:4] == ["0.0 q", "0.0 k", "0.0 v", "0.1 q"]
    assert receivers[11:15] == ["0.3 v", "mlp 0", "1.0 q", "1.0 k"]
    assert receivers[-2:] == ["mlp 2", "output"]
    assert (len(senders), len(receivers)) == (1 + 3 * 5, 3 * 13 + 1)
    result = attribute_edges(tiny, TINY_EQUAL.pair)
    assert (list(result["sender"].values), list(result["receiver"].values)) == (senders, receivers)


def test_pairs_carried_a_few_at_a_time_give_what_they_give_together(tiny, monkeypatch):
    together = attribute_edges(tiny, PAIRS)
    monkeypatch.setattr("negprobe.patching.edges._CARRIED_BUDGET", 1)
    np.testing.assert_allclose(attribute_edges(tiny, PAIRS)["patched"], together["patched"], atol=1e-12)


def test_float32_edges_equal_those_of_float64_to_1e_4(tiny):
    double = attribute_edges(tiny, PAIRS)["patched"]
    tiny.to(torch.float32)
    try:
        single = attribute_edges(tiny, PAIRS)["patched"]
    finally:
        tiny.to(torch.float64)
    np.testing.assert_allclose(single, double, rtol=1e-4, atol=1e-4)


def test_results_say_what_they_are_and_have_effects(tiny):
    told = []
    result = attribute_edges(
        tiny,
        PAIRS * 12,
        direction="denoising",
        layer_norm="frozen",
        progress=lambda step, done, total: told.append(done),
    )
    assert told == sorted(told)
    assert told[-1] == 36
    assert result.attrs["direction"] == "denoising"
    assert result.attrs["layer_norm"] == "frozen"
    assert result.attrs["estimate"] == "attribution"
    effects = mean_effect(result)
    assert effects.dims == ("sender", "receiver")
    assert effects.sel(sender="embed").notnull().all()
    assert effects.sel(sender="mlp 2").notnull().sum() == 1


def without_gradient(model, runs, side):
    return Readout(None, lambda resid, pair: resid.detach().sum(dim=(1, 2)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"pairs": []}, "no pairs"),
        ({"objective": without_gradient}, "no gradient"),
        ({"objective": kl_divergence}, "its gradient there is 0"),
    ],
)
def test_edges_that_do_not_exist_are_a_clear_error(tiny, change, message):
    asked = {"pairs": TINY_EQUAL.pair} | change
    with pytest.raises(PatchingError, match=message):
        attribute_edges(tiny, asked.pop("pairs"), **asked)


def test_gradients_of_edges_are_taken_in_inference_mode_too(tiny):
    expected = attribute_edges(tiny, TINY_EQUAL.pair)
    with torch.inference_mode():
        found = attribute_edges(tiny, TINY_EQUAL.pair)
    np.testing.assert_array_equal(found["patched"], expected["patched"])


def test_a_model_with_hooks_is_refused_because_an_edge_would_pass_them_by(tiny):
    hooks = [("blocks.1.hook_mlp_out", lambda activation, hook: activation * 0)]
    with tiny.hooks(fwd_hooks=hooks), pytest.raises(PatchingError, match="has hooks"):
        attribute_edges(tiny, TINY_EQUAL.pair)
