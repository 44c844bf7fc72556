"""The fast way equals the plain one, whatever is edited and read; and it leaves the model as it was."""

import numpy as np
import pytest
import torch

from negprobe.patching import SITES, logit_difference, patch_sweep
from negprobe.patching.edits import Edit
from negprobe.patching.engine import base_run, run_edited, run_hooked
from negprobe.patching.objectives import Readout
from negprobe.patching.replacements import onto_base
from negprobe.patching.runs import pair_runs, site_activations
from tests.support import slow_patching, tiny_models
from tests.support.sample_pairs import TINY, TINY_EQUAL, TINY_INSERTED, TINY_TWO_TEXTS

KINDS = ("one", "last layer", "layers apart", "embeddings", "embeddings and later", "anything")
FAMILIES = (
    *("bert", "distilbert", "roberta", "electra-narrow", "mpnet", "albert"),
    *(
        "modernbert",
        "modernbert-biased",
        "nomic",
        "eurobert",
        "megatron-bert",
        "roberta-prelayernorm",
        "deberta",
        "deberta-v2",
        "deberta-v2-conv",
    ),
)
LAST = tiny_models.N_LAYERS - 1


def runs_of(model, direction="denoising", pairs=None):
    """Statements of 14, 12 and 10 tokens, and where the family has two token types of 11, in one padded batch."""
    two_texts = [TINY_TWO_TEXTS] if model.cfg.n_token_types != 1 else []
    return pair_runs(model, [of.pair for of in pairs or [*TINY, *two_texts]], direction)


class Chance:
    """Random edits and readouts of one seed."""

    def __init__(self, model, base, seed):
        self.model, self.base = model, base
        sites = slow_patching.sites_of(model)
        self.embeddings = [site for site in sites if site in slow_patching.EMBEDDINGS]
        self.of_layers = [site for site in sites if site not in slow_patching.EMBEDDINGS]
        self.numbers = np.random.default_rng(seed)
        self.generator = torch.Generator().manual_seed(seed)
        # Now and then only the longest statement, whose runs have no padding.
        longest = [int(base.run.mask.sum(dim=1).argmax())]
        rows = longest if self.numbers.random() < 0.3 else range(len(base.run.tokens))
        self.pair = torch.tensor(self.numbers.choice(list(rows), size=self.numbers.integers(1, 7)))

    def normal(self, *shape):
        return torch.randn(*shape, generator=self.generator, dtype=torch.float64)

    def edit(self, site, layer):
        """Any entries, those of padding among them, by any values."""
        width = self.width(site)
        where_width = width if SITES[site].is_map else width[:-1]
        density = self.numbers.choice([0.1, 0.5, 1.0])
        where = torch.rand(len(self.pair), *where_width, generator=self.generator) < density
        if SITES[site].is_map:
            where &= torch.rand(len(self.pair), 1, width[1], 1, generator=self.generator) < density
        n_values = int(self.numbers.integers(1, 4))
        values = self.normal(n_values, *width)
        renormalize = False
        if site == "pattern":
            # No sweep gives weight to padded keys, whose values mean nothing.
            where &= self.base.run.mask.bool()[self.pair][:, None, None]
            values, renormalize = values.softmax(dim=-1), bool(self.numbers.random() < 0.5)
        if site == "attn_scores" and self.numbers.random() < 0.3:
            # Edges are knocked out as well as changed, never all of a query's: it always sees [CLS], or in a local
            # window itself.
            kept = (self.normal(*values.shape) < 0) | torch.eye(values.shape[-1], dtype=torch.bool)
            kept[..., 0] = True
            values = values.where(kept, -torch.inf)
        of = torch.tensor(self.numbers.integers(n_values, size=len(self.pair)))
        return Edit(site, layer, where, values, of, renormalize)

    def width(self, site):
        """The shape of the site's activation in one run."""
        cfg, n_pos = self.model.cfg, self.base.run.tokens.shape[1]
        if site in slow_patching.MAPS:
            return cfg.n_heads, n_pos, n_pos
        if site in slow_patching.HEADS:
            return n_pos, cfg.n_heads, cfg.d_model if site == "result" else cfg.d_head
        if site in slow_patching.EMBEDDINGS:
            return n_pos, cfg.d_model if site == "full_embed" else cfg.d_embed
        return n_pos, cfg.d_mlp if site.startswith(("mlp_pre", "mlp_post")) else cfg.d_model

    def sites(self, n, layers):
        """Sites of some layers that this family has."""
        return [(str(self.numbers.choice(self.of_layers)), int(self.numbers.choice(layers))) for _ in range(n)]

    def edits(self, kind):
        """A set of edits of one kind."""
        n = int(self.numbers.integers(1, 4))
        embedding = (str(self.numbers.choice(self.embeddings)), 0)
        chosen = {
            "one": self.sites(1, range(LAST + 1)),
            "last layer": self.sites(n, [LAST]),
            "layers apart": [*self.sites(1, [0]), *self.sites(n, [LAST])],
            "embeddings": [embedding],
            "embeddings and later": [
                (str(self.numbers.choice(self.embeddings)), 0),
                *self.sites(n, range(1, LAST + 1)),
            ],
            "anything": [(str(site), 0) for site in self.numbers.permutation(self.embeddings)[:2]]
            + self.sites(n + 2, range(LAST + 1)),
        }[kind]
        return [self.edit(site, layer) for site, layer in chosen]

    def readout(self):
        """What one, two, most or all of the positions say, each with weights of its own."""
        n_read = int(self.numbers.choice([1, 2, 8, 0]))
        n_pos = self.base.run.tokens.shape[1]
        d_model = self.model.cfg.d_model
        if not n_read:
            weights = self.normal(n_pos, d_model)
            real = self.base.run.mask[:, :, None]
            return Readout(None, lambda resid, pair: (resid * real[pair] * weights).sum(dim=(1, 2)))
        weights = self.normal(n_read, d_model)
        lengths = self.base.run.mask.sum(dim=1).tolist()
        at = np.stack([self.numbers.permutation(length)[:n_read] for length in lengths])
        return Readout(torch.tensor(at), lambda states, pair: (states * weights).sum(dim=(1, 2)))


