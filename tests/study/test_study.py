"""A study measures what it documents, writes every number, and reports everything that it leaves out."""

import json
import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from negprobe import HookedEncoder
from negprobe.attention import METRICS, AttentionProbe
from negprobe.base.errors import NegprobeError, StatementError, ViewError
from negprobe.patching import mean_effect
from negprobe.statements import StatementPair, builtin_pairs
from negprobe.statistics import effect_tests, negation_effects, survivors
from negprobe.study import run as study
from negprobe.study import run_study, summarize
from negprobe.study.comparison import compare_studies
from negprobe.study.effect_tests import clusters_of
from negprobe.study.saved import read_study
from negprobe.study.tables import patching_table
from negprobe.views import write_study
from negprobe.views.labels import metric_name
from negprobe.views.report.findings import findings, left_out

TOO_LONG = StatementPair("The door is open. " * 40, "The door is not open. " * 40)
WRONG_CONTROL = StatementPair(
    "The door is open. So the door is [MASK].",
    "The door is not open. So the door is [MASK].",
    "open",
    "closed",
    control="The door is now really still always truly open. So the door is [MASK].",
    # Of no known kind, so that no other control is found for it.
    cue="a cue of its own",
    cue_spans=((12, 15),),
)
NO_ANSWER = StatementPair("The door is open.", "The door is not open.")
STRANGER = StatementPair("The zebra is [MASK].", "The zebra is not [MASK].", "open", "closed")


@pytest.fixture(scope="module")
def model():
    return HookedEncoder.from_pretrained("tiny-negation", device="cpu")


@pytest.fixture(scope="module")
def pairs():
    # The pair without an answer stands early, so that a table that numbers pairs its own way is found out.
    return [WRONG_CONTROL, NO_ANSWER, *builtin_pairs()[::30], TOO_LONG, STRANGER]


@pytest.fixture(scope="module")
def results(model, pairs):
    return run_study(model, pairs, source="a test", dropped=["line 3: no counterfactual"], seed=1)


@pytest.fixture(scope="module")
def folder(results, tmp_path_factory):
    out = tmp_path_factory.mktemp("study") / "deep" / "folder"
    write_study(results, out, command="negprobe study")
    return out


def test_every_pair_is_measured_or_named_with_a_reason(results, pairs):
    assert len(results.pairs) == len(pairs) - 1
    assert results.dropped[0] == "line 3: no counterfactual"
    assert re.search(rf"^input pair {pairs.index(TOO_LONG)}: \d+ tokens, more than the 64", results.dropped[2])
    assert results.dropped[1] == "the control of input pair 0: the control has 18 tokens and the counterfactual 14"
    assert len(results.dropped) == 3
    assert [re.sub(r"pair \d+: ", "", reason) for reason in results.unpatched] == ["the pair has no target or foil"]
    assert results.unknown_words == ("zebra",)


def test_a_broken_pair_and_a_repeated_one_are_named_and_cost_no_other(model):
    good = builtin_pairs()[0]
    pairs = [
        StatementPair("a [SEP] b [SEP] c", "a [SEP] not b [SEP] c"),
        StatementPair("\u200b", "not"),
        StatementPair("It is open.", "It is not open.", cue_spans=((5, 6),)),
        good,
        replace(good, category="again", target=good.foil, foil=good.target),
    ]
    results = run_study(model, pairs)
    assert results.pairs == (good,)
    assert [reason.split(":")[0] for reason in results.dropped] == [f"input pair {i}" for i in (0, 1, 2, 4)]
    assert results.dropped[-1] == "input pair 4: it has the same tokens as input pair 3"


def test_metrics_are_the_probes_own(results, model):
    kept = list(results.pairs)
    xr.testing.assert_allclose(results.metrics, AttentionProbe(model).metrics(kept), atol=5e-6)
    controlled = [pair.control is not None for pair in kept]
    has_control = results.metrics["mean_attention_diff"].sel(compared="control").notnull().all(("layer", "head"))
    assert has_control.values.tolist() == controlled


