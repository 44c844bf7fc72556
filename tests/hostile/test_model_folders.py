"""Whatever folder is given as a model: it works, or there is one ModelError, soon, and nothing in it has run."""

import itertools
import json
import os
import shutil
import signal
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
import transformers
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from tokenizers.normalizers import Replace

from negprobe import HookedEncoder
from negprobe.base.errors import InputError, ModelError
from tests.support import tiny_models

TEXT = "the door is not open"
WEIGHTS = "model.safetensors"


@pytest.fixture(autouse=True)
def _no_hanging() -> Iterator[None]:
    """A pipe that is opened would wait for ever; then the test fails instead."""

    def too_long(*_: object) -> None:
        raise TimeoutError("still loading after 20 seconds")

    before = signal.signal(signal.SIGALRM, too_long)
    signal.alarm(20)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(tmp_path_factory.mktemp("good") / "model")


@pytest.fixture
def folder(good: Path, tmp_path: Path) -> Path:
    shutil.copytree(good, tmp_path / "model")
    return tmp_path / "model"


def saved(folder: Path, family: str = "bert", head: str = "masked_lm", **options: Any) -> Path:
    tiny_models.hf_model(family, head).save_pretrained(folder, **options)
    tiny_models.tokenizer(family).save_pretrained(folder)
    return folder


def load(folder: str | Path) -> HookedEncoder:
    return HookedEncoder.from_pretrained(folder, device="cpu")


def works(model: HookedEncoder) -> None:
    with torch.no_grad():
        assert bool(model(torch.tensor([[2, 5, 6, 3]])).isfinite().all())
        if model.tokenizer is not None:
            assert bool(model(TEXT).isfinite().all())


def works_or_says(folder: str | Path) -> str:
    """The error's message, which names the folder or the architecture in it, or nothing if the model works."""
    try:
        works(load(folder))
    except ModelError as error:
        assert str(folder) in str(error) or "BertForMaskedLM" in str(error)
        assert len(str(error)) > 40
        return str(error)
    return ""


def change(file: Path, **changes: Any) -> None:
    content = json.loads(file.read_text())
    content.update(changes)
    file.write_text(json.dumps(content))


def change_weights(folder: Path, change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]) -> None:
    weights = {name: tensor.clone() for name, tensor in safetensors.torch.load_file(folder / WEIGHTS).items()}
    safetensors.torch.save_file(change(weights), folder / WEIGHTS, metadata={"format": "pt"})


# Each file


FILES = ("config.json", WEIGHTS, "tokenizer.json", "tokenizer_config.json")


def _remove(file: Path) -> None:
    file.unlink()


def _empty(file: Path) -> None:
    file.write_bytes(b"")


