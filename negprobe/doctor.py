"""Checks of the installation: package versions, devices, the bundled model, and access to the hub."""

import platform
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata

import torch
from huggingface_hub import constants

from negprobe.models import HookedEncoder
from negprobe.models.hub import hub_problem
from negprobe.patching import objective_values
from negprobe.statements import builtin_pairs

_PACKAGES = ("negprobe", "torch", "transformers", "transformer-lens", "numpy", "scipy", "pandas", "xarray", "pyarrow")
_KNOWN = "google-bert/bert-base-uncased"


@dataclass(frozen=True)
class Check:
    """The result of one check.

    Attributes:
        name: What was checked.
        found: The result.
        passed: Whether the check passed; None if informational.
    """

    name: str
    found: str
    passed: bool | None = None


def checks() -> Iterator[Check]:
    """The results of checks of versions, devices, the bundled model and the hub; only the last uses the network."""
    yield Check("python", f"{platform.python_version()}, {platform.platform()}")
    yield from (Check(name, metadata.version(name)) for name in _PACKAGES)
    yield Check("devices", ", ".join(_devices()))
    yield Check("threads", str(torch.get_num_threads()))
    yield _bundled_model()
    yield _hub()


def _devices() -> list[str]:
    devices = [f"cuda:{i} ({torch.cuda.get_device_name(i)})" for i in range(torch.cuda.device_count())]
    return [*devices, *(["mps"] if torch.backends.mps.is_available() else []), "cpu"]


def _bundled_model() -> Check:
    """Whether the bundled model answers a sample of the built-in pairs correctly."""
    model = HookedEncoder.from_pretrained("tiny-negation", device="cpu")
    pairs = builtin_pairs()[::10]
    answers = objective_values(model, pairs)
    n_correct = int(((answers["original"] > 0) & (answers["counterfactual"] < 0)).sum())
    return Check("bundled model", f"correct on {n_correct} of {len(pairs)} pairs", n_correct == len(pairs))


def _hub() -> Check:
    name = "hub"
    if constants.HF_HUB_OFFLINE:
        return Check(name, "not checked: HF_HUB_OFFLINE is set")
    problem = hub_problem(_KNOWN)
    if not problem:
        return Check(name, f"{constants.ENDPOINT} is reachable", True)
    return Check(name, f"{problem} Until then, load models from local folders.")
