"""The commands write what they say, and turn every wrong input into one line."""

import json
import subprocess
import sys
import warnings
from functools import partial

import pandas as pd
import pytest
import torch
from matplotlib.figure import Figure
from typer.testing import CliRunner

from negprobe import HookedEncoder, builtin_pairs, views
from negprobe.base.errors import NegprobeError, NegprobeWarning
from negprobe.cli import app
from negprobe.patching import DIRECTIONS
from negprobe.study import run_study, summarize
from negprobe.study.stages import SWEPT
from negprobe.study.tables import patching_table
from negprobe.views.page import page as page_module
from negprobe.views.report import comparison as report_comparison
from negprobe.views.report.captions import _patching_texts
from negprobe.views.report.findings import findings


def run(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.mark.slow
def test_study_writes_a_report_and_says_what_it_found(tmp_path):
    result = run("study", "--limit", 4, "--out", tmp_path / "out")
    assert result.exit_code == 0, result.output
    report = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert len(report) > 1_000_000
    beside = {path.name for path in (tmp_path / "out").iterdir()} - {"report.html", ".lock"}
    assert {"study.json", "shards"} < beside
    assert all(f'<th scope="row">{name}</th>' in report for name in beside)
    assert "The model prefers the right word on" in " ".join(result.output.split())


@pytest.mark.usefixtures("without_figures")
def test_study_reads_pairs_from_a_file(tmp_path):
    pairs = tmp_path / "pairs.csv"
    pairs.write_text(
        "original,counterfactual,target,foil\n"
        "The door is open. So the door is [MASK].,The door is not open. So the door is [MASK].,open,closed\n"
    )
    result = run("study", "tiny-negation", "--pairs", pairs, "--out", tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert len(pd.read_parquet(tmp_path / "out" / "pairs.parquet")) == 1


@pytest.mark.usefixtures("without_figures")
def test_study_takes_its_clusters_from_a_column(tmp_path):
    pairs = tmp_path / "pairs.csv"
    pairs.write_text(
        "original,counterfactual,item\nThe door is open.,The door is not open.,7\nIt is wet.,It is not wet.,8\n"
    )
    options = ["--patch-pairs", 0, "--circuit-pairs", 0, "--contribution-pairs", 0]
    result = run("study", "--pairs", pairs, "--cluster-by", "item", *options, "--out", tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert pd.read_parquet(tmp_path / "out" / "pairs.parquet")["cluster"].tolist() == ["7", "8"]
    result = run("study", "--pairs", pairs, "--cluster-by", "x", "--out", tmp_path / "none")
    assert result.exit_code == 1 and "No pair has a value in the column 'x'" in " ".join(result.output.split())


@pytest.mark.slow
@pytest.mark.usefixtures("without_figures")
def test_study_reads_neg136(tmp_path, shared_datasets, minilm_path):
    result = run("study", minilm_path, "--pairs", shared_datasets / "neg136", "--limit", 3, "--out", tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert len(pd.read_parquet(tmp_path / "out" / "pairs.parquet")) == 3


def test_compare_writes_metrics_figures_and_a_page(tmp_path):
    result = run("compare", "The door is open.", "The door isn't open.", "--out", tmp_path)
    assert result.exit_code == 0, result.output
    assert len(pd.read_csv(tmp_path / "metrics.csv")) == 4 * 4
    assert '"zeroing":true' in (tmp_path / "attention.html").read_text(encoding="utf-8")
    assert len(list(tmp_path.glob("*.png"))) == 2


@pytest.mark.slow
def test_a_pair_too_long_for_a_page_still_has_its_metrics_and_figures(tmp_path, monkeypatch):
    too_large = partial(page_module.write_page, max_bytes=1000)
    monkeypatch.setattr(views, "write_page", too_large)
    result = run("compare", "The door is open.", "The door isn't open.", "--out", tmp_path)
    assert result.exit_code == 0, result.output
    said = " ".join(result.output.split())
    assert "There is no interactive page. No pair fits on the page" in said and "--max-megabytes" in said
    assert len(pd.read_csv(tmp_path / "metrics.csv")) == 4 * 4
    assert len(list(tmp_path.glob("*.png"))) == 2 and not (tmp_path / "attention.html").exists()


@pytest.mark.slow
def test_words_the_model_does_not_know_are_printed_once_and_without_markup(tmp_path):
    for command in ("compare", "patch"):
        texts = ("The [/x] door is [MASK].", "The [/x] door isn't [MASK].")
        options = ("--target", "open", "--foil", "closed") if command == "patch" else ()
        result = run(command, *texts, *options, "--out", tmp_path / command)
        assert result.exit_code == 0, result.output
        output = " ".join(result.output.split())
        assert output.count("Not in the model's vocabulary: /, [, ], x.") == 1


@pytest.mark.slow
@pytest.mark.usefixtures("without_figures")
def test_a_study_names_unknown_words_in_its_report_alone(tmp_path):
    pairs = tmp_path / "pairs.csv"
    pairs.write_text(
        "original,counterfactual,target,foil\nThe zebra is open. It is [MASK].,The zebra is not open. It is [MASK].,"
        "open,closed\n"
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error", NegprobeWarning)
        result = run("study", "tiny-negation", "--pairs", pairs, "--out", tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert json.loads((tmp_path / "out" / "manifest.json").read_text())["data"]["unknown_words"] == ["zebra"]


def test_view_says_which_pairs_do_not_fit_and_what_raises_the_limit(tmp_path):
    pairs = tmp_path / "pairs.csv"
    long = "a " * 58
    rows = "".join(f"{word} {long},not {word} {long}\n" for word in ("door", "gate", "key", "lamp", "tree"))
    pairs.write_text(f"original,counterfactual\n{rows}")
    result = run("view", "--pairs", pairs, "--max-megabytes", 1, "--out", tmp_path / "page.html")
    assert result.exit_code == 0, result.output
    said = " ".join(result.output.split())
    assert "2 of 5 pairs are left out" in said and "--max-megabytes sets the limit." in said
    assert (tmp_path / "page.html").read_text(encoding="utf-8").count('id="negprobe-pair-') == 3


def test_view_writes_one_page_of_the_first_pairs_of_each_set(tmp_path):
    pairs = tmp_path / "pairs.csv"
    pairs.write_text("original,counterfactual\nThe door is open.,The door is not open.\n")
    result = run("view", "--pairs", pairs, "--pairs", "builtin", "--limit", 2, "--out", tmp_path / "new" / "page.html")
    assert result.exit_code == 0, result.output
    page = (tmp_path / "new" / "page.html").read_text(encoding="utf-8")
    assert "The door is open. → The door is not open." in page
    assert page.count('id="negprobe-pair-') == 3
    assert "3 pairs:" in result.output


def test_patch_writes_maps_and_numbers(tmp_path):
    original, counterfactual = (f"The door is {word} open. So the door is [MASK]." for word in ("now", "not"))
    result = run("patch", original, counterfactual, "--target", "open", "--foil", "closed", "--out", tmp_path)
    assert result.exit_code == 0, result.output
    table = pd.read_csv(tmp_path / "patching.csv")
    assert set(table["site"]) == {"resid_pre", "attn_out", "mlp_out", "z"}
    assert len(list(tmp_path.glob("*.png"))) == 8


def in_order(table):
    return table.astype({"part": int}).sort_values(["direction", "layer", "part"])


@pytest.mark.slow
def test_patch_gives_a_pair_the_numbers_that_a_study_gives_it(tmp_path):
    pair = builtin_pairs()[0]
    arguments = (pair.original, pair.counterfactual, "--target", pair.target, "--foil", pair.foil)
    result = run("patch", *arguments, "--out", tmp_path)
    assert result.exit_code == 0, result.output
    model = HookedEncoder.from_pretrained("tiny-negation", device="cpu")
    study = run_study(model, [pair], circuit_pairs=0)
    assert study.from_control == 1
    (control,) = (pair.control for pair in study.pairs)
    said = " ".join(result.output.split())
    assert f"Swapped with the control: {control}" in said
    assert "on the control," in said and "restore the control's answer" in said and "original" not in said
    both = pd.read_csv(tmp_path / "patching.csv"), patching_table(study.patching)
    heads = [in_order(table.query("site == 'z'")) for table in both]
    assert set(heads[0]["base_run"]) == {"control", "counterfactual"}
    for column in ("patched", "base", "source"):
        assert heads[0][column].to_numpy() == pytest.approx(heads[1][column].to_numpy(), abs=1e-6)
    by_token = in_order(patching_table({("resid_pre", way): study.positions[way] for way in DIRECTIONS}))
    ours = in_order(both[0].query("site == 'resid_pre'"))
    assert ours["patched"].to_numpy() == pytest.approx(by_token["patched"].to_numpy(), abs=1e-6)
    assert set(both[0]["site"]) == set(SWEPT)
    # The study's sentences and captions name the control too.
    sentences = " ".join(findings(summarize(study)))
    assert "with the control's" in sentences and "affirmative" not in sentences
    captions = _patching_texts(study)
    assert f"“{control}” (the control), token by token" in captions["positions-resid_pre-noising"][1]
    assert "from the counterfactual into the control (noising" in captions["patching-z-noising"][1]


@pytest.mark.slow
def test_patch_takes_a_control_that_is_given_or_none(tmp_path):
    original, counterfactual, control = (
        f"The door is {words}open. So the door is [MASK]." for words in ("", "not ", "now ")
    )
    arguments = ("patch", original, counterfactual, "--target", "open", "--foil", "closed", "--out", tmp_path)
    bases = {}
    for options in (("--control", control), ("--no-control",)):
        result = run(*arguments, *options)
        assert result.exit_code == 0, result.output
        table = pd.read_csv(tmp_path / "patching.csv").query("direction == 'noising'")
        bases[options[0]] = (set(table["base_run"]), table["base"].iloc[0])
    assert bases["--control"][0] == {"control"} and bases["--no-control"][0] == {"original"}
    model = HookedEncoder.from_pretrained("tiny-negation", device="cpu")
    for option, text in (("--control", control), ("--no-control", original)):
        tokens, _, _ = model.to_tokens(text)
        logits = model(text)[0, tokens[0] == model.tokenizer.mask_token_id][0]
        open_, closed = model.tokenizer.convert_tokens_to_ids(["open", "closed"])
        assert bases[option][1] == pytest.approx((logits[open_] - logits[closed]).item(), abs=1e-4)
    refused = run(*arguments, "--control", "The door is open. So the door is [MASK].")
    assert refused.exit_code == 1
    assert "This control cannot be used: the control has" in " ".join(refused.output.split())
    assert run(*arguments, "--control", control, "--no-control").exit_code == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["study", "./no-such-folder"], "no model folder"),
        (["study", "--pairs", "no-such-file.csv"], "no-such-file.csv"),
        (["compare", "The door is open.", " "], "empty"),
        (["compare", "a " * 100, "b"], "at most 64"),
        (["patch", "It is [MASK].", "It is not [MASK]."], "has no target or foil"),
        (["patch", "It is.", "It is not.", "--target", "open", "--foil", "closed"], "0 mask tokens"),
    ],
)
def test_a_wrong_input_is_one_line_and_exit_code_1(arguments, message, tmp_path):
    result = run(*arguments, "--out", tmp_path)
    assert result.exit_code == 1
    assert message in " ".join(result.output.split())
    assert "Traceback" not in result.output


@pytest.mark.slow
@pytest.mark.usefixtures("without_figures")
def test_study_takes_several_data_sets_and_says_what_replicates(tmp_path):
    states = ("open", "closed", "clean", "dirty", "wide", "narrow", "old", "new", "heavy", "light")
    lines = [{"original": f"The door is {w}.", "counterfactual": f"The door is not {w}."} for w in states]
    file = tmp_path / "doors.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    result = run(
        "study", "--pairs", "builtin", "--pairs", file, "--limit", 20, "--patch-pairs", 2, "--out", tmp_path / "out"
    )
    assert result.exit_code == 0, result.output
    said = " ".join(result.output.split())
    assert "Tested separately in each of 2 data sets" in said
    assert "Of 20 pairs, 2 were patched" in said
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert manifest["data"]["source"] == f"the built-in pairs and {file}"


def test_report_compares_two_studies(two_studies, tmp_path, monkeypatch):
    # Tests of the page see its figures.
    monkeypatch.setattr(report_comparison, "comparison_pictures", lambda compared: {})
    result = run("report", *two_studies, "--out", tmp_path / "new" / "ab.html")
    assert result.exit_code == 0, result.output
    page = (tmp_path / "new" / "ab.html").read_text(encoding="utf-8")
    assert "B − A" in page and "This comparison: command, seed and versions" in page
    assert "A gives the right answer both without and with the negation" in " ".join(result.output.split())
    failed = run("report", two_studies[0], tmp_path / "new", "--out", tmp_path / "other.html")
    assert failed.exit_code == 1
    assert "is not the folder of a study" in " ".join(failed.output.split())


def test_report_of_one_folder_given_twice_is_an_error(two_studies, tmp_path):
    again = two_studies[0] / ".." / two_studies[0].name
    result = run("report", two_studies[0], again, "--out", tmp_path / "ab.html")
    assert result.exit_code == 1
    assert "are the same folder; give the folders of two studies" in " ".join(result.output.split())
    assert not (tmp_path / "ab.html").exists()


@pytest.mark.slow
def test_figures_are_written_as_pdf_only_on_request_and_nothing_is_measured_again(tmp_path, monkeypatch):
    # One figure stands for all.
    monkeypatch.setattr("negprobe.views.report.write.study_figures", lambda results: {"metrics": Figure()})
    monkeypatch.setattr("negprobe.views.report.write.study_report", lambda results, figures, manifest: "")
    arguments = ["study", "--limit", 2, "--patch-pairs", 0, "--out", tmp_path]
    assert run(*arguments).exit_code == 0
    assert [path.name for path in (tmp_path / "figures").iterdir()] == ["metrics.png"]
    shards = {path: path.stat().st_mtime_ns for path in (tmp_path / "shards").rglob("*.parquet")}
    assert run(*arguments, "--figures", "pdf", "--figures", "svg").exit_code == 0
    names = sorted(path.name for path in (tmp_path / "figures").iterdir())
    assert names == ["metrics.pdf", "metrics.png", "metrics.svg"]
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "shards").rglob("*.parquet")} == shards
    assert run(*arguments, "--figures", "gif").exit_code == 2


