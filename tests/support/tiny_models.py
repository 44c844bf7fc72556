"""Small Hugging Face models made on the spot: every weight random, so that every path through them matters."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
import transformers
from jaxtyping import Float, Int
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from torch import Tensor, nn
from transformer_lens import ActivationCache
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from negprobe import HookedEncoder
from tests.support import float64_of_hugging_face

float64_of_hugging_face.remove_casts()

HEADS = ("masked_lm", "classification", "none")

_WORDS = (
    "the",
    "a",
    "door",
    "is",
    "not",
    "open",
    "closed",
    "so",
    "and",
    "never",
    "really",
    "now",
    "it",
    "dog",
    "house",
)
VOCABULARY = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *_WORDS, "it", "red", "big", ".", ",", "?")
D_VOCAB = 40
N_LAYERS, N_HEADS, D_HEAD, D_MODEL, D_MLP, N_CTX = 3, 4, 6, 24, 40, 16


Place = tuple[str, str] | tuple[str, str, slice]
"""A module of Hugging Face's model, one of its two ends, "input" or "output", and which columns there, if not all."""

BERT_PLACES: dict[str, Place] = {
    "hook_resid_pre": ("", "input"),
    "attn.hook_q": ("attention.self.query", "output"),
    "attn.hook_k": ("attention.self.key", "output"),
    "attn.hook_v": ("attention.self.value", "output"),
    "attn.hook_z": ("attention.output.dense", "input"),
    "hook_attn_out": ("attention.output.dense", "output"),
    "hook_resid_mid": ("attention.output.LayerNorm", "input"),
    "ln1.hook_out": ("attention.output.LayerNorm", "output"),
    "mlp.hook_pre": ("intermediate.dense", "output"),
    "mlp.hook_post": ("output.dense", "input"),
    "hook_mlp_out": ("output.dense", "output"),
    "hook_resid_post": ("output.LayerNorm", "input"),
    "ln2.hook_out": ("output.LayerNorm", "output"),
    "hook_normalized_resid_post": ("output.LayerNorm", "output"),
}
"""Where BERT computes what a block's hook holds: a module inside the block."""

_DISTILBERT_PLACES: dict[str, Place] = {
    "hook_resid_pre": ("", "input"),
    "attn.hook_q": ("attention.q_lin", "output"),
    "attn.hook_k": ("attention.k_lin", "output"),
    "attn.hook_v": ("attention.v_lin", "output"),
    "attn.hook_z": ("attention.out_lin", "input"),
    "hook_attn_out": ("attention.out_lin", "output"),
    "hook_resid_mid": ("sa_layer_norm", "input"),
    "ln1.hook_out": ("sa_layer_norm", "output"),
    "mlp.hook_pre": ("ffn.lin1", "output"),
    "mlp.hook_post": ("ffn.lin2", "input"),
    "hook_mlp_out": ("ffn.lin2", "output"),
    "hook_resid_post": ("output_layer_norm", "input"),
    "ln2.hook_out": ("output_layer_norm", "output"),
    "hook_normalized_resid_post": ("output_layer_norm", "output"),
}

_MPNET_PLACES = BERT_PLACES | {
    "attn.hook_q": ("attention.attn.q", "output"),
    "attn.hook_k": ("attention.attn.k", "output"),
    "attn.hook_v": ("attention.attn.v", "output"),
    "attn.hook_z": ("attention.attn.o", "input"),
    "hook_attn_out": ("attention.attn.o", "output"),
    "hook_resid_mid": ("attention.LayerNorm", "input"),
    "ln1.hook_out": ("attention.LayerNorm", "output"),
}

