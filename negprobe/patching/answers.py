"""Which pairs a model can answer, so that a patch has something to move."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from transformers import PreTrainedTokenizerBase

from negprobe.errors import PatchingError
from negprobe.models import HookedEncoder
from negprobe.patching.objectives import answer_id
from negprobe.statements import StatementPair, tokenize


@dataclass(frozen=True)
class Answerable:
    """The pairs that have an objective.

    Attributes:
        pairs: The pairs by their index in what was asked for, with a classifier's labels filled in.
        unanswerable: For each other index, the reason.
    """

    pairs: dict[int, StatementPair]
    unanswerable: dict[int, str]


def answerable(model: HookedEncoder, pairs: Sequence[StatementPair]) -> Answerable:
    """Sort out the pairs whose objective (see `default_objective`) can be read.

    A masked LM needs target and foil, each one token, and one [MASK] in every statement. A classifier needs two labels:
    those of the pair, or else the ones it gives the original and the counterfactual, if they differ. Without a head
    every pair has its embeddings.

    Raises:
        PatchingError: for a model without a tokenizer.
    """
    if model.tokenizer is None:
        raise PatchingError("Statements need a tokenizer; give one to HookedEncoder.from_pretrained.")
    kept: dict[int, StatementPair] = {}
    reasons: dict[int, str] = {}
    for index, pair in enumerate(pairs):
        if model.cfg.head == "classification" and not {pair.target, pair.foil} <= set(model.cfg.labels):
            target, foil = model([pair.original, pair.counterfactual], return_type="predictions")
            pair = replace(pair, target=target, foil=foil)
        reason = _reason(model, model.tokenizer, pair)
        if reason:
            reasons[index] = reason
        else:
            kept[index] = pair
    return Answerable(kept, reasons)


def _reason(model: HookedEncoder, tokenizer: PreTrainedTokenizerBase, pair: StatementPair) -> str:
    if model.cfg.head == "none":
        return ""
    if model.cfg.head == "classification":
        return f"the model labels both statements {pair.target!r}" if pair.target == pair.foil else ""
    if not pair.target or not pair.foil:
        return "the pair names no target and foil"
    for word in (pair.target, pair.foil):
        try:
            answer_id(model, word)
        except PatchingError:
            return f"{word!r} is not one token of the model's vocabulary"
    for text in (pair.original, pair.counterfactual, pair.control):
        if text is None:
            continue
        masks = tokenize(text, tokenizer).ids.count(tokenizer.mask_token_id)
        if masks != 1:
            return f"a statement has {masks} mask tokens, not one"
    return ""
