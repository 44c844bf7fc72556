"""A saved circuit names its runs, and files of older versions are still read."""

import inspect
import json
from pathlib import Path

import numpy as np
import pytest

from negprobe import HookedEncoder, builtin_pairs, find_circuit, patch_sweep
from negprobe.patching import Circuit
from negprobe.statements import complete, from_control

# `Circuit.save` of negprobe at format 1 wrote it, on tiny-negation and 7 pairs compared with their controls.
VERSION_1 = Path(__file__).parent / "saved" / "circuit-version-1.json"


@pytest.fixture(scope="module")
def model():
    return HookedEncoder.from_pretrained("tiny-negation", device="cpu")


def test_a_file_of_version_1_is_read():
    circuit = Circuit.load(VERSION_1)
    content = json.loads(VERSION_1.read_text())
    assert content["format_version"] == 1 and "base_run" not in content
    assert [str(component) for component in circuit.components] == content["components"]
    assert circuit.faithfulness == content["faithfulness"]
    assert (circuit.base_run, circuit.source_run) == ("counterfactual", "control or original")


@pytest.mark.slow
def test_a_circuit_and_its_file_name_the_runs_as_a_sweep_does(model, tmp_path):
    pairs = builtin_pairs()[:80:10]
    controlled = [from_control(complete(pair, model.tokenizer)) for pair in pairs]
    for given in (controlled, pairs, [*controlled[:4], *pairs[4:]]):
        for direction in ("noising", "denoising"):
            circuit = find_circuit(model, given, direction=direction, ranking="attribution", mlps=False, threshold=0.1)
            sweep = patch_sweep(model, given, "resid_pre", by="role", direction=direction)
            for name in ("base_run", "source_run"):
                assert set(getattr(circuit, name).split(" or ")) == set(np.unique(sweep[name]))
            circuit.save(tmp_path / "circuit.json")
            loaded = Circuit.load(tmp_path / "circuit.json")
            assert loaded == circuit and loaded.direction == direction


def test_the_default_direction_is_that_of_the_sweep():
    defaults = [inspect.signature(function).parameters["direction"].default for function in (find_circuit, patch_sweep)]
    assert defaults == ["noising", "noising"]
