"""What goes in and comes out: texts, pairs, token ids, masks, predictions, and one clear error for what is wrong."""

from collections.abc import Iterator

import jaxtyping
import pytest
import torch

from negprobe import HookedEncoder
from negprobe.base.errors import InputError
from tests.support import tiny_models
from tests.support.tiny_models import D_MODEL, D_VOCAB, N_CTX, largest_difference


@pytest.fixture(scope="module")
def bert() -> HookedEncoder:
    return tiny_models.pair("bert", "masked_lm", torch.float64)[1]


@pytest.fixture(scope="module")
def classifier() -> HookedEncoder:
    return tiny_models.pair("bert", "classification", torch.float64)[1]


@pytest.fixture
def unchecked_shapes() -> Iterator[None]:
    """As users run it: without the tests' runtime check of annotations, which would speak up first."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@torch.no_grad()
def test_a_text_a_list_and_token_ids_are_one_input(bert: HookedEncoder) -> None:
    texts = ["The door is not open.", "a house"]
    tokens, types, mask = bert.to_tokens(texts)
    assert tokens.tolist() == [[2, 5, 7, 8, 9, 10, 23, 3], [2, 6, 19, 3, 0, 0, 0, 0]]
    assert mask.tolist() == [[1] * 8, [1] * 4 + [0] * 4]
    assert types.tolist() == [[0] * 8] * 2
    from_texts = bert(texts)
    assert from_texts.shape == (2, 8, D_VOCAB)
    assert largest_difference(from_texts, bert(tokens)) == 0
    for row, (text, length) in enumerate(zip(texts, (8, 4), strict=True)):
        assert largest_difference(bert(text), from_texts[row : row + 1, :length]) < 1e-12


@torch.no_grad()
def test_a_pair_is_read_with_its_token_types(bert: HookedEncoder) -> None:
    tokens, types, mask = bert.to_tokens([("the door", "a house"), ("a dog", "it")])
    assert tokens.tolist() == [[2, 5, 7, 3, 6, 19, 3], [2, 6, 18, 3, 20, 3, 0]]
    assert types.tolist() == [[0, 0, 0, 0, 1, 1, 1], [0, 0, 0, 0, 1, 1, 0]]
    assert mask.tolist() == [[1] * 7, [1] * 6 + [0]]
    with_types = bert([("the door", "a house"), ("a dog", "it")])
    assert largest_difference(with_types, bert(tokens, token_type_ids=types)) == 0
    assert largest_difference(with_types[:1], bert(tokens[:1])) > 1e-2
    zeros = torch.zeros_like(tokens)
    assert largest_difference(bert([("the door", "a house"), ("a dog", "it")], token_type_ids=zeros), bert(tokens)) == 0


@torch.no_grad()
@pytest.mark.parametrize("family", ["distilbert", "roberta"])
def test_a_family_without_token_types_reads_pairs_as_its_own_tokenizer_says(family: str) -> None:
    theirs = tiny_models.hf_model(family, "classification")
    tokenizer = tiny_models.tokenizer(family)
    tokenizer.model_input_names = ["input_ids", "attention_mask"]
    ours = HookedEncoder.from_pretrained(theirs, tokenizer=tokenizer, device="cpu")
    encoded = tokenizer(["the door"], ["a house"], return_tensors="pt")
    assert largest_difference(ours(("the door", "a house")), theirs(**encoded).logits) < 1e-5


def test_reading_texts_leaves_the_tokenizer_as_it_was(bert: HookedEncoder) -> None:
    assert bert.tokenizer is not None
    bert.tokenizer.padding_side = "left"
    tokens, _, _ = bert.to_tokens(["the door is open", "a"])
    assert tokens[1].tolist() == [2, 6, 3, 0, 0, 0]
    assert bert.tokenizer.padding_side == "left"


@torch.no_grad()
def test_a_mask_given_by_hand_hides_tokens(bert: HookedEncoder) -> None:
    tokens = tiny_models.token_batch(0, (7,))
    mask = torch.tensor([[1, 1, 1, 1, 0, 0, 0]])
    hidden = bert(tokens, one_zero_attention_mask=mask)
    assert largest_difference(hidden[:, :4], bert(tokens[:, :4])) < 1e-12
    assert largest_difference(hidden, bert(tokens)) > 1e-2
    assert largest_difference(bert(["the door is not"], one_zero_attention_mask=torch.ones(1, 6).long()),
                              bert("the door is not")) == 0  # fmt: skip


@torch.no_grad()
def test_a_longer_text_is_an_error_unless_it_may_be_cut(bert: HookedEncoder) -> None:
    fits = " ".join(["door"] * (N_CTX - 2))
    assert bert(fits).shape[1] == N_CTX
    with pytest.raises(InputError, match=rf"Text 1 has {N_CTX + 1} tokens.*at most {N_CTX}.*'door door.*truncate=True"):
        bert(["a", fits + " door"])
    assert largest_difference(bert(fits + " door", truncate=True), bert(fits)) == 0
    tokens = tiny_models.token_batch(0, (N_CTX + 3,))
    with pytest.raises(InputError, match=rf"has {N_CTX + 3} tokens, but the model reads at most {N_CTX}"):
        bert(tokens)
    types = torch.arange(N_CTX + 3)[None] % 2
    mask = torch.ones_like(tokens)
    mask[:, 5] = 0
    cut = bert(tokens, token_type_ids=types, one_zero_attention_mask=mask, truncate=True)
    whole = bert(tokens[:, :N_CTX], token_type_ids=types[:, :N_CTX], one_zero_attention_mask=mask[:, :N_CTX])
    assert largest_difference(cut, whole) == 0


@torch.no_grad()
def test_robertas_positions_of_padding_do_not_count_as_context() -> None:
    theirs, ours = tiny_models.pair("roberta", "masked_lm", torch.float64)
    assert ours.cfg.n_ctx == N_CTX and ours.W_pos.shape[0] == N_CTX + 2
    tokens = tiny_models.token_batch(1, (N_CTX,))
    assert largest_difference(ours(tokens), theirs(tokens).logits) < 1e-10
    with pytest.raises(InputError, match=f"reads at most {N_CTX}"):
        ours(tiny_models.token_batch(1, (N_CTX + 1,)))


def test_empty_texts(bert: HookedEncoder) -> None:
    for empty in ("", "   ", ("the door", ""), ("", "the door")):
        with pytest.raises(InputError, match="Text 0 is empty"):
            bert(empty)
    with pytest.raises(InputError, match="Text 2 is empty"):
        bert(["a", "b", "\n"])
    with pytest.raises(InputError, match="no texts"):
        bert([])


def test_singles_and_pairs_do_not_mix(bert: HookedEncoder) -> None:
    for mixed in (["a", ("a", "door")], [("a", "door"), "a"]):
        with pytest.raises(InputError, match="single texts or pairs of texts, not both"):
            bert(mixed)


def test_texts_need_a_tokenizer() -> None:
    ours = HookedEncoder.from_pretrained(tiny_models.hf_model("bert"), device="cpu")
    assert ours.tokenizer is None and ours(torch.tensor([[2, 5, 3]])).shape == (1, 3, D_VOCAB)
    for call in (lambda: ours("the door"), lambda: ours.to_single_token("door")):
        with pytest.raises(InputError, match="without a tokenizer"):
            call()
    with pytest.raises(InputError, match="needs a tokenizer"):
        ours(torch.tensor([[2, 5, 3]]), return_type="predictions")


@pytest.mark.parametrize("bad, low, high", [(D_VOCAB, 3, D_VOCAB), (-1, -1, 5)])
def test_token_ids_outside_the_vocabulary(bert: HookedEncoder, bad: int, low: int, high: int) -> None:
    with pytest.raises(InputError, match=f"Token ids must be from 0 to {D_VOCAB - 1}.*got {low} to {high}"):
        bert(torch.tensor([[5, bad, 3]]))


def test_a_tokenizer_with_more_words_than_the_model() -> None:
    theirs = tiny_models.hf_model("bert")
    theirs.resize_token_embeddings(10)
    ours = HookedEncoder.from_pretrained(theirs, tokenizer=tiny_models.tokenizer(), device="cpu")
    assert ours("the door is").shape == (1, 5, 10)
    with pytest.raises(InputError, match=r"Token ids must be from 0 to 9 .*got 2 to 19"):
        ours("a house")


def test_token_types_the_model_does_not_have(bert: HookedEncoder, unchecked_shapes: None) -> None:
    tokens = torch.tensor([[2, 5, 3]])
    with pytest.raises(InputError, match=r"Token-type ids must be from 0 to 1 .*got 0 to 2"):
        bert(tokens, token_type_ids=torch.tensor([[0, 2, 0]]))
    with pytest.raises(InputError, match=r"token-type tensor must have the input's shape \[1, 3\], got \[1, 2\]"):
        bert(tokens, token_type_ids=torch.tensor([[0, 1]]))


def test_a_mask_of_another_shape(bert: HookedEncoder, unchecked_shapes: None) -> None:
    for shape in ((1, 2), (2, 3), (1, 4)):
        with pytest.raises(InputError, match=rf"shape \[1, 3\], got \[{shape[0]}, {shape[1]}\]"):
            bert(torch.tensor([[2, 5, 3]]), one_zero_attention_mask=torch.ones(shape, dtype=torch.long))
    resid = torch.zeros(1, 3, D_MODEL, dtype=torch.float64)
    with pytest.raises(InputError, match=r"mask must have .* got \[1, 2\]"):
        bert(resid, start_at_layer=1, one_zero_attention_mask=torch.ones(1, 2, dtype=torch.long))
    with pytest.raises(InputError, match=r"mask must have the input's shape \[1, 3\], got \[1, 2\]"):
        bert("a", one_zero_attention_mask=torch.ones(1, 2, dtype=torch.long))


def test_a_row_of_nothing_but_padding(bert: HookedEncoder) -> None:
    with pytest.raises(InputError, match="consists of padding only"):
        bert(torch.tensor([[2, 5, 3], [0, 0, 0]]))
    with pytest.raises(InputError, match="consists of padding only"):
        bert(torch.tensor([[2, 5, 3]]), one_zero_attention_mask=torch.zeros(1, 3, dtype=torch.long))


def test_a_tensor_that_is_no_batch_of_token_ids(bert: HookedEncoder) -> None:
    for tensor in (torch.zeros(1, 0, dtype=torch.long), torch.zeros(1, 4, D_MODEL, dtype=torch.float64)):
        with pytest.raises(InputError, match=r"integer tensor of shape \[batch, pos\].*start_at_layer"):
            bert(tensor)


def test_a_resumed_block_needs_its_own_input(bert: HookedEncoder) -> None:
    wrong = (
        torch.tensor([[2, 5, 3]]),
        "the door",
        torch.zeros(1, 3, D_MODEL + 1, dtype=torch.float64),
    )
    for input in wrong:
        with pytest.raises(InputError, match=rf"start_at_layer.*\[batch, pos, {D_MODEL}\]"):
            bert(input, start_at_layer=1)


@torch.no_grad()
def test_predicted_words(bert: HookedEncoder) -> None:
    texts = ["the door is [MASK] .", "a [MASK] is [MASK]"]
    logits = bert(texts)
    tokenizer = tiny_models.tokenizer()
    first = tokenizer.decode(logits[0, 4].argmax())
    second = tokenizer.decode([logits[1, 2].argmax(), logits[1, 4].argmax()])
    assert bert(texts, return_type="predictions") == [first, second]
    assert bert(texts[0], return_type="predictions") == first
    assert bert(bert.to_tokens(texts)[0], return_type="predictions") == [first, second]
    with pytest.raises(InputError, match=r"\[MASK\]; every text must contain one"):
        bert(["the [MASK]", "the door"], return_type="predictions")
    resid = bert("the [MASK]", stop_at_layer=1)
    with pytest.raises(InputError, match="not a residual stream"):
        bert(resid, start_at_layer=1, return_type="predictions")


@torch.no_grad()
def test_predicted_labels() -> None:
    theirs = tiny_models.hf_model("bert", "classification")
    theirs.config.id2label = {0: "entailment", 1: "neutral", 2: "contradiction"}
    ours = HookedEncoder.from_pretrained(theirs, tokenizer=tiny_models.tokenizer(), device="cpu")
    assert ours.cfg.labels == ("entailment", "neutral", "contradiction")
    pairs = [("the door", "a"), ("a red dog", "it is open"), ("never", "so big . now")]
    best = [ours.cfg.labels[i] for i in ours(pairs).argmax(dim=-1)]
    assert ours(pairs, return_type="predictions") == best
    assert ours(pairs[1], return_type="predictions") == best[1]
    assert ours(ours(pairs[0], stop_at_layer=2), start_at_layer=2, return_type="predictions") == best[0]


def test_other_return_types(bert: HookedEncoder, classifier: HookedEncoder) -> None:
    assert bert("the door", return_type=None) is None
    for changes, why in (
        ({"num_labels": 1}, "has one logit"),
        ({"problem_type": "regression"}, "is a regression model"),
        ({"problem_type": "multi_label_classification"}, "labels that do not exclude each other"),
    ):
        model = tiny_models.pair("bert", "classification", **changes)[1]
        with pytest.raises(InputError, match=f"{why}.* read its logits"):
            model("the door", return_type="predictions")
    with pytest.raises(InputError, match="no predictions"):
        tiny_models.pair("bert", "none")[1]("the door", return_type="predictions")


def test_single_tokens(bert: HookedEncoder) -> None:
    assert bert.to_single_token("open") == 10
    with pytest.raises(InputError, match=r"'big door' is not a single token.*\['big', 'door'\]"):
        bert.to_single_token("big door")
    with pytest.raises(InputError, match=r"'zebra' is not a single token.*UNK"):
        bert.to_single_token("zebra")
