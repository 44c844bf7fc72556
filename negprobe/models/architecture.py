"""What a block is built from, and what the shortcuts that some architectures allow depend on."""

from dataclasses import dataclass
from typing import Literal

from negprobe.models.config import HookedEncoderConfig

Norms = Literal["post", "pre"]
"""post: each LayerNorm acts on a sum of the residual stream; pre: on what attention or the MLP reads of it."""

Positions = Literal["absolute", "rotary"]
"""absolute: added to the embeddings; rotary: queries and keys are turned by their position."""

MLPKind = Literal["plain", "gated"]
"""plain: two linear maps around an activation function; gated: its output is multiplied by a third linear map's."""


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
        norms: Where the LayerNorms stand.
        positions: How the model learns a token's position.
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
        """Whether a key is the same linear map of the block's input at every position, so that it can be folded."""
        return self.norms == "post" and self.positions == "absolute"

    @property
    def linear_norm_to_mlp(self) -> bool:
        """Whether, at a fixed deviation, what attention writes reaches the values before the activation linearly."""
        return self.norms == "post" and self.mlp == "plain"
