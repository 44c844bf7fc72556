"""The evaluation of a circuit on held-out pairs: faithfulness, completeness, minimality and comparisons."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Float

from negprobe.base.progress import Tick
from negprobe.patching.circuit_search import sizes
from negprobe.patching.component_sets import AblatablePairs, Component, ComponentSet, set_results
from negprobe.patching.effects import averages

_RANDOM_CIRCUITS = 20
_RANDOM_SUBSETS = 10


@dataclass(frozen=True)
class Proof:
    """The statistics of a circuit on held-out pairs, described at `Circuit`."""

    faithfulness: float
    interval: tuple[float, float]
    random_faithfulness: float
    random_best: float
    completeness: pd.DataFrame
    minimality: pd.DataFrame
    curve: pd.DataFrame
    cpr: float
    cmd: float


def prove(
    pairs: AblatablePairs, members: Sequence[Component], ranked: Sequence[Component], seed: int, tick: Tick | None
) -> Proof:
    """The statistics of a circuit on held-out pairs; all sets of components are evaluated in one batch."""
    circuit, everything = frozenset(members), frozenset(ranked)
    curve_sizes = [0, *sizes(len(ranked))]
    prefixes = [frozenset(ranked[:size]) for size in curve_sizes]
    rng = np.random.default_rng(seed)
    random_circuits = [
        frozenset(ranked[i] for i in rng.choice(len(ranked), size=len(members), replace=False))
        for _ in range(_RANDOM_CIRCUITS)
    ]
    subsets = random_subsets(members, rng)
    removals = list(dict.fromkeys([*(frozenset([member]) for member in members), *subsets]))
    minimal = {
        (member, subset): (circuit - subset, circuit - subset - {member})
        for member in members
        for subset in [frozenset[Component](), *subsets]
    }
    evaluated = [circuit, *prefixes, *random_circuits]
    evaluated += [whole - subset for subset in removals for whole in (circuit, everything)]
    evaluated += [members for with_and_without in minimal.values() for members in with_and_without]
    sets = list(dict.fromkeys(evaluated))
    table = averages(set_results(pairs, sets, tick), seed=seed).to_dataframe()
    row_of = {members: row for row, members in enumerate(sets)}
    f = dict(zip(sets, table["effect"].tolist(), strict=True))

    curve = table.loc[[row_of[prefix] for prefix in prefixes], ["effect", "low", "high"]].reset_index(drop=True)
    curve = curve.rename(columns={"effect": "faithfulness"})
    curve.insert(0, "size", curve_sizes)
    curve.insert(1, "share", np.array(curve_sizes) / len(ranked))
    random_values = [f[members] for members in random_circuits]
    low, high = table[["low", "high"]].to_numpy()[row_of[circuit]].tolist()
    return Proof(
        faithfulness=f[circuit],
        interval=(low, high),
        random_faithfulness=float(np.mean(random_values)),
        random_best=max(random_values),
        completeness=_completeness(f, circuit, everything, removals),
        minimality=pd.DataFrame(
            [
                {
                    "component": str(member),
                    "drop": f[circuit] - f[circuit - {member}],
                    "largest_change": max(
                        abs(f[with_it] - f[without])
                        for (removed, _), (with_it, without) in minimal.items()
                        if removed == member
                    ),
                }
                for member in members
            ]
        ),
        curve=curve,
        cpr=area(curve["share"].to_numpy(), curve["faithfulness"].to_numpy()),
        cmd=area(curve["share"].to_numpy(), np.abs(1 - curve["faithfulness"].to_numpy())),
    )


def area(share: Float[np.ndarray, " size"], values: Float[np.ndarray, " size"]) -> float:
    """The area under a curve over the share of components, from 0 to 1, by the trapezoid rule."""
    return float(np.trapezoid(values, share))


def random_subsets(members: Sequence[Component], rng: np.random.Generator) -> list[ComponentSet]:
    """Different random subsets of at least two members of a circuit; each member is included with probability 1/2."""
    tosses = rng.random((_RANDOM_SUBSETS, len(members))) < 0.5
    subsets = (frozenset(member for member, chosen in zip(members, toss, strict=True) if chosen) for toss in tosses)
    return list(dict.fromkeys(subset for subset in subsets if len(subset) > 1))


def _completeness(
    f: dict[ComponentSet, float], circuit: ComponentSet, everything: ComponentSet, removals: Sequence[ComponentSet]
) -> pd.DataFrame:
    rows = [
        {
            "removed": ", ".join(map(str, sorted(subset))),
            "n_removed": len(subset),
            "circuit": f[circuit - subset],
            "model": f[everything - subset],
        }
        for subset in removals
    ]
    table = pd.DataFrame(rows)
    return table.assign(gap=(table["circuit"] - table["model"]).abs())
