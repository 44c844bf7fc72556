"""The activations that can be patched, with their short names and hook names."""

from dataclasses import dataclass

from negprobe.base.errors import PatchingError

POSITION, HEADS, MAP = ("pos",), ("pos", "head"), ("head", "query", "key")


@dataclass(frozen=True)
class Site:
    """A hook point that can be patched, in every layer or in the embeddings.

    Attributes:
        name: TransformerLens's short name.
        hook: The hook name, with `{layer}` for a site that every layer has.
        axes: The axes after the batch axis, without the axis of the vector itself: position; position and head; or, for
            the two attention maps, head, query and key.
    """

    name: str
    hook: str
    axes: tuple[str, ...] = POSITION

    @property
    def has_heads(self) -> bool:
        """Whether single heads can be patched."""
        return "head" in self.axes

    @property
    def is_map(self) -> bool:
        """Whether the site is an attention map, indexed by query and key."""
        return self.axes == MAP

    @property
    def has_layers(self) -> bool:
        """Whether every layer has this site; the embeddings exist once and count as layer 0."""
        return "{layer}" in self.hook


SITES = {
    site.name: site
    for site in (
        Site("embed", "embed.hook_embed"),
        Site("pos_embed", "embed.hook_pos_embed"),
        Site("token_type_embed", "embed.hook_token_type_embed"),
        Site("full_embed", "hook_full_embed"),
        Site("resid_pre", "blocks.{layer}.hook_resid_pre"),
        Site("q", "blocks.{layer}.attn.hook_q", HEADS),
        Site("k", "blocks.{layer}.attn.hook_k", HEADS),
        Site("v", "blocks.{layer}.attn.hook_v", HEADS),
        Site("rot_q", "blocks.{layer}.attn.hook_rot_q", HEADS),
        Site("rot_k", "blocks.{layer}.attn.hook_rot_k", HEADS),
        Site("attn_scores", "blocks.{layer}.attn.hook_attn_scores", MAP),
        Site("pattern", "blocks.{layer}.attn.hook_pattern", MAP),
        Site("z", "blocks.{layer}.attn.hook_z", HEADS),
        Site("result", "blocks.{layer}.attn.hook_result", HEADS),
        Site("attn_out", "blocks.{layer}.hook_attn_out"),
        Site("resid_mid", "blocks.{layer}.hook_resid_mid"),
        Site("mlp_in", "blocks.{layer}.hook_mlp_in"),
        Site("ln1_out", "blocks.{layer}.ln1.hook_out"),
        Site("ln2_out", "blocks.{layer}.ln2.hook_out"),
        Site("mlp_pre", "blocks.{layer}.mlp.hook_pre"),
        Site("mlp_pre_linear", "blocks.{layer}.mlp.hook_pre_linear"),
        Site("mlp_post", "blocks.{layer}.mlp.hook_post"),
        Site("mlp_out", "blocks.{layer}.hook_mlp_out"),
        Site("resid_post", "blocks.{layer}.hook_resid_post"),
        Site("normalized_resid_post", "blocks.{layer}.hook_normalized_resid_post"),
    )
}


def site_for(name: str) -> Site:
    """The site with this name.

    Raises:
        PatchingError: for an unknown name.
    """
    if not isinstance(name, str) or name not in SITES:
        raise PatchingError(f"There is no site {name!r}; choose one of {', '.join(SITES)}.")
    return SITES[name]
