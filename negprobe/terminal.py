"""Terminal output of the commands: plain text without control characters, progress, and one-line error messages."""

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
_INTERRUPTED = 130  # 128 + SIGINT, the shell convention


class PlainConsole(Console):
    """A console that prints text literally: markup is not interpreted, and control characters are escaped.

    Only `style` and `Text` set styles. `Text` drops some control characters, so build it from the result of `shown`.
    Characters that the output encoding lacks are printed as escapes.
    """

    def __init__(self, **options: Any) -> None:
        """Takes the options of rich's `Console`, except markup, highlighting and emoji, which are off."""
        super().__init__(markup=False, highlight=False, emoji=False, **options)

    def render_str(self, text: str, **options: Any) -> Text:
        """Escape the text before its width is computed."""
        return super().render_str(self._plain(text), **options)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Escape every printed segment, regardless of its source."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else segment._replace(text=self._plain(segment.text))

    def on_broken_pipe(self) -> None:
        """Print the reason on standard error, then exit."""
        if not self.stderr:
            errors.print("Error: standard output was closed before everything was printed.", soft_wrap=True)
        super().on_broken_pipe()

    def _plain(self, text: str) -> str:
        return shown(text).encode(self.encoding, "backslashreplace").decode(self.encoding)


errors = PlainConsole(stderr=True)


class Commands(TyperGroup):
    """A command group that escapes control characters in the messages of usage errors."""

    def make_context(self, *args: Any, **extra: Any) -> Any:
        """As in typer, with escaped error messages."""
        with _escaped_messages():
            return super().make_context(*args, **extra)

    def invoke(self, ctx: Any) -> Any:
        """As in typer, with escaped error messages."""
        with _escaped_messages():
            return super().invoke(ctx)


@contextmanager
def _escaped_messages() -> Iterator[None]:
    try:
        yield
    except Exception as error:
        # Only click's errors have a `message`; the module that defines them depends on the version of typer.
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
    """The message of an expected error; None for any other exception, which is a bug."""
    if isinstance(error, NegprobeError | OSError):
        return str(error)
    if not is_out_of_memory(error):
        return None
    cause = f" ({str(error).splitlines()[0]})" if str(error) else ""
    return f"There is not enough memory{cause}. Use fewer or shorter statements, or a smaller model or dtype."


@contextmanager
def printed_warnings() -> Iterator[None]:
    """Print each of negprobe's warnings as one line, without its code location; issue all others unchanged."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", NegprobeWarning)
        try:
            yield
        finally:
            for warning in caught:
                if issubclass(warning.category, NegprobeWarning):
                    errors.print(f"Warning: {warning.message}", style="yellow", soft_wrap=True)
    for warning in caught:
        if not issubclass(warning.category, NegprobeWarning):
            warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)


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
    """Show a progress bar for each step, or print a line every half minute if the output is not a terminal."""
    columns = (_Step(), BarColumn(), MofNCompleteColumn(), _Rate(), TimeElapsedColumn(), TimeRemainingColumn())
    # A shard may take minutes, but rich's default rate covers only the last 30 seconds.
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
