"""Everything in a folder that bears on the model is used, or the folder is refused: weights, adapters, padding."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
import transformers
from tokenizers import Regex, normalizers
from transformers import PreTrainedTokenizerFast

from negprobe import HookedEncoder
from negprobe.base.errors import InputError, ModelError
from negprobe.models import encoder as encoder_module
from negprobe.models import folder as folder_module
from negprobe.statements import tokenize, tokenize_all
from tests.support import tiny_models
from tests.support.tiny_models import N_LAYERS, largest_difference

INDEX = "model.safetensors.index.json"
TOKENS = tiny_models.token_batch(0, (7,))


def saved(folder: Path, family: str = "bert", head: str = "masked_lm", **options: Any) -> Path:
    tiny_models.hf_model(family, head).save_pretrained(folder, **options)
    tiny_models.tokenizer(family).save_pretrained(folder)
    return folder


def load(folder: Path | str, **options: Any) -> HookedEncoder:
    return HookedEncoder.from_pretrained(folder, device="cpu", **options)


def change_json(file: Path, **changes: Any) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def change_weights(file: Path, change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]) -> None:
    weights = {name: tensor.clone() for name, tensor in safetensors.torch.load_file(file).items()}
    safetensors.torch.save_file(change(weights), file, metadata={"format": "pt"})


def right(folder: Path, family: str = "bert", head: str = "masked_lm") -> None:
    theirs = tiny_models.hf_model(family, head)
    inputs = tiny_models.hf_inputs(theirs, TOKENS)
    with torch.no_grad():
        assert largest_difference(load(folder)(TOKENS), tiny_models.hf_output(theirs, head, inputs)) < 1e-5


# Weights


@pytest.mark.parametrize("head", ["masked_lm", "classification", "none"])
@pytest.mark.parametrize("family, field", [("bert", "num_hidden_layers"), ("distilbert", "n_layers")])
def test_fewer_layers_in_the_configuration_than_in_the_weights(
    tmp_path: Path, family: str, field: str, head: str
) -> None:
    saved(tmp_path, family, head)
    change_json(tmp_path / "config.json", **{field: N_LAYERS - 1})
    with pytest.raises(ModelError, match=rf"contain .*layer\.{N_LAYERS - 1}\..* and more, which .* does not have"):
        load(tmp_path)


ZEROS = torch.zeros(24)


@pytest.mark.parametrize(
    "name, tensor",
    [
        ("bert.encoder.layer.9.output.dense.bias", ZEROS),
        ("encoder.layer.9.output.dense.bias", ZEROS),
        ("bert.encoder.layer.0.crossattention.self.query.bias", ZEROS),
        ("bert.encoder.layer.0.attention.self.distance_embedding.weight", ZEROS),
        ("bert.encoder.layer.0.attention.self.query.weight_format", torch.zeros(3, dtype=torch.int64)),
        ("bert.embeddings.rank_embeddings.weight", ZEROS),
        ("bert.embeddings_project.weight", ZEROS),
        ("cls.predictions.second.weight", ZEROS),
    ],
)
def test_weights_of_the_encoder_or_its_head_that_have_no_place(tmp_path: Path, name: str, tensor: torch.Tensor) -> None:
    change_weights(saved(tmp_path) / "model.safetensors", lambda weights: weights | {name: tensor})
    with pytest.raises(ModelError, match=rf"contain {name.removeprefix('bert.')}|contain {name}"):
        load(tmp_path)


HARMLESS = ("bert.pooler.dense.weight", "cls.seq_relationship.weight", "classifier.weight", "qa_outputs.weight")
HARMLESS += ("bert.embeddings.position_ids", "bert.embeddings.token_type_ids", "embeddings.position_ids")


@pytest.mark.sampled(3)
@pytest.mark.parametrize("name", HARMLESS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.int64])
def test_other_heads_and_buffers_are_left_alone(tmp_path: Path, name: str, dtype: torch.dtype) -> None:
    extra = {name: torch.zeros(2, 24, dtype=dtype)}
    change_weights(saved(tmp_path) / "model.safetensors", lambda weights: weights | extra)
    right(tmp_path)


@pytest.mark.parametrize(
    "old, new",
    [
        ("bert.embeddings.", "embeddings."),
        (".LayerNorm.weight", ".LayerNorm.gamma"),
        (".LayerNorm.bias", ".LayerNorm.beta"),
    ],
)
def test_a_weight_under_two_names(tmp_path: Path, old: str, new: str) -> None:
    def doubled(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        name = next(name for name in weights if old in name)
        return weights | {name.replace(old, new): -weights[name]}

    change_weights(saved(tmp_path) / "model.safetensors", doubled)
    with pytest.raises(ModelError, match="which name the same weight"):
        load(tmp_path)


# Shards


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    return saved(tmp_path / "shards", max_shard_size="20KB")


KEY = "bert.encoder.layer.1.output.dense.bias"


def _listed(shards: Path) -> dict[str, str]:
    return json.loads((shards / INDEX).read_text())["weight_map"]


@pytest.mark.parametrize("place", [0, -1])
def test_the_index_decides_which_shard_a_weight_is_taken_from(shards: Path, place: int) -> None:
    """Whether the wrong one is read before it or after it."""
    files = sorted(set(_listed(shards).values()))
    assert files[0] < _listed(shards)[KEY] < files[-1]
    change_weights(shards / files[place], lambda weights: weights | {KEY: torch.full((24,), 9.0)})
    right(shards)


def test_a_weight_that_its_shard_lacks(shards: Path) -> None:
    named = _listed(shards)
    other = max(named.values())
    change_json(shards / INDEX, weight_map=named | {KEY: other})
    with pytest.raises(ModelError, match=rf"says that {other} contains '{KEY}', but it does not"):
        load(shards)


def test_a_weight_that_the_index_does_not_list(shards: Path) -> None:
    named = _listed(shards)
    file = named.pop(KEY)
    change_json(shards / INDEX, weight_map=named)
    with pytest.raises(ModelError, match=rf"{file} of .* contains '{KEY}', which .*index\.json does not list"):
        load(shards)


def test_an_index_beside_the_whole_weights_is_not_read_as_in_transformers(shards: Path, tmp_path: Path) -> None:
    whole = saved(tmp_path / "whole") / "model.safetensors"
    change_weights(whole, lambda weights: weights | {"bert.embeddings.LayerNorm.bias": torch.ones(24)})
    shutil.copy(whole, shards)
    theirs = transformers.AutoModelForMaskedLM.from_pretrained(shards, attn_implementation="eager").eval()
    with torch.no_grad():
        assert largest_difference(load(shards)(TOKENS), theirs(TOKENS).logits) < 1e-5


# Adapters


@pytest.mark.parametrize("file", ["adapter_config.json", "adapter_model.safetensors", "adapter_model.bin"])
@pytest.mark.parametrize("alone", [True, False])
def test_a_folder_with_an_adapter(tmp_path: Path, file: str, alone: bool) -> None:
    if not alone:
        saved(tmp_path)
    (tmp_path / file).write_text('{"peft_type": "LORA", "base_model_name_or_path": "someone/else"}')
    with pytest.raises(ModelError, match=rf"contains an adapter \({file}\).*merge_and_unload\(\) and save_pretrained"):
        load(tmp_path)


def test_an_adapter_among_the_weights(tmp_path: Path) -> None:
    key = "base_model.model.bert.encoder.layer.0.attention.self.query.lora_A.weight"
    change_weights(saved(tmp_path) / "model.safetensors", lambda weights: weights | {key: torch.zeros(2, 24)})
    with pytest.raises(ModelError, match=r"contain an adapter .*lora_A.*merge_and_unload"):
        load(tmp_path)


# Keys that are there twice


@pytest.mark.parametrize(
    "file, key",
    [
        ("config.json", '"num_hidden_layers": 3'),
        ("tokenizer.json", '"version": "1.0"'),
        ("tokenizer_config.json", '"pad_token": "[PAD]"'),
        ("special_tokens_map.json", '"pad_token": "[PAD]"'),
        ("added_tokens.json", '"[PAD]": 0'),
        ("modules.json", '"idx": 0'),
    ],
)
def test_a_key_that_a_file_has_twice(tmp_path: Path, file: str, key: str) -> None:
    saved(tmp_path, head="none")
    content = json.loads((tmp_path / file).read_text()) if (tmp_path / file).exists() else {}
    name, _, value = key.partition(": ")
    content.pop(json.loads(name), None)
    text = f"{{{key}, {name}: {value}, {json.dumps(content)[1:]}".replace(", }", "}")
    (tmp_path / file).write_text(f"[{text}]" if file == "modules.json" else text)
    with pytest.raises(ModelError, match=f"the key '{json.loads(name)}' appears twice".replace("[", r"\[")):
        load(tmp_path)


# The class


@torch.no_grad()
def test_a_folder_is_read_as_the_class_that_is_asked_for(tmp_path: Path) -> None:
    saved(tmp_path)
    change_json(tmp_path / "config.json", architectures=["BertForMaskedLM", "BertModel"], auto_map={"AutoModel": "a.B"})
    with pytest.raises(ModelError, match="names 2 architectures"):
        load(tmp_path)
    logits = load(tmp_path, architecture="BertForMaskedLM")(TOKENS)
    assert largest_difference(logits, tiny_models.hf_model("bert")(TOKENS).logits) < 1e-5
    assert load(tmp_path, architecture="BertModel").cfg.head == "none"
    for asked in ("RobertaModel", "Evil", "", "__name__"):
        with pytest.raises(ModelError, match=f"cannot be read as '{asked}': .*model type 'bert'"):
            load(tmp_path, architecture=asked)
    with pytest.raises(ModelError, match=r"is a BertForSequenceClassification according to its config\.json"):
        load(tmp_path, architecture="BertForSequenceClassification")


# The tokenizer


TEXTS = ["the zebra is open", "the old old zebra is open"]


def padding_with(index: int) -> PreTrainedTokenizerFast:
    """A tokenizer that pads with another id than the bert family's 0, which is a word of its own."""
    tokenizer = tiny_models.tokenizer("roberta")
    assert tokenizer.pad_token_id == 1
    tokenizer.pad_token = {0: "[UNK]", 1: "[PAD]", 2: "[CLS]"}[index]
    assert tokenizer.pad_token_id == index
    return tokenizer