@pytest.mark.sampled(4)
@torch.no_grad()
@pytest.mark.parametrize(
    "kind", ["one", "last layer", "layers apart", "embeddings", "embeddings and later", "anything"]
)
@pytest.mark.parametrize("family", FAMILIES)
def test_random_edits_give_what_hooks_on_the_whole_model_give(family, kind):
    model = slow_patching.tiny_model(family, "masked_lm")
    base = base_run(model, runs_of(model).base)
    moved = 0
    for seed in range(8):
        chance = Chance(model, base, 1000 * FAMILIES.index(family) + seed)
        edits, readout = chance.edits(kind), chance.readout()
        fast = run_edited(model, base, chance.pair, edits, readout)
        plain = run_hooked(model, base, chance.pair, edits, readout)
        told = f"seed {seed}: {[(edit.site, edit.layer) for edit in edits]}"
        assert fast.isfinite().all(), told
        np.testing.assert_allclose(fast, plain, atol=1e-9, rtol=1e-9, err_msg=told)
        moved += bool((plain - run_edited(model, base, chance.pair, [], readout)).abs().max() > 1e-3)
    assert moved >= 4, "the edits hardly change anything"


@torch.no_grad()
def test_random_edits_equal_the_loop_of_unpadded_statements(tiny):
    """Neither of the two ways, but whole forward passes of each run alone."""
    runs = runs_of(tiny, pairs=TINY)
    base = base_run(tiny, runs.base)
    for seed in range(12):
        chance = Chance(tiny, base, seed)
        edits = chance.edits("anything")
        fast = run_edited(tiny, base, chance.pair, edits, logit_difference(tiny, runs, runs.base))
        for run, pair in enumerate(chance.pair.tolist()):
            n = len(runs.base.statements[pair])

            def alone(edit, run=run, n=n):
                def write(activation, hook):
                    where, values = edit.where[run], edit.values[edit.row_index[run]]
                    if SITES[edit.site].is_map:
                        where, values = where[:, :n, :n], values[:, :n, :n]
                    else:
                        where, values = where[:n, ..., None], values[:n]
                    activation = torch.where(where, values, activation)
                    return activation / activation.sum(dim=-1, keepdim=True) if edit.renormalize else activation

                return slow_patching.hook_name(edit.site, edit.layer), write

            text = runs.base.statements[pair].text
            tokens, types, _ = slow_patching.inputs(tiny, text)
            logits = tiny.run_with_hooks(tokens, token_type_ids=types, fwd_hooks=[alone(edit) for edit in edits])
            expected = slow_patching.default(tiny, runs.pairs[pair], text)(logits).item()
            assert fast[run].item() == pytest.approx(expected, abs=1e-9), f"seed {seed}"


