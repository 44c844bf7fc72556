"""Where a model comes from, and the one clear error for whatever cannot be loaded."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import safetensors.torch
import torch
import transformers
from huggingface_hub import constants

from negprobe import HookedEncoder
from negprobe.base.errors import ModelError
from negprobe.models import BUNDLED_MODEL, loading
from negprobe.models.families import FAMILY_OF
from tests.support import tiny_models
from tests.support.tiny_models import FAMILIES, HEADS, largest_difference


def saved(folder: Path, family: str = "bert", head: str = "masked_lm", **options: object) -> Path:
    """A small model and its tokenizer, as save_pretrained leaves them."""
    tiny_models.hf_model(family, head).save_pretrained(folder, **options)
    tiny_models.tokenizer(family).save_pretrained(folder)
    return folder


def change_config(folder: Path, **changes: object) -> None:
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def change_weights(folder: Path, change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]) -> None:
    file = folder / "model.safetensors"
    weights = {name: tensor.clone() for name, tensor in safetensors.torch.load_file(file).items()}
    safetensors.torch.save_file(change(weights), file, metadata={"format": "pt"})


def load(name: str | Path) -> HookedEncoder:
    return HookedEncoder.from_pretrained(name, device="cpu")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return saved(tmp_path / "model")


# What loads


@pytest.mark.sampled(4)
@torch.no_grad()
@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("family", FAMILIES)
def test_a_folder(tmp_path: Path, family: str, head: str) -> None:
    ours = load(saved(tmp_path, family, head))
    theirs = tiny_models.hf_model(family, head)
    tokens = tiny_models.token_batch(theirs.config.pad_token_id, (7,))
    expected = tiny_models.hf_output(theirs, head, tiny_models.hf_inputs(theirs, tokens))
    assert largest_difference(ours(tokens), expected) < 1e-5
    assert ours.cfg.head == head and ours.cfg.family == FAMILY_OF[theirs.config.model_type].name
    assert ours.cfg.model_name == str(tmp_path) and not ours.training
    assert ours.tokenizer is not None and ours("the door").shape[0] == 1


@torch.no_grad()
def test_a_folder_in_shards(tmp_path: Path) -> None:
    saved(tmp_path, max_shard_size="20KB")
    assert len(list(tmp_path.glob("model-*.safetensors"))) > 1
    assert not (tmp_path / "model.safetensors").exists()
    tokens = tiny_models.token_batch(0, (7,))
    assert largest_difference(load(tmp_path)(tokens), tiny_models.hf_model("bert")(tokens).logits) < 1e-5


@torch.no_grad()
@pytest.mark.parametrize("head", HEADS)
def test_a_loaded_model_and_ours_do_not_change_each_other(head: str) -> None:
    theirs = tiny_models.hf_model("bert", head)
    ours = HookedEncoder.from_pretrained(theirs, device="cpu")
    by_name = HookedEncoder.from_pretrained("my model", hf_model=theirs, device="cpu")
    assert by_name.cfg.model_name == "my model" and ours.cfg.model_name
    tokens = tiny_models.token_batch(0, (7,))
    inputs = tiny_models.hf_inputs(theirs, tokens)
    before = tiny_models.hf_output(theirs, head, inputs)
    assert largest_difference(ours(tokens), before) < 1e-5
    assert largest_difference(by_name(tokens), before) < 1e-5
    for parameter in ours.parameters():
        parameter.zero_()
    assert largest_difference(tiny_models.hf_output(theirs, head, inputs), before) == 0
    for parameter in theirs.parameters():
        parameter.zero_()
    assert largest_difference(by_name(tokens), before) < 1e-5


def test_a_classifier_keeps_its_labels(tmp_path: Path) -> None:
    saved(tmp_path, head="classification")
    change_config(tmp_path, id2label={"0": "no", "1": "yes", "2": "maybe"}, label2id={"no": 0, "yes": 1, "maybe": 2})
    assert load(tmp_path).cfg.labels == ("no", "yes", "maybe")


@torch.no_grad()
def test_the_bundled_model() -> None:
    bundled = Path(loading.__file__).parent / BUNDLED_MODEL
    if not (bundled / "model.safetensors").is_file():
        pytest.skip(f"{BUNDLED_MODEL} has not been trained yet: run scripts/train_tiny_negation.py")
    ours = load(BUNDLED_MODEL)
    assert ours.cfg.head == "masked_lm" and ours.cfg.model_name == BUNDLED_MODEL
    theirs = transformers.AutoModelForMaskedLM.from_pretrained(bundled, attn_implementation="eager").eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(bundled)
    text = "the door is not open . so the door is [MASK] ."
    encoded = tokenizer(text, return_tensors="pt")
    expected = theirs(input_ids=encoded["input_ids"], attention_mask=encoded["attention_mask"]).logits
    assert largest_difference(ours(text), expected) < 1e-5


@torch.no_grad()
def test_half_precision_checkpoints_become_float32(tmp_path: Path) -> None:
    tiny_models.hf_model("bert").half().save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["dtype"] == "float16"
    ours = load(tmp_path)
    assert {parameter.dtype for parameter in ours.parameters()} == {torch.float32} == {ours.cfg.dtype}
    tokens = tiny_models.token_batch(0, (7,))
    assert largest_difference(ours(tokens), tiny_models.hf_model("bert").half().float()(tokens).logits) < 1e-5
    double = HookedEncoder.from_pretrained(tmp_path, device="cpu", dtype=torch.float64)
    assert double(tokens).dtype == torch.float64 == double.cfg.dtype


@torch.no_grad()
def test_old_names_of_layer_norms_weights(folder: Path) -> None:
    def renamed(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        old = {"LayerNorm.weight": "LayerNorm.gamma", "LayerNorm.bias": "LayerNorm.beta"}
        out = {}
        for name, tensor in weights.items():
            for new_part, old_part in old.items():
                name = name.replace(new_part, old_part)
            out[name] = tensor
        assert sum("gamma" in name for name in out) == 2 * tiny_models.N_LAYERS + 2
        return out

    change_weights(folder, renamed)
    tokens = tiny_models.token_batch(0, (7,))
    assert largest_difference(load(folder)(tokens), tiny_models.hf_model("bert")(tokens).logits) < 1e-5


@torch.no_grad()
def test_weights_that_no_head_needs_are_left_alone(folder: Path) -> None:
    """As in published checkpoints: position ids and the next-sentence head beside a masked LM."""
    change_weights(folder, lambda weights: weights | {"bert.embeddings.position_ids": torch.arange(16)[None],
                                                      "cls.seq_relationship.weight": torch.zeros(2, 24)})  # fmt: skip
    tokens = tiny_models.token_batch(0, (7,))
    assert largest_difference(load(folder)(tokens), tiny_models.hf_model("bert")(tokens).logits) < 1e-5


@torch.no_grad()
@pytest.mark.parametrize("name, pooling", [("BertForPreTraining", "masked_lm"), ("ElectraForPreTraining", "none")])
def test_pretraining_checkpoints(tmp_path: Path, name: str, pooling: str) -> None:
    family = "bert" if name.startswith("Bert") else "electra-narrow"
    theirs = getattr(transformers, name)(FAMILIES[family].config()).eval()
    theirs.save_pretrained(tmp_path)
    ours = load(tmp_path)
    tokens = tiny_models.token_batch(0, (7,))
    assert ours.cfg.head == pooling
    if pooling == "masked_lm":
        assert largest_difference(ours(tokens), theirs(tokens).prediction_logits) < 1e-5
    else:
        assert largest_difference(ours(tokens), theirs.electra(tokens).last_hidden_state.mean(dim=1)) < 1e-5


@torch.no_grad()
def test_a_bert_whose_config_speaks_of_embeddings_of_another_size(folder: Path) -> None:
    """Only ELECTRA has narrower embeddings; elsewhere the field means nothing."""
    change_config(folder, embedding_size=128)
    assert load(folder)("the door").shape == (1, 4, tiny_models.D_VOCAB)


def test_a_folder_without_a_tokenizer(tmp_path: Path) -> None:
    tiny_models.hf_model("bert").save_pretrained(tmp_path)
    assert load(tmp_path).tokenizer is None
    given = tiny_models.tokenizer()
    assert HookedEncoder.from_pretrained(tmp_path, tokenizer=given, device="cpu").tokenizer is given


def test_the_callers_log_settings_are_left_as_they_were(folder: Path) -> None:
    log = transformers.utils.logging
    before = log.get_verbosity(), log.is_progress_bar_enabled()
    load(folder)
    assert (log.get_verbosity(), log.is_progress_bar_enabled()) == before


# Sentence-transformers folders


@pytest.fixture(scope="module")
def sentence_folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Save an encoder with the given modules after it, as sentence-transformers does."""
    reason = "needs: pip install sentence-transformers"
    st = pytest.importorskip("sentence_transformers", reason=reason)
    models = pytest.importorskip("sentence_transformers.models", reason=reason)

    def make(pooling: object, *kinds: str) -> Path:
        root = tmp_path_factory.mktemp("sentence")
        encoder = models.Transformer(str(saved(root / "encoder", head="none")))
        width = tiny_models.D_MODEL
        more = {"Normalize": lambda: models.Normalize(), "Dense": lambda: models.Dense(width, 8)}
        modules = [encoder, models.Pooling(width, pooling_mode=pooling), *(more[kind]() for kind in kinds)]
        st.SentenceTransformer(modules=modules, device="cpu").save(str(root / "saved"))
        return root / "saved"

    return make


