"""The command line: study, report, compare, view, patch, evaluate and doctor.

Each command imports what it needs when it runs: torch takes seconds, and `--help` is not to wait for it.
"""

import os
import shlex
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.table import Table
from rich.text import Text

from negprobe.base.errors import NegprobeError
from negprobe.base.texts import shown
from negprobe.terminal import Commands, PlainConsole, clear_errors, errors, printed_warnings, progress_on

if TYPE_CHECKING:
    import pandas as pd

    from negprobe.models import HookedEncoder

app = typer.Typer(
    cls=Commands,
    help="Show where an encoder language model hears 'not'.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_show_locals=False,
)
console = PlainConsole()
BUILTIN = "builtin"
_VERDICTS: dict[bool | None, Text] = {True: Text("right", "green"), False: Text("wrong", "red"), None: Text()}

_MODEL_HELP = "'tiny-negation' (bundled), a model folder, or a hub name, optionally with a revision (name@revision)."

Model = Annotated[str, typer.Option(help=_MODEL_HELP)]
Revision = Annotated[str | None, typer.Option(help="Branch, tag or commit of a hub model (default: the branch main).")]
Objective = Annotated[
    str | None,
    typer.Option(
        help="What patches move, such as target_probability or kl_divergence (default: the one for the model's head)."
    ),
]
Device = Annotated[
    str | None, typer.Option(help="Where to run: cpu, cuda, cuda:1 or mps; by default a GPU if there is one.")
]


class _Effort(StrEnum):
    """How many sets of components the search for a circuit evaluates."""

    FAST = "fast"
    THOROUGH = "thorough"


class _Dtype(StrEnum):
    """Floating-point types a model can run in, as torch names them."""

    FLOAT32 = "float32"
    FLOAT64 = "float64"
    BFLOAT16 = "bfloat16"


class _FigureFormat(StrEnum):
    """File formats of figures."""

    PNG = "png"
    PDF = "pdf"
    SVG = "svg"


Dtype = Annotated[_Dtype, typer.Option(help="Floating-point type of weights and activations.")]


@app.callback()
def check_environment() -> None:
    """Refuse an HF_ENDPOINT that is not an address: the hub's client parses it at import, and fails there."""
    if "HF_ENDPOINT" in os.environ:
        with clear_errors():
            try:
                from huggingface_hub import HfApi  # noqa: F401
            except ValueError as error:
                raise NegprobeError(
                    f"HF_ENDPOINT={os.environ['HF_ENDPOINT']!r} is not an address ({error}). Set it to one such as "
                    "https://huggingface.co, or unset it."
                ) from error


