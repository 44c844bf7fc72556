"""The callback that reports progress, and ticks of a single bar."""

from collections.abc import Callable

Progress = Callable[[str, int, int], None]
"""Called with the name of a step, the number of its units that are done, and their total number."""

Tick = Callable[[int, int], None]
"""Called with the number of units that are done, and their total number."""


def portion(tick: Tick | None, start: int, stop: int, whole: int) -> Tick | None:
    """A tick for the part of a bar from `start` to `stop` of `whole`; None for no bar.

    Example:
        >>> from negprobe.base.progress import portion
        >>> second_half = portion(print, 1, 2, 2)
        >>> from negprobe.base.progress import portion
        >>> second_half(3, 10)
        13 20
    """
    if tick is None:
        return None
    return lambda done, total: tick(start * total + (stop - start) * done, whole * total)
