"""Where an activation can be swapped, and which part of it."""

from dataclasses import dataclass
from typing import Literal, get_args

from negprobe.errors import PatchingError

By = Literal["position", "role", "head"]
"""What a sweep varies besides the layer: a token position, a token role, or an attention head."""


@dataclass(frozen=True)
class Site:
    """An activation of every layer.

    Attributes:
        name: TransformerLens's short name.
        hook: Its hook name, with `{layer}`.
        has_heads: Whether its shape is `[batch pos head d_head]` and not `[batch pos d_model]`.
    """

    name: str
    hook: str
    has_heads: bool = False


SITES = {
    site.name: site
    for site in (
        Site("resid_pre", "blocks.{layer}.hook_resid_pre"),
        Site("attn_out", "blocks.{layer}.hook_attn_out"),
        Site("mlp_out", "blocks.{layer}.hook_mlp_out"),
        Site("z", "blocks.{layer}.attn.hook_z", has_heads=True),
    )
}


def site_for(name: str, by: str) -> Site:
    """The site of a name.

    Raises:
        PatchingError: for a site that does not exist, or has no heads to be swept by.
    """
    if name not in SITES:
        raise PatchingError(f"There is no site {name!r}; choose one of {', '.join(SITES)}.")
    if by not in get_args(By):
        raise PatchingError(f"A sweep goes by 'position', 'role' or 'head', not by {by!r}.")
    site = SITES[name]
    if by == "head" and not site.has_heads:
        raise PatchingError(f"{name!r} is not made of heads; sweep it by position or role, or sweep 'z' by head.")
    return site
