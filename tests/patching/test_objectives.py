"""Objectives read what Hugging Face's full outputs say, and refuse what they cannot read."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sample_pairs import EQUAL, LONGER
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast, RobertaConfig, RobertaForMaskedLM

from negprobe import HookedEncoder
from negprobe.errors import PatchingError
from negprobe.patching import answerable, objective_values, patch
from negprobe.patching.objectives import answer_id
from negprobe.statements import StatementPair

LABELLED = StatementPair(
    "The door is now open.", "The door is not open.", "yes", "no", control="The door is very open."
)


def test_class_logit_difference_equals_hugging_face(classifier, tokenizer):
    theirs, model = classifier
    values = objective_values(model, [LABELLED])
    for side in ("original", "counterfactual", "control"):
        with torch.no_grad():
            logits = theirs(**tokenizer(getattr(LABELLED, side), return_tensors="pt")).logits[0]
        assert values.loc[0, side] == pytest.approx((logits[0] - logits[1]).item(), abs=1e-9)


def test_swapping_the_classifiers_token_before_no_block_is_the_whole_swing(classifier):
    _, model = classifier
    result = patch(model, LABELLED, "resid_pre", by="role", direction="noising")
    assert result.attrs["objective"] == "class_logit_difference"
    assert np.isfinite(result["patched"].sel(role="cue")).all()


def test_embedding_contrast_is_the_difference_of_cosines(minilm_path):
    model = HookedEncoder.from_pretrained(minilm_path, device="cpu")
    pair = StatementPair("The door is open.", "The door is not open.", control="The door is now open.")
    with torch.no_grad():
        original, counterfactual, control = model([pair.original, pair.counterfactual, str(pair.control)])
    values = objective_values(model, [pair]).loc[0]
    near = F.cosine_similarity(original, counterfactual, dim=0).item()
    expected = F.cosine_similarity(control, original, dim=0) - F.cosine_similarity(control, counterfactual, dim=0)
    assert values["original"] == pytest.approx(1 - near, abs=1e-5)
    assert values["counterfactual"] == pytest.approx(near - 1, abs=1e-5)
    assert values["control"] == pytest.approx(expected.item(), abs=1e-5)


@pytest.mark.parametrize(
    ("pair", "message"),
    [
        (StatementPair("It is [MASK].", "It is not [MASK]."), "no target"),
        (StatementPair("It is [MASK].", "It is not [MASK].", "good"), "no foil"),
        (StatementPair("It is [MASK].", "It is not [MASK].", "good", "unfathomableness"), "not one token"),
        (StatementPair("It is good.", "It is not good.", "good", "bad"), "0 mask tokens"),
        (StatementPair("[MASK] is [MASK].", "It is not [MASK].", "good", "bad"), "2 mask tokens"),
    ],
)
def test_a_pair_without_a_readable_answer_is_a_clear_error(masked_lm, pair, message):
    _, model = masked_lm
    with pytest.raises(PatchingError, match=message):
        patch(model, pair, "resid_pre", by="position")
    assert list(answerable(model, [EQUAL, pair, LONGER]).unanswerable) == [1]


def test_a_label_the_classifier_lacks_is_a_clear_error(classifier):
    _, model = classifier
    pair = StatementPair("The door is open.", "The door is not open.", "open", "closed")
    with pytest.raises(PatchingError, match="not a label of this model; its labels are yes, no, maybe"):
        patch(model, pair, "resid_pre", by="position")


def test_a_classifiers_own_labels_stand_in_for_missing_ones(classifier):
    _, model = classifier
    pairs = [
        StatementPair(a, b)
        for a, b in (("The door is open.", "The door is not open."), ("Yes.", "Yes."), ("It rains.", "It never rains."))
    ]
    sorted_out = answerable(model, pairs)
    for index, pair in enumerate(pairs):
        target, foil = model([pair.original, pair.counterfactual], return_type="predictions")
        if target == foil:
            assert repr(target) in sorted_out.unanswerable[index]
        else:
            assert (sorted_out.pairs[index].target, sorted_out.pairs[index].foil) == (target, foil)
    assert 1 in sorted_out.unanswerable


def test_a_byte_level_answer_is_the_token_with_the_space_before_it():
    texts = ["the door is open", "open the door", "the door is closed", "closed"] * 20
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.train_from_iterator(texts, trainers.BpeTrainer(special_tokens=["<pad>", "<unk>", "<mask>"]))
    fast = PreTrainedTokenizerFast(tokenizer_object=bpe, pad_token="<pad>", unk_token="<unk>", mask_token="<mask>")
    inside, alone = fast.convert_tokens_to_ids(["Ġopen", "open"])
    assert inside != alone
    config = RobertaConfig(
        vocab_size=len(fast),
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=8,
        pad_token_id=0,
    )
    model = HookedEncoder.from_pretrained(RobertaForMaskedLM(config), tokenizer=fast, device="cpu")
    assert answer_id(model, "open") == inside
