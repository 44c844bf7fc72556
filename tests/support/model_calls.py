"""Every public function that runs a model, on pairs that are padded, and the numbers of what it returns."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields, is_dataclass, replace

import numpy as np
import pandas as pd
import xarray as xr
from torch import Tensor

from negprobe import AttentionProbe, HookedEncoder, patch_sweep
from negprobe.attention import contributions
from negprobe.behaviour import builtin_set, evaluate, read_gaps
from negprobe.behaviour.likelihood import pseudo_log_likelihoods
from negprobe.patching import (
    OBJECTIVES,
    Patch,
    answerable,
    attribute,
    attribute_edges,
    find_circuit,
    objective_values,
    patch,
    path_patch,
)
from negprobe.statements import StatementPair, builtin_pairs

_LONG = "It is true that the old door is open and the lamp is bright. So the door is [MASK]."
# Padding beside a text of 16 tokens and more is what PyTorch's fused attention has a kernel of its own for.
PAIRS = [StatementPair(_LONG, _LONG.replace("is true", "is not true"), "open", "closed"), *builtin_pairs()[:8:2]]

_EIGHT = replace(builtin_set(), items=builtin_set().items[:8])

CALLS: dict[str, Callable[[HookedEncoder], object]] = {
    "metrics": lambda model: AttentionProbe(model).metrics(PAIRS),
    "cue_shares": lambda model: AttentionProbe(model).cue_shares(PAIRS),
    "readings": lambda model: AttentionProbe(model).readings(PAIRS),
    "compare": lambda model: AttentionProbe(model).compare(PAIRS, zeroing=True),
    "run": lambda model: AttentionProbe(model).run([pair.original for pair in PAIRS]),
    "contributions": lambda model: contributions(model, model.to_tokens(_LONG)[0], None, "globenc"),
    "likelihoods": lambda model: pseudo_log_likelihoods(model, ["The door is open."]),
    "read_gaps": lambda model: read_gaps(model, [pair.original for pair in PAIRS], [["open"]] * len(PAIRS)),
    "evaluate": lambda model: evaluate([_EIGHT], model).shares,
    "answerable": lambda model: answerable(model, PAIRS).pairs.keys(),
    "objective_values": lambda model: objective_values(model, PAIRS),
    "kl_divergence": lambda model: objective_values(model, PAIRS, OBJECTIVES["kl_divergence"]),
    "patch_sweep": lambda model: patch_sweep(model, PAIRS, "z", by=["head", "role"], direction="denoising"),
    "mean": lambda model: patch_sweep(model, PAIRS, "mlp_out", by="position", how="mean"),
    "pattern": lambda model: patch_sweep(model, PAIRS, "pattern", by="head"),
    "patch": lambda model: patch(model, PAIRS, [Patch("z", 0, 1), Patch("resid_pre", 1, role="cue")], together=True),
    "path_patch": lambda model: path_patch(model, PAIRS, receivers=[(1, 0, "q")]),
    "attribute": lambda model: attribute(model, PAIRS, by="head", steps=2),
    "attribute_edges": lambda model: attribute_edges(model, PAIRS),
    "find_circuit": lambda model: find_circuit(model, builtin_pairs()[::28], ranking="attribution"),
}


def numbers(result: object) -> Iterator[np.ndarray]:
    """Every number in a result, whatever it is made of, in order."""
    if isinstance(result, xr.Dataset | Mapping):
        for value in result.values():
            yield from numbers(value)
    elif isinstance(result, pd.DataFrame):
        yield result.select_dtypes("number").to_numpy(dtype=float)
    elif isinstance(result, Tensor):
        yield result.detach().double().numpy()
    elif isinstance(result, xr.DataArray | np.ndarray | int | float):
        values = np.asarray(result)
        if values.dtype.kind in "biuf":
            yield values.astype(float)
    elif is_dataclass(result):
        for field in fields(result):
            yield from numbers(getattr(result, field.name))
    elif isinstance(result, list | tuple | set | frozenset | type({}.keys())):
        for value in sorted(result) if isinstance(result, set | frozenset) else result:
            yield from numbers(value)


def assert_same_numbers(one: object, other: object, tolerance: float = 0.0) -> None:
    """Both results have the same numbers, and there are some."""
    mine, theirs = list(numbers(one)), list(numbers(other))
    assert mine and len(mine) == len(theirs)
    for a, b in zip(mine, theirs, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=tolerance)
