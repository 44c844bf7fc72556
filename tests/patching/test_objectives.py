"""Objectives read what Hugging Face's full outputs say, and refuse what they cannot read."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.special import rel_entr
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaForMaskedLM,
    RobertaModel,
    TextClassificationPipeline,
)

from negprobe import HookedEncoder
from negprobe.base.errors import PatchingError
from negprobe.models.config import DenseStep, LayerNormStep
from negprobe.patching import (
    answerable,
    class_logit_difference,
    cosine_to,
    default_objective,
    embedding_contrast,
    kl_divergence,
    logit_difference,
    objective_from,
    objective_values,
    patch_sweep,
    single_logit,
    target_probability,
)
from negprobe.statements import StatementPair, tokenize
from tests.support import slow_patching, tiny_models
from tests.support.sample_pairs import EQUAL, LONGER, TINY, TINY_EQUAL, answering, whole

LABELLED = StatementPair(
    "The door is now open.", "The door is not open.", "yes", "no", control="The door is very open."
)


def test_class_logit_difference_equals_hugging_face(classifier, tokenizer):
    theirs, model = classifier
    found = objective_values(model, [replace(LABELLED, control=None), LABELLED])
    assert list(found.data_vars) == ["original", "counterfactual", "control"]
    assert all(found[side].dims == ("pair",) for side in found) and found["pair"].values.tolist() == [0, 1]
    assert np.isnan(found["control"].values).tolist() == [True, False]
    values = found.to_dataframe()
    for side in ("original", "counterfactual", "control"):
        with torch.no_grad():
            logits = theirs(**tokenizer(getattr(LABELLED, side), return_tensors="pt")).logits[0]
        assert values.loc[1, side] == pytest.approx((logits[0] - logits[1]).item(), abs=1e-9)


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


def test_a_real_encoders_patches_equal_one_full_forward_pass_each_in_a_padded_batch(minilm_path):
    model = HookedEncoder.from_pretrained(minilm_path, device="cpu", dtype=torch.float64)
    pair = StatementPair("The door is now open.", "The door is not open.")
    longer = StatementPair("The door over there is now open, I think.", "The door over there is not open, I think.")
    result = patch_sweep(model, [pair, longer], "mlp_out", by="position", direction="noising")["patched"].sel(pair=0)
    with torch.no_grad():
        original, counterfactual = model([pair.original, pair.counterfactual])
        _, cache = model.run_with_cache(pair.counterfactual)
        for layer, position in ((0, 4), (3, 0), (5, 5)):

            def swap(activation, hook, position=position):
                activation[:, position] = cache[hook.name][:, position]
                return activation

            e = model.run_with_hooks(pair.original, fwd_hooks=[(f"blocks.{layer}.hook_mlp_out", swap)])[0]
            contrast = F.cosine_similarity(e, original, dim=0) - F.cosine_similarity(e, counterfactual, dim=0)
            assert result.sel(layer=layer, position=position).item() == pytest.approx(contrast.item(), abs=1e-9)


def test_a_gap_is_filled_with_the_target_in_the_runs_and_in_the_reference_embeddings():
    tokenizer = byte_level_tokenizer()
    model = HookedEncoder.from_pretrained(RobertaModel(roberta_config(tokenizer)), tokenizer=tokenizer, device="cpu")
    gap = StatementPair("the door is [MASK]", "open the door is [MASK]", "big")
    values = objective_values(model, [gap, StatementPair("the door is big", "open the door is big")]).to_dataframe()
    assert values.loc[0].equals(values.loc[1])
    values = values.loc[0]
    # A run is as near to itself as can be, so its two values must mirror each other.
    assert values["original"] == pytest.approx(-values["counterfactual"], abs=1e-6)
    assert values["original"] > 1e-4


def test_embedding_contrast_is_the_difference_of_cosines(minilm_path):
    model = HookedEncoder.from_pretrained(minilm_path, device="cpu")
    pair = StatementPair("The door is open.", "The door is not open.", control="The door is now open.")
    with torch.no_grad():
        original, counterfactual, control = model([pair.original, pair.counterfactual, str(pair.control)])
    values = objective_values(model, [pair]).to_dataframe().loc[0]
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


@pytest.mark.parametrize(
    ("text", "token"),
    [
        ("the door is [MASK]", "Ġopen"),
        ("[MASK] the door", "open"),
        ("the door is closed [SEP] [MASK] the door", "open"),
    ],
)
def test_a_byte_level_word_is_read_with_the_space_before_it_only_where_there_is_one(text, token):
    fast = byte_level_tokenizer()
    theirs = RobertaForMaskedLM(roberta_config(fast)).eval()
    model = HookedEncoder.from_pretrained(theirs, tokenizer=fast, device="cpu")
    pair = StatementPair(text, f"not so: {text}", "open", "closed")
    other = token.replace("open", "closed")
    statement = tokenize(text, fast)
    with torch.no_grad():
        logits = theirs(torch.tensor([statement.ids])).logits[0, statement.ids.index(fast.mask_token_id)]
    target, foil = fast.convert_tokens_to_ids([token, other])
    found = objective_values(model, [pair], logit_difference).to_dataframe().loc[0, "original"]
    assert found == pytest.approx((logits[target] - logits[foil]).item(), abs=1e-5)
    probability = objective_values(model, [pair], target_probability).to_dataframe().loc[0, "original"]
    assert probability == pytest.approx(logits.softmax(dim=-1)[target].item(), abs=1e-6)


def test_a_word_that_is_two_tokens_in_one_of_the_places_makes_a_pair_unanswerable_by_name():
    fast = byte_level_tokenizer()
    model = HookedEncoder.from_pretrained(RobertaForMaskedLM(roberta_config(fast)), tokenizer=fast, device="cpu")
    # " door" follows another word throughout what the tokenizer was trained on, and "the" begins it.
    pairs = [
        StatementPair("[MASK] the door", "not [MASK] the door", "open", "door"),
        StatementPair("open the [MASK]", "open not the [MASK]", "door", "closed"),
    ]
    assert "'door' is not one token" in answerable(model, pairs).unanswerable[0]
    assert list(answerable(model, pairs).pairs) == [1]
    with pytest.raises(
        PatchingError, match=r"'door' is not one token .* in the place of \[MASK\] in '\[MASK\] the door'"
    ):
        objective_values(model, pairs[:1])


def test_words_that_are_one_token_to_the_model_cannot_be_told_apart(masked_lm):
    pair = StatementPair("It is [MASK].", "It is not [MASK].", "open", "Open")
    assert "the same for the model" in answerable(masked_lm[1], [pair]).unanswerable[0]


@pytest.mark.parametrize(
    ("target", "foil", "reason"), [("open", "closed", "not a label"), ("yes", "yes", "both 'yes'")]
)
def test_labels_that_cannot_be_told_apart_are_named(classifier, target, foil, reason):
    _, model = classifier
    pair = StatementPair("The door is open.", "The door is not open.", target, foil)
    assert reason in answerable(model, [pair]).unanswerable[0]


WHOLE_TINY = [whole(of) for of in TINY]
WHOLE_EQUAL = whole(TINY_EQUAL)
LABELLED_TINY = [answering(of, "LABEL_0", "LABEL_2") for of in TINY]
WITH_HEAD = {"masked_lm": TINY, "classification": LABELLED_TINY}


def their_logits(theirs, pair, text):
    """Hugging Face's logits of one statement: at the mask, or of the labels."""
    tokenizer = tiny_models.tokenizer()
    encoded = tokenizer(text, return_tensors="pt")
    with torch.no_grad():
        logits = theirs(**encoded).logits[0]
    if logits.ndim == 1:
        return logits, ["LABEL_0", "LABEL_1", "LABEL_2"].index(pair.target)
    at = encoded["input_ids"][0].tolist().index(tokenizer.mask_token_id)
    return logits[at], tokenizer.convert_tokens_to_ids(pair.target)


