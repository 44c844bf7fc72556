"""What a user of TransformerLens 3's `HookedEncoder` finds: its arguments, attributes, methods and state dicts.

TransformerLens 4 no longer has that class. `TRANSFORMER_LENS_3` names a folder with an unpacked wheel of version 3 (and
`better_abc`, which it needs): the last test then compares the two classes directly.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import transformers
from torch import Tensor
from torch.testing import assert_close

from negprobe import HookedEncoder
from negprobe.base.errors import InputError, ModelError, NegprobeError
from tests.models.test_next_sentence import next_sentence, pre_trained
from tests.support import tiny_models
from tests.support.tiny_models import D_HEAD, D_MODEL, N_CTX, N_HEADS, N_LAYERS, largest_difference

VERSION_3 = os.environ.get("TRANSFORMER_LENS_3")


@pytest.fixture
def model() -> HookedEncoder:
    return tiny_models.pair("bert", "masked_lm", torch.float64)[1]


def state_dict_of_version_3(theirs: transformers.BertForPreTraining) -> dict[str, Tensor]:
    """What TransformerLens 3.5 saves of a BERT: its names, both heads and the constants of attention."""
    bert, heads = theirs.bert, theirs.cls
    weights = {
        "embed.embed.W_E": bert.embeddings.word_embeddings.weight,
        "embed.pos_embed.W_pos": bert.embeddings.position_embeddings.weight,
        "embed.token_type_embed.W_token_type": bert.embeddings.token_type_embeddings.weight,
        "embed.ln.w": bert.embeddings.LayerNorm.weight,
        "embed.ln.b": bert.embeddings.LayerNorm.bias,
        "pooler.W": bert.pooler.dense.weight.T,
        "pooler.b": bert.pooler.dense.bias,
        "mlm_head.W": heads.predictions.transform.dense.weight.T,
        "mlm_head.b": heads.predictions.transform.dense.bias,
        "mlm_head.ln.w": heads.predictions.transform.LayerNorm.weight,
        "mlm_head.ln.b": heads.predictions.transform.LayerNorm.bias,
        "unembed.W_U": heads.predictions.decoder.weight.T,
        "unembed.b_U": heads.predictions.decoder.bias,
        "nsp_head.W": heads.seq_relationship.weight.T,
        "nsp_head.b": heads.seq_relationship.bias,
    }
    for layer, block in enumerate(bert.encoder.layer):
        named = {
            "attn.mask": torch.empty((0, 0), dtype=torch.bool),
            "attn.IGNORE": torch.tensor(-torch.inf),
            "attn.b_O": block.attention.output.dense.bias,
            "attn.W_O": block.attention.output.dense.weight.T.reshape(N_HEADS, D_HEAD, D_MODEL),
            "ln1.w": block.attention.output.LayerNorm.weight,
            "ln1.b": block.attention.output.LayerNorm.bias,
            "mlp.W_in": block.intermediate.dense.weight.T,
            "mlp.b_in": block.intermediate.dense.bias,
            "mlp.W_out": block.output.dense.weight.T,
            "mlp.b_out": block.output.dense.bias,
            "ln2.w": block.output.LayerNorm.weight,
            "ln2.b": block.output.LayerNorm.bias,
        }
        for letter, part in (("Q", "query"), ("K", "key"), ("V", "value")):
            linear = getattr(block.attention.self, part)
            named[f"attn.W_{letter}"] = linear.weight.reshape(N_HEADS, D_HEAD, D_MODEL).mT
            named[f"attn.b_{letter}"] = linear.bias.reshape(N_HEADS, D_HEAD)
        weights |= {f"blocks.{layer}.{name}": tensor for name, tensor in named.items()}
    return {name: tensor.detach().clone() for name, tensor in weights.items()}


@torch.no_grad()
def test_state_dicts_load_for_each_head() -> None:
    theirs, tokens = pre_trained(), tiny_models.token_batch(0, (6,))
    both = theirs(tokens)
    for architecture, expected in (
        ("BertForMaskedLM", both.prediction_logits),
        ("BertForNextSentencePrediction", both.seq_relationship_logits),
        ("BertModel", theirs.bert(tokens).last_hidden_state.mean(dim=1)),
    ):
        ours = HookedEncoder.from_pretrained(getattr(transformers, architecture)(theirs.config), dtype=torch.float64)
        assert largest_difference(ours(tokens), expected) > 1e-3
        ours.load_state_dict(state_dict_of_version_3(theirs))
        assert largest_difference(ours(tokens), expected) < 1e-10


def test_state_dicts_of_another_head_or_with_other_weights_do_not_load() -> None:
    weights = state_dict_of_version_3(pre_trained())
    config = tiny_models.FAMILIES["bert"].config()
    config.num_labels = 2
    classifier = HookedEncoder.from_pretrained(transformers.BertForSequenceClassification(config))
    with pytest.raises(RuntimeError, match=r"classifier\.W_label"):
        classifier.load_state_dict(dict(weights))
    with pytest.raises(RuntimeError, match=r"blocks\.0\.attn\.W_extra"):
        masked = HookedEncoder.from_pretrained(transformers.BertForMaskedLM(config))
        masked.load_state_dict(weights | {"blocks.0.attn.W_extra": torch.zeros(1)})


def test_arguments_with_two_names() -> None:
    model = HookedEncoder.from_pretrained(model_name="tiny-negation", torch_dtype=torch.float64, move_to_device=False)
    assert (model.dtype, model.device.type, model.cfg.model_name) == (torch.float64, "cpu", "tiny-negation")
    assert HookedEncoder.from_pretrained("tiny-negation").dtype == torch.float32
    for arguments, named in (
        ({"name_or_path": "tiny-negation", "model_name": "tiny-negation"}, "name_or_path and model_name"),
        (
            {"model_name": "tiny-negation", "dtype": torch.float32, "torch_dtype": torch.float32},
            "dtype and torch_dtype",
        ),
        ({"model_name": "tiny-negation", "device": "cpu", "move_to_device": False}, "move_to_device=False.*'cpu'"),
        ({}, "No model was given"),
    ):
        with pytest.raises(ModelError, match=named):
            HookedEncoder.from_pretrained(**arguments)


def test_the_arguments_of_decoders_are_refused_by_name() -> None:
    for name in ("checkpoint_index", "fold_ln", "load_in_8bit"):
        with pytest.raises((InputError, TypeError), match=name):
            HookedEncoder.from_pretrained("tiny-negation", **{name: 1})


@torch.no_grad()
def test_the_encoders_output_is_the_last_hidden_state() -> None:
    theirs, ours = tiny_models.pair("bert", "masked_lm", torch.float64)
    tokens = tiny_models.token_batch(0)
    mask = (tokens != 0).long()
    types = (torch.arange(tokens.shape[1]) > 1).long().expand_as(tokens)
    for given in ({}, {"token_type_ids": types}, {"token_type_ids": types, "one_zero_attention_mask": mask}):
        named = {"token_type_ids": given["token_type_ids"]} if "token_type_ids" in given else {}
        expected = theirs.bert(tokens, attention_mask=mask, **named).last_hidden_state
        assert largest_difference(ours.encoder_output(tokens, **given)[mask.bool()], expected[mask.bool()]) < 1e-10


def test_the_text_of_each_token(model: HookedEncoder) -> None:
    text = "The door is not open"
    words = ["[CLS]", "the", "door", "is", "not", "open", "[SEP]"]
    assert model.to_str_tokens(text) == words
    assert model.to_str_tokens([text, "a dog"]) == [words, ["[CLS]", "a", "dog", "[SEP]"]]
    assert model.to_str_tokens(("a", "dog")) == ["[CLS]", "a", "[SEP]", "dog", "[SEP]"]
    tokens = model.to_tokens(text)[0]
    assert model.to_str_tokens(tokens) == model.to_str_tokens(tokens[0]) == words
    assert model.to_str_tokens(tokens.repeat(2, 1)) == [words, words]
    for wrong in (torch.tensor([[99]]), torch.tensor(3), torch.zeros(1, 0, dtype=torch.long), torch.zeros(1, 2)):
        with pytest.raises(NegprobeError):
            model.to_str_tokens(wrong)


def test_tokens_can_stay_on_the_cpu(model: HookedEncoder) -> None:
    for one in (True, False):
        assert all(t.device.type == "cpu" for t in model.to_tokens("a dog", move_to_device=one))


@torch.no_grad()
def test_unembedding_vectors_give_the_logits(model: HookedEncoder) -> None:
    logits, cache = model.run_with_cache("the door is [MASK]")
    vector = cache["unembed.hook_in"][0, 4]
    for token in ("open", 9, torch.tensor(9), torch.tensor([[9]])):
        index = model.to_single_token(token) if isinstance(token, str) else int(token)
        direction = model.tokens_to_residual_directions(token)
        assert direction.shape == (D_MODEL,)
        assert abs(vector @ direction + model.b_U[index] - logits[0, 4, index]) < 1e-10
    both = model.tokens_to_residual_directions(torch.tensor([[3, 4, 5], [6, 7, 8]]))
    assert both.shape == (2, 3, D_MODEL) and largest_difference(both[1, 2], model.W_U[:, 8]) == 0
    for wrong in (-1, 40, "the door", torch.zeros(2), torch.tensor([], dtype=torch.long)):
        with pytest.raises(NegprobeError):
            model.tokens_to_residual_directions(wrong)
    with pytest.raises(InputError, match="no masked-LM head"):
        tiny_models.pair("bert", "none")[1].tokens_to_residual_directions(3)


def test_composition_scores_are_those_of_whole_matrices(model: HookedEncoder) -> None:
    for mode in ("Q", "K", "V"):
        scores = model.all_composition_scores(mode)
        assert scores.shape == (N_LAYERS, N_HEADS, N_LAYERS, N_HEADS)
        for layer in range(N_LAYERS):
            for head in range(N_HEADS):
                ov = model.W_V[layer, head] @ model.W_O[layer, head]
                for later in range(N_LAYERS):
                    for to in range(N_HEADS):
                        qk = model.W_Q[later, to] @ model.W_K[later, to].T
                        right = {"Q": qk, "K": qk.T, "V": model.W_V[later, to] @ model.W_O[later, to]}[mode]
                        expected = (ov @ right).norm() / ov.norm() / right.norm() if later > layer else torch.zeros(())
                        assert abs(scores[layer, head, later, to] - expected) < 1e-10


def test_token_and_position_embeddings_together(model: HookedEncoder) -> None:
    assert_close(model.W_E_pos, torch.cat([model.embed.W_E, model.embed.W_pos]))
    assert model.W_E_pos.shape == (40 + N_CTX, D_MODEL)


_RUN_OF_VERSION_3 = """
import sys
sys.path.insert(0, sys.argv[1])
import torch
from transformer_lens import BertNextSentencePrediction, HookedEncoder
from transformer_lens.config.hooked_transformer_config import HookedTransformerConfig
from transformer_lens.pretrained.weight_conversions.bert import convert_bert_weights
import transformers
theirs = transformers.BertForPreTraining.from_pretrained(sys.argv[2], attn_implementation="eager").eval()
config = theirs.config
cfg = HookedTransformerConfig(
    d_model=config.hidden_size, d_head=config.hidden_size // config.num_attention_heads,
    n_heads=config.num_attention_heads, d_mlp=config.intermediate_size, n_layers=config.num_hidden_layers,
    n_ctx=config.max_position_embeddings, eps=config.layer_norm_eps, d_vocab=config.vocab_size, act_fn="gelu",
    attention_dir="bidirectional", device="cpu", use_attn_result=True, use_split_qkv_input=True, use_hook_mlp_in=True,
)
model = HookedEncoder(cfg)
model.load_state_dict(convert_bert_weights(theirs, cfg), strict=False)
tokens, types = torch.load(sys.argv[3])
with torch.no_grad():
    logits, cache = model.run_with_cache(tokens, token_type_ids=types)
    follows = BertNextSentencePrediction(model)(tokens, token_type_ids=types)
    found = dict(cache) | {"logits": logits, "follows": follows, "W_E_pos": model.W_E_pos.detach()}
    found["output"] = model.encoder_output(tokens, types)
