"""What `planted.json` says of the planted models is true: which heads matter, and that the others do nothing at all."""

import sys
from itertools import product

import pytest
import torch

from negprobe.patching.runs import DIRECTIONS, pair_runs
from tests.support import ROOT
from tests.support.planted_models import planted_models, planted_pairs

sys.path.append(str(ROOT / "scripts"))
import train_planted

MODELS = [pytest.param(*one, id=one[1].name) for one in planted_models()]
KINDS = ("live", "off", "inaudible")
# Of float64, on logits of some tens: what is left of an effect that is exactly zero in real numbers.
ROUNDING = 1e-12


@pytest.fixture(autouse=True)
def no_gradients():
    with torch.no_grad():
        yield


def at_mask(model, tokens, mask, hooks=()):
    """The logits at [MASK], a row a statement."""
    logits = model.run_with_hooks(tokens, one_zero_attention_mask=mask, fwd_hooks=list(hooks))
    return logits[tokens == model.tokenizer.mask_token_id]


def answers(model, runs):
    """The tokens of target and foil, a row a pair."""
    words = [[model.to_single_token(word) for word in (pair.target, pair.foil)] for pair in runs.pairs]
    return torch.tensor(words)


def difference(logits, ids):
    """logit(target) - logit(foil)."""
    target, foil = logits.gather(1, ids).unbind(1)
    return target - foil


def z_of(model, run, layer):
    name = f"blocks.{layer}.attn.hook_z"
    return model.run_with_cache(run.tokens, one_zero_attention_mask=run.mask, names_filter=name)[1][name]


def source_z(model, runs, layer):
    """The source's z at the base's positions."""
    return z_of(model, runs.source, layer)[torch.arange(len(runs.pairs))[:, None], runs.source_of]


def swap(model, runs, layer, head):
    """A hook that puts the source's z of one head into the base, at aligned positions."""
    source = source_z(model, runs, layer)[:, :, head]

    def put(z, hook):
        z = z.clone()
        z[:, :, head] = torch.where(runs.aligned[..., None], source, z[:, :, head])
        return z

    return f"blocks.{layer}.attn.hook_z", put


def mean_ablation(model, run, layer, head):
    """A hook that puts a head's mean over all real tokens in place of its z."""
    mean = z_of(model, run, layer)[:, :, head][run.mask.bool()].mean(dim=0)

    def put(z, hook):
        z = z.clone()
        z[:, :, head] = mean
        return z

    return f"blocks.{layer}.attn.hook_z", put


def test_there_are_models_of_different_circuits():
    assert len({truth.live for _, truth in planted_models()}) == len(planted_models()) >= 3


@pytest.mark.parametrize(("model", "truth"), MODELS)
def test_the_truth_tells_of_every_head_once(model, truth):
    heads = [head for kind in KINDS for head in getattr(truth, kind)]
    assert sorted(heads) == list(product(range(model.cfg.n_layers), range(model.cfg.n_heads)))
    assert all(getattr(truth, kind) for kind in KINDS)
    assert truth.silenced == set(heads) - truth.live


@pytest.mark.parametrize(("model", "truth"), MODELS)
@pytest.mark.parametrize("side", ["original", "counterfactual", "control"])
def test_the_task_is_done_on_held_out_combinations(model, truth, side):
    pairs = planted_pairs()
    tokens, _, mask = model.to_tokens([getattr(pair, side) for pair in pairs])
    answers = [pair.foil if side == "counterfactual" else pair.target for pair in pairs]
    chosen = at_mask(model, tokens, mask).argmax(dim=-1)
    right = [id == model.to_single_token(word) for id, word in zip(chosen.tolist(), answers, strict=True)]
    assert sum(right) / len(right) >= 0.99


@pytest.mark.sampled(5)
@pytest.mark.parametrize(("model", "truth"), MODELS)
@pytest.mark.parametrize("direction", DIRECTIONS)
def test_swapping_a_silenced_head_does_nothing_and_a_live_head_much(model, truth, direction):
    runs = pair_runs(model, planted_pairs(60), direction)
    before, source = (at_mask(model, run.tokens, run.mask) for run in (runs.base, runs.source))
    ids = answers(model, runs)
    swing = difference(source - before, ids)
    assert (swing.sign() == swing[0].sign()).all()
    for layer, head in product(range(model.cfg.n_layers), range(model.cfg.n_heads)):
        hook = swap(model, runs, layer, head)
        after = at_mask(model, runs.base.tokens, runs.base.mask, [hook])
        if (layer, head) in truth.silenced:
            torch.testing.assert_close(after, before, atol=ROUNDING, rtol=0)
        else:
            moved = difference(after - before, ids)
            assert moved.mean() / swing.mean() > 0.05, f"head {layer}.{head}"


