"""Every field of a configuration is honoured, harmless or refused: compared with Hugging Face where it has a value."""

import dataclasses
import json
import shutil
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
import transformers

from negprobe import HookedEncoder
from negprobe.base.errors import ModelError
from tests.support import tiny_models
from tests.support.tiny_models import FAMILIES, HEADS, largest_difference

# Fields that say how large the model is: another value does not fit the weights.
SIZES = {
    **{"vocab_size": 30, "hidden_size": 16, "num_hidden_layers": 2, "intermediate_size": 20, "embedding_size": 8},
    **{"max_position_embeddings": 9, "type_vocab_size": 3, "n_layers": 2, "dim": 12, "hidden_dim": 20},
    "inner_group_num": 2,
}
# Sizes of one family alone.
_BIASES = ("norm_bias", "attention_bias", "mlp_bias", "classifier_bias")
OTHER_SIZES = {
    "mpnet": {"num_attention_heads": 2},
    "albert": {"num_hidden_groups": 2},
    "albert-groups": {"num_hidden_groups": 3},
    "ernie": {"use_task_id": True},
    "ernie-tasks": {"use_task_id": False, "task_type_vocab_size": 4},
    "deberta": {
        **{"relative_attention": False, "max_relative_positions": 5, "pos_att_type": ["c2p"]},
        **{"position_biased_input": True, "legacy": False},
    },
    "deberta-v2": {"relative_attention": False, "position_biased_input": True, "legacy": False},
    "deberta-v2-conv": {
        **{"relative_attention": False, "max_relative_positions": 6, "pos_att_type": ["c2p"], "legacy": False},
    },
    "modernbert": dict.fromkeys(_BIASES, True) | {"decoder_bias": False},
    "modernbert-biased": dict.fromkeys(_BIASES, False) | {"decoder_bias": True},
    "nomic": {"num_attention_heads": 2, "head_dim": 4},
    "eurobert": {
        **{"num_attention_heads": 2, "head_dim": 4, "num_key_value_heads": 4},
        **{"attention_bias": True, "mlp_bias": True},
    },
    "eurobert-biased": {
        **{"num_attention_heads": 2, "head_dim": 4, "num_key_value_heads": 2},
        **{"attention_bias": False, "mlp_bias": False},
    },
}
# Sizes that no weight of a family has.
_ROTARY = ("modernbert", "modernbert-biased", "nomic", "gte", "gte-types", "jina", "eurobert", "eurobert-biased")
NO_SIZES = {family: {"max_position_embeddings"} for family in (*_ROTARY, "deberta-v2")}
# Fields by which Hugging Face computes something else, and so do we.
HONOURED = {
    **{"hidden_act": "relu", "activation": "relu", "num_attention_heads": 2, "n_heads": 2, "layer_norm_eps": 0.1},
    **{"pad_token_id": 0, "tie_word_embeddings": True, "id2label": {"0": "a", "1": "b", "2": "c"}},
    **{"hidden_activation": "relu", "classifier_activation": "tanh", "norm_eps": 0.1, "local_attention": 7},
    **{"layer_types": ["sliding_attention", "full_attention", "sliding_attention"], "classifier_pooling": "mean"},
    **{"rope_parameters": {"full_attention": {"rope_theta": 3.0}, "sliding_attention": {"rope_theta": 40}}},
    **{"rms_norm_eps": 0.1, "pooler_hidden_act": "relu"},
}
# Of one family alone.
_ROPE = {"rope_parameters": {"rope_type": "default", "rope_theta": 50}}
HONOURED_BY = {
    **dict.fromkeys(("nomic", "gte", "gte-types", "jina"), _ROPE),
    **dict.fromkeys(("eurobert", "eurobert-biased"), _ROPE | {"classifier_pooling": "bos"}),
}
# Fields of which a family has the weights for other values: any number of layers can share them.
OTHER_HONOURED: dict[str, dict[str, Any]] = {
    **{family: {"num_hidden_layers": 4} for family in ("albert", "albert-groups")},
    # The weights are those of all terms and of buckets. Position embeddings that are not added are left out.
    "deberta-v2": {"pos_att_type": ["c2p"], "max_relative_positions": 40},
    "deberta-v2-conv": {"position_biased_input": False},
}
# Sizes of weights that a model of this family does not have.
OTHER_HARMLESS = {"ernie": {"task_type_vocab_size": 4}}
# Fields that change no value in evaluation mode, and the model classes that read them are none of ours.
HARMLESS = {
    **dict.fromkeys(("hidden_dropout_prob", "attention_probs_dropout_prob", "classifier_dropout", "dropout"), 0.7),
    **dict.fromkeys(
        ("attention_dropout", "qa_dropout", "seq_classif_dropout", "summary_last_dropout", "classifier_dropout_prob"),
        0.7,
    ),
    **{
        "initializer_range": 5.0,
        "use_cache": False,
        "bos_token_id": 7,
        "eos_token_id": 7,
        "chunk_size_feed_forward": 1,
    },
    **{
        "pooler_dropout": 0.7,
        "embedding_dropout": 0.7,
        "mlp_dropout": 0.7,
        "initializer_cutoff_factor": 9.0,
        "cls_token_id": 7,
    },
    **{"mask_token_id": 7, "pretraining_tp": 2},
    **{"sep_token_id": 7, "deterministic_flash_attn": True, "sparse_prediction": True, "sparse_pred_ignore_index": 5},
    **{"sinusoidal_pos_embds": True, "summary_type": "mean", "summary_use_proj": False, "summary_activation": "tanh"},
    **{"output_hidden_states": True, "dtype": "float16", "transformers_version": "4.0.0"},
    **{"label2id": {"a": 0, "b": 1, "c": 2}, "problem_type": "single_label_classification"},
}
# Tuples instead of outputs, which is none of ours.
OF_PYTHON = {"return_dict": False, "output_attentions": False}
# Fields of which a family allows one value only, with another one.
FIXED = {"mpnet": {"relative_attention_num_buckets": 64, "pad_token_id": 0}}
REFUSED = {
    **{"is_decoder": True, "is_encoder_decoder": True, "add_cross_attention": True, "architectures": ["BertEvil"]},
    # Of other versions of transformers, and of its loader.
    **{"position_embedding_type": "relative_key", "pruned_heads": {"1": [0, 2]}, "auto_map": {"AutoModel": "a.B"}},
    **{"quantization_config": {"quant_method": "gptq", "bits": 4}, "compression_config": {"format": "x"}},
}
# As transformers 4 wrote them into every file.
EMPTY = {
    **{"is_decoder": False, "is_encoder_decoder": False, "add_cross_attention": False, "pruned_heads": {}},
    **{"position_embedding_type": "absolute", "quantization_config": None},
}