_POST_NORM_ROTARY_PLACES: dict[str, Place] = {
    "hook_resid_pre": ("", "input"),
    "attn.hook_q": ("self_attn.q_proj", "output"),
    "attn.hook_k": ("self_attn.k_proj", "output"),
    "attn.hook_v": ("self_attn.v_proj", "output"),
    "attn.hook_z": ("self_attn.o_proj", "input"),
    "hook_attn_out": ("self_attn.o_proj", "output"),
    "hook_resid_mid": ("post_attention_layernorm", "input"),
    "ln1.hook_out": ("post_attention_layernorm", "output"),
    "mlp.hook_pre": ("mlp.gate_proj", "output"),
    "mlp.hook_pre_linear": ("mlp.up_proj", "output"),
    "mlp.hook_post": ("mlp.down_proj", "input"),
    "hook_mlp_out": ("mlp.down_proj", "output"),
    "hook_resid_post": ("post_mlp_layernorm", "input"),
    "ln2.hook_out": ("post_mlp_layernorm", "output"),
    "hook_normalized_resid_post": ("post_mlp_layernorm", "output"),
}
_JINA_PLACES = {name: place for name, place in _POST_NORM_ROTARY_PLACES.items() if name != "mlp.hook_pre_linear"} | {
    "mlp.hook_pre": ("mlp.fc1", "output"),
    "mlp.hook_post": ("mlp.fc2", "input"),
    "hook_mlp_out": ("mlp.fc2", "output"),
}

_EUROBERT_PLACES: dict[str, Place] = {
    name: place for name, place in _POST_NORM_ROTARY_PLACES.items() if "normalized" not in name
} | {
    "ln1.hook_out": ("input_layernorm", "output"),
    "hook_resid_mid": ("post_attention_layernorm", "input"),
    "ln2.hook_out": ("post_attention_layernorm", "output"),
    "hook_resid_post": ("", "output"),
}
_EUROBERT_EMBEDDINGS: dict[str, Place] = {
    "embed.hook_embed": ("embed_tokens", "output"),
    "hook_full_embed": ("embed_tokens", "output"),
    "ln_final.hook_out": ("norm", "output"),
}

_PRE_NORM_PLACES = {name: place for name, place in BERT_PLACES.items() if name != "hook_normalized_resid_post"} | {
    "hook_resid_mid": ("attention.output", "output"),
    "hook_resid_post": ("output", "output"),
}
_MEGATRON_PLACES = _PRE_NORM_PLACES | {
    "ln1.hook_out": ("attention.ln", "output"),
    "ln2.hook_out": ("ln", "output"),
}
_ROBERTA_PRELAYERNORM_PLACES = _PRE_NORM_PLACES | {
    "ln1.hook_out": ("attention.LayerNorm", "output"),
    "ln2.hook_out": ("intermediate.LayerNorm", "output"),
}
_XLM_ROBERTA_XL_PLACES = _PRE_NORM_PLACES | {
    "ln1.hook_out": ("attention.self_attn_layer_norm", "output"),
    "ln2.hook_out": ("LayerNorm", "output"),
}

_ALBERT_PLACES: dict[str, Place] = {
    "hook_resid_pre": ("", "input"),
    "attn.hook_q": ("attention.query", "output"),
    "attn.hook_k": ("attention.key", "output"),
    "attn.hook_v": ("attention.value", "output"),
    "attn.hook_z": ("attention.dense", "input"),
    "hook_attn_out": ("attention.dense", "output"),
    "hook_resid_mid": ("attention.LayerNorm", "input"),
    "ln1.hook_out": ("attention.LayerNorm", "output"),
    "mlp.hook_pre": ("ffn", "output"),
    "mlp.hook_post": ("ffn_output", "input"),
    "hook_mlp_out": ("ffn_output", "output"),
    "hook_resid_post": ("full_layer_layer_norm", "input"),
    "ln2.hook_out": ("full_layer_layer_norm", "output"),
    "hook_normalized_resid_post": ("full_layer_layer_norm", "output"),
}

BERT_EMBEDDINGS: dict[str, Place] = {
    "embed.hook_embed": ("embeddings.word_embeddings", "output"),
    "embed.hook_token_type_embed": ("embeddings.token_type_embeddings", "output"),
    "embed.hook_pos_embed": ("embeddings.position_embeddings", "output"),
    "embed.ln.hook_out": ("embeddings.LayerNorm", "output"),
    "hook_full_embed": ("embeddings.LayerNorm", "output"),
}
"""Where BERT computes what the other hooks hold: a module inside the base model."""

_ALBERT_EMBEDDINGS = BERT_EMBEDDINGS | {"hook_full_embed": ("encoder.embedding_hidden_mapping_in", "output")}

_ERNIE_EMBEDDINGS = BERT_EMBEDDINGS | {"embed.hook_task_type_embed": ("embeddings.task_type_embeddings", "output")}
_WITHOUT_NORM: dict[str, Place] = {
    **{name: place for name, place in BERT_EMBEDDINGS.items() if name != "embed.ln.hook_out"},
    "hook_full_embed": ("embeddings", "output"),
}

