"""Predictions of a masked language model at the `[MASK]` of a statement."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from transformers import PreTrainedTokenizerBase

from negprobe.base.arguments import checked
from negprobe.base.errors import InputError
from negprobe.models import HookedEncoder
from negprobe.models.batching import length_batches, pad_token_types, pad_tokens
from negprobe.models.hooked import has_own_hooks
from negprobe.statements import TokenizedStatement, tokenize, unknown_words
from negprobe.statements.gap_tokens import gap_token


@dataclass(frozen=True)
class Gap:
    """A model's predictions at one `[MASK]`.

    Attributes:
        words: The most probable words, most probable first.
        log_probabilities: The log-probabilities of the requested words that are single tokens at this `[MASK]`.
    """

    words: tuple[str, ...]
    log_probabilities: Mapping[str, float]


@checked
@torch.no_grad()
def read_gaps(
    model: HookedEncoder, texts: Sequence[str], words: Sequence[Sequence[str]], k: int = 5, batch_size: int = 64
) -> list[Gap]:
    """The model's predictions at the `[MASK]` of each text.

    Args:
        model: A masked language model with a tokenizer.
        texts: Statements with one `[MASK]` each.
        words: For each text, the words to return log-probabilities for.
        k: How many of the most probable words to return.
        batch_size: Number of texts per batch.

    Raises:
        InputError: if the model has no masked-LM head or no tokenizer, `words` does not have one entry per text, k is
            negative, the batch size is below 1, or a text is too long or does not have exactly one `[MASK]`.
        StatementError: for a text that cannot be tokenized.

    Example:
        >>> from negprobe import HookedEncoder
        >>> from negprobe.behaviour import read_gaps
        >>> model = HookedEncoder.from_pretrained("tiny-negation")
        >>> read_gaps(model, ["The door is not open. So the door is [MASK]."], [["open", "closed"]], k=1)[0].words
        ('closed',)
    """
    tokenizer = tokenizer_of_masked_lm(model)
    if len(words) != len(texts):
        raise InputError(f"words must have one list per text; got {len(words)} lists for {len(texts)} texts.")
    if k < 0:
        raise InputError(f"k must be at least 0, got {k}.")
    statements = [tokenize(text, tokenizer) for text in texts]
    for statement in statements:
        reason = unreadable(statement, model)
        if reason:
            raise InputError(f"{shortened(statement.text)!r} {reason}.")
    ids = [
        {word: gap_token(statement, word, tokenizer) for word in requested}
        for statement, requested in zip(statements, words, strict=True)
    ]
    gaps: list[Gap | None] = [None] * len(texts)
    for rows in length_batches([len(statement) for statement in statements], batch_size):
        batch = [statements[row] for row in rows]
        tokens, mask = pad_tokens([statement.ids for statement in batch], model.cfg.pad_token_id, model.device)
        types = pad_token_types([statement.token_types for statement in batch], [*map(len, batch)], model.device)
        resid = model(tokens, token_type_ids=types, one_zero_attention_mask=mask, stop_at_layer=model.cfg.n_layers)
        row, pos = (tokens == tokenizer.mask_token_id).nonzero(as_tuple=True)
        log_probabilities = model.word_logits(resid, row, pos).log_softmax(dim=-1)
        best = log_probabilities.topk(min(k, model.cfg.d_vocab), dim=-1).indices.tolist()
        for row, top, row_log_probabilities in zip(rows, best, log_probabilities, strict=True):
            gaps[row] = Gap(
                tuple(tokenizer.decode([token]).strip() for token in top),
                {word: float(row_log_probabilities[token]) for word, token in ids[row].items() if token is not None},
            )
    return [gap for gap in gaps if gap is not None]


def unreadable(statement: TokenizedStatement, model: HookedEncoder) -> str:
    """Why the model cannot predict a word for the statement's gap; empty if it can."""
    assert model.tokenizer is not None
    masks = statement.ids.count(model.tokenizer.mask_token_id)
    if masks != 1:
        return f"has {masks} mask tokens instead of one"
    return too_long(statement, model)


def too_long(statement: TokenizedStatement, model: HookedEncoder) -> str:
    """Why a statement is too long for the model; empty if it is not."""
    if len(statement) <= model.cfg.n_ctx:
        return ""
    return f"has {len(statement)} tokens, more than the model's maximum of {model.cfg.n_ctx}"


def shortened(text: str, width: int = 60) -> str:
    """The beginning of a text, long enough to recognise it."""
    return text if len(text) <= width else f"{text[: width - 1]}…"


def unknown_word_notes(
    model: HookedEncoder, items: Sequence[Sequence[TokenizedStatement]], kind: str, n_shown: int = 5
) -> list[str]:
    """A note on the items with words outside the model's vocabulary; empty if there are none.

    Args:
        model: A model with a tokenizer.
        items: The statements of each item.
        kind: What the note calls the items, such as "pairs".
        n_shown: Maximum number of words to list.
    """
    assert model.tokenizer is not None
    unknown = [{word for statement in item for word in unknown_words(statement, model.tokenizer)} for item in items]
    n_unknown = sum(map(bool, unknown))
    words = sorted(set[str]().union(*unknown))
    return (
        [f"{n_unknown} of {len(items)} {kind} have words outside the model's vocabulary: {first_words(words, n_shown)}"]
        if n_unknown
        else []
    )


def first_words(words: Sequence[str], n_shown: int = 5) -> str:
    """The first words, separated by commas, and how many more there are."""
    return ", ".join(words[:n_shown]) + (f" and {len(words) - n_shown} more" if len(words) > n_shown else "")


def tokenizer_of_masked_lm(model: HookedEncoder) -> PreTrainedTokenizerBase:
    """The tokenizer of a masked language model.

    Raises:
        InputError: if the model has no masked-LM head or no tokenizer, or a hook on the model itself.
    """
    if has_own_hooks(model):
        raise InputError(
            "The model itself has a hook, or its forward method was replaced. Neither would have an effect, because "
            "words are predicted from the last hidden states. Remove it, or hook a module such as model.unembed."
        )
    if model.cfg.head != "masked_lm" or model.tokenizer is None:
        missing = "masked-LM head" if model.cfg.head != "masked_lm" else "tokenizer"
        raise InputError(
            f"{model.cfg.model_name!r} has no {missing}; predicting words needs a masked LM with its tokenizer."
        )
    return model.tokenizer
