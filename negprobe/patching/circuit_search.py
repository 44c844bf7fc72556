"""The search for a circuit: components ranked by what each causes, how many of the first are enough, less what they can
spare."""

import math
from bisect import bisect_left
from collections.abc import Callable, Sequence
from functools import partial
from typing import Literal, NamedTuple, get_args

import numpy as np
import xarray as xr
from jaxtyping import Float

from negprobe.base.progress import Tick, portion
from negprobe.patching.attribution import attribute
from negprobe.patching.component_sets import AblatablePairs, Component, ComponentSet, set_objectives, set_results
from negprobe.patching.effects import mean_effect
from negprobe.patching.objectives import Objective
from negprobe.patching.runs import Direction
from negprobe.patching.sweep import By
from negprobe.statements import Swappable

Ranking = Literal["exact", "attribution", "integrated_gradients"]
"""By what each component causes alone: measured by patching it, or estimated from gradients (see `attribute`)."""

RANKINGS: tuple[Ranking, ...] = get_args(Ranking)

Effort = Literal["fast", "thorough"]
"""How many sets of components a search evaluates: see `fast_search` and `thorough_search`."""

EFFORTS: tuple[Effort, ...] = get_args(Effort)

# The evaluations that the fast search may spend, times the number of components.
_FAST_EVALUATIONS = 3

_ONLY_SINGLE_REMOVALS = "removing members together that cannot be removed one by one"

# A component that matters only once others are gone stands low in a ranking of single ones, so pruning starts from more
# than the shortest prefix too.
_START = 2

# The share of the members that one pass of the pruning may drop; one by one where there are fewer than 8.
_DROPPED_AT_ONCE = 1 / 4

_MOST_SIZES = 25


def exact_scores(pairs: AblatablePairs, tick: Tick | None = None) -> dict[Component, float]:
    """The mean effect of ablating each component alone: how far it moves the objective towards the source's.

    With swaps these are the `mean_effect`s of `patch_sweep` of "z" by head, and of "mlp_out" at all tokens.
    """
    everything = frozenset(pairs.components)
    values = set_objectives(pairs, [everything - {component} for component in pairs.components], tick)
    return mean_scores(pairs, values)


def estimated_scores(
    pairs: AblatablePairs,
    statements: Sequence[Swappable],
    *,
    direction: Direction,
    objective: Objective,
    steps: int | None,
    tick: Tick | None = None,
) -> dict[Component, float]:
    """What `exact_scores` would be with swaps, estimated from gradients (see `attribute`), in a handful of passes.

    An MLP at all tokens is the sum of its roles, as estimates of the first order add up.
    """

    def estimate(site: str, by: By, tick: Tick | None) -> xr.Dataset:
        found = attribute(
            pairs.model,
            statements,
            sites=[site],
            by=by,
            direction=direction,
            objective=objective,
            steps=steps,
            progress=None if tick is None else lambda _, done, total: tick(done, total),
        )
        return found[site]

    heads, roles = estimate("z", "head", portion(tick, 0, 1, 2)), estimate("mlp_out", "role", portion(tick, 1, 2, 2))
    moved = {
        "head": (heads["patched"] - heads["base"]).transpose("pair", "layer", "head").values,
        "mlp": (roles["patched"] - roles["base"]).sum("role").transpose("pair", "layer").values,
    }
    columns = [
        moved["mlp"][:, part.layer] if part.head is None else moved["head"][:, part.layer, part.head]
        for part in pairs.components
    ]
    return mean_scores(pairs, pairs.full[:, None] + np.stack(columns, axis=1))


def mean_scores(pairs: AblatablePairs, values: Float[np.ndarray, "pair component"]) -> dict[Component, float]:
    """Mean effects, the largest in size first, of the objectives with each component ablated alone."""
    results = xr.Dataset(
        {"patched": (("pair", "component"), values), "base": ("pair", pairs.full), "source": ("pair", pairs.source)},
        coords={"pair": np.arange(len(values))},
    )
    effects = mean_effect(results).values.tolist()
    return dict(sorted(zip(pairs.components, effects, strict=True), key=lambda scored: -abs(scored[1])))


def faithfulness(pairs: AblatablePairs, sets: Sequence[ComponentSet], tick: Tick | None = None) -> np.ndarray:
    """The mean faithfulness of each set."""
    return mean_effect(set_results(pairs, sets, tick)).values


class Found(NamedTuple):
    """What a search returns: the members in the order of the ranking, and the candidates that it did not evaluate."""

    members: tuple[Component, ...]
    untried: str


def search(
    pairs: AblatablePairs, ranked: Sequence[Component], threshold: float, effort: Effort, tick: Tick | None = None
) -> Found:
    """The members of a small circuit that is faithful enough, and what was not tried to make it smaller."""
    if effort == "thorough":
        return Found(thorough_search(pairs, ranked, threshold, tick), _ONLY_SINGLE_REMOVALS)
    return fast_search(pairs, ranked, threshold, tick)


