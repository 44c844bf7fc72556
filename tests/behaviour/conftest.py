"""A small masked LM and a small classifier with random weights and a real tokenizer, and files to score them on."""

from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer, BertConfig, BertForMaskedLM, BertForSequenceClassification

from negprobe import HookedEncoder
from tests.support import SHARED

SMALL = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "max_position_embeddings": 40,
    # Wide enough that what is said at a gap depends on the whole statement.
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
    torch.manual_seed(1)
    labels = {0: "ENTAILMENT", 1: "Neutral", 2: "contradiction"}
    theirs = BertForSequenceClassification(BertConfig(vocab_size=len(tokenizer), id2label=labels, **SMALL))
    theirs = theirs.double().eval()
    return theirs, HookedEncoder.from_pretrained(theirs, tokenizer=tokenizer, dtype=torch.float64, device="cpu")


@pytest.fixture
def write(tmp_path):
    def write(name: str, text: str) -> Path:
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return path

    return write


@pytest.fixture(scope="session")
def scone_model():
    """A classifier fine-tuned on ScoNe."""
    folder = SHARED / "models" / "minilm-scone"
    if not folder.is_dir():
        pytest.skip(f"no model at {folder}")
    return HookedEncoder.from_pretrained(folder, device="cpu")
