"""`Architecture`: the kinds of parts that a model's blocks are built from, and the shortcuts that they allow."""

from dataclasses import dataclass
from typing import Literal

from negprobe.models.config import HookedEncoderConfig

Norms = Literal["post", "pre"]
"""post: a LayerNorm follows each addition to the residual stream; pre: it precedes attention and the MLP."""

Positions = Literal["absolute", "rotary"]
"""absolute: position embeddings are added to the token embeddings; rotary: queries and keys are rotated."""

MLPKind = Literal["plain", "gated"]
"""plain: two linear maps around an activation function; gated: a third linear map multiplies the activations."""


@dataclass(frozen=True)
class Architecture:
    """The description of a model's blocks.

    Attributes:
        d_model: Width of the residual stream.
        n_heads: Number of heads.
        d_head: Width of a head.
        d_mlp: Width of the MLP's hidden layer.
        act_fn: Name of the MLP's activation function.
        eps: Epsilon of the LayerNorms.
        norms: Whether the LayerNorms follow attention and the MLP ("post") or precede them ("pre").
        positions: How a token's position enters the model.
        mlp: Kind of MLP.

    Example:
        >>> from negprobe import HookedEncoder
        >>> HookedEncoder.from_pretrained("tiny-negation").architecture.norms
        'post'
    """

    d_model: int
    n_heads: int
    d_head: int
    d_mlp: int
    act_fn: str
    eps: float
    norms: Norms = "post"
    positions: Positions = "absolute"
    mlp: MLPKind = "plain"

    @classmethod
    def of(cls, cfg: HookedEncoderConfig) -> "Architecture":
        """The description that a configuration implies; all supported families are post-LayerNorm."""
        assert cfg.d_mlp is not None and cfg.act_fn is not None
        return cls(
            cfg.d_model,
            cfg.n_heads,
            cfg.d_head,
            cfg.d_mlp,
            cfg.act_fn,
            cfg.eps,
            positions="rotary" if cfg.positional_embedding_type == "rotary" else "absolute",
            mlp="gated" if cfg.gated_mlp else "plain",
        )

    @property
    def linear_keys(self) -> bool:
        """Whether keys are one linear map of the block's input, so that `W_K` can be folded into the queries."""
        return self.norms == "post" and self.positions == "absolute"

    @property
    def linear_norm_to_mlp(self) -> bool:
        """Whether attention's output affects the MLP's pre-activations linearly once LN1's deviation is frozen."""
        return self.norms == "post" and self.mlp == "plain"
