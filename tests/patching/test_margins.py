"""The margin of two documents equals a slow loop with hooks over both documents' runs, in every function."""

import numpy as np
import pytest
import torch

from negprobe import HookedEncoder
from negprobe.base.errors import PatchingError
from negprobe.patching import (
    Patch,
    answerable,
    attribute,
    attribute_edges,
    default_objective,
    effect,
    find_circuit,
    objective_named,
    objective_values,
    patch,
    patch_sweep,
    patchable_pairs,
    path_patch,
    readable_pairs,
    score_margin,
    single_logit,
)
from negprobe.patching.component_sets import Component
from negprobe.patching.runs import pair_runs
from negprobe.statements import ROLES, StatementPair, control_swap, document_pair
from negprobe.statements.documents import with_foil
from tests.support import tiny_models

A, B = "a big dog .", "it is red and so closed ."
QUERIES = [("the door is open", "the door is not open"), ("it is red", "it is never red"), ("a dog", "not a dog")]
PAIRS = [document_pair(one, A, counterfactual_query=other, other_document=B) for one, other in QUERIES]
PAIRS.append(document_pair("the house", B, counterfactual_query="not the house", other_document=A))


@pytest.fixture(scope="module")
def reranker():
    return tiny_models.pair("bert", "classification", torch.float64, num_labels=1)


@pytest.fixture(scope="module")
def model(reranker):
    return reranker[1]


def theirs_of(reranker, query, document):
    """Hugging Face's score of a query and a document."""
    with torch.no_grad():
        return reranker[0](**tiny_models.tokenizer()(query, document, return_tensors="pt")).logits.item()


def texts_of(pair, side, document):
    return getattr(pair, side).partition(" [SEP] ")[0], document


def role_of(query, document, position):
    """[CLS], [SEP], and the document as the target; every other token is "query"."""
    token = tiny_models.tokenizer()(query, document).tokens()[position]
    if token in ("[CLS]", "[SEP]"):
        return token.strip("[]").lower()
    return "target" if position >= len(tiny_models.tokenizer()(query).tokens()) else "query"


def slow_margin(model, pair, direction, site, layer, tokens, heads=slice(None)):
    """The margin of two whole runs, one for each document, in which a hook writes the source's activation.

    The tokens of the two queries correspond in order, except the cue. `tokens` chooses base positions from the texts
    (query, document) and the position.
    """
    base_side, source_side = ("original", "counterfactual")[:: 1 if direction == "noising" else -1]
    scores = []
    for document in (pair.target, pair.foil):
        base, source = (texts_of(pair, side, document) for side in (base_side, source_side))
        ids = [tiny_models.tokenizer()(*one).input_ids for one in (base, source)]
        cues = [[i for i, token in enumerate(row) if token in CUE_IDS] for row in ids]
        kept = [[i for i in range(len(row)) if i not in cue] for row, cue in zip(ids, cues, strict=True)]
        assert [ids[0][i] for i in kept[0]] == [ids[1][i] for i in kept[1]]
        name = f"blocks.{layer}.{site}"
        _, cache = model.run_with_cache(source)
        links = {i: j for i, j in zip(*kept, strict=True) if tokens(base, i)}

        def write(activation, hook, links=links, cache=cache, name=name):
            activation = activation.clone()
            for i, j in links.items():
                activation[0, i, heads] = cache[name][0, j, heads]
            return activation

        with torch.no_grad():
            scores.append(model.run_with_hooks(base, fwd_hooks=[(name, write)]).item())
    return scores[0] - scores[1]


CUE_IDS = tiny_models.tokenizer().convert_tokens_to_ids(["not", "never"])


@pytest.mark.parametrize("side", ["original", "counterfactual"])
def test_the_margin_of_each_query_equals_hugging_faces(reranker, side):
    found = objective_values(reranker[1], PAIRS, score_margin)
    expected = [
        theirs_of(reranker, *texts_of(pair, side, pair.target)) - theirs_of(reranker, *texts_of(pair, side, pair.foil))
        for pair in PAIRS
    ]
    np.testing.assert_allclose(found[side], expected, atol=1e-10)
    assert np.ptp(expected) > 1e-2


def test_scores_and_margins_equal_those_of_sentence_transformers(tmp_path):
    library = pytest.importorskip("sentence_transformers", reason="needs: pip install sentence-transformers")
    tiny_models.hf_model("bert", "classification", num_labels=1).save_pretrained(tmp_path / "classifier")
    tokenizer = tiny_models.tokenizer()
    tokenizer.model_max_length = tiny_models.N_CTX
    tokenizer.save_pretrained(tmp_path / "classifier")
    theirs = library.CrossEncoder(str(tmp_path / "classifier"), device="cpu")
    theirs.save(str(tmp_path / "reranker"))
    ours = HookedEncoder.from_pretrained(tmp_path / "reranker", device="cpu")

    def scores(side, documents):
        texts = [texts_of(pair, side, document) for pair, document in zip(PAIRS, documents, strict=True)]
        return theirs.predict(texts, activation_fn=torch.nn.Identity(), show_progress_bar=False)

    for side in ("original", "counterfactual"):
        targets, foils = (scores(side, [getattr(pair, name) for pair in PAIRS]) for name in ("target", "foil"))
        np.testing.assert_allclose(objective_values(ours, PAIRS, single_logit)[side], targets, atol=1e-5)
        np.testing.assert_allclose(objective_values(ours, PAIRS)[side], targets - foils, atol=1e-5)


