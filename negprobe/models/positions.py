"""How positions enter attention: rotated queries and keys, a bias of the scores, or embeddings of distances."""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformer_lens.hook_points import HookPoint

from negprobe.models.config import HookedEncoderConfig
from negprobe.models.norms import norm_of


def rotated(x: Float[Tensor, "*batch pos head d_head"], base: float) -> Float[Tensor, "*batch pos head d_head"]:
    """Queries or keys of the positions 0, 1, ..., rotated by angles that grow with the position.

    Entry i and entry i + d_head/2 are a point of the plane, turned by `position * base^(-2i/d_head)`. Su et al. 2021,
    "RoFormer", equation 34. The angles are computed in float32, as in Hugging Face's models, from frequencies that are
    computed on the CPU: on another device they would differ in the last digit, which grows with the position.
    """
    d_head = x.shape[-1]
    exponents = torch.arange(0, d_head, 2, dtype=torch.float32, device="cpu") / d_head
    frequencies = (1.0 / base**exponents).to(x.device)
    angles = torch.arange(x.shape[-3], dtype=torch.float32, device=x.device)[:, None, None] * frequencies
    cos, sin = angles.cos().to(x.dtype), angles.sin().to(x.dtype)
    first, second = x.chunk(2, dim=-1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)


class RelativeBias(nn.Module):
    """A number per head and distance between query and key, added to the scores of every block.

    Distances share a number in buckets that become wider with the distance. Raffel et al. 2020, "Exploring the Limits
    of Transfer Learning", section 2.1.
    """

    def __init__(self, cfg: HookedEncoderConfig) -> None:
        """Create the numbers `W [bucket, head]`."""
        super().__init__()
        self.max_distance = cfg.relative_max_distance
        self.W = nn.Parameter(torch.empty(cfg.relative_buckets, cfg.n_heads))
        self.hook_bias = HookPoint()

    def forward(self, n_pos: int) -> Float[Tensor, "1 head query key"]:
        """The bias of the scores between all positions."""
        position = torch.arange(n_pos, device=self.W.device)
        buckets = distance_buckets(position - position[:, None], len(self.W), self.max_distance)
        return self.hook_bias(rearrange(F.embedding(buckets, self.W), "query key head -> 1 head query key"))


def distance_buckets(distance: Int[Tensor, "query key"], n_buckets: int, max_distance: int) -> Int[Tensor, "query key"]:
    """The bucket of each signed distance from query to key.

    The first half of the buckets is for keys before the query or at it, the second for keys after it. In each half,
    the first half of the buckets holds one distance each; the others grow in width with the logarithm of the distance
    up to `max_distance`, and the last one holds all that are greater.
    """
    per_side = n_buckets // 2
    exact = per_side // 2
    size = distance.abs()
    wide = torch.log(size.float() / exact) / math.log(max_distance / exact) * (per_side - exact)
    bucket = torch.where(size < exact, size, (exact + wide.to(torch.long)).clamp(max=per_side - 1))
    return bucket + per_side * (distance > 0)


@dataclass(frozen=True)
class RelativePositions:
    """The embeddings of the distances between the tokens of a run.

    Attributes:
        embeddings: An embedding for each bucket of distances that occurs in the run.
        bucket: The row of `embeddings` for each query and key.
    """

    embeddings: Float[Tensor, "bucket d_model"]
    bucket: Int[Tensor, "query key"]


class RelativeEmbed(nn.Module):
    """Embeddings of the distance from key to query, shared by all blocks. He et al. 2021, "DeBERTa", section 3.1.

    The embeddings `W [bucket d_model]` begin with the largest distance of a key after the query. They are normalised in
    some models.
    """

    def __init__(self, cfg: HookedEncoderConfig) -> None:
        """Create the embeddings: as many for keys after the query as for keys before it or at it."""
        super().__init__()
        self.n_buckets, self.max_distance = cfg.relative_buckets, cfg.relative_max_distance
        self.n_per_side = self.n_buckets or self.max_distance
        self.W = nn.Parameter(torch.empty(2 * self.n_per_side, cfg.d_model))
        self.hook_embed = HookPoint()
        self.ln = norm_of(cfg.normalization_type, cfg.d_model, cfg.eps, cfg.relative_norm)

    def forward(self, n_pos: int) -> RelativePositions:
        """The embeddings of the distances between `n_pos` tokens."""
        embeddings = self.ln(self.hook_embed(self.W[None]))[0]
        # On the CPU, so that a distance has the same bucket on every device.
        distance = torch.arange(1 - n_pos, n_pos)
        if self.n_buckets:
            distance = logarithmic_buckets(distance, self.n_buckets, self.max_distance)
        row = (distance + self.n_per_side).clamp(0, len(self.W) - 1)
        # Rows do not decrease with the distance, so the ones in use lie between the first and the last.
        first, last = int(row[0]), int(row[-1])
        position = torch.arange(n_pos)
        bucket = (row - first)[position[:, None] - position + n_pos - 1]
        return RelativePositions(embeddings[first : last + 1], bucket.to(self.W.device))


def logarithmic_buckets(
    distance: Int[Tensor, " distance"], n_buckets: int, max_distance: int
) -> Int[Tensor, " distance"]:
    """The signed bucket of each signed distance.

    Distances up to half of the buckets have a bucket each; beyond, the buckets grow in width with the logarithm of the
    distance. Computed in float32, as in Hugging Face's models, because rounding decides at the bounds of buckets.
    """
    exact = n_buckets // 2
    size = distance.abs()
    share = torch.log(size.clamp(min=exact) / exact) / torch.log(torch.tensor((max_distance - 1) / exact))
    wide = torch.ceil(share * (exact - 1)).to(torch.long) + exact
    return torch.where(size <= exact, distance, wide * distance.sign())
