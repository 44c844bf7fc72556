"""What only ModernBERT has: windows, two bases of rotation, their older names, and a classifier of the mean state."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from negprobe import HookedEncoder
from negprobe.base.errors import InputError, ModelError, NegprobeError
from tests.models.test_equals_hugging_face import assert_same
from tests.support import tiny_models
from tests.support.tiny_models import N_CTX, N_LAYERS, largest_difference

FAMILIES = ("modernbert", "modernbert-biased")


def saved(folder: Path, **changes: Any) -> Path:
    """A tiny ModernBERT; a change to ... removes the field."""
    tiny_models.hf_model("modernbert").save_pretrained(folder)
    file = folder / "config.json"
    fields = json.loads(file.read_text()) | changes
    file.write_text(json.dumps({key: value for key, value in fields.items() if value is not ...}))
    return folder


def load(folder: Path) -> HookedEncoder:
    return HookedEncoder.from_pretrained(folder, device="cpu")


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("head", tiny_models.HEADS)
@pytest.mark.parametrize("local_attention", [0, 1, 4, 7, 1000])
def test_windows_of_any_width_equal_hugging_faces(family: str, head: str, local_attention: int) -> None:
    """With texts that are longer than the window, as long as the context, and of one token."""
    theirs, ours = tiny_models.pair(family, head, torch.float64, local_attention=local_attention)
    assert ours.cfg.windows == (None, local_attention // 2, local_attention // 2)
    tokens = tiny_models.token_batch(theirs.config.pad_token_id, (N_CTX, 9, 1))
    sides = (tokens, tokens.flip(1)) if head == "masked_lm" else (tokens,)
    for padded in sides:
        inputs = tiny_models.hf_inputs(theirs, padded)
        if local_attention > 1:
            assert_same(theirs, ours, inputs, head, 1e-10)
        else:  # every token of such a block sees itself alone, so its attention is one-hot
            real = inputs["attention_mask"].bool()
            expected, found = tiny_models.hf_output(theirs, head, inputs), ours(padded)
            at_real = (found[real], expected[real]) if head == "masked_lm" else (found, expected)
            assert largest_difference(*at_real) < 1e-10


def test_a_window_ends_where_its_width_says() -> None:
    _, ours = tiny_models.pair("modernbert", "masked_lm")
    _, cache = ours.run_with_cache(tiny_models.token_batch(0, (N_CTX,)))
    position = torch.arange(N_CTX)
    far = (position[:, None] - position).abs() > 2
    for layer in range(N_LAYERS):
        pattern = cache["pattern", layer][0]
        assert (pattern[:, ~far] > 0).all()
        assert (pattern[:, far] > 0).all() if layer == 0 else (pattern[:, far] == 0).all()


def test_the_two_bases_of_rotation_turn_their_own_blocks() -> None:
    rope = {"full_attention": {"rope_theta": 50.0}, "sliding_attention": {"rope_theta": 7.0}}
    theirs, ours = tiny_models.pair("modernbert", "masked_lm", torch.float64)
    config = type(theirs.config)(**theirs.config.to_dict() | {"rope_parameters": rope})
    config._attn_implementation = "eager"
    turned = type(theirs)(config).eval().double()
    turned.load_state_dict(theirs.state_dict())
    other = HookedEncoder.from_pretrained(turned, tokenizer=ours.tokenizer, dtype=torch.float64, device="cpu")
    assert other.cfg.rotary_bases == (50.0, 7.0, 7.0)
    tokens = tiny_models.token_batch(0)
    assert_same(turned, other, tiny_models.hf_inputs(turned, tokens), "masked_lm", 1e-10)
    assert largest_difference(other(tokens), ours(tokens)) > 1e-3


@pytest.mark.parametrize(
    "older",
    [
        {},
        {"global_attn_every_n_layers": 2},
        {"global_rope_theta": 30.0, "local_rope_theta": 9},
        {"sliding_window": 1, "local_attention": ...},
        {"global_attn_every_n_layers": 1, "layer_types": ["sliding_attention", "full_attention", "sliding_attention"]},
        {"local_rope_theta": 9.0, "rope_parameters": {"sliding_attention": {"rope_theta": 5.0}, "full_attention": {}}},
        {"rope_scaling": None, "rope_parameters": None, "layer_types": None, "layer_norm_eps": 0.3},
    ],
    ids=str,
)
def test_older_names_of_fields_mean_what_they_mean_to_hugging_face(tmp_path: Path, older: dict[str, Any]) -> None:
    folder = saved(tmp_path, **{"layer_types": ..., "rope_parameters": ...} | older)
    theirs = transformers.ModernBertForMaskedLM.from_pretrained(folder, attn_implementation="eager").eval()
    assert_same(theirs, load(folder), tiny_models.hf_inputs(theirs, tiny_models.token_batch(0)), "masked_lm", 1e-5)


YARN = {"rope_type": "yarn", "factor": 2.0, "rope_theta": 5.0}


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("rope_scaling", {"type": "linear", "factor": 2.0}, "rope_scaling"),
        ("rope_parameters", {"full_attention": YARN}, r"rope_parameters\.full_attention\.rope_type = 'yarn'"),
        ("rope_parameters", {"sliding_attention": {"type": "ntk"}}, r"sliding_attention\.type = 'ntk'"),
        ("rope_parameters", {"sliding_attention": {"rope_theta": None}}, r"sliding_attention\.rope_theta = None"),
        ("rope_parameters", {"rope_theta": 5.0}, "rope_parameters = .*entries 'full_attention'"),
        ("rope_parameters", {"sliding_attention": None}, r"sliding_attention = None"),
        ("rope_parameters", [5.0], "rope_parameters"),
        ("layer_types", ["chunked_attention"] * 3, "layer_types"),
        ("layer_types", "full_attention", "layer_types"),
        ("layer_types", ["full_attention", "sliding_attention"], "layer_type"),
        ("global_attn_every_n_layers", 0, "global_attn_every_n_layers"),
        ("global_rope_theta", None, "global_rope_theta"),
        ("local_attention", -2, "local_attention"),
        ("local_attention", "all", "local_attention"),
        ("classifier_pooling", "max", "classifier_pooling"),
        ("norm_bias", 1, "norm_bias"),
        ("head_dim", 4, "head_dim = 4"),
    ],
)
def test_a_setting_that_is_not_supported_is_refused_by_name(
    tmp_path: Path, field: str, value: object, said: str
) -> None:
    with pytest.raises(ModelError, match=said):
        load(saved(tmp_path, **{field: value}))


def test_heads_of_an_odd_width_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"d_head is 3; .*even"):
        load(saved(tmp_path, num_attention_heads=8))


def test_a_context_that_is_longer_than_the_vocabulary_is_no_missing_weight(tmp_path: Path) -> None:
    assert load(saved(tmp_path, max_position_embeddings=8192)).cfg.n_ctx == 8192


@pytest.mark.parametrize("family", FAMILIES)
def test_a_text_beyond_the_context_is_one_clear_error(family: str) -> None:
    _, ours = tiny_models.pair(family, "masked_lm")
    for given in (torch.full((1, N_CTX + 1), 6), "the door " * N_CTX):
        with pytest.raises(NegprobeError, match=f"reads at most {N_CTX}") as caught:
            ours(given)
        assert type(caught.value) is InputError
        assert ours(given, truncate=True).shape[1] == N_CTX


@pytest.mark.parametrize("head", tiny_models.HEADS)
@pytest.mark.parametrize("family", FAMILIES)
def test_a_saved_folder_with_a_tokenizer_is_read(tmp_path: Path, family: str, head: str) -> None:
    theirs, live = tiny_models.pair(family, head)
    theirs.save_pretrained(tmp_path)
    tiny_models.tokenizer(family).save_pretrained(tmp_path)
    ours = HookedEncoder.from_pretrained(tmp_path, device="cpu")
    texts = ["The door is not open.", "It is [MASK] red, so the house is closed."]
    encoded = tiny_models.tokenizer(family)(texts, padding=True, return_tensors="pt")
    inputs = {name: encoded[name] for name in ("input_ids", "attention_mask")}
    with torch.no_grad():
        expected = tiny_models.hf_output(theirs, head, inputs)
        real = inputs["attention_mask"].bool()
        for model in (ours, live):
            found = model(texts)
            at_real = (found[real], expected[real]) if head == "masked_lm" else (found, expected)
            assert largest_difference(*at_real) < 1e-5


def test_a_model_with_dropout_in_memory_is_read() -> None:
    theirs, ours = tiny_models.pair("modernbert", "classification", attention_dropout=0.5, mlp_dropout=0.5)
    assert_same(theirs, ours, tiny_models.hf_inputs(theirs, tiny_models.token_batch(0)), "classification", 1e-5)


def test_ultrabert_is_refused_by_name(tmp_path: Path) -> None:
    """Its blocks are ModernBERT's kind, but its heads have other parts: two linear maps before the decoder, or none."""
    folder = saved(tmp_path, model_type="ultrabert", architectures=["UltrabertForMaskedLM"])
    with pytest.raises(ModelError, match=r"no conversion for model type 'ultrabert' \(UltrabertForMaskedLM\)"):
        load(folder)
