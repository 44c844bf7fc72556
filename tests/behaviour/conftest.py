"""Small random models of two layers with a real tokenizer, a classifier of ScoNe, and files to score them on."""

from pathlib import Path

import pytest

from negprobe import HookedEncoder
from tests.support import SHARED, random_berts

SIZE = {"num_hidden_layers": 2, "max_position_embeddings": 40}


@pytest.fixture(scope="session")
def masked_lm(tokenizer):
    return random_berts.masked_lm(tokenizer, **SIZE)


@pytest.fixture(scope="session")
def classifier(tokenizer):
    return random_berts.classifier(tokenizer, ("ENTAILMENT", "Neutral", "contradiction"), seed=1, **SIZE)


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