@torch.no_grad()
def test_no_edits_give_the_unpatched_runs(tiny):
    base = base_run(tiny, runs_of(tiny).base)
    pair = torch.tensor([2, 0, 0, 3])
    for read in (Readout(None, lambda resid, pair: resid[:, 0, 0]), Readout(base.run.tokens[:, :1] * 0, first_entry)):
        for run in (run_edited, run_hooked):
            np.testing.assert_allclose(run(tiny, base, pair, [], read), base.resid[-1][pair, 0, 0], atol=1e-12)


def first_entry(states, pair):
    return states[:, 0, 0]


@torch.no_grad()
@pytest.mark.parametrize("positions", [[3, 3], [3, 3, 0], [*range(13, -1, -1)], [5] * 14])
def test_positions_can_be_read_in_any_order_and_more_than_once(tiny, positions):
    runs = runs_of(tiny, pairs=[TINY_EQUAL])
    base = base_run(tiny, runs.base)
    weights = torch.linspace(1, 2, len(positions), dtype=torch.float64)
    readout = Readout(torch.tensor([positions]), lambda states, pair: states[:, :, 0] @ weights)
    chance = Chance(tiny, base, 0)
    for site, layer in (("mlp_out", LAST), ("k", LAST), ("z", 0), ("embed", 0)):
        edits = [chance.edit(site, layer)]
        fast, plain = (run(tiny, base, chance.pair, edits, readout) for run in (run_edited, run_hooked))
        np.testing.assert_allclose(fast, plain, atol=1e-10, err_msg=site)


@torch.no_grad()
@pytest.mark.parametrize(("site", "layer"), [("embed", 0), ("full_embed", 0), ("resid_pre", 1), ("v", 1), ("z", 0)])
def test_what_is_put_in_at_padding_changes_nothing(tiny, site, layer):
    runs = runs_of(tiny, pairs=TINY)
    base, every = base_run(tiny, runs.base), torch.arange(3)
    chance = Chance(tiny, base, 0)
    real = runs.base.mask.bool()
    # As many positions as there are tokens, the last of them padding where there is any.
    shifted = real.roll(1, dims=1) & torch.tensor([[0], [1], [1]]).bool()
    values = chance.normal(3, *chance.width(site))
    readout = Readout(None, lambda resid, pair: (resid * real[pair][..., None]).tanh().sum(dim=(1, 2)))
    found = []
    for where in (shifted, shifted & real):
        heads = where[..., None].expand(*where.shape, tiny.cfg.n_heads)
        edit = Edit(site, layer, heads if SITES[site].has_heads else where, values, every)
        found += [run(tiny, base, every, [edit], readout) for run in (run_edited, run_hooked)]
    for other in found[1:]:
        np.testing.assert_allclose(other, found[0], atol=1e-10)