@pytest.mark.parametrize("head", WITH_HEAD)
def test_target_probability_is_hugging_faces_softmax(head):
    theirs, model = tiny_models.pair("bert", head, torch.float64)
    pairs = [of.pair for of in WITH_HEAD[head]]
    values = objective_values(model, pairs, target_probability).to_dataframe()
    for index, pair in enumerate(pairs):
        for side in ("original", "counterfactual"):
            logits, target = their_logits(theirs, pair, getattr(pair, side))
            assert values.loc[index, side] == pytest.approx(logits.softmax(dim=0)[target].item(), abs=1e-11)


@pytest.mark.parametrize("direction", ["noising", "denoising"])
@pytest.mark.parametrize("head", WITH_HEAD)
def test_kl_divergence_is_from_the_unpatched_distribution_to_the_runs(head, direction):
    theirs, model = tiny_models.pair("bert", head, torch.float64)
    known = WITH_HEAD[head]
    result = patch_sweep(
        model, [of.pair for of in known], "mlp_out", by="role", direction=direction, objective=kl_divergence
    )
    for index, of in enumerate(known):
        base, source = (their_logits(theirs, of.pair, text)[0].softmax(dim=0).numpy() for text in of.texts(direction))
        assert result["base"].values[index] == pytest.approx(0, abs=1e-13)
        # In nats, and not the other way round, which would be another number.
        assert result["source"].values[index] == pytest.approx(rel_entr(base, source).sum(), abs=1e-12)
        assert abs(rel_entr(base, source).sum() - rel_entr(source, base).sum()) > 1e-5

        def divergence(model, pair, text, base=base):
            position = slow_patching.inputs(model, text)[0][0].tolist().index(4) if head == "masked_lm" else None
            clean = torch.distributions.Categorical(torch.as_tensor(base))

            def read(outputs):
                logits = outputs if position is None else outputs[:, position]
                return torch.distributions.kl_divergence(clean, torch.distributions.Categorical(logits=logits))

            return read

        expected = slow_patching.swaps(model, of, "mlp_out", ("role",), direction, objective=divergence)
        np.testing.assert_allclose(result["patched"].values[index], expected, atol=1e-11)


