"""`AttentionProbe`: a model's raw and value-weighted attention, for single statements and for pairs."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import NamedTuple, overload

import numpy as np
import torch
import xarray as xr
from einops import rearrange
from jaxtyping import Float, Int
from numpy.typing import DTypeLike
from torch import Tensor

from negprobe.attention.contribution_maps import CONTRIBUTIONS, contributions, is_defined
from negprobe.attention.frames import frame, uniform_distance
from negprobe.attention.measures import norm_weighted, similarity
from negprobe.attention.pair_metrics import COMPARED, LayerMetrics, empty_dataset, fill, side_metrics
from negprobe.attention.readings import add_readings, mean_readings, no_readings, role_matrices, role_shares
from negprobe.attention.rollout import normalized_rows
from negprobe.base.arguments import checked
from negprobe.base.display import view
from negprobe.base.errors import InputError
from negprobe.base.progress import Progress
from negprobe.base.reprs import Listed, short_repr
from negprobe.models import HookedEncoder
from negprobe.models.batching import length_batches, pad_token_types, pad_tokens
from negprobe.statements import (
    Alignment,
    PreparedPair,
    StatementPair,
    TokenizedStatement,
    complete,
    readable_by,
    tokenize_all,
    unknown_words,
)
from negprobe.statements.prepared import aligned_pair
from negprobe.statements.unknown import warn_of_unknown_words

# Limit on the floats in the patterns of one batch: 256 MB in float32.
_PATTERN_BUDGET = 2**26

# Pairs tokenized together, so that batches can be sorted by length.
_WINDOW = 1024

_UNDEFINED = {
    "attention_pattern_correlation": "a pattern is constant over the aligned tokens",
    "value_output_correlation": "an output is constant over the aligned tokens",
}


@dataclass(frozen=True, repr=False)
class StatementAttention:
    """The attention of all heads for one statement; without padding, with tensors on the CPU.

    Attributes:
        statement: The statement and its tokens.
        raw: Attention weights; rows sum to 1.
        similarity: Cosine of the head's outputs at two tokens, -1 to 1 (see `measures.similarity`).
        norm: Attention weighted by the norm of the transformed values (see `measures.norm_weighted`).
        value: The value vectors.
        z: The heads' outputs, pattern times values.
        zeroing: Value zeroing over all heads of a layer, from each key into each query, if it was requested (see
            `layer_measures.value_zeroing`).
    """

    statement: TokenizedStatement
    raw: Float[Tensor, "layer head query key"]
    similarity: Float[Tensor, "layer head query key"]
    norm: Float[Tensor, "layer head query key"]
    value: Float[Tensor, "layer head key d_head"]
    z: Float[Tensor, "layer head query d_head"]
    zeroing: Float[Tensor, "layer query key"] | None = None

    __repr__ = short_repr

    def _repr_html_(self) -> str:
        return view("attention_summary")(self)


@dataclass(frozen=True, repr=False)
class Comparison:
    """The attention of an original and its counterfactual, with the metrics that compare them.

    Attributes:
        pair: The pair, with its cue found.
        original: The original's attention.
        counterfactual: The counterfactual's attention.
        alignment: Which token of the original corresponds to which token of the counterfactual.
        metrics: The metrics of this pair: what `AttentionProbe.metrics` returns for it where `compared` is
            "counterfactual", but in float64, and on all aligned tokens, also those that a control lacks.
            `metrics[list(METRICS)].to_dataframe()` has one row per layer and head.
        cue_positions: Positions of the cue in the counterfactual; empty if no cue was found.
    """

    pair: StatementPair
    original: StatementAttention
    counterfactual: StatementAttention
    alignment: Alignment
    metrics: xr.Dataset
    cue_positions: tuple[int, ...]

    __repr__ = short_repr

    @property
    def undefined(self) -> xr.DataArray:
        """Why a head's correlations are NaN, `[layer head]`; empty texts where they are not."""
        missing = [self.metrics[name].isnull() for name in _UNDEFINED]
        return xr.apply_ufunc(_reasons, *missing, vectorize=True, output_dtypes=[object]).rename("undefined")

    @checked
    def html(self, path: str | Path, *, max_bytes: int | None = None) -> Path:
        """Write an interactive page of this pair (see `views.write_page`), and return its path.

        Args:
            path: The file to write.
            max_bytes: As for `AttentionProbe.html`.

        Raises:
            ViewError: if the pair does not fit in `max_bytes` or cannot be shown, or the file cannot be written.
        """
        title = f"{self.pair.original} / {self.pair.counterfactual}"
        limit = {} if max_bytes is None else {"max_bytes": max_bytes}
        return view("write_page")([self], path, title=title, **limit)

    def _repr_html_(self) -> str:
        return view("comparison_summary")(self)


