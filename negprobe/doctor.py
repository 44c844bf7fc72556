"""What negprobe runs on, and whether it works here."""

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
    """One thing that was looked at.

    Attributes:
        name: What.
        found: What it is.
        right: Whether it is as it should be; None if there is no should.
    """

    name: str
    found: str
    right: bool | None = None


def checks() -> Iterator[Check]:
    """Versions, devices, the bundled model, and the hub, which alone asks the network for something."""
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
    """Whether the weights in the package do what they were trained for."""
    model = HookedEncoder.from_pretrained("tiny-negation", device="cpu")
    answers = objective_values(model, builtin_pairs()[::10])
    right = int(((answers["original"] > 0) & (answers["counterfactual"] < 0)).sum())
    return Check("bundled model", f"right on {right} of {len(answers)} pairs", right == len(answers))


def _hub() -> Check:
    name = "hub"
    if constants.HF_HUB_OFFLINE:
        return Check(name, "not asked: HF_HUB_OFFLINE is set")
    problem = hub_problem(_KNOWN)
    if not problem:
        return Check(name, f"{constants.ENDPOINT} answers", True)
    return Check(name, f"{problem} Until then, give models as folders.")