@torch.no_grad()
@pytest.mark.parametrize("from_folder", [True, False])
@pytest.mark.parametrize("family", ["bert", "distilbert", "electra"])
def test_what_the_tokenizer_pads_with_is_padding(tmp_path: Path, family: str, from_folder: bool) -> None:
    theirs, tokenizer = tiny_models.hf_model(family), padding_with(1)
    theirs.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    ours = load(tmp_path) if from_folder else HookedEncoder.from_pretrained(theirs, tokenizer=tokenizer, device="cpu")
    tokens, _, mask = ours.to_tokens(TEXTS)
    assert (tokens == theirs.config.pad_token_id).any() and (tokens == 1).any() and ours.cfg.pad_token_id == 1
    assert largest_difference(ours(TEXTS), ours(tokens)) == 0
    expected = theirs(input_ids=tokens, attention_mask=mask).logits
    assert largest_difference(ours(tokens)[mask.bool()], expected[mask.bool()]) < 1e-5


@pytest.mark.parametrize("family", ["roberta", "xlm-roberta", "camembert"])
def test_padding_that_positions_are_not_counted_from_is_refused(tmp_path: Path, family: str) -> None:
    theirs = tiny_models.hf_model(family)
    theirs.save_pretrained(tmp_path)
    padding_with(2).save_pretrained(tmp_path)
    for source, tokenizer in ((tmp_path, None), (tmp_path, padding_with(2)), (theirs, padding_with(2))):
        with pytest.raises(ModelError, match=r"pads with '\[CLS\]' \(id 2\), but the model counts positions from .* 1"):
            HookedEncoder.from_pretrained(source, tokenizer=tokenizer, device="cpu")


