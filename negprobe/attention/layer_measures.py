"""What each token contributes to each other in one layer, all heads together, as pure functions on tensors.

`A` is the pattern, `f_h(x_k) = v_kh W_O[h]` the value as head h writes it, and `T_qk = Σ_h A_hqk f_h(x_k)` what token k
writes into token q; summed over k, plus `b_O`, that is what attention writes. `T` has a vector for every two tokens and
is never formed whole: its norms need only the products of the heads' vectors, `f_h(x_k) · f_g(x_k)`.

A mask is 1 for tokens and 0 for padding; what has to do with padding is exactly 0.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import TypeAlias

import torch
import torch.nn.functional as F
from einops import einsum, rearrange
from jaxtyping import Float, Int
from torch import Tensor

from negprobe.attention.measures import counted_values
from negprobe.base.errors import InputError
from negprobe.models.block import Block
from negprobe.models.norms import FrozenNorm, LayerNorm

_Outputs: TypeAlias = Callable[[slice, Tensor, Tensor], Tensor]
"""The block's outputs as unit vectors `[key query d_model]`, for these queries, without what each key writes into them:
the pattern `[key query head]` times what the heads make of the keys' values, `[key head d_model]`."""

# The most floats the widest tensor of value zeroing may take, but for the result: 8 MB in float32.
_CHUNK_BUDGET = 2**21


def all_heads_norm(
    pattern: Float[Tensor, "*batch head query key"],
    v: Float[Tensor, "*batch key head d_head"],
    W_O: Float[Tensor, "head d_head d_model"],
    b_V: Float[Tensor, "head d_head"] | None = None,
    *,
    mask: Int[Tensor, "*batch key"] | None = None,
    include_bias: bool = True,
) -> Float[Tensor, "*batch query key"]:
    """Norm of what a token writes into another through all heads: `‖T_qk‖ = ‖Σ_h A_hqk f_h(x_k)‖`.

    The layer's attention of Kobayashi et al. 2020, "Attention is Not Only a Weight"; N of Modarressi et al. 2022, with
    their equation 4. In units of the residual stream, never negative. Heads that write against each other cancel, so
    that it is at most the sum over heads of `measures.norm_weighted`.

    Raises:
        InputError: if the bias is to be left out and is not given.
    """
    norms = _summed_norms(pattern, counted_values(v, b_V, include_bias), W_O)
    return without_padding(norms, mask)


def residual_norm(
    pattern: Float[Tensor, "*batch head query key"],
    v: Float[Tensor, "*batch key head d_head"],
    W_O: Float[Tensor, "head d_head d_model"],
    x: Float[Tensor, "*batch query d_model"],
    layer_norms: Sequence[FrozenNorm],
    b_V: Float[Tensor, "head d_head"] | None = None,
    *,
    mask: Int[Tensor, "*batch key"] | None = None,
    include_bias: bool = True,
) -> Float[Tensor, "*batch query key"]:
    """Norm of a token's part in another once the residual and the norms after it count: `‖g(T_qk + δ_qk x_q)‖`.

    With `layer_norms` the block's first, at `resid_mid`, this is Kobayashi et al. 2021, "Incorporating Residual and
    Normalization Layers into Analysis of Masked Language Models", the norm of a term of equation 16 (N_ResLN). With the
    second one too, at `resid_post`, it is N_Enc of Modarressi et al. 2022, "GlobEnc", equation 11, which takes in the
    second residual and leaves out what the MLP itself writes. With none it is N_Res, their equation 5.

    In a pre-norm block no norm follows the sums, so that `x + Σ_k T_qk + b_O` is the residual stream itself and N_Res
    is its decomposition; the norm before attention acts on each token by itself and is part of `v`. N_Enc is the same
    there, because the second residual adds only what the MLP writes. `b_O` and the norms' biases belong to no token and
    do not count.

    Args:
        pattern: Attention weights.
        v: Values, with their bias.
        W_O: Output projection of each head.
        x: The block's input.
        layer_norms: The norms that follow, in order; none in a pre-norm block.
        b_V: Bias of the values; needed to leave it out.
        mask: 1 for tokens, 0 for padding.
        include_bias: Whether the values' bias counts.

    Raises:
        InputError: if the bias is to be left out and is not given.
    """
    v = counted_values(v, b_V, include_bias)
    W_O, x = _through(layer_norms, W_O), _through(layer_norms, x)
    own = torch.linalg.vector_norm(_own(pattern, v, W_O) + x, dim=-1)
    norms = torch.diagonal_scatter(_summed_norms(pattern, v, W_O), own, dim1=-2, dim2=-1)
    for layer_norm in layer_norms:
        norms = norms / rearrange(layer_norm.scale, "... query -> ... query 1")
    return without_padding(norms, mask)


