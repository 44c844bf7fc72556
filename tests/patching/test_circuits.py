"""Circuits: many sets at once are one hooked run each, the search finds what is there, the proof is what it says."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.figure import Figure
from scipy.integrate import trapezoid
from transformers import BertConfig, BertForMaskedLM

from negprobe import HookedEncoder
from negprobe.base.errors import PatchingError
from negprobe.patching import (
    Patch,
    circuit_search,
    circuits,
    component_sets,
    default_objective,
    mean_effect,
    objective_from,
    patch,
    patch_sweep,
)
from negprobe.patching.attribution import attribute
from negprobe.patching.circuit_proof import prove
from negprobe.patching.circuit_search import faithfulness, fast_search, pruned, sizes, thorough_search
from negprobe.patching.circuits import Circuit, Component, find_circuit
from negprobe.patching.component_sets import ablatable, all_components, set_objectives
from negprobe.patching.engine import base_runs
from negprobe.patching.runs import pair_runs
from negprobe.statements import StatementPair, align, tokenize
from tests.support import tiny_models
from tests.support.planted_models import planted_models, planted_pairs
from tests.support.sample_pairs import EQUAL, INSERTED, LONGER, PAIRS, TINY

NOUNS = {"door": "open", "window": "closed", "soup": "hot", "cat": "awake", "room": "dark", "man": "happy"}
# Of equal length, so that a swap of everything leaves only the cue's embedding behind.
SAME_LENGTH = [
    StatementPair(
        f"The {noun} is now {state}. So it is [MASK].", f"The {noun} is not {state}. So it is [MASK].", *words
    )
    for noun, state in NOUNS.items()
    for words in [("open", "closed"), ("good", "bad")]
]
UNCHANGED = [f"The {noun} is [MASK]." for noun in NOUNS]
SHAPE = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 64}
LIVE = (Component(0, 1), Component(2, 3))


def ready(model, pairs, direction="denoising", ablation="swap", mlps=True, reference=None):
    return ablatable(
        model,
        pairs,
        all_components(model.cfg.n_layers, model.cfg.n_heads, mlps),
        direction=direction,
        ablation=ablation,
        objective=default_objective(model),
        reference=pairs if reference is None else reference,
    )


def random_sets(components, n, seed=0):
    rng = np.random.default_rng(seed)
    return [
        frozenset(c for c, kept in zip(components, toss, strict=True) if kept)
        for toss in rng.random((n, len(components))) < 0.5
    ]


@pytest.fixture(scope="module")
def two_heads(tokenizer):
    """Only two heads write anything, and it takes both: all others have no W_O, and the MLPs no output."""
    torch.manual_seed(3)
    theirs = BertForMaskedLM(BertConfig(vocab_size=len(tokenizer), **SHAPE, initializer_range=0.3)).double().eval()
    model = HookedEncoder.from_pretrained(theirs, tokenizer=tokenizer, dtype=torch.float64, device="cpu")
    with torch.no_grad():
        for layer, block in enumerate(model.blocks):
            for head in range(model.cfg.n_heads):
                if Component(layer, head) not in LIVE:
                    block.attn.W_O[head] = 0
            block.mlp.W_out.zero_()
    return model


@pytest.fixture(scope="module")
def found(masked_lm):
    return find_circuit(masked_lm[1], SAME_LENGTH, direction="denoising", threshold=0.8)


def hooked(model, pair, inside, direction, ablation, means):
    """The objective of one pair with everything outside a set ablated, token by token and head by head."""
    tokenizer = model.tokenizer
    texts = (pair.original, pair.counterfactual)
    links = list(
        zip(
            *(
                getattr(align(*(tokenize(t, tokenizer) for t in texts)), side)
                for side in ("original", "counterfactual")
            ),
            strict=True,
        )
    )
    base_text, source_text = texts if direction == "noising" else texts[::-1]
    source_of = dict(links) if direction == "noising" else {j: i for i, j in links}
    base, source = (tokenizer(text, return_tensors="pt")["input_ids"] for text in (base_text, source_text))
    _, cache = model.run_with_cache(source)
    role = pair_runs(model, [pair], direction).role[0].tolist()

    def hook_for(site, layer, name):
        def overwrite(activation, hook):
            activation = activation.clone()
            for position in range(base.shape[1]):
                for head in range(model.cfg.n_heads) if site == "z" else [None]:
                    here = (0, position) if head is None else (0, position, head)
                    if Component(layer, head) in inside:
                        continue
                    if ablation == "zero":
                        activation[here] = 0
                    elif ablation == "mean":
                        of_role = means[name][role[position]]
                        activation[here] = of_role if head is None else of_role[head]
                    elif position in source_of:
                        there = source_of[position]
                        activation[here] = cache[name][(0, there) if head is None else (0, there, head)]
            return activation

        return name, overwrite

    names = {"z": "blocks.{}.attn.hook_z", "mlp_out": "blocks.{}.hook_mlp_out"}
    hooks = [hook_for(s, layer, n.format(layer)) for s, n in names.items() for layer in range(model.cfg.n_layers)]
    logits = model.run_with_hooks(base, fwd_hooks=hooks)[0]
    target, foil = tokenizer.convert_tokens_to_ids([pair.target, pair.foil])
    at = (base[0] == tokenizer.mask_token_id).nonzero().item()
    return (logits[at, target] - logits[at, foil]).item()


def means_by_role(model, pairs):
    """The mean over the tokens of each role in both statements of every pair, one token after the other."""
    tokens = {}
    for pair in pairs:
        for direction, text in (("noising", pair.original), ("denoising", pair.counterfactual)):
            role = pair_runs(model, [pair], direction).role[0].tolist()
            _, cache = model.run_with_cache(model.tokenizer(text, return_tensors="pt")["input_ids"])
            for layer in range(model.cfg.n_layers):
                for name in (f"blocks.{layer}.attn.hook_z", f"blocks.{layer}.hook_mlp_out"):
                    for position, of in enumerate(role):
                        tokens.setdefault((name, of), []).append(cache[name][0, position])
    means = {}
    for (name, of), found in tokens.items():
        means.setdefault(name, {})[of] = torch.stack(found).mean(dim=0)
    return means


@pytest.mark.sampled(2)
@pytest.mark.parametrize("direction", ["noising", "denoising"])
@pytest.mark.parametrize("ablation", ["swap", "mean", "zero"])
def test_many_sets_on_many_pairs_equal_one_hooked_run_each(masked_lm, ablation, direction):
    _, model = masked_lm
    prepared = ready(model, PAIRS, direction, ablation)
    everything = frozenset(prepared.components)
    sets = [*random_sets(prepared.components, 4), everything - {Component(1, None)}, everything, frozenset()]
    values = set_objectives(prepared, sets)
    assert values.shape == (len(PAIRS), len(sets))
    means = means_by_role(model, PAIRS)
    for row, pair in enumerate(PAIRS):
        for column, members in enumerate(sets):
            expected = hooked(model, pair, members, direction, ablation, means)
            np.testing.assert_allclose(values[row, column], expected, atol=1e-9)


@pytest.mark.sampled(2)
@pytest.mark.parametrize("ablation", ["swap", "mean", "zero"])
@pytest.mark.parametrize(
    "family", ["mpnet", "albert", "megatron-bert", "xlm-roberta-xl", "modernbert", "nomic", "gte", "jina", "eurobert"]
)
def test_sets_and_circuits_of_families_with_other_parts_are_hooked_runs_too(family, ablation):
    model = tiny_models.pair(family, "masked_lm", torch.float64)[1]
    pairs = [of.pair for of in TINY]
    prepared = ready(model, pairs, "noising", ablation)
    sets = [*random_sets(prepared.components, 4), frozenset(prepared.components), frozenset()]
    values, means = set_objectives(prepared, sets), means_by_role(model, pairs)
    for row, pair in enumerate(pairs):
        for column, members in enumerate(sets):
            expected = hooked(model, pair, members, "noising", ablation, means)
            np.testing.assert_allclose(values[row, column], expected, atol=1e-9)
    nouns = ("door", "dog", "house")
    many = [
        StatementPair(f"The {noun} is {adverb} [MASK].", f"The {noun} is not [MASK].", "big", "red")
        for noun in nouns
        for adverb in ("now", "really")
    ]
    circuit = find_circuit(model, many, direction="noising", ablation=ablation, threshold=0.5)
    assert 0 < len(circuit.components) < len(prepared.components)
    members, means = frozenset(circuit.components), means_by_role(model, many)
    expected = [hooked(model, pair, members, "noising", ablation, means) for pair in many]
    np.testing.assert_allclose(circuit.run(many)["circuit"], expected, atol=1e-9)


def test_without_mlps_they_are_never_ablated(masked_lm):
    _, model = masked_lm
    prepared = ready(model, [EQUAL], mlps=False)
    assert len(prepared.components) == 12
    mlps = frozenset(Component(layer, None) for layer in range(3))
    sets = random_sets(prepared.components, 3)
    for value, members in zip(set_objectives(prepared, sets)[0], sets, strict=True):
        assert value == pytest.approx(hooked(model, EQUAL, members | mlps, "denoising", "swap", None), abs=1e-9)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_everything_is_exactly_faithful_and_nothing_exactly_not(masked_lm, dtype):
    _, model = masked_lm
    model.to(dtype)
    try:
        prepared = ready(model, [*PAIRS, *SAME_LENGTH])
        assert faithfulness(prepared, [frozenset(prepared.components), frozenset()]).tolist() == [1.0, 0.0]
    finally:
        model.to(torch.float64)


def test_faithfulness_is_a_ratio_of_means_with_falling_swings_turned_round(masked_lm):
    _, model = masked_lm
    same = StatementPair("A [MASK].", "A [MASK].", "dog", "cat")
    prepared = ready(model, [*SAME_LENGTH, same])
    assert prepared.near_zero_gap == [len(SAME_LENGTH)]
    gap = (prepared.full - prepared.ablated)[:-1]
    assert (gap > 0).any() and (gap < 0).any()
    members = random_sets(prepared.components, 1)[0]
    moved = set_objectives(prepared, [members])[:-1, 0] - prepared.ablated[:-1]
    expected = (moved * np.sign(gap)).sum() / np.abs(gap).sum()
    assert faithfulness(prepared, [members])[0] == pytest.approx(expected, abs=1e-12)


def test_exact_scores_are_the_mean_effects_of_the_sweeps(masked_lm, found):
    _, model = masked_lm
    seen, _ = circuits._split(SAME_LENGTH, 0.5, 0)
    by_head = mean_effect(patch_sweep(model, seen, "z", by="head", direction="denoising"))
    patches = [Patch("mlp_out", layer) for layer in range(3)]
    mlps = mean_effect(patch(model, seen, patches, together=False, direction="denoising"))
    assert len(found.scores) == 15
    for part, score in found.scores.items():
        expected = mlps[part.layer] if part.head is None else by_head.sel(layer=part.layer, head=part.head)
        assert score == pytest.approx(expected.item(), abs=1e-9)
    sizes_of = np.abs(list(found.scores.values()))
    assert (np.diff(sizes_of) <= 0).all()


@pytest.mark.parametrize(("ranking", "steps"), [("attribution", None), ("integrated_gradients", 5)])
def test_estimated_scores_are_those_of_attribution(masked_lm, ranking, steps):
    _, model = masked_lm
    pairs = [*PAIRS, *SAME_LENGTH]
    circuit = find_circuit(model, pairs, direction="denoising", ranking=ranking)
    seen, _ = circuits._split(pairs, 0.5, 0)
    estimate = {
        site: attribute(model, seen, sites=[site], by=by, direction="denoising", steps=steps)[site]
        for site, by in [("z", "head"), ("mlp_out", "position")]
    }
    heads, tokens = mean_effect(estimate["z"]), estimate["mlp_out"]
    mlps = mean_effect(tokens.assign(patched=(tokens["patched"] - tokens["base"]).sum("position") + tokens["base"]))
    assert len(circuit.scores) == 15
    for part, score in circuit.scores.items():
        expected = mlps[part.layer] if part.head is None else heads.sel(layer=part.layer, head=part.head)
        assert score == pytest.approx(expected.item(), abs=1e-9)
    assert circuit.ranking == ranking
    assert list(circuit.scores.values()) == sorted(circuit.scores.values(), key=abs, reverse=True)


@pytest.mark.sampled(4)
@pytest.mark.parametrize("effort", ["fast", "thorough"])
@pytest.mark.parametrize("ranking", ["exact", "attribution", "integrated_gradients"])
def test_every_ranking_tells_live_heads_from_silenced_ones(ranking, effort):
    for model, truth in planted_models():
        pairs = [replace(pair, original=pair.control) for pair in planted_pairs(16)]
        circuit = find_circuit(model, pairs, direction="denoising", ranking=ranking, mlps=False, effort=effort)
        score = {(part.layer, part.head): abs(value) for part, value in circuit.scores.items()}
        assert min(score[head] for head in truth.live) > 1e-5, truth.name
        assert max(score[head] for head in truth.silenced) < 1e-9, truth.name
        assert {(part.layer, part.head) for part in circuit.components} <= truth.live
        assert circuit.faithfulness > 0.8


@pytest.mark.parametrize("ablation", ["swap", "mean", "zero"])
@pytest.mark.parametrize("mlps", [True, False])
@pytest.mark.parametrize("effort", ["fast", "thorough"])
def test_the_search_finds_the_heads_that_are_there(two_heads, ablation, mlps, effort):
    circuit = find_circuit(
        two_heads, SAME_LENGTH, direction="denoising", ablation=ablation, mlps=mlps, threshold=0.999, effort=effort
    )
    assert circuit.effort == effort
    assert set(circuit.components) == set(LIVE)
    assert len(circuit) == 2 and LIVE[0] in circuit and Component(0, 0) not in circuit
    assert circuit.faithfulness == pytest.approx(1, abs=1e-9)
    assert circuit.interval == pytest.approx((1, 1), abs=1e-9)
    silent = [score for part, score in circuit.scores.items() if part not in LIVE]
    assert len(silent) == len(circuit.scores) - 2 == (13 if mlps else 10)
    np.testing.assert_allclose(silent, 0, atol=1e-9)
    # Nothing is left to fall back on, and neither head can go.
    np.testing.assert_allclose(circuit.completeness["gap"], 0, atol=1e-9)
    assert (circuit.minimality["largest_change"] > 0.01).all()
    assert circuit.random_faithfulness < 0.9


@pytest.mark.parametrize("threshold", [0.5, 0.9])
def test_pruning_ends_where_no_member_can_go(masked_lm, threshold):
    _, model = masked_lm
    prepared = ready(model, SAME_LENGTH)
    kept = pruned(prepared, prepared.components, threshold)
    assert 0 < len(kept) < len(prepared.components)
    assert faithfulness(prepared, [frozenset(kept)])[0] >= threshold
    without = faithfulness(prepared, [frozenset(kept) - {member} for member in kept])
    assert len(kept) == 1 or (without < threshold).all()


@pytest.fixture
def evaluated(monkeypatch):
    """The sets that are evaluated, in order."""
    sets = []

    def counted(pairs, members, tick=None):
        sets.extend(members)
        return faithfulness(pairs, members, tick)

    monkeypatch.setattr(circuit_search, "faithfulness", counted)
    return sets


def test_pruning_drops_what_costs_nothing_several_at_once(two_heads, evaluated):
    prepared = ready(two_heads, SAME_LENGTH)
    kept = pruned(prepared, prepared.components, 0.999)
    assert set(kept) == set(LIVE)
    # One at a time would be 15 passes over 15, 14, 13, ... members.
    assert len(evaluated) < 0.7 * sum(range(2, 16))


@pytest.mark.parametrize("threshold", [0.5, 0.9])
def test_the_fast_search_evaluates_few_sets_once_and_ends_where_no_member_can_go(masked_lm, evaluated, threshold):
    _, model = masked_lm
    prepared = ready(model, SAME_LENGTH)
    ranked = list(circuit_search.exact_scores(prepared))
    members, untried = fast_search(prepared, ranked, threshold)
    n_fast = len(evaluated)
    assert len(set(evaluated)) == n_fast <= 3 * len(ranked)
    assert list(members) == [part for part in ranked if part in members]
    assert faithfulness(prepared, [frozenset(members)])[0] >= threshold
    without = faithfulness(prepared, [frozenset(members) - {member} for member in members])
    assert len(members) == 1 or (without < threshold).all()
    assert "of 15 prefixes" in untried and "one by one" in untried
    evaluated.clear()
    thorough = thorough_search(prepared, ranked, threshold)
    assert len(members) <= len(thorough) + 2
    assert len(evaluated) > 1.5 * n_fast


def test_the_fast_search_stops_at_its_budget_and_says_so(masked_lm, evaluated, monkeypatch):
    _, model = masked_lm
    prepared = ready(model, SAME_LENGTH)
    monkeypatch.setattr(circuit_search, "_FAST_EVALUATIONS", 1)
    members, untried = fast_search(prepared, prepared.components, 0.9)
    assert len(evaluated) <= 15
    assert untried.endswith("what more than 15 evaluations could remove")
    assert faithfulness(prepared, [frozenset(members)])[0] >= 0.9


def test_a_circuit_says_what_was_not_tried(found):
    assert found.effort == "fast" and "prefixes of the ranking" in found.untried
    assert found.untried in str(found) and found.untried in repr(found)


@pytest.mark.parametrize("effort", ["fast", "thorough"])
@pytest.mark.parametrize("ranking", ["exact", "attribution"])
def test_a_search_has_one_progress_bar_that_never_goes_back(masked_lm, ranking, effort):
    steps = []
    find_circuit(masked_lm[1], SAME_LENGTH, ranking=ranking, effort=effort, progress=lambda *told: steps.append(told))
    assert {(step, total) for step, _, total in steps} == {("searching the circuit", 100)}
    assert steps == sorted(steps) and steps[-1][1] == 100
    assert len({done for _, done, _ in steps}) > 5


def test_the_search_keeps_to_its_threshold_and_to_its_own_pairs(masked_lm, monkeypatch):
    _, model = masked_lm
    seen = []

    def spy(model, pairs, components, **settings):
        seen.append((list(pairs), settings["reference"]))
        return ablatable(model, pairs, components, **settings)

    monkeypatch.setattr(circuits, "ablatable", spy)
    circuit = find_circuit(
        model,
        SAME_LENGTH,
        direction="denoising",
        held_out=1 / 3,
        seed=3,
        ablation="mean",
    )
    (searched, reference), (held_out, held_reference) = seen
    assert len(searched) == circuit.n_search == 8
    assert len(held_out) == circuit.n_held_out == 4
    # The same statements with other targets are the same runs, and so on the same side.
    assert not {pair.original for pair in searched} & {pair.original for pair in held_out}
    assert sorted(map(str, [*searched, *held_out])) == sorted(map(str, SAME_LENGTH))
    # Held-out pairs say nothing about the means either.
    assert reference == held_reference == searched
    own = faithfulness(ready(model, searched, ablation="mean"), [frozenset(circuit.components)])[0]
    assert circuit.search_faithfulness == pytest.approx(own, abs=1e-12)
    assert circuit.search_faithfulness >= 0.9
    unseen = ready(model, held_out, ablation="mean", reference=searched)
    assert circuit.faithfulness == pytest.approx(faithfulness(unseen, [frozenset(circuit.components)])[0], abs=1e-12)
    again = find_circuit(model, SAME_LENGTH, direction="denoising", held_out=1 / 3, seed=3, ablation="mean")
    assert again == circuit
    pd.testing.assert_frame_equal(again.curve, circuit.curve)


@pytest.mark.parametrize(("fitting", "n_again"), [(0, 2), (1, 1)])
def test_pairs_whose_activations_do_not_fit_are_run_again_to_the_same_numbers(masked_lm, monkeypatch, fitting, n_again):
    _, model = masked_lm
    monkeypatch.setattr("negprobe.patching.runs._PAIRS_AT_ONCE", 8)
    pairs = [*SAME_LENGTH, LONGER, INSERTED]
    kept = ready(model, pairs)
    sets = random_sets(kept.components, 5)
    expected = set_objectives(kept, sets)
    sizes_of_batches = [
        made().base.run.tokens.numel() * model.cfg.n_layers * model.cfg.d_model * 12 for made in kept.batches
    ]
    assert len(sizes_of_batches) == 2

    monkeypatch.setattr(component_sets, "_KEPT_BUDGET", sum(sizes_of_batches[:fitting]))
    passes = []

    def counted(*given):
        passes.append(given)
        return base_runs(*given)

    monkeypatch.setattr(component_sets, "base_runs", counted)
    again = ready(model, pairs)
    assert len(passes) == 2
    for name in ("full", "ablated", "source"):
        np.testing.assert_array_equal(getattr(again, name), getattr(kept, name))
    passes.clear()
    np.testing.assert_array_equal(set_objectives(again, sets), expected)
    assert len(passes) == n_again


def test_the_proof_is_made_of_the_faithfulness_of_its_sets(masked_lm):
    _, model = masked_lm
    prepared = ready(model, [*SAME_LENGTH, LONGER, INSERTED])
    ranked = prepared.components
    members = [ranked[index] for index in (1, 4, 8, 9, 12)]
    proof = prove(prepared, members, ranked, 0, None)

    def f(members):
        return faithfulness(prepared, [frozenset(members)])[0]

    assert proof.faithfulness == pytest.approx(f(members))
    assert proof.interval[0] < proof.faithfulness < proof.interval[1]
    subsets = [{Component.named(name) for name in row.split(", ")} for row in proof.completeness["removed"]]
    assert all(subset <= set(members) for subset in subsets)
    assert [{member} for member in members] == subsets[:5]
    assert len(subsets) > 8 and max(map(len, subsets)) > 2
    for subset, (_, row) in zip(subsets, proof.completeness.iterrows(), strict=True):
        assert row["n_removed"] == len(subset)
        assert row["circuit"] == pytest.approx(f(set(members) - subset), abs=1e-12)
        assert row["model"] == pytest.approx(f(set(ranked) - subset), abs=1e-12)
        assert row["gap"] == pytest.approx(abs(row["circuit"] - row["model"]), abs=1e-12)
    for member, (_, row) in zip(members, proof.minimality.iterrows(), strict=True):
        assert row["component"] == str(member)
        assert row["drop"] == pytest.approx(f(members) - f(set(members) - {member}), abs=1e-12)
        taken = [set(), *(subset for subset in subsets if len(subset) > 1)]
        changes = [abs(f(set(members) - k - {member}) - f(set(members) - k)) for k in taken]
        assert row["largest_change"] == pytest.approx(max(changes), abs=1e-12)
    assert proof.random_faithfulness < proof.random_best < 1


def test_the_curve_goes_from_nothing_to_everything_and_its_areas_are_scipys(found):
    curve = found.curve
    assert curve["size"].tolist() == list(range(16))
    np.testing.assert_allclose(curve["share"], np.arange(16) / 15)
    assert curve["faithfulness"].iloc[[0, -1]].tolist() == [0.0, 1.0]
    inside = curve.iloc[1:-1]
    assert ((inside["low"] <= inside["faithfulness"]) & (inside["faithfulness"] <= inside["high"])).all()
    assert found.cpr == pytest.approx(trapezoid(curve["faithfulness"], curve["share"]), abs=1e-12)
    assert found.cmd == pytest.approx(trapezoid(abs(1 - curve["faithfulness"]), curve["share"]), abs=1e-12)
    best = list(found.scores)
    table = replace(found, components=tuple(best[:5])).run(circuits._split(SAME_LENGTH, 0.5, 0)[1])
    turned = np.sign(table["full"] - table["ablated"])
    expected = ((table["circuit"] - table["ablated"]) * turned).sum() / (table["full"] - table["ablated"]).abs().sum()
    assert curve["faithfulness"][5] == pytest.approx(expected, abs=1e-12)


def test_sizes_are_all_up_to_25_and_spread_beyond():
    assert sizes(25) == list(range(1, 26))
    assert sizes(26)[-1] == 26
    many = sizes(408)
    assert len(many) <= 25 and many[:3] == [1, 2, 3] and many[-1] == 408
    assert many == sorted(set(many))


def test_a_circuit_runs_on_pairs_one_by_one(masked_lm, found):
    _, model = masked_lm
    table = found.run([*PAIRS, StatementPair("A [MASK].", "A [MASK].", "dog", "cat")])
    assert list(table.columns) == ["full", "circuit", "ablated", "faithfulness"]
    for row, pair in enumerate(PAIRS):
        for column, members in [("full", set(found.scores)), ("circuit", set(found.components)), ("ablated", set())]:
            expected = hooked(model, pair, members, "denoising", "swap", None)
            assert table.loc[row, column] == pytest.approx(expected, abs=1e-9)
    share = (table["circuit"] - table["ablated"]) / (table["full"] - table["ablated"])
    np.testing.assert_allclose(table["faithfulness"][:3], share[:3], atol=1e-12)
    assert np.isnan(table["faithfulness"][3])
    pd.testing.assert_frame_equal(found.run(EQUAL), table[:1])


def test_a_circuit_is_the_same_after_saving_and_loading(masked_lm, found, tmp_path):
    _, model = masked_lm
    path = tmp_path / "circuit.json"
    path.write_text("what was there before")
    found.save(path)
    assert [file.name for file in tmp_path.iterdir()] == ["circuit.json"]
    json.loads(path.read_text(), parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    loaded = Circuit.load(path, model)
    assert loaded == found
    assert list(loaded.scores.items()) == list(found.scores.items())
    for table in ("curve", "completeness", "minimality"):
        pd.testing.assert_frame_equal(getattr(loaded, table), getattr(found, table))
    pd.testing.assert_frame_equal(loaded.run(PAIRS), found.run(PAIRS))
    with pytest.raises(PatchingError, match="no model to run"):
        Circuit.load(path).run(PAIRS)


def test_a_file_without_a_version_is_read_and_a_newer_one_refused(found, tmp_path):
    path = tmp_path / "circuit.json"
    found.save(path)
    content = json.loads(path.read_text())
    assert content["format_version"] == 2
    path.write_text(json.dumps(content | {"format_version": 3}))
    with pytest.raises(PatchingError, match=r"has format 3 .* reads up to format 2; update negprobe"):
        Circuit.load(path)
    for version in ("1", -1, None, [1]):
        path.write_text(json.dumps(content | {"format_version": version}))
        with pytest.raises(PatchingError, match=r"is not a circuit .*format version"):
            Circuit.load(path)
    for name in ("format_version", "effort", "untried", "base_run", "source_run"):
        del content[name]
    path.write_text(json.dumps(content))
    assert Circuit.load(path) == replace(found, effort="thorough", untried="", source_run="control or original")


@pytest.mark.slow
def test_an_objective_of_ones_own_has_to_be_given_again(masked_lm, tmp_path):
    _, model = masked_lm
    circuit = find_circuit(model, SAME_LENGTH[:4], objective=objective_from(lambda logits, pairs: logits[:, 1, 100]))
    circuit.save(tmp_path / "own.json")
    loaded = Circuit.load(tmp_path / "own.json", model)
    with pytest.raises(PatchingError, match="was not saved"):
        loaded.run(EQUAL)
    pd.testing.assert_frame_equal(loaded.run(EQUAL, objective=circuit.measure), circuit.run(EQUAL))


def test_a_circuit_does_not_fit_a_model_of_another_shape(tokenizer, found, tmp_path):
    config = BertConfig(vocab_size=len(tokenizer), **SHAPE | {"num_attention_heads": 2})
    other = HookedEncoder.from_pretrained(BertForMaskedLM(config).eval(), tokenizer=tokenizer, device="cpu")
    found.save(tmp_path / "circuit.json")
    with pytest.raises(PatchingError, match="3 layers of 4 heads"):
        Circuit.load(tmp_path / "circuit.json", other)
    with pytest.raises(PatchingError, match="3 layers of 4 heads"):
        replace(found, model=other).run(PAIRS)


def test_files_that_are_no_circuits_and_places_that_take_none_are_named(found, tmp_path):
    (tmp_path / "text.json").write_text("not a circuit")
    (tmp_path / "other.json").write_text('{"model_name": "bert"}')
    (tmp_path / "list.json").write_text("[1, 2]")
    found.save(tmp_path / "whole.json")
    whole = json.loads((tmp_path / "whole.json").read_text())
    broken = {"ablation": "nothing", "direction": "both", "components": [], "scores": {}, "faithfulness": "high"}
    broken |= {"effort": "some", "untried": 1}
    for name, value in broken.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(whole | {name: value}))
    for name in ("text", "other", "list", *broken):
        with pytest.raises(PatchingError, match=f"{name}.json is not a circuit"):
            Circuit.load(tmp_path / f"{name}.json")
    with pytest.raises(PatchingError, match="cannot be read"):
        Circuit.load(tmp_path / "nowhere.json")
    with pytest.raises(PatchingError, match="cannot be written"):
        found.save(tmp_path / "no folder" / "circuit.json")
    with pytest.raises(PatchingError, match="no file to write the circuit to"):
        found.save("")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"threshold": 0.0}, "got 0.0"),
        ({"threshold": 1.1}, "got 1.1"),
        ({"held_out": 1.0}, "between 0 and 1 .*got 1.0"),
        ({"pairs": SAME_LENGTH[:3]}, r"^3 pairs \(2 different ones\) are too few"),
        ({"pairs": []}, "There are no pairs"),
        ({"pairs": [SAME_LENGTH[0]] * 6}, r"\(1 different ones\)"),
        ({"pairs": [StatementPair(a, a, "dog", "cat") for a in UNCHANGED]}, "Of the 3 pairs to search, 3 have"),
    ],
)
def test_what_cannot_be_searched_is_a_clear_error(masked_lm, change, message):
    _, model = masked_lm
    asked = {"pairs": SAME_LENGTH} | change
    with pytest.raises(PatchingError, match=message):
        find_circuit(model, asked.pop("pairs"), **asked)


def test_pairs_without_a_swing_are_counted_on_both_sides(masked_lm):
    _, model = masked_lm
    same = [StatementPair(text, text, "dog", "cat") for text in UNCHANGED]
    circuit = find_circuit(model, [*SAME_LENGTH, *same], seed=1)
    assert sum(circuit.near_zero_gap) == 6 and min(circuit.near_zero_gap) > 0
    assert circuit.n_search + circuit.near_zero_gap[0] == circuit.n_held_out + circuit.near_zero_gap[1] == 9


def test_components_are_ordered_by_layer_with_the_mlp_last_and_named():
    parts = all_components(2, 2, mlps=True)
    assert sorted(set(parts)) == list(parts)
    assert [str(part) for part in parts] == ["0.0", "0.1", "mlp 0", "1.0", "1.1", "mlp 1"]
    assert [Component.named(str(part)) for part in parts] == list(parts)


def test_a_circuit_tells_what_it_is_in_a_sentence(found):
    text = str(found)
    assert text.startswith(f"{len(found)} of 15 components of ")
    assert f"{found.faithfulness:.2f} [" in text and "6 held-out pairs" in text


def test_a_circuit_draws_itself_where_it_is_told_to(found):
    assert isinstance(found.draw(), Figure)
    figure = Figure()
    assert found.draw(figure.subplots()) is figure