def test_a_tokenizer_that_is_given_is_looked_at_too(tmp_path: Path) -> None:
    saved(tmp_path)
    without_padding, beyond, failing = (tiny_models.tokenizer() for _ in range(3))
    without_padding.pad_token = None
    beyond.add_special_tokens({"mask_token": "[MORE]"})
    beyond.add_tokens([f"w{i}" for i in range(40)])
    beyond.mask_token = "w39"
    failing.backend_tokenizer.normalizer = PANICS
    failing.backend_tokenizer.normalizer = normalizers.Sequence([normalizers.Replace(Regex("."), "e" * 9), PANICS])
    for tokenizer, said in (
        (without_padding, "has no padding token"),
        (beyond, "embeddings for 0 to 39 only"),
        (failing, "The tokenizer given for .* fails: "),
    ):
        with pytest.raises(ModelError, match=said):
            load(tmp_path, tokenizer=tokenizer)


# A regular expression that takes ever longer, at which the library gives up with a panic.
PANICS = normalizers.Replace(Regex("(e+)+!"), "x")
LONG = f"the {'e' * 40} door"


@pytest.fixture
def panicking() -> HookedEncoder:
    _, ours = tiny_models.pair("bert")
    assert ours.tokenizer is not None
    ours.tokenizer.backend_tokenizer.normalizer = PANICS
    assert ours(["the door", "a door"]).shape[0] == 2
    return ours


