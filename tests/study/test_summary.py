"""The summary of a study: its rows equal the results of scipy and pandas, and hold every number of every sentence."""

import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scipy import stats

from negprobe import HookedEncoder, StatementPair, builtin_pairs
from negprobe.base.errors import NegprobeError
from negprobe.study import read_summary, run_study, summarize
from negprobe.study.comparison import compare_studies
from negprobe.study.figure_data import figure_data
from negprobe.study.saved import read_study
from negprobe.study.stages import HEAD_METRICS
from negprobe.study.summary_table import SUMMARY, summary_of, write_summary
from negprobe.views import write_study
from negprobe.views.report import comparison as comparison_page
from negprobe.views.report import comparison_captions, comparison_findings
from negprobe.views.report import report as study_page
from negprobe.views.report.captions import study_pictures
from negprobe.views.report.findings import answer, findings, left_out
from negprobe.views.report.mechanism_findings import circuit_story


@pytest.fixture(scope="module")
def model():
    return HookedEncoder.from_pretrained("tiny-negation", device="cpu")


@pytest.fixture(scope="module")
def results(study_with_circuit):
    return study_with_circuit


@pytest.fixture(scope="module")
def summary(results):
    return results.summary


@pytest.fixture(scope="module")
def few(model):
    return run_study(model, [*builtin_pairs()[:4], StatementPair("A zebra is open.", "A zebra is not open.")])


def test_the_controls_are_counted_and_some_are_drawn_by_the_seed(results, few):
    for studied in (results, few, replace(few, pairs=(StatementPair("a", "not a"),))):
        controls = [pair.control for pair in studied.pairs if pair.control is not None]
        row = studied.summary.row("with_control")
        expected = stats.binomtest(len(controls), len(studied.pairs)).proportion_ci(method="wilson")
        assert (row["hits"], row["n"]) == (len(controls), len(studied.pairs))
        assert (row["low"], row["high"]) == pytest.approx((expected.low, expected.high))
        examples = studied.summary.rows("control_example")
        drawn = list(zip(examples["part"], examples["note"], strict=True))
        assert len(set(drawn)) == min(6, len(controls))
        assert set(drawn) <= {(pair.counterfactual, pair.control) for pair in studied.pairs}
    first = [pair.control for pair in results.pairs][:6]
    drawn = summarize(results).rows("control_example")["note"].tolist()
    assert drawn == results.summary.rows("control_example")["note"].tolist() != first
    assert summarize(replace(results, seed=7)).rows("control_example")["note"].tolist() != drawn


def test_the_report_shows_the_controls_and_their_share(results, few):
    page = study_page._controls(few.summary)
    assert all(control in page for control in few.summary.rows("control_example")["note"])
    n, controls = len(few.pairs), sum(pair.control is not None for pair in few.pairs)
    assert f"for {controls} of {n} pairs ({controls / n:.0%}), a control" in study_page.data(few)
    long = StatementPair("a", f"{'x ' * 99}not a", control=f"{'x ' * 99}now a <b>")
    page = study_page._controls(summarize(replace(few, pairs=(long,))))
    assert f"…{'x ' * 29}now a &lt;b&gt;<" in page


def test_shares_are_those_of_the_answers_with_wilsons_interval(results):
    # The bundled model answers every pair correctly, so that both and either would be the same share.
    drawn = np.random.default_rng(0).normal(size=(len(results.answers), 3))
    answers = results.answers.assign(**dict(zip(("original", "counterfactual", "control"), drawn.T, strict=True)))
    summary = summarize(replace(results, answers=answers))
    right = {
        "original": answers["original"] > 0,
        "counterfactual": answers["counterfactual"] < 0,
        "both": (answers["original"] > 0) & (answers["counterfactual"] < 0),
        "control": answers["control"].dropna() > 0,
    }
    for side, hits in right.items():
        row = summary.row("right", compared=side)
        assert (row["hits"], row["n"]) == (hits.sum(), len(hits))
        interval = stats.binomtest(int(hits.sum()), len(hits)).proportion_ci(method="wilson")
        assert [row["estimate"], row["low"], row["high"]] == pytest.approx([hits.mean(), interval.low, interval.high])


