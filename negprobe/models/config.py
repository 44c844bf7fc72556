"""What a `HookedEncoder` has to know about its architecture."""

from dataclasses import dataclass
from typing import Literal, get_args

from transformer_lens.config import TransformerLensConfig
from transformers.activations import ACT2FN

from negprobe.base.errors import ModelError

Head = Literal["masked_lm", "classification", "none"]
Pooling = Literal["cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken"]
ProblemType = Literal["single_label_classification", "multi_label_classification", "regression"]
NormPlacement = Literal["post", "pre"]
"""post: a norm follows each addition to the residual stream; pre: it precedes attention and the MLP."""

ClassifierPooling = Literal["cls", "mean", "late"]
PositionScheme = Literal["absolute", "rotary", "relative", "disentangled"]
"""absolute: attention does not depend on positions, except through the position embeddings; rotary: queries and keys
are rotated; relative: a bias is added to the scores; disentangled: products of queries and keys with embeddings of
their distance are added to the scores (DeBERTa)."""

PositionTerm = Literal["c2p", "p2c"]
"""c2p: the query times the key of the distance; p2c: the key times the query of the distance."""

PROBLEM_TYPES: tuple[ProblemType, ...] = get_args(ProblemType)


@dataclass(frozen=True)
class DenseStep:
    """A linear map and an activation function, applied to the pooled embedding.

    Attributes:
        d_in: Width of its input.
        d_out: Width of its output.
        bias: Whether a bias is added before the activation function.
        act_fn: The activation function, a name in `ACTIVATIONS`.
        residual: Whether the input is added to the output, through a linear map if their widths differ.
    """

    d_in: int
    d_out: int
    bias: bool = True
    act_fn: str = "Tanh"
    residual: bool = False


@dataclass(frozen=True)
class LayerNormStep:
    """A LayerNorm of the embedding, with PyTorch's default epsilon.

    Attributes:
        width: Width of its input and output.
    """

    width: int


@dataclass(frozen=True)
class NormalizeStep:
    """Scaling of the embedding to length 1, followed by further steps."""


EmbeddingStep = DenseStep | LayerNormStep | NormalizeStep
"""What can be applied to the pooled embedding of a model without a head."""

ACTIVATIONS = (
    *("Identity", "Tanh", "ReLU", "GELU", "SiLU", "Sigmoid", "LeakyReLU", "ELU", "SELU", "CELU", "Mish", "ReLU6"),
    *("Softplus", "Softsign", "Tanhshrink", "LogSigmoid", "Hardtanh", "Hardswish", "Hardsigmoid"),
)
"""The activation functions of a `DenseStep`: classes of `torch.nn` without parameters, with their default settings."""


