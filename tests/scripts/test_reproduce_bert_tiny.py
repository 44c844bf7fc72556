"""The verdicts on the original study's claims match synthetic data, and the script reports which model it used."""

import json
import sys
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr
from scipy import stats
from transformers import BertConfig, BertForMaskedLM

from tests.support import ROOT

sys.path.append(str(ROOT / "scripts"))

import original_claims as claims
import reproduce_bert_tiny as script

from negprobe import AttentionProbe, HookedEncoder, StatementPair, builtin_pairs
from negprobe.attention.pair_metrics import empty_dataset
from negprobe.base.errors import ModelError
from negprobe.models.loading import BUNDLED_MODEL, find_checkpoint, read_checkpoint
from negprobe.statistics import effect_tests

NUMBERS = ["1a", "1b", "1c", "1d", "2a", "2b", "2c", "2d", "3a", "3b", "4a", "4b", "4c", "5a", "5b", "5c"]
OF_SOME_HEAD = {"2a", "2b", "2c", "2d", "5c"}


def planted(favour, n_pairs=24, n_layers=2, n_heads=2):
    """Metrics that are `favour` beyond every claim's border, give or take noise whose mean over pairs is 0."""
    rng = np.random.default_rng(0)

    def noisy(*sizes, scale=0.01):
        values = rng.normal(scale=scale, size=(n_pairs, *sizes))
        return values - values.mean(axis=0)

    def beyond(start, side=1):
        return start + side * favour + noisy(n_layers, n_heads)

    metrics = empty_dataset(n_pairs, n_layers, n_heads).astype(float)
    metrics = metrics.assign(uniform_distance=("pair", np.full(n_pairs, 4.0)))
    for name in ("attention_distance", "norm_distance"):
        layers = [4 - favour + noisy(n_heads)]
        for _ in range(1, n_layers):
            layers.append(layers[-1] + favour + noisy(n_heads))
        metrics[name].values[:] = np.stack(layers, axis=1)
    counterfactual, control = {"compared": "counterfactual"}, {"compared": "control"}
    for name in ("attention_to_cue", "norm_to_cue", "attention_from_cue", "norm_from_cue"):
        by_role = metrics[f"{name}_by_role"]
        by_role.loc[{"role": "affected", **control}] = 0.1
        by_role.loc[{"role": "affected", **counterfactual}] = beyond(claims.STRONG * 0.1)
    for name, side in (
        ("norm_js_divergence", 1),
        ("value_output_correlation", -1),
        ("output_change", 1),
        ("diffusion", 1),
    ):
        metrics[name].loc[control] = 0.5
        metrics[name].loc[counterfactual] = beyond(0.5, side)
    metrics["diffusion_distance"].loc[counterfactual] = beyond(1.0, -1)
    for side in (counterfactual, control):
        metrics["attention_to_cue"].loc[side] = 0.3
        metrics["norm_to_cue"].loc[side] = 0.3 - claims.APART - favour + noisy(n_layers, n_heads, scale=0.005)
    dims = ("pair", "layer", "head")
    return metrics.assign(
        even_cue=("pair", np.full(n_pairs, 0.1)),
        even_affected=("pair", np.full(n_pairs, 0.1)),
        raw_norm_correlation=(dims, beyond(claims.HALF_EXPLAINED, -1)),
        raw_similarity_correlation=(dims, beyond(claims.HALF_EXPLAINED, -1)),
    ).assign_coords(original=("pair", [f"statement {i}" for i in range(n_pairs)]))


def answers(metrics):
    return {question.number: claims.answer(question) for question in claims.questions(metrics)}


def answered(metrics, number):
    (question,) = (question for question in claims.questions(metrics) if question.number == number)
    return claims.answer(question)


@pytest.fixture(scope="module")
def judged():
    """What becomes of every claim where it was planted to hold, not to hold, and to be neither."""
    return {
        verdict: answers(planted(favour))
        for verdict, favour in (("holds", 0.03), ("does not hold", -0.03), ("undecided", 0.0))
    }


