"""negprobe shows where an encoder language model hears "not"."""

from negprobe.errors import NegprobeError
from negprobe.models import HookedEncoder

__all__ = ["HookedEncoder", "NegprobeError"]