@torch.no_grad()
@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_a_sentence_encoder(sentence_folder: Callable[..., Path], pooling: str, normalize: bool) -> None:
    from sentence_transformers import SentenceTransformer

    path = sentence_folder(pooling, *["Normalize"] * normalize)
    texts = ["The door is not open.", "a house", "now"]
    expected = SentenceTransformer(str(path), device="cpu").encode(texts, convert_to_tensor=True)
    ours = load(path)
    assert (ours.cfg.pooling, ours.cfg.normalize) == (pooling, normalize)
    assert largest_difference(ours(texts), expected) < 1e-5


@pytest.mark.parametrize("mode, normalize", [("mean_tokens", False), ("cls_token", True)])
def test_an_older_sentence_encoder(tmp_path: Path, mode: str, normalize: bool) -> None:
    saved(tmp_path, head="none")
    kinds = ["Transformer", "Pooling", *["Normalize"] * normalize]
    modules = [
        {"idx": i, "path": f"{i}_{kind}" if i else "", "type": f"sentence_transformers.models.{kind}"}
        for i, kind in enumerate(kinds)
    ]
    (tmp_path / "modules.json").write_text(json.dumps(modules))
    (tmp_path / "1_Pooling").mkdir()
    switches = {f"pooling_mode_{other}": other == mode for other in ("cls_token", "mean_tokens", "max_tokens")}
    (tmp_path / "1_Pooling" / "config.json").write_text(json.dumps({"word_embedding_dimension": 24} | switches))
    ours = load(tmp_path)
    assert (ours.cfg.pooling, ours.cfg.normalize) == (mode.split("_")[0], normalize)