@pytest.mark.parametrize("verdict", ["holds", "does not hold", "undecided"])
@pytest.mark.parametrize("number", NUMBERS)
def test_a_claim_is_judged_as_it_was_planted(judged, number, verdict):
    claim = judged[verdict][number].claim
    assert claim.verdict == verdict
    assert claim.n == 24
    assert claim.low <= claim.value <= claim.high
    assert (claim.low <= claim.border <= claim.high) == (verdict == "undecided")
    assert bool(claim.reason) == (verdict == "undecided")
    assert verdict in claim.sentence()
    assert (claim.head != "") == (number in OF_SOME_HEAD)


def test_the_numbers_are_means_over_pairs_and_heads(judged):
    metrics = planted(0.03)
    distance = metrics["attention_distance"].values
    js = metrics["norm_js_divergence"].values
    expected = {
        "1a": distance[:, 0].mean() - 4,
        "1c": (distance[:, 1] - distance[:, 0]).mean(),
        "3a": (js[:, 0] - js[:, 1]).mean(),
        "4c": metrics["diffusion_distance"].values[:, 0].mean(),
        "5a": metrics["raw_norm_correlation"].values.mean(),
    }
    for number, value in expected.items():
        assert judged["holds"][number].claim.value == pytest.approx(value, abs=1e-9)


def test_strong_is_beyond_the_neutral_word_and_beyond_even_attention():
    only_even = planted(0.03)
    only_even["attention_to_cue_by_role"].loc[{"role": "affected", "compared": "control"}] = 0.5
    assert answered(only_even, "2a").claim.verdict == "does not hold"
    only_control = planted(0.03).assign(even_cue=("pair", np.full(24, 0.2)))
    assert answered(only_control, "2a").claim.verdict == "does not hold"


def test_the_one_head_that_attends_strongly_is_found():
    metrics = planted(-0.03)
    metrics["attention_from_cue_by_role"].loc[
        {"role": "affected", "compared": "counterfactual", "layer": 1, "head": 0}
    ] += 0.3
    found = answered(metrics, "2c")
    assert (found.claim.verdict, found.claim.head) == ("holds", "1.0")
    assert found.claim.value == pytest.approx(0.27)
    assert "Beyond the border: 1 of 4 heads (1.0)" in found.claim.detail
    passing = found.heads[found.heads["value"] > 0]
    assert passing[["layer", "head"]].to_numpy().tolist() == [[1, 0]]


def test_one_head_that_cannot_be_told_keeps_the_others_from_settling_it():
    metrics = planted(-0.03)
    at_border = planted(0.0)["attention_to_cue_by_role"].sel(layer=0, head=1)
    metrics["attention_to_cue_by_role"].loc[{"layer": 0, "head": 1}] = at_border
    claim = answered(metrics, "2a").claim
    assert (claim.verdict, claim.head) == ("undecided", "0.1")


def question_of(values, **options):
    dims = ("pair", "layer", "head")[: np.ndim(values)]
    return claims.Question("0", "a claim", "a quantity", "", xr.DataArray(values, dims=dims), **options)


def test_the_best_of_many_heads_of_noise_is_not_found():
    values = np.random.default_rng(4).normal(size=(12, 6, 12))
    found = claims.answer(question_of(values, some_head=True))
    tests = effect_tests(xr.Dataset({"noise": (("pair", "layer", "head"), values)}))
    layer, head = map(int, found.claim.head.split("."))
    assert (values.mean(axis=0) <= values[:, layer, head].mean()).all()
    here = tests.sel(metric="noise").isel(layer=layer, head=head)
    # By itself it would pass.
    assert here["low"] > 0 and here["p"] < 0.05
    assert found.claim.p == float(here["p_max_t"]) > 0.05
    assert found.claim.verdict == "undecided"
    assert "p is above" in found.claim.reason


def test_a_head_that_passes_is_told_before_one_that_only_has_a_larger_mean():
    rng = np.random.default_rng(0)
    # The first head's interval is above 0 and its p is not below 0.05, as in the test below.
    erratic = np.array([30, 20, 20, 10, 10, -5])
    values = np.stack([erratic, rng.normal(0.5, 0.01, size=6)], axis=1)[:, None]
    claim = claims.answer(question_of(values, some_head=True)).claim
    assert (claim.head, claim.verdict) == ("0.1", "holds")


