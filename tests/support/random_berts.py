"""Small random BERTs with a real tokenizer, at Hugging Face and ours: in float64, so that rounding is small."""

import torch
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertForSequenceClassification,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from negprobe import HookedEncoder

_SMALL = {
    "hidden_size": 32,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    # Wide enough that attention is far from uniform, and that outputs depend on the whole statement.
    "initializer_range": 0.3,
}


def masked_lm(tokenizer: PreTrainedTokenizerBase, **config: int) -> tuple[PreTrainedModel, HookedEncoder]:
    """A masked LM at Hugging Face and ours."""
    return _both(BertForMaskedLM, BertConfig(vocab_size=len(tokenizer), **_SMALL, **config), tokenizer, seed=0)


def classifier(
    tokenizer: PreTrainedTokenizerBase, labels: tuple[str, ...], seed: int, **config: int
) -> tuple[PreTrainedModel, HookedEncoder]:
    """A classifier with these labels at Hugging Face and ours."""
    settings = BertConfig(vocab_size=len(tokenizer), id2label=dict(enumerate(labels)), **_SMALL, **config)
    return _both(BertForSequenceClassification, settings, tokenizer, seed)


def _both(
    kind: type[PreTrainedModel], config: BertConfig, tokenizer: PreTrainedTokenizerBase, seed: int
) -> tuple[PreTrainedModel, HookedEncoder]:
    torch.manual_seed(seed)
    theirs = kind(config).double().eval()
    return theirs, HookedEncoder.from_pretrained(theirs, tokenizer=tokenizer, dtype=torch.float64, device="cpu")
