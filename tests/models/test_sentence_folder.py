"""Sentence-transformers folders: each setting is honoured, as the library itself honours it, or refused by name."""

import inspect
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import normalizers

from negprobe import AttentionProbe, HookedEncoder, StatementPair
from negprobe.base.errors import InputError, ModelError, NegprobeError
from negprobe.models.config import ACTIVATIONS
from negprobe.models.heads import pool
from negprobe.statements import tokenize
from tests.support import tiny_models
from tests.support.tiny_models import D_MODEL, N_CTX, largest_difference

REASON = "needs: pip install sentence-transformers"
library = pytest.importorskip("sentence_transformers", reason=REASON)
modules = pytest.importorskip("sentence_transformers.models", reason=REASON)

TEXTS = ["The Door is NOT open.", "the door is not open and so the big dog is now really never it ?", "a house"]
PAIRS = [("The Door is NOT open.", "a big house"), ("the door is not open and so it is", "the dog is now really red ?")]

MODULES, MODEL, ENCODER = "modules.json", "config_sentence_transformers.json", "sentence_bert_config.json"
POOLING, NORMALIZE = "1_Pooling/config.json", "2_Normalize/config.json"
CONFIG, TOKENIZER = "config.json", "tokenizer_config.json"


def load(folder: Path, **options: Any) -> HookedEncoder:
    return HookedEncoder.from_pretrained(folder, device="cpu", **options)


def embed(folder: Path, texts: list[Any] = TEXTS) -> torch.Tensor:
    with torch.no_grad():
        return load(folder)(texts, truncate=True)


def embed_by_library(folder: Path, texts: list[Any] = TEXTS) -> torch.Tensor:
    # One by one: the padding of a batch is no part of a text's embedding.
    model = library.SentenceTransformer(str(folder), device="cpu")
    return model.encode(texts, batch_size=1, convert_to_tensor=True, show_progress_bar=False)


def change(file: Path, **changes: Any) -> None:
    content = json.loads(file.read_text()) if file.exists() else {}
    file.write_text(json.dumps(content | changes))


def describe(folder: Path, *types: str) -> None:
    """Write a modules.json with the encoder in the folder itself."""
    entries = [
        {"idx": i, "name": str(i), "path": f"{i}_{kind.rsplit('.', 1)[-1]}" if i else "", "type": kind}
        for i, kind in enumerate(types)
    ]
    (folder / MODULES).write_text(json.dumps(entries))


def change_module(folder: Path, index: int, **changes: Any) -> None:
    entries = json.loads((folder / MODULES).read_text())
    entries[index] |= changes
    (folder / MODULES).write_text(json.dumps(entries))