CALLS: dict[str, Callable[[HookedEncoder], object]] = {
    "a text": lambda model: model(LONG),
    "one of several": lambda model: model.to_tokens(["the door", LONG, "a door"]),
    "a pair": lambda model: model(("the door", LONG)),
    "a word": lambda model: model.to_single_token("e" * 40),
    "a statement": lambda model: tokenize(LONG, model.tokenizer),
    "one of several statements": lambda model: tokenize_all(["the door", LONG], model.tokenizer),
    "a statement of two texts": lambda model: tokenize(f"the door [SEP] {LONG}", model.tokenizer),
}


@pytest.mark.sampled(3)
@pytest.mark.parametrize("call", CALLS)
def test_a_tokenizer_that_panics_on_longer_text_names_it(panicking: HookedEncoder, call: str) -> None:
    with pytest.raises(InputError, match=r"tokenizer fails on .*eeeee.*retry-limit.*Change the text") as raised:
        CALLS[call](panicking)
    assert type(raised.value.__cause__).__name__ == "PanicException"


def test_a_tokenizer_that_raises_names_the_text_too() -> None:
    _, ours = tiny_models.pair("bert")
    content = json.loads(ours.tokenizer.backend_tokenizer.to_str())
    content["model"]["unk_token"] = "[GONE]"
    ours.tokenizer._tokenizer = type(ours.tokenizer.backend_tokenizer).from_str(json.dumps(content))
    with pytest.raises(InputError, match=r"tokenizer fails on 'a zebra': WordLevel error"):
        ours(["the door", "a zebra"])


def test_an_interrupt_is_no_failure_of_the_tokenizer(monkeypatch: pytest.MonkeyPatch) -> None:
    _, ours = tiny_models.pair("bert")

    def interrupt(*args: object, **options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(type(ours.tokenizer), "__call__", interrupt)
    with pytest.raises(KeyboardInterrupt):
        ours("the door")


# Memory

NO_MEMORY = [
    MemoryError(),
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
    RuntimeError("[enforce fail at alloc_cpu.cpp:124] err == 0. DefaultCPUAllocator: can't allocate memory: you tried"),
    RuntimeError("MPS backend out of memory"),
    OSError(12, "Cannot allocate memory"),
]


@pytest.mark.parametrize("error", NO_MEMORY, ids=repr)
@pytest.mark.parametrize("at", ["reading", "making", "converting"])
def test_memory_that_runs_out_while_loading_is_said_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, at: str
) -> None:
    saved(tmp_path)

    def fail(*args: object, **options: object) -> None:
        raise error

    where = {
        "reading": (folder_module, "safe_open"),
        "making": (transformers.BertForMaskedLM, "from_pretrained"),
        "converting": (encoder_module, "convert"),
    }
    monkeypatch.setattr(*where[at], fail)
    with pytest.raises(ModelError, match=r"not enough memory to load the model.*smaller model or a smaller dtype"):
        load(tmp_path)


def test_other_errors_while_loading_stay_what_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(encoder_module, "convert", fail)
    with pytest.raises(RuntimeError, match="a bug"):
        load(saved(tmp_path))