def test_tests_are_those_of_the_pairs_that_have_a_control(results):
    controlled = [index for index, pair in enumerate(results.pairs) if pair.control]
    effects = negation_effects(results.metrics[list(METRICS)]).isel(pair=controlled)
    xr.testing.assert_identical(results.tests, effect_tests(effects, clusters=clusters_of(effects), seed=1))
    assert set(results.tests["n"].sel(metric="mean_attention_diff").values.ravel()) == {len(controlled)}
    assert results.replications == {}


def test_effects_are_replicated_over_cues_and_data_sets_where_there_are_several(model):
    pairs = [replace(pair, source="ab"[index % 2]) for index, pair in enumerate(builtin_pairs()[:60])]
    results = run_study(model, pairs, patch_pairs=0, circuit_pairs=0, contribution_pairs=0)
    assert list(results.replications["source"]["group"].values) == ["a", "b"]
    assert set(results.replications["cue"]["group"].values) <= {pair.cue for pair in pairs}
    sentences = " ".join(findings(summarize(results)))
    assert "Tested separately in each of 2 data sets" in sentences
    assert re.search(r"Tested separately in each of \d kinds of cue", sentences)


def test_the_cue_itself_is_swapped_against_its_control(results):
    effect = mean_effect(results.patching["resid_pre", "denoising"])
    # A control differs from its counterfactual in the cue alone, so before the first block that swap is all of it.
    with_cue = effect["n_pairs"].sel(role="cue").values[0]
    assert with_cue == results.from_control == len(results.answers) - 1
    assert effect.sel(role="cue", layer=0).item() == pytest.approx(1, abs=0.02)


def test_patching_rows_are_the_answers_rows(results):
    assert 1 not in results.answers["pair"].values
    for patched in results.patching.values():
        assert list(patched["pair"].values) == list(results.answers["pair"])
        np.testing.assert_allclose(
            patched["base" if patched.attrs["direction"] == "denoising" else "source"],
            results.answers["counterfactual"],
            atol=3e-5,
        )


def test_a_sample_is_patched_evenly_and_said(model):
    pairs = builtin_pairs()[:40]
    results = run_study(model, pairs, patch_pairs=6, circuit_pairs=0, contribution_pairs=0)
    assert len(results.patched) == 6 and len(results.answers) == 40
    assert len({pairs[index].cue for index in results.patched}) == 6
    for patched in results.patching.values():
        assert tuple(patched["pair"].values) == results.patched
    assert "Of 40 pairs, 6 were patched" in " ".join(findings(summarize(results)))
    assert run_study(model, pairs[:2], patch_pairs=0).patching == {}


@pytest.mark.slow
def test_contributions_are_measured_on_an_even_sample_where_texts_are_long_and_that_is_said(
    model, tmp_path, monkeypatch
):
    pairs = builtin_pairs()[:40]
    lengths = [len(model.tokenizer(pair.counterfactual)["input_ids"]) for pair in pairs]
    # Value zeroing of both sides: the second matrix of the MLP, for every two tokens.
    one = np.mean([2 * n**2 * model.cfg.n_layers * 2 * model.cfg.d_mlp * model.cfg.d_model for n in lengths])
    monkeypatch.setattr(study, "_CONTRIBUTION_WORK", {"cpu": 6.5 * one, "other": 0})
    told = []
    results = run_study(
        model, pairs, patch_pairs=0, progress=lambda step, done, total: told.append((step, done, total))
    )
    measured = results.cue_shares["pair"].values
    assert len(measured) == 6 and len({pairs[index].cue for index in measured}) == 6
    contributing = [(done, total) for step, done, total in told if step == "measuring what the cue contributes"]
    # Pair by pair: a shard is a small part of the budget.
    assert contributing == [(done, 6) for done in range(7)]
    alone = AttentionProbe(model).cue_shares([results.pairs[index] for index in measured])
    np.testing.assert_allclose(results.cue_shares, alone, atol=5e-6)
    sentences = " ".join(left_out(summarize(results)))
    assert "contributes was measured on 6 of 40 pairs with a cue, an even sample" in sentences
    report = write_study(results, tmp_path, "negprobe study").read_text(encoding="utf-8")
    assert "6 of 40 pairs with a cue, an even sample" in report and "Curves over layers, one for each measure" in report
    assert json.loads((tmp_path / "manifest.json").read_text("utf-8"))["data"]["contributions"] == 6
    table = pd.read_parquet(tmp_path / "cue_shares.parquet")
    assert sorted(set(table["pair"])) == list(measured)
    read = table.set_index(["pair", "compared", "measure", "layer"])["share"].to_xarray()
    np.testing.assert_array_equal(read.reindex_like(results.cue_shares), results.cue_shares)