@pytest.mark.parametrize("head", WITH_HEAD)
def test_a_patchs_target_probability_is_that_of_its_whole_forward_pass(head):
    model = slow_patching.tiny_model("bert", head)

    def probability(model, pair, text):
        if model.cfg.head == "classification":
            return lambda logits: logits.softmax(dim=-1)[:, list(model.cfg.labels).index(pair.target)]
        position = slow_patching.inputs(model, text)[0][0].tolist().index(model.tokenizer.mask_token_id)
        target = model.tokenizer.convert_tokens_to_ids(pair.target)
        return lambda logits: logits[:, position].softmax(dim=-1)[:, target]

    known = WITH_HEAD[head]
    result = patch_sweep(model, [of.pair for of in known], "v", by="role", objective=target_probability)
    assert result.attrs["objective"] == "target_probability"
    for index, of in enumerate(known):
        expected = slow_patching.swaps(model, of, "v", ("role",), "noising", objective=probability)
        np.testing.assert_allclose(result["patched"].values[index], expected, atol=1e-11)


def test_cosine_to_a_sentence_is_that_of_hugging_faces_embeddings():
    theirs, model = tiny_models.pair("bert", "none", torch.float64)
    reference = "Really, the house is closed."

    def embedded(text):
        encoded = tiny_models.tokenizer()(text, return_tensors="pt")
        with torch.no_grad():
            return tiny_models.hf_output(theirs, "none", encoded)[0].numpy()

    def cosine(model, pair, text):
        there = embedded(reference)
        norm = np.linalg.norm(there)
        return lambda e: torch.as_tensor([float(row @ there / np.linalg.norm(row) / norm) for row in e.numpy()])

    result = patch_sweep(
        model, [of.pair for of in WHOLE_TINY], "z", by=("role", "head"), objective=cosine_to(reference)
    )
    assert result.attrs["objective"] == f"cosine to {reference!r}"
    for index, of in enumerate(WHOLE_TINY):
        for side, text in zip(("base", "source"), of.texts("noising"), strict=True):
            here, there = embedded(text), embedded(reference)
            expected = here @ there / np.linalg.norm(here) / np.linalg.norm(there)
            assert result[side].values[index] == pytest.approx(expected, abs=1e-12)
        expected = slow_patching.swaps(model, of, "z", ("head", "role"), "noising", objective=cosine)
        np.testing.assert_allclose(result["patched"].values[index], expected, atol=1e-11)