def mixing_ratio(
    pattern: Float[Tensor, "*batch head query key"],
    v: Float[Tensor, "*batch key head d_head"],
    W_O: Float[Tensor, "head d_head d_model"],
    x: Float[Tensor, "*batch query d_model"],
    layer_norms: Sequence[FrozenNorm],
    b_V: Float[Tensor, "head d_head"] | None = None,
    *,
    mask: Int[Tensor, "*batch query"] | None = None,
    include_bias: bool = True,
) -> Float[Tensor, "*batch query"]:
    """How much of a token's new representation comes from the other tokens, from 0 (none) to 1 (all).

    `r_q = ‖context‖ / (‖context‖ + ‖preserved‖)` with `context = Σ_{k≠q} g(T_qk)` and `preserved = g(T_qq + x_q)`:
    Kobayashi et al. 2021, equation 18, with the first LayerNorm; Modarressi et al. 2022, equation 14, with both.
    Arguments are those of `residual_norm`.

    Raises:
        InputError: if the bias is to be left out and is not given.
    """
    v = counted_values(v, b_V, include_bias)
    W_O, x = _through(layer_norms, W_O), _through(layer_norms, x)
    others = pattern - torch.diag_embed(pattern.diagonal(dim1=-2, dim2=-1))
    z = einsum(others, v, "... head query key, ... key head e -> ... query head e")
    context = torch.linalg.vector_norm(einsum(z, W_O, "... query head e, head e m -> ... query m"), dim=-1)
    preserved = torch.linalg.vector_norm(_own(pattern, v, W_O) + x, dim=-1)
    ratio = context / (context + preserved)
    return ratio if mask is None else ratio.masked_fill(mask == 0, 0)


@torch.no_grad()
def value_zeroing(
    pattern: Float[Tensor, "batch head query key"],
    v: Float[Tensor, "batch key head d_head"],
    resid_mid: Float[Tensor, "batch query d_model"],
    block: Block,
    *,
    mask: Int[Tensor, "batch key"] | None = None,
) -> Float[Tensor, "batch query key"]:
    """How far a token's output turns when another's value vectors are set to zero: `1 - cos(h'_q, h_q)`, from 0 to 2.

    Mohebbi et al. 2023, "Quantifying Context Mixing in Transformers", section 3. The values of token t are zeroed, bias
    included, in all heads of this block alone, and the pattern stays. Attention then need not run again: `h'` is what
    the rest of the block makes of `resid_mid_q - T_qt`. The authors go on to divide each row by its sum, which is
    `rollout.normalized_rows`.

    In a post-norm block with a plain MLP, the MLP's first map is not computed for every two tokens: up to the
    deviation of LN1, it acts on what each head writes. `h` is the block's output, so in a pre-norm block the residual
    stream after it.

    The MLP and the norms are the block's own, past its hooks: `h` and `h'` are both computed here from the same
    weights, and hooks meant for a forward pass see none of it. No gradients. Queries and keys are taken in chunks of
    a fixed size, so that nothing made on the way is larger than a fixed budget or the pattern of one text.

    Raises:
        InputError: for a block with a convolution.
    """
    if block.conv is not None:
        raise InputError(
            "Value zeroing is not defined for a block with a convolution, which mixes neighbouring tokens; use "
            "all_heads_norm."
        )
    if mask is None:
        mask = torch.ones(v.shape[:2], dtype=torch.long, device=v.device)
    distances = resid_mid.new_zeros(len(v), v.shape[1], v.shape[1])
    for row, real in enumerate(mask.bool()):
        tokens = real.nonzero().flatten()
        one = _text_zeroing(pattern[row][:, tokens][:, :, tokens], v[row, tokens], resid_mid[row, tokens], block)
        distances[row, tokens[:, None], tokens] = one
    return distances


def without_padding(
    pairs: Float[Tensor, "*batch query key"], mask: Int[Tensor, "*batch key"] | None
) -> Float[Tensor, "*batch query key"]:
    """A map with 0 wherever the query or the key is padding, whatever stood there."""
    if mask is None:
        return pairs
    real = mask.bool()
    return pairs.masked_fill(~(real[..., :, None] & real[..., None, :]), 0)


def _through(
    layer_norms: Sequence[FrozenNorm], vectors: Float[Tensor, "*any d_model"]
) -> Float[Tensor, "*any d_model"]:
    # A LayerNorm's deviation is one number a token, so all of them can be divided by at the end.
    for layer_norm in layer_norms:
        vectors = layer_norm.scaled(vectors)
    return vectors


def _own(
    pattern: Float[Tensor, "*batch head query key"],
    v: Float[Tensor, "*batch key head d_head"],
    W_O: Float[Tensor, "head d_head d_model"],
) -> Float[Tensor, "*batch query d_model"]:
    """`T_qq`, what a token writes into itself."""
    weights = rearrange(pattern.diagonal(dim1=-2, dim2=-1), "... head query -> ... query head 1")
    return einsum(weights * v, W_O, "... query head e, head e m -> ... query m")


