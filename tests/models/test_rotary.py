"""What only the rotary families have: other formats of their folders, frequencies, and grouped keys and values."""

import json
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
import transformers

import negprobe.models.folder
from negprobe import HookedEncoder
from negprobe.base.errors import ModelError
from negprobe.models.config import HookedEncoderConfig
from tests.models.test_equals_hugging_face import assert_same
from tests.support import tiny_models
from tests.support.tiny_models import D_HEAD, FAMILIES, HEADS, N_CTX, N_HEADS, largest_difference

ROTARY = ("nomic", "gte", "jina", "eurobert")
# As in the config.json of the original code.
NOMIC = {
    **{"n_embd": 24, "n_layer": 3, "n_head": 4, "n_inner": 40, "layer_norm_epsilon": 1e-12, "rotary_emb_base": 1000},
    **{"activation_function": "swiglu", "rotary_emb_fraction": 1.0, "rotary_emb_interleaved": False, "prenorm": False},
    **{"auto_map": {"AutoModel": "nomic-ai/nomic-bert-2048--modeling_hf_nomic_bert.NomicBertModel"}},
}
RENAMED = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "layer_norm_eps")


def saved(folder: Path, family: str, head: str = "none", **changes: Any) -> Path:
    """A tiny model of the family; a change to ... removes the field."""
    tiny_models.hf_model(family, head).save_pretrained(folder)
    file = folder / "config.json"
    fields = json.loads(file.read_text()) | changes
    file.write_text(json.dumps({key: value for key, value in fields.items() if value is not ...}))
    return folder


def load(folder: Path, **options: Any) -> HookedEncoder:
    return HookedEncoder.from_pretrained(folder, device="cpu", **options)


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("family", ROTARY)
def test_texts_as_long_as_the_context_and_of_one_token_equal_hugging_faces(family: str, head: str) -> None:
    theirs, ours = tiny_models.pair(family, head, torch.float64)
    tokens = tiny_models.token_batch(theirs.config.pad_token_id, (N_CTX, 9, 1))
    assert_same(theirs, ours, tiny_models.hf_inputs(theirs, tokens), head, 1e-10)


@pytest.mark.parametrize("pooling", ["bos", "mean", "late"])
def test_classifiers_of_eurobert_with_every_pooling_equal_hugging_faces(pooling: str) -> None:
    theirs, ours = tiny_models.pair("eurobert", "classification", torch.float64, classifier_pooling=pooling)
    tokens = tiny_models.token_batch(0)
    for given in (tokens, tokens.flip(1)):
        assert_same(theirs, ours, tiny_models.hf_inputs(theirs, given), "classification", 1e-10)


# Folders


def test_a_nomic_bert_of_the_original_code_is_refused_with_what_to_write(tmp_path: Path) -> None:
    folder = saved(tmp_path, "nomic", rope_parameters=..., head_dim=..., **dict.fromkeys(RENAMED, ...), **NOMIC)
    said = r"n_embd, n_layer, n_head, n_inner, which transformers' NomicBertConfig.*Add hidden_size = 24, .*auto_map"
    for options in ({}, {"architecture": "NomicBertModel"}):
        with pytest.raises(ModelError, match=said):
            load(folder, **options)


def test_fields_of_the_original_code_with_the_values_of_transformers_fields_are_no_obstacle(tmp_path: Path) -> None:
    folder = saved(tmp_path, "nomic", **NOMIC)
    with pytest.raises(ModelError, match="auto_map"):
        load(folder)
    tokens = tiny_models.token_batch(0, (7,))
    theirs = tiny_models.hf_model("nomic", "none")
    expected = tiny_models.hf_output(theirs, "none", tiny_models.hf_inputs(theirs, tokens))
    assert largest_difference(load(folder, architecture="NomicBertModel")(tokens), expected) < 1e-5


@pytest.mark.parametrize(
    ("family", "field", "value"),
    [
        ("nomic", "activation_function", "gelu"),
        ("nomic", "rotary_emb_fraction", 0.5),
        ("nomic", "rotary_emb_interleaved", True),
        ("nomic", "rotary_scaling_factor", 2.0),
        ("nomic", "prenorm", True),
        ("nomic", "rotary_emb_base", 10000),
        ("nomic", "n_positions", 8192),
        ("gte", "logn_attention_scale", True),
        ("gte", "layer_norm_type", "rms_norm"),
        ("eurobert", "clf_pooling", "mean"),
    ],
)
def test_what_only_the_original_code_computes_is_refused_by_name(
    tmp_path: Path, family: str, field: str, value: object
) -> None:
    with pytest.raises(ModelError, match=field):
        load(saved(tmp_path, family, **{field: value}))


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"model_type": "new", "architectures": ["NewModel"]}, "GTE's original code.*model type 'gte'"),
        (
            {"model_type": "xlm-roberta", "architectures": ["XLMRobertaModel"], "position_embedding_type": "rotary"},
            "jina-embeddings-v3's original code.*jina-embeddings-v3-hf",
        ),
    ],
    ids=["gte", "jina"],
)
def test_original_formats_with_other_model_types_are_refused_with_advice(
    tmp_path: Path, fields: dict[str, Any], said: str
) -> None:
    with pytest.raises(ModelError, match=said):
        load(saved(tmp_path, "gte", **fields))