@pytest.mark.sampled(3)
@pytest.mark.parametrize(("model", "truth"), MODELS)
def test_ablating_a_silenced_head_does_nothing_and_a_live_head_costs_margin(model, truth):
    runs = pair_runs(model, planted_pairs(60), "noising")
    ids = answers(model, runs)
    # The original's answer is the target, the counterfactual's the foil.
    sides = [(sign, run, at_mask(model, run.tokens, run.mask)) for sign, run in ((1, runs.base), (-1, runs.source))]
    for layer, head in product(range(model.cfg.n_layers), range(model.cfg.n_heads)):
        margins = []
        for sign, run, before in sides:
            after = at_mask(model, run.tokens, run.mask, [mean_ablation(model, run, layer, head)])
            if (layer, head) in truth.silenced:
                torch.testing.assert_close(after, before, atol=ROUNDING, rtol=0)
            margins.append(torch.stack([sign * difference(logits, ids) for logits in (before, after)]))
        if (layer, head) in truth.live:
            before, after = torch.cat(margins, dim=1).mean(dim=1)
            assert after < 0.95 * before, f"head {layer}.{head}"


@pytest.mark.parametrize(("model", "truth"), MODELS)
def test_what_an_inaudible_head_writes_differs_between_the_statements_and_an_off_head_writes_nothing(model, truth):
    runs = pair_runs(model, planted_pairs(60), "noising")
    for layer, head in sorted(truth.silenced):
        here, there = z_of(model, runs.base, layer)[:, :, head], source_z(model, runs, layer)[:, :, head]
        change = (there - here)[runs.aligned]
        written = change @ model.W_O[layer, head]
        assert change.norm(dim=-1).mean() > 0.1
        if (layer, head) in truth.off:
            assert not model.W_O[layer, head].any()
        else:
            assert written.norm(dim=-1).mean() > 1
            torch.testing.assert_close(written, written[:, :1].expand_as(written), atol=ROUNDING, rtol=0)


@pytest.mark.parametrize(("model", "truth"), MODELS)
def test_a_ranking_by_how_much_activations_differ_is_fooled(model, truth):
    runs = pair_runs(model, planted_pairs(60), "noising")
    z = torch.stack([source_z(model, runs, i) - z_of(model, runs.base, i) for i in range(model.cfg.n_layers)])
    change = z[:, runs.aligned].norm(dim=-1).mean(dim=1)
    written = torch.einsum("lthe,lhed->lthd", z[:, runs.aligned], model.W_O).norm(dim=-1).mean(dim=1)
    for score in (change, written):
        assert max(score[head] for head in truth.inaudible) > min(score[head] for head in truth.live)


@pytest.mark.parametrize(
    ("model", "truth"), [pytest.param(*one, id=one[1].name) for one in planted_models(torch.float32)]
)
def test_silenced_heads_do_nothing_in_float32_either(model, truth):
    runs = pair_runs(model, planted_pairs(60), "noising")
    ids = answers(model, runs)
    before = at_mask(model, runs.base.tokens, runs.base.mask)
    for layer, head in sorted(truth.silenced):
        after = at_mask(model, runs.base.tokens, runs.base.mask, [swap(model, runs, layer, head)])
        torch.testing.assert_close(difference(after - before, ids), torch.zeros(60), atol=1e-5, rtol=0)


def test_training_goes_through_the_live_heads_alone_and_ends_at_the_same_weights_each_time(tmp_path):
    recipe, plan = train_planted.Recipe(batch=8, steps=3, warm_up=1), train_planted.PLANS[0]
    tokenizer = train_planted.build_tokenizer(tmp_path)
    start = train_planted.build_model(recipe, plan, len(tokenizer)).state_dict()
    with torch.enable_grad():
        first, second = (train_planted.train(recipe, plan, tokenizer).state_dict() for _ in range(2))
    torch.testing.assert_close(first, second, rtol=0, atol=0)
    for layer, head in product(range(train_planted.N_LAYERS), range(train_planted.N_HEADS)):
        written = f"bert.encoder.layer.{layer}.attention.output.dense.weight"
        columns = train_planted.columns_of(head)
        assert first[written][:, columns].any() == ((layer, head) in plan.live)
        assert (first[written] != start[written])[:, columns].any() == ((layer, head) in plan.live)


def test_plans_are_what_the_models_are():
    plans = {plan.name: {kind: set(getattr(plan, kind)) for kind in KINDS} for plan in train_planted.PLANS}
    assert plans == {truth.name: {kind: getattr(truth, kind) for kind in KINDS} for _, truth in planted_models()}
