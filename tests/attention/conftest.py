"""The real MiniLM encoder: Hugging Face's eager model, and a probe on ours."""

import pytest
import torch
from transformers import AutoModel, AutoTokenizer

from negprobe import HookedEncoder
from negprobe.attention import AttentionProbe


@pytest.fixture(scope="session")
def hugging_face(minilm_path):
    model = AutoModel.from_pretrained(minilm_path, attn_implementation="eager", dtype=torch.float64).eval()
    return model, AutoTokenizer.from_pretrained(minilm_path)


@pytest.fixture(scope="session")
def probe(minilm_path):
    return AttentionProbe(HookedEncoder.from_pretrained(minilm_path, device="cpu", dtype=torch.float64))
