"""The same numbers as Hugging Face's eager model: outputs, every hidden state, every attention pattern."""

from pathlib import Path

import pytest
import torch
import transformers
from torch import Tensor
from transformers import PreTrainedModel

from negprobe import HookedEncoder
from tests.support import tiny_models
from tests.support.parity import differences
from tests.support.tiny_models import FAMILIES, HEADS, largest_difference

DTYPES = {"float32": (torch.float32, 1e-5), "float64": (torch.float64, 1e-10)}
SENTENCES = [
    "The door is not open.",
    "The door is open, and nobody has ever closed it since the house was built in nineteen twelve.",
    "No.",
]


@pytest.fixture(params=DTYPES)
def precision(request: pytest.FixtureRequest) -> tuple[torch.dtype, float]:
    return DTYPES[request.param]


@torch.no_grad()
def assert_same(
    theirs: PreTrainedModel, ours: HookedEncoder, inputs: dict[str, Tensor], head: str, tolerance: float
) -> None:
    """Compare the output, the embeddings' sum, every block's output and every pattern, where tokens are real."""
    found = differences(theirs, ours, inputs, head)
    assert max(found.values()) < tolerance, found
    real = inputs["attention_mask"].bool()
    for attention in theirs(**inputs, output_attentions=True).attentions:
        # Neither uniform nor one-hot, either of which could hide a wrong score.
        peak = attention.amax(dim=-1).transpose(1, 2)[real]
        uniform = (1 / real.sum(dim=1))[:, None].expand(real.shape)[real]
        assert (peak.mean(dim=-1) - uniform).mean() > 0.05 and peak.mean() < 0.98


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_and_head_on_a_padded_batch(family: str, head: str, precision: tuple[torch.dtype, float]) -> None:
    dtype, tolerance = precision
    theirs, ours = tiny_models.pair(family, head, dtype)
    tokens = tiny_models.token_batch(theirs.config.pad_token_id)
    assert_same(theirs, ours, tiny_models.hf_inputs(theirs, tokens), head, tolerance)
    # And without a single padding token.
    assert_same(theirs, ours, tiny_models.hf_inputs(theirs, tokens[:1]), head, tolerance)


@pytest.mark.parametrize("family", FAMILIES)
def test_padding_on_the_left(family: str, precision: tuple[torch.dtype, float]) -> None:
    dtype, tolerance = precision
    theirs, ours = tiny_models.pair(family, "masked_lm", dtype)
    tokens = tiny_models.token_batch(theirs.config.pad_token_id).flip(1)
    assert_same(theirs, ours, tiny_models.hf_inputs(theirs, tokens), "masked_lm", tolerance)


@pytest.mark.parametrize(
    "family",
    ["bert", "electra", "electra-narrow", "albert", "ernie-tasks", "megatron-bert", "nomic", "gte-types", "jina"],
)
@pytest.mark.parametrize("head", HEADS)
def test_token_types(family: str, head: str, precision: tuple[torch.dtype, float]) -> None:
    dtype, tolerance = precision
    theirs, ours = tiny_models.pair(family, head, dtype)
    tokens = tiny_models.token_batch(theirs.config.pad_token_id)
    types = (torch.arange(tokens.shape[1]) > 1).long().expand_as(tokens)
    inputs = tiny_models.hf_inputs(theirs, tokens, token_type_ids=types)
    assert_same(theirs, ours, inputs, head, tolerance)
    assert largest_difference(ours(tokens, token_type_ids=types), ours(tokens)) > 1e-2


@pytest.mark.sampled(4)
@pytest.mark.parametrize("activation", ["gelu_new", "relu", "silu"])
@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("family", ["bert", "distilbert", "roberta", "electra-narrow"])
def test_other_activations(family: str, head: str, activation: str) -> None:
    field = "activation" if family == "distilbert" else "hidden_act"
    theirs, ours = tiny_models.pair(family, head, torch.float64, **{field: activation})
    tokens = tiny_models.token_batch(theirs.config.pad_token_id)
    assert_same(theirs, ours, tiny_models.hf_inputs(theirs, tokens), head, 1e-10)