def test_several_poolings_and_a_dense_module(sentence_folder: Callable[..., Path]) -> None:
    ours = load(sentence_folder(("mean", "cls")))
    assert ours.cfg.pooling == ("mean", "cls") and ours("now").shape == (1, 48)
    ours = load(sentence_folder("max", "Dense"))
    assert ours.cfg.pooling == "max" and ours("now").shape == (1, 8)


def test_broken_descriptions_of_pooling(sentence_folder: Callable[..., Path]) -> None:
    path = sentence_folder("mean")
    (path / "1_Pooling" / "config.json").unlink()
    with pytest.raises(ModelError, match=r"config\.json of .* is not readable JSON"):
        load(path)
    (path / "modules.json").write_text("[{")
    with pytest.raises(ModelError, match=r"modules\.json of .* is not readable JSON"):
        load(path)


# What does not load


@pytest.mark.parametrize("name", ["./nowhere", "/nowhere/at/all", "~/nowhere", "models/of/mine"])
def test_a_missing_folder(name: str) -> None:
    with pytest.raises(ModelError, match=rf"no model folder at '{name}'.*{BUNDLED_MODEL}"):
        load(name)


def test_a_file_instead_of_a_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ModelError, match="no model folder"):
        load(folder / "model.safetensors")
    monkeypatch.chdir(folder)
    with pytest.raises(ModelError, match=r"no model folder at 'config\.json'"):
        load("config.json")