@dataclass
class HookedEncoderConfig(TransformerLensConfig):
    """TransformerLens's configuration, with what only encoders have.

    Attributes:
        model_name: The name or folder the model came from.
        revision: The commit of a hub model; otherwise empty.
        use_hook_mlp_in: Whether `blocks.L.hook_mlp_in` is listed and cached.
        family: The family whose conversion was used; see `negprobe.models.families`.
        head: What stands on the last block: a masked LM, a classifier, or nothing (a pooled embedding).
        n_key_value_groups: In how many groups the heads share keys and values in the original model (grouped-query
            attention); by default `n_heads`. In a `HookedEncoder` each head has a copy of its group's.
            TransformerLens's `n_key_value_heads` is None, because its functions would take it for the number of heads
            of `hook_k`.
        d_embed: Width of the embeddings before they are projected to `d_model` (ELECTRA); by default `d_model`.
        projects_embedding: Whether the embeddings are projected; always True if `d_embed` is not `d_model`.
        n_token_types: Number of token types (segments); 0 where the family has none.
        n_task_types: Number of task embeddings (ERNIE), of which the first is added to every token; 0 for none.
        embeds_positions: Whether position embeddings are added to the token embeddings.
        embed_norm: Whether the sum of the embeddings is normalised.
        pad_token_id: The token that is masked wherever it stands.
        first_position: Index of the first position embedding (RoBERTa counts from `pad_token_id + 1`).
        norms: Whether a block's norms follow attention and the MLP ("post") or precede them ("pre"). A "pre" model has
            a last norm after its blocks.
        first_norm: Whether the first block of a "pre" model has a norm before attention (ModernBERT's has none).
        positions: How relative positions enter attention.
        rotary_bases: The base of each block's rotary angles; empty if `positions` is not "rotary".
        relative_buckets: Number of buckets of a relative bias. If `positions` is "disentangled", the number of buckets
            on each side, or 0 for one bucket per distance.
        relative_max_distance: The distance from which on all distances share the last bucket.
        relative_norm: Whether the embeddings of distances are normalised.
        position_terms: The terms that are added to the scores if `positions` is "disentangled".
        shared_position_weights: Whether `W_Q` and `W_K` also project the embeddings of distances; otherwise attention
            has `W_pos_Q` and `W_pos_K`.
        attn_scale: What scores are divided by; 0 for the square root of `d_head`.
        conv_kernel_size: Number of tokens that the convolution after the first block reads; 0 if there is none.
        conv_groups: Number of groups of the convolution's channels.
        conv_act: The convolution's activation function.
        windows: How many tokens each block's queries can see on either side, None for all of them; empty if no block
            has a window.
        tied_to: The first of the blocks that have the same weights as each block (ALBERT); empty if every block has
            its own.
        head_act: Activation inside the head.
        head_transform: Whether a masked LM's head transforms the last hidden states before the unembedding.
        classifier_pooling: How the last hidden states become the one vector that a classifier reads; "late" means that
            it reads each token's, and that the logits are averaged.
        classifier_norm: Whether a classifier has a LayerNorm after its activation.
        labels: The classifier's label names, in the order of its logits.
        problem_type: How the classifier's logits relate to its labels, from its config.json; None if not given there
            (see `labels.label_function`).
        pooling: How the last hidden states become one embedding where there is no head; the embeddings of several
            poolings are concatenated.
        pool_from: Position, in each text, of the first token that is pooled: greater than 0 where the pooling excludes
            the prompt.
        embedding_steps: What is applied to the pooled embedding, in order.
        normalize: Whether the embedding is then scaled to length 1.
        prompt: Text that the tokenizer puts before each text (before the first of two). It is set when the model is
            made; token ids given to the model must include it.

    Raises:
        ModelError: for a missing or impossible size, and for an unsupported setting.
    """

    model_name: str = ""
    revision: str = ""
    use_hook_mlp_in: bool = False
    family: str = "bert"
    head: Head = "none"
    n_key_value_groups: int = 0
    d_embed: int = 0
    projects_embedding: bool = False
    n_token_types: int = 0
    n_task_types: int = 0
    embeds_positions: bool = True
    embed_norm: bool = True
    pad_token_id: int = 0
    first_position: int = 0
    norms: NormPlacement = "post"
    first_norm: bool = True
    positions: PositionScheme = "absolute"
    rotary_bases: tuple[float, ...] = ()
    relative_buckets: int = 0
    relative_max_distance: int = 0
    relative_norm: bool = False
    position_terms: tuple[PositionTerm, ...] = ()
    shared_position_weights: bool = False
    attn_scale: float = 0.0
    conv_kernel_size: int = 0
    conv_groups: int = 1
    conv_act: str = "tanh"
    windows: tuple[int | None, ...] = ()
    tied_to: tuple[int, ...] = ()
    head_act: str = "gelu"
    head_transform: bool = True
    classifier_pooling: ClassifierPooling = "cls"
    classifier_norm: bool = False
    labels: tuple[str, ...] = ()
    problem_type: ProblemType | None = None
    pooling: Pooling | tuple[Pooling, ...] = "mean"
    pool_from: int = 0
    embedding_steps: tuple[EmbeddingStep, ...] = ()
    normalize: bool = False
    prompt: str = ""

    def __post_init__(self) -> None:
        """Fill in derived values and refuse impossible or unsupported ones."""
        for name in ("d_model", "d_head", "n_layers", "n_ctx", "d_vocab"):
            _check_size(name, getattr(self, name))
        if self.n_heads == -1 and self.d_model % self.d_head:
            raise ModelError(f"d_model {self.d_model} is not a multiple of d_head {self.d_head}; give n_heads.")
        self.d_embed = self.d_embed or self.d_model
        self.projects_embedding = self.projects_embedding or self.d_embed != self.d_model
        super().__post_init__()
        self.n_key_value_groups = self.n_key_value_groups or self.n_heads
        for name in ("n_heads", "n_key_value_groups", "d_mlp", "d_embed"):
            _check_size(name, getattr(self, name))
        for name in (
            *("n_token_types", "n_task_types", "pad_token_id", "first_position"),
            *("relative_buckets", "relative_max_distance", "conv_kernel_size", "pool_from"),
        ):
            _check_size(name, getattr(self, name), at_least=0)
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                raise ModelError(
                    f"{name} is {getattr(self, name)!r}; this encoder supports {' or '.join(map(repr, choices))}."
                )
        for name in ("act_fn", "head_act", "conv_act"):
            if getattr(self, name) not in ACT2FN:
                raise ModelError(f"{name} is {getattr(self, name)!r}; choose one of {', '.join(ACT2FN)}.")
        if self.n_key_value_heads not in (None, self.n_heads):
            raise ModelError(
                f"n_key_value_heads is {self.n_key_value_heads}, but each of the n_heads has its own keys and values "
                "here; give n_key_value_groups."
            )
        if self.n_heads % self.n_key_value_groups:
            raise ModelError(
                f"n_heads {self.n_heads} (num_attention_heads) is not a multiple of n_key_value_groups "
                f"{self.n_key_value_groups} (num_key_value_heads)."
            )
        if self.pad_token_id >= self.d_vocab:
            raise ModelError(f"pad_token_id is {self.pad_token_id}; token ids end at d_vocab - 1, {self.d_vocab - 1}.")
        expected = {"rotary_bases": self.n_layers if self.positions == "rotary" else 0}
        per_layer = {name: self.n_layers if getattr(self, name) else 0 for name in ("windows", "tied_to")}
        for name, length in {**expected, **per_layer}.items():
            if len(getattr(self, name)) != length:
                raise ModelError(f"{name} has {len(getattr(self, name))} entries; give {length} for this model.")
        if any(first > layer or self.tied_to[first] != first for layer, first in enumerate(self.tied_to)):
            raise ModelError(f"tied_to is {self.tied_to}; give the index of the first block with each block's weights.")
        if self.tied_to and not self.first_norm:
            raise ModelError("first_norm is False, so the first block has other weights; leave tied_to empty.")
        if self.positions == "rotary" and self.d_head % 2:
            raise ModelError(f"d_head is {self.d_head}; rotary positions turn pairs of entries, so it must be even.")
        if self.positions == "relative" and not 1 < self.relative_buckets // 4 < self.relative_max_distance:
            raise ModelError(
                f"relative_buckets is {self.relative_buckets} and relative_max_distance {self.relative_max_distance}; "
                "give at least 8 buckets, and a distance of more than a quarter of them."
            )
        self._check_disentangled()
        if self.conv_kernel_size:
            _check_size("conv_groups", self.conv_groups)
            if self.conv_kernel_size % 2 == 0 or self.d_model % self.conv_groups or self.n_layers == 1:
                raise ModelError(
                    f"conv_kernel_size is {self.conv_kernel_size} and conv_groups {self.conv_groups}; give an odd "
                    f"size, groups that divide d_model = {self.d_model}, and at least 2 layers (got {self.n_layers})."
                )
        if self.head == "classification" and not self.labels:
            raise ModelError("labels are empty; a classifier needs the name of each of its labels.")
        # Not `self.poolings`, whose type says that all of them are known.
        poolings = self.pooling if isinstance(self.pooling, tuple) else (self.pooling,)
        if not poolings or any(mode not in get_args(Pooling) for mode in poolings):
            raise ModelError(f"pooling is {self.pooling!r}; choose one or several of {', '.join(get_args(Pooling))}.")
        self._check_steps()

    @property
    def poolings(self) -> tuple[Pooling, ...]:
        """The poolings whose embeddings are concatenated; one for most models."""
        return self.pooling if isinstance(self.pooling, tuple) else (self.pooling,)

    def _check_steps(self) -> None:
        """Check that each step fits the output of the one before it."""
        if self.embedding_steps and self.head != "none":
            raise ModelError(f"embedding_steps need a model without a head, but head is {self.head!r}.")
        width = len(self.poolings) * self.d_model
        for step in self.embedding_steps:
            if not isinstance(step, EmbeddingStep):
                raise ModelError(f"embedding_steps has {step!r}; give DenseStep, LayerNormStep or NormalizeStep.")
            if isinstance(step, NormalizeStep):
                continue
            d_in = step.d_in if isinstance(step, DenseStep) else step.width
            if d_in != width:
                raise ModelError(
                    f"embedding_steps of {self.model_name!r} has {step} (in_features or dimension), which does not fit "
                    f"the embedding before it, of width {width}."
                )
            if isinstance(step, DenseStep):
                width = step.d_out
                if step.act_fn not in ACTIVATIONS:
                    raise ModelError(f"act_fn of {step} is not known; choose one of {', '.join(ACTIVATIONS)}.")

    @property
    def weight_layers(self) -> list[int]:
        """The blocks that have weights of their own: all of them, or the first of those with the same weights."""
        return sorted(set(self.tied_to or range(self.n_layers)))

    def _check_disentangled(self) -> None:
        is_disentangled = self.positions == "disentangled"
        if is_disentangled != bool(self.position_terms) or len(set(self.position_terms)) < len(self.position_terms):
            raise ModelError(
                f"position_terms is {self.position_terms!r} and positions {self.positions!r}; give 'c2p', 'p2c' or "
                "both for 'disentangled', and none otherwise."
            )
        if not set(self.position_terms) <= set(get_args(PositionTerm)):
            raise ModelError(f"position_terms is {self.position_terms!r}; give 'c2p', 'p2c' or both.")
        half, distance = self.relative_buckets // 2, self.relative_max_distance
        if is_disentangled and (self.relative_buckets == 1 or distance < 1 or (half and half >= distance - 1)):
            raise ModelError(
                f"relative_buckets is {self.relative_buckets} and relative_max_distance {distance}; give a distance of "
                "at least 1, and either no buckets or at least 2, of which half are fewer than the distance minus 1."
            )


# Settings with a fixed set of values, most of them TransformerLens's with only one for an encoder.
_CHOICES = {
    "head": get_args(Head),
    "classifier_pooling": ("cls", "mean", "late"),
    "norms": get_args(NormPlacement),
    "positions": get_args(PositionScheme),
    "normalization_type": ("LN", "RMS"),
    "positional_embedding_type": ("standard",),
    "attn_only": (False,),
    "uses_rms_norm": (False,),
    "final_rms": (False,),
    "layer_norm_folding": (False,),
    "num_experts": (None,),
    "experts_per_token": (None,),
}


def _check_size(name: str, value: object, at_least: int = 1) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < at_least:
        given = "is missing" if value == -1 else f"is {value!r}"
        raise ModelError(f"{name} {given}; give a whole number of at least {at_least}.")
