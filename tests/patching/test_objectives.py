"""Objectives read what Hugging Face's full outputs say, and refuse what they cannot read."""

import pytest
import torch
import torch.nn.functional as F
from sample_pairs import EQUAL, LONGER
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast, RobertaConfig, RobertaForMaskedLM, RobertaModel

from negprobe import HookedEncoder
from negprobe.errors import PatchingError
from negprobe.patching import answerable, objective_values, patch_sweep
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


@pytest.mark.parametrize("direction", ["noising", "denoising"])
def test_a_classifiers_patches_equal_one_full_forward_pass_each(classifier, tokenizer, direction):
    _, model = classifier
    texts = [LABELLED.original, LABELLED.counterfactual]
    base, source = texts if direction == "noising" else texts[::-1]
    _, cache = model.run_with_cache(source)
    # A longer pair in the same batch pads this one.
    longer = StatementPair("The door there is now open, I think.", "The door there is not open, I think.", "yes", "no")
    result = patch_sweep(model, [LABELLED, longer], "mlp_out", by="position", direction=direction)
    assert result.attrs["objective"] == "class_logit_difference"
    for layer in range(model.cfg.n_layers):
        for position in range(len(tokenizer(base)["input_ids"])):

            def swap(activation, hook, position=position):
                activation[:, position] = cache[hook.name][:, position]
                return activation

            logits = model.run_with_hooks(base, fwd_hooks=[(f"blocks.{layer}.hook_mlp_out", swap)])[0]
            ours = result["patched"].sel(pair=0, layer=layer, position=position).item()
            assert ours == pytest.approx((logits[0] - logits[1]).item(), abs=1e-9)


def test_an_embeddings_patches_equal_one_full_forward_pass_each_in_a_padded_batch(minilm_path):
    model = HookedEncoder.from_pretrained(minilm_path, device="cpu", dtype=torch.float64)
    pair = StatementPair("The door is now open.", "The door is not open.")
    longer = StatementPair("The door over there is now open, I think.", "The door over there is not open, I think.")
    result = patch_sweep(model, [pair, longer], "z", by="head", direction="noising")["patched"].sel(pair=0)
    with torch.no_grad():
        original, counterfactual = model([pair.original, pair.counterfactual])
        _, cache = model.run_with_cache(pair.counterfactual)
        for layer, head in ((0, 3), (3, 7), (5, 9)):

            def swap(z, hook, head=head):
                z[:, :, head] = cache[hook.name][:, :, head]
                return z

            e = model.run_with_hooks(pair.original, fwd_hooks=[(f"blocks.{layer}.attn.hook_z", swap)])[0]
            contrast = F.cosine_similarity(e, original, dim=0) - F.cosine_similarity(e, counterfactual, dim=0)
            assert result.sel(layer=layer, head=head).item() == pytest.approx(contrast.item(), abs=1e-9)


def test_a_mask_in_a_statement_is_the_models_own_mask_in_the_reference_embeddings_too():
    tokenizer = byte_level_tokenizer()
    model = HookedEncoder.from_pretrained(RobertaModel(roberta_config(tokenizer)), tokenizer=tokenizer, device="cpu")
    values = objective_values(model, [StatementPair("the door is [MASK]", "open the door is [MASK]")]).loc[0]
    # A run is as near to itself as can be, so its two values must mirror each other.
    assert values["original"] == pytest.approx(-values["counterfactual"], abs=1e-6)
    assert values["original"] > 1e-4


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
        patch_sweep(model, pair, "resid_pre", by="position")
    assert list(answerable(model, [EQUAL, pair, LONGER]).unanswerable) == [1]


def test_a_label_the_classifier_lacks_is_a_clear_error(classifier):
    _, model = classifier
    pair = StatementPair("The door is open.", "The door is not open.", "open", "closed")
    with pytest.raises(PatchingError, match="not a label of this model; its labels are yes, no, maybe"):
        patch_sweep(model, pair, "resid_pre", by="position")


def test_a_classifiers_own_labels_stand_in_for_missing_ones(classifier):
    _, model = classifier
    pairs = [
        StatementPair(a, b)
        for a, b in (("The door is open.", "The door is not open."), ("Yes.", "Yes."), ("It rains.", "It never rains."))
    ]
    sorted_out = answerable(model, pairs)
    for index, pair in enumerate(pairs):
        target, foil = model([pair.original, pair.counterfactual], return_type="predictions")
        assert (index in sorted_out.own_labels) == (target != foil)
        if target == foil:
            assert repr(target) in sorted_out.unanswerable[index]
        else:
            assert (sorted_out.pairs[index].target, sorted_out.pairs[index].foil) == (target, foil)
    assert 1 in sorted_out.unanswerable


def byte_level_tokenizer():
    texts = ["the door is open", "open the door", "the door is closed", "closed"] * 20
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.train_from_iterator(texts, trainers.BpeTrainer(special_tokens=["<pad>", "<unk>", "<mask>"]))
    return PreTrainedTokenizerFast(tokenizer_object=bpe, pad_token="<pad>", unk_token="<unk>", mask_token="<mask>")


def roberta_config(tokenizer):
    torch.manual_seed(0)
    return RobertaConfig(
        vocab_size=len(tokenizer),
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=8,
        pad_token_id=0,
        initializer_range=0.5,
    )


def test_a_byte_level_answer_is_the_token_with_the_space_before_it():
    fast = byte_level_tokenizer()
    inside, alone = fast.convert_tokens_to_ids(["Ġopen", "open"])
    assert inside != alone
    model = HookedEncoder.from_pretrained(RobertaForMaskedLM(roberta_config(fast)), tokenizer=fast, device="cpu")
    assert answer_id(model, "open") == inside


@pytest.mark.parametrize(
    ("target", "foil", "reason"), [("open", "closed", "not a label"), ("yes", "yes", "both 'yes'")]
)
def test_labels_that_cannot_be_told_apart_are_named(classifier, target, foil, reason):
    _, model = classifier
    pair = StatementPair("The door is open.", "The door is not open.", target, foil)
    assert reason in answerable(model, [pair]).unanswerable[0]