@pytest.mark.parametrize("direction", ["noising", "denoising"])
def test_sweeps_equal_a_slow_loop_over_both_documents(model, direction):
    by_head = patch_sweep(model, PAIRS, "z", by="head", direction=direction, objective=score_margin)
    assert by_head.attrs["objective"] == "score_margin"
    for row, pair in enumerate(PAIRS):
        for layer in range(model.cfg.n_layers):
            for head in range(model.cfg.n_heads):
                expected = slow_margin(model, pair, direction, "attn.hook_z", layer, lambda *_: True, head)
                assert by_head["patched"][row, layer, head].item() == pytest.approx(expected, abs=1e-10)


def test_roles_are_patched_in_both_runs(model):
    found = patch_sweep(model, PAIRS, "resid_pre", by="role", objective=score_margin)["patched"]
    for row, pair in enumerate(PAIRS):
        for role in ("cls", "sep", "target"):
            expected = slow_margin(
                model, pair, "noising", "hook_resid_pre", 1,
                lambda texts, i, role=role: role_of(*texts, i) == role,
            )  # fmt: skip
            assert found.sel(role=role)[row, 1].item() == pytest.approx(expected, abs=1e-10)
    assert set(found["role"].values) == set(ROLES)


@pytest.mark.parametrize("pair", [PAIRS[0], PAIRS[-1]], ids=["longer foil", "shorter foil"])
def test_a_position_in_the_query_is_patched_in_both_runs_and_one_after_it_in_the_targets(model, pair):
    found = patch_sweep(model, pair, "resid_pre", by="position", direction="noising", objective=score_margin)
    query, _ = texts_of(pair, "original", pair.target)
    n_query = len(tiny_models.tokenizer()(query).input_ids)
    for position in range(found.sizes["position"]):
        expected = slow_margin(
            model, pair, "noising", "hook_resid_pre", 1,
            lambda texts, i, position=position: i == position and (i < n_query or texts[1] == pair.target),
        )  # fmt: skip
        assert found["patched"][0, 1, position].item() == pytest.approx(expected, abs=1e-10)


def test_chosen_patches_paths_and_estimates_are_those_of_the_target_minus_those_of_the_foil(model):
    """Each of these equals a slow computation with `single_logit`; the margin is their difference."""
    foils = [with_foil(pair) for pair in PAIRS]
    chosen = [Patch("z", 1, 2), Patch("mlp_out", 0, role="sep")]
    calls = {
        "patch": lambda pairs, objective: patch(model, pairs, chosen, together=False, objective=objective),
        "mean": lambda pairs, objective: patch_sweep(
            model, pairs, "z", by="role", how="mean", reference=pairs[1:], objective=objective
        ),
        "resample": lambda pairs, objective: patch_sweep(
            model, pairs, "z", by="role", how="resample", seed=3, objective=objective
        ),
        "path": lambda pairs, objective: path_patch(model, pairs, receivers=[(2, 1, "k")], objective=objective),
        "edges": lambda pairs, objective: attribute_edges(model, pairs, objective=objective),
        "gradients": lambda pairs, objective: attribute(
            model, pairs, sites=["z"], by="head", objective=objective, steps=2
        )["z"],
    }
    for name, call in calls.items():
        margin, target, foil = call(PAIRS, score_margin), call(PAIRS, single_logit), call(foils, single_logit)
        for variable in ("patched", "base", "source"):
            np.testing.assert_allclose(margin[variable], target[variable] - foil[variable], atol=1e-12, err_msg=name)
        assert (margin.attrs["objective"], target.attrs["objective"]) == ("score_margin", "single_logit")
        assert abs(margin["base"] - target["base"]).max() > 1e-2


def test_an_effect_of_one_is_the_source_querys_margin(model):
    query, other, control = (f"the door is {word}open" for word in ("", "not ", "now "))
    pair = document_pair(query, A, counterfactual_query=other, other_document=B, control_query=control)
    found = patch(model, control_swap(pair, model.tokenizer), Patch("full_embed"), objective=score_margin)
    assert effect(found).item() == pytest.approx(1, abs=1e-9)
    assert found["base_run"].item() == "control"


