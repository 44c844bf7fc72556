"""Whatever a file holds, what reads it gives what is usable or one clear error, and does not wait."""

import csv
import io
import json
import os
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from negprobe import HookedEncoder, NegprobeError, builtin_pairs
from negprobe.behaviour import read_predictions, scored_sets
from negprobe.patching import Circuit, find_circuit
from negprobe.statements import load_pairs
from negprobe.statements.readers import blimp, neg136, nli, queries
from negprobe.statements.readers.records import SUFFIXES
from negprobe.study.saved import read_study
from negprobe.study.shards import open_shards, write_shard

PLAIN = ("original", "counterfactual", "target", "foil", "control", "cue", "category", "cue_start", "cue_end")
HEADERS = [PLAIN, PLAIN[:2], ("text",)] + [
    tuple(sorted(columns))
    for columns in (
        *(blimp.COLUMNS, neg136.COLUMNS, nli.MONLI_COLUMNS, nli.SCONE_COLUMNS | {"gold_label"}),
        queries.COLUMNS | {"counterfactual_query", "other_document"},
    )
]
GOOD = ("The door is open.", "The door is not open.")
CELLS = st.lists(
    st.sampled_from(["The door is", "not", "[MASK]", "[SEP]", "(a|an)", "neutral", '"', ",", "\n", "\0", "\ud800"])
    | st.text(max_size=3),
    max_size=4,
).map(" ".join)  # fmt: skip
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | CELLS,
    lambda inside: st.lists(inside, max_size=3) | st.dictionaries(CELLS, inside, max_size=3),
    max_leaves=5,
)
ENCODINGS = st.sampled_from(["utf-8", "utf-8-sig", "latin-1", "utf-16", "utf-7"])

fuzzed = settings(max_examples=50, suppress_health_check=list(HealthCheck))


def attempt(function: Callable[[], Any]) -> Any:
    """A result, or None and one error that can be read; any other exception is the test's failure."""
    try:
        return function()
    except NegprobeError as error:
        assert 20 < len(str(error)) < 2000, str(error)
        return None


def read_every_way(path: Path) -> None:
    attempt(lambda: load_pairs(path))
    attempt(lambda: scored_sets(path))
    attempt(lambda: read_predictions(path))


@given(st.binary(max_size=200), st.sampled_from(SUFFIXES))
@fuzzed
def test_any_bytes(tmp_path_factory: pytest.TempPathFactory, content: bytes, suffix: str) -> None:
    path = tmp_path_factory.getbasetemp() / f"any{suffix}"
    path.write_bytes(content)
    read_every_way(path)


