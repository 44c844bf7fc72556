"""BERT's head of next-sentence prediction is a classifier: its labels say whether the second text follows."""

from pathlib import Path

import numpy as np
import pytest
import torch
import transformers

from negprobe import HookedEncoder, StatementPair, attribute, patch_sweep
from negprobe.base.errors import ModelError
from negprobe.patching import class_logit_difference, objective_values, target_probability
from tests.support import slow_patching, tiny_models
from tests.support.tiny_models import largest_difference

PAIR = StatementPair(
    "the door is now open [SEP] it is open",
    "the door is not open [SEP] it is open",
    target="isNext",
    foil="notNext",
)


def pre_trained(dtype: torch.dtype = torch.float64) -> transformers.BertForPreTraining:
    """A BERT with both heads of its pre-training, with wide random weights."""
    config = tiny_models.FAMILIES["bert"].config()
    config._attn_implementation = "eager"
    model = transformers.BertForPreTraining(config).eval()
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = 0.2 * torch.randn(parameter.shape, generator=generator)
            parameter.copy_(1 + noise if "norm" in name.lower() and name.endswith("weight") else noise)
    return model.to(dtype)


def next_sentence(dtype: torch.dtype = torch.float64) -> transformers.BertForNextSentencePrediction:
    """The same with the head of next-sentence prediction alone."""
    whole = pre_trained(dtype)
    model = transformers.BertForNextSentencePrediction(whole.config).eval().to(dtype)
    model.load_state_dict({k: v for k, v in whole.state_dict().items() if not k.startswith("cls.predictions.")})
    return model


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with both heads, whose config.json names the class of both."""
    pre_trained().save_pretrained(tmp_path)
    tiny_models.tokenizer().save_pretrained(tmp_path)
    return tmp_path


@torch.no_grad()
def test_logits_equal_hugging_faces(folder: Path) -> None:
    theirs = next_sentence()
    live = HookedEncoder.from_pretrained(theirs, tokenizer=tiny_models.tokenizer(), dtype=torch.float64)
    read = HookedEncoder.from_pretrained(
        folder, architecture="BertForNextSentencePrediction", dtype=torch.float64, device="cpu"
    )
    texts = [("the door is not open", "it is closed"), ("the dog is now red", "a house is never open ."), ("it", "a")]
    for ours in (live, read):
        assert (ours.cfg.head, ours.cfg.labels) == ("classification", ("isNext", "notNext"))
        tokens, types, mask = ours.to_tokens(texts)
        assert types.any() and not mask.all()
        expected = theirs(tokens, attention_mask=mask, token_type_ids=types).logits
        assert largest_difference(ours(texts), expected) < 1e-10
        labels = [("isNext", "notNext")[index] for index in expected.argmax(dim=1)]
        assert ours(texts, return_type="predictions") == labels


@torch.no_grad()
def test_the_same_folder_is_a_masked_lm_by_default(folder: Path) -> None:
    ours = HookedEncoder.from_pretrained(folder, dtype=torch.float64, device="cpu")
    tokens = tiny_models.token_batch(0, (6,))
    assert ours.cfg.head == "masked_lm"
    assert largest_difference(ours(tokens), pre_trained()(tokens).prediction_logits) < 1e-10


@torch.no_grad()
def test_settings_of_other_classifiers_do_not_matter() -> None:
    """Hugging Face's class has two logits whatever its configuration says of labels."""
    theirs = next_sentence()
    theirs.config.problem_type, theirs.config.id2label = "regression", {0: "x", 1: "y", 2: "z"}
    ours = HookedEncoder.from_pretrained(theirs, dtype=torch.float64, device="cpu")
    assert (ours.cfg.labels, ours.cfg.problem_type) == (("isNext", "notNext"), None)
    tokens = tiny_models.token_batch(0, (6,))
    assert largest_difference(ours(tokens), theirs(tokens).logits) < 1e-10


def test_a_changed_head_is_noticed() -> None:
    theirs = next_sentence()
    theirs.cls.seq_relationship = torch.nn.Linear(tiny_models.D_MODEL, 3, dtype=torch.float64)
    with pytest.raises(ModelError, match=r"cls\.seq_relationship.* has out_features = 3, not 2"):
        HookedEncoder.from_pretrained(theirs)


def test_objectives_and_patches_are_those_of_a_classifier() -> None:
    theirs = next_sentence()
    ours = HookedEncoder.from_pretrained(theirs, tokenizer=tiny_models.tokenizer(), dtype=torch.float64, device="cpu")
    for objective in (class_logit_difference, target_probability):
        found = objective_values(ours, [PAIR], objective)
        for side in ("original", "counterfactual"):
            tokens, types, _ = slow_patching.inputs(ours, getattr(PAIR, side))
            with torch.no_grad():
                logits = theirs(tokens, token_type_ids=types).logits[0]
            expected = logits[0] - logits[1] if objective is class_logit_difference else logits.softmax(dim=0)[0]
            assert abs(float(found[side][0]) - float(expected)) < 1e-10
    sweep = patch_sweep(ours, PAIR, "z", by=("head", "position"))
    roles = ["other"] * sweep.sizes["position"]
    source = slow_patching.unpatched(ours, PAIR.counterfactual, "z")
    every = range(len(roles))
    expected = slow_patching.sweep(
        ours, PAIR.original, "z", ("head", "position"), roles, source, every, lambda logits: logits[:, 0] - logits[:, 1]
    )
    np.testing.assert_allclose(sweep["patched"].values[0], expected, atol=1e-10)
    assert abs(sweep["patched"] - sweep["base"]).max() > 1e-3
    assert np.isfinite(attribute(ours, PAIR, by="position")["resid_pre"]["patched"]).all()
