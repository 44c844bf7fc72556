"""The models whose circuit is known (`planted/`, see its README), and pairs they answer.

A circuit search has to put every head of a model's `live` before every one of its `silenced`.
"""

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch

from negprobe import HookedEncoder, StatementPair, builtin_pairs
from negprobe.statements.grammar import CONNECTIVES

FOLDER = Path(__file__).parent / "planted"

Head = tuple[int, int]


@dataclass(frozen=True)
class Planted:
    """Which heads (layer, head) a model's answers run through, and which are silenced, and how.

    `off` heads write nothing; `inaudible` ones write only what the next LayerNorm takes away.
    """

    name: str
    live: frozenset[Head]
    off: frozenset[Head]
    inaudible: frozenset[Head]

    @property
    def silenced(self) -> frozenset[Head]:
        return self.off | self.inaudible


@cache
def planted_models(dtype: torch.dtype = torch.float64) -> tuple[tuple[HookedEncoder, Planted], ...]:
    """Every planted model and the truth about it; the same objects on every call."""
    folders = sorted(file.parent for file in FOLDER.glob("*/planted.json"))
    return tuple(
        (HookedEncoder.from_pretrained(folder, dtype=dtype, device="cpu"), _truth(folder)) for folder in folders
    )


@cache
def planted_pairs(n: int | None = None) -> tuple[StatementPair, ...]:
    """`n` pairs of one clause, all by default, spread evenly over cues, scales and kinds.

    With target, foil and control. They are about combinations of noun and scale that no planted model was trained on.
    Original and counterfactual can differ in length; control and counterfactual never do.
    """
    joined = tuple(f" {word} " for word in CONNECTIVES)
    pairs = [pair for pair in builtin_pairs() if not any(word in pair.original for word in joined)]
    count = len(pairs) if n is None else n
    return tuple(pairs[i * len(pairs) // count] for i in range(count))


def _truth(folder: Path) -> Planted:
    kinds = json.loads((folder / "planted.json").read_text(encoding="utf-8"))
    return Planted(folder.name, **{kind: frozenset(map(tuple, heads)) for kind, heads in kinds.items()})
