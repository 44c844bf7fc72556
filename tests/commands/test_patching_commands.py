"""The commands `patch` on data sets and `find-circuit` write what the library returns, and refuse wrong options."""

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from negprobe import HookedEncoder, StatementPair, builtin_pairs, effect, mean_effect, patch_sweep
from negprobe.cli import _Ablation, _Direction, _How, _Ranking, app
from negprobe.patching import (
    DIRECTIONS,
    Circuit,
    How,
    agreement,
    attribute,
    find_circuit,
    patchable_pairs,
    read_results,
)
from negprobe.patching.circuit_search import RANKINGS
from negprobe.patching.component_sets import ABLATIONS
from negprobe.statements import complete, from_control


def run(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture
def model():
    """The bundled model."""
    return HookedEncoder.from_pretrained("tiny-negation", device="cpu")


def controlled(model, pairs):
    return [from_control(complete(pair, model.tokenizer)) for pair in pairs]


def test_the_choices_of_options_are_those_of_the_library():
    for choices, known in (
        (_Ablation, ABLATIONS),
        (_Direction, DIRECTIONS),
        (_How, How.__args__),
        (_Ranking, RANKINGS),
    ):
        assert {choice.value for choice in choices} == set(known)


def test_patch_of_data_sets_saves_what_patch_sweep_returns(model, tmp_path):
    result = run("patch", "--pairs", "builtin", "--limit", 3, "--no-control", "--out", tmp_path)
    assert result.exit_code == 0, result.output
    assert len(list(tmp_path.glob("*.nc"))) == 8
    # A sweep by head and role has no map.
    assert len(list(tmp_path.glob("*.png"))) == 6
    saved = read_results(tmp_path / "z-head-role-swap-denoising.nc")
    expected = patch_sweep(model, builtin_pairs()[:3], "z", by=("head", "role"), direction="denoising")
    np.testing.assert_allclose(saved["patched"], expected["patched"], atol=3e-5)
    table = pd.read_parquet(tmp_path / "averages.parquet").query("site == 'z' and direction == 'denoising'")
    rows = table.query("layer == 2 and role == 'mask'")["effect"]
    np.testing.assert_allclose(rows, mean_effect(expected).sel(layer=2, role="mask"), atol=3e-5)


def test_patch_knocks_the_cue_out_between_counterfactual_and_control(model, tmp_path):
    options = ("--site", "attn_scores", "--by", "head", "--how", "knock_out", "--keys", "cue")
    result = run("patch", "--limit", 2, *options, "--direction", "denoising", "--out", tmp_path)
    assert result.exit_code == 0, result.output
    pairs = controlled(model, builtin_pairs()[:2])
    expected = patch_sweep(model, pairs, "attn_scores", by="head", how="knock_out", keys="cue", direction="denoising")
    saved = read_results(tmp_path / "attn_scores-head-knock_out-denoising.nc")
    np.testing.assert_allclose(saved["patched"], expected["patched"], atol=3e-5)
    assert set(saved["source_run"].values) == {"control"}


def test_patch_numbers_pairs_as_in_the_file_and_prints_why_others_are_left_out(tmp_path):
    pairs = tmp_path / "pairs.csv"
    pairs.write_text(
        "original,counterfactual,target,foil\nIt is [MASK].,It is not [MASK].,,\n"
        "The door is open. So the door is [MASK].,The door is not open. So the door is [MASK].,open,closed\n"
    )
    options = ("--site", "resid_pre", "--direction", "noising")
    result = run("patch", "--pairs", pairs, *options, "--out", tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert read_results(tmp_path / "out" / "resid_pre-role-swap-noising.nc")["pair"].values.tolist() == [1]
    assert "left out input pair 0: the pair has no target or foil" in " ".join(result.output.split())
    assert "1 sweeps of 1 pairs" in result.output


def test_patch_compares_estimates_with_exact_effects(model, tmp_path):
    options = ("--site", "z", "--by", "head", "--direction", "noising", "--attribution", "--steps", 2)
    result = run("patch", "--limit", 2, *options, "--out", tmp_path)
    assert result.exit_code == 0, result.output
    pairs = controlled(model, builtin_pairs()[:2])
    exact = patch_sweep(model, pairs, "z", by="head")
    for steps in (None, 2):
        estimate = attribute(model, pairs, sites=["z"], by="head", steps=steps)["z"]
        assert f"{agreement(exact, estimate).spearman:.3f}" in result.output
    worst = pd.read_csv(tmp_path / "largest_differences.csv")
    assert set(worst["method"]) == {"gradient", "integrated, 2"}


def test_patch_of_one_pair_takes_the_options_of_a_sweep(model, tmp_path):
    texts = [f"The door is {words}open. So the door is [MASK]." for words in ("", "not ")]
    options = ("--site", "z", "--by", "head,role", "--direction", "denoising", "--how", "zero")
    result = run("patch", *texts, "--target", "open", "--foil", "closed", *options, "--no-control", "--out", tmp_path)
    assert result.exit_code == 0, result.output
    pair = StatementPair(*texts, "open", "closed")
    expected = effect(patch_sweep(model, pair, "z", by=("head", "role"), direction="denoising", how="zero"))
    table = pd.read_csv(tmp_path / "patching.csv")
    cell = table.query("layer == 2 and part == '1,mask'").iloc[0]
    found = (cell["patched"] - cell["base"]) / (cell["source"] - cell["base"])
    assert found == pytest.approx(expected.sel(layer=2, head=1, role="mask").item(), abs=1e-4)
    assert not list(tmp_path.glob("*.png"))


def test_find_circuit_saves_what_find_circuit_returns(model, tmp_path):
    result = run("find-circuit", "--sample", 12, "--threshold", 0.8, "--out", tmp_path)
    assert result.exit_code == 0, result.output
    drawn = patchable_pairs(model, builtin_pairs()).sample(12)
    expected = find_circuit(model, list(drawn.swaps.values()), ablation="mean", direction="denoising", threshold=0.8)
    assert Circuit.load(tmp_path / "circuit.json").components == expected.components
    assert f"faithfulness {expected.faithfulness:.2f}" in result.output
    assert {path.name for path in tmp_path.glob("*.png")} == {"circuit.png", "faithfulness.png"}


def test_find_circuit_takes_the_options_of_the_search(tmp_path):
    options = ("--ranking", "attribution", "--ablation", "swap", "--direction", "noising", "--effort", "thorough")
    options += ("--objective", "target_probability", "--seed", 2, "--no-control", "--limit", 8)
    result = run("find-circuit", *options, "--out", tmp_path)
    assert result.exit_code == 0, result.output
    circuit = Circuit.load(tmp_path / "circuit.json")
    assert (circuit.ranking, circuit.ablation, circuit.direction) == ("attribution", "swap", "noising")
    assert (circuit.effort, circuit.objective, circuit.seed) == ("thorough", "target_probability", 2)
    assert circuit.base_run == "original" and circuit.n_search + circuit.n_held_out <= 8


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["patch", "--site", "z", "--site", "y", "--model", "./no-such-folder"], "There is no site 'y'; choose one of"),
        (["patch", "--keys", "cue", "--model", "./no-such-folder"], "has no keys"),
        (["patch", "It is open."], "Give both statements of a pair"),
        (["patch", "It is open.", "It is not open.", "--limit", 3], "leave out the two statements"),
        (["patch", "--target", "open"], "give its two statements"),
        (["patch", "--how", "zero", "--attribution", "--limit", 2], "Gradients estimate only plain swaps"),
        (["patch", "--model", "./no-such-folder"], "There is no model folder"),
        (["find-circuit", "./no-such-folder", "--threshold", 2], "above 0 and at most 1"),
        (["find-circuit", "./no-such-folder"], "There is no model folder"),
        (["find-circuit", "--limit", 1], "too few"),
    ],
)
def test_a_wrong_option_is_one_line_and_exit_code_1(arguments, message, tmp_path):
    result = run(*arguments, "--out", tmp_path)
    assert result.exit_code == 1
    assert message in " ".join(result.output.split())
    assert "Traceback" not in result.output


def test_parts_that_do_not_exist_are_a_usage_error_that_lists_the_choices(tmp_path):
    result = run("patch", "--by", "word", "--out", tmp_path)
    assert result.exit_code == 2
    assert "head,position" in result.output


@pytest.mark.parametrize("command", ["patch", "find-circuit"])
def test_names_are_printed_literally(command, tmp_path):
    result = run(command, "--pairs", "p[/x]\x1b[31m", "--out", tmp_path / "out[/x]\x1b[31m")
    assert result.exit_code == 1
    assert r"p[/x]\x1b[31m" in result.output and "\x1b" not in result.output