@pytest.mark.parametrize("some_head", [False, True])
@pytest.mark.parametrize("sign", [1, -1])
def test_an_interval_beyond_the_border_is_not_enough(sign, some_head):
    # 4 of the 64 ways to flip signs have as large a sum: p is 0.0625.
    values = sign * np.array([3, 2, 2, 1, 1, -0.5]).reshape(6, 1, 1)
    claim = claims.answer(question_of(values, some_head=some_head)).claim
    assert min(sign * claim.low, sign * claim.high) > 0
    assert (claim.p, claim.verdict) == (0.0625, "undecided")


def test_no_head_holds_only_if_each_is_on_the_other_side_by_its_own_p():
    rng = np.random.default_rng(0)
    clear = rng.normal(-1, 0.01, size=(12, 1, 2))
    # Its mean is nearer to the border than theirs, and its p larger.
    erratic = 0.1 * np.array([1, 1, -1, -1, -1, -2, -2, -2, -3, -3, -3, -3])[:, None, None]
    values = np.concatenate([clear, erratic], axis=2)
    found = claims.answer(question_of(values, some_head=True))
    # scipy flips the signs of the erratic head alone.
    alone = stats.permutation_test(
        (erratic.ravel(),), np.mean, permutation_type="samples", n_resamples=np.inf, alternative="two-sided"
    )
    assert 0.001 < alone.pvalue < 0.05
    assert (found.claim.verdict, found.claim.head) == ("does not hold", "0.2")
    assert found.claim.p == found.heads["p"].max() == pytest.approx(alone.pvalue)
    assert "p is the largest uncorrected p of the heads" in found.claim.sentence()
    values[:6, 0, 1], values[6:, 0, 1] = np.array([-30, -20, -20, -10, -10, 5]), np.nan
    one_is_open = claims.answer(question_of(values, some_head=True))
    assert (one_is_open.heads["high"] < 0).all()
    assert one_is_open.claim.verdict == "undecided"
    assert "but not every head is" in one_is_open.claim.reason


def with_gaps():
    """Four heads at 1, 2, 3 and 40 give or take noise; the last two lack 1 and 7 of 12 pairs, and the 13th has none."""
    values = np.array([[1.0, 2.0], [3.0, 40.0]]) + np.random.default_rng(0).normal(scale=0.01, size=(13, 2, 2))
    values[0, 1, 0] = values[:7, 1, 1] = values[12] = np.nan
    return values


def test_a_mean_over_heads_is_over_the_same_heads_in_every_pair():
    values = with_gaps()
    parts = {"part": xr.DataArray(2 * values, dims=("pair", "layer", "head"))}
    found = claims.answer(question_of(values, undefined="where a map is constant", beside=parts))
    assert found.claim.value == pytest.approx(values[:12, 0].mean())
    assert found.claim.high < 2
    assert found.claim.n == 12
    assert (
        "Undefined in 8 of 48 (pair, head) cells, where a map is constant: 2 heads (1.1 in 7 pairs, 1.0 in 1 pair). "
        "The mean is over the 2 heads without such a pair." in found.claim.detail
    )
    assert "(part 3" in found.claim.detail and "Furthest" not in found.claim.detail
    assert found.heads.set_index(["layer", "head"])["n"].to_dict() == {(0, 0): 12, (0, 1): 12, (1, 0): 11, (1, 1): 5}


def test_a_claim_of_some_head_says_which_pairs_its_heads_lack():
    claim = claims.answer(question_of(with_gaps(), some_head=True)).claim
    assert "Undefined in 8 of 48 (pair, head) cells: 2 heads" in claim.detail
    assert "Each head is tested on the pairs in which it is defined." in claim.detail


def test_no_mean_is_told_where_no_head_has_every_pair():
    values = with_gaps()[:12]
    values[1, 0] = np.nan
    found = claims.answer(question_of(values))
    assert (found.claim.verdict, found.claim.n) == ("undecided", 0)
    assert np.isnan(found.claim.value) and np.isnan(found.claim.p)
    assert "No head has the quantity in every pair. Undefined in 10 of 48" in found.claim.sentence()
    assert len(found.heads) == 4


