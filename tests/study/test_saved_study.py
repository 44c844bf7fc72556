"""Reading the folder of a study returns what was written, and an error names what is wrong with the folder."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from negprobe import AttentionProbe, HookedEncoder, builtin_pairs
from negprobe.attention import METRICS
from negprobe.base.errors import NegprobeError
from negprobe.patching import mean_effect
from negprobe.statistics import effect_tests, negation_effects
from negprobe.study.comparison import compare_studies
from negprobe.study.formats import FORMAT
from negprobe.study.saved import metrics_dataset, read_study, sweep


def test_tables_are_those_that_were_written(two_studies: tuple[Path, Path]) -> None:
    study = read_study(two_studies[0])
    assert study.shape == (4, 4) and study.head == "masked_lm" and study.seed == 3
    assert study.circuit is None
    for name in ("pairs", "answers", "metrics", "patching", "knock_out_sets"):
        pd.testing.assert_frame_equal(getattr(study, name), pd.read_parquet(two_studies[0] / f"{name}.parquet"))


def test_metrics_and_their_tests_are_the_studys_own(two_studies: tuple[Path, Path]) -> None:
    study = read_study(two_studies[0])
    pairs = study.pairs["pair"].tolist()
    found = metrics_dataset(study, pairs)
    model = HookedEncoder.from_pretrained("tiny-negation", device="cpu")
    measured = AttentionProbe(model).metrics(builtin_pairs()[::28])
    assert found.attrs["rounding"] == measured.attrs["rounding"]
    for name in METRICS:
        expected = measured[name].transpose(*found[name].dims)
        np.testing.assert_allclose(found[name], expected, rtol=1e-4, atol=1e-5)
    with xr.open_dataset(two_studies[0] / "negation_effects.nc", engine="scipy") as tests:
        again = effect_tests(negation_effects(found), seed=study.seed)
        for name in ("effect", "low", "p", "p_max_t"):
            np.testing.assert_allclose(again[name], tests[name], rtol=1e-6)


def test_a_sweep_is_put_together_again(two_studies: tuple[Path, Path]) -> None:
    study = read_study(two_studies[0])
    rows = study.patching.query("site == 'z' and direction == 'noising'").rename(columns={"part": "head"})
    pairs = rows["pair"].unique().tolist()
    found = mean_effect(sweep(rows, pairs, {"layer": range(4), "head": [str(head) for head in range(4)]}))
    for (layer, head), cell in rows.groupby(["layer", "head"]):
        gap = cell["source"] - cell["base"]
        expected = ((cell["patched"] - cell["base"]) * np.sign(gap)).sum() / gap.abs().sum()
        assert float(found.sel(layer=layer, head=head)) == pytest.approx(expected)


def without(name: str):
    return lambda folder: (folder / name).unlink()


def shortened(name: str):
    def spoil(folder: Path) -> None:
        (folder / name).write_bytes((folder / name).read_bytes()[:-40])

    return spoil


def with_table(name: str, change):
    def spoil(folder: Path) -> None:
        path = folder / f"{name}.parquet"
        change(pd.read_parquet(path)).to_parquet(path, index=False)

    return spoil


def with_manifest(change):
    def spoil(folder: Path) -> None:
        path = folder / "manifest.json"
        manifest = json.loads(path.read_text(encoding="utf-8"))
        change(manifest)
        path.write_text(json.dumps(manifest), encoding="utf-8")

    return spoil


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (without("manifest.json"), "is not the folder of a study: it has no manifest.json"),
        (without("metrics.parquet"), "is missing the table metrics.parquet"),
        (without("patching.parquet"), "is missing the table patching.parquet"),
        (shortened("metrics.parquet"), "metrics.parquet is damaged"),
        (shortened("manifest.json"), "manifest.json is damaged: it is not a study's manifest"),
        (with_manifest(lambda manifest: manifest["model"].pop("layers")), "its model has no layers"),
        (
            with_manifest(lambda manifest: manifest.update(format=1 + FORMAT)),
            f"has format version {1 + FORMAT}, .* Upgrade negprobe",
        ),
        (with_manifest(lambda manifest: manifest.update(seed="none")), "not all whole numbers"),
        (with_manifest(lambda manifest: manifest["model"].update(dtype="float7")), "an unknown dtype"),
        (with_manifest(lambda manifest: manifest["data"].update(pairs=99)), "it has 10 pairs and manifest.json 99"),
        (with_table("answers", lambda table: table.drop(columns="control")), "it is missing columns control"),
        (
            with_table("metrics", lambda table: table.drop(columns="js_divergence")),
            "it is missing columns js_divergence",
        ),
        (with_table("answers", lambda table: table.assign(original="high")), "column original is not numeric"),
        (with_table("answers", lambda table: pd.concat([table, table])), "two of its rows have the same pair"),
        (
            with_table("answers", lambda table: table.assign(pair=table["pair"] + 50)),
            "pairs that are not in pairs.parquet",
        ),
        (
            with_table("metrics", lambda table: table.assign(layer=table["layer"] + 4)),
            "other layers than the model's 4",
        ),
    ],
)
def test_what_is_wrong_with_a_folder_is_named(two_studies: tuple[Path, Path], tmp_path: Path, spoil, message) -> None:
    folder = shutil.copytree(two_studies[0], tmp_path / "copy", ignore=shutil.ignore_patterns("figures", "*.html"))
    spoil(folder)
    with pytest.raises(NegprobeError, match=message):
        read_study(folder)


def test_a_study_written_before_formats_had_versions_is_read(two_studies: tuple[Path, Path], tmp_path: Path) -> None:
    shutil.copytree(two_studies[0], tmp_path / "old")
    with_manifest(lambda manifest: manifest.pop("format"))(tmp_path / "old")
    assert read_study(tmp_path / "old").patching.equals(read_study(two_studies[0]).patching)


def test_the_pairs_of_a_study_without_clusters_stand_alone(two_studies: tuple[Path, Path], tmp_path: Path) -> None:
    study = read_study(two_studies[0])
    clusters = [pair.cluster for pair in builtin_pairs()[::28]]
    assert study.pairs["cluster"].tolist() == clusters and all(clusters)
    numbers = study.pairs["pair"].tolist()
    assert metrics_dataset(study, numbers[::-1])["cluster"].values.tolist() == clusters[::-1]
    folder = shutil.copytree(two_studies[0], tmp_path / "old")
    with_manifest(lambda manifest: manifest.update(format=2))(folder)
    with_table("pairs", lambda table: table.drop(columns="cluster"))(folder)
    old = read_study(folder)
    assert set(old.pairs["cluster"]) == {""}
    assert set(metrics_dataset(old, numbers)["cluster"].values) == {""}


def test_a_metric_that_is_newer_than_a_study_is_undefined_in_it(two_studies: tuple[Path, Path], tmp_path: Path) -> None:
    folder = shutil.copytree(two_studies[0], tmp_path / "old")
    with_manifest(lambda manifest: manifest.update(format=1))(folder)
    with_table("metrics", lambda table: table.drop(columns="js_divergence"))(folder)
    old = read_study(folder)
    assert old.metrics["js_divergence"].isna().all()
    effect = compare_studies(old, read_study(two_studies[1])).change["effect"]
    assert effect.sel(metric="js_divergence").isnull().all() and effect.notnull().any()