def test_a_sentence_is_as_near_to_itself_as_can_be():
    model = slow_patching.tiny_model("bert", "none")
    pair = WHOLE_TINY[0].pair
    value = objective_values(model, [pair], cosine_to(pair.original)).to_dataframe().loc[0]
    assert value["original"] == pytest.approx(1, abs=1e-13)
    assert value["counterfactual"] < 1 - 1e-5


def own_difference(model):
    """The default objective written as a user would."""

    def of_words(logits, pairs):
        tokenizer = model.tokenizer
        values = []
        for of_run, pair in zip(logits, pairs, strict=True):
            # In the direction of noising.
            at = tokenizer(pair.original)["input_ids"].index(tokenizer.mask_token_id)
            target, foil = tokenizer.convert_tokens_to_ids([pair.target, pair.foil])
            values.append(of_run[at, target] - of_run[at, foil])
        return torch.stack(values)

    def of_labels(logits, pairs):
        targets, foils = ([int(getattr(pair, name)[-1]) for pair in pairs] for name in ("target", "foil"))
        rows = range(len(pairs))
        return logits[rows, targets] - logits[rows, foils]

    def of_embeddings(embeddings, pairs):
        with torch.no_grad():
            original, counterfactual = (
                model([getattr(p, side) for p in pairs]) for side in ("original", "counterfactual")
            )
        return F.cosine_similarity(embeddings, original) - F.cosine_similarity(embeddings, counterfactual)

    return {"masked_lm": of_words, "classification": of_labels, "none": of_embeddings}[model.cfg.head]


@pytest.mark.parametrize("head", tiny_models.HEADS)
@pytest.mark.parametrize("site", ["embed", "k", "normalized_resid_post"])
def test_an_objective_of_ones_own_equals_the_built_in_one(head, site):
    model = slow_patching.tiny_model("bert", head)
    pairs = [of.pair for of in WITH_HEAD.get(head, WHOLE_TINY)]
    function = own_difference(model)
    own = patch_sweep(model, pairs, site, by="role", objective=objective_from(function))
    built_in = patch_sweep(model, pairs, site, by="role")
    assert own.attrs["objective"] == function.__name__
    # The source of a masked LM has its mask elsewhere, which this function does not ask.
    for name in ("patched", "base") if head == "masked_lm" else ("patched", "base", "source"):
        np.testing.assert_allclose(own[name], built_in[name], atol=1e-11, err_msg=name)
    assert abs(own["patched"] - own["base"]).max() > 1e-3


@pytest.mark.parametrize("site", ["z", "normalized_resid_post"])
def test_an_objective_of_ones_own_may_count_or_say_yes_and_no(tiny, site):
    def positive(logits, pairs):
        return logits[:, 0, 0] > 0

    def best(logits, pairs):
        return logits[:, 0].argmax(dim=-1)

    for function in (positive, best):
        result = patch_sweep(tiny, [of.pair for of in TINY], site, by="role", objective=objective_from(function))
        for index, of in enumerate(TINY):
            expected = slow_patching.swaps(
                tiny, of, site, ("role",), "noising", objective=lambda *_, function=function: lambda o: function(o, [])
            )
            np.testing.assert_array_equal(result["patched"].values[index], expected)


@pytest.mark.parametrize(
    ("function", "found"),
    [
        (lambda logits, pairs: logits.sum(), r"a tensor \[\]"),
        (lambda logits, pairs: logits[:, :1, 0], r"a tensor \[1, 1\]"),
        (lambda logits, pairs: logits, r"a tensor \[1, 14, 40\]"),
        (lambda logits, pairs: logits[:0, 0, 0], r"a tensor \[0\]"),
        (lambda logits, pairs: 1.5, "float"),
        (lambda logits, pairs: None, "NoneType"),
        (lambda logits, pairs: logits[:, 0, 0].numpy(), "ndarray"),
        (lambda logits, pairs: logits[:, 0, 0].tolist(), "list"),
    ],
)
def test_an_objective_of_ones_own_that_is_not_one_number_a_run_is_a_clear_error(tiny, function, found):
    with pytest.raises(PatchingError, match=f"<lambda> returned {found} for 1 runs; .* one number per run"):
        patch_sweep(tiny, TINY_EQUAL.pair, "mlp_out", by="position", objective=objective_from(function))