def test_a_study_is_resumed_with_the_threads_it_began_with(tmp_path, monkeypatch):
    def stop(*args, **options):
        raise NegprobeError(f"{torch.get_num_threads()} threads")

    monkeypatch.setattr("negprobe.study.run_study", stop)
    before = torch.get_num_threads()
    arguments = ["study", "--limit", 2, "--out", tmp_path]
    assert f"{before} threads" in run(*arguments).output
    fingerprint = json.loads((tmp_path / "study.json").read_text(encoding="utf-8"))
    (tmp_path / "study.json").write_text(json.dumps(fingerprint | {"threads": before + 2}), encoding="utf-8")
    assert f"{before + 2} threads" in run(*arguments).output
    assert torch.get_num_threads() == before


@pytest.mark.slow
@pytest.mark.usefixtures("without_figures")
def test_a_study_that_was_made_is_gone_on_with_and_another_is_refused(tmp_path):
    arguments = ["study", "--limit", 6, "--patch-pairs", 2, "--out", tmp_path]
    assert run(*arguments).exit_code == 0
    shards = {path: path.stat().st_mtime_ns for path in (tmp_path / "shards").rglob("*.parquet")}
    tables = {path: path.read_bytes() for path in tmp_path.glob("*.parquet")}
    assert run(*arguments).exit_code == 0
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "shards").rglob("*.parquet")} == shards
    assert {path: path.read_bytes() for path in tmp_path.glob("*.parquet")} == tables
    refused = run(*arguments, "--seed", 5)
    assert refused.exit_code == 1
    assert "holds another study (seed: 0 in the folder, 5 now)" in " ".join(refused.output.split())
    assert {path: path.read_bytes() for path in tmp_path.glob("*.parquet")} == tables


