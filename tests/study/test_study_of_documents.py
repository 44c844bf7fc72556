"""A reranker's study, its commands and its scores: the margin of two documents, and what it says of each query."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from click.testing import Result
from typer.testing import CliRunner

from negprobe import HookedEncoder, write_study
from negprobe.base.errors import InputError, PatchingError
from negprobe.behaviour import evaluate, scored_sets
from negprobe.cli import app
from negprobe.patching import single_logit
from negprobe.statements import load_pairs
from negprobe.study import read_study, run_study
from negprobe.study.comparison import compare_studies
from negprobe.study.folder import options_of_study
from negprobe.views.report.findings import findings
from tests.support import tiny_models

OPTIONS = {"patch_pairs": 4, "circuit_pairs": 0, "contribution_pairs": 0, "seed": 0}
ROWS = [
    ("the door is open", "the door is not open", "a big dog .", "it is red ."),
    ("it is red", "it is never red", "a big dog .", "it is closed ."),
    ("a dog", "not a dog", "it is red and so closed .", "a big dog ."),
    ("the house", "not the house", "it is open .", "a big dog ."),
]
COLUMNS = ["query", "counterfactual_query", "document", "other_document"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A reranker of one logit in Hugging Face's format."""
    folder = tmp_path_factory.mktemp("reranker")
    tiny_models.hf_model("bert", "classification", num_labels=1).save_pretrained(folder)
    tiny_models.tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pairs") / "doors.tsv"
    pd.DataFrame(ROWS, columns=COLUMNS).to_csv(path, sep="\t", index=False)
    return path


@pytest.fixture(scope="module")
def model(folder: Path) -> HookedEncoder:
    return HookedEncoder.from_pretrained(folder, device="cpu")


def margins() -> np.ndarray:
    """Hugging Face's margin of each row's documents, for the query and the counterfactual query."""
    theirs, tokenizer = tiny_models.hf_model("bert", "classification", num_labels=1), tiny_models.tokenizer()
    with torch.no_grad():
        return np.array(
            [
                [
                    sum(
                        sign * theirs(**tokenizer(query, document, return_tensors="pt")).logits.item()
                        for sign, document in ((1, documents[0]), (-1, documents[1]))
                    )
                    for query in (one, other)
                ]
                for one, other, *documents in ROWS
            ]
        )


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_a_study_reads_and_patches_the_margin(model: HookedEncoder, table: Path) -> None:
    pairs = load_pairs(table).pairs
    study = run_study(model, pairs, **OPTIONS)
    expected = margins()
    assert study.objective == "score_margin"
    np.testing.assert_allclose(study.answers[["original", "counterfactual"]], expected, atol=1e-5)
    for sweep in (*study.patching.values(), study.mechanism.knock_out, study.mechanism.knock_out_sets):
        assert sweep.attrs["objective"] == "score_margin"
    assert study.positions["noising"].attrs["objective"] == "score_margin"
    right = study.summary.rows("right").set_index("compared")["hits"]
    assert right["original"] == (expected[:, 0] > 0).sum() and right["counterfactual"] == (expected[:, 1] < 0).sum()
    assert any("The model prefers the right document on" in sentence for sentence in findings(study.summary))


def test_one_pair_without_a_second_document_makes_every_answer_a_score(model: HookedEncoder, table: Path) -> None:
    *two, last = load_pairs(table).pairs
    pairs = [*two, replace(last, foil=None)]
    single = run_study(model, pairs, **OPTIONS)
    assert single.objective == "default"
    assert {one.attrs["objective"] for one in single.patching.values()} == {single_logit.__name__}
    assert not single.summary.rows("score").empty and single.summary.rows("right").empty
    with pytest.raises(PatchingError, match="does not rank two documents"):
        run_study(model, pairs, objective="score_margin", **OPTIONS)