def write_tokenizer(folder: Path, normalizer: normalizers.Normalizer | None, family: str = "bert") -> None:
    tokenizer = tiny_models.tokenizer(family)
    tokenizer.backend_tokenizer.normalizer = normalizer
    tokenizer.model_max_length = N_CTX
    tokenizer.save_pretrained(folder)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small encoder as the library saves one; its tokenizer keeps capital letters, none of which it knows."""
    root = tmp_path_factory.mktemp("saved")
    tiny_models.hf_model("bert", "none").save_pretrained(root / "encoder")
    write_tokenizer(root / "encoder", None)
    parts = [modules.Transformer(str(root / "encoder")), modules.Pooling(D_MODEL), modules.Normalize()]
    library.SentenceTransformer(modules=parts, device="cpu").save(str(root / "model"), create_model_card=False)
    return root / "model"


@pytest.fixture
def folder(saved: Path, tmp_path: Path) -> Path:
    return shutil.copytree(saved, tmp_path / "model")


@pytest.fixture
def cross_encoder(tmp_path: Path) -> Path:
    tiny_models.hf_model("bert", "classification").save_pretrained(tmp_path / "classifier")
    write_tokenizer(tmp_path / "classifier", None)
    library.CrossEncoder(str(tmp_path / "classifier"), device="cpu").save(str(tmp_path / "model"))
    return tmp_path / "model"


def older_layout(saved: Path, folder: Path) -> Path:
    """The encoder in a folder of its own, and CLS pooling by a switch."""
    shutil.copytree(saved, folder / "0_Transformer", ignore=shutil.ignore_patterns(MODULES, MODEL, "[12]_*"))
    switches = {"word_embedding_dimension": D_MODEL, "pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}
    (folder / "1_Pooling").mkdir()
    change(folder / POOLING, **switches)
    describe(folder, "sentence_transformers.models.Transformer", "sentence_transformers.models.Pooling")
    change_module(folder, 0, path="0_Transformer")
    return folder


# Lower-casing


@pytest.mark.parametrize(
    "normalizer",
    [
        None,
        normalizers.BertNormalizer(lowercase=False),
        normalizers.Sequence([normalizers.NFD(), normalizers.StripAccents()]),
        normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()]),
    ],
    ids=["none", "bert", "sequence", "lower-cases"],
)
def test_texts_are_lower_cased_as_the_library_does(folder: Path, normalizer: normalizers.Normalizer | None) -> None:
    write_tokenizer(folder, normalizer)
    change(folder / ENCODER, do_lower_case=True)
    texts = ["The Door is NOT open.", "İt is ΝΟΤ rèd, NOT Kelvin K", "[MASK] [mask] IS"]
    assert largest_difference(embed(folder, texts), embed_by_library(folder, texts)) < 1e-5
    assert largest_difference(embed(folder, texts[:1]), embed(folder, [texts[0].lower()])) < 1e-6


def test_lower_casing_is_only_done_where_it_is_asked_for(folder: Path) -> None:
    change(folder / ENCODER, do_lower_case=False)
    assert largest_difference(embed(folder), embed_by_library(folder)) < 1e-5
    assert largest_difference(embed(folder, TEXTS[:1]), embed(folder, [TEXTS[0].lower()])) > 0.05


def test_offsets_of_a_lower_cased_statement_count_its_own_characters(folder: Path) -> None:
    """Also where the lower case of a letter is two characters long."""
    change(folder / ENCODER, do_lower_case=True)
    model = load(folder)
    text = "İİ THE Door IS not İ Open"
    statement = tokenize(text, model.tokenizer)
    assert [text[start:end] for start, end in statement.offsets[1:-1]] == text.split()
    assert statement.positions((text.index("IS"), text.index("IS") + 2)) == (4,)
    assert statement.ids == tuple(model.to_tokens(text)[0][0].tolist())
    assert statement.tokens[3:6] == ("Door", "IS", "not")
    assert model.to_single_token("NOT") == model.to_single_token("not")


def test_a_given_tokenizer_is_lower_cased_too_and_left_as_it_was(folder: Path) -> None:
    change(folder / ENCODER, do_lower_case=True)
    given = transformers.AutoTokenizer.from_pretrained(folder)
    with torch.no_grad():
        found = load(folder, tokenizer=given)(TEXTS, truncate=True)
    assert largest_difference(found, embed_by_library(folder)) < 1e-5
    assert given.backend_tokenizer.normalizer is None


# The cut


@pytest.mark.parametrize("longest", [3, 8, N_CTX, 1000])
def test_max_seq_length_cuts_where_the_library_cuts(folder: Path, longest: int) -> None:
    change(folder / ENCODER, max_seq_length=longest)
    texts = TEXTS if longest <= N_CTX else TEXTS[::2]  # beyond its positions the library breaks off
    assert largest_difference(embed(folder, texts), embed_by_library(folder, texts)) < 1e-5
    model = load(folder)
    assert model.cfg.n_ctx == min(longest, N_CTX) == len(model.W_pos)


def test_pairs_of_texts_are_cut_as_the_library_cuts_them(folder: Path) -> None:
    change(folder / ENCODER, max_seq_length=9)
    theirs = library.SentenceTransformer(str(folder), device="cpu").preprocess(PAIRS)
    tokens, types, mask = load(folder).to_tokens(PAIRS, truncate=True)
    assert tokens.shape[1] == 9
    assert torch.equal(tokens, theirs["input_ids"]) and torch.equal(mask, theirs["attention_mask"])
    assert torch.equal(types, theirs["token_type_ids"])


def test_the_tokenizer_decides_where_no_max_seq_length_is_given(folder: Path) -> None:
    change(folder / TOKENIZER, model_max_length=7)
    assert load(folder).cfg.n_ctx == 7
    assert largest_difference(embed(folder), embed_by_library(folder)) < 1e-5
    change(folder / ENCODER, max_seq_length=9)
    assert load(folder).cfg.n_ctx == 9
    assert largest_difference(embed(folder), embed_by_library(folder)) < 1e-5


def test_nothing_is_cut_unless_asked(folder: Path) -> None:
    """What is cut off could be what two statements differ in."""
    change(folder / ENCODER, max_seq_length=6)
    model = load(folder)
    with pytest.raises(InputError, match=r"reads at most 6.*pass truncate=True"):
        model("the door is not open and red")
    with pytest.raises(InputError, match=r"reads at most 6"):
        model(torch.full((1, 7), 5))
    pair = StatementPair("the door is so open and red", "the door is so open and not")
    with pytest.raises(NegprobeError, match=r"reads at most 6"):
        AttentionProbe(model).compare(pair)


@pytest.mark.parametrize("longest", [2, 0, -1, True, 8.5, "8"])
def test_lengths_that_leave_no_room_for_a_word(folder: Path, longest: Any) -> None:
    change(folder / ENCODER, max_seq_length=longest)
    with pytest.raises(ModelError, match=r"max_seq_length"):
        load(folder)


# Layouts


def test_an_encoder_in_a_folder_of_its_own(saved: Path, tmp_path: Path) -> None:
    folder = older_layout(saved, tmp_path)
    assert load(folder).cfg.pooling == "cls"
    assert largest_difference(embed(folder), embed_by_library(folder)) < 1e-5


def test_a_head_on_an_encoder_in_a_folder_of_its_own(saved: Path, tmp_path: Path) -> None:
    folder = older_layout(saved, tmp_path)
    tiny_models.hf_model("bert", "masked_lm").save_pretrained(folder / "0_Transformer")
    model = load(folder, architecture="BertForMaskedLM")
    assert model.cfg.head == "masked_lm" and model.tokenizer is not None


def test_the_encoders_own_folder_is_refused(saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = older_layout(saved, tmp_path)
    monkeypatch.chdir(folder / "0_Transformer")
    for name in (folder / "0_Transformer", "."):
        with pytest.raises(ModelError, match=r"one module of the sentence-transformers model.*Load the parent folder"):
            load(name)


def test_an_older_layout_in_the_hubs_cache(saved: Path, tmp_path: Path) -> None:
    """Its files are links to blobs beside all snapshots."""
    (tmp_path / "flat").mkdir()
    older = older_layout(saved, tmp_path / "flat")
    snapshot = tmp_path / "models--a--b" / "snapshots" / ("0" * 40)
    blobs = tmp_path / "models--a--b" / "blobs"
    blobs.mkdir(parents=True)
    for number, file in enumerate(sorted(path for path in older.rglob("*") if path.is_file())):
        link = snapshot / file.relative_to(older)
        link.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, blobs / str(number))
        link.symlink_to(blobs / str(number))
    assert torch.equal(embed(snapshot), embed(older))


@pytest.mark.parametrize("path", ["../elsewhere", "nowhere", "config.json", "/", "a\0b", "x" * 5000])
def test_an_encoder_that_is_not_in_the_folder(folder: Path, path: str) -> None:
    (folder.parent / "elsewhere").mkdir()
    change_module(folder, 0, path=path)
    with pytest.raises(ModelError, match=r"not a folder inside it"):
        load(folder)


@pytest.mark.parametrize("names", [["BertForMaskedLM"], ["BertForPreTraining", "X"], [], None])
def test_a_sentence_encoder_has_no_head_whatever_its_config_names(folder: Path, names: list[str] | None) -> None:
    change(folder / CONFIG, architectures=names)
    assert load(folder).cfg.head == "none"
    assert largest_difference(embed(folder), embed_by_library(folder)) < 1e-5


def test_a_head_in_the_weights_of_a_sentence_encoder_is_left_out(folder: Path) -> None:
    tiny_models.hf_model("bert", "masked_lm").save_pretrained(folder)
    assert json.loads((folder / CONFIG).read_text())["architectures"] == ["BertForMaskedLM"]
    assert load(folder).cfg.head == "none"
    assert largest_difference(embed(folder), embed_by_library(folder)) < 1e-5
    (folder / MODULES).unlink()
    assert load(folder).cfg.head == "masked_lm"


@pytest.mark.parametrize("family", tiny_models.FAMILIES)
def test_every_family_as_a_sentence_encoder(folder: Path, family: str) -> None:
    tiny_models.hf_model(family, "masked_lm").save_pretrained(folder)
    write_tokenizer(folder, None, family)
    change(folder / ENCODER, max_seq_length=9, do_lower_case=True)
    assert largest_difference(embed(folder), embed_by_library(folder)) < 1e-5


# Prompts


def test_a_default_prompt_is_put_before_each_text(folder: Path) -> None:
    change(folder / MODEL, prompts={"query": "the dog ", "passage": "a "}, default_prompt_name="query")
    assert load(folder).cfg.prompt == "the dog "
    assert largest_difference(embed(folder), embed_by_library(folder)) < 1e-5
    prompted = embed(folder)
    change(folder / MODEL, default_prompt_name=None)
    assert load(folder).cfg.prompt == ""
    assert largest_difference(embed(folder), prompted) > 1e-2


def test_a_prompt_is_chosen_by_its_name_or_given_as_text(folder: Path) -> None:
    change(folder / MODEL, prompts={"query": "the dog ", "passage": "a "}, default_prompt_name="query")
    library_model = library.SentenceTransformer(str(folder), device="cpu")
    for prompt, theirs in [
        ("passage", {"prompt_name": "passage"}),
        ("document", {"prompt_name": "document"}),  # always defined, and empty
        ("it is ", {"prompt": "it is "}),
        ("", {"prompt": ""}),
    ]:
        expected = library_model.encode(TEXTS, batch_size=1, convert_to_tensor=True, show_progress_bar=False, **theirs)
        with torch.no_grad():
            ours = load(folder, prompt=prompt)(TEXTS, truncate=True)
        assert largest_difference(ours, expected) < 1e-5


def test_a_word_that_is_no_name_of_a_prompt_is_refused(folder: Path) -> None:
    """As a text it would run into the first word."""
    change(folder / MODEL, prompts={"search_query": "the dog "})
    with pytest.raises(ModelError, match=r"no prompt named 'search'; its prompts are 'query', 'document', 'search_que"):
        load(folder, prompt="search")
    with pytest.raises(ModelError, match=r"no prompt named 'query'; its folder names no prompts.*end it with a space"):
        HookedEncoder.from_pretrained("tiny-negation", prompt="query")


@pytest.mark.parametrize("prompt", ["it [MASK] ", "\ud800 "])
def test_a_prompt_that_cannot_be_put_before_a_text_is_refused(prompt: str) -> None:
    with pytest.raises(ModelError, match=r"The prompt .* (contains the mask token|is not valid UTF-8)"):
        HookedEncoder.from_pretrained("tiny-negation", prompt=prompt)


def test_a_prompt_needs_a_tokenizer(folder: Path) -> None:
    for file in ("tokenizer.json", TOKENIZER):
        (folder / file).unlink()
    assert load(folder).tokenizer is None
    with pytest.raises(ModelError, match=r"The prompt 'the ' needs a tokenizer"):
        load(folder, prompt="the ")


def test_the_tokenizer_of_another_model_does_not_bring_its_prompt(folder: Path) -> None:
    prompted = load(folder, prompt="the ")
    bare = load(folder, tokenizer=prompted.tokenizer)
    assert prompted.to_tokens("it is red")[0].shape[1] == bare.to_tokens("it is red")[0].shape[1] + 1
    assert tokenize("it is red", bare.tokenizer).ids == tuple(bare.to_tokens("it is red")[0][0].tolist())


@pytest.mark.parametrize("longest", [5, 8])
def test_a_prompt_counts_towards_the_cut(folder: Path, longest: int) -> None:
    """Also where nothing but [SEP] is left to pool."""
    change(folder / MODEL, prompts={"query": "the big dog is "}, default_prompt_name="query")
    for include in (True, False):
        change(folder / POOLING, include_prompt=include)
        change(folder / ENCODER, max_seq_length=longest)
        assert largest_difference(embed(folder), embed_by_library(folder)) < 1e-5


@pytest.mark.parametrize("prompt", ["the dog is ", "the dog is", "the dog [SEP]", "The dog"])
def test_a_prompt_that_is_not_pooled(folder: Path, prompt: str) -> None:
    change(folder / MODEL, prompts={"query": prompt}, default_prompt_name="query")
    change(folder / POOLING, include_prompt=False)
    assert load(folder).cfg.pool_from > 0
    assert load(folder, prompt="").cfg.pool_from == 0
    assert largest_difference(embed(folder), embed_by_library(folder)) < 1e-5
    change(folder / POOLING, include_prompt=True)
    assert largest_difference(embed(folder), embed_by_library(folder)) < 1e-5


def test_token_ids_without_the_prompt_are_refused_where_it_is_not_pooled(folder: Path) -> None:
    change(folder / MODEL, prompts={"query": "the big dog is "}, default_prompt_name="query")
    change(folder / POOLING, include_prompt=False)
    model = load(folder)
    tokens = model.to_tokens(["it", "it is red"])[0]
    assert largest_difference(model(tokens), model(["it", "it is red"])) == 0
    with pytest.raises(InputError, match=r"no token to pool: the model pools from position 5.*must include the prompt"):
        model(torch.full((1, 5), 7))
    with pytest.raises(InputError, match=r"no token to pool"):
        model(torch.zeros(1, 5, D_MODEL), start_at_layer=1)


@pytest.mark.parametrize("default", ["empty", "unset", None])
def test_prompts_that_are_empty_or_not_used_by_default_change_nothing(folder: Path, default: str | None) -> None:
    prompts = {"query": "the ", "empty": "", "unset": None}
    change(folder / MODEL, prompts=prompts, default_prompt_name=default)
    assert largest_difference(embed(folder), embed_by_library(folder)) < 1e-5


# Cross-encoders


def test_a_cross_encoder(cross_encoder: Path) -> None:
    """Its logits are what the library has before `activation_fn`."""
    change(cross_encoder / ENCODER, do_lower_case=True, max_seq_length=9)
    change(cross_encoder / MODEL, activation_fn="torch.nn.modules.activation.Sigmoid")
    theirs = library.CrossEncoder(str(cross_encoder), device="cpu")
    expected = theirs.predict(PAIRS, activation_fn=torch.nn.Identity(), convert_to_tensor=True, show_progress_bar=False)
    assert largest_difference(embed(cross_encoder, PAIRS), expected) < 1e-5
    change(cross_encoder / MODEL, prompts={"q": "the "}, default_prompt_name="q")
    theirs = library.CrossEncoder(str(cross_encoder), device="cpu")
    prompted = theirs.predict(PAIRS, activation_fn=torch.nn.Identity(), convert_to_tensor=True, show_progress_bar=False)
    assert largest_difference(embed(cross_encoder, PAIRS), prompted) < 1e-5
    assert largest_difference(prompted, expected) > 1e-3
    change(cross_encoder / MODEL, default_prompt_name="query")  # defined for encoders only
    with pytest.raises(ModelError, match=r"default_prompt_name = 'query', which is not one of its prompts \('q'\)"):
        load(cross_encoder)


def test_a_cross_encoder_needs_a_classifier(cross_encoder: Path) -> None:
    change(cross_encoder / CONFIG, architectures=["BertModel"])
    with pytest.raises(ModelError, match=r"describes a CrossEncoder, but its config\.json names no"):
        load(cross_encoder)


# Other modules, and files that name none


@pytest.mark.parametrize("kinds", [
    "Transformer", "Pooling", "Pooling Transformer", "Transformer Normalize Pooling", "Transformer Transformer Pooling",
    "Transformer Pooling Pooling", "Transformer Dense Pooling", "Transformer Pooling CNN", "Transformer CNN Pooling",
    "Transformer LSTM Pooling", "Transformer WordWeights Pooling", "Transformer Dropout Pooling",
    "Transformer WeightedLayerPooling Pooling", "Router Pooling", "Asym", "WordEmbeddings Pooling", "StaticEmbedding",
    "BERT Pooling", "MLMTransformer SpladePooling",
])  # fmt: skip
def test_other_modules_and_orders_are_refused(folder: Path, kinds: str) -> None:
    describe(folder, *(f"sentence_transformers.models.{kind}" for kind in kinds.split()))
    with pytest.raises(ModelError, match=rf"has the modules '{', '.join(kinds.split())}'"):
        load(folder)


def test_modules_of_other_packages_are_refused(folder: Path) -> None:
    describe(folder, "sentence_transformers.models.Transformer", "my_code.Pooling")
    with pytest.raises(ModelError, match=r"has the modules .*my_code\.Pooling"):
        load(folder)


@pytest.mark.parametrize("changes", [{"kwargs": ["task"]}, {"name": "0"}, {"name": 3}, {"a_new_setting": 1}], ids=str)
def test_settings_of_a_module(folder: Path, changes: dict[str, Any]) -> None:
    change_module(folder, 2, **changes)
    with pytest.raises(ModelError, match=rf"modules\.json of .* ({'|'.join(changes)})"):
        load(folder)


@pytest.mark.sampled(3)
@pytest.mark.parametrize("kind", ["roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet"])
def test_the_encoders_settings_have_six_other_names(folder: Path, kind: str) -> None:
    """The library reads the first file that is not empty."""
    (folder / ENCODER).write_text("{}")
    change(folder / f"sentence_{kind}_config.json", max_seq_length=7, do_lower_case=True)
    assert load(folder).cfg.n_ctx == 7
    assert largest_difference(embed(folder), embed_by_library(folder)) < 1e-5
    change(folder / ENCODER, max_seq_length=9)
    assert load(folder).cfg.n_ctx == 9
    assert largest_difference(embed(folder), embed_by_library(folder)) < 1e-5


def test_without_modules_a_folder_is_pooled_by_the_mean_and_other_files_mean_nothing(folder: Path) -> None:
    (folder / MODULES).unlink()
    change(folder / ENCODER, do_lower_case=True, max_seq_length=5)
    change(folder / MODEL, default_prompt_name="query", prompts={"query": "the "})
    assert not load(folder).cfg.normalize
    assert largest_difference(embed(folder), embed_by_library(folder)) < 1e-5


@pytest.mark.parametrize("widths", [{"embedding_dimension": 4}, {"word_embedding_dimension": 4}], ids=str)
def test_pooling_of_another_width_is_refused(folder: Path, widths: dict[str, int]) -> None:
    """It was written for another encoder."""
    (folder / POOLING).write_text("{}")
    change(folder / POOLING, pooling_mode="mean", **widths)
    with pytest.raises(ModelError, match=r"states of width 24: they belong to different models"):
        load(folder)
    change(folder / POOLING, embedding_dimension=D_MODEL, word_embedding_dimension=4)
    with pytest.raises(ModelError, match=r"different values for embedding_dimension and word_embedding_dimension"):
        load(folder)


# Poolings, and the modules after them

POOLINGS = modules.Pooling.POOLING_MODES


@pytest.mark.parametrize("prompt_length", [0, 2])
@pytest.mark.parametrize("mode", [*POOLINGS, ("lasttoken", "mean", "cls"), tuple(POOLINGS)], ids=str)
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16], ids=str)
def test_each_pooling_is_the_librarys_with_padding_on_either_side(mode: Any, prompt_length: int, dtype: Any) -> None:
    states = torch.randn(4, 7, 5, dtype=dtype, generator=torch.Generator().manual_seed(1))
    right = torch.tensor([[1] * n + [0] * (7 - n) for n in (7, 4, 3, 5)])
    theirs = modules.Pooling(5, pooling_mode=mode, include_prompt=prompt_length == 0)
    wanted = (mode,) if isinstance(mode, str) else mode
    for mask in (right, right.flip(1), torch.cat([right[:2], right[2:].flip(1)])):
        features = {"token_embeddings": states, "attention_mask": mask, "prompt_length": 2}
        expected = theirs(features)["sentence_embedding"]
        ours = pool(states, mask, wanted, prompt_length)
        assert ours.dtype == dtype and largest_difference(ours, expected) < (1e-12 if dtype == torch.float64 else 1e-2)


def written(root: Path, *parts: Any) -> Path:
    """A folder with these modules after the encoder, as the library saves one, with random weights."""
    generator = torch.Generator().manual_seed(3)
    for part in parts:
        for parameter in part.parameters():
            torch.nn.init.normal_(parameter, std=0.5, generator=generator)
    tiny_models.hf_model("bert", "none").save_pretrained(root / "encoder")
    write_tokenizer(root / "encoder", None)
    encoder = modules.Transformer(str(root / "encoder"))
    library.SentenceTransformer(modules=[encoder, *parts], device="cpu").save_pretrained(str(root / "model"))
    return root / "model"


def dense(d_in: int, d_out: int, act_fn: str = "Tanh", **options: Any) -> Any:
    return modules.Dense(d_in, d_out, activation_function=getattr(torch.nn, act_fn)(), **options)


AFTER_POOLING: dict[str, Callable[[], list[Any]]] = {
    "dense": lambda: [dense(D_MODEL, 5)],
    "dense normalize": lambda: [dense(D_MODEL, 5, "Identity"), modules.Normalize()],
    "normalize dense": lambda: [modules.Normalize(), dense(D_MODEL, 30, "GELU", bias=False)],
    "layernorm": lambda: [modules.LayerNorm(D_MODEL)],
    "dense layernorm normalize twice": lambda: [
        *[dense(D_MODEL, 5), modules.LayerNorm(5)],
        *[modules.Normalize(), modules.Normalize()],
    ],
    "residual": lambda: [dense(D_MODEL, 5, use_residual=True), modules.Dropout(0.5), dense(5, 5, use_residual=True)],
}


@pytest.mark.sampled(2)
@pytest.mark.parametrize("mode", ["mean", "lasttoken", ("cls", "max")], ids=str)
@pytest.mark.parametrize("after", AFTER_POOLING)
def test_modules_after_the_pooling_are_applied_in_their_order(tmp_path: Path, after: str, mode: Any) -> None:
    parts = AFTER_POOLING[after]()
    pooling = modules.Pooling(D_MODEL, pooling_mode=mode)
    if pooling.pooling_output_dimension != D_MODEL:
        parts.insert(0, dense(pooling.pooling_output_dimension, D_MODEL))
    folder = written(tmp_path, pooling, *parts)
    expected = embed_by_library(folder)
    assert largest_difference(embed(folder), expected) < 1e-5
    # In one batch, too: the library's is padded on the right here.
    model = library.SentenceTransformer(str(folder), device="cpu")
    batch = model.encode(TEXTS, convert_to_tensor=True, show_progress_bar=False)
    assert largest_difference(embed(folder), batch) < 1e-5


@pytest.mark.parametrize("mode", ["cls", "mean", "lasttoken", "weightedmean"])
def test_tokens_padded_on_the_left_are_pooled_as_the_library_pools_them(tmp_path: Path, mode: str) -> None:
    folder = written(tmp_path, modules.Pooling(D_MODEL, pooling_mode=mode), dense(D_MODEL, 5))
    change(folder / TOKENIZER, padding_side="left")
    theirs = library.SentenceTransformer(str(folder), device="cpu")
    features = theirs.preprocess(TEXTS)
    assert features["attention_mask"][0, 0] == 0
    with torch.no_grad():
        expected = theirs(dict(features))["sentence_embedding"]
        ours = load(folder)(features["input_ids"], one_zero_attention_mask=features["attention_mask"])
    assert largest_difference(ours, expected) < 1e-5


@pytest.mark.parametrize("act_fn", ACTIVATIONS)
def test_each_activation_function_is_found_under_its_name(tmp_path: Path, act_fn: str) -> None:
    folder = written(tmp_path, modules.Pooling(D_MODEL), dense(D_MODEL, 5, act_fn))
    assert largest_difference(embed(folder), embed_by_library(folder)) < 1e-5
    change(folder / "2_Dense/config.json", activation_function=f"torch.nn.{act_fn}")
    assert largest_difference(embed(folder), embed_by_library(folder)) < 1e-5


@torch.no_grad()
def test_the_hooks_after_the_pooling_are_live(tmp_path: Path) -> None:
    folder = written(tmp_path, modules.Pooling(D_MODEL), dense(D_MODEL, 5), modules.LayerNorm(5), modules.Normalize())
    theirs, ours = library.SentenceTransformer(str(folder), device="cpu"), load(folder)
    features = theirs.preprocess(TEXTS[:1])
    _, cache = ours.run_with_cache(TEXTS[:1])
    pooled = theirs[1](theirs[0](features))["sentence_embedding"]
    hidden = theirs[2].linear(pooled)
    dense_hooks = [f"embedding_head.steps.0.hook_{place}" for place in ("pre", "post")]
    expected = dict(zip(["embedding_head.hook_pooled", *dense_hooks], [pooled, hidden, hidden.tanh()], strict=True))
    for name, value in expected.items():
        assert largest_difference(cache[name], value) < 1e-5
        moved = ours.run_with_hooks(TEXTS[:1], fwd_hooks=[(name, lambda tensor, hook: -tensor)])
        assert largest_difference(moved, ours(TEXTS[:1])) > 1e-2, name
    assert [name for name in ours.hook_dict if name.startswith("embedding_head")] == [
        *expected,
        *(f"embedding_head.steps.1.hook_{name}" for name in ("scale", "normalized", "out")),
    ]


@pytest.mark.parametrize("broken, message", [
    (lambda folder: (folder / "2_Dense/model.safetensors").unlink(), r"has no 2_Dense/model\.safetensors.*and call"),
    (lambda folder: (folder / "2_Dense/model.safetensors").write_bytes(b"no"), r"model\.safetensors is broken"),
    (lambda folder: change(folder / "2_Dense/config.json", in_features=7), r"linear\.weight \(5, 24\).*in_features"),
    (lambda folder: change(folder / "2_Dense/config.json", bias=False), r"linear\.bias \(5,\).*bias"),
    (lambda folder: (folder / "2_Dense/config.json").write_text('{"in_features": 24}'), r"has no out_features"),
    (lambda folder: change(folder / POOLING, pooling_mode=["cls", "mean"]), r"in_features.* does not fit.* width 48"),
])  # fmt: skip
def test_a_dense_module_that_does_not_fit_is_refused(
    tmp_path: Path, broken: Callable[[Path], Any], message: str
) -> None:
    folder = written(tmp_path, modules.Pooling(D_MODEL), dense(D_MODEL, 5))
    broken(folder)
    with pytest.raises(ModelError, match=message):
        load(folder)


def test_a_dense_module_with_pickled_weights_is_refused_with_advice(tmp_path: Path) -> None:
    folder = written(tmp_path, modules.Pooling(D_MODEL), dense(D_MODEL, 5))
    library.SentenceTransformer(str(folder), device="cpu").save_pretrained(
        str(tmp_path / "pickled"), safe_serialization=False
    )
    shutil.copytree(tmp_path / "pickled" / "2_Dense", folder / "2_Dense", dirs_exist_ok=True)
    (folder / "2_Dense" / "model.safetensors").unlink()
    with pytest.raises(ModelError, match=r"safetensors only.*Load the model once with sentence-transformers and call"):
        load(folder)
    # As the error advises.
    library.SentenceTransformer(str(folder), device="cpu").save_pretrained(str(tmp_path / "converted"))
    assert largest_difference(embed(tmp_path / "converted"), embed_by_library(folder)) < 1e-5


DENSE_CHANGES: list[tuple[str, Any]] = [
    *(("in_features", value) for value in (D_MODEL, 5, 0, "24")),
    *(("out_features", value) for value in (5, 6, None)),
    *(("bias", value) for value in (True, False, None, 1)),
    *(("activation_function", f"torch.nn.modules.{value}") for value in ("activation.ReLU", "linear.Identity")),
    *(("activation_function", value) for value in ("torch.nn.modules.activation.PReLU", "torch.tanh", "my.Tanh", None)),
    *(("activation_function", f"torch.nn.modules.{value}") for value in ("dropout.Dropout", "activation.Nothing")),
    *(("use_residual", value) for value in (True, False, None)),
    *(("module_input_name", value) for value in ("sentence_embedding", "token_embeddings", None)),
    *(("module_output_name", value) for value in ("sentence_embedding", "elsewhere", None)),
    *(("init_weight", value) for value in (None, [1.0])),
    *(("init_bias", value) for value in (None, [1.0])),
    ("a_new_setting", 1),
]


@pytest.mark.sampled(4)
@pytest.mark.parametrize("key, value", DENSE_CHANGES, ids=str)
def test_each_setting_of_a_dense_module_is_honoured_or_refused(tmp_path: Path, key: str, value: Any) -> None:
    folder = written(tmp_path, modules.Pooling(D_MODEL), dense(D_MODEL, 5))
    change(folder / "2_Dense/config.json", **{key: value})
    assert as_the_library_or_refused_by_name(folder, key) in ("honoured", "refused")


@pytest.mark.parametrize("kind, known", [
    ("Dense", {key for key, _ in DENSE_CHANGES}), ("LayerNorm", {"dimension"}), ("Dropout", {"dropout"}),
])  # fmt: skip
def test_every_setting_of_the_modules_after_the_pooling_is_known(kind: str, known: set[str]) -> None:
    read = {*getattr(modules, kind).config_keys, *inspect.signature(getattr(modules, kind).__init__).parameters}
    assert read - {"self"} <= known


@pytest.mark.parametrize("switches", [
    {}, {"pooling_mode_mean_tokens": False}, {"pooling_mode_lasttoken": True},
    {"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": True, "pooling_mode_max_tokens": False},
    {"pooling_mode_weightedmean_tokens": True, "pooling_mode_mean_sqrt_len_tokens": True},
    {"pooling_mode_max_tokens": True, "pooling_mode": "cls"},
], ids=str)  # fmt: skip
def test_the_switches_of_older_folders(folder: Path, switches: dict[str, Any]) -> None:
    (folder / POOLING).write_text(json.dumps({"word_embedding_dimension": D_MODEL, **switches}))
    assert largest_difference(embed(folder), embed_by_library(folder)) < 1e-5


# Every setting of every file

# A file, one of its keys, and a value for it.
CHANGES: list[tuple[str, str, Any]] = [
    *((ENCODER, "do_lower_case", value) for value in (True, False, None, 1, "true")),
    *((ENCODER, "max_seq_length", value) for value in (None, 8, 15, "8", [8])),
    *((ENCODER, "transformer_task", value) for value in ("feature-extraction", "fill-mask", "text-generation", None)),
    *((ENCODER, "module_output_name", value) for value in ("token_embeddings", "sentence_embedding")),
    (ENCODER, "modality_config", {"text": {"method": "forward", "method_output_name": "pooler_output"}}),
    (ENCODER, "modality_config", {"text": {"method": "forward", "method_output_name": ["hidden_states", 1]}}),
    *(
        (ENCODER, key, {})
        for key in ("model_args", "tokenizer_args", "config_args", "model_kwargs", "processor_kwargs")
    ),
    *((ENCODER, key, {"trust_remote_code": True}) for key in ("model_args", "tokenizer_args", "config_args")),
    *((ENCODER, key, {"hidden_act": "relu"}) for key in ("config_args", "config_kwargs")),
    *((ENCODER, key, {"truncation_side": "left"}) for key in ("tokenizer_args", "processor_kwargs")),
    *((ENCODER, key, {"dtype": "bfloat16"}) for key in ("model_args", "model_kwargs")),
    (ENCODER, "processing_kwargs", {"text": {"add_special_tokens": False}}),
    (ENCODER, "processing_kwargs", {}),
    *((ENCODER, "unpad_inputs", value) for value in (True, False, None)),
    *((ENCODER, key, 5) for key in ("query_length", "document_length")),
    (ENCODER, "query_expansion", {"strategy": "fixed", "length": 12}),
    (ENCODER, "tokenizer_name_or_path", "nowhere"),
    (ENCODER, "backend", "onnx"),
    (ENCODER, "a_new_setting", 1),
    *((MODEL, "prompts", value) for value in ({"query": "the "}, {"query": None}, {}, {"default": "the "})),
    *((MODEL, "default_prompt_name", value) for value in (None, "query", "document", "gone", "")),
    *((MODEL, "similarity_fn_name", value) for value in ("cosine", "dot", None, "maxsim")),
    *((MODEL, "truncate_dim", value) for value in (None, 4)),
    *((MODEL, "model_type", value) for value in ("SentenceTransformer", "SparseEncoder", "CrossEncoder", None)),
    (MODEL, "__version__", {"sentence_transformers": "99.0.0"}),
    (MODEL, "requirements", {"sentence-transformers": ">=99"}),
    (MODEL, "a_new_setting", 1),
    *((POOLING, "pooling_mode", value) for value in ("mean", "cls", "max", "mean_sqrt_len_tokens", "weightedmean")),
    *((POOLING, "pooling_mode", value) for value in ("lasttoken", ["cls"], ["mean", "cls"], "unknown", None)),
    *((POOLING, "include_prompt", value) for value in (True, False)),
    *((POOLING, "embedding_dimension", value) for value in (D_MODEL, 4)),
    (POOLING, "word_embedding_dimension", 4),
    (POOLING, "a_new_setting", 1),
    *((NORMALIZE, "module_input_name", value) for value in ("sentence_embedding", "token_embeddings", None)),
    *((NORMALIZE, "module_output_name", value) for value in ("sentence_embedding", "elsewhere", None)),
    (NORMALIZE, "a_new_setting", 1),
    (CONFIG, "hidden_act", "relu"),
    (CONFIG, "layer_norm_eps", 0.5),
    (CONFIG, "num_attention_heads", 2),
    (CONFIG, "architectures", ["BertForMaskedLM"]),
    *((TOKENIZER, "model_max_length", value) for value in (5, 5.5, 2, 1e30, None)),
    *((TOKENIZER, "truncation_side", value) for value in ("left", "right")),
    *((TOKENIZER, "padding_side", value) for value in ("left", "right")),
]


def as_the_library_or_refused_by_name(folder: Path, setting: str) -> str:
    """Whether the folder's embeddings are the library's ("honoured") or an error names the setting ("refused").

    What the library itself cannot load has no right embeddings ("no reference").
    """
    try:
        ours = embed(folder)
    except NegprobeError as error:
        assert setting in str(error)
        return "refused"
    try:
        theirs = embed_by_library(folder)
    except Exception:
        return "no reference"
    assert largest_difference(ours, theirs) < 1e-5
    return "honoured"


@pytest.mark.sampled(4)
@pytest.mark.parametrize("file, key, value", CHANGES, ids=[f"{f}-{k}-{json.dumps(v)[:40]}" for f, k, v in CHANGES])
def test_each_setting_is_honoured_or_refused(folder: Path, file: str, key: str, value: Any) -> None:
    change(folder / file, **{key: value})
    assert as_the_library_or_refused_by_name(folder, key) in ("honoured", "refused")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from(["", "query", "mean", "cls", "the "]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["text", "query"]), inner, max_size=2),
    max_leaves=3,
)


@pytest.mark.slow
@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(where=st.sampled_from(sorted({(file, key) for file, key, _ in CHANGES if file != CONFIG})), value=JSON)
def test_any_value_of_any_setting(saved: Path, folder: Path, where: tuple[str, str], value: Any) -> None:
    file, key = where
    shutil.copy(saved / file, folder / file)
    change(folder / file, **{key: value})
    try:
        as_the_library_or_refused_by_name(folder, key if file != TOKENIZER else "")
    finally:
        shutil.copy(saved / file, folder / file)


def test_every_setting_that_the_library_reads_is_tried(folder: Path) -> None:
    tried = {(file, key) for file, key, _ in CHANGES}
    read = {(ENCODER, key) for key in inspect.signature(modules.Transformer.__init__).parameters}
    read -= {(ENCODER, key) for key in ("self", "args", "kwargs", "model_name_or_path", "backend")}
    read |= {(ENCODER, key) for key in modules.Transformer.config_keys}
    read |= {(ENCODER, key) for key in ("model_args", "tokenizer_args", "config_args")}
    read |= {(POOLING, key) for key in [*modules.Pooling.config_keys, *modules.Pooling.config_key_renames]}
    read |= {(NORMALIZE, key) for key in modules.Normalize.config_keys}
    read |= {(MODEL, key) for key in json.loads((folder / MODEL).read_text())}
    assert len(read) > 25
    assert read - tried == set()


# The real encoder


def test_real_encoder_with_settings(minilm_path: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(minilm_path, tmp_path / "model")
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    tokenizer["normalizer"]["lowercase"] = False
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    change(folder / TOKENIZER, do_lower_case=False)
    texts = ["The Door is NOT open.", "the door is not open and " * 60]
    for honoured in ({"do_lower_case": True, "max_seq_length": 256}, {"do_lower_case": False, "max_seq_length": 20}):
        change(folder / ENCODER, **honoured)
        assert largest_difference(embed(folder, texts), embed_by_library(folder, texts)) < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("include", [True, False])
@pytest.mark.parametrize("mode", [*POOLINGS, ("mean", "max")], ids=str)
def test_real_encoder_with_a_prompt_and_modules_after_the_pooling(
    minilm_path: Path, tmp_path: Path, mode: Any, include: bool
) -> None:
    pooling = modules.Pooling(384, pooling_mode=mode, include_prompt=include)
    torch.manual_seed(0)
    parts = [dense(pooling.pooling_output_dimension, 64), modules.LayerNorm(64), modules.Normalize()]
    theirs = library.SentenceTransformer(
        modules=[modules.Transformer(str(minilm_path)), pooling, *parts],
        prompts={"query": "Represent the sentence, not the query: "},
        default_prompt_name="query",
        device="cpu",
    )
    theirs.save_pretrained(str(tmp_path))
    texts = ["The Door is NOT open.", "now", "the door is not open and " * 200]
    for length in (1, 3):
        expected = theirs.encode(texts, batch_size=length, convert_to_tensor=True, show_progress_bar=False)
        assert largest_difference(embed(tmp_path, texts), expected) < 1e-5
    tokens = [len(tokenize(text, load(tmp_path).tokenizer)) for text in texts[:2]]
    assert tokens == [
        theirs.preprocess([text], prompt=theirs.prompts["query"])["input_ids"].shape[1] for text in texts[:2]
    ]
