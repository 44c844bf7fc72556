"""Pseudo-log-likelihoods of whole sentences under a masked language model."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from negprobe.base.arguments import checked
from negprobe.base.errors import InputError
from negprobe.behaviour.masked import shortened, tokenizer_of_masked_lm, too_long
from negprobe.models import HookedEncoder
from negprobe.models.batching import length_batches, pad_token_types, pad_tokens
from negprobe.statements import tokenize


@checked
@torch.no_grad()
def pseudo_log_likelihoods(model: HookedEncoder, texts: Sequence[str], batch_size: int = 256) -> Float[Tensor, " text"]:
    """Pseudo-log-likelihood of each text: the sum over its tokens of log p(token | all others).

    PLL(W) = Σ_t log P(w_t | W without w_t), with w_t replaced by the mask token (Salazar et al. 2020, section 2.1,
    doi:10.18653/v1/2020.acl-main.240). The special tokens around the text are not scored. Each text is run once per
    token, with that token masked.

    Args:
        model: A masked language model with a tokenizer.
        texts: The texts.
        batch_size: Number of masked copies per batch.

    Returns:
        Natural logarithms, on the CPU.

    Raises:
        InputError: if the model has no masked-LM head or no tokenizer, or a text is too long.
        StatementError: for a text that cannot be tokenized.
    """
    tokenizer = tokenizer_of_masked_lm(model)
    statements = [tokenize(text, tokenizer) for text in texts]
    for statement in statements:
        if too_long(statement, model):
            raise InputError(f"{shortened(statement.text)!r} {too_long(statement, model)}.")
    copies = [
        (row, position)
        for row, statement in enumerate(statements)
        for position, special in enumerate(statement.special)
        if not special
    ]
    total = torch.zeros(len(texts), dtype=torch.float64)
    for chosen in length_batches([len(statements[row]) for row, _ in copies], batch_size):
        rows = torch.tensor([copies[copy][0] for copy in chosen])
        position = torch.tensor([copies[copy][1] for copy in chosen], device=model.device)
        batch = [statements[row] for row in rows.tolist()]
        tokens, mask = pad_tokens([statement.ids for statement in batch], model.cfg.pad_token_id, model.device)
        types = pad_token_types([statement.token_types for statement in batch], [*map(len, batch)], model.device)
        copy = torch.arange(len(chosen), device=model.device)
        masked_tokens = tokens[copy, position]
        tokens[copy, position] = tokenizer.mask_token_id
        resid = model(tokens, token_type_ids=types, one_zero_attention_mask=mask, stop_at_layer=model.cfg.n_layers)
        log_probabilities = model.word_logits(resid, copy, position).log_softmax(dim=-1)
        total.index_add_(0, rows, log_probabilities[copy, masked_tokens].cpu().double())
    return total