def test_the_objective_is_part_of_the_fingerprint(model: HookedEncoder, table: Path) -> None:
    pairs = load_pairs(table).pairs
    options = {"patch_pairs": None, "circuit_pairs": None, "contribution_pairs": None, "circuit_effort": "fast"}

    def objective(given: str | None) -> object:
        return options_of_study(model, seed=0, objective=given, pairs=pairs, **options)["objective"]

    assert (objective(None), objective("score_margin"), objective("single_logit")) == (
        "score_margin",
        "score_margin",
        "default",
    )


@pytest.mark.slow
@pytest.mark.usefixtures("without_figures")
def test_two_studies_of_margins_have_comparable_answers(model: HookedEncoder, table: Path, tmp_path: Path) -> None:
    pairs = load_pairs(table).pairs
    for name in ("a", "b"):
        write_study(run_study(model, pairs, **OPTIONS), tmp_path / name, "negprobe study")
    compared = compare_studies(*(read_study(tmp_path / name) for name in ("a", "b")))
    assert compared.no_answers == "" and set(compared.answers["statement"]) >= {"original", "counterfactual", "both"}
    write_study(run_study(model, pairs, objective="single_logit", **OPTIONS), tmp_path / "c", "negprobe study")
    compared = compare_studies(*(read_study(tmp_path / "c") for _ in range(2)))
    assert "gives a score" in compared.no_answers


def test_the_scores_are_the_shares_of_queries_that_rank_the_right_document_first(
    model: HookedEncoder, table: Path
) -> None:
    sets, unusable = scored_sets(table)
    shares = evaluate(sets, model).shares.set_index("condition")
    expected = margins()
    assert unusable == () and [part.kind for part in sets] == ["ranking", "ranking"]
    assert shares["hits"].to_dict() == {
        "original query": (expected[:, 0] > 0).sum(),
        "counterfactual query": (expected[:, 1] < 0).sum(),
    }
    assert set(shares["score"]) == {"right over other document"} and set(shares["n"]) == {4}


def test_what_cannot_rank_documents_is_refused(table: Path, tmp_path: Path) -> None:
    sets, _ = scored_sets(table)
    _, three = tiny_models.pair("bert", "classification")
    with pytest.raises(InputError, match=r"needs a classifier with one logit, .* has 3"):
        evaluate(sets, three)
    _, masked = tiny_models.pair("bert", "masked_lm")
    with pytest.raises(InputError, match="queries with two documents, which need a classifier with one logit"):
        evaluate(sets, masked)
    pd.DataFrame(ROWS, columns=COLUMNS)[COLUMNS[:3]].to_csv(tmp_path / "one.csv", index=False)
    refused = run("evaluate", tmp_path / "one.csv")
    assert refused.exit_code == 1 and "The row has no other_document" in " ".join(refused.output.split())


@pytest.mark.slow
def test_the_commands_take_a_table_of_documents(folder: Path, table: Path, tmp_path: Path) -> None:
    ended = run("patch", "--pairs", table, "--model", folder, "--site", "z", "--attribution", "--out", tmp_path / "p")
    assert ended.exit_code == 0, ended.output
    ended = run("find-circuit", folder, "--pairs", table, "--threshold", "0.2", "--out", tmp_path / "c")
    assert ended.exit_code == 0, ended.output
    assert json.loads((tmp_path / "c" / "circuit.json").read_text())["objective"] == "score_margin"
    query, other, *documents = ROWS[0]
    texts = [f"{one} [SEP] {documents[0]}" for one in (query, other)]
    labels = ["--target", documents[0], "--foil", documents[1], "--no-control"]
    ended = run("patch", *texts, *labels, "--model", folder, "--out", tmp_path / "one")
    found = pd.read_csv(tmp_path / "one" / "patching.csv").query("site == 'z' and direction == 'noising'")
    np.testing.assert_allclose(found["base"], margins()[0, 0], atol=1e-5)
    assert "score_margin: " in ended.output
