"""Objectives: the scalar that a patch moves, computed for each run from the last hidden states.

An objective makes a `Readout` for one side of a batch of pairs, which is then applied to any number of patched runs of
that side. Only the positions and the part of the head that the objective needs are computed.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from einops import einsum
from jaxtyping import Float, Int
from torch import Tensor

from negprobe.base.arguments import checked
from negprobe.base.errors import PatchingError
from negprobe.base.texts import quoted
from negprobe.models import HookedEncoder
from negprobe.models.hooked import is_hooked
from negprobe.models.labels import label_index, label_log_likelihoods, label_probabilities
from negprobe.patching.runs import PairRuns, Run, last_hidden_states, tokenized_run
from negprobe.statements import StatementPair, TokenizedStatement
from negprobe.statements.documents import ranks_documents
from negprobe.statements.gap_tokens import gap_token


@dataclass(frozen=True)
class Readout:
    """Computes the objective of each run.

    Attributes:
        positions: The positions whose last hidden states are needed, the same number for each pair; None for all.
        evaluate: Computes the objective from the states at these positions and the index of each run's pair.
    """

    positions: Int[Tensor, "pair needed"] | None
    evaluate: Callable[[Float[Tensor, "run needed d_model"], Int[Tensor, " run"]], Float[Tensor, " run"]]

    def __call__(self, resid: Float[Tensor, "run pos d_model"], pair: Int[Tensor, " run"]) -> Float[Tensor, " run"]:
        """The objective of each run, from its last hidden states at all positions."""
        return self.evaluate(_states_at(resid, self.positions, pair), pair)


def _states_at(
    resid: Float[Tensor, "run pos d_model"], positions: Int[Tensor, "pair needed"] | None, pair: Int[Tensor, " run"]
) -> Float[Tensor, "run needed d_model"]:
    return resid if positions is None else torch.take_along_dim(resid, positions[pair][..., None], dim=1)


Objective = Callable[[HookedEncoder, PairRuns, Run], Readout]
"""Makes the readout for one side (base or source) of a batch of pairs."""


def readout_for(objective: Objective, model: HookedEncoder, runs: PairRuns, side: Run) -> Readout:
    """The readout that an objective makes for one side.

    Raises:
        PatchingError: if `objective` is not an objective, or if the objective itself raises it.
    """
    try:
        made = objective(model, runs, side)
    except TypeError as error:
        raise PatchingError(
            f"{quoted(objective)} is not an objective ({quoted(str(error))}); to use a function of the model's output, "
            "wrap it with objective_from."
        ) from error
    if not isinstance(made, Readout):
        raise PatchingError(
            f"{quoted(objective)} returned {type(made).__name__}, not a Readout; to use a function of the model's "
            "output, wrap it with objective_from."
        )
    return made


@checked
def default_objective(model: HookedEncoder, pairs: Sequence[StatementPair] = ()) -> Objective:
    """The objective for a model's head: logit difference at [MASK], class-logit difference or embedding contrast.

    For a classifier with a single logit (a regressor, a cross-encoder), it is that logit or, if there are `pairs` and
    each of them has two documents (see `statements.document_pair`), the margin of these.
    """
    if len(model.cfg.labels) == 1:
        return score_margin if pairs and all(map(ranks_documents, pairs)) else single_logit
    return {
        "masked_lm": logit_difference,
        "classification": class_logit_difference,
        "none": embedding_contrast,
    }[model.cfg.head]


@checked
def logit_difference(model: HookedEncoder, runs: PairRuns, side: Run) -> Readout:
    """`logit(target) - logit(foil)` at the mask token of a masked LM.

    Raises:
        PatchingError: for a model without a masked-LM head, for a pair without target or foil, for a target or foil
            that is not a single token in the place of [MASK], and for a statement without exactly one mask token.
    """
    at = _mask_positions(model, side)
    target, foil = _word_ids(model, runs, side, "target"), _word_ids(model, runs, side, "foil")
    if is_hooked(model.ln_final, model.mlm_head, model.unembed):
        return _answer_difference(model, side, target, foil)
    # Only two words are compared, so the difference of their unembedding vectors suffices.
    direction = model.W_U[:, target].T - model.W_U[:, foil].T
    bias = model.b_U[target] - model.b_U[foil]

    def evaluate(masked: Float[Tensor, "run 1 d_model"], pair: Int[Tensor, " run"]) -> Float[Tensor, " run"]:
        return einsum(model.mlm_head(model.ln_final(masked[:, 0])), direction[pair], "run d, run d -> run") + bias[pair]

    return Readout(at, evaluate)


@checked
def class_logit_difference(model: HookedEncoder, runs: PairRuns, side: Run) -> Readout:
    """`logit(target) - logit(foil)` of a classifier, where target and foil are label names, in upper or lower case.

    Raises:
        PatchingError: for a model without a classification head or with a single label, and for a pair whose target or
            foil is not a label.
    """
    if model.cfg.head != "classification":
        raise PatchingError(f"{model.cfg.model_name!r} is not a classifier, so it has no class logits.")
    if len(model.cfg.labels) == 1:
        raise PatchingError(
            f"{model.cfg.model_name!r} has a single logit, so it has no logit difference; use single_logit."
        )
    return _answer_difference(model, side, _label_ids(model, runs, "target"), _label_ids(model, runs, "foil"))


@checked
def single_logit(model: HookedEncoder, runs: PairRuns, side: Run) -> Readout:
    """The logit of a classifier with one logit: a regressor's value, or a cross-encoder's score before any sigmoid.

    The pairs need neither target nor foil.

    Raises:
        PatchingError: for a model with another head, or with several labels.
    """
    n_labels = len(model.cfg.labels)
    if n_labels != 1:
        has = f"{n_labels} labels; use class_logit_difference" if n_labels else "no classification head"
        raise PatchingError(f"single_logit needs a classifier with one logit, but {model.cfg.model_name!r} has {has}.")

    positions, logits = _answer_logits(model, side)
    return Readout(positions, lambda states, pair: logits(states, pair)[:, 0])


@checked
def score_margin(model: HookedEncoder, runs: PairRuns, side: Run) -> Readout:
    """`score(query, target) - score(query, foil)`: by how much a cross-encoder ranks one document above another.

    A score is the model's single logit, before any sigmoid, for "query [SEP] document". The pair's statements are
    "query [SEP] target" (see `statements.document_pair`), and the foil is the other document. Both documents are read
    by the same, possibly patched, model: a patch is made in the run with the target, and in the same way in the run
    with the foil, whose new activations come from the source query's run with the foil,

        margin(patch) = single_logit(patch in the target's run) - single_logit(patch in the foil's run).

    The base and the source have the margins of the two queries, and an effect of 1 means that a patch gives the source
    query's margin. A token of the query is patched in both runs. Roles are patched in both, each with its own tokens.
    In a sweep by position, a token after the query is patched in the target's run alone.

    The functions of this package compute it from two calls with `single_logit`, because it needs two runs of each
    statement; it cannot be evaluated on the states of one run.

    Raises:
        PatchingError: for a model with another head or several labels, for a pair without two documents, for patches at
            a position, and if it is called for one run.
    """
    raise PatchingError(
        "score_margin needs the runs of two documents, so it is not a function of one run. Give it as the objective of "
        "a function of negprobe.patching; for one document, use single_logit."
    )


@checked
def target_probability(model: HookedEncoder, runs: PairRuns, side: Run) -> Readout:
    """The probability of the target: a label of a classifier, or a word at [MASK] of a masked LM.

    As in Hugging Face's pipelines, a classifier's probabilities are a softmax over its labels, or a sigmoid for each
    label if the labels do not exclude each other (`problem_type` "multi_label_classification") or there is only one.

    Raises:
        PatchingError: for a model without a head, a regression model, a pair whose target is missing, not a label or
            not a single token, and a statement without exactly one mask token.
    """
    positions, logits = _answer_logits(model, side)
    _check_probabilities(model, "target_probability")
    is_classifier = model.cfg.head == "classification"
    ids = _label_ids(model, runs, "target") if is_classifier else _word_ids(model, runs, side, "target")

    def evaluate(states: Float[Tensor, "run needed d_model"], pair: Int[Tensor, " run"]) -> Float[Tensor, " run"]:
        answers = logits(states, pair)
        probabilities = label_probabilities(answers, model.cfg) if is_classifier else answers.softmax(dim=-1)
        return probabilities[torch.arange(len(states), device=states.device), ids[pair]]

    return Readout(positions, evaluate)


@checked
def kl_divergence(model: HookedEncoder, runs: PairRuns, side: Run) -> Readout:
    """`KL(unpatched base || run)` of the answer's distribution, in nats, at least 0.

    The distribution is over the vocabulary at [MASK] for a masked LM, or over the labels for a classifier. If the
    labels do not exclude each other, the divergences of the labels' binary distributions are summed. The objective is 0
    for the base, so a normalised effect is a run's divergence divided by the source's.

    Raises:
        PatchingError: for a model without a head, a regression model, or a statement without exactly one mask token.
    """
    positions, logits = _answer_logits(model, side)
    _check_probabilities(model, "kl_divergence")
    is_classifier = model.cfg.head == "classification"

    def outcomes(answers: Float[Tensor, "run answer"]) -> Float[Tensor, "run outcome"]:
        return label_log_likelihoods(answers, model.cfg) if is_classifier else answers.log_softmax(dim=-1)

    all_pairs = torch.arange(len(runs.pairs), device=model.device)
    base_positions, base_logits = _answer_logits(model, runs.base)
    base_states = _states_at(last_hidden_states(model, runs.base), base_positions, all_pairs)
    clean = outcomes(base_logits(base_states, all_pairs))

    def evaluate(states: Float[Tensor, "run needed d_model"], pair: Int[Tensor, " run"]) -> Float[Tensor, " run"]:
        found = outcomes(logits(states, pair))
        return F.kl_div(found, clean[pair], reduction="none", log_target=True).sum(dim=-1)

    return Readout(positions, evaluate)


FLAT_AT_THE_BASE = (
    "kl_divergence has its minimum at the base run, so its gradient there is 0 and cannot estimate effects."
)


@checked
def embedding_contrast(model: HookedEncoder, runs: PairRuns, side: Run) -> Readout:
    """How much more similar a pooled embedding is to the original's than to the counterfactual's.

    `cos(e, e_original) - cos(e, e_counterfactual)`, from -2 to 2: positive if the embedding is closer to the original's
    and negative if it is closer to the counterfactual's. `e_original` and `e_counterfactual` are the embeddings of the
    unpatched runs.

    Raises:
        PatchingError: for a model with a head.
    """
    # Tokenized in the same way as the runs, so that a [MASK] becomes the model's own mask token.
    originals, counterfactuals = (
        _embeddings(model, [getattr(pair, name) for pair in runs.pairs]) for name in ("original", "counterfactual")
    )

    def contrast(embedding: Float[Tensor, "run d_embedding"], pair: Int[Tensor, " run"]) -> Float[Tensor, " run"]:
        to_original = F.cosine_similarity(embedding, originals[pair], dim=-1)
        return to_original - F.cosine_similarity(embedding, counterfactuals[pair], dim=-1)

    return _embedding_readout(model, side, contrast)


OBJECTIVES: dict[str, Objective] = {
    objective.__name__: objective
    for objective in (
        logit_difference,
        class_logit_difference,
        single_logit,
        score_margin,
        target_probability,
        kl_divergence,
        embedding_contrast,
    )
}
"""The objectives that take no arguments, by name."""


COSINE = "cosine:"
"""The prefix of the name of a `cosine_to` objective; the reference sentence follows."""


@checked
def objective_named(model: HookedEncoder, name: str | None, pairs: Sequence[StatementPair] = ()) -> Objective:
    """The objective with this name: one of `OBJECTIVES`, or "cosine:SENTENCE" for `cosine_to`; None for the default.

    The default can depend on the pairs (see `default_objective`).

    Raises:
        PatchingError: for an unknown name, and for an objective that the model's head does not support.
    """
    if name is None:
        return default_objective(model, pairs)
    sentence = name.removeprefix(COSINE).strip() if name.startswith(COSINE) else ""
    if not sentence and name not in OBJECTIVES:
        raise PatchingError(
            f"There is no objective {quoted(name)}; choose one of {', '.join(OBJECTIVES)} or {COSINE}SENTENCE."
        )
    possible = [default_objective(model).__name__]
    if len(model.cfg.labels) == 1:
        possible.append(score_margin.__name__)
    if model.cfg.head == "none":
        possible.append(f"{COSINE}SENTENCE")
    elif model.cfg.problem_type != "regression":
        possible += [target_probability.__name__, kl_divergence.__name__]
    if (f"{COSINE}SENTENCE" if sentence else name) not in possible:
        raise PatchingError(
            f"{model.cfg.model_name!r} has no objective {quoted(name)}; with its head, choose {' or '.join(possible)}."
        )
    return cosine_to(sentence) if sentence else OBJECTIVES[name]


@checked
def cosine_to(reference: str) -> Objective:
    """An objective: the cosine similarity of a pooled embedding to that of a reference sentence.

    It is for models without a head.

    Raises:
        PatchingError: if the objective is used with a model that has a head.
    """

    def cosine(model: HookedEncoder, runs: PairRuns, side: Run) -> Readout:
        embedding = _embeddings(model, [reference])
        return _embedding_readout(model, side, lambda states, pair: F.cosine_similarity(states, embedding, dim=-1))

    cosine.__name__ = f"cosine to {reference!r}"
    return cosine


@checked
def objective_from(
    function: Callable[[Float[Tensor, "run *output"], Sequence[StatementPair]], Float[Tensor, " run"]],
) -> Objective:
    """An objective made from a function of the model's output and the pair of each run.

    The output is what the model returns: logits `[run pos d_vocab]` of a masked LM (not meaningful at padding), logits
    `[run label]` of a classifier, or embeddings `[run d_embedding]` of a model without a head. It is slower than the
    built-in objectives, because the last block and the head are computed at all positions.

    Raises:
        PatchingError: if the objective is used and the function does not return one number per run, or returns NaN.
    """

    def custom(model: HookedEncoder, runs: PairRuns, side: Run) -> Readout:
        def evaluate(resid: Float[Tensor, "run pos d_model"], pair: Int[Tensor, " run"]) -> Float[Tensor, " run"]:
            pairs = [runs.pairs[index] for index in pair.tolist()]
            values = function(model.head_output(resid, side.mask[pair]), pairs)
            if not isinstance(values, Tensor) or values.shape != (len(resid),):
                found = f"a tensor {list(values.shape)}" if isinstance(values, Tensor) else type(values).__name__
                raise PatchingError(
                    f"{custom.__name__} returned {found} for {len(resid)} runs; an objective must return one number "
                    "per run."
                )
            if bool(values.isnan().any()):
                first = pairs[int(values.isnan().nonzero()[0])]
                raise PatchingError(
                    f"{custom.__name__} returned NaN for a run of {quoted(first.original)}; an objective must return a "
                    "number for every run, because NaN marks parts that a pair does not have."
                )
            # A function may return booleans, such as whether an answer is correct.
            return values.to(resid.dtype)

        return Readout(None, evaluate)

    custom.__name__ = getattr(function, "__name__", "own objective")
    return custom


def answer_id(model: HookedEncoder, statement: TokenizedStatement, word: str) -> int:
    """The token id of a word that replaces a statement's only mask token (see `gap_tokens.gap_token`).

    Raises:
        PatchingError: if the word is not a single token in that place.
    """
    assert model.tokenizer is not None
    token = gap_token(statement, word, model.tokenizer)
    if token is None:
        raise PatchingError(
            f"{quoted(word)} is not one token of the model's vocabulary in the place of [MASK] in "
            f"{quoted(statement.text)}; choose a word that is a single token there."
        )
    return token


def _mask_positions(model: HookedEncoder, side: Run) -> Int[Tensor, "pair 1"]:
    if model.cfg.head != "masked_lm" or model.tokenizer is None:
        raise PatchingError(f"{model.cfg.model_name!r} has no masked-LM head, so it has no logit at [MASK].")
    is_mask = side.tokens == model.tokenizer.mask_token_id
    for row, count in enumerate(is_mask.sum(dim=1).tolist()):
        if count != 1:
            raise PatchingError(
                f"A statement has {count} mask tokens, but this objective needs exactly one: "
                f"{quoted(side.statements[row].text)}."
            )
    return is_mask.long().argmax(dim=1, keepdim=True)


def _first_positions(side: Run) -> Int[Tensor, "pair 1"]:
    return torch.zeros_like(side.tokens[:, :1])


def _answer_logits(
    model: HookedEncoder, side: Run
) -> tuple[
    Int[Tensor, "pair 1"] | None,
    Callable[[Float[Tensor, "run needed d_model"], Int[Tensor, " run"]], Float[Tensor, "run answer"]],
]:
    """The positions that a model's answer is computed from (None for all), and the function from states to logits.

    If the head has hooks, it gets the states of all positions, as in the model's own forward pass.
    """
    if model.cfg.head == "classification":
        reads_first = model.cfg.classifier_pooling == "cls" and not is_hooked(model.ln_final, model.classifier)
        # If the states have one position, the mask is cut to it.
        return _first_positions(side) if reads_first else None, lambda states, pair: model.head_output(
            states, side.mask[pair][:, : states.shape[1]]
        )
    at = _mask_positions(model, side)
    if is_hooked(model.ln_final, model.mlm_head, model.unembed):
        return None, lambda states, pair: model.vocabulary_logits(states)[
            torch.arange(len(states), device=states.device), at[pair, 0]
        ]
    return at, lambda states, pair: model.vocabulary_logits(states[:, 0])


def _answer_difference(
    model: HookedEncoder, side: Run, target: Int[Tensor, " pair"], foil: Int[Tensor, " pair"]
) -> Readout:
    """The readout of `logit(target) - logit(foil)`, from all logits of an answer."""
    positions, logits = _answer_logits(model, side)

    def evaluate(states: Float[Tensor, "run needed d_model"], pair: Int[Tensor, " run"]) -> Float[Tensor, " run"]:
        answers = logits(states, pair)
        row = torch.arange(len(states), device=states.device)
        return answers[row, target[pair]] - answers[row, foil[pair]]

    return Readout(positions, evaluate)


def _check_probabilities(model: HookedEncoder, objective: str) -> None:
    if model.cfg.problem_type == "regression":
        use = default_objective(model).__name__
        raise PatchingError(
            f"{model.cfg.model_name!r} is a regression model, so it has no probabilities for {objective}; use {use}."
        )


def _label_ids(model: HookedEncoder, runs: PairRuns, name: str) -> Int[Tensor, " pair"]:
    ids = []
    for pair in runs.pairs:
        label = getattr(pair, name)
        found = None if label is None else label_index(model.cfg.labels, label)
        if found is None:
            raise PatchingError(
                f"The {name} of {quoted(pair.original)} is {quoted(label)}, which is not a label of this model; "
                f"its labels are {', '.join(model.cfg.labels)}."
            )
        ids.append(found)
    return torch.tensor(ids, device=model.device)


def _word_ids(model: HookedEncoder, runs: PairRuns, side: Run, name: str) -> Int[Tensor, " pair"]:
    ids = []
    for swap, statement in zip(runs.swaps, side.statements, strict=True):
        pair = swap.pair
        word = getattr(pair, name)
        if not word:
            raise PatchingError(f"The pair {quoted(pair.original)} has no {name}, which this objective needs; set it.")
        known = swap.gap_tokens.get((statement.text, word))
        ids.append(answer_id(model, statement, word) if known is None else known)
    return torch.tensor(ids, device=model.device)


def _embeddings(model: HookedEncoder, texts: Sequence[str]) -> Float[Tensor, "text d_embedding"]:
    if model.cfg.head != "none":
        raise PatchingError(
            f"{model.cfg.model_name!r} has a head, but this objective is for models without one; use "
            f"{default_objective(model).__name__}."
        )
    run = tokenized_run(model, texts)
    return model.embedding_head(model.ln_final(last_hidden_states(model, run)), run.mask)


def _embedding_readout(
    model: HookedEncoder,
    side: Run,
    function: Callable[[Float[Tensor, "run d_embedding"], Int[Tensor, " run"]], Float[Tensor, " run"]],
) -> Readout:
    """The readout of a function of the embedding, which may need only one position of each text (see `only_position`).

    If the head has hooks, it gets the states of all positions, as in the model's own forward pass.
    """
    head = model.embedding_head
    position = None if is_hooked(model.ln_final, head) else head.only_position(side.mask)

    def evaluate(states: Float[Tensor, "run needed d_model"], pair: Int[Tensor, " run"]) -> Float[Tensor, " run"]:
        states = model.ln_final(states)
        embedding = head(states, side.mask[pair]) if position is None else head.after_pooling(states[:, 0])
        return function(embedding, pair)

    return Readout(position, evaluate)
