"""The margin of two documents: results for the runs with one document minus results for the runs with the other."""

import inspect
from collections.abc import Callable, Iterable, Mapping
from functools import wraps
from typing import Any, ParamSpec, TypeVar, cast

import numpy as np
import xarray as xr
from jaxtyping import Int

from negprobe.base.errors import PatchingError, StatementError
from negprobe.base.progress import Progress
from negprobe.models import HookedEncoder
from negprobe.patching.objectives import default_objective, score_margin, single_logit
from negprobe.patching.runs import tokenized
from negprobe.statements import StatementPair, Swap, Swappable
from negprobe.statements.documents import with_foil
from negprobe.statements.tokens import SEPARATOR, TokenizedStatement

P = ParamSpec("P")
R = TypeVar("R")


def with_margins(function: Callable[P, R]) -> Callable[P, R]:
    """A function that patches pairs, extended to `score_margin`; with any other objective it is unchanged.

    All results of patching are linear in the objective, so the margin's are exact: the function is called for the
    target's runs and for the foil's, and the results are subtracted.
    """
    signature = inspect.signature(function)

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        given = signature.bind(*args, **kwargs)
        given.apply_defaults()
        options = dict(given.arguments)
        model, pairs = options["model"], _listed(options["pairs"])
        if (options["objective"] or default_objective(model, _plain(pairs))) is not score_margin:
            return function(*args, **kwargs)
        _check_patches(options.get("patches"))
        check_one_logit(model)
        sides = []
        for number, documents in enumerate((pairs, foil_pairs(pairs))):
            own = options | {"pairs": documents, "objective": single_logit}
            if options.get("reference") is not None:
                own["reference"] = foil_pairs(options["reference"]) if number else list(options["reference"])
            if options.get("progress") is not None:
                own["progress"] = _half(options["progress"], number)
            # Every parameter can be given by name.
            sides.append(cast(Callable[..., Any], function)(**own))
        return cast(R, _margin(model, pairs, *sides))

    return call


def check_one_logit(model: HookedEncoder) -> None:
    """Raise an error unless the model scores a query and a document with a single logit.

    Raises:
        PatchingError: for another head, or several labels.
    """
    n_labels = len(model.cfg.labels)
    if n_labels != 1:
        has = f"{n_labels} labels" if n_labels else "no classification head"
        raise PatchingError(
            f"score_margin needs a model that scores a query and a document with one logit, but "
            f"{model.cfg.model_name!r} has {has}; use {default_objective(model).__name__}."
        )


def foil_pairs(pairs: Iterable[Swappable]) -> list[StatementPair]:
    """The pairs with the foil as their document; a swap with a control stays one.

    Raises:
        PatchingError: for a pair without two documents.
    """
    try:
        return [with_foil(pair) for pair in _plain(pairs)]
    except StatementError as error:
        raise PatchingError(str(error)) from error


def _plain(pairs: Iterable[Swappable]) -> list[StatementPair]:
    return [pair.pair if isinstance(pair, Swap) else pair for pair in pairs]


def _listed(pairs: Swappable | Iterable[Swappable]) -> list[Swappable]:
    return [pairs] if isinstance(pairs, Swappable) else list(pairs)


def _half(progress: Progress, number: int) -> Progress:
    """Progress of the first or the second of two equal halves."""
    return lambda step, done, total: progress(step, number * total + done, 2 * total)


def _check_patches(patches: Any) -> None:
    for one in patches if isinstance(patches, Iterable) else [patches]:
        for member in one if isinstance(one, Iterable) else [one]:
            if getattr(member, "position", None) is not None or getattr(member, "key_position", None) is not None:
                raise PatchingError(
                    "score_margin has no patches at a position, because the two documents have different tokens; "
                    "choose tokens by role, or sweep by position."
                )


def _margin(model: HookedEncoder, pairs: list[Swappable], ours: Any, others: Any) -> Any:
    if isinstance(ours, Mapping) and not isinstance(ours, xr.Dataset):
        return {name: _margin(model, pairs, ours[name], others[name]) for name in ours}
    if "position" in ours.coords:
        others = _at_positions(ours, others, _query_lengths(model, pairs, ours.attrs["direction"]))
    found = ours.assign({name: (one.dims, one.values - others[name].values) for name, one in ours.data_vars.items()})
    return found.assign_attrs({"objective": score_margin.__name__} if "objective" in ours.attrs else {})


def _at_positions(ours: xr.Dataset, others: xr.Dataset, n_query: Int[np.ndarray, " pair"]) -> xr.Dataset:
    """The foil's results at the target's positions: unpatched after the query, whose tokens are the same in both."""
    patched = others["patched"].reindex(position=ours["position"])
    in_query = ours["position"] < xr.DataArray(n_query, dims="pair")
    return others.drop_dims("position").assign(
        patched=patched.where(in_query, others["base"]).transpose(*ours["patched"].dims)
    )


def _query_lengths(model: HookedEncoder, pairs: list[Swappable], direction: str) -> Int[np.ndarray, " pair"]:
    """The number of tokens before the document in the base run of each pair."""
    side = "original" if direction == "noising" else "counterfactual"
    return np.array([_first_of_document(one) for one in tokenized(model, [getattr(pair, side) for pair in pairs])])


def _first_of_document(statement: TokenizedStatement) -> int:
    start = statement.text.index(SEPARATOR) + len(SEPARATOR)
    return next(
        position
        for position, (offset, special) in enumerate(zip(statement.offsets, statement.special, strict=True))
        if not special and offset[0] >= start
    )