def _summed_norms(
    pattern: Float[Tensor, "*batch head query key"],
    v: Float[Tensor, "*batch key head d_head"],
    W_O: Float[Tensor, "head d_head d_model"],
) -> Float[Tensor, "*batch query key"]:
    """`‖T_qk‖` by the Gram form `‖Σ_h A_h f_h‖² = Σ_hg A_h A_g (f_h · f_g)`."""
    weights = rearrange(pattern, "... head query key -> ... key query head")
    squared = ((weights @ _gram(v, W_O)) * weights).sum(dim=-1)
    return torch.sqrt(rearrange(squared, "... key query -> ... query key").clamp(min=0))


def _gram(
    v: Float[Tensor, "*batch key head d_head"], W_O: Float[Tensor, "head d_head d_model"]
) -> Float[Tensor, "*batch key head other"]:
    """`f_h(x_k) · f_g(x_k)` of every two heads, as `v_h (W_O[h] W_O[g]ᵀ) v_gᵀ`."""
    projections = einsum(W_O, W_O, "head d m, other e m -> other head d e")
    # One head at a time: all together would be as large as the heads' vectors themselves.
    columns = [
        (einsum(v, projection, "... key head d, head d e -> ... key head e") * v[..., other : other + 1, :]).sum(dim=-1)
        for other, projection in enumerate(projections)
    ]
    return torch.stack(columns, dim=-1)


def _text_zeroing(
    pattern: Float[Tensor, "head query key"],
    v: Float[Tensor, "key head d_head"],
    resid_mid: Float[Tensor, "query d_model"],
    block: Block,
) -> Float[Tensor, "query key"]:
    is_linear = block.architecture.linear_norm_to_mlp and isinstance(block.ln1, LayerNorm)
    outputs = (_outputs_in_closed_form if is_linear else _outputs_by_stages)(block, resid_mid)
    h = F.normalize(block.after_attention(resid_mid, torch.zeros_like(resid_mid)), dim=-1)
    distances = resid_mid.new_empty(pattern.shape[1:])
    for queries, keys in _chunks(len(v), max(1, _CHUNK_BUDGET // max(block.mlp.W_in.shape))):
        weights = rearrange(pattern[:, queries, keys], "head query key -> key query head")
        f = einsum(v[keys], block.attn.W_O, "key head e, head e m -> key head m")
        # Half the squared distance of unit vectors is 1 - cos, without its loss of digits where cos is near 1.
        turned = outputs(queries, weights, f) - h[queries]
        distances[queries, keys] = rearrange(0.5 * turned.square().sum(dim=-1), "key query -> query key")
    return distances


def _outputs_by_stages(block: Block, resid_mid: Float[Tensor, "query d_model"]) -> _Outputs:
    """Any block's outputs: all that follows attention is computed for every two tokens."""

    def outputs(
        queries: slice, weights: Float[Tensor, "key query head"], f: Float[Tensor, "key head d_model"]
    ) -> Float[Tensor, "key query d_model"]:
        taken = weights @ f
        return F.normalize(block.after_attention(resid_mid[queries].expand_as(taken), -taken), dim=-1)

    return outputs


def _outputs_in_closed_form(block: Block, resid_mid: Float[Tensor, "query d_model"]) -> _Outputs:
    """The outputs of a post-norm block with a plain MLP.

    LN1, but for its deviation, and W_in are linear: they act on what each head writes, once, not on every pair's sum.
    """
    norm, W_in = block.ln1, block.mlp.W_in
    assert isinstance(norm, LayerNorm)
    ln1 = FrozenNorm.at(norm, resid_mid)
    resid_in = ln1.scaled(resid_mid) @ W_in
    b_in = norm.b @ W_in + block.mlp.b_in

    def outputs(
        queries: slice, weights: Float[Tensor, "key query head"], f: Float[Tensor, "key head d_model"]
    ) -> Float[Tensor, "key query d_model"]:
        h1, inverse_std = norm.normalized_and_inverse_std(resid_mid[queries] - weights @ f)
        pre = (resid_in[queries] - weights @ (ln1.scaled(f) @ W_in)) * inverse_std + b_in
        mlp_out = block.mlp.write(block.mlp.activated(pre))
        return F.normalize(block.ln2.normalized(h1 + mlp_out), dim=-1)

    return outputs


def _chunks(length: int, pairs: int) -> Iterator[tuple[slice, slice]]:
    """Slices of queries and of keys that together cover every pair, of at most `pairs` pairs each."""
    n_queries = max(1, min(length, pairs))
    n_keys = pairs // n_queries
    for query in range(0, length, n_queries):
        for key in range(0, length, n_keys):
            yield slice(query, query + n_queries), slice(key, key + n_keys)
