"""`AttentionProbe`: a model's attention before and after the values, for statements and for pairs of them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import overload

import numpy as np
import pandas as pd
import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from negprobe.attention.measures import norm_weighted, similarity
from negprobe.attention.metrics import METRICS, attention_to_cue, comparison_metrics
from negprobe.errors import InputError
from negprobe.models import HookedEncoder
from negprobe.models.batching import length_batches, pad_token_types, pad_tokens
from negprobe.statements import Alignment, StatementPair, TokenizedStatement, align, complete, tokenize

# The most floats the patterns of one batch may take: 256 MB in float32.
_PATTERN_BUDGET = 2**26


@dataclass(frozen=True)
class StatementAttention:
    """What a model's heads do with one statement; no padding, tensors on the CPU.

    Attributes:
        statement: The statement and its tokens.
        raw: Attention weights; rows sum to 1.
        similarity: Cosine of the head's outputs at two tokens, -1 to 1 (see `measures.similarity`).
        norm: Attention weighted by the norm of the transformed values (see `measures.norm_weighted`).
        value: The value vectors.
        z: The heads' outputs, pattern times values.
    """

    statement: TokenizedStatement
    raw: Float[Tensor, "layer head query key"]
    similarity: Float[Tensor, "layer head query key"]
    norm: Float[Tensor, "layer head query key"]
    value: Float[Tensor, "layer head key d_head"]
    z: Float[Tensor, "layer head query d_head"]


@dataclass(frozen=True)
class Comparison:
    """A statement and its counterfactual side by side.

    Attributes:
        pair: The pair, with its cue found.
        original: The original's attention.
        counterfactual: The counterfactual's attention.
        alignment: Which token of one is which of the other.
        metrics: One row per layer and head with the four metrics (see `metrics.comparison_metrics`), the share of
            attention that goes to the cue itself (`attention_to_cue`, NaN where no cue is known), and in `undefined`
            why a correlation is NaN, empty where none is.
        cue_positions: Where the cue stands in the counterfactual; empty where no cue is known.
    """

    pair: StatementPair
    original: StatementAttention
    counterfactual: StatementAttention
    alignment: Alignment
    metrics: pd.DataFrame
    cue_positions: tuple[int, ...]


@dataclass(frozen=True)
class _Activations:
    """A padded batch's activations, all layers stacked, on the model's device."""

    pattern: Float[Tensor, "batch layer head query key"]
    v: Float[Tensor, "batch layer key head d_head"]
    z: Float[Tensor, "batch layer query head d_head"]


class AttentionProbe:
    """Runs statements through a model in padded batches and measures every head at once."""

    def __init__(self, model: HookedEncoder, batch_size: int = 32) -> None:
        """Probe `model`, with at most `batch_size` statements in a forward pass (fewer where they are long).

        Raises:
            InputError: if the model has no tokenizer.
        """
        if model.tokenizer is None:
            raise InputError("Statements need a tokenizer; give one to HookedEncoder.from_pretrained.")
        self.model = model
        self.batch_size = batch_size

    @overload
    def run(self, statements: str) -> StatementAttention: ...  # type: ignore[overload-overlap]
    @overload
    def run(self, statements: Sequence[str]) -> list[StatementAttention]: ...
    def run(self, statements: str | Sequence[str]) -> StatementAttention | list[StatementAttention]:
        """Attention of one statement, or of each of several, in the order given.

        Raises:
            StatementError: for an empty statement.
            InputError: for one that is longer than the model reads.
        """
        texts = [statements] if isinstance(statements, str) else list(statements)
        tokenized = [self._tokenize(text) for text in texts]
        results: dict[int, StatementAttention] = {}
        for batch in self._batches([len(statement) for statement in tokenized]):
            members = [tokenized[index] for index in batch]
            results |= zip(batch, self._unpadded(members, self._activations(members)), strict=True)
        in_order = [results[index] for index in range(len(texts))]
        return in_order[0] if isinstance(statements, str) else in_order

    @overload
    def compare(self, pairs: StatementPair) -> Comparison: ...
    @overload
    def compare(self, pairs: Sequence[StatementPair]) -> list[Comparison]: ...
    def compare(self, pairs: StatementPair | Sequence[StatementPair]) -> Comparison | list[Comparison]:
        """Compare original and counterfactual of one pair, or of each of several, in the order given.

        Keeps every map of every pair; for the metrics of many pairs use `metrics`.

        Raises:
            StatementError: for a pair whose spans hold no token.
            InputError: for a statement that is longer than the model reads.
        """
        chosen = [pairs] if isinstance(pairs, StatementPair) else list(pairs)
        results: dict[int, Comparison] = {}
        for batch in self._pair_batches(chosen):
            tables = _tables(batch.metrics)
            originals = self._unpadded(batch.originals, batch.original)
            counterfactuals = self._unpadded(batch.counterfactuals, batch.counterfactual)
            for row, index in enumerate(batch.indices):
                results[index] = Comparison(
                    pair=batch.pairs[row],
                    original=originals[row],
                    counterfactual=counterfactuals[row],
                    alignment=batch.alignments[row],
                    metrics=tables[row],
                    cue_positions=batch.cue_positions[row],
                )
        in_order = [results[index] for index in range(len(chosen))]
        return in_order[0] if isinstance(pairs, StatementPair) else in_order

    def metrics(self, pairs: Sequence[StatementPair]) -> pd.DataFrame:
        """The four metrics of many pairs: one row per pair, layer and head; nothing else is kept.

        Columns are `pair` (its index), `layer`, `head`, the metrics, `attention_to_cue`, and `undefined` (why a
        correlation is NaN).

        Raises:
            InputError: for a statement that is longer than the model reads.
        """
        tables = [
            table.assign(pair=index)
            for batch in self._pair_batches(pairs)
            for index, table in zip(batch.indices, _tables(batch.metrics), strict=True)
        ]
        if not tables:
            raise InputError("There are no pairs to measure; give at least one.")
        table = pd.concat(tables).sort_values(["pair", "layer", "head"], ignore_index=True)
        return table[["pair", "layer", "head", *METRICS, "attention_to_cue", "undefined"]]

    def control_metrics(self, pairs: Sequence[StatementPair]) -> pd.DataFrame:
        """The four metrics of original against counterfactual and against control, for pairs that have a control.

        Both are taken on the same tokens, those of the original that have a partner in the counterfactual and in the
        control, so that their difference is down to the words and not to what is averaged.

        Returns:
            A row per pair, side, layer and head: `pair` (its index), `compared` ("counterfactual" or "control"),
            `layer`, `head`, the metrics and `undefined`. Pairs without a control have no rows.

        Raises:
            InputError: for a statement that is longer than the model reads.
        """
        tables = []
        controlled = [index for index, pair in enumerate(pairs) if pair.control]
        originals = [self._tokenize(pairs[index].original) for index in controlled]
        counterfactuals = [self._tokenize(pairs[index].counterfactual) for index in controlled]
        controls = [self._tokenize(str(pairs[index].control)) for index in controlled]
        for batch in self._batches([len(statement) for statement in controls]):
            first = [originals[i] for i in batch]
            original = self._activations(first)
            sides = {
                "counterfactual": [counterfactuals[i] for i in batch],
                "control": [controls[i] for i in batch],
            }
            alignments = [
                _on_common_tokens([align(originals[i], counterfactuals[i]), align(originals[i], controls[i])])
                for i in batch
            ]
            for column, (name, statements) in enumerate(sides.items()):
                other = self._activations(statements)
                metrics = comparison_metrics(
                    original.pattern, other.pattern, original.z, other.z, [both[column] for both in alignments]
                )
                tables += [
                    table.assign(pair=controlled[i], compared=name)
                    for i, table in zip(batch, _tables(metrics), strict=True)
                ]
        columns = ["pair", "compared", "layer", "head", *METRICS, "undefined"]
        if not tables:
            return pd.DataFrame(columns=columns)
        return pd.concat(tables).sort_values(["pair", "compared", "layer", "head"], ignore_index=True)[columns]

    def _tokenize(self, text: str) -> TokenizedStatement:
        statement = tokenize(text, self.model.tokenizer)
        if len(statement) > self.model.cfg.n_ctx:
            raise InputError(
                f"A statement has {len(statement)} tokens, but the model reads at most {self.model.cfg.n_ctx}: "
                f"{text[:60]!r}… Shorten it."
            )
        return statement

    def _batches(self, lengths: Sequence[int]) -> Iterator[list[int]]:
        cfg = self.model.cfg
        for batch in length_batches(lengths, self.batch_size):
            longest = max(lengths[index] for index in batch)
            fit = max(1, _PATTERN_BUDGET // (cfg.n_layers * cfg.n_heads * longest**2))
            yield from (batch[start : start + fit] for start in range(0, len(batch), fit))

    def _pair_batches(self, pairs: Sequence[StatementPair]) -> "Iterator[_PairBatch]":
        completed = [complete(pair, self.model.tokenizer) for pair in pairs]
        originals = [self._tokenize(pair.original) for pair in completed]
        counterfactuals = [self._tokenize(pair.counterfactual) for pair in completed]
        lengths = [max(len(a), len(b)) for a, b in zip(originals, counterfactuals, strict=True)]
        for indices in self._batches(lengths):
            first, second = [originals[i] for i in indices], [counterfactuals[i] for i in indices]
            alignments = [align(a, b) for a, b in zip(first, second, strict=True)]
            one, other = self._activations(first), self._activations(second)
            members = [completed[i] for i in indices]
            cues = [
                tuple(position for span in pair.cue_spans for position in statement.positions(span))
                for pair, statement in zip(members, second, strict=True)
            ]
            metrics = comparison_metrics(one.pattern, other.pattern, one.z, other.z, alignments)
            metrics["attention_to_cue"] = attention_to_cue(other.pattern, cues, [len(s) for s in second])
            yield _PairBatch(indices, members, first, second, one, other, alignments, cues, metrics)

    @torch.no_grad()
    def _activations(self, statements: Sequence[TokenizedStatement]) -> _Activations:
        cfg = self.model.cfg
        tokens, mask = pad_tokens([s.ids for s in statements], cfg.pad_token_id, self.model.device)
        types = pad_token_types([s.token_types for s in statements], [*map(len, statements)], self.model.device)
        _, cache = self.model.run_with_cache(
            tokens,
            token_type_ids=types,
            one_zero_attention_mask=mask,
            stop_at_layer=cfg.n_layers,
            names_filter=lambda name: name.endswith(("hook_pattern", "attn.hook_v", "attn.hook_z")),
        )
        stacked = (
            torch.stack([cache[name, layer] for layer in range(cfg.n_layers)], dim=1) for name in ("pattern", "v", "z")
        )
        return _Activations(*stacked)

    @torch.no_grad()
    def _unpadded(
        self, statements: Sequence[TokenizedStatement], activations: _Activations
    ) -> list[StatementAttention]:
        pattern, v, z = activations.pattern, activations.v, activations.z
        norm = torch.stack([norm_weighted(pattern[:, i], v[:, i], W_O) for i, W_O in enumerate(self.model.W_O)], dim=1)
        maps = {"raw": pattern, "similarity": similarity(z), "norm": norm}
        vectors = {
            "value": rearrange(v, "batch layer key head e -> batch layer head key e"),
            "z": rearrange(z, "batch layer query head e -> batch layer head query e"),
        }
        return [
            StatementAttention(
                statement=statement,
                **{name: t[row, :, :, :n, :n].cpu().clone() for name, t in maps.items()},
                **{name: t[row, :, :, :n].cpu().clone() for name, t in vectors.items()},
            )
            for row, statement in enumerate(statements)
            for n in [len(statement)]
        ]


@dataclass(frozen=True)
class _PairBatch:
    """A batch of pairs, both sides run."""

    indices: list[int]
    pairs: list[StatementPair]
    originals: list[TokenizedStatement]
    counterfactuals: list[TokenizedStatement]
    original: _Activations
    counterfactual: _Activations
    alignments: list[Alignment]
    cue_positions: list[tuple[int, ...]]
    metrics: dict[str, Float[Tensor, "batch layer head"]]


def _on_common_tokens(alignments: Sequence[Alignment]) -> list[Alignment]:
    """Alignments of the same original, cut down to the original's tokens that every one of them matches."""
    common = set.intersection(*(set(alignment.original) for alignment in alignments))
    cut = []
    for alignment in alignments:
        links = list(zip(alignment.original, alignment.counterfactual, strict=True))
        kept = [(i, j) for i, j in links if i in common]
        left = [(i, j) for i, j in links if i not in common]
        cut.append(
            Alignment(
                original=tuple(i for i, _ in kept),
                counterfactual=tuple(j for _, j in kept),
                unmatched_original=tuple(sorted([*alignment.unmatched_original, *(i for i, _ in left)])),
                unmatched_counterfactual=tuple(sorted([*alignment.unmatched_counterfactual, *(j for _, j in left)])),
            )
        )
    return cut


def _tables(metrics: dict[str, Float[Tensor, "batch layer head"]]) -> list[pd.DataFrame]:
    """One table a pair of the batch."""
    arrays = {name: values.double().cpu().numpy() for name, values in metrics.items()}
    n_layers, n_heads = next(iter(arrays.values())).shape[1:]
    layers, heads = np.indices((n_layers, n_heads))
    tables = []
    for row in range(len(next(iter(arrays.values())))):
        table = pd.DataFrame({"layer": layers.ravel(), "head": heads.ravel()})
        for name, values in arrays.items():
            table[name] = values[row].ravel()
        table["undefined"] = _reasons(table)
        tables.append(table)
    return tables


def _reasons(table: pd.DataFrame) -> list[str]:
    pattern_is_constant = table["attention_pattern_correlation"].isna()
    output_is_constant = table["value_output_correlation"].isna()
    return [
        "; ".join(
            reason
            for reason, holds in (
                ("a pattern is constant over the aligned tokens", constant_pattern),
                ("an output is constant over the aligned tokens", constant_output),
            )
            if holds
        )
        for constant_pattern, constant_output in zip(pattern_is_constant, output_is_constant, strict=True)
    ]