def test_an_objective_of_ones_own_that_is_nan_is_a_clear_error(tiny):
    broken = objective_from(lambda logits, pairs: logits[:, 0, 0] * torch.nan)
    with pytest.raises(PatchingError, match="returned NaN for a run of"):
        patch_sweep(tiny, TINY_EQUAL.pair, "mlp_out", by="position", objective=broken)


@pytest.mark.parametrize(
    ("head", "objective", "message"),
    [
        ("classification", logit_difference, "has no masked-LM head"),
        ("none", logit_difference, "has no masked-LM head"),
        ("masked_lm", class_logit_difference, "is not a classifier"),
        ("none", class_logit_difference, "is not a classifier"),
        ("none", target_probability, "has no masked-LM head"),
        ("none", kl_divergence, "has no masked-LM head"),
        ("masked_lm", embedding_contrast, "has a head, but this objective is for models without one"),
        ("classification", embedding_contrast, "has a head, but this objective is for models without one"),
        ("masked_lm", cosine_to("The door is open."), "has a head, but this objective is for models without one"),
    ],
)
def test_an_objective_for_another_head_is_a_clear_error(head, objective, message):
    with pytest.raises(PatchingError, match=message):
        patch_sweep(slow_patching.tiny_model("bert", head), TINY_EQUAL.pair, "z", by="head", objective=objective)


@pytest.mark.parametrize(
    ("objective", "pair", "message"),
    [
        (target_probability, StatementPair("It is [MASK].", "It is not [MASK]."), "no target"),
        (target_probability, StatementPair("It is [MASK].", "It is not [MASK].", "unfathomableness"), "not one token"),
        (target_probability, StatementPair("It is good.", "It is not good.", "good"), "0 mask tokens"),
        (kl_divergence, StatementPair("It is good.", "It is not [MASK]."), "0 mask tokens"),
        (kl_divergence, StatementPair("It is [MASK].", "[MASK] is not [MASK]."), "2 mask tokens"),
    ],
)
def test_a_pair_that_an_objective_cannot_be_read_of_is_a_clear_error(masked_lm, objective, pair, message):
    with pytest.raises(PatchingError, match=message):
        patch_sweep(masked_lm[1], pair, "resid_pre", by="position", objective=objective)


def test_a_probability_needs_no_foil_and_a_divergence_no_answer(masked_lm):
    pair = StatementPair("It is [MASK].", "It is not [MASK].", "good")
    for objective in (target_probability, kl_divergence):
        result = patch_sweep(masked_lm[1], pair, "resid_pre", by="role", objective=objective)
        assert result["source"].notnull().all()


def test_a_label_that_a_probability_is_asked_of_has_to_exist(classifier):
    pair = StatementPair("The door is open.", "The door is not open.", "open")
    with pytest.raises(PatchingError, match="not a label of this model; its labels are yes, no, maybe"):
        patch_sweep(classifier[1], pair, "resid_pre", by="position", objective=target_probability)


def pipeline_scores(theirs, text):
    """What Hugging Face's pipeline makes of each label."""
    pipeline = TextClassificationPipeline(
        model=theirs, tokenizer=tiny_models.tokenizer(), top_k=None, device="cpu", dtype=torch.float64
    )
    return {one["label"]: one["score"] for one in pipeline([text])[0]}


PROBLEMS = [
    (1, None),
    (1, "multi_label_classification"),
    (3, "multi_label_classification"),
    (3, "single_label_classification"),
    (3, None),
]