def test_task_adapters_of_jina_embeddings_v3_are_refused_by_name(tmp_path: Path) -> None:
    folder = saved(tmp_path, "jina")
    weights = safetensors.torch.load_file(folder / "model.safetensors")
    W = weights.pop("encoder.layers.0.mixer.Wqkv.weight")
    parametrized = "encoder.layers.0.mixer.Wqkv.parametrizations.weight"
    weights |= {f"{parametrized}.original": W, f"{parametrized}.0.lora_A": torch.zeros(5, 4, 24)}
    safetensors.torch.save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"contain an adapter \(.*lora_A\)"):
        load(folder)


@pytest.mark.parametrize("options", [{}, {"architecture": "GteModel"}])
def test_a_class_that_the_installed_transformers_lacks_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, str]
) -> None:
    folder = saved(tmp_path, "gte")

    class Older:
        def __getattr__(self, name: str) -> object:
            if name == "GteModel":
                raise AttributeError(name)
            return getattr(transformers, name)

    monkeypatch.setattr(negprobe.models.folder, "transformers", Older())
    with pytest.raises(ModelError, match=r"transformers \S+ has no GteModel\. Install a newer version"):
        load(folder, **options)


# Loaded models


@pytest.mark.parametrize("family", [*ROTARY, "modernbert"])
def test_a_loaded_model_with_other_frequencies_than_its_configuration_gives_is_refused(family: str) -> None:
    theirs = tiny_models.hf_model(family)
    rotation = theirs.base_model.rotary_emb
    name = next(name for name, _ in rotation.named_buffers() if name.endswith("inv_freq"))
    getattr(rotation, name).mul_(2)
    with pytest.raises(ModelError, match=rf"rotary_emb\.{name} is not what its configuration gives"):
        HookedEncoder.from_pretrained(theirs, tokenizer=tiny_models.tokenizer(family), device="cpu")


# Grouped keys and values


def test_each_head_has_a_copy_of_the_keys_and_values_of_its_group() -> None:
    theirs, ours = tiny_models.pair("eurobert", "masked_lm", torch.float64)
    n_groups = theirs.config.num_key_value_heads
    assert (ours.cfg.n_key_value_groups, ours.cfg.n_key_value_heads) == (n_groups, None) and n_groups < N_HEADS
    attention = theirs.model.layers[1].self_attn
    mine = ours.blocks[1].attn
    for W, module in ((mine.W_K, attention.k_proj), (mine.W_V, attention.v_proj)):
        assert W.shape == (N_HEADS, FAMILIES["eurobert"].config().hidden_size, D_HEAD)
        for head in range(N_HEADS):
            group = head * n_groups // N_HEADS
            assert largest_difference(W[head], module.weight[group * D_HEAD : (group + 1) * D_HEAD].T) == 0
        # A large matrix product needs no copy of the weights.
        assert W.permute(0, 2, 1).is_contiguous()


@torch.no_grad()
def test_a_write_to_one_heads_key_leaves_the_other_heads_of_its_group_alone() -> None:
    """A write to all heads of a group is what a write to the key that they share does in Hugging Face's model."""
    theirs, ours = tiny_models.pair("eurobert", "masked_lm", torch.float64)
    tokens = tiny_models.token_batch(0, (9,))
    hook, heads_per_group = "blocks.1.attn.hook_k", FAMILIES["eurobert"].heads_per_group

    def patterns(heads: slice) -> torch.Tensor:
        def zero(k: torch.Tensor, hook: object) -> torch.Tensor:
            k = k.clone()
            k[:, :, heads] = 0
            return k

        with ours.hooks(fwd_hooks=[(hook, zero)]):
            return ours.run_with_cache(tokens)[1]["pattern", 1]

    plain, one, group = patterns(slice(0, 0)), patterns(slice(0, 1)), patterns(slice(0, heads_per_group))
    moved = (one - plain).abs().amax(dim=(0, 2, 3))
    assert moved[0] > 1e-3 and moved[1:].max() == 0

    def zero_group(module: object, inputs: object, output: torch.Tensor) -> torch.Tensor:
        output = output.clone()
        output[..., :D_HEAD] = 0
        return output

    handle = theirs.model.layers[1].self_attn.k_proj.register_forward_hook(zero_group)
    expected = theirs(tokens, output_attentions=True).attentions[1]
    handle.remove()
    assert largest_difference(group, expected) < 1e-10


def test_groups_that_do_not_divide_the_heads_are_refused(tmp_path: Path) -> None:
    sizes = {"d_model": 8, "d_head": 4, "n_heads": 2, "n_layers": 1, "d_mlp": 4, "n_ctx": 4, "d_vocab": 4}
    with pytest.raises(
        ModelError, match=r"n_heads 2 \(num_attention_heads\) is not a multiple of n_key_value_groups 3"
    ):
        HookedEncoderConfig(**sizes, act_fn="gelu", n_key_value_groups=3)
    with pytest.raises(ModelError, match="give n_key_value_groups"):
        HookedEncoderConfig(**sizes, act_fn="gelu", n_key_value_heads=1)
    with pytest.raises(ModelError):
        load(saved(tmp_path, "eurobert", num_key_value_heads=3))