@dataclass(frozen=True)
class _Padded:
    """The padded model inputs of a batch of statements."""

    tokens: Int[Tensor, "batch pos"]
    mask: Int[Tensor, "batch pos"]
    types: Int[Tensor, "batch pos"]


@dataclass(frozen=True)
class _Activations:
    """The activations of a padded batch, one entry per layer, on the model's device."""

    pattern: list[Float[Tensor, "batch head query key"]]
    v: list[Float[Tensor, "batch key head d_head"]]
    z: list[Float[Tensor, "batch query head d_head"]]


class AttentionProbe:
    """Runs statements through a model in padded batches and computes the measures and metrics of all heads.

    Each call issues at most one `NegprobeWarning`, which lists the words that are not in the model's vocabulary.

    For a model without a masked-LM head, the [MASK] of a pair is filled in first (see `statements.readable_by`).
    """

    @checked
    def __init__(self, model: HookedEncoder, batch_size: int = 64) -> None:
        """Set the model, and the maximum number of statements or pairs in a batch (fewer if they are long).

        Raises:
            InputError: if the model has no tokenizer, or `batch_size` is below 1.
        """
        if batch_size < 1:
            raise InputError(f"batch_size must be at least 1, got {batch_size}.")
        if model.tokenizer is None:
            raise InputError("The model has no tokenizer; pass one to HookedEncoder.from_pretrained.")
        self.model = model
        self.batch_size = batch_size

    @property
    def _rounding(self) -> float:
        # On MiniLM, runs of one statement in batches of different lengths differed by about 2 machine epsilons.
        return 8 * torch.finfo(self.model.dtype).eps

    @overload
    def run(self, statements: str) -> StatementAttention: ...  # type: ignore[overload-overlap]
    @overload
    def run(self, statements: Sequence[str]) -> list[StatementAttention]: ...
    @checked
    def run(self, statements: str | Sequence[str]) -> StatementAttention | list[StatementAttention]:
        """The attention of one statement, or a list with that of several, in the order given.

        Raises:
            StatementError: for an empty statement.
            InputError: for a statement that is longer than the model's context.
        """
        texts = [statements] if isinstance(statements, str) else list(statements)
        tokenized = self._tokenized(texts)
        warn_of_unknown_words(tokenized, self.model.tokenizer)
        results: dict[int, StatementAttention] = {}
        for batch in self._batches([len(statement) for statement in tokenized]):
            members = [tokenized[index] for index in batch]
            results |= zip(batch, self._unpadded(members, self._activations(members)), strict=True)
        in_order = Listed(results[index] for index in range(len(texts)))
        return in_order[0] if isinstance(statements, str) else in_order

    @overload
    def compare(self, pairs: str, counterfactual: str, *, zeroing: bool = False) -> Comparison: ...
    @overload
    def compare(self, pairs: StatementPair, *, zeroing: bool = False) -> Comparison: ...
    @overload
    def compare(self, pairs: Sequence[StatementPair], *, zeroing: bool = False) -> list[Comparison]: ...
    @checked
    def compare(
        self,
        pairs: str | StatementPair | Sequence[StatementPair],
        counterfactual: str | None = None,
        *,
        zeroing: bool = False,
    ) -> Comparison | list[Comparison]:
        """The comparison of one pair, or a list with those of several, in the order given.

        All attention maps are kept in memory; to get only the metrics of many pairs, use `metrics`.

        Args:
            pairs: One pair, several pairs, or the text of an original statement.
            counterfactual: The text of the counterfactual, if `pairs` is a text.
            zeroing: Whether to compute value zeroing too, which takes as long as many forward passes.

        Raises:
            StatementError: for a pair with a span that contains no token.
            InputError: for a statement that is longer than the model's context, for a text without `counterfactual`,
                or for pairs together with `counterfactual`.
        """
        if isinstance(pairs, str) != (counterfactual is not None):
            raise InputError(
                "compare takes two texts, as in compare('It is open.', 'It is not open.'), or pairs without a "
                "counterfactual."
            )
        if isinstance(pairs, str):
            assert counterfactual is not None
            pairs = StatementPair(pairs, counterfactual)
        chosen = [pairs] if isinstance(pairs, StatementPair) else list(pairs)
        tokenized = self._tokenized_pairs(chosen, control=False)
        warn_of_unknown_words(_sides(tokenized), self.model.tokenizer)
        results: dict[int, Comparison] = {}
        for batch in self._side_batches(tokenized):
            members = [tokenized[index] for index in batch]
            sides = [[pair.sides[side] for pair in members] for side in (0, 1)]
            activations = self._activations([*sides[0], *sides[1]])
            metrics = self._empty_metrics(len(batch), np.float64)
            fill(metrics, range(len(batch)), self._layer_metrics(activations, members))
            metrics = _described(metrics, [_description(pair) for pair in members])
            metrics = metrics.assign_coords(pair=batch).sel(compared="counterfactual")
            attention = self._unpadded([*sides[0], *sides[1]], activations)
            if zeroing:
                attention = self._with_zeroing(attention)
            for row, index in enumerate(batch):
                results[index] = Comparison(
                    pair=members[row].pair,
                    original=attention[row],
                    counterfactual=attention[len(batch) + row],
                    alignment=members[row].alignments[0],
                    metrics=metrics.isel(pair=row),
                    cue_positions=members[row].cue,
                )
        in_order = Listed(results[index] for index in range(len(chosen)))
        return in_order[0] if isinstance(pairs, StatementPair) else in_order

    @checked
    def html(
        self, pairs: StatementPair | Sequence[StatementPair], path: str | Path, *, max_bytes: int | None = None
    ) -> Path:
        """Write an interactive page of one or several pairs, and return its path.

        Value zeroing is computed only for pairs that fit in about a minute, in the order given.

        Args:
            pairs: One pair, or several.
            path: The file to write.
            max_bytes: Maximum size of the maps before compression, which about halves it; 40 MB by default
                (`views.page.packing.PAGE_BYTES`). Pairs that do not fit are not run; the page lists them.

        Raises:
            ViewError: for an empty list, if no pair fits, if a pair cannot be shown, or if the file cannot be written.
            StatementError, InputError: as `compare`.
        """
        chosen = [pairs] if isinstance(pairs, StatementPair) else list(pairs)
        limit = {} if max_bytes is None else {"max_bytes": max_bytes}
        return view("write_pairs_page")(self, chosen, path, **limit)[0]

    @checked
    def lengths(self, pairs: Sequence[StatementPair]) -> list[tuple[int, int]]:
        """The numbers of tokens of the original and the counterfactual of each pair.

        Raises:
            StatementError: for a pair with an empty statement.
            InputError: for a statement that is longer than the model's context.
        """
        sides = [[getattr(pair, side) for pair in pairs] for side in ("original", "counterfactual")]
        original, counterfactual = (map(len, self._tokenized(side)) for side in sides)
        return list(zip(original, counterfactual, strict=True))

    @checked
    def metrics(
        self,
        pairs: Sequence[StatementPair | PreparedPair],
        progress: Progress = lambda step, done, total: None,
    ) -> xr.Dataset:
        """All metrics of many pairs; each statement is run once, and its activations are discarded.

        The original is compared with the counterfactual and, for pairs with a valid control, with the control. Both
        comparisons use the same tokens: those of the original that are aligned with both other statements.

        Args:
            pairs: The pairs.
            progress: Called after each batch of pairs.

        Returns:
            Float32, NaN where undefined:

            - `METRICS` `[pair compared layer head]`, see `pair_metrics.side_metrics`; `compared` is "counterfactual" or
              "control";
            - `BY_ROLE` `[pair compared role layer head]`, NaN for a role that no token has;
            - `attention_distance` and `norm_distance` `[pair layer head]`, of the original, in tokens (see
              `metrics.attention_distance`);
            - `uniform_distance` `[pair]`, the attention distance of uniform attention, in tokens.

            Coordinates along `pair` are `cue` (the kind of cue), `category`, `source`, `cluster` and `missing`, which
            says why metrics are NaN (for example, no cue or no control). A correlation is also NaN where a pattern or
            an output is constant over the aligned tokens. The attribute `rounding` bounds the effect of rounding on a
            metric.

        Raises:
            InputError: for an empty list, or a statement that is longer than the model's context.
            StatementError: for a pair with a span that contains no token.
        """
        pairs = list(pairs)
        if not pairs:
            raise InputError("There are no pairs; give at least one.")
        results = self._empty_metrics(len(pairs), np.float32)
        descriptions: list[_Description] = []
        unknown: list[TokenizedStatement] = []
        for start in range(0, len(pairs), _WINDOW):
            window = self._prepared(pairs[start : start + _WINDOW])
            unknown += (side for side in _sides(window) if unknown_words(side, self.model.tokenizer))
            done = start
            for batch in self._side_batches(window):
                members = [window[index] for index in batch]
                fill(results, [start + index for index in batch], self._side_metrics(members))
                done += len(batch)
                progress("measuring every head", done, len(pairs))
            descriptions += map(_description, window)
        warn_of_unknown_words(unknown, self.model.tokenizer)
        return _described(results, descriptions)

    @torch.no_grad()
    @checked
    def cue_shares(
        self,
        pairs: Sequence[StatementPair | PreparedPair],
        progress: Progress = lambda step, done, total: None,
    ) -> xr.DataArray:
        """The cue's share of the information flowing into the other words, over all heads of a layer.

        For each measure of `CONTRIBUTIONS` (see `contribution_maps.contributions`), rows are scaled to sum to 1, the
        columns of the cue are summed, and the mean is taken over words. In the control, the neutral words that replace
        the cue count as the cue.

        Args:
            pairs: The pairs.
            progress: Called after each batch of pairs.

        Returns:
            `[pair compared measure layer]`, from 0 to 1, in float32; NaN for a pair without a cue, in the control for a
            pair without one, and for a measure that is not defined for the model.

        Raises:
            InputError: for a statement that is longer than the model's context.
            StatementError: for a pair with a span that contains no token.
        """
        cfg = self.model.cfg
        tokenized = self._prepared(pairs)
        warn_of_unknown_words(_sides(tokenized), self.model.tokenizer)
        shares = np.full((len(tokenized), len(COMPARED), len(CONTRIBUTIONS), cfg.n_layers), np.nan, dtype=np.float32)
        done = 0
        for batch in self._side_batches(tokenized):
            members = [tokenized[index] for index in batch]
            compared = range(1, len(members[0].sides))
            padded = self._padded([pair.sides[side] for side in compared for pair in members])
            in_frame = frame(members, self.model.device, torch.promote_types(self.model.dtype, torch.float32))
            width = padded.tokens.shape[1]
            cue = rearrange(in_frame.cue[:, :width], "batch key -> batch 1 key 1")
            words = rearrange(in_frame.mean_own[:, :width, -1], "batch query -> batch 1 1 query")
            for number, measure in enumerate(CONTRIBUTIONS):
                if not is_defined(self.model, measure):
                    continue
                maps = contributions(self.model, padded.tokens, padded.mask, measure, token_type_ids=padded.types)
                rows = rearrange(normalized_rows(maps), "(side batch) ... -> side batch ...", side=len(compared))
                cue_share = words @ (rows.to(cue.dtype) @ cue)
                values = rearrange(cue_share, "side batch layer 1 1 -> batch side layer")
                shares[batch, : len(compared), number] = values.cpu().numpy()
            done += len(batch)
            progress("measuring what the cue contributes", done, len(pairs))
        coords = {"compared": list(COMPARED), "measure": list(CONTRIBUTIONS), "layer": np.arange(cfg.n_layers)}
        return xr.DataArray(
            shares, dims=("pair", "compared", "measure", "layer"), coords=coords, attrs={"rounding": self._rounding}
        ).assign_coords(pair=np.arange(len(tokenized)))

    @torch.no_grad()
    @checked
    def readings(self, pairs: Sequence[StatementPair | PreparedPair]) -> xr.Dataset:
        """The share of each head's attention that goes from tokens of one role to tokens of another.

        Roles are assigned in the counterfactual. A token of the original has the role of the counterfactual's token it
        is aligned with, and a token of the control that of the token at its position, so that the neutral words count
        as the cue. The attention to all tokens of role `key` is averaged over the tokens of role `query` in a
        statement, then over the pairs that have both roles there.

        Args:
            pairs: The pairs.

        Returns:
            Float64, NaN where no pair has both roles:

            - `share` `[measure side layer head query key]`, 0 to 1; `measure` is "raw" or "norm", the norm-weighted
              map (see `measures.norm_weighted`) with its rows scaled to sum to 1; `side` is "original",
              "counterfactual" or "control"; `query` and `key` are `ROLES`;
            - `even` `[side query key]`: the share under uniform attention to all tokens of the statement;
            - `n` `[side query key]`: the number of pairs that have both roles;
            - `change` `[measure base layer head query key]`: the counterfactual's share minus that of the `base`
              ("original" or "control"), over the pairs that have both roles on both sides;
            - `n_changed` `[base query key]`: the number of these pairs.

        Raises:
            InputError: for an empty list, or a statement that is longer than the model's context.
            StatementError: for a pair with a span that contains no token.
        """
        if not pairs:
            raise InputError("There are no pairs; give at least one.")
        sums = no_readings(self.model.cfg.n_layers, self.model.cfg.n_heads)
        tokenized = self._prepared(pairs)
        warn_of_unknown_words(_sides(tokenized), self.model.tokenizer)
        for batch in self._side_batches(tokenized):
            members = [tokenized[index] for index in batch]
            sides = range(len(members[0].sides))
            activations = self._activations([pair.sides[side] for side in sides for pair in members])
            role = role_matrices(members, self.model.device, activations.z[0].dtype)
            layers = []
            for layer, (pattern, v) in enumerate(zip(activations.pattern, activations.v, strict=True)):
                W_O = self.model.blocks[layer].get_parameter("attn.W_O")
                rows = normalized_rows(torch.stack([pattern, norm_weighted(pattern, v, W_O.to(v.dtype))]))
                rows = rearrange(rows, "measure (side batch) ... -> measure side batch ...", side=len(sides))
                layers.append(role_shares(rows, role.expand(len(rows), -1, -1, -1, -1)))
            add_readings(sums, torch.stack(layers, dim=3), role)
        return mean_readings(sums)

    def _empty_metrics(self, n_pairs: int, dtype: DTypeLike) -> xr.Dataset:
        cfg = self.model.cfg
        return empty_dataset(n_pairs, cfg.n_layers, cfg.n_heads, dtype).assign_attrs(rounding=self._rounding)

    def _tokenized(self, texts: Sequence[str]) -> list[TokenizedStatement]:
        statements = tokenize_all(texts, self.model.tokenizer)
        for statement in statements:
            if len(statement) > self.model.cfg.n_ctx:
                raise InputError(
                    f"A statement has {len(statement)} tokens, but the model reads at most {self.model.cfg.n_ctx}: "
                    f"{statement.text[:60]!r}… Shorten it."
                )
        return statements

    def _batches(self, lengths: Sequence[int], n_sides: int = 1) -> Iterator[list[int]]:
        cfg = self.model.cfg
        for batch in length_batches(lengths, self.batch_size):
            longest = max(lengths[index] for index in batch)
            fit = max(1, _PATTERN_BUDGET // (n_sides * cfg.n_layers * cfg.n_heads * longest**2))
            yield from (batch[start : start + fit] for start in range(0, len(batch), fit))

    def _prepared(self, given: Sequence[StatementPair | PreparedPair]) -> list[PreparedPair]:
        """The pairs, those prepared that are not."""
        made = iter(self._tokenized_pairs([pair for pair in given if isinstance(pair, StatementPair)], control=True))
        return [pair if isinstance(pair, PreparedPair) else next(made) for pair in given]

    def _tokenized_pairs(self, pairs: Sequence[StatementPair], *, control: bool) -> list[PreparedPair]:
        tokenizer, cfg = self.model.tokenizer, self.model.cfg
        pairs = readable_by(cfg.head, pairs, cfg.labels)
        # First, because the search for cues and controls would take minutes on a statement that is much too long.
        statements = iter(self._tokenized([text for pair in pairs for text in (pair.original, pair.counterfactual)]))
        completed = [complete(pair, tokenizer) for pair in pairs]
        control_texts = [pair.control if control and pair.control else None for pair in completed]
        controls = iter(self._tokenized([text for text in control_texts if text is not None]))
        return [
            aligned_pair(
                pair, [next(statements), next(statements), *([] if text is None else [next(controls)])], tokenizer
            )
            for pair, text in zip(completed, control_texts, strict=True)
        ]

    def _side_batches(self, pairs: Sequence[PreparedPair]) -> Iterator[list[int]]:
        """Batches of pairs of similar length that have the same number of sides."""
        for n_sides in (2, 3):
            chosen = [index for index, pair in enumerate(pairs) if len(pair.sides) == n_sides]
            for batch in self._batches([len(pairs[index]) for index in chosen], n_sides):
                yield [chosen[index] for index in batch]

    def _side_metrics(self, pairs: Sequence[PreparedPair]) -> list[LayerMetrics]:
        """The metrics of each layer, from one forward pass of all sides."""
        sides = [[pair.sides[side] for pair in pairs] for side in range(len(pairs[0].sides))]
        return self._layer_metrics(self._activations(list(chain(*sides))), pairs)

    @torch.no_grad()
    def _layer_metrics(self, activations: _Activations, pairs: Sequence[PreparedPair]) -> list[LayerMetrics]:
        in_frame = frame(pairs, self.model.device, activations.z[0].dtype)
        metrics = []
        for layer, tensors in enumerate(zip(activations.pattern, activations.v, activations.z, strict=True)):
            pattern, v, z = (
                rearrange(t, "(side batch) ... -> side batch ...", side=len(pairs[0].sides)) for t in tensors
            )
            W_O = self.model.blocks[layer].get_parameter("attn.W_O")
            metrics.append(side_metrics(pattern, v, z, W_O.to(pattern.dtype), in_frame))
        return metrics

    def _padded(self, statements: Sequence[TokenizedStatement]) -> _Padded:
        device = self.model.device
        tokens, mask = pad_tokens([s.ids for s in statements], self.model.cfg.pad_token_id, device)
        return _Padded(
            tokens, mask, pad_token_types([s.token_types for s in statements], [*map(len, statements)], device)
        )

    @torch.no_grad()
    def _activations(self, statements: Sequence[TokenizedStatement]) -> _Activations:
        cfg = self.model.cfg
        padded = self._padded(statements)
        _, cache = self.model.run_with_cache(
            padded.tokens,
            token_type_ids=padded.types,
            one_zero_attention_mask=padded.mask,
            stop_at_layer=cfg.n_layers,
            names_filter=lambda name: name.endswith(("hook_pattern", "attn.hook_v", "attn.hook_z")),
        )
        # Measures and metrics are computed in float32 at least, even if the model runs in half precision.
        dtype = torch.promote_types(self.model.dtype, torch.float32)
        return _Activations(
            *([cache[name, layer].to(dtype) for layer in range(cfg.n_layers)] for name in ("pattern", "v", "z"))
        )

    @torch.no_grad()
    def _unpadded(
        self, statements: Sequence[TokenizedStatement], activations: _Activations
    ) -> list[StatementAttention]:
        pattern, v, z = (torch.stack(t, dim=1) for t in (activations.pattern, activations.v, activations.z))
        W_O = self.model.W_O.to(z.dtype)
        norm = torch.stack([norm_weighted(pattern[:, i], v[:, i], W_O[i]) for i in range(len(W_O))], dim=1)
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

    def _with_zeroing(self, attention: Sequence[StatementAttention]) -> list[StatementAttention]:
        """The attention of one batch of statements with value zeroing added."""
        padded = self._padded([one.statement for one in attention])
        maps = contributions(self.model, padded.tokens, padded.mask, "zeroing", token_type_ids=padded.types)
        return [
            replace(one, zeroing=maps[row, :, :n, :n].cpu().clone())
            for row, one in enumerate(attention)
            for n in [len(one.statement)]
        ]


def _sides(pairs: Sequence[PreparedPair]) -> list[TokenizedStatement]:
    return [side for pair in pairs for side in pair.sides]


def _reasons(*undefined: bool) -> str:
    return "; ".join(reason for reason, holds in zip(_UNDEFINED.values(), undefined, strict=True) if holds)


class _Description(NamedTuple):
    """What `AttentionProbe.metrics` says of a pair beside the metrics of its heads."""

    cue: str
    category: str
    source: str
    cluster: str
    missing: str
    uniform_distance: float


def _description(of: PreparedPair) -> _Description:
    pair = of.pair
    distance = uniform_distance(of.sides[0])
    return _Description(pair.cue or "", pair.category, pair.source, pair.cluster, of.missing, distance)


def _described(metrics: xr.Dataset, descriptions: Sequence[_Description]) -> xr.Dataset:
    """The metrics with the descriptions of their pairs: the distance as a variable, the texts as coordinates."""
    *texts, distances = zip(*descriptions, strict=True)
    metrics["uniform_distance"] = ("pair", np.array(distances, dtype=metrics["attention_distance"].dtype))
    return metrics.assign_coords(
        {name: ("pair", list(values)) for name, values in zip(_Description._fields, texts, strict=False)}
    )
