"""The pairs of a data set that a model can read, and those that it can be patched on."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from negprobe.base.arguments import checked
from negprobe.base.errors import PatchingError, StatementError
from negprobe.base.reprs import short_repr
from negprobe.models import HookedEncoder
from negprobe.patching.answers import answerable
from negprobe.patching.runs import tokenizer_of
from negprobe.statements import (
    PreparedPair,
    StatementPair,
    Swap,
    control_swap,
    prepare,
    readable_by,
    unknown_words,
)
from negprobe.statements.documents import ranks_documents


@dataclass(frozen=True, repr=False)
class ReadablePairs:
    """The pairs that a model can read.

    Attributes:
        pairs: The prepared pairs by their index in the given sequence, with the cue and, if there is a valid one, the
            control.
        unreadable: Why each of the other pairs cannot be read, by its index.
        invalid_controls: Why a pair's own control is not valid, by the index of the pair. It is replaced by another
            control if one is found.
        unknown_words: The words of the pairs that are not in the tokenizer's vocabulary.
    """

    pairs: dict[int, PreparedPair]
    unreadable: dict[int, str]
    invalid_controls: dict[int, str]
    unknown_words: tuple[str, ...]

    __repr__ = short_repr

    @property
    def left_out(self) -> tuple[str, ...]:
        """What was left out of the given pairs and why, one sentence each."""
        reasons = [(index, f"the control of input pair {index}: {why}") for index, why in self.invalid_controls.items()]
        reasons += [(index, f"input pair {index}: {why}") for index, why in self.unreadable.items()]
        return tuple(reason for _, reason in sorted(reasons, key=lambda reason: reason[0]))


@dataclass(frozen=True, repr=False)
class PatchablePairs:
    """The pairs that a model can be patched on.

    Attributes:
        swaps: The runs that patching swaps, by the pair's index in the given sequence.
        left_out: What was left out of the given pairs and why, one sentence each.
    """

    swaps: dict[int, Swap]
    left_out: tuple[str, ...]

    __repr__ = short_repr

    @checked
    def sample(self, n: int, *, seed: int = 0) -> "PatchablePairs":
        """At most `n` of the pairs, drawn at random, in their order.

        Raises:
            PatchingError: for fewer than one pair, or a seed below 0.
        """
        if n < 1 or seed < 0:
            raise PatchingError(f"A sample needs at least 1 pair and a seed of at least 0, got {n} and {seed}.")
        drawn = sorted(np.random.default_rng(seed).permutation(list(self.swaps))[:n].tolist())
        return replace(self, swaps={index: self.swaps[index] for index in drawn})


@checked
def readable_pairs(model: HookedEncoder, pairs: Sequence[StatementPair]) -> ReadablePairs:
    """The pairs that a model can read, prepared for measuring, and the reasons why the others are left out.

    A pair with the same tokens as an earlier one is left out, because it is not a separate observation, unless a model
    with one logit ranks the document against another one (see `score_margin`).

    Raises:
        StatementError: if the model has no tokenizer, or no pair can be read.
    """
    if model.tokenizer is None:
        raise StatementError("Statements need a tokenizer; load the model from a folder that has one.")
    kept: dict[int, PreparedPair] = {}
    unreadable: dict[int, str] = {}
    invalid_controls: dict[int, str] = {}
    seen: dict[tuple[object, ...], int] = {}
    for index, given in enumerate(pairs):
        try:
            (pair,) = readable_by(model.cfg.head, [given], model.cfg.labels)
            prepared, problem = prepare(pair, model.tokenizer, n_ctx=model.cfg.n_ctx)
        except StatementError as error:
            unreadable[index] = str(error)
            continue
        if problem:
            invalid_controls[index] = problem
        # Pairs that differ only in target and foil are the same observation, but each other document has its margin.
        other = pair.foil if len(model.cfg.labels) == 1 and ranks_documents(pair) else None
        first = seen.setdefault((*(side.ids for side in prepared.sides), other), index)
        if first == index:
            kept[index] = prepared
        else:
            unreadable[index] = f"it has the same tokens as input pair {first}"
    unknown = {
        word for member in kept.values() for side in member.sides for word in unknown_words(side, model.tokenizer)
    }
    found = ReadablePairs(kept, unreadable, invalid_controls, tuple(sorted(unknown)))
    if not kept:
        reason = f" The first reason: {found.left_out[0]}." if found.left_out else ""
        raise StatementError(f"None of the {len(pairs)} pairs can be measured.{reason}")
    return found


@checked
def patchable_pairs(
    model: HookedEncoder, pairs: Sequence[StatementPair], *, with_control: bool = True
) -> PatchablePairs:
    """The pairs that a model can be patched on, in the form that `patch_sweep` and `find_circuit` take.

    These are the readable pairs (see `readable_pairs`) that are `answerable`.

    Args:
        model: The model.
        pairs: The pairs.
        with_control: Whether to swap the counterfactual with its control if the pair has a valid one, and otherwise
            with the original; False always swaps with the original.

    Raises:
        StatementError: if the model has no tokenizer, or no pair can be read.
        PatchingError: if no pair is answerable.

    Example:
        >>> from negprobe import HookedEncoder, builtin_pairs, patch_sweep
        >>> from negprobe.patching import patchable_pairs
        >>> model = HookedEncoder.from_pretrained("tiny-negation")
        >>> ready = patchable_pairs(model, builtin_pairs()[:4])
        >>> patch_sweep(model, list(ready.swaps.values()), "z", by="head").sizes["pair"]
        4
    """
    readable = readable_pairs(model, pairs)
    numbers = list(readable.pairs)
    answered = answerable(model, [member.pair for member in readable.pairs.values()])
    unanswerable = [f"input pair {numbers[at]}: {why}" for at, why in answered.unanswerable.items()]
    if not answered.pairs:
        raise PatchingError(
            f"None of the {len(pairs)} pairs has an answer to patch. The first reason: {unanswerable[0]}."
        )
    swaps = {
        numbers[at]: control_swap(pair if with_control else replace(pair, control=None), tokenizer_of(model))
        for at, pair in answered.pairs.items()
    }
    return PatchablePairs(swaps, (*readable.left_out, *unanswerable))