@pytest.mark.slow
def test_contributions_can_be_limited_and_skipped(model, tmp_path):
    pairs = builtin_pairs()[:8]
    assert run_study(model, pairs, patch_pairs=0, contribution_pairs=3).cue_shares.sizes["pair"] == 3
    results = run_study(model, pairs, patch_pairs=2, contribution_pairs=0)
    assert results.cue_shares.sizes["pair"] == 0 and results.cue_share_tests is None
    assert all(example.original.zeroing is None for example in results.examples)
    report = write_study(results, tmp_path, "negprobe study").read_text(encoding="utf-8")
    assert "contributes was measured on none of 8 pairs with a cue:" in report
    assert list(pd.read_parquet(tmp_path / "cue_shares.parquet").columns) == [
        *("pair", "compared", "measure", "layer", "share")
    ]
    # Nothing that compares studies needs them.
    again = read_study(tmp_path)
    assert compare_studies(again, again).change is not None


def test_what_can_be_patched_in_minutes_shrinks_with_the_model(model):
    def affordable(layers, width):
        heads = width // 64
        cfg = replace(model.cfg, n_layers=layers, n_heads=heads, n_key_value_groups=heads, d_head=64, d_model=width)
        return study._affordable(cfg, tokens=16)

    assert affordable(4, 128) > 280
    assert 5 < affordable(12, 768) < 50
    assert affordable(48, 4096) == 1


def test_the_same_seed_gives_the_same_numbers(model, pairs, results):
    again = run_study(model, pairs, source="a test", seed=1)
    xr.testing.assert_identical(again.tests, results.tests)
    pd.testing.assert_frame_equal(again.answers, results.answers)
    pd.testing.assert_frame_equal(patching_table(again.patching), patching_table(results.patching))


def test_the_folder_holds_every_number(folder, results):
    tables = {path.stem: pd.read_parquet(path) for path in folder.glob("*.parquet")}
    assert set(tables) == {
        *("pairs", "metrics", "metrics_by_role", "distances"),
        *("cue_shares", "negation_effects", "replication", "answers", "patching"),
        *("knock_out", "knock_out_sets", "readings", "summary"),
    }
    for table, dims, name in (
        ("metrics", ["pair", "compared", "layer", "head"], "js_divergence"),
        ("metrics_by_role", ["pair", "compared", "role", "layer", "head"], "norm_to_cue_by_role"),
        ("distances", ["pair", "layer", "head"], "norm_distance"),
        ("negation_effects", ["metric", "layer", "head"], "q"),
        ("cue_shares", ["pair", "compared", "measure", "layer"], "share"),
    ):
        found = tables[table].set_index(dims)[name].to_xarray()
        shares = results.cue_shares.to_dataset(name="share")
        source = {"negation_effects": results.tests, "cue_shares": shares}.get(table, results.metrics)
        np.testing.assert_array_equal(found, source[name].reindex_like(found))
    effects = tables["negation_effects"]
    np.testing.assert_allclose(effects["counterfactual"] - effects["control"], effects["effect"], atol=1e-6)
    with xr.open_dataset(folder / "negation_effects.nc", engine="scipy") as stored:
        np.testing.assert_array_equal(stored["p"], results.tests["p"])
    assert list(tables["pairs"]["counterfactual"]) == [pair.counterfactual for pair in results.pairs]
    one = results.patching["z", "noising"]
    rows = tables["patching"].query("site == 'z' and direction == 'noising' and pair == 3 and layer == 2")
    np.testing.assert_allclose(rows["patched"], one["patched"].sel(pair=3, layer=2))
    assert tables["answers"].set_index("pair").loc[3, "counterfactual"] == pytest.approx(
        rows["source"].iloc[0], abs=1e-4
    )
    assert list(rows["part"]) == [str(head) for head in one["head"].values]
    assert not tables["patching"]["patched"].isna().any()


