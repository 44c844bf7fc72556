"""The scripts for cluster jobs run, and write what they say."""

import io
import runpy
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from unittest import mock

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from negprobe import AttentionProbe, HookedEncoder, builtin_pairs, mean_effect, patch_sweep
from negprobe.attention import METRICS
from negprobe.patching import Circuit, agreement, attribute, find_circuit
from negprobe.statements import complete, from_control
from tests.support import ROOT

SCRIPTS = ROOT / "scripts"


def run(script, *arguments):
    """Run a script here, as Python would, which saves it the seconds of its imports."""
    said, errors = io.StringIO(), io.StringIO()
    argv = [str(SCRIPTS / script), *map(str, arguments)]
    with (
        mock.patch.object(sys, "argv", argv),
        mock.patch.object(sys, "path", [str(SCRIPTS), *sys.path]),
        redirect_stdout(said),
        redirect_stderr(errors),
        pytest.raises(SystemExit) as ended,
    ):
        runpy.run_path(argv[0], run_name="__main__")
    code = ended.value.code or 0
    if isinstance(code, str):
        errors.write(code)
        code = 1
    return subprocess.CompletedProcess(argv, code, said.getvalue(), errors.getvalue())


def test_patch_negation_saves_what_patch_sweep_returns(tmp_path):
    done = run("patch_negation.py", "tiny-negation", "--limit", 3, "--out", tmp_path)
    assert done.returncode == 0, done.stderr
    assert len(list(tmp_path.glob("*.nc"))) == 8
    saved = xr.open_dataset(tmp_path / "z-head-role-swap-denoising.nc")
    model = HookedEncoder.from_pretrained("tiny-negation", device="cpu")
    expected = patch_sweep(model, builtin_pairs()[:3], "z", by=("head", "role"), direction="denoising")
    np.testing.assert_allclose(saved["patched"], expected["patched"], atol=3e-5)
    table = pd.read_parquet(tmp_path / "averages.parquet").query("site == 'z' and direction == 'denoising'")
    rows = table.query("layer == 2 and role == 'mask'")["effect"]
    np.testing.assert_allclose(rows, mean_effect(expected).sel(layer=2, role="mask"), atol=3e-5)


def test_patch_negation_knocks_the_cue_out_between_counterfactual_and_control(tmp_path):
    asked = ("--site", "attn_scores", "--by", "head", "--how", "knock_out", "--keys", "cue", "--direction", "denoising")
    done = run("patch_negation.py", "--limit", 2, "--control", *asked, "--out", tmp_path)
    assert done.returncode == 0, done.stderr
    model = HookedEncoder.from_pretrained("tiny-negation", device="cpu")
    pairs = [from_control(complete(pair, model.tokenizer)) for pair in builtin_pairs()[:2]]
    expected = patch_sweep(model, pairs, "attn_scores", by="head", how="knock_out", keys="cue", direction="denoising")
    saved = xr.open_dataset(tmp_path / "attn_scores-head-knock_out-denoising.nc")
    np.testing.assert_allclose(saved["patched"], expected["patched"], atol=3e-5)


def test_compare_pairs_saves_what_the_probe_measures(tmp_path):
    tmp_path /= "out[/x]y\x1b[31m"
    done = run("compare_pairs.py", "--limit", 3, "--out", tmp_path)
    assert done.returncode == 0, done.stderr
    assert r"out[/x]y\x1b[31m" in "".join(done.stdout.split())
    probe = AttentionProbe(HookedEncoder.from_pretrained("tiny-negation", device="cpu"))
    expected = probe.metrics(builtin_pairs()[:3])
    table = pd.read_parquet(tmp_path / "metrics.parquet").set_index(["pair", "compared", "layer", "head"])
    for name in METRICS:
        found = table[name].to_xarray().reindex_like(expected[name])
        np.testing.assert_allclose(found, expected[name], atol=3e-5, err_msg=name)
    assert {path.stem for path in tmp_path.glob("*.parquet")} == {"metrics", "metrics_by_role", "distances"}


@pytest.mark.slow
@pytest.mark.usefixtures("without_figures")
def test_study_runs_as_a_script(tmp_path):
    done = run("study.py", "--limit", 2, "--out", tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "report.html").exists()


@pytest.mark.slow
def test_a_wrong_model_is_one_line(tmp_path):
    command = [sys.executable, SCRIPTS / "patch_negation.py", "./no-such-folder", "--out", tmp_path]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("Error: There is no model folder")


def test_a_later_sweep_that_cannot_be_is_told_before_the_model_is_loaded(tmp_path):
    done = run("patch_negation.py", "./no-such-folder", "--site", "z", "--site", "y", "--out", tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith("Error: There is no site 'y'; choose one of")
    done = run("compare_attribution.py", "./no-such-folder", "--site", "y")
    assert done.returncode == 1
    assert done.stderr.startswith("Error: There is no site 'y'; choose one of")


def test_compare_attribution_prints_the_agreement_of_both_estimates(tmp_path):
    out = tmp_path / "new folder" / "worst.csv"
    done = run("compare_attribution.py", "--limit", 2, "--site", "z", "--steps", 2, "--out", out)
    assert done.returncode == 0, done.stderr
    model = HookedEncoder.from_pretrained("tiny-negation", device="cpu")
    pairs = [from_control(complete(pair, model.tokenizer)) for pair in builtin_pairs()[:2]]
    exact = patch_sweep(model, pairs, "z", by=("head", "role"), direction="noising")
    estimate = attribute(model, pairs, sites=["z"], by=("head", "role"), direction="noising", steps=2)["z"]
    assert f"{agreement(exact, estimate).spearman:.3f}" in done.stdout
    worst = pd.read_csv(out)
    assert set(worst["method"]) == {"gradient", "integrated, 2"}
    assert set(worst["direction"]) == {"noising", "denoising"}


@pytest.mark.slow
def test_find_circuit_saves_what_find_circuit_returns(tmp_path):
    done = run("find_circuit.py", "--sample", 12, "--threshold", 0.8, "--out", tmp_path)
    assert done.returncode == 0, done.stderr
    model = HookedEncoder.from_pretrained("tiny-negation", device="cpu")
    drawn = sorted(np.random.default_rng(0).permutation(len(builtin_pairs()))[:12])
    pairs = [from_control(complete(builtin_pairs()[index], model.tokenizer)) for index in drawn]
    expected = find_circuit(model, pairs, ablation="mean", direction="denoising", threshold=0.8)
    assert Circuit.load(tmp_path / "circuit.json").components == expected.components
    assert f"faithfulness {expected.faithfulness:.2f}" in done.stdout.replace("\n", " ")
    assert {path.name for path in tmp_path.glob("*.png")} == {"circuit.png", "faithfulness.png"}


@pytest.mark.parametrize(
    "script", ["compare_pairs.py", "patch_negation.py", "find_circuit.py", "compare_attribution.py"]
)
def test_scripts_print_names_literally(script, tmp_path):
    out = tmp_path / "out[/x]\x1b[31m"
    done = run(script, "--pairs", "p[/x]\x1b[31m", "--out", out)
    assert done.returncode == 1
    assert r"p[/x]\x1b[31m" in done.stderr and "\x1b" not in done.stdout + done.stderr
    assert done.stderr.startswith("Error: ") and done.stderr.count("\n") == 1
