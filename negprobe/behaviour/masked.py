"""What a masked language model says at the `[MASK]` of a statement."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from transformers import PreTrainedTokenizerBase

from negprobe.base.arguments import checked
from negprobe.base.errors import InputError
from negprobe.models import HookedEncoder
from negprobe.models.batching import length_batches, pad_token_types, pad_tokens
from negprobe.models.layers import has_own_hooks
from negprobe.statements import TokenizedStatement, tokenize, unknown_words
from negprobe.statements.gap_tokens import gap_token


@dataclass(frozen=True)
class Gap:
    """What a model says at one `[MASK]`.

    Attributes:
        words: Its most probable words, the best first.
        log_probabilities: Those of the requested words that are single tokens at `[MASK]`.
    """

    words: tuple[str, ...]
    log_probabilities: Mapping[str, float]


@checked
@torch.no_grad()
def read_gaps(
    model: HookedEncoder, texts: Sequence[str], asked: Sequence[Sequence[str]], k: int = 5, batch_size: int = 64
) -> list[Gap]:
    """Read the `[MASK]` of each text.

    Args:
        model: A masked language model with a tokenizer.
        texts: Statements with one `[MASK]` each.
        asked: For each of them, the words whose log-probabilities are wanted.
        k: How many of the most probable words are kept.
        batch_size: How many texts are run together.

    Raises:
        InputError: without a masked-LM head or tokenizer, without words asked for each text, for a negative k or a
            batch of none, or for a text without exactly one `[MASK]` or too long.
        StatementError: for a text that cannot be tokenized.
    """
    tokenizer = tokenizer_of_masked_lm(model)
    if len(asked) != len(texts) or k < 0:
        raise InputError(f"Each of {len(texts)} texts needs its words, and k is 0 or more; not {len(asked)} and {k}.")
    statements = [tokenize(text, tokenizer) for text in texts]
    for statement in statements:
        reason = unreadable(statement, model)
        if reason:
            raise InputError(f"{shortened(statement.text)!r} {reason}.")
    ids = [
        {word: gap_token(statement, word, tokenizer) for word in words}
        for statement, words in zip(statements, asked, strict=True)
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
        for row, top, of_row in zip(rows, best, log_probabilities, strict=True):
            gaps[row] = Gap(
                tuple(tokenizer.decode([token]).strip() for token in top),
                {word: float(of_row[token]) for word, token in ids[row].items() if token is not None},
            )
    return [gap for gap in gaps if gap is not None]


def unreadable(statement: TokenizedStatement, model: HookedEncoder) -> str:
    """Why the model cannot read a statement's one gap; empty if it can."""
    assert model.tokenizer is not None
    masks = statement.ids.count(model.tokenizer.mask_token_id)
    if masks != 1:
        return f"has {masks} mask tokens, not one"
    return too_long(statement, model)


def too_long(statement: TokenizedStatement, model: HookedEncoder) -> str:
    """Why a statement is too long for the model; empty if it is not."""
    if len(statement) <= model.cfg.n_ctx:
        return ""
    return f"has {len(statement)} tokens, more than the {model.cfg.n_ctx} the model reads"


def shortened(text: str, width: int = 60) -> str:
    """As much of a text as tells which one it is."""
    return text if len(text) <= width else f"{text[: width - 1]}…"


def unknown_to(
    model: HookedEncoder, items: Sequence[Sequence[TokenizedStatement]], what: str, shown: int = 5
) -> list[str]:
    """How many items have words that the model does not know, and which; nothing if there are none.

    Args:
        model: A model with a tokenizer.
        items: The statements of each item.
        what: What the items are called.
        shown: How many of the words are named.
    """
    assert model.tokenizer is not None
    unknown = [{word for statement in item for word in unknown_words(statement, model.tokenizer)} for item in items]
    n_unknown = sum(map(bool, unknown))
    words = sorted(set[str]().union(*unknown))
    return (
        [f"{n_unknown} of {len(items)} {what} have words the model does not know: {some(words, shown)}"]
        if n_unknown
        else []
    )


def some(words: Sequence[str], shown: int = 5) -> str:
    """The first words, and how many more there are."""
    return ", ".join(words[:shown]) + (f" and {len(words) - shown} more" if len(words) > shown else "")


def tokenizer_of_masked_lm(model: HookedEncoder) -> PreTrainedTokenizerBase:
    """The tokenizer of a masked language model.

    Raises:
        InputError: for another kind of model, one loaded without a tokenizer, or one with a hook on the model itself.
    """
    if has_own_hooks(model):
        raise InputError(
            "The model itself has a hook (or a forward that replaces its own), which would have no effect, because "
            "words are predicted from the last hidden states. Remove it, or hook a part such as model.unembed."
        )
    if model.cfg.head != "masked_lm" or model.tokenizer is None:
        lack = "masked-LM head" if model.cfg.head != "masked_lm" else "tokenizer"
        raise InputError(f"{model.cfg.model_name!r} has no {lack}; words are predicted by a masked LM with one.")
    return model.tokenizer