def test_the_manifest_says_how_it_was_made(folder, results):
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["command"] == "negprobe study"
    assert manifest["model"]["name"] == "tiny-negation"
    assert manifest["data"]["pairs"] == len(results.pairs)
    assert manifest["data"]["dropped"] == list(results.dropped)
    assert manifest["seed"] == 1
    assert manifest["versions"]["torch"]


def named_files(folder):
    """What the last table of the section of numbers names, with what it holds."""
    section = re.search(r'<section id="numbers".*?</section>', (folder / "report.html").read_text("utf-8"), re.DOTALL)
    rows = section[0].rpartition("<tbody>")[2]
    return dict(re.findall(r'<th scope="row">(.*?)</th><td class="text">(.*?)</td>', rows))


def test_the_report_names_every_file_beside_it_and_no_other(folder):
    named = named_files(folder)
    assert {path.name for path in folder.iterdir()} - {"report.html"} == set(named)
    assert all(named.values())
    assert set(named) == set(json.loads((folder / "manifest.json").read_text("utf-8"))["files"])


def test_the_report_is_one_file_with_every_finding_and_figure(folder, results):
    report = (folder / "report.html").read_text(encoding="utf-8")
    text = re.sub(r"\s+", " ", report)
    for sentence in findings(summarize(results)):
        assert re.sub(r"\s+", " ", sentence).replace("'", "&#x27;") in text
    figures = list((folder / "figures").glob("*.png"))
    # Too few pairs for a circuit, whose figures tests of the mechanism see.
    assert len(figures) == 6 + 5 + 2 + 8 + 2 + 3
    assert report.count("data:image/png;base64,") == len(figures)
    assert "http" not in re.sub(r"<script.*?</script>", "", report, flags=re.DOTALL).replace("http-equiv", "")
    assert "line 3: no counterfactual" in report
    assert "zebra" in report


def test_the_findings_name_the_heads_the_tables_name(results):
    sentences = " ".join(findings(summarize(results)))
    passing = survivors(results.tests)
    top = passing.iloc[0]
    assert f"{int(top['layer'])}.{int(top['head'])} by {metric_name(top['metric'])} {top['effect']:+.3g}" in sentences
    n_heads = len(passing[passing["passes_q"]].drop_duplicates(["layer", "head"]))
    assert f"length is significant in {n_heads} of 16 heads on at least one metric" in sentences
    back = mean_effect(results.patching["z", "denoising"])
    layer, head = np.unravel_index(back.values.argmax(), back.shape)
    assert f"head {layer}.{head} restores {back.values.max():.0%}" in sentences
    right = int(((results.answers["original"] > 0) & (results.answers["counterfactual"] < 0)).sum())
    assert f"on {right} pairs" in sentences


@pytest.mark.slow
def test_pairs_without_answers_or_controls_still_make_a_report(model, tmp_path):
    pairs = [StatementPair("The door is open.", "The gate is open."), NO_ANSWER]
    results = run_study(model, pairs)
    assert results.patching == {}
    report = write_study(results, tmp_path, command="").read_text(encoding="utf-8")
    assert "Nothing was patched" in report
    assert "None of the 2 pairs could be answered" in report


def test_the_numbers_are_kept_when_a_figure_cannot_be_drawn(results, tmp_path, monkeypatch):
    def broken(results):
        raise ViewError("no such colour")

    monkeypatch.setattr("negprobe.views.report.write.study_figures", broken)
    with pytest.raises(ViewError):
        write_study(results, tmp_path)
    assert len(list(tmp_path.glob("*.parquet"))) == 13
    assert (tmp_path / "manifest.json").exists()


def test_nothing_to_measure_and_nowhere_to_write_are_clear_errors(model, results, tmp_path):
    with pytest.raises(StatementError, match=r"None of the 1 pairs can be measured.*64"):
        run_study(model, [TOO_LONG])
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(NegprobeError, match=r"files in it are kept\. .* run the same study again"):
        write_study(results, blocked)