_MODERNBERT_PLACES: dict[str, Place] = {
    "hook_resid_pre": ("", "input"),
    "ln1.hook_out": ("attn_norm", "output"),
    "attn.hook_q": ("attn.Wqkv", "output", slice(0, D_MODEL)),
    "attn.hook_k": ("attn.Wqkv", "output", slice(D_MODEL, 2 * D_MODEL)),
    "attn.hook_v": ("attn.Wqkv", "output", slice(2 * D_MODEL, None)),
    "attn.hook_z": ("attn.Wo", "input"),
    "hook_attn_out": ("attn.Wo", "output"),
    "hook_resid_mid": ("mlp_norm", "input"),
    "ln2.hook_out": ("mlp_norm", "output"),
    "mlp.hook_pre": ("mlp.Wi", "output", slice(0, D_MLP)),
    "mlp.hook_pre_linear": ("mlp.Wi", "output", slice(D_MLP, None)),
    "mlp.hook_post": ("mlp.Wo", "input"),
    "hook_mlp_out": ("mlp.Wo", "output"),
    "hook_resid_post": ("", "output"),
}
_MODERNBERT_EMBEDDINGS: dict[str, Place] = {
    "embed.hook_embed": ("embeddings.tok_embeddings", "output"),
    "embed.ln.hook_out": ("embeddings.norm", "output"),
    "hook_full_embed": ("embeddings", "output"),
    "ln_final.hook_out": ("final_norm", "output"),
}

_WITHOUT_TYPES = {name: place for name, place in BERT_EMBEDDINGS.items() if "token_type" not in name}

_DEBERTA_PLACES = {name: place for name, place in BERT_PLACES.items() if name[-2:] not in ("_q", "_k", "_v")}
_DEBERTA_V2_PLACES = BERT_PLACES | {
    "attn.hook_q": ("attention.self.query_proj", "output"),
    "attn.hook_k": ("attention.self.key_proj", "output"),
    "attn.hook_v": ("attention.self.value_proj", "output"),
}


@dataclass(frozen=True)
class FamilyCase:
    """How to make one family's models, and where they compute what our hooks hold.

    `places` are modules inside a block, `embeddings` modules inside the base model, `blocks` is where its blocks are.
    `read_only` are places at which a write would not reach everything that reads our hook. `width` is the standard
    deviation of most weights. `heads_per_group` heads share their keys and values.
    """

    prefix: str
    make_config: Callable[[], transformers.PreTrainedConfig]
    places: dict[str, Place] = field(default_factory=lambda: BERT_PLACES)
    embeddings: dict[str, Place] = field(default_factory=lambda: BERT_EMBEDDINGS)
    blocks: str = "encoder.layer"
    read_only: tuple[str, ...] = ()
    width: float = 0.2
    heads_per_group: int = 1

    @property
    def is_installed(self) -> bool:
        """Whether the installed transformers has the family: the oldest that we support lacks the newest ones."""
        return hasattr(transformers, f"{self.prefix}Config")

    def config(self) -> transformers.PreTrainedConfig:
        """A new configuration of the family; the test is skipped where transformers lacks it."""
        if not self.is_installed:
            pytest.skip(f"transformers {transformers.__version__} has no {self.prefix}Config")
        return self.make_config()


def _bert_like(name: str, **extra: object) -> Callable[[], transformers.PreTrainedConfig]:
    def make() -> transformers.PreTrainedConfig:
        return getattr(transformers, f"{name}Config")(
            vocab_size=D_VOCAB,
            num_hidden_layers=N_LAYERS,
            num_attention_heads=N_HEADS,
            intermediate_size=D_MLP,
            **{"hidden_size": D_MODEL, "max_position_embeddings": N_CTX, "num_labels": 3} | extra,
        )

    return make


def _distilbert() -> transformers.PreTrainedConfig:
    return transformers.DistilBertConfig(
        vocab_size=D_VOCAB,
        dim=D_MODEL,
        n_layers=N_LAYERS,
        n_heads=N_HEADS,
        hidden_dim=D_MLP,
        max_position_embeddings=N_CTX,
        num_labels=3,
    )


