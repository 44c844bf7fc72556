"""The scripts for cluster jobs run, and write what the library returns."""

import io
import runpy
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from unittest import mock

import numpy as np
import pandas as pd
import pytest

from negprobe import AttentionProbe, HookedEncoder, builtin_pairs, patch_sweep
from negprobe.attention import METRICS
from negprobe.patching import Circuit, agreement, attribute, find_circuit, patchable_pairs, read_results
from negprobe.statements import to_dataframe
from tests.support import ROOT

SCRIPTS = ROOT / "scripts"
PAIRS = builtin_pairs()[::35]


def run(script, *arguments):
    """Run a script in this process, to save the seconds of its imports."""
    said, errors = io.StringIO(), io.StringIO()
    argv = [str(SCRIPTS / script), *map(str, arguments)]
    code = 0
    with (
        mock.patch.object(sys, "argv", argv),
        mock.patch.object(sys, "path", [str(SCRIPTS), *sys.path]),
        redirect_stdout(said),
        redirect_stderr(errors),
    ):
        try:
            runpy.run_path(argv[0], run_name="__main__")
        except SystemExit as ended:
            code = ended.code or 0
    return subprocess.CompletedProcess(argv, code, said.getvalue(), errors.getvalue())


@pytest.fixture
def pairs_file(tmp_path):
    """A file of eight pairs."""
    to_dataframe(PAIRS).to_csv(tmp_path / "pairs.csv", index=False)
    return tmp_path / "pairs.csv"


@pytest.fixture
def model():
    """The bundled model."""
    return HookedEncoder.from_pretrained("tiny-negation", device="cpu")


def test_patch_negation_saves_what_patch_sweep_returns(model, pairs_file, tmp_path):
    run("patch_negation.py", "tiny-negation", pairs_file, tmp_path / "out")
    saved = read_results(tmp_path / "out" / "z-head-role-swap-denoising.nc")
    swaps = list(patchable_pairs(model, PAIRS).swaps.values())
    expected = patch_sweep(model, swaps, "z", by=("head", "role"), direction="denoising")
    np.testing.assert_allclose(saved["patched"], expected["patched"], atol=3e-5)
    assert set(pd.read_parquet(tmp_path / "out" / "averages.parquet")["site"]) == {"z", "resid_pre"}


def test_compare_pairs_saves_what_the_probe_measures(model, pairs_file, tmp_path):
    run("compare_pairs.py", "tiny-negation", pairs_file, tmp_path / "out")
    expected = AttentionProbe(model).metrics(PAIRS)
    table = pd.read_parquet(tmp_path / "out" / "metrics.parquet").set_index(["pair", "compared", "layer", "head"])
    for name in METRICS:
        found = table[name].to_xarray().reindex_like(expected[name])
        np.testing.assert_allclose(found, expected[name], atol=3e-5, err_msg=name)
    names = {path.stem for path in (tmp_path / "out").glob("*.parquet")}
    assert names == {"metrics", "metrics_by_role", "distances"}


def test_compare_attribution_prints_the_agreement_of_both_estimates(model, pairs_file, tmp_path):
    done = run("compare_attribution.py", "tiny-negation", pairs_file, tmp_path / "out")
    swaps = list(patchable_pairs(model, PAIRS).swaps.values())
    exact = patch_sweep(model, swaps, "z", by=("head", "role"), direction="noising")
    for steps in (None, 8):
        estimate = attribute(model, swaps, sites=["z"], by=("head", "role"), direction="noising", steps=steps)["z"]
        assert f"{agreement(exact, estimate).spearman:.4f}" in done.stdout
    worst = pd.read_csv(tmp_path / "out" / "z-head-role-swap-noising.csv")
    assert set(worst["method"]) == {"gradient", "integrated, 8"}


def test_find_circuit_saves_what_find_circuit_returns(model, pairs_file, tmp_path):
    done = run("find_circuit.py", "tiny-negation", pairs_file, tmp_path / "out")
    swaps = list(patchable_pairs(model, PAIRS).swaps.values())
    expected = find_circuit(model, swaps, ablation="mean", direction="denoising")
    assert Circuit.load(tmp_path / "out" / "circuit.json").components == expected.components
    assert str(expected) in done.stdout and "searching the circuit: 100 of 100" in done.stdout
    assert (tmp_path / "out" / "circuit.png").exists()


@pytest.mark.slow
@pytest.mark.usefixtures("without_figures")
def test_study_runs_as_a_script(tmp_path):
    done = run("study.py", "--limit", 2, "--out", tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "report.html").exists()