@app.command()
def study(
    model: Annotated[str, typer.Argument(help=_MODEL_HELP)] = "tiny-negation",
    pairs: Annotated[
        list[str] | None,
        typer.Option(help="'builtin', a file of pairs, or a public data set; more than once for several."),
    ] = None,
    out: Annotated[Path, typer.Option(help="The folder to write to.")] = Path("negprobe-study"),
    limit: Annotated[int | None, typer.Option(min=1, help="Use only the first pairs of each.")] = None,
    patch_pairs: Annotated[
        int | None, typer.Option(min=0, help="Maximum number of pairs to patch (default: what takes a few minutes).")
    ] = None,
    circuit_pairs: Annotated[
        int | None,
        typer.Option(
            min=0, help="Maximum number of pairs to search the circuit on (default: what takes a few minutes)."
        ),
    ] = None,
    contribution_pairs: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="Maximum number of pairs to measure the cue's contribution on (default: what takes a few minutes).",
        ),
    ] = None,
    circuit: Annotated[
        _Effort, typer.Option(help="The circuit's search: thorough evaluates several times as many sets of components.")
    ] = _Effort.FAST,
    objective: Objective = None,
    revision: Revision = None,
    device: Device = None,
    dtype: Dtype = _Dtype.FLOAT32,
    engine: Annotated[
        str, typer.Option(help="Execution backend: 'local', or 'ray' for the workers of a Ray cluster.")
    ] = "local",
    seed: Annotated[int, typer.Option(min=0, help="Seed of bootstrap, sign flips and the circuit's search.")] = 0,
    figures: Annotated[
        list[_FigureFormat] | None,
        typer.Option(
            help="Another format of the figures, beside PNG; more than once for several. A finished study run again "
            "with it is not measured again."
        ),
    ] = None,
) -> None:
    """Measure and patch every head of a model on many pairs, and write a report."""
    from negprobe.statements import load_pairs
    from negprobe.study import run_study
    from negprobe.study.engines import cluster_device, on_ray
    from negprobe.study.folder import identity, options_of_study, study_folder
    from negprobe.views import write_study
    from negprobe.views.report.findings import findings, left_out

    with clear_errors():
        if engine not in ("local", "ray"):
            raise NegprobeError(f"There is no engine {engine!r}; choose local or ray.")
        # Before the work, so that a folder that cannot be written to costs nothing.
        _make_folder(out)
        names = pairs or [BUILTIN]
        loaded = [load_pairs(name, limit=limit) for name in names]
        chosen = [pair for part in loaded for pair in part.pairs]
        workers = cluster_device(device) if engine == "ray" else None
        encoder = _encoder(model, revision, device, dtype)
        options = options_of_study(
            encoder,
            patch_pairs=patch_pairs,
            circuit_pairs=circuit_pairs,
            contribution_pairs=contribution_pairs,
            circuit_effort=circuit.value,
            seed=seed,
            objective=objective,
        )
        # The device and not the backend: a study that one backend began can be resumed with another.
        options["measured on"] = workers or encoder.device.type
        with (
            study_folder(out, identity(encoder, chosen, options)) as (shards, threads),
            _threads(threads),
            _resumable(out),
            progress_on(console) as report_progress,
        ):
            results = run_study(
                encoder,
                chosen,
                source=" and ".join("the built-in pairs" if name == BUILTIN else name for name in names),
                dropped=[reason for part in loaded for reason in part.dropped],
                patch_pairs=patch_pairs,
                circuit_pairs=circuit_pairs,
                contribution_pairs=contribution_pairs,
                circuit_effort=circuit.value,
                objective=objective,
                seed=seed,
                shards=shards,
                engine=None
                if workers is None
                else on_ray(partial(_encoder, *_same_model(encoder, model), workers, dtype), workers),
                progress=report_progress,
            )
            report_progress("writing the report", 0, 1)
            report = write_study(results, out, _command_line(), figure_formats=[one.value for one in figures or ()])
            report_progress("writing the report", 1, 1)
        summary = results.summary
        for sentence in [*left_out(summary), *findings(summary)]:
            console.print(f"• {sentence}")
        _print_path("\nReport: ", report)


@app.command()
def compare(
    original: Annotated[str, typer.Argument(help="A statement.")],
    counterfactual: Annotated[str, typer.Argument(help="The same with its negation changed.")],
    model: Model = "tiny-negation",
    revision: Revision = None,
    out: Annotated[Path, typer.Option(help="The folder to write to.")] = Path("negprobe-compare"),
    device: Device = None,
    dtype: Dtype = _Dtype.FLOAT32,
) -> None:
    """Compare one pair head by head: the four metrics, the heatmaps and an interactive page."""
    from negprobe.attention import MAP_METRICS, AttentionProbe
    from negprobe.base.files import write_csv
    from negprobe.views import four_heatmaps, metric_overview, save_figure, write_page
    from negprobe.views.page.page import PageTooLargeError

    with clear_errors():
        encoder = _encoder(model, revision, device, dtype)
        probe = AttentionProbe(encoder)
        with printed_warnings():
            comparison = probe.compare(original, counterfactual, zeroing=True)
        strongest = comparison.metrics.sort_values("mean_attention_diff", ascending=False)
        columns = ["layer", "head", *MAP_METRICS, "js_divergence", "attention_to_cue", "norm_to_cue"]
        _print_table(
            strongest[columns].head(10), "The heads whose attention changes most (metrics.csv has every metric)"
        )
        layer, head = (int(strongest.iloc[0][name]) for name in ("layer", "head"))
        _make_folder(out)
        write_csv(comparison.metrics, out / "metrics.csv")
        save_figure(metric_overview(comparison), out / "metrics.png")
        save_figure(four_heatmaps(comparison, layer, head), out / f"heatmaps-{layer}.{head}.png")
        try:
            page = write_page([comparison], out / "attention.html", title=f"{original} / {counterfactual}")
        except PageTooLargeError as error:
            console.print(f"• There is no interactive page. {error} negprobe view has --max-megabytes for that.")
            _print_path("Metrics and figures: ", out)
        else:
            _print_path("Metrics, figures and the interactive page: ", page)


