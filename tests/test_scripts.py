"""The scripts for cluster jobs run, and write what they say."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr

from negprobe import AttentionProbe, HookedEncoder, builtin_pairs, mean_effect, patch_sweep
from negprobe.attention import METRICS
from negprobe.statements import complete, from_control

SCRIPTS = Path(__file__).parents[1] / "scripts"


def run(script, *arguments):
    command = [sys.executable, str(SCRIPTS / script), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


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
    done = run("compare_pairs.py", "--limit", 3, "--out", tmp_path)
    assert done.returncode == 0, done.stderr
    probe = AttentionProbe(HookedEncoder.from_pretrained("tiny-negation", device="cpu"))
    expected = probe.metrics(builtin_pairs()[:3])
    table = pd.read_parquet(tmp_path / "metrics.parquet").set_index(["pair", "compared", "layer", "head"])
    for name in METRICS:
        found = table[name].to_xarray().reindex_like(expected[name])
        np.testing.assert_allclose(found, expected[name], atol=3e-5, err_msg=name)
    assert {path.stem for path in tmp_path.glob("*.parquet")} == {"metrics", "metrics_by_role", "distances"}


def test_study_runs_as_a_script(tmp_path):
    done = run("study.py", "--limit", 2, "--out", tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "report.html").exists()


def test_a_wrong_model_is_one_line(tmp_path):
    done = run("patch_negation.py", "./no-such-folder", "--out", tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith("Error: There is no model folder")