def test_a_folder_that_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"has no config\.json"):
        load(tmp_path)


@pytest.mark.parametrize("name", ["google-bert/bert-base-uncased", "no-such-model"])
def test_an_offline_hub(name: str) -> None:
    assert constants.HF_HUB_OFFLINE
    with pytest.raises(ModelError, match=rf"'{name}'.*not in the local cache.*cannot be reached.*{BUNDLED_MODEL}"):
        load(name)


def test_a_name_no_hub_would_take() -> None:
    with pytest.raises(ModelError, match="no public hub model named 'not a name'"):
        load("not a name")


def test_a_checkpoint_of_bin_files_alone(folder: Path) -> None:
    weights = safetensors.torch.load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    with pytest.raises(ModelError, match="holds no weights, but negprobe reads"):
        load(folder)
    torch.save(weights, folder / "pytorch_model.bin")
    with pytest.raises(ModelError, match=r"holds pytorch_model\.bin, but .*safetensors only.*save_pretrained"):
        load(folder)


def test_a_bin_file_is_not_read_even_beside_other_safetensors(folder: Path) -> None:
    torch.save(safetensors.torch.load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").rename(folder / "adapter.safetensors")
    with pytest.raises(ModelError, match=rf"weights of '{folder}' could not be read"):
        load(folder)


def test_an_unknown_architecture(folder: Path) -> None:
    change_config(folder, model_type="funnel", architectures=["FunnelForSequenceClassification"])
    with pytest.raises(ModelError, match=r"'funnel'.*bert, distilbert, roberta, xlm-roberta, camembert, electra"):
        load(folder)
    change_config(folder, model_type="bert", architectures=["BertForQuestionAnswering"])
    with pytest.raises(ModelError, match=r"BertForQuestionAnswering has a head.*ForSequenceClassification"):
        load(folder)
    change_config(folder, model_type="bert", architectures=["BertFancyModel"])
    with pytest.raises(ModelError, match="BertFancyModel"):
        load(folder)


@pytest.mark.parametrize(
    ("model_type", "architecture"),
    [("roberta", "RobertaPreLayerNormForMaskedLM"), ("xlm-roberta", "XLMRobertaXLForMaskedLM")],
)
def test_a_class_of_another_family_whose_name_begins_alike(folder: Path, model_type: str, architecture: str) -> None:
    change_config(folder, model_type=model_type, architectures=[architecture])
    with pytest.raises(ModelError, match=rf"names the architecture '{architecture}' for model type '{model_type}'"):
        load(folder)


def test_relative_positions(folder: Path) -> None:
    change_config(folder, position_embedding_type="relative_key")
    with pytest.raises(ModelError, match="'relative_key' position embeddings"):
        load(folder)


def test_decoders(tmp_path: Path, folder: Path) -> None:
    config = transformers.GPT2Config(vocab_size=40, n_embd=24, n_layer=1, n_head=2, n_positions=16)
    gpt2 = transformers.GPT2LMHeadModel(config)
    gpt2.save_pretrained(tmp_path / "gpt2")
    for source in (tmp_path / "gpt2", gpt2):
        with pytest.raises(ModelError, match=r"GPT2LMHeadModel \(gpt2\) is a decoder.*supports encoders only"):
            HookedEncoder.from_pretrained(source)
    bert = transformers.BertLMHeadModel(transformers.BertConfig(**_TINY, is_decoder=True))
    bert.save_pretrained(tmp_path / "bert")
    for source in (tmp_path / "bert", bert):
        with pytest.raises(ModelError, match=r"BertLMHeadModel \(bert\) is a decoder"):
            HookedEncoder.from_pretrained(source)
    change_config(folder, is_decoder=True)
    with pytest.raises(ModelError, match=r"BertForMaskedLM \(bert\) is a decoder"):
        load(folder)
    change_config(folder, is_decoder=False, is_encoder_decoder=True, model_type="t5")
    with pytest.raises(ModelError, match="is a decoder or contains one"):
        load(folder)


_TINY = {
    "vocab_size": 40,
    "hidden_size": 8,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 8,
}


def test_a_model_without_padding() -> None:
    theirs = transformers.BertModel(transformers.BertConfig(**_TINY, pad_token_id=None))
    with pytest.raises(ModelError, match="BertModel has no pad_token_id"):
        HookedEncoder.from_pretrained(theirs)


def test_weights_that_are_missing(folder: Path) -> None:
    plain = saved(folder.parent / "plain", head="none")
    shutil.copy(plain / "model.safetensors", folder)
    with pytest.raises(ModelError, match=r"is a BertForMaskedLM according to.* wrong shape: .*cls\.predictions"):
        load(folder)


def test_one_missing_weight(folder: Path) -> None:
    lost = "bert.encoder.layer.1.output.dense.bias"
    change_weights(folder, lambda weights: {name: tensor for name, tensor in weights.items() if name != lost})
    with pytest.raises(ModelError, match=rf"wrong shape: {lost}\. "):
        load(folder)


def test_weights_of_another_shape(folder: Path) -> None:
    change_config(folder, intermediate_size=48)
    with pytest.raises(
        ModelError, match=r"wrong shape: bert\.encoder\.layer\.0\.intermediate\.dense\.bias, .* and more"
    ):
        load(folder)


def test_a_missing_shard(tmp_path: Path) -> None:
    saved(tmp_path, max_shard_size="20KB")
    sorted(tmp_path.glob("model-*.safetensors"))[1].unlink()
    with pytest.raises(ModelError, match=r"model-00002-of-.* is broken or missing"):
        load(tmp_path)


@pytest.mark.parametrize("content", [b"", b"not safetensors at all", b"\xff" * 200])
def test_corrupt_weights(folder: Path, content: bytes) -> None:
    (folder / "model.safetensors").write_bytes(content)
    with pytest.raises(ModelError, match=rf"weights of '{folder}' could not be read"):
        load(folder)


def test_truncated_weights(folder: Path) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(ModelError, match=rf"weights of '{folder}' could not be read"):
        load(folder)


@pytest.mark.parametrize("content", [b"{", b"", b"\xff\xfe\x00", b"[1, 2]"])
def test_a_broken_config(folder: Path, content: bytes) -> None:
    (folder / "config.json").write_bytes(content)
    with pytest.raises(ModelError, match=rf"config\.json of '{folder}'"):
        load(folder)


@pytest.mark.parametrize("named", [[], None, ["BertModel", "BertForMaskedLM"]])
def test_a_config_that_does_not_name_one_architecture(folder: Path, named: list[str] | None) -> None:
    change_config(folder, architectures=named)
    with pytest.raises(ModelError, match=rf"names {len(named or [])} architectures"):
        load(folder)


def test_a_config_that_makes_no_model(folder: Path) -> None:
    change_config(folder, num_attention_heads=5)
    with pytest.raises(ModelError, match=rf"'{folder}'"):
        load(folder)


def test_a_broken_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").write_text("{")
    with pytest.raises(ModelError, match=rf"tokenizer of '{folder}' could not be read"):
        load(folder)


def test_a_folder_that_asks_for_its_own_code_does_not_get_it_run(folder: Path) -> None:
    ran = folder / "ran"
    (folder / "evil.py").write_text(f"open({str(ran)!r}, 'w')\nclass Evil: pass\n")
    change_config(folder, auto_map={"AutoModelForMaskedLM": "evil.Evil", "AutoConfig": "evil.Evil"})
    file = folder / "tokenizer_config.json"
    wanted = {"auto_map": {"AutoTokenizer": ["evil.Evil", "evil.Evil"]}}
    file.write_text(json.dumps(json.loads(file.read_text()) | wanted))
    with pytest.raises(ModelError, match=r"configuration of .* has auto_map = .*never run.*remove the field"):
        load(folder)
    # Read as a class of transformers, as asked, but the tokenizer is still to be made by code.
    with pytest.raises(ModelError, match=r"tokenizer_config\.json of .* has auto_map = .*never run"):
        HookedEncoder.from_pretrained(folder, architecture="BertForMaskedLM", device="cpu")
    assert not ran.exists()


def test_weights_that_are_no_numbers_are_named(minilm_path):
    broken = transformers.AutoModel.from_pretrained(minilm_path)
    with torch.no_grad():
        broken.encoder.layer[2].output.dense.weight[3, 4] = float("nan")
    with pytest.raises(ModelError, match=r"not finite, in blocks\.2\.mlp\.W_out"):
        HookedEncoder.from_pretrained(broken, device="cpu")


@pytest.mark.parametrize("reason", ["Torch not compiled with CUDA enabled", "Out of memory.\n\nCompile with more."])
@pytest.mark.parametrize("error", [AssertionError, RuntimeError, TypeError, ModuleNotFoundError])
def test_a_device_that_a_model_cannot_be_put_on_is_a_clear_error(monkeypatch, error, reason):
    def refuse(self, device):
        raise error(reason)

    monkeypatch.setattr(HookedEncoder, "to", refuse)
    with pytest.raises(ModelError) as told:
        HookedEncoder.from_pretrained("tiny-negation", device="cuda")
    said = " ".join(reason.split()).rstrip(".")
    assert f"cannot be moved to 'cuda': {said}. Choose an available device" in str(told.value)


ELSEWHERE = ["meta", "hpu", "xpu", "privateuseone", "", "CPU", "cuda:x", "cuda:-1", "cpu\n", torch.device("meta")]


@pytest.mark.parametrize("device", ELSEWHERE)
def test_a_model_is_put_on_a_cpu_or_gpu_alone(device):
    with pytest.raises(ModelError) as told:
        HookedEncoder.from_pretrained("tiny-negation", device=device)
    assert f"moved to {str(device)!r}; choose 'cpu', 'cuda' (one of several: 'cuda:1') or 'mps'" in str(told.value)


@pytest.mark.parametrize("device", ["cpu", "cpu:0", torch.device("cpu")])
def test_the_cpu_has_many_names(device):
    assert HookedEncoder.from_pretrained("tiny-negation", device=device).device == torch.device("cpu")


@pytest.mark.parametrize("dtype", [torch.int8, torch.complex64, torch.float8_e4m3fn])
def test_dtypes_that_no_model_can_have(dtype):
    with pytest.raises(ModelError, match=rf"dtype must be one of torch\.float64, .*; got {dtype}\."):
        HookedEncoder.from_pretrained("tiny-negation", dtype=dtype)


@pytest.mark.parametrize("device", ["mps", torch.device("mps", 0)])
def test_float64_on_mps_says_what_to_choose(device):
    with pytest.raises(ModelError, match=r"MPS does not support float64; choose dtype=torch\.float32 or device='cpu'"):
        HookedEncoder.from_pretrained("tiny-negation", device=device, dtype=torch.float64)
