"""Nothing on a device is float64, which a Mac's GPU refuses, and a GPU gives the numbers of the CPU."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from negprobe import AttentionProbe, HookedEncoder, patch_sweep
from negprobe.behaviour.likelihood import pseudo_log_likelihoods
from negprobe.patching import (
    Patch,
    answerable,
    attribute,
    attribute_edges,
    find_circuit,
    objective_values,
    patch,
    path_patch,
)
from negprobe.statements import StatementPair
from tests.test_numbers_agree import MEASURES, PAIRS, TOLERANCES, largest_difference, model

MOVES = (Tensor.cpu, Tensor.to)
TO_NUMPY = (Tensor.numpy, Tensor.__array__)


class DeviceWithoutFloat64(TorchFunctionMode):
    """A stand-in for a Mac's GPU: no float64 there, and NumPy takes nothing from it.

    The tensors are the CPU's all the same. Each remembers whether it would be the device's: all that were there before,
    what is put on a device by name, and what is computed with any of these, up to `Tensor.cpu`.
    """

    def __torch_function__(
        self, func: Callable, types: Sequence[type], args: Sequence = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        on_cpu = func is Tensor.cpu or not any(map(is_of_a_device, tree_leaves((args, kwargs))))
        if func in TO_NUMPY and not on_cpu:
            raise TypeError("NumPy cannot take a tensor of the device.")
        result = func(*args, **kwargs)
        if func in MOVES:
            # Here a tensor that is moved is itself, which is in one place only.
            result = result.clone()
        for tensor in filter(is_tensor, tree_leaves(result)):
            if tensor.dtype == torch.float64 and not on_cpu:
                raise TypeError(f"The device has no float64: {func}.")
            tensor.on_cpu = on_cpu
        return result


def is_tensor(value: object) -> bool:
    return isinstance(value, Tensor)


def is_of_a_device(argument: object) -> bool:
    return isinstance(argument, torch.device) or (is_tensor(argument) and not getattr(argument, "on_cpu", False))


CALLS: dict[str, Callable[[HookedEncoder, list[StatementPair], Path], object]] = {
    "metrics": lambda model, pairs, folder: AttentionProbe(model).metrics(pairs),
    "cue_shares": lambda model, pairs, folder: AttentionProbe(model).cue_shares(pairs),
    "readings": lambda model, pairs, folder: AttentionProbe(model).readings(pairs),
    "compare": lambda model, pairs, folder: AttentionProbe(model).compare(pairs, zeroing=True),
    "run": lambda model, pairs, folder: AttentionProbe(model).run([pair.original for pair in pairs]),
    "html": lambda model, pairs, folder: AttentionProbe(model).html(pairs[:1], folder / "page.html"),
    "likelihoods": lambda model, pairs, folder: pseudo_log_likelihoods(model, ["The door is open."]),
    "answerable": lambda model, pairs, folder: answerable(model, pairs),
    "objective_values": lambda model, pairs, folder: objective_values(model, pairs),
    "patch_sweep": lambda model, pairs, folder: patch_sweep(model, pairs, "z", by=["head", "role"]),
    "mean": lambda model, pairs, folder: patch_sweep(model, pairs, "mlp_out", by="position", how="mean"),
    "patch": lambda model, pairs, folder: patch(
        model, pairs, [Patch("z", 0, 1), Patch("resid_pre", 1, role="cue")], together=True
    ),
    "path_patch": lambda model, pairs, folder: path_patch(model, pairs, receivers=[(1, 0, "q")]),
    "attribute": lambda model, pairs, folder: attribute(model, pairs, by="head", steps=2),
    "attribute_edges": lambda model, pairs, folder: attribute_edges(model, pairs),
    "find_circuit": lambda model, pairs, folder: find_circuit(model, pairs, ranking="attribution"),
}


@pytest.mark.sampled(2)
@pytest.mark.parametrize("name", CALLS)
def test_nothing_needs_float64_on_the_device(name: str, tmp_path: Path) -> None:
    with DeviceWithoutFloat64():
        CALLS[name](model(torch.float32), PAIRS[:4], tmp_path)


def test_the_device_without_float64_refuses_it_as_a_macs_gpu_does() -> None:
    weights = model(torch.float32).W_pos
    for on_device in (
        lambda: weights.double(),
        lambda: weights[0].to(torch.float64).cpu(),
        lambda: weights * torch.ones(1, dtype=torch.float64),
        lambda: weights.cpu().to(weights.device).double(),
        lambda: torch.zeros(2, dtype=torch.float64, device=weights.device),
        lambda: weights.detach().numpy(),
    ):
        with DeviceWithoutFloat64(), pytest.raises(TypeError):
            on_device()
    with DeviceWithoutFloat64():
        assert weights.detach().cpu().double()[0].numpy().dtype == float


@pytest.mark.parametrize("name", MEASURES)
@pytest.mark.parametrize(
    ("device", "is_there"), [("cuda", torch.cuda.is_available()), ("mps", torch.backends.mps.is_available())]
)
def test_a_gpu_gives_the_numbers_of_the_cpu(device: str, is_there: bool, name: str) -> None:
    if not is_there:
        pytest.skip(f"this machine has no {device}")
    cpu, gpu = (MEASURES[name](model(torch.float32, where), PAIRS) for where in ("cpu", device))
    assert largest_difference(cpu, gpu) < TOLERANCES[torch.float32][name]