def saved(folder: Path, family: str, head: str, **changes: Any) -> Path:
    if "legacy" in changes:
        tiny_models.skip_unless_loadable(tiny_models.hf_model(family, head, legacy=changes["legacy"]))
    tiny_models.hf_model(family, head).save_pretrained(folder)
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))
    return folder


def both(folder: Path, family: str, head: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Hugging Face's output of a folder, and ours, at real tokens."""
    auto = {"masked_lm": "MaskedLM", "classification": "SequenceClassification"}.get(head)
    hf_class = getattr(transformers, f"AutoModelFor{auto}" if auto else "AutoModel")
    theirs = hf_class.from_pretrained(folder, attn_implementation="eager", dtype=torch.float32).eval()
    ours = HookedEncoder.from_pretrained(folder, device="cpu")
    tokens = tiny_models.token_batch(theirs.config.pad_token_id, (7, 4))
    inputs = tiny_models.hf_inputs(theirs, tokens)
    real = inputs["attention_mask"].bool()
    with torch.no_grad():
        outputs = tiny_models.hf_output(theirs, head, inputs), ours(tokens)
    return (outputs[0][real], outputs[1][real]) if head == "masked_lm" else outputs


@cache
def unchanged(family: str, head: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Both outputs of a folder as Hugging Face writes it."""
    with tempfile.TemporaryDirectory() as folder:
        return both(saved(Path(folder), family, head), family, head)


def fields(family: str) -> set[str]:
    case = FAMILIES[family]
    return {field.name for field in dataclasses.fields(case.config())} if case.is_installed else set()


def having(values: dict[str, Any]) -> list[Any]:
    """Each field with each family that has it."""
    return [
        pytest.param(f, field, id=f"{f}-{field}")
        for f in FAMILIES
        for field in values
        if field in fields(f) - NO_SIZES.get(f, set()) and field not in of_one_family(f)
    ]


def of_one_family(family: str) -> set[str]:
    """The fields that the tables of single families name for this one."""
    return {field for table in (FIXED, OTHER_SIZES, OTHER_HONOURED, OTHER_HARMLESS) for field in table.get(family, {})}


def and_of_one_family(values: dict[str, Any], others: dict[str, dict[str, Any]]) -> list[Any]:
    """Each field with each family that has it, and those of single families."""
    return [*having(values), *(pytest.param(f, field, id=f"{f}-{field}") for f in others for field in others[f])]


@pytest.mark.parametrize("family", FAMILIES)
def test_every_field_of_transformers_is_known_here(family: str) -> None:
    """A new one has to be looked at, and put into one of the tables above."""
    assert fields(family) <= {*SIZES, *HONOURED, *HARMLESS, *OF_PYTHON, *REFUSED, *of_one_family(family)}


@pytest.mark.parametrize(("family", "field"), [(family, field) for family in FIXED for field in FIXED[family]])
def test_a_field_with_one_supported_value_is_named(tmp_path: Path, family: str, field: str) -> None:
    folder = saved(tmp_path, family, "masked_lm", **{field: FIXED[family][field]})
    with pytest.raises(ModelError, match=f"has {field} = .*which negprobe supports"):
        HookedEncoder.from_pretrained(folder, device="cpu")


@pytest.mark.sampled(3)
@pytest.mark.parametrize("family, field", and_of_one_family(SIZES, OTHER_SIZES))
def test_a_size_that_the_weights_do_not_have_is_refused(tmp_path: Path, family: str, field: str) -> None:
    folder = saved(tmp_path, family, "masked_lm", **{field: (SIZES | OTHER_SIZES.get(family, {}))[field]})
    said = (
        r"have the wrong shape|which the \w+ described by its config\.json does not have|`num_hidden_layers` \(2\)|"
        r"\(num_attention_heads\) is not a multiple"
    )
    with pytest.raises(ModelError, match=said):
        HookedEncoder.from_pretrained(folder, device="cpu")


@pytest.mark.sampled(3)
@pytest.mark.parametrize("family, field", and_of_one_family(HONOURED, OTHER_HONOURED))
def test_a_field_that_is_honoured_gives_what_hugging_face_gives(tmp_path: Path, family: str, field: str) -> None:
    for head in HEADS:
        others = HONOURED_BY.get(family, {}) | OTHER_HONOURED.get(family, {})
        folder = saved(tmp_path / head, family, head, **{field: (HONOURED | others)[field]})
        theirs, ours = both(folder, family, head)
        assert largest_difference(ours, theirs) < 1e-5


@pytest.mark.sampled(7)
@pytest.mark.parametrize("family, field", and_of_one_family(HARMLESS, OTHER_HARMLESS))
def test_a_field_that_is_harmless_changes_nothing_at_hugging_face_either(
    tmp_path: Path, family: str, field: str
) -> None:
    value = (HARMLESS | OTHER_HARMLESS.get(family, {}))[field]
    for head in HEADS:
        plain = unchanged(family, head)
        changed = both(saved(tmp_path / head, family, head, **{field: value}), family, head)
        assert largest_difference(changed[0], plain[0]) < 1e-5
        assert largest_difference(changed[1], plain[1]) == 0


@pytest.mark.sampled(3)
@pytest.mark.parametrize("field", REFUSED)
@pytest.mark.parametrize("family", ["bert", "distilbert", "roberta", "electra"])
def test_a_field_that_is_refused_is_named(tmp_path: Path, family: str, field: str) -> None:
    folder = saved(tmp_path, family, "masked_lm", **{field: REFUSED[field]})
    said = {"is_decoder": "is a decoder", "is_encoder_decoder": "is a decoder", "architectures": "architecture"}
    said["position_embedding_type"] = "'relative_key' position embeddings"
    with pytest.raises(ModelError, match=said.get(field, f"has {field} = .*does not implement")):
        HookedEncoder.from_pretrained(folder, device="cpu")


@pytest.mark.parametrize("field, empty", EMPTY.items())
def test_a_refused_field_that_is_empty_changes_nothing(tmp_path: Path, field: str, empty: object) -> None:
    # Hugging Face's output without the field: not every version of transformers loads all of these.
    theirs, _ = both(saved(tmp_path / "without", "bert", "none"), "bert", "none")
    shutil.copytree(tmp_path / "without", tmp_path / "with")
    config = tmp_path / "with" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {field: empty}))
    model = HookedEncoder.from_pretrained(tmp_path / "with", device="cpu")
    assert largest_difference(model(tiny_models.token_batch(model.cfg.pad_token_id, (7, 4))), theirs) < 1e-5


# Where the output embeddings are stored.
DECODERS = {
    "bert": "cls.predictions.decoder.weight",
    "distilbert": "vocab_projector.weight",
    "roberta": "lm_head.decoder.weight",
    "electra-narrow": "generator_lm_head.weight",
    "mpnet": "lm_head.decoder.weight",
    "albert": "predictions.decoder.weight",
    "modernbert": "decoder.weight",
    "nomic": "cls.predictions.decoder.weight",
    "gte": "lm_head.decoder.weight",
    "jina": "lm_head.decoder.weight",
    "eurobert": "lm_head.weight",
}


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("family", DECODERS)
def test_output_embeddings_of_their_own_are_read_as_hugging_face_reads_them(
    tmp_path: Path, family: str, tied: bool
) -> None:
    folder = saved(tmp_path, family, "masked_lm", tie_word_embeddings=tied)
    weights = safetensors.torch.load_file(folder / "model.safetensors")
    decoder = DECODERS[family]
    embeddings = next(
        key
        for key in weights
        if key.endswith(("word_embeddings.weight", "tok_embeddings.weight", "embed_tokens.weight"))
    )
    weights[decoder] = weights[embeddings].flip(0).contiguous()
    if family != "eurobert":
        weights[decoder.replace("weight", "bias")] = torch.linspace(-1, 1, tiny_models.D_VOCAB)
    safetensors.torch.save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    theirs, ours = both(folder, family, "masked_lm")
    assert largest_difference(ours, theirs) < 1e-5


def test_fields_that_nobody_knows_are_left_alone(tmp_path: Path) -> None:
    folder = saved(tmp_path, "bert", "masked_lm", my_note="x", gradient_checkpointing=True, tie_weights_=True, seed=[3])
    theirs, ours = both(folder, "bert", "masked_lm")
    assert largest_difference(ours, theirs) < 1e-5


def test_two_names_of_one_size_agree(tmp_path: Path) -> None:
    folder = saved(tmp_path, "distilbert", "masked_lm", hidden_size=12)
    with pytest.raises(ModelError, match="hidden_size = 12, which is not equal to dim = 24"):
        HookedEncoder.from_pretrained(folder, device="cpu")
    saved(folder, "distilbert", "masked_lm", hidden_size=24)
    assert HookedEncoder.from_pretrained(folder, device="cpu").cfg.d_model == 24


ROTATIONS = {
    "rope_parameters": [
        {"rope_type": "linear", "factor": 2.0, "rope_theta": 50.0},
        {"rope_type": "yarn", "factor": 2.0, "rope_theta": 50.0},
        {"rope_type": "default", "rope_theta": 50.0, "partial_rotary_factor": 0.5},
        {"rope_type": "default", "rope_theta": 0},
        {"rope_type": "default", "rope_theta": 50.0, "full_attention": {"rope_theta": 5.0}},
        "default",
    ],
    "rope_scaling": [{"type": "ntk", "factor": 8.0}, {"type": "linear", "factor": 2.0}],
    "rope_theta": [0, -5.0, None, "big"],
    "partial_rotary_factor": [0.5],
    "head_dim": [5, 0, "6"],
}
ROTARY = ("nomic", "gte", "jina", "eurobert")


@pytest.mark.sampled(8)
@pytest.mark.parametrize(("field", "value"), [(field, value) for field in ROTATIONS for value in ROTATIONS[field]])
@pytest.mark.parametrize("family", ROTARY)
def test_a_rotation_that_is_not_computed_is_refused_by_name(
    tmp_path: Path, family: str, field: str, value: object
) -> None:
    folder = saved(tmp_path, family, "none", **{field: value})
    with pytest.raises(ModelError, match=f"{field}|d_head|head_dim|wrong shape"):
        HookedEncoder.from_pretrained(folder, device="cpu")


@pytest.mark.sampled(2)
@pytest.mark.parametrize("changes", [{"rope_theta": 50}, {"rope_scaling": {"type": "default", "rope_theta": 50.0}}])
@pytest.mark.parametrize("family", ROTARY)
def test_older_names_of_the_rotation_give_what_hugging_face_gives(tmp_path: Path, family: str, changes: dict) -> None:
    plain = unchanged(family, "none")[0]
    theirs, ours = both(saved(tmp_path, family, "none", rope_parameters=None, **changes), family, "none")
    assert largest_difference(ours, theirs) < 1e-5
    assert largest_difference(theirs, plain) > 1e-3


@pytest.mark.parametrize("family", ["nomic", "gte", "jina", "eurobert"])
def test_heads_of_another_width_than_the_states_divided_by_them(tmp_path: Path, family: str) -> None:
    config = FAMILIES[family].config()
    config.head_dim = 4
    config._attn_implementation = "eager"
    prefix = FAMILIES[family].prefix
    getattr(transformers, f"{prefix}ForMaskedLM")(config).save_pretrained(tmp_path)
    theirs, ours = both(tmp_path, family, "masked_lm")
    assert largest_difference(ours, theirs) < 1e-5
    assert HookedEncoder.from_pretrained(tmp_path, device="cpu").W_Q.shape[-1] == 4