def _post_norm_rotary(prefix: str, **extra: object) -> FamilyCase:
    is_gated = not prefix.startswith("Jina")
    embeddings = {
        name: place
        for name, place in BERT_EMBEDDINGS.items()
        if "pos_embed" not in name and not ("token_type" in name and extra.get("type_vocab_size") == 0)
    }
    places = _POST_NORM_ROTARY_PLACES if is_gated else _JINA_PLACES
    # A product of two activations grows with the square of the weights.
    return FamilyCase(
        prefix, _bert_like(prefix, **extra), places, embeddings, "layers", width=0.15 if is_gated else 0.2
    )


def _eurobert(**extra: Any) -> FamilyCase:
    special = {f"{name}_token_id": index for index, name in enumerate(("pad", "eos", "bos", "mask"))}
    return FamilyCase(
        "EuroBert",
        _bert_like("EuroBert", **special, **extra),
        _EUROBERT_PLACES,
        _EUROBERT_EMBEDDINGS,
        "layers",
        read_only=("hook_resid_mid",),
        width=0.12,
        heads_per_group=N_HEADS // extra.get("num_key_value_heads", N_HEADS),
    )


def _modernbert(**extra: object) -> FamilyCase:
    special = {f"{name}_token_id": index for index, name in enumerate(("pad", "eos", "bos", "cls", "sep"))}
    config = _bert_like("ModernBert", local_attention=4, **special, **extra)
    # No norm limits what the blocks add up, so narrower weights keep the states as large as in other models.
    return FamilyCase(
        "ModernBert", config, _MODERNBERT_PLACES, _MODERNBERT_EMBEDDINGS, "layers", ("hook_resid_mid",), 0.12
    )


_BIASES = ("norm_bias", "attention_bias", "mlp_bias", "classifier_bias")