@pytest.mark.parametrize("ranking", ["exact", "integrated_gradients"])
def test_a_circuit_is_searched_by_the_margin(model, ranking):
    more = [document_pair(f"so {one}", A, counterfactual_query=f"so {two}", other_document=B) for one, two in QUERIES]
    pairs = [*PAIRS, *more]
    circuit = find_circuit(model, pairs, threshold=0.5, ablation="swap", ranking=ranking)
    assert circuit.objective == "score_margin"
    ran = circuit.run(pairs)
    values = objective_values(model, pairs, score_margin)
    np.testing.assert_allclose(ran["full"], values["original"], atol=1e-10)
    outside = [Component.named(str(part)) for part in circuit.scores if part not in circuit]
    patches = [Patch("mlp_out" if part.head is None else "z", part.layer, part.head) for part in outside]
    expected = patch(model, pairs, [patches], objective=score_margin)["patched"][:, 0]
    np.testing.assert_allclose(ran["circuit"], expected, atol=1e-10)


def test_it_is_the_default_where_every_pair_has_two_documents(model):
    other = document_pair("the door", A, counterfactual_query="no door")
    assert default_objective(model, PAIRS) is score_margin is objective_named(model, None, PAIRS)
    assert default_objective(model, [*PAIRS, other]) is default_objective(model) is single_logit
    assert patch_sweep(model, PAIRS, "z", by="head").attrs["objective"] == "score_margin"
    assert patch_sweep(model, [*PAIRS, other], "z", by="head").attrs["objective"] == "single_logit"
    assert objective_named(model, "score_margin") is score_margin


def test_both_halves_of_the_work_are_reported(model):
    seen = []
    patch_sweep(model, PAIRS, "z", by="head", progress=lambda step, done, total: seen.append((done, total)))
    assert seen[-1] == (8, 8) and sorted(seen) == seen and len(seen) >= 2


def test_what_has_no_margin_is_refused(model):
    plain = StatementPair("the door is open", "the door is not open")
    with pytest.raises(PatchingError, match="'the door is open' does not rank two documents"):
        patch_sweep(model, [PAIRS[0], plain], "z", by="head", objective=score_margin)
    with pytest.raises(PatchingError, match="no patches at a position"):
        patch(model, PAIRS, Patch("z", 0, position=1), objective=score_margin)
    _, three = tiny_models.pair("bert", "classification")
    for call in (patch_sweep, find_circuit):
        with pytest.raises(PatchingError, match="has 3 labels; use class_logit_difference"):
            call(three, PAIRS, objective=score_margin, **({"site": "z", "by": "head"} if call is patch_sweep else {}))
    with pytest.raises(PatchingError, match="has no objective 'score_margin'"):
        objective_named(three, "score_margin")
    with pytest.raises(PatchingError, match="needs the runs of two documents"):
        runs = pair_runs(model, PAIRS, "noising")
        score_margin(model, runs, runs.base)


def test_a_foil_that_is_too_long_is_left_out(model):
    long = document_pair("a door", A, counterfactual_query="not a door", other_document="door " * 20)
    assert answerable(model, [PAIRS[0], long]).unanswerable == {1: "26 tokens, more than the 16 the model reads"}
    assert list(patchable_pairs(model, [PAIRS[0], long]).swaps) == [0]


def test_each_other_document_is_an_observation(model):
    more = [
        document_pair("a door", A, counterfactual_query="not a door", other_document=other) for other in (B, "it .")
    ]
    assert list(patchable_pairs(model, [*more, more[0]]).swaps) == [0, 1]
    _, three = tiny_models.pair("bert", "classification")
    assert list(readable_pairs(three, more).pairs) == [0]


@pytest.mark.parametrize("direction", ["noising", "denoising"])
def test_a_pair_that_differs_in_the_document_is_patched_by_the_score(reranker, direction):
    model = reranker[1]
    documents = ("it is open .", "it is not open .")
    pair = document_pair("the house", documents[0], counterfactual_document=documents[1])
    found = patch_sweep(model, pair, "mlp_out", by="position", direction=direction)
    base, source = [("the house", document) for document in documents][:: 1 if direction == "noising" else -1]
    assert found.attrs["objective"] == "single_logit"
    assert found["base"].item() == pytest.approx(theirs_of(reranker, *base), abs=1e-10)
    _, cache = model.run_with_cache(source)
    aligned = {4: 4, 5: 5, 6: 7, 7: 8} if direction == "noising" else {4: 4, 5: 5, 7: 6, 8: 7}
    for here, there in aligned.items():

        def write(activation, hook, here=here, there=there):
            activation = activation.clone()
            activation[0, here] = cache[hook.name][0, there]
            return activation

        with torch.no_grad():
            expected = model.run_with_hooks(base, fwd_hooks=[("blocks.1.hook_mlp_out", write)]).item()
        assert found["patched"][0, 1, here].item() == pytest.approx(expected, abs=1e-10)