@pytest.mark.parametrize(("n_labels", "problem_type"), PROBLEMS)
def test_target_probability_is_the_score_of_hugging_faces_pipeline_for_every_problem_type(n_labels, problem_type):
    theirs, model = tiny_models.pair(
        "bert", "classification", torch.float64, num_labels=n_labels, problem_type=problem_type
    )
    pairs = [replace(WHOLE_EQUAL.pair, target=f"LABEL_{i}", foil=None) for i in range(n_labels)]
    values = objective_values(model, pairs, target_probability).to_dataframe()
    for index, pair in enumerate(pairs):
        for side in ("original", "counterfactual"):
            expected = pipeline_scores(theirs, getattr(pair, side))[f"LABEL_{index}"]
            assert values.loc[index, side] == pytest.approx(expected, abs=1e-6)
            # Neither 1 whatever is read, nor another function that comes near.
            assert 0.01 < expected < 0.99


@pytest.mark.parametrize("n_labels", [1, 3])
def test_labels_that_can_hold_together_diverge_by_the_sum_over_labels(n_labels):
    theirs, model = tiny_models.pair(
        "bert", "classification", torch.float64, num_labels=n_labels, problem_type="multi_label_classification"
    )
    source = objective_values(model, [WHOLE_EQUAL.pair], kl_divergence).to_dataframe().loc[0, "counterfactual"]
    base, other = (
        torch.distributions.Bernoulli(
            logits=theirs(**tiny_models.tokenizer()(text, return_tensors="pt")).logits[0].detach()
        )
        for text in WHOLE_EQUAL.texts("noising")
    )
    assert source == pytest.approx(torch.distributions.kl_divergence(base, other).sum().item(), abs=1e-12)


@pytest.mark.parametrize("problem_type", [None, "regression", "multi_label_classification"])
@pytest.mark.parametrize("pair", [WHOLE_EQUAL.pair, StatementPair("The door is open.", "The door is not open.")])
def test_a_model_of_one_logit_is_patched_by_that_logit(problem_type, pair):
    theirs, model = tiny_models.pair("bert", "classification", torch.float64, num_labels=1, problem_type=problem_type)
    assert default_objective(model) is single_logit
    assert answerable(model, [pair]).pairs == {0: pair}
    result = patch_sweep(model, pair, "resid_pre", by="role", direction="denoising")
    assert result.attrs["objective"] == "single_logit"
    for name, text in (("source", pair.original), ("base", pair.counterfactual)):
        with torch.no_grad():
            logit = theirs(**tiny_models.tokenizer()(text, return_tensors="pt")).logits.item()
        assert result[name].item() == pytest.approx(logit, abs=1e-11)
    assert abs(result["patched"] - result["base"]).max() > 1e-3


@pytest.mark.parametrize(
    ("n_labels", "problem_type", "objective", "message"),
    [
        (1, "regression", target_probability, "regression model, .* use single_logit"),
        (1, "regression", kl_divergence, "regression model, .* use single_logit"),
        (3, "regression", target_probability, "regression model, .* use class_logit_difference"),
        (1, None, class_logit_difference, "single logit, so it has no logit difference; use single_logit"),
        (3, None, single_logit, "has 3 labels; use class_logit_difference"),
    ],
)
def test_what_a_classifier_of_another_problem_type_lacks_is_a_clear_error(n_labels, problem_type, objective, message):
    _, model = tiny_models.pair("bert", "classification", num_labels=n_labels, problem_type=problem_type)
    pair = StatementPair("The door is open.", "The door is not open.", "LABEL_0", "LABEL_0")
    with pytest.raises(PatchingError, match=message):
        patch_sweep(model, pair, "z", by="head", objective=objective)


@pytest.mark.parametrize("problem_type", ["multi_label_classification", "regression"])
def test_labels_that_do_not_exclude_each_other_are_not_chosen_for_a_pair(problem_type):
    _, model = tiny_models.pair("bert", "classification", problem_type=problem_type)
    unnamed = StatementPair("The door is open.", "The door is not open.")
    named = StatementPair("The door is open.", "The door is not open.", "LABEL_0", "LABEL_2")
    sorted_out = answerable(model, [unnamed, named])
    assert sorted_out.unanswerable == {0: "the pair has no target or foil"}
    assert sorted_out.pairs == {1: named}


