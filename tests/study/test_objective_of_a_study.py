"""A study, and the command that patches a pair, use the chosen objective, or raise an error that names it."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
from typer.testing import CliRunner

from negprobe import HookedEncoder, builtin_pairs, patch_sweep
from negprobe.base.errors import ArgumentError, NegprobeError, PatchingError, StudyError
from negprobe.cli import app
from negprobe.patching import OBJECTIVES, kl_divergence, objective_named, target_probability
from negprobe.statements import StatementPair, complete, from_control
from negprobe.study import read_study, run_study
from negprobe.study import run as run_module
from negprobe.study.comparison import compare_studies
from negprobe.study.folder import identity, key, options_of_study, study_folder
from negprobe.study.mechanism import MIN_CIRCUIT_PAIRS
from negprobe.views import write_study

OPTIONS = {
    "patch_pairs": 2,
    "circuit_pairs": 0,
    "contribution_pairs": 0,
    "circuit_effort": "fast",
    "seed": 0,
}


@pytest.fixture(scope="module")
def model():
    return HookedEncoder.from_pretrained("tiny-negation", device="cpu")


def probabilities(model, texts, words):
    """The probability of a word at [MASK] of each text, from the model's own logits."""
    found = []
    for text, word in zip(texts, words, strict=True):
        tokens, _, _ = model.to_tokens(text)
        (at,) = (tokens[0] == model.tokenizer.mask_token_id).nonzero()[:, 0].tolist()
        logits = model(text)[0, at]
        found.append(torch.softmax(logits, dim=-1)[model.tokenizer.convert_tokens_to_ids(word)].item())
    return found


def test_every_stage_that_patches_moves_the_objective_and_the_answers_stay_what_they_are(model):
    pairs = builtin_pairs()[: MIN_CIRCUIT_PAIRS * 2 : 2]
    options = OPTIONS | {"circuit_pairs": MIN_CIRCUIT_PAIRS, "circuit_effort": "fast"}
    study = run_study(model, pairs, objective="target_probability", **options)
    default = run_study(model, pairs, **OPTIONS)
    controlled = [from_control(complete(pairs[index], model.tokenizer)) for index in study.patched]
    sources = probabilities(model, [pair.original for pair in controlled], [pair.target for pair in controlled])
    bases = probabilities(model, [pair.counterfactual for pair in controlled], [pair.target for pair in controlled])
    for sweep in (*study.patching.values(), study.mechanism.knock_out, study.mechanism.knock_out_sets):
        assert sweep.attrs["objective"] == "target_probability"
    for sweep in (study.patching["z", "denoising"], study.mechanism.knock_out, study.mechanism.knock_out_sets):
        np.testing.assert_allclose(sweep["source"], sources, atol=1e-5)
        np.testing.assert_allclose(sweep["base"], bases, atol=1e-5)
    assert study.positions["noising"].attrs["objective"] == "target_probability"
    assert study.mechanism.circuit.objective == "target_probability"
    pd.testing.assert_frame_equal(study.answers, default.answers)
    assert (study.objective, default.objective) == ("target_probability", "default")


@pytest.mark.parametrize("name", ["target_probability", "kl_divergence"])
def test_a_masked_lm_has_the_objectives_of_its_name(model, name):
    assert objective_named(model, name) is OBJECTIVES[name]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("class_logit_difference", "has no objective 'class_logit_difference'; .* choose logit_difference or"),
        ("single_logit", "has no objective 'single_logit'"),
        ("embedding_contrast", "has no objective 'embedding_contrast'"),
        ("cosine:The door is open.", "has no objective 'cosine:The door is open.'"),
        ("cosine:", "There is no objective 'cosine:'; choose one of logit_difference"),
        ("accuracy", "There is no objective 'accuracy'"),
        ("", "There is no objective ''"),
    ],
)
def test_what_the_head_cannot_give_is_refused_before_anything_is_measured(model, name, said, monkeypatch):
    monkeypatch.setattr(run_module, "Sharding", None)
    with pytest.raises(PatchingError, match=said):
        run_study(model, builtin_pairs()[:2], objective=name)


def test_an_objective_of_another_type_and_text_that_is_not_utf8_are_refused(model):
    with pytest.raises(ArgumentError, match="objective must be"):
        run_study(model, builtin_pairs()[:2], objective=kl_divergence)
    with pytest.raises(NegprobeError, match=r"objective .* is not valid UTF-8 text"):
        run_study(model, builtin_pairs()[:2], objective="\ud800")