torch.save((found, model.state_dict()), sys.argv[4])
"""


@pytest.mark.slow
@pytest.mark.skipif(VERSION_3 is None, reason="TRANSFORMER_LENS_3 names no folder with TransformerLens 3")
@torch.no_grad()
def test_every_activation_of_version_3_is_ours(tmp_path: Path) -> None:
    assert VERSION_3 is not None
    theirs = pre_trained(torch.float32)
    theirs.save_pretrained(tmp_path / "bert")
    tokens = tiny_models.token_batch(0, (8, 8))
    types = (torch.arange(8) > 3).long().expand_as(tokens)
    torch.save((tokens, types), tmp_path / "inputs")
    arguments = [VERSION_3, tmp_path / "bert", tmp_path / "inputs", tmp_path / "found"]
    environment = {key: value for key, value in os.environ.items() if key != "NEGPROBE_TYPES"}
    subprocess.run([sys.executable, "-c", _RUN_OF_VERSION_3, *map(str, arguments)], check=True, env=environment)
    found, weights = torch.load(tmp_path / "found")
    ours = HookedEncoder.from_pretrained(tmp_path / "bert", device="cpu")
    ours.load_state_dict(weights)
    for request in (ours.set_use_attn_result, ours.set_use_split_qkv_input, ours.set_use_hook_mlp_in):
        request(True)
    logits, cache = ours.run_with_cache(tokens, token_type_ids=types)
    follows = HookedEncoder.from_pretrained(next_sentence(torch.float32))(tokens, token_type_ids=types)
    mine = dict(cache.items()) | {"logits": logits, "follows": follows, "W_E_pos": ours.W_E_pos}
    mine["output"] = ours.encoder_output(tokens, types)
    assert set(found) - set(mine) == set()
    differences = {name: largest_difference(mine[name], activation) for name, activation in found.items()}
    # Version 3 has a fixed epsilon and GELU, as BERT.
    assert max(differences.values()) < 1e-4, differences
    print(f"{len(differences)} activations, largest difference {max(differences.values()):.1e}")
