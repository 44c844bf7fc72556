"""How a result was made: what a manifest says beside what was measured."""

import platform
from datetime import UTC, datetime
from importlib import metadata

_PACKAGES = (
    *("negprobe", "torch", "transformers", "transformer-lens", "tokenizers"),
    *("numpy", "scipy", "xarray", "circuitsvis"),
)

# The packages that the numbers in a shard depend on: the model's arithmetic, its tokens, and negprobe's measures. What
# follows from shards (tests, intervals, tables) is computed anew by every run. A release of negprobe that changes a
# number in a shard must be a new minor version.
_NUMERIC = ("negprobe", "torch", "transformers", "tokenizers", "numpy")


def now() -> str:
    """The time in UTC, to the second, as ISO 8601 writes it."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def versions() -> dict[str, object]:
    """The versions of `python` and, under `versions`, of the packages that numbers depend on."""
    return {"python": platform.python_version(), "versions": {name: metadata.version(name) for name in _PACKAGES}}


def numeric_versions() -> dict[str, str]:
    """Major and minor version ("2.13") of each package that can change a measured number; patch releases do not."""
    return {name: ".".join(metadata.version(name).split("+")[0].split(".")[:2]) for name in _NUMERIC}