def test_sentence_encoders_have_the_cosine_and_no_logits(minilm_path):
    encoder = HookedEncoder.from_pretrained(minilm_path, device="cpu")
    assert objective_named(encoder, "cosine:It is open.").__name__ == "cosine to 'It is open.'"
    assert objective_named(encoder, None) is OBJECTIVES["embedding_contrast"]
    with pytest.raises(PatchingError, match="choose embedding_contrast or cosine:SENTENCE"):
        objective_named(encoder, "target_probability")


def test_an_objective_that_a_pair_does_not_have_fails_before_anything_is_measured(model, monkeypatch):
    # The head has it, the pair not: only a function can be so odd.
    def refusing(model, runs, side):
        raise PatchingError("a pair without it")

    monkeypatch.setattr(run_module, "objective_named", lambda model, name, pairs: refusing)
    steps = []
    with pytest.raises(PatchingError, match="a pair without it"):
        run_study(
            model,
            builtin_pairs()[:2],
            objective="kl_divergence",
            progress=lambda step, done, total: steps.append(step),
        )
    assert steps == []


def fingerprint(model, objective):
    return identity(model, builtin_pairs()[:2], options_of_study(model, **OPTIONS, objective=objective))


def test_the_objective_is_part_of_the_fingerprint_and_a_study_without_one_has_the_default(model, tmp_path):
    default, other = fingerprint(model, None), fingerprint(model, "kl_divergence")
    assert (default["objective"], other["objective"]) == ("default", "kl_divergence")
    assert fingerprint(model, "logit_difference") == default
    older = {name: value for name, value in default.items() if name != "objective"}
    assert key(default) == key(older) != key(other)
    with study_folder(tmp_path, default):
        pass
    written = json.loads((tmp_path / "study.json").read_text())
    assert written["objective"] == "default"
    del written["objective"]
    (tmp_path / "study.json").write_text(json.dumps(written))
    with study_folder(tmp_path, default):
        pass
    said = r"holds another study \(objective: default in the folder, kl_divergence now\)"
    with pytest.raises(StudyError, match=said), study_folder(tmp_path, other):
        pass


@pytest.mark.slow
@pytest.mark.usefixtures("without_figures")
def test_studies_of_different_objectives_are_not_compared(model, tmp_path):
    pairs = builtin_pairs()[:3]
    for name in (None, "kl_divergence"):
        write_study(run_study(model, pairs, objective=name, **OPTIONS), tmp_path / str(name), "negprobe study")
    a, b = (read_study(tmp_path / name) for name in ("None", "kl_divergence"))
    assert (a.objective, b.objective) == ("default", "kl_divergence")
    said = r"patched the objective 'default', and the study in .* patched 'kl_divergence'"
    with pytest.raises(NegprobeError, match=said):
        compare_studies(a, b)
    manifest = json.loads((tmp_path / "None" / "manifest.json").read_text())
    del manifest["objective"]
    (tmp_path / "None" / "manifest.json").write_text(json.dumps(manifest))
    assert read_study(tmp_path / "None").objective == "default"


@pytest.mark.usefixtures("without_figures")
def test_the_command_studies_the_objective_and_goes_on_with_no_other(tmp_path):
    arguments = ["study", "--limit", "2", "--patch-pairs", "1", "--circuit-pairs", "0", "--out", str(tmp_path)]
    done = CliRunner().invoke(app, [*arguments, "--objective", "target_probability"])
    assert done.exit_code == 0, done.output
    table = pd.read_parquet(tmp_path / "patching.parquet")
    assert table[["patched", "base", "source"]].stack().between(0, 1).all()
    assert json.loads((tmp_path / "study.json").read_text())["objective"] == "target_probability"
    refused = CliRunner().invoke(app, arguments)
    assert refused.exit_code == 1
    assert "objective: target_probability in the folder, default now" in " ".join(refused.output.split())


@pytest.mark.slow
def test_patch_moves_the_objective_of_its_option(model, tmp_path):
    pair = StatementPair(
        *(f"The door is {word} open. So the door is [MASK]." for word in ("now", "not")), "open", "closed"
    )
    arguments = ["patch", pair.original, pair.counterfactual, "--target", "open", "--foil", "closed", "--no-control"]
    done = CliRunner().invoke(app, [*arguments, "--objective", "target_probability", "--out", str(tmp_path)])
    assert done.exit_code == 0, done.output
    table = pd.read_csv(tmp_path / "patching.csv").query("site == 'z' and direction == 'denoising'")
    expected = patch_sweep(model, pair, "z", by="head", direction="denoising", objective=target_probability)
    np.testing.assert_allclose(table["patched"], expected["patched"].values.ravel(), atol=1e-6)
    refused = CliRunner().invoke(app, [*arguments, "--objective", "single_logit", "--out", str(tmp_path)])
    assert refused.exit_code == 1 and "has no objective 'single_logit'" in " ".join(refused.output.split())