@torch.no_grad()
def test_what_a_whole_run_keeps_is_what_the_hooks_of_the_model_say(tiny):
    runs = runs_of(tiny)
    base = base_run(tiny, runs.base)
    for row, statement in enumerate(runs.base.statements):
        n = len(statement)
        for site, kept in (("resid_pre", base.resid), ("q", base.q), ("k", base.k), ("v", base.v), ("z", base.z)):
            expected = slow_patching.unpatched(tiny, statement.text, site)
            for layer, found in enumerate(expected):
                np.testing.assert_allclose(kept[layer][row, :n], found, atol=1e-11, err_msg=f"{site} {layer}")
        final = slow_patching.unpatched(tiny, statement.text, "normalized_resid_post")[-1]
        np.testing.assert_allclose(base.resid[-1][row, :n], final, atol=1e-11)


def everything(model, runs, base, sites, layers):
    """Edits that put all of the source's activations, at every aligned position, into every run."""
    edits = []
    for site in sites:
        found = site_activations(model, runs.source, SITES[site])[1]
        for layer in layers if SITES[site].has_layers else [0]:
            shape = found[layer].shape
            where = runs.aligned if len(shape) == 3 else runs.aligned[..., None].expand(*shape[:3])
            values = onto_base(found[layer], runs.source_of, SITES[site])
            edits.append(Edit(site, layer, where, values, torch.arange(len(runs.pairs))))
    return edits


@torch.no_grad()
@pytest.mark.parametrize("direction", ["noising", "denoising"])
def test_putting_everything_in_gives_the_source(tiny, direction):
    """Of two pairs of equal length, one of them padded."""
    runs = runs_of(tiny, direction, [TINY_EQUAL, TINY_TWO_TEXTS])
    base, every = base_run(tiny, runs.base), torch.arange(2)
    readout = logit_difference(tiny, runs, runs.base)
    source = logit_difference(tiny, runs, runs.source)(base_run(tiny, runs.source).resid[-1], every)
    assert ((source - readout(base.resid[-1], every)).abs() > 1e-3).all()
    layers = range(tiny.cfg.n_layers)
    sets = {layer: everything(tiny, runs, base, ["resid_pre"], [layer]) for layer in layers}
    sets |= {
        "embeddings": everything(tiny, runs, base, ["embed", "pos_embed", "token_type_embed"], [0]),
        "parts": everything(tiny, runs, base, ["full_embed", "z", "mlp_out"], layers),
        "results": everything(tiny, runs, base, ["full_embed", "result", "mlp_post"], layers),
        "last": everything(tiny, runs, base, ["normalized_resid_post"], [LAST]),
    }
    for name, edits in sets.items():
        for run in (run_edited, run_hooked):
            np.testing.assert_allclose(run(tiny, base, every, edits, readout), source, atol=1e-11, err_msg=str(name))


def state(model):
    """Whatever a sweep might leave behind."""
    hooks = {name: [*module._forward_hooks, *module._forward_pre_hooks] for name, module in model.named_modules()}
    grads = {name: (parameter.requires_grad, parameter.grad) for name, parameter in model.named_parameters()}
    return hooks, grads, model.training, torch.is_grad_enabled(), model.cfg.use_attn_result, sorted(model.hook_dict)


def failing(error):
    def objective(model, runs, side):
        readout = logit_difference(model, runs, side)
        read_before = []

        def read(states, pair):
            # The unpatched runs are read first; it is a patched one that fails.
            if read_before:
                raise error
            read_before.append(pair)
            return readout.evaluate(states, pair)

        return Readout(readout.positions, read)

    return objective


def stopping(error):
    def progress(step, done, total):
        raise error

    return progress