@app.command()
def view(
    pairs: Annotated[
        list[str] | None,
        typer.Option(help="'builtin', a file of pairs, or a public data set; more than once for several."),
    ] = None,
    model: Model = "tiny-negation",
    revision: Revision = None,
    limit: Annotated[int, typer.Option(min=1, help="Show only the first pairs of each.")] = 50,
    out: Annotated[Path, typer.Option(help="The page to write.")] = Path("negprobe-view.html"),
    max_megabytes: Annotated[
        int, typer.Option(min=1, help="Maximum size of the maps in MB, before compression, which about halves it.")
    ] = 40,
    device: Device = None,
    dtype: Dtype = _Dtype.FLOAT32,
) -> None:
    """Write one interactive page: two statements' attention side by side, for every pair, layer and head."""
    from negprobe.attention import AttentionProbe
    from negprobe.statements import load_pairs, pair_notes
    from negprobe.views.page.page import PageTooLargeError, write_pairs_page

    with clear_errors():
        _make_folder(out.parent)
        loaded = [load_pairs(name, limit=limit) for name in pairs or [BUILTIN]]
        chosen = [pair for part in loaded for pair in part.pairs]
        for reason in (reason for part in loaded for reason in part.dropped):
            console.print(f"• left out {reason}")
        for note in pair_notes(chosen):
            console.print(f"• {note}")
        encoder = _encoder(model, revision, device, dtype)
        with console.status(f"Comparing {len(chosen)} pairs"), printed_warnings():
            probe = AttentionProbe(encoder)
            try:
                page, left_out, not_zeroed = write_pairs_page(probe, chosen, out, max_bytes=max_megabytes * 1_000_000)
            except PageTooLargeError as error:
                raise NegprobeError(f"{error} --max-megabytes sets max_bytes.") from error
        for note in [*(f"{note} --max-megabytes sets the limit." for note in left_out), *not_zeroed]:
            console.print(f"• {note}")
        _print_path(f"{len(chosen)} pairs{', less those left out' if left_out else ''}: ", page)


@app.command(name="report")
def compare_reports(
    a: Annotated[Path, typer.Argument(help="The folder of a study.")],
    b: Annotated[Path, typer.Argument(help="The folder of another, of the same pairs.")],
    out: Annotated[Path, typer.Option(help="The page to write.")] = Path("negprobe-report.html"),
) -> None:
    """Compare two studies of the same pairs: two models, or one before and after a fine-tune."""
    from negprobe.study.comparison import compare_studies
    from negprobe.study.saved import read_study
    from negprobe.views.report.comparison import write_comparison
    from negprobe.views.report.comparison_findings import answer

    with clear_errors():
        if a.resolve() == b.resolve():
            raise NegprobeError(f"{a} and {b} are one folder; give the folders of two studies.")
        _make_folder(out.parent)
        with console.status("Comparing the studies"):
            compared = compare_studies(read_study(a), read_study(b))
            page = write_comparison(compared, out, _command_line())
        for sentence in answer(compared.summary):
            console.print(f"• {sentence}")
        _print_path(f"\nA is {a}, B is {b}. Report: ", page)


