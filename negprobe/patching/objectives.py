"""What a patch is measured by: one number a run, read from the last hidden states.

Each objective is made for one side of a batch of pairs, and then read for any number of patched runs of it. Only what
it needs of the head is computed.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from einops import einsum
from jaxtyping import Float, Int
from torch import Tensor

from negprobe.errors import InputError, PatchingError
from negprobe.models import HookedEncoder
from negprobe.models.heads import pool
from negprobe.patching.runs import PairRuns, Run, last_hidden_states, tokenized_run
from negprobe.statements import StatementPair

Readout = Callable[[Float[Tensor, "run pos d_model"], Int[Tensor, " run"]], Float[Tensor, " run"]]
"""Reads runs: their last hidden states, and the pair each of them belongs to."""

Objective = Callable[[HookedEncoder, PairRuns, Run], Readout]
"""Makes the readout for one side (base or source) of a batch of pairs."""


def default_objective(model: HookedEncoder) -> Objective:
    """The objective of a model's head: logit difference at [MASK], class-logit difference, or embedding contrast."""
    return {
        "masked_lm": logit_difference,
        "classification": class_logit_difference,
        "none": embedding_contrast,
    }[model.cfg.head]


def logit_difference(model: HookedEncoder, runs: PairRuns, side: Run) -> Readout:
    """`logit(target) - logit(foil)` at the mask token of a masked LM.

    Raises:
        PatchingError: without a masked-LM head, for a pair without target or foil, one of them not a single token, or a
            statement that does not have exactly one mask token.
    """
    if model.cfg.head != "masked_lm" or model.tokenizer is None:
        raise PatchingError(f"{model.cfg.model_name!r} has no masked-LM head, so it has no logit at [MASK].")
    target, foil = answer_ids(model, runs.pairs)
    is_mask = side.tokens == model.tokenizer.mask_token_id
    for row, count in enumerate(is_mask.sum(dim=1).tolist()):
        if count != 1:
            raise PatchingError(
                f"A statement has {count} mask tokens; the logit difference is read at exactly one: "
                f"{side.statements[row].text!r}."
            )
    at = is_mask.long().argmax(dim=1)
    # Only two words are compared, so only their difference of unembedding vectors is needed.
    direction = model.W_U[:, target].T - model.W_U[:, foil].T
    bias = model.b_U[target] - model.b_U[foil]

    def read(resid: Float[Tensor, "run pos d_model"], pair: Int[Tensor, " run"]) -> Float[Tensor, " run"]:
        masked = resid[torch.arange(len(resid), device=resid.device), at[pair]]
        return einsum(model.mlm_head(masked), direction[pair], "run d, run d -> run") + bias[pair]

    return read


def class_logit_difference(model: HookedEncoder, runs: PairRuns, side: Run) -> Readout:
    """`logit(target) - logit(foil)` of a classifier, target and foil being label names.

    Raises:
        PatchingError: without a classification head, or for a pair whose target or foil is not a label.
    """
    if model.cfg.head != "classification":
        raise PatchingError(f"{model.cfg.model_name!r} is not a classifier, so it has no class logits.")
    labels = list(model.cfg.labels)
    for pair in runs.pairs:
        for name, label in (("target", pair.target), ("foil", pair.foil)):
            if label not in labels:
                raise PatchingError(
                    f"The {name} of {pair.original!r} is {label!r}, which is not a label of this model; its labels are "
                    f"{', '.join(labels)}."
                )
    target = torch.tensor([labels.index(str(pair.target)) for pair in runs.pairs], device=model.device)
    foil = torch.tensor([labels.index(str(pair.foil)) for pair in runs.pairs], device=model.device)

    def read(resid: Float[Tensor, "run pos d_model"], pair: Int[Tensor, " run"]) -> Float[Tensor, " run"]:
        logits = model.classifier(resid)
        row = torch.arange(len(resid), device=resid.device)
        return logits[row, target[pair]] - logits[row, foil[pair]]

    return read


def embedding_contrast(model: HookedEncoder, runs: PairRuns, side: Run) -> Readout:
    """How much nearer a pooled embedding is to the original's than to the counterfactual's.

    `cos(e, e_original) - cos(e, e_counterfactual)`: positive on the original's side, negative on the counterfactual's,
    from -2 to 2; `e_original` and `e_counterfactual` are the unpatched runs' embeddings.

    Raises:
        PatchingError: for a model with a head.
    """
    if model.cfg.head != "none":
        raise PatchingError(f"{model.cfg.model_name!r} has a head; the embedding contrast is for models without.")
    # Tokenized as the runs are, so that a [MASK] is the model's own mask token here too.
    originals, counterfactuals = (
        pool(last_hidden_states(model, run), run.mask, model.cfg.pooling, normalize=False)
        for run in (
            tokenized_run(model, [pair.original for pair in runs.pairs]),
            tokenized_run(model, [pair.counterfactual for pair in runs.pairs]),
        )
    )

    def read(resid: Float[Tensor, "run pos d_model"], pair: Int[Tensor, " run"]) -> Float[Tensor, " run"]:
        embedding = pool(resid, side.mask[pair], model.cfg.pooling, normalize=False)
        to_original = F.cosine_similarity(embedding, originals[pair], dim=-1)
        return to_original - F.cosine_similarity(embedding, counterfactuals[pair], dim=-1)

    return read


def answer_id(model: HookedEncoder, word: str) -> int:
    """Token id of a word inside a sentence, which byte-level tokenizers write with the space before it.

    Raises:
        PatchingError: if the word is not a single token of the vocabulary.
    """
    try:
        return model.to_single_token(f" {word.strip()}")
    except InputError as error:
        raise PatchingError(f"No logit at [MASK] stands for {word!r} alone: {error}") from error


def answer_ids(
    model: HookedEncoder, pairs: tuple[StatementPair, ...]
) -> tuple[Int[Tensor, " pair"], Int[Tensor, " pair"]]:
    """Token ids of the targets and of the foils.

    Raises:
        PatchingError: for a pair without target or foil, or with one that is not a single token of the vocabulary.
    """
    ids = []
    for pair in pairs:
        if not pair.target or not pair.foil:
            raise PatchingError(
                f"{pair.original!r} has no {'foil' if pair.target else 'target'}; a logit difference needs both words."
            )
        ids.append((answer_id(model, pair.target), answer_id(model, pair.foil)))
    targets, foils = zip(*ids, strict=True)
    return torch.tensor(targets, device=model.device), torch.tensor(foils, device=model.device)