def test_labels_are_found_in_any_case_but_a_label_spelled_exactly_comes_first(tokenizer):
    def labelled(*labels):
        torch.manual_seed(0)
        config = BertConfig(
            vocab_size=len(tokenizer), hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8,
            id2label=dict(enumerate(labels)), initializer_range=0.5,
        )  # fmt: skip
        theirs = BertForSequenceClassification(config).eval()
        return theirs, HookedEncoder.from_pretrained(theirs, tokenizer=tokenizer, device="cpu")

    texts = ("The door is open.", "The door is not open.")
    theirs, model = labelled("CONTRADICTION", "NEUTRAL", "ENTAILMENT")
    pair = StatementPair(*texts, "entailment", "Neutral")
    assert answerable(model, [pair]).pairs == {0: pair}
    with torch.no_grad():
        logits = theirs(**tokenizer(texts[0], return_tensors="pt")).logits[0]
    assert objective_values(model, [pair]).to_dataframe().loc[0, "original"] == pytest.approx(
        (logits[2] - logits[1]).item(), abs=1e-5
    )
    same = StatementPair(*texts, "entailment", "ENTAILMENT")
    assert "the same for the model" in answerable(model, [same]).unanswerable[0]

    theirs, model = labelled("yes", "Yes", "no")
    with torch.no_grad():
        logits = theirs(**tokenizer(texts[0], return_tensors="pt")).logits[0]
    pairs = [StatementPair(*texts, "Yes", "NO"), StatementPair(*texts, "YES", "no")]
    assert objective_values(model, pairs[:1]).to_dataframe().loc[0, "original"] == pytest.approx(
        (logits[1] - logits[2]).item(), abs=1e-5
    )
    assert "'YES' is not a label" in answerable(model, pairs).unanswerable[1]


@pytest.mark.parametrize("hooked", [False, True])
@pytest.mark.parametrize("family", ["modernbert", "modernbert-biased"])
def test_a_prediction_head_of_the_first_or_the_mean_state_is_read_as_hugging_face_reads_it(family, hooked):
    """In a padded batch, whose texts Hugging Face reads one by one."""
    theirs, model = tiny_models.pair(family, "classification", torch.float64)
    assert (model.cfg.classifier_pooling == "mean") == (family == "modernbert-biased")
    pairs = [answering(of, *model.cfg.labels[:2]).pair for of in TINY]
    if hooked:
        model.add_hook("classifier.ln.hook_normalized", lambda activation, hook: activation.clone())
    found = {
        objective: objective_values(model, pairs, objective)
        for objective in (class_logit_difference, target_probability, kl_divergence)
    }
    for index, pair in enumerate(pairs):
        with torch.no_grad():
            logits = {
                side: theirs(torch.tensor([model.tokenizer(getattr(pair, side))["input_ids"]])).logits[0]
                for side in ("original", "counterfactual")
            }
        base = logits["original"].softmax(dim=-1)
        for side, answer in logits.items():
            probability = answer.softmax(dim=-1)
            expected = {
                class_logit_difference: answer[0] - answer[1],
                target_probability: probability[0],
                kl_divergence: rel_entr(base.numpy(), probability.numpy()).sum(),
            }
            for objective, value in expected.items():
                assert found[objective][side].values[index] == pytest.approx(float(value), abs=1e-10)
    chosen = answerable(model, [replace(pair, target=None, foil=None) for pair in pairs])
    for index, pair in enumerate(pairs):
        with torch.no_grad():
            ids = [torch.tensor([model.tokenizer(text)["input_ids"]]) for text in (pair.original, pair.counterfactual)]
            predicted = [model.cfg.labels[int(theirs(one).logits.argmax())] for one in ids]
        if index in chosen.own_labels:
            assert [chosen.pairs[index].target, chosen.pairs[index].foil] == predicted
        else:
            assert index in chosen.same_labels and len(set(predicted)) == 1