@pytest.fixture
def cue_file(tmp_path):
    path = tmp_path / "cues.toml"
    path.write_text('[cues.function]\nanything-but = ["anything but"]\n', encoding="utf-8")
    return path


def test_cues_of_a_file_are_found_in_one_command_and_not_in_the_next(cue_file, tmp_path):
    pairs = tmp_path / "pairs.csv"
    pairs.write_text(
        "original,counterfactual,target,foil\n"
        "The open door is [MASK].,The anything but open door is [MASK].,open,closed\n"
    )
    with_cues = run("evaluate", pairs, "--cues", cue_file)
    assert with_cues.exit_code == 0, with_cues.output
    without = run("evaluate", pairs)
    assert without.exit_code == 1
    assert "has no negation that the original lacks" in " ".join(without.output.split())


@pytest.mark.parametrize(
    "command", [["study"], ["compare", "a", "b"], ["view"], ["patch"], ["find-circuit"], ["evaluate", "builtin"]]
)
def test_a_bad_file_of_cues_is_one_line_before_anything_is_loaded(command, tmp_path):
    (tmp_path / "cues.toml").write_text("[cues.function]\nnay = ['never']")
    result = run(
        *command,
        "--cues",
        tmp_path / "cues.toml",
        "--model" if command[0] in ("compare", "view") else "--revision",
        "x",
    )
    assert result.exit_code == 1
    assert "'never' is a cue of the kinds 'never' (class 'function') and 'nay'" in " ".join(result.output.split())


