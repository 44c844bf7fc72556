"""The bundled model answers what it was trained for, and its training can be interrupted."""

import importlib.util
import random
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForMaskedLM, AutoTokenizer

import negprobe
from negprobe.statements.builtin import builtin_pairs
from negprobe.statements.lexicon import held_out_combinations
from tests.support import ROOT

FOLDER = Path(negprobe.__file__).parent / "models" / "tiny-negation"
SCRIPT = ROOT / "scripts" / "train_tiny_negation.py"
PAIRS = builtin_pairs()


@pytest.fixture(scope="module")
def model():
    return AutoModelForMaskedLM.from_pretrained(FOLDER).eval()


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(FOLDER)


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("train_tiny_negation", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules["train_tiny_negation"] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def no_glances(script, monkeypatch):
    """Training without the accuracies at each checkpoint, which take longer than a few steps."""
    monkeypatch.setattr(script, "GLANCES", {})


@torch.no_grad()
def logits_at_mask(model, tokenizer, texts: list[str]) -> torch.Tensor:
    encoded = tokenizer(texts, return_tensors="pt", padding=True)
    return model(**encoded).logits[encoded["input_ids"] == tokenizer.mask_token_id]


def margins(model, tokenizer, side: str) -> torch.Tensor:
    """logit(target) - logit(foil) of every built-in pair."""
    logits = logits_at_mask(model, tokenizer, [getattr(pair, side) for pair in PAIRS])
    targets = torch.tensor(tokenizer.convert_tokens_to_ids([pair.target for pair in PAIRS]))
    foils = torch.tensor(tokenizer.convert_tokens_to_ids([pair.foil for pair in PAIRS]))
    rows = torch.arange(len(PAIRS))
    return logits[rows, targets] - logits[rows, foils]


def test_it_is_small_and_of_the_size_it_says(model):
    assert (FOLDER / "model.safetensors").stat().st_size < 5e6
    config = model.config
    assert (config.num_hidden_layers, config.num_attention_heads) == (4, 4)
    assert (config.hidden_size, config.intermediate_size) == (128, 512)


def test_its_tokenizer_splits_a_contraction_as_bert_does(tokenizer):
    text = "The door isn't open. So the door is [MASK]."
    expected = "the door isn ' t open . so the door is [MASK] ."
    assert tokenizer.tokenize(text) == expected.split()
    assert tokenizer.tokenize("xylophone") == ["[UNK]"]


def test_it_knows_every_word_of_the_builtin_pairs(tokenizer):
    for pair in PAIRS:
        for text in (pair.original, pair.counterfactual, pair.control):
            assert tokenizer.unk_token_id not in tokenizer(text)["input_ids"]


@pytest.mark.parametrize(("side", "sign"), [("original", 1), ("control", 1), ("counterfactual", -1)])
def test_it_understands_the_builtin_pairs(model, tokenizer, side, sign):
    assert (sign * margins(model, tokenizer, side) > 0).float().mean() >= 0.95


def test_it_answers_held_out_statements_of_every_category(model, tokenizer, script):
    rng = random.Random("not the seed of the card")
    for name, draw in script.CATEGORIES.items():
        examples = [draw(rng, held_out_combinations()) for _ in range(200)]
        chosen = logits_at_mask(model, tokenizer, [example.text for example in examples]).argmax(-1)
        answers = torch.tensor(tokenizer.convert_tokens_to_ids([example.answer for example in examples]))
        target = 0.95 if name in script.TWO_CLAUSES else 0.98
        assert (chosen == answers).float().mean() >= target - 0.02, name  # 200 statements are a small sample


def test_the_card_has_a_row_for_every_category_at_its_target(script):
    rows = [line.split("|") for line in (FOLDER / "README.md").read_text(encoding="utf-8").splitlines()]
    shares = {row[1].strip(): float(row[2]) for row in rows if len(row) == 4 and "0" in row[2]}
    assert shares.keys() == script.CATEGORIES.keys()
    assert min(shares[name] for name in script.ONE_CLAUSE) >= 0.98
    assert min(shares[name] for name in script.TWO_CLAUSES) >= 0.95


def test_training_never_shows_a_held_out_combination(script):
    recipe = script.Recipe(steps=3, single_steps=1, binding_steps=1, batch=1500)
    held_out = {
        (combination.noun, state) for combination in held_out_combinations() for state in combination.scale.states
    }
    examples = [example for step in range(recipe.steps) for example in script.draw_batch(recipe, step)]
    assert {len(example.truths) for example in examples} == {1, 2}
    assert not held_out & {said for example in examples for said in example.truths.items()}


def test_every_mention_of_a_noun_is_asked_for_what_is_true_of_it(script, tokenizer):
    example = script.Example(
        "The door is not open and the towel is dry. So the door is [MASK].",
        "closed",
        {"door": "closed", "towel": "dry"},
    )
    ids = tokenizer([example.text], return_tensors="pt")["input_ids"]
    labels = script.mention_ids(ids, tokenizer, [example])
    asked = (labels != script.IGNORED).nonzero()[:, 1]
    assert tokenizer.convert_ids_to_tokens(ids[0, asked]) == ["door", "towel", "door"]
    assert tokenizer.convert_ids_to_tokens(labels[0, asked]) == ["closed", "dry", "closed"]


def test_training_that_was_interrupted_ends_at_the_same_weights(script, no_glances, tmp_path):
    recipe = script.Recipe(steps=6, single_steps=2, binding_steps=2, batch=4)
    (tmp_path / "whole").mkdir()
    (tmp_path / "halves").mkdir()
    whole = script.train(recipe, tmp_path / "whole", every=2)
    script.train(recipe, tmp_path / "halves", every=2, stop_after=5)
    halves = script.train(recipe, tmp_path / "halves", every=2)
    for name, weight in whole.state_dict().items():
        torch.testing.assert_close(halves.state_dict()[name], weight, rtol=0, atol=0)


def test_a_checkpoint_of_another_recipe_is_refused(script, no_glances, tmp_path):
    script.train(script.Recipe(steps=1, batch=2), tmp_path)
    with pytest.raises(SystemExit, match="another recipe"):
        script.train(script.Recipe(steps=2, batch=2), tmp_path)


def test_the_script_writes_a_folder_that_transformers_loads(script, no_glances, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(script, "SAMPLES", 5)
    monkeypatch.setattr(sys, "argv", ["train", "--out", str(tmp_path), "--steps", "1"])
    script.main()
    table = capsys.readouterr().out
    weights = load_file(tmp_path / "model.safetensors")
    loaded = AutoModelForMaskedLM.from_pretrained(tmp_path)
    embedding = "bert.embeddings.word_embeddings.weight"
    torch.testing.assert_close(loaded.bert.embeddings.word_embeddings.weight, weights[embedding])
    assert AutoTokenizer.from_pretrained(tmp_path).tokenize("The DOOR") == ["the", "door"]
    card = (tmp_path / "README.md").read_text(encoding="utf-8")
    rows = [line for line in card.splitlines() if line.startswith("|")]
    assert len(rows) == len(script.CATEGORIES) + 2
    assert all(row in table for row in rows)
