"""Small random models of three layers, with a real tokenizer and with few words."""

import pytest
import torch

from tests.support import random_berts, tiny_models

N_LAYERS = 3


@pytest.fixture(scope="session")
def masked_lm(tokenizer):
    return random_berts.masked_lm(tokenizer, num_hidden_layers=N_LAYERS)


@pytest.fixture(scope="session")
def classifier(tokenizer):
    return random_berts.classifier(tokenizer, ("yes", "no", "maybe"), seed=0, num_hidden_layers=N_LAYERS)


@pytest.fixture(scope="session")
def tiny():
    """A masked LM of few words, on which a whole forward pass costs little."""
    return tiny_models.pair("bert", "masked_lm", torch.float64)[1]