@pytest.mark.parametrize("direction", ["denoising", "noising"])
def test_swaps_are_ratios_of_means_with_the_percentiles_of_drawn_clusters(results, summary, direction):
    patched = results.patching["z", direction]
    gap = (patched["source"] - patched["base"]).values
    nouns = [results.pairs[index].cluster for index in results.patched]
    members = [np.flatnonzero([noun == one for noun in nouns]) for one in dict.fromkeys(nouns)]
    drawn = np.random.default_rng(results.seed).integers(len(members), size=(1000, len(members)))
    draws = [np.concatenate([members[cluster] for cluster in draw]) for draw in drawn]
    for row in summary.rows("swap", site="z", direction=direction).to_dict("records"):
        moved = (patched["patched"].sel(layer=row["layer"], head=row["head"]) - patched["base"]).values * np.sign(gap)
        assert row["estimate"] == pytest.approx(moved.sum() / np.abs(gap).sum())
        assert row["n"] == len(gap)
        ratios = [moved[draw].sum() / np.abs(gap)[draw].sum() for draw in draws]
        assert [row["low"], row["high"]] == pytest.approx(np.quantile(ratios, [0.025, 0.975]), abs=1e-9)


def test_counts_of_heads_are_those_of_the_tests(results, summary):
    table = results.tests[["q", "p_max_t"]].to_dataframe().groupby(["layer", "head"]).min()
    for criterion in ("q", "p_max_t"):
        row = summary.row("responding_heads", part=criterion)
        assert (row["hits"], row["n"]) == ((table[criterion] <= 0.05).sum(), len(table))
    effects = results.tests["effect"].to_dataframe()["effect"].unstack("metric")
    row = summary.row("rank_correlation", metric="attention_to_cue")
    assert row["estimate"] == pytest.approx(effects["attention_to_cue"].corr(effects["norm_to_cue"], method="spearman"))


def test_a_mean_has_the_percentile_interval_of_the_study_s_seed(minilm_path):
    encoder = HookedEncoder.from_pretrained(minilm_path, device="cpu")
    pairs = [StatementPair(f"The {noun} is open.", f"The {noun} is not open.") for noun in ("door", "box", "gate")]
    results = run_study(encoder, pairs, patch_pairs=0, contribution_pairs=0, seed=4)
    row = summarize(results).row("cosine")
    vectors = [encoder([getattr(pair, side) for pair in pairs]) for side in ("original", "counterfactual")]
    cosines = (vectors[0] * vectors[1]).sum(-1) / (vectors[0].norm(dim=-1) * vectors[1].norm(dim=-1))
    cosines = cosines.double().detach().numpy()
    found = stats.bootstrap((cosines,), np.mean, method="percentile", rng=np.random.default_rng(4)).confidence_interval
    assert [row["estimate"], row["low"], row["high"]] == pytest.approx([cosines.mean(), *found], abs=1e-5)


NUMBER = re.compile(r"[+−-]?\d+(?:\.\d+)?(?:e[+−-]?\d+)?%?")
"""A number as sentences write it."""

CONSTANTS = {"0.05", "95", "1", "0"}
"""The level of the tests and of the intervals, and the ends of the scales that sentences explain."""


def formatted(table: pd.DataFrame) -> set[str]:
    """Every number of a summary in every form that sentences use, and those in its notes."""
    found: set[str] = set()
    for row in table.to_dict("records"):
        for value in row.values():
            if isinstance(value, str):
                found |= set(NUMBER.findall(value))
            elif not pd.isna(value):
                forms = ("+.3g", ".3g", ".2g", ".2f", ".3f", "+.3f", ".4f", ".0%", ".0f")
                found |= {form for spec in forms for form in (format(value, spec), f"+{format(value, spec)}")}
        if not pd.isna(row["layer"]) and not pd.isna(row["head"]):
            found.add(f"{row['layer']}.{row['head']}")
    return {text.replace("−", "-").replace("-0%", "0%") for text in found}


def numbers(sentence: str) -> list[str]:
    return [text.replace("−", "-") for text in NUMBER.findall(re.sub(r"\d+(?:st|nd|rd|th)\b", rank_alone, sentence))]


def rank_alone(rank: re.Match[str]) -> str:
    return rank[0][:-2]


def unknown_numbers(sentences: list[str], table: pd.DataFrame, texts: str = "") -> list[tuple[str, str]]:
    """The numbers in sentences that no row has; those in `texts`, such as a model's name, are no numbers."""
    known = formatted(table) | CONSTANTS | set(NUMBER.findall(texts))
    stated = [(number, sentence) for sentence in sentences for number in numbers(sentence)]
    assert len(stated) > 30
    return [pair for pair in stated if pair[0] not in known]


@pytest.mark.parametrize("study", ["results", "few"])
def test_every_number_of_every_sentence_is_in_a_row(study, request):
    found = request.getfixturevalue(study)
    made = found.summary
    sentences = [*answer(made), *findings(made), *left_out(made), *circuit_story(found.mechanism, made)]
    assert not unknown_numbers(sentences, made.table)