@pytest.mark.parametrize("pooling, pool_from", [("cls", 0), ("cls", 3), ("lasttoken", 0), ("max", 3)])
def test_an_encoders_prompt_and_modules_after_pooling_are_patched_as_whole_forward_passes(pooling, pool_from):
    """The texts of two lengths are in one batch; the objective reads the embedding after the modules."""
    _, plain = tiny_models.pair("bert", "none", torch.float64)
    steps = (DenseStep(24, 7, act_fn="GELU"), LayerNormStep(7))
    cfg = replace(plain.cfg, pooling=pooling, pool_from=pool_from, embedding_steps=steps, prompt="it is, ")
    model = HookedEncoder(cfg, plain.tokenizer)
    model.load_state_dict(plain.state_dict(), strict=False)
    generator = torch.Generator().manual_seed(2)
    for parameter in model.embedding_head.parameters():
        torch.nn.init.normal_(parameter, generator=generator)
    pair = StatementPair("the door is now open", "the door is not open")
    longer = StatementPair("the door is now open and red", "the door is not open and red")
    result = patch_sweep(model, [pair, longer], "mlp_out", by="position", direction="denoising")
    assert result.attrs["objective"] == "embedding_contrast"
    with torch.no_grad():
        original, cache = model.run_with_cache(pair.original)
        counterfactual = model(pair.counterfactual)
    assert original.shape == (1, 7)
    moved = []
    for layer in range(model.cfg.n_layers):
        for position in range(len(tokenize(pair.original, model.tokenizer))):

            def swap(activation, hook, position=position):
                activation[:, position] = cache[hook.name][:, position]
                return activation

            patched = model.run_with_hooks(pair.counterfactual, fwd_hooks=[(f"blocks.{layer}.hook_mlp_out", swap)])
            to_original, to_counterfactual = (F.cosine_similarity(patched, e) for e in (original, counterfactual))
            ours = result["patched"].sel(pair=0, layer=layer, position=position).item()
            assert ours == pytest.approx((to_original - to_counterfactual).item(), abs=1e-9)
            moved.append(abs(ours - result["base"].sel(pair=0).item()))
    assert max(moved) > 1e-3


def test_a_hook_on_the_modules_after_pooling_changes_the_objective():
    _, plain = tiny_models.pair("bert", "none", torch.float64)
    model = HookedEncoder(replace(plain.cfg, pooling="cls", embedding_steps=(DenseStep(24, 7),)), plain.tokenizer)
    model.load_state_dict(plain.state_dict(), strict=False)
    torch.nn.init.normal_(model.embedding_head.steps[0].W, generator=torch.Generator().manual_seed(2))
    torch.nn.init.zeros_(model.embedding_head.steps[0].b)
    pair = StatementPair("the door is open", "the door is not open")
    before = objective_values(model, [pair], cosine_to("the door")).to_dataframe().loc[0, "original"]

    kept = torch.tensor([0.0, 1, 1, 1, 1, 1, 1], dtype=torch.float64)

    def after_and_expected():
        after = objective_values(model, [pair], cosine_to("the door")).to_dataframe().loc[0, "original"]
        with torch.no_grad():
            return after, F.cosine_similarity(model("the door is open"), model("the door")).item()

    with model.hooks([("embedding_head.steps.0.hook_post", lambda embedding, hook: embedding * kept)]):
        after, expected = after_and_expected()
    assert after == pytest.approx(expected, abs=1e-9) and abs(after - before) > 1e-4
    # PyTorch's own hooks, too, of which a call of the whole head is the only place.
    handle = model.embedding_head.register_forward_hook(lambda module, inputs, embedding: embedding * kept)
    after, expected = after_and_expected()
    handle.remove()
    assert after == pytest.approx(expected, abs=1e-9) and abs(after - before) > 1e-4


def test_labels_predicted_beside_a_longer_statement_are_those_predicted_alone():
    _, model = tiny_models.pair("modernbert-biased", "classification", torch.float64)
    pair = StatementPair("it is red", "it is not red and the big door is not open now")
    seen = set()
    for seed in range(20):
        torch.nn.init.normal_(model.classifier.W_label, generator=torch.Generator().manual_seed(seed))
        alone = [model(text, "predictions") for text in (pair.original, pair.counterfactual)]
        found = answerable(model, [pair])
        if alone[0] == alone[1]:
            assert found.same_labels == (0,)
        else:
            assert [found.pairs[0].target, found.pairs[0].foil] == alone
        seen.add(tuple(alone))
    assert len(seen) > 3
