"""Tokenizers of each kind: BERT's real one, and byte-level and SentencePiece-like ones trained here."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from tokenizers import (
    AddedToken,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from transformers import (
    AutoTokenizer,
    DebertaTokenizer,
    DebertaV2Tokenizer,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)

CORPUS = [
    "The door is not open. So the door is closed.",
    "The door isn't open, and nobody can open it now.",
    "It is now really open; they don't know, they never did, and it cannot be.",
] * 20
SPECIAL = ["<s>", "<pad>", "</s>", "<unk>"]
DEBERTA_SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


def _wrapped(tokenizer: Tokenizer) -> PreTrainedTokenizerFast:
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        cls_token="<s>", sep_token="</s>", pad_token="<pad>", unk_token="<unk>",
        # As in the published models: the mask token takes the space before it.
        mask_token=AddedToken("<mask>", lstrip=True, special=True),
    )  # fmt: skip


@pytest.fixture(scope="session")
def bert(minilm_path: Path) -> PreTrainedTokenizerBase:
    return AutoTokenizer.from_pretrained(minilm_path)


@pytest.fixture(scope="session")
def roberta() -> PreTrainedTokenizerBase:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    return _wrapped(tokenizer)


@pytest.fixture(scope="session")
def xlm_roberta() -> PreTrainedTokenizerBase:
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(vocab_size=120, special_tokens=SPECIAL, unk_token="<unk>", show_progress=False)
    tokenizer.train_from_iterator(CORPUS, trainer)
    return _wrapped(tokenizer)


@pytest.fixture(scope="session")
def deberta(roberta: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
    """Transformers' own class for DeBERTa, with the byte-level pieces of `roberta`."""
    model = json.loads(roberta.backend_tokenizer.to_str())["model"]
    pieces = [*DEBERTA_SPECIAL, *(piece for piece in model["vocab"] if piece not in SPECIAL)]
    merges = [tuple(merge) for merge in model["merges"]]
    return DebertaTokenizer(vocab={piece: index for index, piece in enumerate(pieces)}, merges=merges)


@pytest.fixture(scope="session")
def deberta_v2(xlm_roberta: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
    """Transformers' own class for DeBERTa-v2 and v3, with the SentencePiece pieces of `xlm_roberta`."""
    model = json.loads(xlm_roberta.backend_tokenizer.to_str())["model"]
    special = [(token, 0.0) for token in DEBERTA_SPECIAL]
    scored = [(piece, score) for piece, score in model["vocab"] if piece not in SPECIAL]
    return DebertaV2Tokenizer(vocab=[*special, *scored], unk_id=1)


@pytest.fixture(params=["bert", "roberta", "xlm_roberta", "deberta", "deberta_v2"])
def tokenizer(request: pytest.FixtureRequest) -> PreTrainedTokenizerBase:
    """Each of them in turn."""
    return request.getfixturevalue(request.param)


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Writes a file and says where it is."""

    def write(name: str, text: str, encoding: str = "utf-8") -> Path:
        path = tmp_path / name
        path.write_bytes(text.encode(encoding))
        return path

    return write