@pytest.mark.parametrize("study", [pytest.param("results", marks=pytest.mark.slow), "few"])
def test_every_number_of_every_caption_and_limit_is_in_a_row(study, request):
    found = request.getfixturevalue(study)
    texts = study_pictures(found, dict.fromkeys(study_page.study_figures(figure_data(found)), b""))
    sentences = [text for picture in texts.values() for text in (picture.alt, picture.caption)]
    sentences += [study_page.data(found), *study_page.limits(found)]
    assert not unknown_numbers(sentences, found.summary.table, found.cfg.model_name)


@pytest.mark.slow
def test_every_number_of_a_comparison_is_in_a_row(results, few, model, tmp_path, monkeypatch):
    monkeypatch.setattr("negprobe.views.report.write.study_figures", lambda results: {})
    monkeypatch.setattr("negprobe.views.report.write.study_report", lambda results, figures, manifest: "")
    other = run_study(model, results.pairs[5:], patch_pairs=20, circuit_pairs=50, seed=2)
    for name, study in (("a", results), ("b", other)):
        write_study(study, tmp_path / name, command="")
    compared = compare_studies(read_study(tmp_path / "a"), read_study(tmp_path / "b"))
    made = compared.summary
    sentences = [*comparison_findings.answer(made), *comparison_page.limits(compared)]
    sentences += [comparison_page.common_pairs(made)]
    sentences += [text for texts in comparison_captions.comparison_texts(made).values() for text in texts]
    assert any("share" in sentence and "random" in sentence for sentence in sentences)
    assert not unknown_numbers(sentences, made.table)


def test_a_number_that_no_row_has_is_found(summary):
    known = formatted(summary.table) | CONSTANTS
    assert not set(numbers("It is 77.123 [−3.21e-05, 12345%], 9876th.")) & known


def test_the_intervals_of_a_study_are_drawn_once(results, summary, monkeypatch):
    def again(*_, **__):
        raise AssertionError("an interval was computed twice")

    monkeypatch.setattr("negprobe.study.summary.averages", again)
    assert results.summary is summary
    with pytest.raises(AssertionError, match="twice"):
        summarize(results)


@pytest.mark.usefixtures("without_figures")
def test_the_summary_is_saved_beside_the_tables_and_reads_back(results, summary, tmp_path):
    write_study(results, tmp_path, command="")
    pd.testing.assert_frame_equal(read_summary(tmp_path).table, summary.table)
    assert findings(read_summary(tmp_path)) == findings(summary)
    assert '"summary.parquet"' in (tmp_path / "manifest.json").read_text("utf-8")


def test_a_folder_without_a_summary_or_with_another_format_says_what_to_do(summary, tmp_path):
    with pytest.raises(NegprobeError, match=r"has no summary.parquet.*Run the study again"):
        read_summary(tmp_path)
    path = tmp_path / SUMMARY
    write_summary(summary, path)
    table = pq.read_table(path)
    newer = {**table.schema.metadata, b"negprobe.summary.format": b"3"}
    pq.write_table(table.replace_schema_metadata(newer), path)
    with pytest.raises(NegprobeError, match=r"has format version 3, .*only versions up to 2\. Upgrade negprobe"):
        read_summary(tmp_path)
    pq.write_table(table.drop_columns("estimate"), path)
    with pytest.raises(NegprobeError, match="missing columns estimate"):
        read_summary(tmp_path)
    path.write_bytes(b"PAR1")
    with pytest.raises(NegprobeError, match="damaged"):
        read_summary(tmp_path)
    pq.write_table(pa.table({"a": [1]}), path)
    with pytest.raises(NegprobeError, match="'none' is not a format version"):
        read_summary(tmp_path)


def test_a_summary_of_the_first_format_is_read(summary, tmp_path):
    path = tmp_path / SUMMARY
    write_summary(summary, path)
    table = pq.read_table(path).drop_columns(["study", "cue"])
    pq.write_table(table.replace_schema_metadata({b"negprobe.summary.format": b"1"}), path)
    found = read_summary(tmp_path)
    assert found.row("pairs")["estimate"] == summary.row("pairs")["estimate"]
    assert set(found.table["study"]) == {""}


def test_the_rows_of_one_study_of_a_comparison_are_those_of_its_own_summary():
    made = summary_of([{"statistic": "pairs", "study": name, "estimate": n} for name, n in (("A", 3), ("B", 4))])
    assert made.of("B").row("pairs", study="")["estimate"] == 4


def test_a_summary_is_the_same_from_many_shards_as_from_memory(model, monkeypatch, tmp_path):
    pairs = builtin_pairs()[::28]
    monkeypatch.setitem(vars(HEAD_METRICS), "pairs_in_shard", 2)
    from_shards = run_study(model, pairs, patch_pairs=0, contribution_pairs=0, shards=tmp_path)
    from_memory = run_study(model, pairs, patch_pairs=0, contribution_pairs=0)
    pd.testing.assert_frame_equal(from_shards.summary.table, from_memory.summary.table, check_exact=True)