def fast_search(
    pairs: AblatablePairs, ranked: Sequence[Component], threshold: float, tick: Tick | None = None
) -> Found:
    """A prefix of the ranking that is faithful enough, pruned within three evaluations per component.

    The length of the prefix is bisected. Faithfulness need not grow with the length, so this is a length that reaches
    the threshold, and not always the shortest one. Each pass of the pruning evaluates every member's removal, and
    bisects how many members can be removed together, in the order of what the removals cost. Pruning ends where no
    single member can go, or where another pass could exceed the budget. No set is evaluated twice.
    """
    budget = _FAST_EVALUATIONS * len(ranked)
    known: dict[ComponentSet, float] = {}

    def measured(sets: Sequence[ComponentSet]) -> list[float]:
        new = [members for members in sets if members not in known]
        if new:
            part = portion(tick, len(known), len(known) + len(new), budget)
            known.update(zip(new, faithfulness(pairs, new, part).tolist(), strict=True))
        return [known[members] for members in sets]

    def reaches(members: Sequence[Component]) -> bool:
        return measured([frozenset(members)])[0] >= threshold

    def smallest(n_enough: int, candidate: Callable[[int], Sequence[Component]]) -> Sequence[Component]:
        """A smallest candidate by bisection, where the one of size `n_enough` is known to be faithful enough."""
        return candidate(1 + bisect_left(range(1, n_enough), True, key=lambda size: reaches(candidate(size))))

    kept = smallest(len(ranked), partial(_first, ranked))
    untried = [f"{len(ranked) - 1 - len(known)} of {len(ranked)} prefixes of the ranking", _ONLY_SINGLE_REMOVALS]
    while len(kept) > 1:
        if len(known) + len(kept) + len(kept).bit_length() > budget:
            untried.append(f"what more than {budget} evaluations could remove")
            break
        without = measured([frozenset(kept) - {member} for member in kept])
        if max(without) < threshold:
            break
        # What costs most to remove stays longest.
        dearest = [kept[index] for index in np.argsort(without, kind="stable")]
        remaining = frozenset(smallest(len(kept) - 1, partial(_first, dearest)))
        kept = [member for member in kept if member in remaining]
    if tick is not None:
        tick(1, 1)
    return Found(tuple(kept), "; ".join(untried))


def _first(components: Sequence[Component], n: int) -> Sequence[Component]:
    return components[:n]


def thorough_search(
    pairs: AblatablePairs, ranked: Sequence[Component], threshold: float, tick: Tick | None = None
) -> tuple[Component, ...]:
    """The members of a small circuit that is faithful enough, in the order of the ranking.

    The shortest prefix of the ranking that is faithful enough, and twice as many of the ranking's first, are pruned of
    all that they can spare; of what is left of the two the smaller. Pruning ends where no single member can go, so the
    one can end far above the other.
    """
    enough = shortest_prefix(pairs, ranked, threshold, portion(tick, 0, 1, 3))
    starts = dict.fromkeys([enough, tuple(ranked[: _START * len(enough)])])
    found = [pruned(pairs, start, threshold, portion(tick, i, i + 1, 3)) for i, start in enumerate(starts, 1)]
    if tick is not None:
        tick(1, 1)
    return min(found, key=len)


def sizes(n_components: int) -> list[int]:
    """The sizes that prefixes are tried at: every one up to 25, else about 25 of them, closer where they are small."""
    if n_components <= _MOST_SIZES:
        return list(range(1, n_components + 1))
    return np.unique(np.geomspace(1, n_components, _MOST_SIZES).round().astype(int)).tolist()


def shortest_prefix(
    pairs: AblatablePairs, ranked: Sequence[Component], threshold: float, tick: Tick | None = None
) -> tuple[Component, ...]:
    """The first components of a ranking, as few of the `sizes` as are faithful enough; all of them always are."""
    prefixes = [tuple(ranked[:size]) for size in sizes(len(ranked))]
    enough = faithfulness(pairs, [frozenset(prefix) for prefix in prefixes], tick) >= threshold
    return prefixes[int(enough.argmax())]


def pruned(
    pairs: AblatablePairs, members: Sequence[Component], threshold: float, tick: Tick | None = None
) -> tuple[Component, ...]:
    """What is left of a circuit after every member that it can spare is dropped.

    Each pass measures every member's removal and drops the one that costs the least faithfulness; of 8 members and
    more up to a quarter of them, the cheapest together, as long as these cost no more than half of what is left to
    lose. It ends where no member can go. So 80 members take some 400 runs a pair, and not 80² / 2.
    """
    kept = list(members)
    value = float(faithfulness(pairs, [frozenset(kept)])[0])
    while len(kept) > 1:
        whole = frozenset(kept)
        # A pass drops one member or more.
        part = portion(tick, len(members) - len(kept), len(members) - len(kept) + 1, len(members))
        without = faithfulness(pairs, [whole - {member} for member in kept], part)
        cheapest = [kept[index] for index in np.argsort(-without, kind="stable")]
        if without.max() < threshold:
            break
        left = [whole - set(cheapest[:n]) for n in range(1, max(1, math.floor(len(kept) * _DROPPED_AT_ONCE)) + 1)]
        values = faithfulness(pairs, left)
        # Several at once on the way down to the threshold would leave the later passes nothing to choose from.
        enough = values >= (threshold + min(value, 1.0)) / 2
        n_dropped = 1 + int(np.flatnonzero(enough).max(initial=0))
        value = float(values[n_dropped - 1])
        dropped = set(cheapest[:n_dropped])
        kept = [member for member in kept if member not in dropped]
    return tuple(kept)