def _truncate(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def _directory(file: Path) -> None:
    file.unlink()
    file.mkdir()


def _not_utf8(file: Path) -> None:
    file.write_bytes(b"\xff\xfe\x80" + file.read_bytes())


def _pipe(file: Path) -> None:
    file.unlink()
    os.mkfifo(file)


def _dangling(file: Path) -> None:
    file.unlink()
    file.symlink_to(file.with_name("gone"))


def _loop(file: Path) -> None:
    file.unlink()
    file.symlink_to(file.name)


def _nested(file: Path) -> None:
    file.write_text("[" * 100_000 + "]" * 100_000)


def _other_json(file: Path) -> None:
    file.write_text("null")


def _digits(file: Path) -> None:
    file.write_text('{"vocab_size": ' + "9" * 10_000 + "}")


def test_the_folder_that_is_broken_below_works(good: Path) -> None:
    assert works_or_says(good) == ""


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize(
    "harm",
    [_empty, _truncate, _directory, _not_utf8, _pipe, _dangling, _loop, _nested, _other_json, _digits],
    ids=lambda harm: harm.__name__.strip("_"),
)
def test_a_broken_file_is_named(folder: Path, harm: Callable[[Path], None], file: str) -> None:
    harm(folder / file)
    message = works_or_says(folder)
    assert message and (file in message or ("tokenizer" in message and file.startswith("tokenizer"))), message


@pytest.mark.parametrize("file", FILES)
def test_a_missing_file(folder: Path, file: str) -> None:
    (folder / file).unlink()
    message = works_or_says(folder)
    said = {"config.json": "has no config.json", WEIGHTS: "reads *.safetensors only"}
    assert said.get(file, "") in message and bool(message) == (file in said)


def test_a_pipe_under_the_name_of_a_file_that_is_only_sometimes_there(folder: Path) -> None:
    for file in ("vocab.txt", "special_tokens_map.json", "added_tokens.json", "modules.json", "chat_template.jinja"):
        os.mkfifo(folder / file)
        assert f"{file!r} of {str(folder)!r} is a pipe or a device" in works_or_says(folder)
        (folder / file).unlink()
    (folder / "additional_chat_templates").mkdir()
    os.mkfifo(folder / "additional_chat_templates" / "a.jinja")
    assert "is a pipe or a device" in works_or_says(folder)


def test_files_that_nobody_reads_may_be_anything(folder: Path) -> None:
    os.mkfifo(folder / "log.pipe")
    (folder / "data").symlink_to("/")
    (folder / "notes.md").write_bytes(b"\xff")
    assert works_or_says(folder) == ""


@pytest.mark.parametrize("name", ["", "a\0b", "~nobody-of-this-name/model", "x" * 5000, "\ud800", "a\nb", "a" * 300])
def test_names_that_are_no_folders(name: str) -> None:
    with pytest.raises(ModelError, match="There is no"):
        load(name)


# Links


@pytest.mark.parametrize("file", [*FILES, "modules.json", "vocab.txt", "special_tokens_map.json"])
def test_a_link_out_of_the_folder_is_refused(folder: Path, tmp_path: Path, file: str) -> None:
    outside = tmp_path / "outside"
    outside.write_bytes((folder / file).read_bytes() if (folder / file).exists() else b"[]")
    (folder / file).unlink(missing_ok=True)
    (folder / file).symlink_to(outside)
    assert f"{file!r} of {str(folder)!r} links to {str(outside)!r}, outside the folder" in works_or_says(folder)


def test_a_link_within_the_folder_and_a_link_to_the_folder(folder: Path, tmp_path: Path) -> None:
    (folder / WEIGHTS).rename(folder / "weights-of-may.safetensors")
    (folder / WEIGHTS).symlink_to("weights-of-may.safetensors")
    (tmp_path / "current").symlink_to(folder)
    assert works_or_says(tmp_path / "current") == ""


@pytest.fixture
def cache(folder: Path) -> Path:
    """A model in the hub cache's layout: the repository's folder, its snapshot a folder of links into blobs."""
    repository = folder.parent / "models--someone--tiny"
    snapshot = repository / "snapshots" / "abc123"
    snapshot.mkdir(parents=True)
    (repository / "blobs").mkdir()
    for index, file in enumerate(sorted(folder.iterdir())):
        file.rename(repository / "blobs" / f"hash{index}")
        (snapshot / file.name).symlink_to(f"../../blobs/hash{index}")
    return repository


def test_a_snapshot_of_the_hub_cache_works(cache: Path) -> None:
    assert (cache / "snapshots" / "abc123" / "config.json").is_symlink()
    assert works_or_says(cache / "snapshots" / "abc123") == ""


def test_a_snapshot_may_link_to_its_own_blobs_alone(cache: Path) -> None:
    other = cache.parent / "models--someone--else" / "blobs" / "hash"
    other.parent.mkdir(parents=True)
    other.write_text("{}")
    link = cache / "snapshots" / "abc123" / "config.json"
    link.unlink()
    link.symlink_to("../../../models--someone--else/blobs/hash")
    assert "outside the folder" in works_or_says(link.parent)


def test_blobs_beside_a_folder_that_is_no_snapshot_are_outside(cache: Path) -> None:
    (cache / "snapshots").rename(cache / "models")
    assert "outside the folder" in works_or_says(cache / "models" / "abc123")


# config.json


NO_SIZES: list[object] = ["24", 24.5, 24.0, True, None, [], {}, 0, -1, 10**12, 10**400, "Infinity"]
SIZES = (
    "vocab_size",
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "intermediate_size",
    "max_position_embeddings",
    "type_vocab_size",
)


@pytest.mark.parametrize("field", SIZES)
def test_a_size_that_is_none_is_named(folder: Path, field: str) -> None:
    for size in NO_SIZES:
        change(folder / "config.json", **{field: size})
        assert f"has {field} = " in works_or_says(folder), size


@pytest.mark.parametrize(
    "field", [field for field in SIZES if field not in ("num_hidden_layers", "num_attention_heads")]
)
def test_a_size_that_could_be_but_is_not_this_models(folder: Path, field: str) -> None:
    """Of whatever size, it is told, and before memory is asked for: 10**6 x 10**6 weights are 4 TB."""
    for size in (1, 23, 1000, 10**6):
        change(folder / "config.json", **{field: size})
        assert works_or_says(folder), size


def test_layers_that_are_not_there(folder: Path) -> None:
    change(folder / "config.json", num_hidden_layers=4)
    assert "wrong shape: bert.encoder.layer.3." in works_or_says(folder)
    change(folder / "config.json", num_hidden_layers=1000)
    assert "describes a model of" in works_or_says(folder)


def test_heads_that_do_not_divide_the_width(folder: Path) -> None:
    change(folder / "config.json", num_attention_heads=5)
    assert "hidden_size = 24, which is not divisible by num_attention_heads = 5" in works_or_says(folder)


@pytest.mark.parametrize(
    "field, values, said",
    [
        ("hidden_act", ["", "evil", None, 3, ["gelu"], {}], "has hidden_act = "),
        ("layer_norm_eps", ["1e-12", None, -1, 2, True, []], "has layer_norm_eps = "),
        ("pad_token_id", ["0", -1, 40, 10**12, 1.0, True, []], "has pad_token_id = "),
        ("pad_token_id", [None], "has no pad_token_id"),
        ("tie_word_embeddings", ["yes", 1, None], "has tie_word_embeddings = "),
        ("model_type", [None, 3, [], {}, "", "bert\0", "t5gemma_vision", ["bert"]], "no conversion for model type"),
        ("model_type", ["gpt2", "qwen3", "mistral"], "supports encoders only, not decoders that are used as embedders"),
        ("architectures", ["BertForMaskedLM", {"a": 1}, [3], [None], [["BertForMaskedLM"]], 7], "has architectures = "),
        ("architectures", [[], None, ["BertModel", "BertModel"]], "negprobe needs exactly one"),
        ("position_embedding_type", [[], "relative_key", 3], "position embeddings"),
        ("is_decoder", [True, "false", 1], "is a decoder"),
        ("tokenizer_class", [3, [], "AutoModel", "AutoTokenizer", "pipeline", "BertModel"], "has tokenizer_class = "),
    ],
)
def test_a_field_of_the_wrong_kind_is_named(folder: Path, field: str, values: list[object], said: str) -> None:
    for value in values:
        change(folder / "config.json", **{field: value})
        assert said in works_or_says(folder), value


@pytest.mark.parametrize(
    "architecture",
    ["AutoModel", "PreTrainedModel", "Model", "GPT2Model", "BertEvilModel", "RobertaModel", "Bert.Model"],
)
def test_the_architecture_is_one_of_the_model_type(folder: Path, architecture: str) -> None:
    change(folder / "config.json", architectures=[architecture])
    assert f"names the architecture {architecture!r} for model type 'bert'" in works_or_says(folder)


@pytest.mark.parametrize("content", ["[]", "null", "3", '"text"', "true", "NaN", "[[[[]]]]"])
def test_a_config_that_is_no_object(folder: Path, content: str) -> None:
    (folder / "config.json").write_text(content)
    assert "config.json of" in works_or_says(folder)


@pytest.mark.parametrize(
    "labels",
    [[], "no", 3, {}, {"0": "a", "2": "b"}, {"a": "b"}, {"0": None}, {"0": ["x"]}, {"0": "\ud800"}, {"-1": "a"}],
)
def test_broken_labels(tmp_path: Path, labels: object) -> None:
    saved(tmp_path, head="classification")
    change(tmp_path / "config.json", id2label=labels)
    assert "has id2label = " in works_or_says(tmp_path)


@pytest.mark.parametrize("problem_type", [3, "", "softmax", [], {}, True, "single_label"])
def test_a_problem_type_that_does_not_exist(tmp_path: Path, problem_type: object) -> None:
    saved(tmp_path, head="classification")
    change(tmp_path / "config.json", problem_type=problem_type)
    assert "has problem_type = " in works_or_says(tmp_path)


def test_a_single_label_that_would_have_to_exclude_others(tmp_path: Path) -> None:
    saved(tmp_path, head="classification")
    change(tmp_path / "config.json", id2label={"0": "a"}, problem_type="single_label_classification")
    assert "only one label, so its probability would always be 1" in works_or_says(tmp_path)


def test_a_number_of_labels_that_is_not_that_of_their_names(tmp_path: Path) -> None:
    saved(tmp_path, head="classification")
    change(tmp_path / "config.json", num_labels=7)
    assert "has num_labels = 7, which is not the number of labels in id2label" in works_or_says(tmp_path)


@pytest.mark.parametrize("problem_type", [None, "regression", "multi_label_classification"])
def test_a_problem_type_is_kept(tmp_path: Path, problem_type: str | None) -> None:
    saved(tmp_path, head="classification")
    change(tmp_path / "config.json", problem_type=problem_type)
    assert load(tmp_path).cfg.problem_type == problem_type


def test_what_does_not_concern_the_model_reaches_no_library(folder: Path) -> None:
    """Kernels from the hub and the like: transformers would look for each of them."""
    change(
        folder / "config.json",
        attn_implementation="someone/kernel",
        _attn_implementation="someone/kernel",
        dtype="evil",
        torch_dtype=[3],
        custom_pipelines={"x": {"impl": "evil.Evil"}},
        use_kernels=True,
        fusion_config={"x": True},
        problem_type=3,
        transformers_version="5.0.0",
        hidden_dropout_prob="much",
        chunk_size_feed_forward=-3,
        id2label=[],
        _name_or_path="../../etc/passwd",
        self=1,
        **{"": 1, "__class__": "x", "__dict__": 3},
    )
    (folder / "generation_config.json").write_text("[")
    assert works_or_says(folder) == ""


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=4,
)