def test_the_two_layers_are_compared_by_the_same_heads_in_every_pair():
    metrics = planted(0.03)
    complete = answered(metrics, "1c").claim
    metrics["attention_distance"].loc[{"layer": 1, "head": 0}] = 90.0
    metrics["attention_distance"].loc[{"layer": 1, "head": 0, "pair": 3}] = np.nan
    claim = answered(metrics, "1c").claim
    distance = metrics["attention_distance"].values
    assert claim.value == pytest.approx((distance[:, 1, 1] - distance[:, 0].mean(axis=1)).mean(), abs=1e-9)
    assert "Undefined in 1 of 96 (pair, head) cells" in claim.detail and "1.0 in 1 pair" in claim.detail
    assert "Undefined" not in complete.detail


def test_heads_with_constant_similarities_are_left_out_and_named():
    model = HookedEncoder.from_pretrained(BUNDLED_MODEL, device="cpu")
    found = claims.map_correlations(AttentionProbe(model), builtin_pairs()[:12])["raw_similarity_correlation"]
    lacking = found.isnull().values
    assert lacking.any() and not lacking.all(axis=0).any()
    metrics = planted(0.03, n_pairs=12, n_layers=4, n_heads=4)
    metrics["raw_similarity_correlation"].values[:] = found.values
    claim = answered(metrics, "5b").claim
    assert claim.value == pytest.approx(found.values[:, ~lacking.any(axis=0)].mean())
    assert f"Undefined in {lacking.sum()} of 192 (pair, head) cells, because a map is constant" in claim.detail
    assert f"The mean is over the {(~lacking.any(axis=0)).sum()} heads" in claim.detail


def test_one_pair_is_one_pair():
    claim = claims.answer(question_of(np.ones((1, 1, 1)))).claim
    assert "p = 1, 1 pair." in claim.sentence()
    assert "p = 0.031, 6 pairs." in claims.answer(question_of(np.ones((6, 1, 1)))).claim.sentence()


def test_five_pairs_are_too_few_for_any_verdict():
    for found in answers(planted(0.03, n_pairs=5)).values():
        assert found.claim.verdict == "undecided"
        assert "needs at least 6" in found.claim.reason
        assert np.isfinite(found.claim.value)


def test_a_model_with_one_layer_has_no_layer_1():
    found = answers(planted(0.03, n_layers=1))
    assert found["1a"].claim.verdict == "holds"
    for number in ("1c", "1d"):
        assert found[number].claim.verdict == "undecided"
        assert "single layer" in found[number].claim.reason
        assert np.isnan(found[number].claim.value)


def test_without_controls_only_what_needs_none_is_judged():
    metrics = planted(0.03)
    for variable in metrics.data_vars.values():
        if "compared" in variable.dims:
            variable.loc[{"compared": "control"}] = np.nan
    found = answers(metrics)
    told = {number for number, one in found.items() if one.claim.verdict != "undecided"}
    assert told == {"1a", "1b", "1c", "1d", "4c", "5a", "5b", "5c"}
    assert "control" in found["2a"].claim.reason
    assert "control" in found["4b"].claim.sentence()


def test_an_original_of_several_pairs_counts_once():
    metrics = planted(0.03)
    twice = xr.concat([metrics, metrics], dim="pair")
    assert answered(twice, "1a").claim.n == 24
    assert answered(twice, "3a").claim.n == 48


def test_pairs_the_model_cannot_tell_apart_count_once():
    tokenizer = HookedEncoder.from_pretrained(BUNDLED_MODEL, device="cpu").tokenizer
    first = StatementPair("the door is open.", "the door is not open.", control="the door is now open.")
    pairs = [
        first,
        replace(first, original="The door is  open."),
        replace(first, control=None),
        replace(first, control="the door is here open."),
        replace(first, original="the zzyzx is open."),
        replace(first, original="the qwxyq is open."),
        first,
    ]
    assert claims.without_repeats(pairs, tokenizer) == [pairs[index] for index in (0, 2, 3, 4)]
    metrics = claims.with_references(xr.Dataset(coords={"pair": range(7)}), pairs, tokenizer)
    assert len(set(metrics["original"].values.tolist())) == 2


