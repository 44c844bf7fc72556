"""Labels that a configuration does not name: given for a model, found in pairs, and part of a study."""

import json
from pathlib import Path

import pytest
import torch
from click.testing import Result
from typer.testing import CliRunner

from negprobe import HookedEncoder, StatementPair
from negprobe.base.errors import ModelError, StudyError
from negprobe.cli import app
from negprobe.patching import answerable, objective_values
from negprobe.statements import to_dataframe
from negprobe.study.folder import identity, study_folder
from tests.support import tiny_models

GENERIC = ["LABEL_0", "LABEL_1", "LABEL_2"]
NAMES = ["entailment", "neutral", "contradiction"]
PAIR = StatementPair("it is open", "it is not open", "entailment", "CONTRADICTION")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A classifier of three labels whose config.json names none."""
    folder = tmp_path_factory.mktemp("model")
    tiny_models.hf_model("bert", "classification").save_pretrained(folder)
    tiny_models.tokenizer().save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text())
    assert config["id2label"] == {"0": "LABEL_0", "1": "LABEL_1", "2": "LABEL_2"}
    return folder


def load(folder: Path, labels: object = None) -> HookedEncoder:
    return HookedEncoder.from_pretrained(folder, device="cpu", labels=labels)


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        (None, ("LABEL_0", "LABEL_1", "LABEL_2")),
        (NAMES, tuple(NAMES)),
        (tuple(NAMES), tuple(NAMES)),
        ({"LABEL_2": "no", "label_0": "yes"}, ("yes", "LABEL_1", "no")),
        ({"LABEL_0": "LABEL_1", "LABEL_1": "LABEL_0"}, ("LABEL_1", "LABEL_0", "LABEL_2")),
    ],
)
def test_labels_are_named_in_the_order_of_the_logits(folder: Path, labels: object, expected: tuple[str, ...]) -> None:
    assert load(folder, labels).cfg.labels == expected
    theirs = tiny_models.hf_model("bert", "classification")
    ours = HookedEncoder.from_pretrained(theirs, tokenizer=tiny_models.tokenizer(), device="cpu", labels=labels)
    assert ours.cfg.labels == expected
    with torch.no_grad():
        best = int(theirs(**tiny_models.tokenizer()("it is open", return_tensors="pt")).logits.argmax())
    assert ours("it is open", return_type="predictions") == expected[best]


def test_pairs_find_the_labels_by_these_names(folder: Path) -> None:
    model = load(folder, NAMES)
    assert answerable(model, [PAIR]).pairs == {0: PAIR}
    with torch.no_grad():
        logits = tiny_models.hf_model("bert", "classification")(
            **tiny_models.tokenizer()(PAIR.original, return_tensors="pt")
        ).logits[0]
    expected = (logits[0] - logits[2]).item()
    assert objective_values(model, [PAIR])["original"].item() == pytest.approx(expected, abs=1e-5)
    said = answerable(load(folder), [PAIR]).unanswerable[0]
    assert said == "'CONTRADICTION' is not a label of the model ('LABEL_0, LABEL_1, LABEL_2')"


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        (
            NAMES[:2],
            r"2 label names were given, but .* has 3 labels, LABEL_0, LABEL_1, LABEL_2; give one name for each",
        ),
        ([], "0 label names were given"),
        ("entailment", "The labels are the text 'entailment'; give a list"),
        ({"LABEL_3": "a"}, "has no label 'LABEL_3' to rename; its labels are LABEL_0, LABEL_1, LABEL_2"),
        ({"LABEL_0": "a", "label_0": "b"}, "for the same label"),
        ({"LABEL_0": "LABEL_1"}, "'LABEL_1' is empty, repeated or not UTF-8"),
        (["a", "a", "b"], "'a' is empty, repeated"),
        (["a", " ", "b"], "' ' is empty"),
        (["a", "\ud800", "b"], "not UTF-8"),
    ],
)
def test_labels_that_do_not_fit_are_one_error(folder: Path, labels: object, said: str) -> None:
    with pytest.raises(ModelError, match=said):
        load(folder, labels)


@pytest.mark.parametrize("head", ["masked_lm", "none"])
def test_a_model_without_labels_takes_none(head: str) -> None:
    with pytest.raises(ModelError, match="is not a classifier, so it has no labels to name"):
        HookedEncoder.from_pretrained(tiny_models.hf_model("bert", head), device="cpu", labels=["a"])


def test_other_labels_are_another_study(folder: Path, tmp_path: Path) -> None:
    first, same, other = (
        identity(load(folder, labels), [PAIR], {})
        for labels in (NAMES, dict(zip(GENERIC, NAMES, strict=True)), NAMES[::-1])
    )
    assert first == same and first["labels"] == '["entailment", "neutral", "contradiction"]'
    with study_folder(tmp_path, first):
        pass
    with pytest.raises(StudyError, match=r'holds another study \(labels: \["entailment".* in the folder, \["contra'):
        study_folder(tmp_path, other).__enter__()
    masked = HookedEncoder.from_pretrained("tiny-negation", device="cpu")
    assert "labels" not in identity(masked, [], {})


@pytest.mark.usefixtures("without_figures")
def test_a_study_with_the_option_is_not_resumed_with_other_names(folder: Path, tmp_path: Path) -> None:
    pairs, out = tmp_path / "pairs.csv", tmp_path / "out"
    to_dataframe([PAIR]).to_csv(pairs, index=False)
    study = ["study", folder, "--pairs", pairs, "--circuit-pairs", "0", "--contribution-pairs", "0", "--out", out]
    ended = run(*study, "--labels", "entailment, neutral,contradiction")
    assert ended.exit_code == 0, ended.output
    assert json.loads((out / "manifest.json").read_text())["model"]["labels"] == NAMES
    refused = run(*study, "--labels", "LABEL_0=contradiction,LABEL_1=neutral,LABEL_2=entailment")
    assert refused.exit_code == 1 and "holds another study (labels: " in " ".join(refused.output.split())


@pytest.mark.parametrize(
    "command",
    [
        ["compare", PAIR.original, PAIR.counterfactual, "--model"],
        ["view", "--model"],
        ["patch", PAIR.original, PAIR.counterfactual, "--model"],
        ["find-circuit"],
        ["evaluate", "builtin", "--model"],
    ],
    ids=lambda command: command[0],
)
def test_every_command_that_loads_a_classifier_takes_labels(
    folder: Path, tmp_path: Path, command: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    refused = run(*command, folder, "--labels", "a,b")
    assert refused.exit_code == 1 and "2 label names were given" in " ".join(refused.output.split())


@pytest.mark.parametrize("labels", ["a,LABEL_1=b", "LABEL_1=a,LABEL_1=b"])
def test_a_mixture_of_names_and_renamings_is_refused(folder: Path, tmp_path: Path, labels: str) -> None:
    refused = run("view", "--model", folder, "--labels", labels, "--out", tmp_path / "view.html")
    said = "mixes names with renamings, or renames a label twice"
    assert refused.exit_code == 1 and said in " ".join(refused.output.split())


def test_labels_without_a_model_are_refused(tmp_path: Path) -> None:
    (tmp_path / "words.csv").write_text("['open']\n")
    refused = run("evaluate", "builtin", "--predictions", tmp_path / "words.csv", "--labels", "a,b")
    assert refused.exit_code == 1 and "--labels applies only to --model" in refused.output