@pytest.mark.slow
@pytest.mark.usefixtures("without_figures")
def test_a_study_is_not_resumed_with_other_cues(cue_file, tmp_path):
    pairs = tmp_path / "pairs.csv"
    pairs.write_text("original,counterfactual\nThe open door.,The anything but open door.\n")
    out = tmp_path / "study"
    arguments = ["study", "--pairs", pairs, "--out", out, "--patch-pairs", 0, "--circuit-pairs", 0]
    result = run(*arguments, "--cues", cue_file)
    assert result.exit_code == 0, result.output
    assert pd.read_parquet(out / "pairs.parquet")["cue"].tolist() == ["anything-but"]
    assert run(*arguments, "--cues", cue_file).exit_code == 0
    refused = run(*arguments)
    assert refused.exit_code == 1
    assert "holds another study (cues: " in " ".join(refused.output.split())


def test_doctor_says_what_it_runs_on_and_asks_no_network_where_it_is_told_not_to():
    result = run("doctor")
    assert result.exit_code == 0, result.output
    said = " ".join(result.output.split())
    assert "correct on 28 of 28 pairs" in said and "HF_HUB_OFFLINE is set" in said


def test_help_and_import_do_not_wait_for_torch():
    for module in ("negprobe", "negprobe.cli"):
        code = f"import sys, {module}; print('torch' in sys.modules, 'pandas' in sys.modules)"
        ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert ended.stdout.split() == ["False", "False"]