@given(st.sampled_from(HEADERS), st.lists(st.lists(CELLS, max_size=12), max_size=4), ENCODINGS, st.binary(max_size=9))
@fuzzed
def test_any_table_in_any_encoding(
    tmp_path_factory: pytest.TempPathFactory, header: tuple[str, ...], rows: list[list[str]], code: str, tail: bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / "table.csv"
    even = io.StringIO()
    csv.writer(even).writerows([header, *((row + [""] * len(header))[: len(header)] for row in rows)])
    for text in (even.getvalue(), "\n".join(",".join(row) for row in [list(header), *rows])):
        path.write_bytes(text.encode(code, errors="surrogatepass" if code == "utf-8" else "replace") + tail)
        read_every_way(path)


@given(st.sampled_from(HEADERS), st.dictionaries(CELLS, VALUES, max_size=2), st.lists(VALUES, max_size=12), VALUES)
@fuzzed
def test_any_json(
    tmp_path_factory: pytest.TempPathFactory,
    header: tuple[str, ...],
    extra: dict[str, Any],
    values: list[Any],
    value: Any,
) -> None:
    path = tmp_path_factory.getbasetemp() / "any.jsonl"
    row = {**dict.fromkeys(header, "not"), **dict(zip(header, values, strict=False))}
    for rows in ([row], [{**row, **extra}, row], [value, extra]):
        path.write_text("\n".join(map(json.dumps, rows)))
        read_every_way(path)


BROKEN_ROWS = {
    "ragged": "a,b,c,d,e",
    "unclosed quote": '"The door is,open',
    "latin-1": "caf\udce9,not caf\udce9",
    "half a surrogate pair": "a\udced\udca0\udc80,not a",
    "a megabyte": f"{'not ' * 250_000},a",
    "empty": ",not",
}
BROKEN_LINES = {
    "no JSON": "{",
    "deep": '{"original":' + "[" * 100_000,
    "deep and closed": '{"original":' + "[" * 900 + "]" * 900 + ',"counterfactual":"b"}',
    "a list": "[1]",
    "null": "null",
    "NaN": '{"original": NaN, "counterfactual": Infinity}',
    "a bool": '{"original": true, "counterfactual": "not"}',
    "a huge number": '{"original": ' + "9" * 5000 + ', "counterfactual": "not"}',
    "a huge place": '{"original": "a", "counterfactual": "not a", "cue_start": "' + "9" * 5000 + '", "cue_end": 3}',
    "half a surrogate pair": '{"original": "a\\ud800", "counterfactual": "not a"}',
    "no text": '{"original": "a"}',
}


@pytest.mark.parametrize("row", BROKEN_ROWS.values(), ids=BROKEN_ROWS)
def test_a_broken_row_is_named_and_costs_no_good_one(tmp_path: Path, row: str) -> None:
    path = tmp_path / "pairs.csv"
    good = ",".join(GOOD)
    path.write_text(f"original,counterfactual\n{good}\n{row}\n{good}\n", encoding="utf-8", errors="surrogateescape")
    loaded = load_pairs(path)
    assert [(pair.original, pair.counterfactual) for pair in loaded.pairs] == [GOOD, GOOD]
    assert len(loaded.dropped) == 1 and "line 3" in loaded.dropped[0] and len(loaded.dropped[0]) < 1000


@pytest.mark.parametrize("line", BROKEN_LINES.values(), ids=BROKEN_LINES)
def test_a_broken_line_of_json_is_named_and_costs_no_good_one(tmp_path: Path, line: str) -> None:
    path = tmp_path / "pairs.jsonl"
    good = json.dumps(dict(zip(PLAIN, GOOD, strict=False)))
    path.write_text(f"{good}\n{line}\n{good}\n")
    loaded = load_pairs(path)
    assert [(pair.original, pair.counterfactual) for pair in loaded.pairs] == [GOOD, GOOD]
    assert len(loaded.dropped) == 1 and "line 2" in loaded.dropped[0] and len(loaded.dropped[0]) < 1000


@pytest.mark.sampled(5)
@pytest.mark.parametrize("header", HEADERS, ids=lambda header: header[0])
@pytest.mark.parametrize("giant", ["not " * 10_000, "a " * 50_000, "is" + " " * 200_000])
def test_gigantic_texts_are_read_or_told_in_a_few_words(tmp_path: Path, header: tuple[str, ...], giant: str) -> None:
    path = tmp_path / "giant.jsonl"
    values = [{name: "neutral" if "label" in name else f"{giant}{at}" for at, name in enumerate(header)}]
    values.append({name: "entailment" if "label" in name else f"b{at} {giant}" for at, name in enumerate(header)})
    path.write_text("\n".join(map(json.dumps, values)))
    for read in (load_pairs, scored_sets):
        found = attempt(lambda read=read: read(path))
        assert found is None or all(len(reason) < 1000 for reason in getattr(found, "dropped", ()))


def readers() -> dict[str, Callable[[Path], Any]]:
    return {
        "pairs": load_pairs,
        "sets": scored_sets,
        "predictions": read_predictions,
        "circuit": Circuit.load,
        "study": read_study,
        "shard": lambda path: open_shards([path]),
    }


@pytest.mark.parametrize("kind", readers())
@pytest.mark.parametrize("what", ["missing", "folder", "pipe", "device", "empty", "long name", "NUL name", "odd name"])
def test_what_is_no_file_is_refused_at_once(tmp_path: Path, kind: str, what: str) -> None:
    path = tmp_path / "x.csv"
    if what == "folder":
        path.mkdir()
    elif what == "pipe":
        os.mkfifo(path)
    elif what == "device":
        path.symlink_to("/dev/zero")
    elif what == "empty":
        path.touch()
    elif what != "missing":
        path = tmp_path / {"long name": "x" * 300, "NUL name": "a\0b.csv", "odd name": "\udcff.csv"}[what]
    if what == "odd name":
        path.write_text("original,counterfactual\na,not a\n")
    refused: list[BaseException] = []

    def read() -> None:
        try:
            readers()[kind](path)
        except BaseException as error:
            refused.append(error)

    waiting = threading.Thread(target=read, daemon=True)
    waiting.start()
    waiting.join(10)
    assert not waiting.is_alive(), "it waits for a pipe"
    assert refused and isinstance(refused[0], NegprobeError), refused
    assert 20 < len(str(refused[0])) < 1000


@pytest.mark.slow
def test_pipes_and_devices_in_the_place_of_a_studys_files_are_refused(
    tmp_path: Path, two_studies: tuple[Path, Path]
) -> None:
    for name in ("manifest.json", "pairs.parquet", "circuit.json"):
        folder = tmp_path / name
        shutil.copytree(two_studies[0], folder)
        (folder / name).unlink(missing_ok=True)
        os.mkfifo(folder / name)
        attempt(lambda folder=folder: read_study(folder))


PREDICTIONS = {
    "deep": "[" * 100_000,
    "a huge number": "9" * 5000,
    "a call": "[print('x')]",
    "NUL": "['a\0b']",
    "latin-1": "['caf\udce9']",
    "numbers": "[1, 2]",
    "a word": "fish",
    "unclosed": "['fish",
    "a megabyte": "['" + "a" * 10**6,
    "nothing": "\n\n",
}


@pytest.mark.parametrize("line", PREDICTIONS.values(), ids=PREDICTIONS)
def test_predictions_that_are_no_lists_of_words_are_told(tmp_path: Path, line: str) -> None:
    path = tmp_path / "predictions.txt"
    path.write_text(f"['fish']\n{line}\n", errors="surrogateescape")
    if line.strip():
        assert attempt(lambda: read_predictions(path)) is None
    else:
        assert read_predictions(path) == [("fish",)]


@pytest.fixture(scope="module")
def circuit(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    model = HookedEncoder.from_pretrained("tiny-negation", device="cpu")
    path = tmp_path_factory.mktemp("circuit") / "circuit.json"
    find_circuit(model, builtin_pairs()[::28], ranking="attribution").save(path)
    return dict(json.loads(path.read_text(encoding="utf-8")))


@pytest.mark.slow
@given(st.data())
@fuzzed
def test_a_damaged_circuit_is_told_or_is_one(
    tmp_path_factory: pytest.TempPathFactory, circuit: dict[str, Any], data: st.DataObject
) -> None:
    path = tmp_path_factory.getbasetemp() / "circuit.json"
    damaged = dict(circuit)
    key = data.draw(st.sampled_from(sorted(circuit)))
    if data.draw(st.booleans()):
        del damaged[key]
    else:
        odd = st.sampled_from(
            [[], {}, [1, 2, 3], ["-1.0"], {"0.0": 1}, {"10000000000.0": 1.0}, "x", None, 1e400, "\ud800"]
        )
        damaged[key] = data.draw(VALUES | odd)  # fmt: skip
    path.write_text(json.dumps(damaged))
    loaded = attempt(lambda: Circuit.load(path))
    if loaded is not None:
        assert str(loaded) and loaded._repr_html_()


@pytest.mark.slow
@given(st.data())
@fuzzed
def test_a_damaged_manifest_is_told_or_is_one(
    tmp_path_factory: pytest.TempPathFactory, two_studies: tuple[Path, Path], data: st.DataObject
) -> None:
    folder = tmp_path_factory.getbasetemp() / "damaged"
    if not folder.exists():
        shutil.copytree(two_studies[0], folder)
    manifest = json.loads((two_studies[0] / "manifest.json").read_text(encoding="utf-8"))
    part = data.draw(st.sampled_from([manifest, *(part for part in manifest.values() if isinstance(part, dict))]))
    part[data.draw(st.sampled_from(sorted(part)))] = data.draw(VALUES | st.sampled_from(["nan", "Tensor", 10**30]))
    (folder / "manifest.json").write_text(json.dumps(manifest))
    study = attempt(lambda: read_study(folder))
    if study is not None:
        assert all(isinstance(value, int) for value in study.shape) and study.seed >= 0 and study.rounding > 0


@pytest.mark.slow
@given(st.sampled_from(["pairs", "answers", "metrics", "patching"]), st.integers(0, 2**31), st.binary(max_size=8))
@fuzzed
def test_a_table_with_other_bytes_is_told_or_is_one(
    tmp_path_factory: pytest.TempPathFactory, two_studies: tuple[Path, Path], name: str, at: int, content: bytes
) -> None:
    folder = tmp_path_factory.getbasetemp() / "damaged tables"
    if not folder.exists():
        shutil.copytree(two_studies[0], folder)
    whole = (two_studies[0] / f"{name}.parquet").read_bytes()
    at %= len(whole)
    for damaged in (whole[:at], whole[:at] + content + whole[at + len(content) :], content):
        (folder / f"{name}.parquet").write_bytes(damaged)
        attempt(lambda: read_study(folder))
    (folder / f"{name}.parquet").write_bytes(whole)


@pytest.mark.parametrize("size", [0, 1, 5, 10**9, 10**30])
@pytest.mark.parametrize("axis", ["layers", "heads"])
def test_a_manifest_with_another_shape_than_its_tables_is_told(
    tmp_path: Path, two_studies: tuple[Path, Path], axis: str, size: int
) -> None:
    folder = Path(shutil.copytree(two_studies[0], tmp_path / "study"))
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    manifest["model"][axis] = size
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(NegprobeError, match=rf"metrics\.parquet is damaged: it has other {axis} than the model's"):
        read_study(folder)


@pytest.mark.slow
def test_a_table_with_other_columns_is_told(tmp_path: Path, two_studies: tuple[Path, Path]) -> None:
    folder = tmp_path / "study"
    shutil.copytree(two_studies[0], folder)
    for name in ("pairs", "answers", "metrics", "patching", "knock_out_sets"):
        path = folder / f"{name}.parquet"
        whole = pd.read_parquet(path)
        for damaged in (
            whole.iloc[:0],
            whole.iloc[:, :1],
            whole.astype(str),
            whole.assign(pair=whole["pair"] + 1e9),
            whole.assign(pair=float("nan")),
            whole.assign(layer=[[1]] * len(whole)),
            *(whole.assign(**{column: [[1]] * len(whole)}) for column in whole.columns),
            pd.concat([whole, whole]),
        ):
            damaged.to_parquet(path)
            attempt(lambda: read_study(folder))
        whole.to_parquet(path)
    assert len(read_study(folder).pairs)


@given(st.integers(0, 2**31), st.binary(max_size=8))
@fuzzed
def test_a_shard_with_other_bytes_is_told_or_is_the_same(
    tmp_path_factory: pytest.TempPathFactory, at: int, content: bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / "shard.parquet"
    shard = xr.Dataset(
        {"share": (("pair", "layer"), np.ones((3, 2))), "swing": ("pair", [1.0, 2.0, 3.0])},
        coords={"pair": [0, 1, 2], "layer": [0, 1], "cue": ("pair", ["not", "no", ""])},
        attrs={"rounding": 0.1},
    )
    write_shard(shard, path)
    whole = path.read_bytes()
    at %= len(whole)
    for damaged in (whole[:at], whole[:at] + content + whole[at + len(content) :], content):
        path.write_bytes(damaged)
        found = attempt(lambda: open_shards([path]).load())
        assert found is None or found.identical(shard)
