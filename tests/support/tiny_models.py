"""Small Hugging Face models made on the spot: every weight random, so that every path through them matters."""

from collections.abc import Callable
from dataclasses import dataclass, field

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
    "ln1.hook_normalized": ("attention.output.LayerNorm", "output"),
    "mlp.hook_pre": ("intermediate.dense", "output"),
    "mlp.hook_post": ("output.dense", "input"),
    "hook_mlp_out": ("output.dense", "output"),
    "hook_resid_post": ("output.LayerNorm", "input"),
    "ln2.hook_normalized": ("output.LayerNorm", "output"),
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
    "ln1.hook_normalized": ("sa_layer_norm", "output"),
    "mlp.hook_pre": ("ffn.lin1", "output"),
    "mlp.hook_post": ("ffn.lin2", "input"),
    "hook_mlp_out": ("ffn.lin2", "output"),
    "hook_resid_post": ("output_layer_norm", "input"),
    "ln2.hook_normalized": ("output_layer_norm", "output"),
    "hook_normalized_resid_post": ("output_layer_norm", "output"),
}

_MPNET_PLACES = BERT_PLACES | {
    "attn.hook_q": ("attention.attn.q", "output"),
    "attn.hook_k": ("attention.attn.k", "output"),
    "attn.hook_v": ("attention.attn.v", "output"),
    "attn.hook_z": ("attention.attn.o", "input"),
    "hook_attn_out": ("attention.attn.o", "output"),
    "hook_resid_mid": ("attention.LayerNorm", "input"),
    "ln1.hook_normalized": ("attention.LayerNorm", "output"),
}

BERT_EMBEDDINGS: dict[str, Place] = {
    "embed.hook_embed": ("embeddings.word_embeddings", "output"),
    "embed.hook_token_type_embed": ("embeddings.token_type_embeddings", "output"),
    "embed.hook_pos_embed": ("embeddings.position_embeddings", "output"),
    "embed.ln.hook_normalized": ("embeddings.LayerNorm", "output"),
    "hook_full_embed": ("embeddings.LayerNorm", "output"),
}
"""Where BERT computes what the other hooks hold: a module inside the base model."""

_MODERNBERT_PLACES: dict[str, Place] = {
    "hook_resid_pre": ("", "input"),
    "ln1.hook_normalized": ("attn_norm", "output"),
    "attn.hook_q": ("attn.Wqkv", "output", slice(0, D_MODEL)),
    "attn.hook_k": ("attn.Wqkv", "output", slice(D_MODEL, 2 * D_MODEL)),
    "attn.hook_v": ("attn.Wqkv", "output", slice(2 * D_MODEL, None)),
    "attn.hook_z": ("attn.Wo", "input"),
    "hook_attn_out": ("attn.Wo", "output"),
    "hook_resid_mid": ("mlp_norm", "input"),
    "ln2.hook_normalized": ("mlp_norm", "output"),
    "mlp.hook_pre": ("mlp.Wi", "output", slice(0, D_MLP)),
    "mlp.hook_pre_linear": ("mlp.Wi", "output", slice(D_MLP, None)),
    "mlp.hook_post": ("mlp.Wo", "input"),
    "hook_mlp_out": ("mlp.Wo", "output"),
    "hook_resid_post": ("", "output"),
}
_MODERNBERT_EMBEDDINGS: dict[str, Place] = {
    "embed.hook_embed": ("embeddings.tok_embeddings", "output"),
    "embed.ln.hook_normalized": ("embeddings.norm", "output"),
    "hook_full_embed": ("embeddings", "output"),
    "ln_final.hook_normalized": ("final_norm", "output"),
}

_WITHOUT_TYPES = {name: place for name, place in BERT_EMBEDDINGS.items() if "token_type" not in name}

_DEBERTA_PLACES = {name: place for name, place in BERT_PLACES.items() if name[-2:] not in ("_q", "_k", "_v")}
_DEBERTA_V2_PLACES = BERT_PLACES | {
    "attn.hook_q": ("attention.self.query_proj", "output"),
    "attn.hook_k": ("attention.self.key_proj", "output"),
    "attn.hook_v": ("attention.self.value_proj", "output"),
}


