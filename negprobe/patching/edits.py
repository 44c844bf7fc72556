"""Edits: given values that replace entries of one activation in a batch of runs."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor

from negprobe.patching.sites import SITES


@dataclass(frozen=True)
class Edit:
    """Entries of one activation to replace in a batch of runs.

    Attributes:
        site: The activation, a name of `SITES`.
        layer: The layer; 0 for the embeddings.
        where: The entries: `[run pos]`, `[run pos head]` for a site with heads, `[run head query key]` for a map.
        values: The new values, with the shape of the site's activation; several runs may share a row.
        row_index: The row of `values` that each run uses.
        renormalize: Whether to scale the rows of a pattern to sum to 1 afterwards.
    """

    site: str
    layer: int
    where: Bool[Tensor, "run ..."]
    values: Float[Tensor, "value ..."]
    row_index: Int[Tensor, " run"]
    renormalize: bool = False

    @property
    def touched(self) -> Bool[Tensor, "run pos"]:
        """The positions at which an entry is replaced; for a map, the queries."""
        if SITES[self.site].is_map:
            return self.where.any(dim=3).any(dim=1)
        return self.where.any(dim=2) if self.where.ndim == 3 else self.where


def touched(edits: Sequence[Edit], like: Bool[Tensor, "run pos"]) -> Bool[Tensor, "run pos"]:
    """The positions at which at least one of the edits replaces an entry."""
    anywhere = torch.zeros_like(like)
    for edit in edits:
        anywhere |= edit.touched
    return anywhere


def replaced(activation: Float[Tensor, "run ..."], edit: Edit) -> Float[Tensor, "run ..."]:
    """The whole activation after the edit."""
    where = edit.where if SITES[edit.site].is_map else edit.where[..., None]
    return _renormalized(torch.where(where, edit.values[edit.row_index], activation), edit)


def replaced_queries(
    attention: Float[Tensor, "run head query key"], edit: Edit, queries: Int[Tensor, "run query"]
) -> Float[Tensor, "run head query key"]:
    """The rows of a map for the given queries, after the edit."""
    where, values = (
        torch.take_along_dim(whole, rearrange(queries, "run query -> run 1 query 1"), dim=2)
        for whole in (edit.where, edit.values[edit.row_index])
    )
    return _renormalized(torch.where(where, values, attention), edit)


def replaced_rows(
    rows: Float[Tensor, "row ..."], edit: Edit, run: Int[Tensor, " row"], pos: Int[Tensor, " row"]
) -> Float[Tensor, "row ..."]:
    """Rows of the activation after the edit; a row is the vector (or the heads' vectors) of one run and position."""
    where = edit.where[run, pos]
    index = where.nonzero(as_tuple=True)
    if not len(index[0]):
        return rows
    row, *head = index
    return rows.index_put(index, edit.values[(edit.row_index[run[row]], pos[row], *head)])


def _renormalized(attention: Float[Tensor, "run ..."], edit: Edit) -> Float[Tensor, "run ..."]:
    return attention / attention.sum(dim=-1, keepdim=True) if edit.renormalize else attention
