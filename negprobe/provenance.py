"""How a result was made: what a manifest says beside what was measured."""

import platform
from datetime import UTC, datetime
from importlib import metadata

_PACKAGES = ("negprobe", "torch", "transformers", "transformer-lens", "numpy", "scipy", "xarray", "circuitsvis")


def now() -> str:
    """The time in UTC, to the second, as ISO 8601 writes it."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def versions() -> dict[str, object]:
    """The versions of `python` and, under `versions`, of the packages that numbers depend on."""
    return {"python": platform.python_version(), "versions": {name: metadata.version(name) for name in _PACKAGES}}
