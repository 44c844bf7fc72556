"""Provenance of results: the time and the package versions that a manifest records."""

import platform
from datetime import UTC, datetime
from importlib import metadata

_PACKAGES = (
    *("negprobe", "torch", "transformers", "transformer-lens", "tokenizers"),
    *("numpy", "scipy", "xarray", "circuitsvis"),
)

# The packages that the numbers in a shard depend on: the model's arithmetic, its tokens, and negprobe's measures.
# Everything derived from shards (tests, intervals, tables) is recomputed by each run. A release of negprobe that
# changes a number in a shard must be a new minor version.
_NUMERIC = ("negprobe", "torch", "transformers", "tokenizers", "numpy")


def now() -> str:
    """The current UTC time in ISO 8601 format, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def versions() -> dict[str, object]:
    """The Python version under `python` and the versions of the main packages under `versions`."""
    return {"python": platform.python_version(), "versions": {name: metadata.version(name) for name in _PACKAGES}}


def numeric_versions() -> dict[str, str]:
    """Major and minor version ("2.13") of each package that can change a number in a shard; patch releases do not."""
    return {name: ".".join(metadata.version(name).split("+")[0].split(".")[:2]) for name in _NUMERIC}