# RoBERTa's family keeps the first positions for padding, so its table is longer than its context.
_ROBERTA = {"max_position_embeddings": N_CTX + 2, "pad_token_id": 1, "layer_norm_eps": 1e-5}
FAMILIES = {
    "bert": FamilyCase("Bert", _bert_like("Bert")),
    "distilbert": FamilyCase("DistilBert", _distilbert, _DISTILBERT_PLACES, _WITHOUT_TYPES, "transformer.layer"),
    "roberta": FamilyCase("Roberta", _bert_like("Roberta", type_vocab_size=1, **_ROBERTA)),
    "xlm-roberta": FamilyCase("XLMRoberta", _bert_like("XLMRoberta", type_vocab_size=1, **_ROBERTA)),
    "camembert": FamilyCase("Camembert", _bert_like("Camembert", type_vocab_size=1, **_ROBERTA)),
    "electra": FamilyCase("Electra", _bert_like("Electra", embedding_size=D_MODEL)),
    "electra-narrow": FamilyCase(
        "Electra",
        _bert_like("Electra", embedding_size=16),
        embeddings=BERT_EMBEDDINGS | {"hook_full_embed": ("embeddings_project", "output")},
    ),
    # One group of layers, and two of which the second has a single layer.
    "albert": FamilyCase(
        "Albert", _bert_like("Albert", embedding_size=16), _ALBERT_PLACES, _ALBERT_EMBEDDINGS, blocks="encoder"
    ),
    "albert-groups": FamilyCase(
        "Albert",
        _bert_like("Albert", embedding_size=D_MODEL, num_hidden_groups=2),
        _ALBERT_PLACES,
        _ALBERT_EMBEDDINGS,
        blocks="encoder",
    ),
    "ernie": FamilyCase("Ernie", _bert_like("Ernie")),
    "ernie-tasks": FamilyCase("Ernie", _bert_like("Ernie", use_task_id=True), embeddings=_ERNIE_EMBEDDINGS),
    "data2vec-text": FamilyCase("Data2VecText", _bert_like("Data2VecText", **_ROBERTA)),
    "megatron-bert": FamilyCase(
        "MegatronBert",
        _bert_like("MegatronBert"),
        _MEGATRON_PLACES,
        _WITHOUT_NORM | {"ln_final.hook_out": ("encoder.ln", "output")},
    ),
    "roberta-prelayernorm": FamilyCase(
        "RobertaPreLayerNorm",
        _bert_like("RobertaPreLayerNorm", **_ROBERTA),
        _ROBERTA_PRELAYERNORM_PLACES,
        BERT_EMBEDDINGS | {"ln_final.hook_out": ("LayerNorm", "output")},
    ),
    "xlm-roberta-xl": FamilyCase(
        "XLMRobertaXL",
        _bert_like("XLMRobertaXL", **_ROBERTA),
        _XLM_ROBERTA_XL_PLACES,
        _WITHOUT_NORM | {"ln_final.hook_out": ("encoder.LayerNorm", "output")},
    ),
    "mpnet": FamilyCase("MPNet", _bert_like("MPNet", **_ROBERTA), _MPNET_PLACES, _WITHOUT_TYPES),
    "nomic": _post_norm_rotary("NomicBert"),
    "gte": _post_norm_rotary("Gte", type_vocab_size=0),
    "gte-types": _post_norm_rotary("Gte", type_vocab_size=2),
    "jina": _post_norm_rotary("JinaEmbeddingsV3", type_vocab_size=2),
    "eurobert": _eurobert(num_key_value_heads=2),
    "eurobert-biased": _eurobert(attention_bias=True, mlp_bias=True, classifier_pooling="mean"),
    "modernbert": _modernbert(),
    "modernbert-biased": _modernbert(**dict.fromkeys(_BIASES, True), decoder_bias=False, classifier_pooling="mean"),
}
_DEBERTA = {"relative_attention": True, "pos_att_type": "c2p|p2c", "position_biased_input": False}
_EMBEDDED_WORDS = {name: place for name, place in _WITHOUT_TYPES.items() if "pos_embed" not in name}
FAMILIES |= {
    "deberta": FamilyCase(
        "Deberta",
        _bert_like("Deberta", **_DEBERTA),
        _DEBERTA_PLACES,
        _EMBEDDED_WORDS,
    ),
    "deberta-v2": FamilyCase(
        "DebertaV2",
        _bert_like("DebertaV2", position_buckets=4, share_att_key=True, norm_rel_ebd="layer_norm", **_DEBERTA),
        # With shared weights, these modules also project the embeddings of distances.
        {name: place for name, place in _DEBERTA_V2_PLACES.items() if name not in ("attn.hook_q", "attn.hook_k")},
        _EMBEDDED_WORDS,
    ),
    # The input of the first block is also what the convolution reads, so that Hugging Face has no one module for it.
    "deberta-v2-conv": FamilyCase(
        "DebertaV2",
        _bert_like(
            "DebertaV2",
            **_DEBERTA | {"position_biased_input": True, "type_vocab_size": 2, "max_relative_positions": 5},
            **{"conv_kernel_size": 3, "conv_act": "gelu", "conv_groups": 2},
        ),
        {name: place for name, place in _DEBERTA_V2_PLACES.items() if name != "hook_resid_pre"},
    ),
}
# Parts of the names of the weights from which scores are computed.
_QUERIES_AND_KEYS = ("query", "key", "q_lin", "k_lin", ".q.", ".k.", "in_proj", "rel_embeddings")
_OF_ROTARY_MODELS = ("Wqkv", "q_proj", "k_proj")
SUFFIX = {"masked_lm": "ForMaskedLM", "classification": "ForSequenceClassification", "none": "Model"}


def hf_model(
    family: str, head: str = "masked_lm", dtype: torch.dtype = torch.float32, **changes: object
) -> PreTrainedModel:
    """A Hugging Face model with eager attention and wide random weights, biases and LayerNorm gains included."""
    case = FAMILIES[family]
    config = case.config()
    for name, value in changes.items():
        assert hasattr(config, name), f"{type(config).__name__} has no {name}"
        setattr(config, name, value)
    config._attn_implementation = "eager"
    model = getattr(transformers, case.prefix + SUFFIX[head])(config).eval()
    generator = torch.Generator().manual_seed(len(family) + 7 * HEADS.index(head))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            module = name.split(".")[-2].lower()
            is_gain = name.endswith("weight") and ("norm" in module or module == "ln")
            noise = torch.randn(parameter.shape, generator=generator)
            # Wide enough that attention is far from uniform, narrow enough that it is far from one-hot.
            is_query_or_key = any(part in name for part in _QUERIES_AND_KEYS)
            is_rotated = any(part in name for part in _OF_ROTARY_MODELS)
            width = 0.5 if is_query_or_key else 0.3 if is_rotated else case.width
            parameter.copy_(1 + width * noise if is_gain else width * noise)
    return model.to(dtype)


