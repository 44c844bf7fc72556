"""`Architecture`: the kinds of parts that a model's blocks are built from, and the shortcuts that they allow."""

from dataclasses import dataclass

from negprobe.models.config import HookedEncoderConfig, NormPlacement, PositionScheme, PositionTerm


@dataclass(frozen=True)
class Architecture:
    """The description of a model's blocks.

    Attributes:
        d_model: Width of the residual stream.
        n_layers: Number of blocks.
        n_heads: Number of heads.
        d_head: Width of a head.
        d_mlp: Width of the MLP's hidden layer.
        act_fn: Name of the MLP's activation function.
        eps: Epsilon of the norms.
        norm: Kind of the norms: "LN" or "RMS".
        norms: Whether the norms follow attention and the MLP ("post") or precede them ("pre").
        first_norm: Whether the first block of a "pre" model has a norm before attention.
        positions: How relative positions enter attention.
        position_terms: The terms of the scores that depend on embeddings of distances, if `positions` is
            "disentangled".
        shared_position_weights: Whether `W_Q` and `W_K` also project the embeddings of distances.
        rotary_bases: The base of each block's rotary angles; empty if `positions` is not "rotary".
        windows: How many tokens each block's queries can see on either side, None for all of them.
        gated_mlp: Whether a third linear map multiplies the MLP's activations.
        attn_scale: What the product of queries and keys is divided by.
        conv_kernel_size: Number of tokens that the convolution after the first block reads; 0 if there is none.
        conv_groups: Number of groups of the convolution's channels.
        conv_act: The convolution's activation function.

    Example:
        >>> from negprobe import HookedEncoder
        >>> HookedEncoder.from_pretrained("tiny-negation").architecture.norms
        'post'
    """

    d_model: int
    n_layers: int
    n_heads: int
    d_head: int
    d_mlp: int
    act_fn: str
    eps: float
    norm: str
    norms: NormPlacement
    first_norm: bool
    positions: PositionScheme
    position_terms: tuple[PositionTerm, ...]
    shared_position_weights: bool
    rotary_bases: tuple[float, ...]
    windows: tuple[int | None, ...]
    gated_mlp: bool
    attn_scale: float
    conv_kernel_size: int
    conv_groups: int
    conv_act: str

    @classmethod
    def of(cls, cfg: HookedEncoderConfig) -> "Architecture":
        """The description that a configuration implies."""
        assert cfg.d_mlp is not None and cfg.act_fn is not None and cfg.normalization_type is not None
        return cls(
            d_model=cfg.d_model,
            n_layers=cfg.n_layers,
            n_heads=cfg.n_heads,
            d_head=cfg.d_head,
            d_mlp=cfg.d_mlp,
            act_fn=cfg.act_fn,
            eps=cfg.eps,
            norm=cfg.normalization_type,
            norms=cfg.norms,
            first_norm=cfg.first_norm,
            positions=cfg.positions,
            position_terms=cfg.position_terms,
            shared_position_weights=cfg.shared_position_weights,
            rotary_bases=cfg.rotary_bases,
            windows=cfg.windows or (None,) * cfg.n_layers,
            gated_mlp=cfg.gated_mlp,
            attn_scale=cfg.attn_scale or cfg.d_head**0.5,
            conv_kernel_size=cfg.conv_kernel_size,
            conv_groups=cfg.conv_groups,
            conv_act=cfg.conv_act,
        )

    @property
    def linear_keys(self) -> bool:
        """Whether keys are one linear map of attention's input, so that `W_K` can be folded into the queries."""
        return self.positions in ("absolute", "relative")

    @property
    def convolves(self) -> bool:
        """Whether a convolution after the first block mixes neighbouring tokens, so that rows depend on each other."""
        return self.conv_kernel_size > 0

    @property
    def linear_norm_to_mlp(self) -> bool:
        """Whether attention's output affects the MLP's pre-activations linearly once LN1's scale is frozen."""
        return self.norms == "post" and not self.gated_mlp