def as_they_are(theirs: PreTrainedModel) -> None:
    """Change nothing."""


def with_plain_layer_norms(theirs: PreTrainedModel) -> None:
    """Replace DeBERTa's own LayerNorms, which round a float64 model's states to float32, by PyTorch's."""
    for module in list(theirs.modules()):
        for name, part in module.named_children():
            if type(part).__name__ == "DebertaLayerNorm":
                plain = nn.LayerNorm(len(part.weight), part.variance_epsilon)
                plain.weight, plain.bias = part.weight, part.bias
                setattr(module, name, plain)


@dataclass(frozen=True)
class FamilyCase:
    """How to make one family's models, and where they compute what our hooks hold.

    `places` are modules inside a block, `embeddings` modules inside the base model, `blocks` is where its blocks are.
    `read_only` are places at which a write would not reach everything that reads our hook. `width` is the standard
    deviation of most weights. `in_float64` takes from a float64 model what rounds to float32.
    """

    prefix: str
    config: Callable[[], transformers.PreTrainedConfig]
    places: dict[str, Place] = field(default_factory=lambda: BERT_PLACES)
    embeddings: dict[str, Place] = field(default_factory=lambda: BERT_EMBEDDINGS)
    blocks: str = "encoder.layer"
    read_only: tuple[str, ...] = ()
    width: float = 0.2
    in_float64: Callable[[PreTrainedModel], None] = as_they_are


def _bert_like(name: str, **extra: object) -> Callable[[], transformers.PreTrainedConfig]:
    def make() -> transformers.PreTrainedConfig:
        return getattr(transformers, f"{name}Config")(
            vocab_size=D_VOCAB,
            hidden_size=D_MODEL,
            num_hidden_layers=N_LAYERS,
            num_attention_heads=N_HEADS,
            intermediate_size=D_MLP,
            **{"max_position_embeddings": N_CTX, "num_labels": 3} | extra,
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
    "mpnet": FamilyCase("MPNet", _bert_like("MPNet", **_ROBERTA), _MPNET_PLACES, _WITHOUT_TYPES),
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
        in_float64=with_plain_layer_norms,
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
            **{"conv_kernel_size": 3, "conv_act": "gelu", "conv_groups": 2, "legacy": False},
        ),
        {name: place for name, place in _DEBERTA_V2_PLACES.items() if name != "hook_resid_pre"},
    ),
}
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
            is_gain = "norm" in name.lower() and name.endswith("weight")
            noise = torch.randn(parameter.shape, generator=generator)
            # Wide enough that attention is far from uniform, narrow enough that it is far from one-hot.
            parts = ("query", "key", "q_lin", "k_lin", ".q.", ".k.", "in_proj", "rel_embeddings")
            is_query_or_key = any(part in name for part in parts)
            width = 0.5 if is_query_or_key else 0.3 if "Wqkv" in name else case.width
            parameter.copy_(1 + width * noise if is_gain else width * noise)
    return model.to(dtype)


def pair(
    family: str, head: str = "masked_lm", dtype: torch.dtype = torch.float32, **changes: object
) -> tuple[PreTrainedModel, HookedEncoder]:
    """A Hugging Face model and ours with the same weights."""
    theirs = hf_model(family, head, dtype, **changes)
    ours = HookedEncoder.from_pretrained(theirs, tokenizer=tokenizer(family), dtype=dtype, device="cpu")
    if dtype == torch.float64:
        FAMILIES[family].in_float64(theirs)
    return theirs, ours


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
    return next(case for case in FAMILIES.values() if case.config().model_type == theirs.config.model_type)


def blocks_of(theirs: PreTrainedModel) -> nn.ModuleList:
    """Hugging Face's blocks."""
    return theirs.base_model.get_submodule(family_of(theirs).blocks)


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