def test_even_shares_are_counted_tokens():
    model = HookedEncoder.from_pretrained(BUNDLED_MODEL, device="cpu")
    pairs = [
        StatementPair("the door is open.", "the door is not open.", affected_spans=((16, 20),)),
        StatementPair("the door is open.", "the door is no longer open."),
    ]
    # [CLS] the door is not open . [SEP], and one more for "no longer".
    metrics = claims.with_references(xr.Dataset(coords={"pair": [0, 1]}), pairs, model.tokenizer)
    np.testing.assert_allclose(metrics["even_cue"], [1 / 8, 2 / 9])
    np.testing.assert_allclose(metrics["even_affected"], [1 / 8, 1 / 9])
    assert metrics["original"].values.tolist() == ["the door is open."] * 2


def test_correlations_of_maps_are_those_of_numpy():
    model = HookedEncoder.from_pretrained(BUNDLED_MODEL, device="cpu")
    pairs = builtin_pairs()[:3]
    found = claims.map_correlations(AttentionProbe(model), pairs)
    for index, pair in enumerate(pairs):
        attention = AttentionProbe(model).run(pair.counterfactual)
        for name, other in (("norm", attention.norm), ("similarity", attention.similarity)):
            expected = np.corrcoef(attention.raw[0, 1].double().ravel(), other[0, 1].double().ravel())[0, 1]
            assert float(found[f"raw_{name}_correlation"][index, 0, 1]) == pytest.approx(expected, abs=1e-5)


def test_a_bert_poured_into_distilbert_gives_the_same_logits():
    model = HookedEncoder.from_pretrained(BUNDLED_MODEL, device="cpu")
    tokens = model.to_tokens([pair.counterfactual for pair in builtin_pairs()[:1]])[0]
    anything = torch.randint(1, model.cfg.d_vocab, (4, 17), generator=torch.Generator().manual_seed(0))
    for dtype, given, tolerance in ((torch.float32, tokens, 1e-5), (torch.float64, anything, 1e-10)):
        bert, _ = read_checkpoint(find_checkpoint(BUNDLED_MODEL).folder, BUNDLED_MODEL, dtype)
        poured = script.as_distilbert(bert.eval())
        hooked = HookedEncoder.from_pretrained("poured", hf_model=poured, device="cpu", dtype=dtype)
        with torch.no_grad():
            expected = bert(given).logits
            torch.testing.assert_close(poured(given).logits, expected, rtol=0, atol=tolerance)
            torch.testing.assert_close(hooked(given), expected, rtol=0, atol=tolerance)
        assert (type(poured).__name__, hooked.cfg.family) == ("DistilBertForMaskedLM", "distilbert")