@pytest.mark.parametrize("error", [ZeroDivisionError("a broken objective"), KeyboardInterrupt()])
@pytest.mark.parametrize(("site", "hooked"), [("resid_pre", False), ("pattern", False), ("result", True)])
def test_a_sweep_that_breaks_leaves_the_model_as_it_was(error, site, hooked):
    model = slow_patching.tiny_model("bert", "masked_lm")
    if hooked:
        model.add_hook("blocks.0.hook_mlp_out", lambda x, hook: 0 * x, is_permanent=True)
        model.add_hook("blocks.1.hook_mlp_out", lambda x, hook: 0 * x)
    before, parameters = state(model), {name: tensor.clone() for name, tensor in model.state_dict().items()}
    pairs = [of.pair for of in TINY]
    for breaking in ({"objective": failing(error)}, {"progress": stopping(error)}):
        with pytest.raises(type(error)):
            patch_sweep(model, pairs, site, by="position", **breaking)
        assert state(model) == before
    patch_sweep(model, pairs, site, by="position")
    assert state(model) == before
    assert model.context_level == 0
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, parameters[name])


def head_off(z, hook):
    z = z.clone()
    z[:, :, 1] = 0
    return z


def doubled(x, hook):
    return 2 * x


USERS = {
    "a head off": [("blocks.1.attn.hook_z", head_off)],
    "no mlp": [("blocks.2.hook_mlp_out", lambda x, hook: 0 * x)],
    # Steering: done twice it is not what it is done once.
    "a steered stream": [("blocks.1.hook_resid_pre", lambda x, hook: x + torch.linspace(-1, 1, x.shape[-1]))],
    "other embeddings": [("embed.hook_embed", doubled), ("hook_full_embed", doubled)],
    "sharper attention": [("blocks.1.attn.hook_attn_scores", doubled), ("blocks.2.attn.hook_q", doubled)],
}


@pytest.mark.parametrize("user", USERS)
def test_hooks_of_the_users_own_stay_in_play(user):
    model = slow_patching.tiny_model("bert", "masked_lm")
    plain = patch_sweep(model, TINY_INSERTED.pair, "k", by=("position",))
    for name, hook in USERS[user]:
        model.add_hook(name, hook, is_permanent=True)
    check_hooked(model, plain, ["embed", "resid_pre", "k", "pattern", "result", "mlp_out"])


def test_hooks_that_are_there_for_a_while_stay_in_play_for_as_long():
    model = slow_patching.tiny_model("bert", "masked_lm")
    plain = patch_sweep(model, TINY_INSERTED.pair, "k", by=("position",))
    with model.hooks(fwd_hooks=USERS["a steered stream"]):
        check_hooked(model, plain, ["resid_pre", "mlp_post"])
    np.testing.assert_array_equal(patch_sweep(model, TINY_INSERTED.pair, "k", by="position")["base"], plain["base"])
    for name, hook in USERS["a head off"]:
        model.add_hook(name, hook)
    check_hooked(model, plain, ["full_embed"])


def test_a_hook_of_the_users_own_on_the_results_stays_in_play():
    model = slow_patching.tiny_model("bert", "masked_lm")
    plain = patch_sweep(model, TINY_INSERTED.pair, "k", by=("position",))
    model.add_hook("blocks.0.attn.hook_result", head_off)
    check_hooked(model, plain, ["z", "result"])


def check_hooked(model, plain, sites):
    for site in sites:
        result = patch_sweep(model, TINY_INSERTED.pair, site, by="position", direction="noising").squeeze("pair")
        expected = slow_patching.swaps(model, TINY_INSERTED, site, ("position",), "noising")
        np.testing.assert_allclose(result["patched"], expected, atol=1e-10, err_msg=site)
        assert abs(result["base"] - plain["base"]).item() > 1e-4


def test_a_hook_that_torch_holds_on_a_whole_block_stays_in_play():
    model = slow_patching.tiny_model("bert", "masked_lm")
    plain = patch_sweep(model, TINY_INSERTED.pair, "k", by=("position",))
    model.blocks[1].register_forward_hook(lambda module, args, output: output * 1.5)
    check_hooked(model, plain, ["resid_pre", "mlp_out"])
