"""What commands print: text without markup or control characters, progress, and expected errors in one line."""

import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import typer
from rich.console import Console, ConsoleOptions, RenderableType
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.segment import Segment
from rich.text import Text
from typer.core import TyperGroup

from negprobe.base.errors import NegprobeError, NegprobeWarning
from negprobe.base.memory import is_out_of_memory
from negprobe.base.texts import shown

_SECONDS_BETWEEN_LINES = 30
_INTERRUPTED = 130  # 128 and the number of SIGINT, as a shell has it


class PlainConsole(Console):
    """A console that prints names as they are: no markup, and nothing that acts on the terminal.

    Only `style` and `Text` give styles; a `Text` drops some control characters, so make it from what `shown` returns.
    Characters that the output's encoding lacks are printed as escapes.
    """

    def __init__(self, **options: Any) -> None:
        """As rich's `Console`, without markup, highlighting and emoji."""
        super().__init__(markup=False, highlight=False, emoji=False, **options)

    def render_str(self, text: str, **options: Any) -> Text:
        """Escape before the width is measured."""
        return super().render_str(self._plain(text), **options)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Escape every printed segment, whatever it was made from."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else segment._replace(text=self._plain(segment.text))

    def on_broken_pipe(self) -> None:
        """Print why the command ends, and end it."""
        if not self.stderr:
            errors.print("Error: standard output was closed before everything was printed.", soft_wrap=True)
        super().on_broken_pipe()

    def _plain(self, text: str) -> str:
        return shown(text).encode(self.encoding, "backslashreplace").decode(self.encoding)


errors = PlainConsole(stderr=True)


class Commands(TyperGroup):
    """Commands whose usage errors print control characters in the arguments as escapes."""

    def make_context(self, *args: Any, **extra: Any) -> Any:
        """As in typer."""
        with _shown_messages():
            return super().make_context(*args, **extra)

    def invoke(self, ctx: Any) -> Any:
        """As in typer."""
        with _shown_messages():
            return super().invoke(ctx)


@contextmanager
def _shown_messages() -> Iterator[None]:
    try:
        yield
    except Exception as error:
        # Only click's errors have a message of this name; which module they are from depends on typer's version.
        if isinstance(message := getattr(error, "message", None), str):
            error.message = shown(message)  # type: ignore[attr-defined]
        raise


@contextmanager
def clear_errors() -> Iterator[None]:
    """Print an expected error as one line and exit with status 1; a bug keeps its traceback."""
    try:
        yield
    except KeyboardInterrupt as error:
        errors.print("Interrupted.")
        raise typer.Exit(_INTERRUPTED) from error
    except Exception as error:
        message = _expected(error)
        if message is None:
            raise
        errors.print(Text.assemble(("Error: ", "red"), shown(" ".join(message.split("\n")))), soft_wrap=True)
        raise typer.Exit(1) from error


def _expected(error: Exception) -> str | None:
    """The message of an expected error; None for a bug."""
    if isinstance(error, NegprobeError | OSError):
        return str(error)
    if not is_out_of_memory(error):
        return None
    why = f" ({str(error).splitlines()[0]})" if str(error) else ""
    return f"There is not enough memory{why}. Use fewer or shorter statements, or a smaller model or dtype."


@contextmanager
def printed_warnings() -> Iterator[None]:
    """Print negprobe's warnings as lines, without the place in the code; others are issued unchanged."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", NegprobeWarning)
        try:
            yield
        finally:
            for one in caught:
                if issubclass(one.category, NegprobeWarning):
                    errors.print(f"Warning: {one.message}", style="yellow", soft_wrap=True)
    for one in caught:
        if not issubclass(one.category, NegprobeWarning):
            warnings.warn_explicit(one.message, one.category, one.filename, one.lineno)


class _Step(ProgressColumn):
    """The name of the step."""

    def render(self, task: Task) -> Text:
        return Text(shown(task.description))


class _Rate(ProgressColumn):
    """The rate per second."""

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text(f"{speed:.3g}/s" if speed else "")


@contextmanager
def progress_on(console: Console) -> Iterator[Callable[[str, int, int], None]]:
    """A progress bar for each step; if the output is not a terminal, a line now and then."""
    columns = (_Step(), BarColumn(), MofNCompleteColumn(), _Rate(), TimeElapsedColumn(), TimeRemainingColumn())
    # A shard may take minutes; by default the rate is that of half a minute.
    bars = Progress(*columns, console=console, speed_estimate_period=3600)
    tasks: dict[str, TaskID] = {}
    printed = 0.0

    def report(step: str, done: int, total: int) -> None:
        nonlocal printed
        if step not in tasks:
            tasks[step] = bars.add_task(step, total=total, completed=done)
        bars.update(tasks[step], completed=done)
        if not console.is_terminal and (time.monotonic() - printed > _SECONDS_BETWEEN_LINES or done == total):
            printed = time.monotonic()
            task = bars.tasks[tasks[step]]
            left = "" if task.time_remaining is None else f", {timedelta(seconds=task.time_remaining)} left"
            console.print(f"{step}: {done}/{total} {_Rate().render(task)}{left}", soft_wrap=True)

    if console.is_terminal:
        with bars:
            yield report
    else:
        yield report
