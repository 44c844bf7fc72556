"""The hooked encoder and the ways to load one."""

from negprobe.models.config import HookedEncoderConfig
from negprobe.models.encoder import HookedEncoder
from negprobe.models.loading import BUNDLED_MODEL

__all__ = ["BUNDLED_MODEL", "HookedEncoder", "HookedEncoderConfig"]
