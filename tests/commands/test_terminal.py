"""Commands print names as they are, whatever is in them, and expected errors as one line; a bug keeps its traceback."""

import errno
import io
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import typer
from hypothesis import given
from hypothesis import strategies as st
from rich.table import Table
from rich.text import Text
from typer.testing import CliRunner

import negprobe
from negprobe import doctor
from negprobe.base.errors import NegprobeError
from negprobe.base.texts import shown
from negprobe.cli import app
from negprobe.terminal import PlainConsole, _escaped_messages, clear_errors, progress_on

HOSTILE = "[red]a[/x] :smile: \x1b[31mb\r\x07c\x9bd\u202ee\x7f\udcfff"
SEEN = r"[red]a[/x] :smile: \x1b[31mb\r\x07c\x9bd\u202ee\x7f\udcfff"
MASKED = (
    "The [red]door\x1b[31m is open. So the door is [MASK].",
    "The [red]door\x1b[31m is not open. So the door is [MASK].",
)


def run(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def flat(text):
    return "".join(text.split())


def test_what_acts_on_a_terminal_is_shown_as_its_escape():
    assert shown(HOSTILE) == SEEN
    assert shown("two\nlines\tü 門 👍") == "two\nlines\tü 門 👍"


@pytest.mark.slow
@given(st.text())
def test_what_is_shown_can_be_written_and_has_no_control_but_tab_and_line_end(text):
    written = shown(text)
    written.encode()
    assert not any(ord(letter) < 0x20 or 0x7F <= ord(letter) < 0xA0 for letter in written if letter not in "\t\n")
    assert not set(written) & set("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u200e\u200f")


def printed_in_every_way(console):
    console.print(HOSTILE)
    console.print(Text(HOSTILE))
    table = Table(HOSTILE, title=HOSTILE)
    table.add_row(HOSTILE)
    console.print(table)
    with progress_on(console) as report:
        report(HOSTILE, 1, 1)


@pytest.mark.parametrize("terminal", [True, False])
def test_a_console_prints_a_hostile_name_literally_wherever_it_stands(terminal):
    file = io.StringIO()
    console = PlainConsole(file=file, width=200, force_terminal=terminal, color_system=None)
    printed_in_every_way(console)
    written = file.getvalue()
    assert written.count(SEEN) >= 5
    # What is left are the controls of the progress bar.
    assert "\x1b[31m" not in written and not set(written) & set("\x07\x9b\u202e\x7f")
    with console.status(Text(HOSTILE)):
        pass
    assert "\x1b[31m" not in file.getvalue()


def test_cells_with_control_characters_keep_a_table_s_borders_straight():
    file = io.StringIO()
    printed_in_every_way(PlainConsole(file=file, width=60, color_system=None))
    borders = [line for line in file.getvalue().splitlines() if line[:1] in ("│", "┃", "┏", "└")]
    assert len({len(line) for line in borders}) == 1
    assert flat(SEEN) in flat("".join(line.strip("│") for line in borders if line.startswith("│")))


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_what_the_output_s_encoding_lacks_is_printed_as_an_escape(encoding):
    bytes_ = io.BytesIO()
    printed_in_every_way(PlainConsole(file=io.TextIOWrapper(bytes_, encoding), width=200, color_system=None))
    console = PlainConsole(file=io.TextIOWrapper(bytes_, encoding, write_through=True))
    console.print("• 門")
    expected = {"ascii": r"\u2022 \u9580", "latin-1": r"\u2022 \u9580", "utf-8": "• 門"}
    assert expected[encoding] in bytes_.getvalue().decode(encoding)


@pytest.fixture
def hostile_model(tmp_path):
    folder = tmp_path / "m[/bold]"
    shutil.copytree(Path(negprobe.__file__).parent / "models" / "tiny-negation", folder)
    return folder


@pytest.mark.slow
@pytest.mark.usefixtures("without_figures")
def test_a_study_with_hostile_names_ends_with_its_report(tmp_path, hostile_model):
    pairs = tmp_path / "p[/red].csv"
    pairs.parent.mkdir(parents=True)
    pairs.write_text(f'original,counterfactual,target,foil\n{",".join(MASKED)},open,closed\n"",x,,\n', encoding="utf-8")
    out = tmp_path / "out[/x]y\x1b[31m"
    result = run("study", hostile_model, "--pairs", pairs, "--circuit-pairs", 0, "--out", out)
    assert result.exit_code == 0, result.output
    assert (out / "report.html").exists()
    said = flat(result.output)
    assert flat(rf"Report: {tmp_path}/out[/x]y\x1b[31m/report.html") in said
    assert flat("[/red].csv") in said and "\x1b" not in result.output


@pytest.mark.slow
def test_every_other_command_prints_hostile_names_literally(tmp_path, hostile_model):
    out, model = tmp_path / "out[/x]y", ("--model", hostile_model)
    pairs = tmp_path / "pairs.csv"
    pairs.write_text(f"original,counterfactual\n{MASKED[0]},{MASKED[1]}\n[/b]\x1b[2J,\n", encoding="utf-8")
    page, scores = out / "[/bold].html", out / "[/bold].csv"
    for arguments, name in (
        (("compare", *MASKED, *model, "--out", out), "out[/x]y/attention.html"),
        (("view", "--pairs", pairs, *model, "--out", page), "out[/x]y/[/bold].html"),
        (
            ("patch", *MASKED, "--target", "open", "--foil", "closed", *model, "--out", out),
            r"Swapped with the control: The [red]door\x1b[31m is",
        ),
        (("evaluate", "builtin", *model, "--out", scores), "m[/bold]"),
    ):
        result = run(*arguments)
        assert result.exit_code == 0, result.output
        assert flat(name) in flat(result.output) and "\x1b" not in result.output, arguments[0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("study", "--pairs", "[/x]"), "[/x] is not a supported kind of file"),
        (("study", "--engine", "[/x]\x1b[31m"), r"Unknown engine '[/x]\x1b[31m'"),
        (("study", "./m[/bold]"), "m[/bold]"),
        (("evaluate", "[/x]\x1b[31m"), "[/x]"),
        (("report", "a[/x]", "b[/x]\x1b[31m"), "a[/x]"),
        (("compare", "[/x]", " "), "empty"),
        (("stu\x1b[31mdy",), r"stu\x1b[31mdy"),
        (("study", "--li\x1b[31mmit", "3"), r"--li\x1b[31mmit"),
        (("study", "--dtype", "[/x]\x1b[31m"), "--dtype"),
    ],
)
def test_errors_print_what_was_typed_literally(tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    result = run(*arguments)
    assert result.exit_code in (1, 2)
    assert flat(message) in flat(result.output.replace("│", "")) and "\x1b" not in result.output


def test_usage_errors_have_no_control_characters_whatever_typer_does_with_them():
    with pytest.raises(typer.BadParameter) as raised, _escaped_messages():
        raise typer.BadParameter("[/x]\x1b[31m")
    assert raised.value.message == r"[/x]\x1b[31m"


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (NegprobeError("[/x] two\nlines"), "Error: [/x] two lines\n"),
        (OSError(errno.ENOSPC, "No space left on device", "a[/x]"), "No space left on device: 'a[/x]'\n"),
        (MemoryError(), "Error: There is not enough memory. Use fewer"),
        (
            torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB."),
            "not enough memory (CUDA out of memory.",
        ),
        (
            RuntimeError("[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate"),
            "not enough memory (",
        ),
        (KeyboardInterrupt(), "Interrupted.\n"),
    ],
)
def test_an_expected_error_is_one_line_and_no_traceback(monkeypatch, error, message):
    def fails():
        raise error

    monkeypatch.setattr(doctor, "checks", fails)
    result = run("doctor")
    assert result.exit_code == (130 if isinstance(error, KeyboardInterrupt) else 1)
    assert message in result.stderr and result.stderr.count("\n") == 1
    assert isinstance(result.exception, SystemExit)


@pytest.mark.parametrize("bug", [RuntimeError("a bug"), ValueError("a bug"), KeyError("a bug"), UnicodeError("a bug")])
def test_a_bug_keeps_its_traceback(bug):
    with pytest.raises(type(bug)), clear_errors():
        raise bug


def test_memory_that_torch_cannot_have_is_an_expected_error(capsys):
    with pytest.raises(Exception) as ended, clear_errors():
        torch.empty(2**61, dtype=torch.uint8)
    assert ended.value.exit_code == 1
    assert "There is not enough memory" in capsys.readouterr().err


PRINTS = """
import typer
from negprobe.terminal import PlainConsole, clear_errors

def main():
    with clear_errors():
        PlainConsole().print("a line")

typer.run(main)
"""


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_an_output_that_takes_nothing_is_one_line():
    command = [sys.executable, "-c", PRINTS]
    with Path("/dev/full").open("w") as full:
        ended = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert (ended.returncode, ended.stderr) == (1, "Error: [Errno 28] No space left on device\n")
    started = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    started.stdout.close()
    said = started.stderr.read()
    assert (started.wait(), said) == (1, "Error: standard output was closed before everything was printed.\n")