@pytest.mark.parametrize("layers, groups, inner", [(7, 3, 1), (3, 2, 2), (10, 7, 1), (2, 2, 2), (2, 1, 3)])
def test_any_groups_of_layers_that_share_weights(layers: int, groups: int, inner: int) -> None:
    sizes = {"num_hidden_layers": layers, "num_hidden_groups": groups, "inner_group_num": inner}
    theirs, ours = tiny_models.pair("albert", "masked_lm", torch.float64, **sizes)
    assert ours.cfg.n_layers == layers * inner and len(ours.cfg.weight_layers) == groups * inner
    tokens = tiny_models.token_batch(theirs.config.pad_token_id)
    assert_same(theirs, ours, tiny_models.hf_inputs(theirs, tokens), "masked_lm", 1e-10)


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("family", FAMILIES)
def test_a_padded_batch_gives_each_text_what_it_gets_alone(family: str, head: str) -> None:
    theirs, ours = tiny_models.pair(family, head, torch.float64)
    lengths = (9, 5, 3)
    tokens = tiny_models.token_batch(theirs.config.pad_token_id, lengths)
    together, cache = ours.run_with_cache(tokens)
    for row, length in enumerate(lengths):
        alone, own_cache = ours.run_with_cache(tokens[row : row + 1, :length])
        mine = together[row : row + 1, :length] if head == "masked_lm" else together[row : row + 1]
        assert largest_difference(mine, alone) < 1e-12
        for layer in range(ours.cfg.n_layers):
            pattern = cache["pattern", layer][row]
            assert pattern[:, :length, length:].abs().max() == 0 if length < max(lengths) else True
            assert largest_difference(pattern[:, :length, :length], own_cache["pattern", layer][0]) < 1e-12


def test_sentence_pairs_as_text() -> None:
    theirs, ours = tiny_models.pair("bert", "classification")
    premises, hypotheses = ["The door is not open.", "It is red"], ["the door is closed", "a big, red house?"]
    encoded = tiny_models.tokenizer()(premises, hypotheses, padding=True, return_tensors="pt")
    assert encoded["token_type_ids"].any()
    pairs = list(zip(premises, hypotheses, strict=True))
    with torch.no_grad():
        expected = theirs(**encoded).logits
        assert largest_difference(ours(pairs), expected) < 1e-5
        assert largest_difference(ours(pairs[0]), expected[:1]) < 1e-5
        assert largest_difference(ours([" ".join(both) for both in pairs]), expected) > 1e-2


@pytest.fixture(scope="module")
def minilm(minilm_path: Path) -> HookedEncoder:
    return HookedEncoder.from_pretrained(minilm_path, device="cpu")


def test_real_encoder(minilm_path: Path, precision: tuple[torch.dtype, float]) -> None:
    dtype, tolerance = precision
    theirs = transformers.BertModel.from_pretrained(minilm_path, attn_implementation="eager", dtype=dtype).eval()
    ours = HookedEncoder.from_pretrained(minilm_path, device="cpu", dtype=dtype)
    encoded = transformers.AutoTokenizer.from_pretrained(minilm_path)(SENTENCES, padding=True, return_tensors="pt")
    mask = encoded["attention_mask"]
    assert ours.cfg.pooling == "mean" and ours.cfg.normalize
    ours.cfg.normalize = False  # assert_same pools by hand and does not normalise
    assert not mask.all()
    assert_same(theirs, ours, dict(encoded), "none", tolerance)


def test_real_encoder_embeds_as_sentence_transformers_does(minilm_path: Path, minilm: HookedEncoder) -> None:
    sentence_transformers = pytest.importorskip(
        "sentence_transformers", reason="needs: pip install sentence-transformers"
    )
    reference = sentence_transformers.SentenceTransformer(str(minilm_path), device="cpu")
    expected = reference.encode(SENTENCES, convert_to_tensor=True)
    with torch.no_grad():
        assert largest_difference(minilm(SENTENCES), expected) < 1e-5
        for sentence, embedding in zip(SENTENCES, expected, strict=True):
            assert largest_difference(minilm(sentence), embedding[None]) < 1e-5
