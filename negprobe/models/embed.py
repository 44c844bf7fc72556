"""The embeddings: the input of the first block."""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformer_lens.hook_points import HookPoint

from negprobe.models.config import HookedEncoderConfig
from negprobe.models.norms import norm_of


class Embed(nn.Module):
    """Token, position, token-type and task embeddings, where the model has them: their sum, after the norm if any.

    Every token gets the first task embedding, as in Hugging Face's model for texts without a task.
    """

    def __init__(self, cfg: HookedEncoderConfig) -> None:
        """Create the embedding tables that the model has."""
        super().__init__()
        self.cfg = cfg
        self.W_E = nn.Parameter(torch.empty(cfg.d_vocab, cfg.d_embed))
        self.hook_embed = HookPoint()
        if cfg.embeds_positions:
            self.W_pos = nn.Parameter(torch.empty(cfg.first_position + cfg.n_ctx, cfg.d_embed))
            self.hook_pos_embed = HookPoint()
        if cfg.n_token_types:
            self.W_token_type = nn.Parameter(torch.empty(cfg.n_token_types, cfg.d_embed))
            self.hook_token_type_embed = HookPoint()
        if cfg.n_task_types:
            self.W_task_type = nn.Parameter(torch.empty(cfg.n_task_types, cfg.d_embed))
            self.hook_task_type_embed = HookPoint()
        self.ln = norm_of(cfg.normalization_type, cfg.d_embed, cfg.eps, cfg.embed_norm)

    def forward(
        self, tokens: Int[Tensor, "batch pos"], token_type_ids: Int[Tensor, "batch pos"] | None = None
    ) -> Float[Tensor, "batch pos d_embed"]:
        """The sum of each token's embeddings, after the norm."""
        summands = self.summands(tokens, token_type_ids).items()
        return self.ln(sum(getattr(self, f"hook_{name}")(summand) for name, summand in summands))

    @property
    def summand_names(self) -> list[str]:
        """The names of the embeddings that are summed, in this order."""
        names = ("embed", "token_type_embed", "pos_embed", "task_type_embed")
        return [name for name in names if hasattr(self, f"hook_{name}")]

    def summands(
        self, tokens: Int[Tensor, "batch pos"], token_type_ids: Int[Tensor, "batch pos"] | None
    ) -> dict[str, Float[Tensor, "batch pos d_embed"]]:
        """The embeddings of each token by name, in the order in which they are summed."""
        summands = {"embed": F.embedding(tokens, self.W_E)}
        if self.cfg.n_token_types:
            types = torch.zeros_like(tokens) if token_type_ids is None else token_type_ids
            summands["token_type_embed"] = F.embedding(types, self.W_token_type)
        if self.cfg.embeds_positions:
            summands["pos_embed"] = F.embedding(self.positions(tokens), self.W_pos)
        if self.cfg.n_task_types:
            summands["task_type_embed"] = F.embedding(torch.zeros_like(tokens), self.W_task_type)
        return summands

    def positions(self, tokens: Int[Tensor, "batch pos"]) -> Int[Tensor, "batch pos"]:
        """Index of each token's position embedding; RoBERTa's family does not count padding."""
        if self.cfg.first_position == 0:
            return torch.arange(tokens.shape[1], device=tokens.device).expand_as(tokens)
        real = (tokens != self.cfg.pad_token_id).long()
        return real.cumsum(dim=1) * real + self.cfg.first_position - 1
