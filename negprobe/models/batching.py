"""Batches of texts of similar length, which need little padding."""

from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Int
from torch import Tensor

from negprobe.base.errors import InputError


def length_batches(lengths: Sequence[int], batch_size: int) -> Iterator[list[int]]:
    """Batches of at most `batch_size` text indices, from the shortest text to the longest.

    Raises:
        InputError: for a batch size below 1.

    Example:
        >>> from negprobe.models.batching import length_batches
        >>> list(length_batches([5, 3, 9], batch_size=2))
        [[1, 0], [2]]
    """
    if batch_size < 1:
        raise InputError(f"batch_size must be at least 1, got {batch_size}.")
    order = sorted(range(len(lengths)), key=lambda index: lengths[index])
    for start in range(0, len(order), batch_size):
        yield order[start : start + batch_size]


def pad_tokens(
    ids: Sequence[Sequence[int]], pad_token_id: int, device: torch.device
) -> tuple[Int[Tensor, "batch pos"], Int[Tensor, "batch pos"]]:
    """Token ids padded on the right to the longest text, and an attention mask that is 1 for real tokens."""
    rows = [torch.tensor(row, dtype=torch.long) for row in ids]
    tokens = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=pad_token_id)
    mask = torch.nn.utils.rnn.pad_sequence([torch.ones_like(row) for row in rows], batch_first=True)
    return tokens.to(device), mask.to(device)


def pad_token_types(
    types: Sequence[Sequence[int]], lengths: Sequence[int], device: torch.device
) -> Int[Tensor, "batch pos"]:
    """Token types padded with 0 to the longest text; a text without token types gets 0 everywhere."""
    padded = torch.zeros(len(lengths), max(lengths), dtype=torch.long)
    for row, row_types in enumerate(types):
        padded[row, : len(row_types)] = torch.tensor(row_types, dtype=torch.long)
    return padded.to(device)