@app.command(name="patch")
def patch_pair(
    original: Annotated[str, typer.Argument(help="A statement, with [MASK] for a masked LM.")],
    counterfactual: Annotated[str, typer.Argument(help="The same with its negation changed.")],
    target: Annotated[str | None, typer.Option(help="The word or label right for the original.")] = None,
    foil: Annotated[str | None, typer.Option(help="The word or label right for the counterfactual.")] = None,
    control: Annotated[
        str | None,
        typer.Option(
            help="The counterfactual with neutral words of the same length in place of the cue (default: one is found)."
        ),
    ] = None,
    no_control: Annotated[
        bool, typer.Option("--no-control", help="Swap with the original, even if there is a control.")
    ] = False,
    objective: Objective = None,
    model: Model = "tiny-negation",
    revision: Revision = None,
    out: Annotated[Path, typer.Option(help="The folder to write to.")] = Path("negprobe-patch"),
    device: Device = None,
    dtype: Dtype = _Dtype.FLOAT32,
) -> None:
    """Swap activations between the two runs of one pair, at every layer, token and head, both ways.

    As in a study, the counterfactual is swapped with its control if one is given or found, and otherwise with the
    original.
    """
    from negprobe.base.errors import PatchingError
    from negprobe.base.files import write_csv
    from negprobe.patching import answerable, effect, objective_named, patch_sweep
    from negprobe.patching.effects import RUN_NAMES
    from negprobe.statements import StatementPair, from_control, tokenize_all
    from negprobe.statements.unknown import warn_of_unknown_words
    from negprobe.study.run import prepared
    from negprobe.study.stages import SWEEPS
    from negprobe.study.tables import patching_table
    from negprobe.views import patching_map, save_figure

    with clear_errors():
        if no_control and control is not None:
            raise NegprobeError("--control and --no-control exclude each other; give one of them.")
        encoder = _encoder(model, revision, device, dtype)
        patched_objective = objective_named(encoder, objective)
        pair = StatementPair(original, counterfactual, target, foil, control)
        if not no_control:
            member, problem = prepared(encoder, pair)
            if problem:
                raise PatchingError(f"This control cannot be used: {problem}. Give another, or leave it out.")
            pair = member.pair
        asked = answerable(encoder, [pair])
        if asked.unanswerable:
            raise PatchingError(f"This pair has no answer to move: {asked.unanswerable[0]}.")
        pair = from_control(asked.pairs[0])
        with printed_warnings():
            warn_of_unknown_words(
                tokenize_all([original, counterfactual, pair.original], encoder.tokenizer), encoder.tokenizer
            )
        if pair.control is not None:
            console.print(f"Swapped with the control: {pair.control}")
        elif not no_control:
            console.print("No control of the counterfactual's length was found; swapped with the original.")
        _make_folder(out)
        results = {}
        for stage in SWEEPS:
            by: Literal["head", "position"] = "head" if stage.by == "head" else "position"
            result = patch_sweep(
                encoder, pair, stage.site, by=by, direction=stage.direction, objective=patched_objective
            )
            results[stage.site, stage.direction] = result
            save_figure(patching_map(effect(result).squeeze("pair")), out / f"{stage.site}-{stage.direction}.png")
        write_csv(patching_table(results), out / "patching.csv")
        heads = results["z", "denoising"]
        source, base = (heads[name].item() for name in RUN_NAMES[::-1])
        console.print(
            f"{heads.attrs['objective']}: {heads['source'].item():.3f} on the {source}, "
            f"{heads['base'].item():.3f} on the {base}."
        )
        if effect(heads).attrs["near_zero_gap"]:
            console.print("The two runs do not differ in the answer, so there is nothing for a swap to move.")
        table = effect(heads).squeeze("pair", drop=True).to_dataframe("effect").reset_index()
        _print_table(
            table.sort_values("effect", ascending=False).head(10), f"Heads that restore the {source}'s answer most"
        )
        _print_path("Maps and numbers: ", out)