@settings(max_examples=60, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_any_value_of_any_field(folder: Path, good: Path, data: st.DataObject) -> None:
    content = json.loads((good / "config.json").read_text())
    for field in data.draw(st.lists(st.sampled_from(sorted(content)), min_size=1, max_size=3)):
        content[field] = data.draw(_JSON)
    (folder / "config.json").write_text(json.dumps(content))
    works_or_says(folder)


# model.safetensors


def _split(content: bytes) -> tuple[dict[str, Any], bytes]:
    (length,) = struct.unpack("<Q", content[:8])
    return json.loads(content[8 : 8 + length]), content[8 + length :]


def _joined(header: object, data: bytes) -> bytes:
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


BIAS = "bert.encoder.layer.1.output.dense.bias"


@pytest.mark.parametrize(
    "changes",
    [
        {"data_offsets": [0, 2**62]},
        {"data_offsets": [0, -96]},
        {"data_offsets": [-96, 0]},
        {"data_offsets": [96, 0]},
        {"data_offsets": [0, 96]},  # another tensor's
        {"data_offsets": None},
        {"shape": [2**62, 8]},
        {"shape": [-24]},
        {"shape": ["24"]},
        {"shape": [24.0]},
        {"shape": 24},
        {"dtype": "F31"},
        {"dtype": None},
    ],
    ids=str,
)
def test_a_header_that_lies(folder: Path, changes: dict[str, Any]) -> None:
    header, data = _split((folder / WEIGHTS).read_bytes())
    header[BIAS] |= changes
    (folder / WEIGHTS).write_bytes(_joined(header, data))
    assert "model.safetensors is broken or missing" in works_or_says(folder)


@pytest.mark.parametrize("length", [0, 1, 2**20, 2**27, 2**63, 2**64 - 1])
def test_a_header_of_another_length(folder: Path, length: int) -> None:
    content = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(struct.pack("<Q", length) + content[8:])
    assert "model.safetensors is broken or missing" in works_or_says(folder)


@settings(max_examples=80, suppress_health_check=list(HealthCheck))
@given(where=st.floats(0, 1, exclude_max=True), new=st.binary(max_size=6), cut=st.integers(0, 6))
@example(where=0.0, new=b"\xff" * 8, cut=8)
def test_any_bytes_anywhere_in_the_header(folder: Path, good: Path, where: float, new: bytes, cut: int) -> None:
    content = (good / WEIGHTS).read_bytes()
    at = int(where * (8 + struct.unpack("<Q", content[:8])[0]))
    (folder / WEIGHTS).write_bytes(content[:at] + new + content[at + cut :])
    works_or_says(folder)


def test_a_tensor_of_another_shape_or_missing_or_no_float_is_named(folder: Path) -> None:
    original = (folder / WEIGHTS).read_bytes()
    harms: dict[str, Callable[[torch.Tensor], torch.Tensor | None]] = {
        "missing or have the wrong shape": lambda _: None,
        "wrong shape": lambda tensor: tensor[:-1].contiguous(),
        "have the wrong shape": lambda tensor: tensor[None].repeat(2, 1),
        "as I64": lambda tensor: tensor.long(),
        "as U8": lambda tensor: tensor.to(torch.uint8),
        "as BOOL": lambda tensor: tensor.bool(),
        "as C64": lambda tensor: tensor.to(torch.complex64),
        "as F8_E4M3": lambda tensor: tensor.to(torch.float8_e4m3fn),
    }
    for said, harm in harms.items():
        (folder / WEIGHTS).write_bytes(original)
        changed = harm(safetensors.torch.load_file(folder / WEIGHTS)[BIAS].clone())
        new = {} if changed is None else {BIAS: changed}
        change_weights(folder, lambda weights, new=new: {k: v for k, v in weights.items() if k != BIAS} | new)
        message = works_or_says(folder)
        assert said in message and BIAS in message


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_a_weight_that_is_no_number_is_named(folder: Path, value: float) -> None:
    def spoil(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        weights[BIAS][3] = value
        return weights

    change_weights(folder, spoil)
    assert "blocks.1.mlp.b_out" in works_or_says(folder)


def test_tensors_that_the_model_does_not_have_do_no_harm(folder: Path) -> None:
    def more(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        names = ("", "../../evil", "bert", "__class__", "a" * 10_000)
        kinds = (torch.float32, torch.int64, torch.float8_e5m2)
        return weights | {
            f"{name}{i}": torch.zeros(3, dtype=kind) for name, (i, kind) in itertools.product(names, enumerate(kinds))
        }

    change_weights(folder, more)
    assert works_or_says(folder) == ""


def test_no_tensor_at_all(folder: Path) -> None:
    change_weights(folder, lambda _: {})
    assert "hold 0 floating-point numbers" in works_or_says(folder)


# The index of shards


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    return saved(tmp_path / "shards", max_shard_size="20KB")


INDEX = "model.safetensors.index.json"


def test_shards_work(shards: Path) -> None:
    assert len(list(shards.glob("model-*.safetensors"))) > 1
    assert works_or_says(shards) == ""


@pytest.mark.parametrize(
    "file", ["../outside.safetensors", "/outside.safetensors", "a/../../outside.safetensors", "..", "", "x.bin", "a\0b"]
)
def test_an_index_that_leads_elsewhere(shards: Path, good: Path, file: str) -> None:
    shutil.copy(good / WEIGHTS, shards.parent / "outside.safetensors")
    named = json.loads((shards / INDEX).read_text())["weight_map"]
    change(shards / INDEX, weight_map=dict.fromkeys(named, file))
    assert f"names the file {file!r}; only *.safetensors in the same folder" in works_or_says(shards)


def test_a_shard_that_is_missing_or_a_link_or_a_pipe(shards: Path, tmp_path: Path) -> None:
    shard = sorted(shards.glob("model-*.safetensors"))[1]
    shard.rename(tmp_path / "outside.safetensors")
    assert f"{shard.name} is broken or missing" in works_or_says(shards)
    shard.symlink_to("../outside.safetensors")
    assert f"{shard.name!r} of {str(shards)!r} links to" in works_or_says(shards)
    shard.unlink()
    os.mkfifo(shard)
    assert f"{shard.name!r} of {str(shards)!r} is a pipe" in works_or_says(shards)


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"weight_map": []}', '{"weight_map": {"a": 3}}', "[" * 10_000])
def test_a_broken_index(shards: Path, content: str) -> None:
    (shards / INDEX).write_text(content)
    assert INDEX in works_or_says(shards)


def test_an_empty_index(shards: Path) -> None:
    change(shards / INDEX, weight_map={})
    assert "hold 0 floating-point numbers" in works_or_says(shards)


# Code and pickles


@pytest.fixture
def evil(folder: Path) -> Iterator[Path]:
    """A folder with modules that leave a file behind if they run; none may be there in the end."""
    for name in (
        "evil.py",
        "modeling_evil.py",
        "tokenization_evil.py",
        "__init__.py",
        "conftest.py",
        "sitecustomize.py",
    ):
        ran = f"open({str(folder / 'ran')!r}, 'w')\n"
        (folder / name).write_text(
            f"{ran}class Evil:\n    from_pretrained = classmethod(lambda *a, **k: {ran.strip()})\n"
        )
    yield folder
    assert not (folder / "ran").exists()


class _Leaves:
    """A pickle of this leaves a file behind when it is loaded."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[Any, ...]:
        return open, (str(self.file), "w")


def test_code_that_the_config_names_does_not_run(evil: Path) -> None:
    auto_map = dict.fromkeys(("AutoConfig", "AutoModel", "AutoModelForMaskedLM", "AutoTokenizer"), "evil.Evil")
    change(
        evil / "config.json",
        auto_map=auto_map,
        custom_pipelines={"negation": {"impl": "evil.Evil", "pt": ["AutoModel"]}},
        trust_remote_code=True,
    )
    assert "has auto_map = " in works_or_says(evil)
    works(HookedEncoder.from_pretrained(evil, architecture="BertForMaskedLM", device="cpu"))
    change(evil / "config.json", auto_map=None)
    assert works_or_says(evil) == ""
    change(evil / "config.json", tokenizer_class="Evil")
    (evil / "tokenizer_config.json").unlink()
    works_or_says(evil)
    for architecture in ("evil.EvilModel", "EvilModel", "evil--EvilForMaskedLM"):
        change(evil / "config.json", architectures=[architecture])
        assert "names the architecture" in works_or_says(evil)


@pytest.mark.parametrize("auto_map", [{"AutoTokenizer": ["evil.Evil", "evil.Evil"]}, ["evil.Evil", None], 3, {"x": 1}])
@pytest.mark.parametrize("class_name", ["evil.Evil", "Evil", "evil.py", "../evil", "PreTrainedTokenizerFast", None])
def test_code_that_the_tokenizer_names_does_not_run(
    evil: Path, monkeypatch: pytest.MonkeyPatch, auto_map: object, class_name: str | None
) -> None:
    # Left to itself, transformers asks on the terminal whether to run it.
    monkeypatch.setattr("builtins.input", lambda *_: "y")
    monkeypatch.chdir(evil)
    change(evil / "tokenizer_config.json", auto_map=auto_map, tokenizer_class=class_name, trust_remote_code=True)
    works_or_says(evil)


@pytest.mark.parametrize("class_name", ["AutoModel", "AutoTokenizer", "AutoConfig", "pipeline", "BertModel", 3, ["x"]])
def test_a_tokenizer_that_is_no_tokenizer(evil: Path, monkeypatch: pytest.MonkeyPatch, class_name: object) -> None:
    monkeypatch.setattr("builtins.input", lambda *_: "y")
    change(evil / "tokenizer_config.json", tokenizer_class=class_name)
    assert f"has tokenizer_class = {class_name!r}" in works_or_says(evil)


def test_pickles_are_never_loaded(folder: Path) -> None:
    ran = folder / "ran"
    for name in ("pytorch_model.bin", "model.bin", "training_args.bin", "model.pt", "vocab.pkl", "optimizer.pt"):
        torch.save(_Leaves(ran), folder / name)
    assert works_or_says(folder) == ""
    (folder / WEIGHTS).unlink()
    assert "holds model.bin, pytorch_model.bin, training_args.bin, but negprobe reads" in works_or_says(folder)
    (folder / "pytorch_model.bin").rename(folder / WEIGHTS)
    assert "model.safetensors is broken" in works_or_says(folder)
    assert not ran.exists()
    torch.load(folder / "model.bin", weights_only=False)
    assert ran.exists(), "this pickle would have left no file anyway"


# The tokenizer


@pytest.mark.parametrize(
    "key, value", [("vocab", "{}"), ("merges", "{}"), ("gguf_file", "{}"), ("init_inputs", ["{}"])]
)
def test_a_tokenizer_config_that_names_files(folder: Path, tmp_path: Path, key: str, value: object) -> None:
    outside = tmp_path / "outside"
    os.mkfifo(outside)
    named = str(outside) if isinstance(value, str) else [str(outside)]
    change(folder / "tokenizer_config.json", **{key: named})
    assert f"sets {key}, which" in works_or_says(folder)


@pytest.mark.parametrize("files", [["../tokenizer.4.0.0.json"], ["/tokenizer.4.0.0.json"], "x/tokenizer.4.0.json", 3])
def test_a_tokenizer_of_another_version_is_one_of_the_folder(folder: Path, tmp_path: Path, files: object) -> None:
    os.mkfifo(tmp_path / "tokenizer.4.0.0.json")
    change(folder / "tokenizer_config.json", fast_tokenizer_files=files)
    assert "sets fast_tokenizer_files, which" in works_or_says(folder)


@pytest.mark.parametrize("lost", ["vocab.txt", "tokenizer.json"])
def test_left_over_paths_in_a_tokenizer_config_are_not_opened(folder: Path, tmp_path: Path, lost: str) -> None:
    """Many published ones name files on the machine that they were made on; here each would be a pipe."""
    vocabulary = json.loads((folder / "tokenizer.json").read_text())["model"]["vocab"]
    (folder / "vocab.txt").write_text("\n".join(sorted(vocabulary, key=vocabulary.get)))
    (folder / lost).unlink()
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    keys = ("vocab_file", "tokenizer_file", "merges_file", "special_tokens_map_file", "name_or_path", "spm_file")
    change(folder / "tokenizer_config.json", tokenizer_class="BertTokenizer", **dict.fromkeys(keys, str(pipe)))
    assert works_or_says(folder) == ""


@pytest.mark.parametrize("lost", ["model", "added_tokens", "post_processor", "pre_tokenizer", "normalizer"])
@pytest.mark.parametrize("value", [None, 3, [], {}, {"type": "Evil"}])
def test_a_tokenizer_with_broken_parts(folder: Path, lost: str, value: object) -> None:
    change(folder / "tokenizer.json", **{lost: value})
    works_or_says(folder)


@pytest.mark.parametrize(
    "changes",
    [
        {"tokenizer_class": "\ud800"},
        {"model_max_length": [1]},
        {"model_max_length": "x"},
        {"unk_token": "gone"},
        {"unk_token": 3},
        {"cls_token": {}},
        {"pad_token": ["x"]},
        {"model_input_names": 3},
        {"padding_side": "x"},
        {"added_tokens_decoder": {"x": 1}},
        {"extra_special_tokens": 3},
        {"backend": []},
    ],
    ids=str,
)
def test_a_tokenizer_config_of_wrong_types(folder: Path, changes: dict[str, Any]) -> None:
    change(folder / "tokenizer_config.json", **changes)
    works_or_says(folder)


def test_a_tokenizer_that_panics_when_it_is_used(folder: Path) -> None:
    """Rust's panics are no Exception in Python."""
    content = json.loads((folder / "tokenizer.json").read_text())
    content["post_processor"]["special_tokens"] = {}
    (folder / "tokenizer.json").write_text(json.dumps(content))
    assert "The tokenizer of" in works_or_says(folder)


@pytest.mark.parametrize("lost", ["single", "pair"])
def test_a_tokenizer_that_makes_no_tokens(folder: Path, lost: str) -> None:
    content = json.loads((folder / "tokenizer.json").read_text())
    content["post_processor"][lost] = []
    (folder / "tokenizer.json").write_text(json.dumps(content))
    assert "The tokenizer of" in works_or_says(folder)


def test_a_text_of_no_tokens(good: Path) -> None:
    model = load(good)
    model.tokenizer.backend_tokenizer.post_processor = None
    model.tokenizer.backend_tokenizer.normalizer = Replace("door", " ")
    with pytest.raises(InputError, match="produces no tokens for text 1"):
        model(["the dog", "door"])


@pytest.mark.parametrize("size", [3, 39])
def test_special_tokens_beyond_the_embeddings(folder: Path, size: int) -> None:
    content = json.loads((folder / "tokenizer.json").read_text())
    for token in content["added_tokens"]:
        token["id"] += size
    content["model"]["vocab"] = {word: index + size for word, index in content["model"]["vocab"].items()}
    (folder / "tokenizer.json").write_text(json.dumps(content))
    message = works_or_says(folder)
    if size == 39:
        assert (
            "the model has embeddings for 0 to 39 only: the tokenizer and the weights belong to different models"
            in message
        )


def test_words_beyond_the_embeddings_are_told_where_they_are_used(folder: Path) -> None:
    content = json.loads((folder / "tokenizer.json").read_text())
    content["model"]["vocab"]["door"] = 4711
    (folder / "tokenizer.json").write_text(json.dumps(content))
    model = load(folder)
    works_without = model("the dog is not open")
    assert bool(works_without.isfinite().all())
    with pytest.raises(InputError, match=r"Token ids must be from 0 to 39 for this model, got .* to 4711"):
        model("the door is not open")


@pytest.mark.parametrize("token", ["pad", "mask", "unk", "cls", "sep"])
def test_a_special_token_that_the_tokenizer_does_not_have(folder: Path, token: str) -> None:
    change(folder / "tokenizer_config.json", **{f"{token}_token": None})
    (folder / "special_tokens_map.json").unlink(missing_ok=True)
    message = works_or_says(folder)
    assert ("has no padding token" in message) == (token == "pad")


def test_a_tokenizer_that_is_given_spares_the_broken_one(folder: Path) -> None:
    (folder / "tokenizer.json").write_text("{")
    model = HookedEncoder.from_pretrained(folder, tokenizer=tiny_models.tokenizer(), device="cpu")
    works(model)


@pytest.mark.slow
@settings(max_examples=60, suppress_health_check=list(HealthCheck))
@given(where=st.floats(0, 1, exclude_max=True), new=st.binary(max_size=4), cut=st.integers(0, 6))
def test_any_bytes_anywhere_in_the_tokenizer(folder: Path, good: Path, where: float, new: bytes, cut: int) -> None:
    content = (good / "tokenizer.json").read_bytes()
    at = int(where * len(content))
    (folder / "tokenizer.json").write_bytes(content[:at] + new + content[at + cut :])
    try:
        works_or_says(folder)
    except InputError as error:  # a word whose id is now beyond the embeddings
        assert "Token ids must be from" in str(error)


# Sentence encoders


SENTENCE_SETTINGS = ("config_sentence_transformers.json", "sentence_bert_config.json", "sentence_xlnet_config.json")


@pytest.fixture
def sentence(tmp_path: Path) -> Path:
    folder = saved(tmp_path / "sentence", head="none")
    _describe(folder, "1_Pooling")
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text('{"pooling_mode_cls_token": true}')
    for file in SENTENCE_SETTINGS:
        (folder / file).write_text("{}")
    return folder


def _describe(folder: Path, path: object, kind: object = "sentence_transformers.models.Pooling") -> None:
    encoder = {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"}
    (folder / "modules.json").write_text(json.dumps([encoder, {"idx": 1, "name": "1", "path": path, "type": kind}]))


def test_a_sentence_encoder_works(sentence: Path) -> None:
    assert works_or_says(sentence) == "" and load(sentence).cfg.pooling == "cls"


@pytest.mark.parametrize("path", ["../outside", "/outside", "1_Pooling/../../outside"])
def test_modules_outside_the_folder(sentence: Path, tmp_path: Path, path: str) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "config.json").write_text('{"pooling_mode_mean_tokens": true}')
    _describe(sentence, path)
    assert "outside the folder, so it is not read" in works_or_says(sentence)


@pytest.mark.parametrize("path", ["gone", "a\0b", "x" * 5000, "\ud800", "config.json"])
def test_modules_that_are_not_there(sentence: Path, path: str) -> None:
    _describe(sentence, path)
    assert "config.json of" in works_or_says(sentence)


@pytest.mark.parametrize("path, kind", [(3, "x.Pooling"), (None, "x.Pooling"), ("1_Pooling", None), ("", ["Pooling"])])
def test_modules_without_type_or_path(sentence: Path, path: object, kind: object) -> None:
    _describe(sentence, path, kind)
    assert "must give the type and path of each module" in works_or_says(sentence)


@pytest.mark.parametrize("content", ["", "{}", "3", "null", "[3]", "[[]]", "[null, {}]", "[" * 100_000])
def test_broken_modules(sentence: Path, content: str) -> None:
    (sentence / "modules.json").write_text(content)
    assert "modules.json" in works_or_says(sentence)


@pytest.mark.parametrize("content", ["", "[]", "3", "{}", '{"pooling_mode": ["loud"]}', '{"pooling_mode_x": true}'])
def test_broken_pooling(sentence: Path, content: str) -> None:
    (sentence / "1_Pooling" / "config.json").write_text(content)
    message = works_or_says(sentence)
    assert "1_Pooling/config.json" in message


@pytest.mark.parametrize("file", ["modules.json", "1_Pooling/config.json", *SENTENCE_SETTINGS])
@pytest.mark.parametrize("harm", [_directory, _pipe, _dangling, _loop, _truncate, _not_utf8, _nested, _other_json])
def test_settings_that_cannot_be_read(sentence: Path, harm: Callable[[Path], None], file: str) -> None:
    harm(sentence / file)
    assert Path(file).name in works_or_says(sentence)


# The hub


@pytest.mark.parametrize("file", FILES)
def test_a_folder_never_leads_to_the_hub(folder: Path, monkeypatch: pytest.MonkeyPatch, file: str) -> None:
    """Not even where it has the name of a model of the hub and a file is missing."""
    asked: list[object] = []

    def ask(*arguments: object, **options: object) -> None:
        asked.append(arguments)
        raise ConnectionError("no network in tests")

    for name in ("socket.socket.connect", "socket.getaddrinfo"):
        monkeypatch.setattr(name, ask)
    # As if there was a network: the library itself would only refuse to ask.
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr(transformers.utils.hub, "is_offline_mode", lambda: False)
    (folder.parent / "google-bert").mkdir()
    folder.rename(folder.parent / "google-bert" / "bert-base-uncased")
    monkeypatch.chdir(folder.parent)
    (Path("google-bert/bert-base-uncased") / file).unlink()
    works_or_says("google-bert/bert-base-uncased")
    assert asked == []
