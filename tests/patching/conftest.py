"""A small masked LM and a small classifier with random weights and a real tokenizer."""

import pytest
import torch
from transformers import AutoTokenizer, BertConfig, BertForMaskedLM, BertForSequenceClassification

from negprobe import HookedEncoder
from tests.support import tiny_models

SMALL = {
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    # Wide enough that attention is far from uniform and every part of the model moves the logits.
    "initializer_range": 0.3,
}


@pytest.fixture(scope="session")
def tokenizer(minilm_path):
    return AutoTokenizer.from_pretrained(minilm_path)


@pytest.fixture(scope="session")
def masked_lm(tokenizer):
    """Hugging Face's model and ours, in float64 so that a difference is a mistake and not rounding."""
    torch.manual_seed(0)
    theirs = BertForMaskedLM(BertConfig(vocab_size=len(tokenizer), **SMALL)).double().eval()
    return theirs, HookedEncoder.from_pretrained(theirs, tokenizer=tokenizer, dtype=torch.float64, device="cpu")


@pytest.fixture(scope="session")
def classifier(tokenizer):
    torch.manual_seed(0)
    config = BertConfig(vocab_size=len(tokenizer), id2label={0: "yes", 1: "no", 2: "maybe"}, **SMALL)
    theirs = BertForSequenceClassification(config).double().eval()
    return theirs, HookedEncoder.from_pretrained(theirs, tokenizer=tokenizer, dtype=torch.float64, device="cpu")


@pytest.fixture(scope="session")
def tiny():
    """A masked LM of few words, on which a whole forward pass costs little."""
    return tiny_models.pair("bert", "masked_lm", torch.float64)[1]