@app.command(name="evaluate")
def evaluate_model(
    dataset: Annotated[
        str, typer.Argument(help="'builtin', a file or folder of a public data set, or its name on the hub.")
    ],
    model: Annotated[str | None, typer.Option(help=f"{_MODEL_HELP} By default 'tiny-negation'.")] = None,
    revision: Revision = None,
    predictions: Annotated[
        Path | None, typer.Option(help="Instead of a model: its most probable words, a list a line for each statement.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="A .csv or .parquet file to write the scores to.")] = None,
    device: Device = None,
    dtype: Dtype = _Dtype.FLOAT32,
) -> None:
    """Score what a model answers on NEG-136, NEG-1500, ScoNe, MoNLI, BLiMP or pairs with a [MASK]."""
    import pandas as pd

    from negprobe.base.files import whole_file, write_csv
    from negprobe.behaviour import builtin_set, evaluate, read_predictions, scored_sets

    with clear_errors():
        # Before the work, so that a file that cannot be written costs nothing.
        if out is not None:
            if out.suffix not in (".csv", ".parquet"):
                raise NegprobeError(f"{out} is neither a .csv nor a .parquet file; choose another with --out.")
            _make_folder(out.parent)
        sets, useless = ([builtin_set()], ()) if dataset == BUILTIN else scored_sets(dataset)
        words = read_predictions(predictions) if predictions is not None else None
        name = model or ("tiny-negation" if words is None else None)
        if name is None and revision is not None:
            raise NegprobeError("--revision needs --model: predictions have no revision.")
        encoder = _encoder(name, revision, device, dtype) if name is not None else None
        with progress_on(console) as report_progress:
            evaluation = evaluate(sets, encoder, predictions=words, progress=report_progress)
        shares = evaluation.shares
        table = pd.DataFrame(
            {
                "data": (shares["data_set"] + " " + shares["condition"]).str.strip(),
                "score": shares["score"],
                "share": [f"{share:.3f}" for share in shares["share"]],
                "95 % interval": [
                    f"{low:.2f}–{high:.2f}" for low, high in zip(shares["low"], shares["high"], strict=True)
                ],
                "counts": [f"{hits}/{n}" for hits, n in zip(shares["hits"], shares["n"], strict=True)],
            }
        )
        # The notes may be many, and the table is what stays in sight.
        for note in (*evaluation.notes, *useless):
            console.print(f"• {note}", soft_wrap=True)
        _print_table(table, f"{name or predictions} on {dataset}")
        if out is not None:
            if out.suffix == ".csv":
                write_csv(shares, out)
            else:
                with whole_file(out) as part:
                    shares.to_parquet(part, index=False)
            _print_path("Scores: ", out)


@app.command()
def doctor() -> None:
    """Say what negprobe runs on, whether the bundled model answers, and whether the hub can be reached."""
    from negprobe.doctor import checks

    with clear_errors():
        table = Table(show_header=False)
        found = list(checks())
        for check in found:
            table.add_row(check.name, check.found, _VERDICTS[check.right])
        console.print(table)
        if any(check.right is False for check in found):
            raise typer.Exit(1)


@contextmanager
def _threads(number: int) -> Iterator[None]:
    """Compute with so many threads: sums that are split differently round differently."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def _resumable(out: Path) -> Iterator[None]:
    """Say, when Ctrl-C or SIGTERM stops a study, that nothing is lost; what is half done is taken back on the way out.

    The exit status is 128 and the signal's number, as a shell has it.
    """

    def stop(number: int, _: object) -> None:
        raise _StoppedError(number)

    stopping = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.signal(number, stop) for number in stopping}
    try:
        yield
    except _StoppedError as stopped:
        # A second signal is not to break into the way out.
        for number in stopping:
            signal.signal(number, signal.SIG_IGN)
        errors.print(
            f"Stopped. What was measured is kept in {out}; the same command goes on from there.", soft_wrap=True
        )
        raise typer.Exit(128 + stopped.number) from stopped
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class _StoppedError(BaseException):
    """Not an Exception, as KeyboardInterrupt is not, so that no handler of errors takes it for one."""

    def __init__(self, number: int) -> None:
        self.number = number


def _encoder(model: str, revision: str | None, device: str | None, dtype: _Dtype) -> "HookedEncoder":
    import torch

    from negprobe.models import HookedEncoder

    with printed_warnings():
        return HookedEncoder.from_pretrained(model, revision=revision, device=device, dtype=getattr(torch, dtype))


def _same_model(encoder: "HookedEncoder", model: str) -> tuple[str, str | None]:
    """Name and revision with which a process in another folder, at another time, finds the model that was loaded."""
    if encoder.cfg.revision:
        return encoder.cfg.model_name, encoder.cfg.revision
    return (str(Path(model).resolve()) if Path(model).is_dir() else model), None


def _command_line() -> str:
    """The command as it was typed, for a manifest; bytes that are not UTF-8 as escapes."""
    return shlex.join(["negprobe", *sys.argv[1:]]).encode("utf-8", "backslashreplace").decode()


def _print_path(label: str, path: Path) -> None:
    console.print(Text.assemble(shown(label), (shown(str(path)), "bold")), soft_wrap=True)


def _make_folder(out: Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise NegprobeError(f"The folder {out} cannot be created: {error}. Choose another with --out.") from error


def _print_table(frame: "pd.DataFrame", title: str) -> None:
    table = Table(title=title)
    for column in frame.columns:
        # Spaces let long names break over lines where the terminal is narrow.
        table.add_column(str(column).replace("_", " "), justify="right", overflow="fold")
    for row in frame.itertuples(index=False):
        table.add_row(*(f"{value:.3f}" if isinstance(value, float) else str(value) for value in row))
    console.print(table)