@pytest.mark.parametrize("command", ["study", "compare", "view", "pairs", "patch", "find-circuit", "evaluate"])
def test_each_command_takes_a_prompt(command):
    """A word that is no prompt's name is refused when the model is loaded."""
    texts = {"compare": ["a", "not a"], "patch": ["a", "not a"], "evaluate": ["builtin"]}.get(command, [])
    result = run(command, *texts, "--prompt", "query")
    assert result.exit_code == 1
    assert "Error: 'tiny-negation' has no prompt named 'query'" in " ".join(result.output.split())


def test_a_prompt_without_a_model_is_refused(tmp_path):
    (tmp_path / "words.csv").write_text("['open']\n")
    result = run("evaluate", "builtin", "--predictions", tmp_path / "words.csv", "--prompt", "it is: ")
    assert result.exit_code == 1 and "--prompt applies only to --model" in result.output


@pytest.mark.slow
@pytest.mark.usefixtures("without_figures")
def test_a_study_records_its_prompt_and_is_not_resumed_with_another(tmp_path):
    arguments = ["study", "--limit", 3, "--out", tmp_path, "--patch-pairs", 1, "--circuit-pairs", 0]
    result = run(*arguments, "--prompt", "the door is not: ")
    assert result.exit_code == 0, result.output
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    assert manifest["model"]["prompt"] == "the door is not: "
    assert "The model's prompt, 'the door is not: ', was put before each statement." in manifest["data"]["notes"]
    assert run(*arguments, "--prompt", "the door is not: ").exit_code == 0
    refused = run(*arguments)
    assert refused.exit_code == 1
    said = " ".join(refused.output.split())
    assert "holds another study (prompt: 'the door is not: ' in the folder, none now)" in said