def skip_unless_loadable(theirs: PreTrainedModel) -> None:
    """Skip a test if transformers cannot load the model's weights: 5.9 misses a weight of DeBERTa's newer head."""
    try:
        type(theirs).from_pretrained(None, config=theirs.config, state_dict=theirs.state_dict())
    except AttributeError as error:
        pytest.skip(f"transformers {transformers.__version__} cannot load {type(theirs).__name__}: {error}")


def pair(
    family: str, head: str = "masked_lm", dtype: torch.dtype = torch.float32, **changes: object
) -> tuple[PreTrainedModel, HookedEncoder]:
    """A Hugging Face model and ours with the same weights."""
    theirs = hf_model(family, head, dtype, **changes)
    return theirs, HookedEncoder.from_pretrained(theirs, tokenizer=tokenizer(family), dtype=dtype, device="cpu")


def token_batch(pad: int, lengths: tuple[int, ...] = (9, 5, 3)) -> Int[Tensor, "batch pos"]:
    """Random token ids, none of them padding but on the right."""
    generator = torch.Generator().manual_seed(1)
    tokens = torch.randint(5, D_VOCAB, (len(lengths), max(lengths)), generator=generator)
    for row, length in zip(tokens, lengths, strict=True):
        row[length:] = pad
    return tokens


def hf_inputs(theirs: PreTrainedModel, tokens: Int[Tensor, "batch pos"], **more: Tensor) -> dict[str, Tensor]:
    """What Hugging Face needs to treat padding as our model does."""
    return {"input_ids": tokens, "attention_mask": (tokens != theirs.config.pad_token_id).long(), **more}


def mean_over_real(hidden: Float[Tensor, "batch pos d_model"], mask: Int[Tensor, "batch pos"]) -> Tensor:
    """Mean of each text's real hidden states, one text at a time."""
    return torch.stack([states[real.bool()].mean(dim=0) for states, real in zip(hidden, mask, strict=True)])


def hf_output(theirs: PreTrainedModel, head: str, inputs: dict[str, Tensor]) -> Tensor:
    """Logits, or without a head the mean-pooled embedding."""
    out = theirs(**inputs)
    return mean_over_real(out.last_hidden_state, inputs["attention_mask"]) if head == "none" else out.logits


def family_of(theirs: PreTrainedModel) -> FamilyCase:
    """The family of a Hugging Face model."""
    installed = (case for case in FAMILIES.values() if case.is_installed)
    return next(case for case in installed if case.config().model_type == theirs.config.model_type)


def blocks_of(theirs: PreTrainedModel) -> Sequence[nn.Module]:
    """Hugging Face's blocks; one that several of ALBERT's layers share is there once for each of them."""
    blocks = theirs.base_model.get_submodule(family_of(theirs).blocks)
    if theirs.config.model_type != "albert":
        return blocks
    layers, groups = theirs.config.num_hidden_layers, blocks.albert_layer_groups
    return [block for layer in range(layers) for block in groups[layer * len(groups) // layers].albert_layers]


def block_outputs(cache: ActivationCache, n_layers: int) -> list[Tensor]:
    """The output of each block in our model's cache."""
    outputs = [f"blocks.{layer}.hook_resid_pre" for layer in range(1, n_layers)]
    last = f"blocks.{n_layers - 1}.hook_normalized_resid_post"
    last = last if last in cache else f"blocks.{n_layers - 1}.hook_resid_post"
    return [cache[name] for name in (*outputs, last)]


def tokenizer(family: str = "bert") -> PreTrainedTokenizerFast:
    """A word-level tokenizer with BERT's special tokens and token types, which pads with the family's padding id."""
    vocabulary, pad = list(VOCABULARY), FAMILIES[family].config().pad_token_id
    vocabulary[0], vocabulary[pad] = vocabulary[pad], vocabulary[0]
    words = Tokenizer(models.WordLevel({word: i for i, word in enumerate(vocabulary)}, unk_token="[UNK]"))
    words.normalizer = normalizers.Lowercase()
    words.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    words.post_processor = processors.TemplateProcessing(
        single="[CLS]:0 $A:0 [SEP]:0",
        pair="[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=words,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
    )


def largest_difference(a: Tensor, b: Tensor) -> float:
    """The largest absolute difference; refuses shapes that would broadcast."""
    assert a.shape == b.shape, f"{list(a.shape)} is not {list(b.shape)}"
    return float((a - b).detach().abs().max())