def test_a_bert_with_another_epsilon_is_not_poured():
    sizes = {"vocab_size": 32, "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    with pytest.raises(ModelError, match="epsilon"):
        script.as_distilbert(BertForMaskedLM(BertConfig(**sizes, intermediate_size=16, layer_norm_eps=1e-5)))


def no_cache(name, **options):
    raise script.LocalEntryNotFoundError(f"no {name}")


def test_without_a_network_the_bundled_model_stands_in(monkeypatch):
    def unreachable(self, name, timeout):
        assert timeout <= 10
        raise ConnectionError("no route to host")

    monkeypatch.setattr(script.HfApi, "model_info", unreachable)
    monkeypatch.setattr(script, "snapshot_download", no_cache)
    problem = script.hub_problem()
    assert "ConnectionError" in problem
    taken, second = script.chosen_model(None, problem), script.chosen_distilbert(None, problem)
    assert (taken.name, taken.model.cfg.family) == (BUNDLED_MODEL, "bert")
    assert "hub cannot be reached" in taken.why
    assert second.model.cfg.family == "distilbert"
    assert BUNDLED_MODEL in second.name and script.DISTILBERT in second.why


def test_without_a_network_the_cache_is_read(monkeypatch):
    folder = str(find_checkpoint(BUNDLED_MODEL).folder)

    def cached(name, local_files_only):
        return folder if name == script.BERT_TINY[1] else no_cache(name)

    monkeypatch.setattr(script, "snapshot_download", cached)
    assert script.chosen_model(None, "no network").name == script.BERT_TINY[1]


def test_the_first_name_that_can_be_read_is_taken_and_the_others_explained(monkeypatch):
    bundled = HookedEncoder.from_pretrained(BUNDLED_MODEL, device="cpu")

    def from_pretrained(name):
        if name == script.BERT_TINY[0]:
            raise ModelError("holds pytorch_model.bin, but negprobe reads *.safetensors only")
        return bundled

    monkeypatch.setattr(script.HookedEncoder, "from_pretrained", from_pretrained)
    taken = script.chosen_model(None, "")
    assert taken.name == script.BERT_TINY[1]
    assert script.BERT_TINY[0] in taken.why and "safetensors" in taken.why


def test_a_model_that_was_asked_for_is_never_replaced():
    with pytest.raises(ModelError):
        script.chosen_model("./no-such-folder", "")
    with pytest.raises(ModelError):
        script.chosen_distilbert("./no-such-folder", "")


@pytest.mark.slow
def test_the_script_writes_every_claim_and_figure(tmp_path, capsys):
    script.main("tiny-negation", limit=6, seed=3, out=tmp_path)
    printed = " ".join(capsys.readouterr().out.split())
    assert "Model: tiny-negation, because it was requested." in printed
    assert "DistilBERT: tiny-negation's weights in DistilBERT's architecture" in printed
    table = pd.read_csv(tmp_path / "claims.csv")
    assert table["number"].tolist() == NUMBERS
    saved = json.loads((tmp_path / "claims.json").read_text(encoding="utf-8"))
    assert (saved["model"], saved["n_pairs"], saved["seed"]) == ("tiny-negation", 6, 3)
    assert [claim["verdict"] for claim in saved["claims"]] == table["verdict"].tolist()
    assert saved["correction"] in printed and "Claims tested: 16" in saved["correction"]
    assert "not corrected for multiple testing" in saved["correction"]
    assert "left out" not in printed and saved["n_repeats_left_out"] == 0
    heads = pd.read_parquet(tmp_path / "heads.parquet")
    assert heads.groupby("number").size().to_dict() == {
        number: 4 if number[0] == "1" else 16 for number in NUMBERS if number not in ("1c", "1d")
    }
    for name in ("distance", "diffusion", "to_cue", "from_cue", "raw_against_norm", "heatmaps", "disagreement"):
        assert (tmp_path / f"{name}.png").stat().st_size > 0
    assert (tmp_path / "distilbert_heatmaps.png").stat().st_size > 0


@pytest.mark.slow
def test_pairs_without_a_negation_are_drawn_and_judged_all_the_same(tmp_path, capsys):
    pairs = pd.DataFrame({"original": ["the door is open."], "counterfactual": ["the window is open."]})
    # The second and third are the first to the model, in capitals or with another space.
    others = pd.DataFrame({"original": ["The door is open.", "the door  is open."]}).assign(
        counterfactual="the window is open."
    )
    pd.concat([pairs, others]).to_csv(tmp_path / "pairs.csv", index=False)
    script.main("tiny-negation", str(tmp_path / "pairs.csv"), tmp_path, distilbert="tiny-negation")
    printed = " ".join(capsys.readouterr().out.split())
    assert "left out 2 of 3 pairs: same tokens as an earlier pair" in printed
    saved = json.loads((tmp_path / "claims.json").read_text(encoding="utf-8"))
    assert (saved["n_pairs"], saved["n_repeats_left_out"]) == (1, 2)
    assert saved["correction"].startswith(f"Claims tested: {sum(claim['n'] > 0 for claim in saved['claims'])},")
    table = pd.read_csv(tmp_path / "claims.csv")
    assert set(table["verdict"]) == {"undecided"}
    assert table["n"].max() == 1
    assert (tmp_path / "distance.png").exists() and not (tmp_path / "to_cue.png").exists()
