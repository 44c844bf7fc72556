"""The command line: study, figures, report, compare, pairs, view, patch, find-circuit, evaluate and doctor.

Each command imports what it needs when it runs, so that `--help` does not wait for torch, which takes seconds to load.
"""

import os
import shlex
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table
from rich.text import Text

from negprobe.base.errors import NegprobeError
from negprobe.base.texts import shown
from negprobe.terminal import Commands, PlainConsole, clear_errors, errors, printed_warnings, progress_on

if TYPE_CHECKING:
    import pandas as pd

    from negprobe.models import HookedEncoder
    from negprobe.patching import PlannedSweep
    from negprobe.statements import StatementPair

app = typer.Typer(
    cls=Commands,
    help="Show where an encoder language model hears 'not'.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_show_locals=False,
)
console = PlainConsole()
BUILTIN = "builtin"
_SHOWN_HEADS = 5
_VERDICTS: dict[bool | None, Text] = {True: Text("right", "green"), False: Text("wrong", "red"), None: Text()}

_MODEL_HELP = "'tiny-negation' (bundled), a model folder, or a hub name, optionally with a revision (name@revision)."

Model = Annotated[str, typer.Option(help=_MODEL_HELP)]
Revision = Annotated[str | None, typer.Option(help="Branch, tag or commit of a hub model (default: the branch main).")]
Labels = Annotated[
    str | None,
    typer.Option(
        help="Names of a classifier's labels, in the order of its logits (entailment,neutral,contradiction), or new "
        "names of some (LABEL_0=entailment,LABEL_2=contradiction)."
    ),
]
Prompt = Annotated[
    str | None,
    typer.Option(
        help="Text to put before each statement, such as 'query: ', or the name of a prompt of a sentence-transformers "
        "model (default: the model's own default prompt, if it has one; '' for none)."
    ),
]
Objective = Annotated[
    str | None,
    typer.Option(
        help="The objective that patching measures, such as target_probability or kl_divergence (default: the one for "
        "the model's head)."
    ),
]
Device = Annotated[
    str | None, typer.Option(help="Where to run: cpu, cuda, cuda:1 or mps (default: a GPU if there is one).")
]
Pairs = Annotated[
    list[str] | None,
    typer.Option(help="'builtin', a file of pairs, or a public data set; repeat the option for several."),
]
Cues = Annotated[
    Path | None,
    typer.Option(
        help="A TOML file of further negation cues, optional classes of cues, and phrases in which a cue does not "
        "negate; they are added to the English ones."
    ),
]
Limit = Annotated[int | None, typer.Option(min=1, help="Use at most this many pairs of each data set, the first ones.")]


class _Effort(StrEnum):
    """How many sets of components the search for a circuit evaluates."""

    FAST = "fast"
    THOROUGH = "thorough"


class _Ranking(StrEnum):
    """How a circuit search ranks the components of a model."""

    EXACT = "exact"
    ATTRIBUTION = "attribution"
    INTEGRATED_GRADIENTS = "integrated_gradients"


class _Ablation(StrEnum):
    """What replaces the activations of components outside a circuit."""

    MEAN = "mean"
    SWAP = "swap"
    ZERO = "zero"


class _Direction(StrEnum):
    """The run that is patched: that of the counterfactual (denoising), or the other one (noising)."""

    NOISING = "noising"
    DENOISING = "denoising"


class _By(StrEnum):
    """What varies besides the layer in a sweep."""

    POSITION = "position"
    ROLE = "role"
    HEAD = "head"
    HEAD_POSITION = "head,position"
    HEAD_ROLE = "head,role"


class _How(StrEnum):
    """What replaces a patched activation."""

    SWAP = "swap"
    ZERO = "zero"
    MEAN = "mean"
    RESAMPLE = "resample"
    KNOCK_OUT = "knock_out"


class _Dtype(StrEnum):
    """Floating-point types that a model can run in, by their names in torch."""

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
    """Raise a clear error for an invalid HF_ENDPOINT, which the hub's client parses when it is imported."""
    if "HF_ENDPOINT" in os.environ:
        with clear_errors():
            try:
                from huggingface_hub import HfApi  # noqa: F401
            except ValueError as error:
                raise NegprobeError(
                    f"HF_ENDPOINT={os.environ['HF_ENDPOINT']!r} is not a valid URL ({error}). Set it to one such as "
                    "https://huggingface.co, or unset it."
                ) from error


@app.command()
def study(
    model: Annotated[str, typer.Argument(help=_MODEL_HELP)] = "tiny-negation",
    pairs: Pairs = None,
    out: Annotated[Path, typer.Option(help="The folder to write to.")] = Path("negprobe-study"),
    limit: Limit = None,
    cues: Cues = None,
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
        _Effort, typer.Option(help="Circuit search: thorough evaluates several times as many sets of components.")
    ] = _Effort.FAST,
    objective: Objective = None,
    smallest_effect: Annotated[
        float,
        typer.Option(
            min=0,
            help="Smallest effect of interest, in standard deviations of the pairs' effects (|d_z|): a head is named "
            "if its whole interval is beyond it.",
        ),
    ] = 0.5,  # statistics.SMALLEST_EFFECT, which takes long to import
    revision: Revision = None,
    prompt: Prompt = None,
    labels: Labels = None,
    device: Device = None,
    dtype: Dtype = _Dtype.FLOAT32,
    engine: Annotated[
        str, typer.Option(help="Execution backend: 'local', or 'ray' for the workers of a Ray cluster.")
    ] = "local",
    cluster_by: Annotated[
        str | None,
        typer.Option(
            help="Column that says which pairs share material: an extra column, cue, category, source, original or "
            "target (default: the column cluster, or what the data set says)."
        ),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the bootstrap, the sign flips and the circuit search.")] = 0,
    figures: Annotated[
        list[_FigureFormat] | None,
        typer.Option(
            help="Another file format for the figures, in addition to PNG; repeat the option for several. Running a "
            "finished study again with this option does not measure it again."
        ),
    ] = None,
) -> None:
    """Measure and patch every head of a model on many pairs, and write a report."""
    from negprobe.statements import clustered_by, load_pairs
    from negprobe.study import run_study
    from negprobe.study.engines import cluster_device, on_ray
    from negprobe.study.folder import identity, options_of_study, study_folder
    from negprobe.views import write_study
    from negprobe.views.report.findings import findings, left_out

    with clear_errors(), _lexicon(cues):
        if engine not in ("local", "ray"):
            raise NegprobeError(f"Unknown engine {engine!r}; choose 'local' or 'ray'.")
        # Checked first, so that a folder that cannot be written to is reported before anything is measured.
        _make_folder(out)
        names = pairs or [BUILTIN]
        loaded = load_pairs(*names, limit=limit)
        chosen = loaded.pairs if cluster_by is None else clustered_by(loaded.pairs, cluster_by)
        workers = cluster_device(device) if engine == "ray" else None
        encoder = _encoder(model, revision, device, dtype, prompt, labels=labels)
        options = options_of_study(
            encoder,
            patch_pairs=patch_pairs,
            circuit_pairs=circuit_pairs,
            contribution_pairs=contribution_pairs,
            circuit_effort=circuit.value,
            seed=seed,
            objective=objective,
            pairs=chosen,
        )
        # The fingerprint has the device but not the backend, so that a study can be resumed with another backend.
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
                dropped=loaded.dropped,
                patch_pairs=patch_pairs,
                circuit_pairs=circuit_pairs,
                contribution_pairs=contribution_pairs,
                circuit_effort=circuit.value,
                objective=objective,
                smallest_effect=smallest_effect,
                seed=seed,
                shards=shards,
                engine=None
                if workers is None
                else on_ray(
                    partial(_encoder, *_same_model(encoder, model), workers, dtype, prompt, labels=labels), workers
                ),
                progress=report_progress,
            )
            report_progress("writing the report", 0, 1)
            report = write_study(results, out, _command_line(), figure_formats=[one.value for one in figures or ()])
            report_progress("writing the report", 1, 1)
        summary = results.summary
        for sentence in [*left_out(summary), *findings(summary)]:
            console.print(f"• {sentence}")
        _print_path("\nReport: ", report)


@app.command(name="figures")
def draw_again(
    folder: Annotated[Path, typer.Argument(help="The folder of a finished study.")],
    formats: Annotated[
        list[_FigureFormat], typer.Option("--format", help="File format of the figures; repeat the option for several.")
    ],
) -> None:
    """Draw the figures of a finished study again in another format, from the files in its folder."""
    from negprobe.views import draw_figures

    with clear_errors():
        with console.status("Drawing the figures"):
            written, not_saved = draw_figures(folder, [one.value for one in formats])
        if not_saved:
            _print_notes(
                f"Not drawn: {', '.join(not_saved)}. This study was run with an earlier version of negprobe, which did "
                "not save the data of these figures; run the study in a new folder to draw them."
            )
        _print_path(f"{len(written)} figures: ", folder / "figures")


@app.command()
def compare(
    original: Annotated[str, typer.Argument(help="A statement.")],
    counterfactual: Annotated[str, typer.Argument(help="The same statement with its negation changed.")],
    model: Model = "tiny-negation",
    revision: Revision = None,
    prompt: Prompt = None,
    labels: Labels = None,
    cues: Cues = None,
    out: Annotated[Path, typer.Option(help="The folder to write to.")] = Path("negprobe-compare"),
    device: Device = None,
    dtype: Dtype = _Dtype.FLOAT32,
) -> None:
    """Compare the two statements of a pair, head by head: metrics, heatmaps and an interactive page."""
    from negprobe.attention import MAP_METRICS, METRICS, AttentionProbe
    from negprobe.base.files import write_csv
    from negprobe.views import four_heatmaps, metric_overview, save_figure, write_page
    from negprobe.views.page.page import PageTooLargeError

    with clear_errors(), _lexicon(cues):
        encoder = _encoder(model, revision, device, dtype, prompt, labels=labels)
        probe = AttentionProbe(encoder)
        with printed_warnings():
            comparison = probe.compare(original, counterfactual, zeroing=True)
        metrics = comparison.metrics[list(METRICS)].assign(undefined=comparison.undefined)
        table = metrics.reset_coords(drop=True).to_dataframe().reset_index()
        strongest = table.sort_values("mean_attention_diff", ascending=False)
        columns = ["layer", "head", *MAP_METRICS, "js_divergence", "attention_to_cue", "norm_to_cue"]
        _print_table(
            strongest[columns].head(10), "Heads with the largest change in attention (metrics.csv has all metrics)"
        )
        layer, head = (int(strongest.iloc[0][name]) for name in ("layer", "head"))
        _make_folder(out)
        write_csv(table, out / "metrics.csv")
        save_figure(metric_overview(comparison), out / "metrics.png")
        save_figure(four_heatmaps(comparison, layer, head), out / f"heatmaps-{layer}.{head}.png")
        try:
            page = write_page([comparison], out / "attention.html", title=f"{original} / {counterfactual}")
        except PageTooLargeError as error:
            console.print(f"• There is no interactive page. {error} negprobe view sets the limit with --max-megabytes.")
            _print_path("Metrics and figures: ", out)
        else:
            _print_path("Metrics, figures and the interactive page: ", page)


@app.command()
def view(
    pairs: Pairs = None,
    model: Model = "tiny-negation",
    revision: Revision = None,
    prompt: Prompt = None,
    labels: Labels = None,
    limit: Annotated[
        int, typer.Option(min=1, help="Show at most this many pairs of each data set, the first ones.")
    ] = 50,
    cues: Cues = None,
    out: Annotated[Path, typer.Option(help="The page to write.")] = Path("negprobe-view.html"),
    max_megabytes: Annotated[
        int, typer.Option(min=1, help="Maximum size of the maps in MB before compression, which roughly halves it.")
    ] = 40,
    device: Device = None,
    dtype: Dtype = _Dtype.FLOAT32,
) -> None:
    """Write an interactive page that shows the attention of both statements of every pair, for every layer and head."""
    from negprobe.attention import AttentionProbe
    from negprobe.statements import load_pairs, pair_notes
    from negprobe.views.page.page import PageTooLargeError, write_pairs_page

    with clear_errors(), _lexicon(cues):
        _make_folder(out.parent)
        loaded = load_pairs(*(pairs or [BUILTIN]), limit=limit)
        chosen = loaded.pairs
        _print_notes(*(f"left out {reason}" for reason in loaded.dropped), *pair_notes(chosen))
        encoder = _encoder(model, revision, device, dtype, prompt, labels=labels)
        with console.status(f"Comparing {len(chosen)} pairs"), printed_warnings():
            probe = AttentionProbe(encoder)
            try:
                page, left_out, not_zeroed = write_pairs_page(probe, chosen, out, max_bytes=max_megabytes * 1_000_000)
            except PageTooLargeError as error:
                raise NegprobeError(f"{error} The option --max-megabytes sets max_bytes.") from error
        for note in [*(f"{note} --max-megabytes sets the limit." for note in left_out), *not_zeroed]:
            console.print(f"• {note}")
        _print_path(f"{len(chosen)} pairs{' except those left out' if left_out else ''}: ", page)


@app.command(name="pairs")
def list_pairs(
    data: Annotated[
        list[str] | None,
        typer.Argument(metavar="[FILE]...", help="'builtin', files of pairs, or public data sets (default: builtin)."),
    ] = None,
    model: Annotated[str, typer.Option(help=f"The model with the tokenizer: {_MODEL_HELP}")] = "tiny-negation",
    revision: Revision = None,
    prompt: Prompt = None,
    limit: Limit = None,
    cues: Cues = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="A .jsonl file to write the pairs to, with what was found; correct it and use it as --pairs."
        ),
    ] = None,
) -> None:
    """List pairs with their cue, affected word, alignment and control, before anything is measured."""
    from negprobe.pair_listing import pair_block, summary_tables, write_pairs
    from negprobe.statements import overview

    with clear_errors(), _lexicon(cues):
        if out is not None:
            if out.suffix != ".jsonl":
                raise NegprobeError(f"{out} is not a .jsonl file; choose another name with --out.")
            _make_folder(out.parent)
        chosen = _loaded(data, limit)
        encoder = _encoder(model, revision, "cpu", _Dtype.FLOAT32, prompt)
        if encoder.tokenizer is None:
            raise NegprobeError(f"{model} has no tokenizer; choose another with --model.")
        with console.status(f"Preparing {len(chosen)} pairs"):
            found = overview(chosen, encoder.tokenizer, n_ctx=encoder.cfg.n_ctx)
        for number, one in enumerate(found, start=1):
            console.print(pair_block(number, one))
        for table in summary_tables(found):
            console.print(table)
        if out is not None:
            write_pairs([one.pair for one in found], out)
            _print_path("Pairs: ", out)


@app.command(name="report")
def compare_reports(
    a: Annotated[Path, typer.Argument(help="The folder of a study.")],
    b: Annotated[Path, typer.Argument(help="The folder of another study of the same pairs.")],
    out: Annotated[Path, typer.Option(help="The page to write.")] = Path("negprobe-report.html"),
) -> None:
    """Compare two studies of the same pairs, of two models or of one model before and after fine-tuning."""
    from negprobe.study.comparison import compare_studies
    from negprobe.study.saved import read_study
    from negprobe.views.report.comparison import write_comparison
    from negprobe.views.report.comparison_findings import answer

    with clear_errors():
        if a.resolve() == b.resolve():
            raise NegprobeError(f"{a} and {b} are the same folder; give the folders of two studies.")
        _make_folder(out.parent)
        with console.status("Comparing the studies"):
            compared = compare_studies(read_study(a), read_study(b))
            page = write_comparison(compared, out, _command_line())
        for sentence in answer(compared.summary):
            console.print(f"• {sentence}")
        _print_path(f"\nA is {a}, B is {b}. Report: ", page)


@app.command(name="patch")
def patch_pairs(
    original: Annotated[
        str | None, typer.Argument(help="A statement, with [MASK] for a masked LM. Without it, data sets are patched.")
    ] = None,
    counterfactual: Annotated[str | None, typer.Argument(help="The same statement with its negation changed.")] = None,
    target: Annotated[str | None, typer.Option(help="The right word or label for the original.")] = None,
    foil: Annotated[str | None, typer.Option(help="The right word or label for the counterfactual.")] = None,
    control: Annotated[
        str | None,
        typer.Option(
            help="The counterfactual with its cue replaced by neutral words of as many tokens (default: negprobe looks "
            "for one)."
        ),
    ] = None,
    no_control: Annotated[
        bool, typer.Option("--no-control", help="Swap with the original even if there is a control.")
    ] = False,
    pairs: Pairs = None,
    limit: Limit = None,
    cues: Cues = None,
    site: Annotated[
        list[str] | None,
        typer.Option(
            help="Where to patch, such as resid_pre, attn_out, mlp_out, z or attn_scores; repeat the option for "
            "several (default: the first four)."
        ),
    ] = None,
    by: Annotated[
        _By | None,
        typer.Option(
            help="What varies besides the layer (default: position or head for one pair, role or head,role for data "
            "sets)."
        ),
    ] = None,
    direction: Annotated[
        list[_Direction] | None,
        typer.Option(help="denoising patches the counterfactual's run, noising the other run (default: both)."),
    ] = None,
    how: Annotated[_How, typer.Option(help="What replaces an activation.")] = _How.SWAP,
    keys: Annotated[
        str | None, typer.Option(help="At attn_scores or pattern: patch only the attention to keys of this role.")
    ] = None,
    renormalize: Annotated[
        bool, typer.Option("--renormalize", help="At pattern: scale the patched rows to sum to 1 again.")
    ] = False,
    attribution: Annotated[
        bool,
        typer.Option(
            "--attribution", help="Also estimate the effects from gradients, and compare them with the exact effects."
        ),
    ] = False,
    steps: Annotated[int, typer.Option(min=1, help="Steps of the integrated gradients for --attribution.")] = 8,
    objective: Objective = None,
    model: Model = "tiny-negation",
    revision: Revision = None,
    prompt: Prompt = None,
    labels: Labels = None,
    out: Annotated[Path, typer.Option(help="The folder to write to.")] = Path("negprobe-patch"),
    seed: Annotated[int, typer.Option(min=0, help="Seed of resampling and of the bootstrap.")] = 0,
    device: Device = None,
    dtype: Dtype = _Dtype.FLOAT32,
) -> None:
    """Patch activations between the two runs of one pair of statements, or of all pairs of data sets.

    As in a study, activations are swapped between the counterfactual and its control if one is given or found, and
    otherwise between the counterfactual and the original. For one pair, maps and patching.csv are written to OUT. For
    data sets, maps, the results of every sweep as NetCDF, and averages.parquet with bootstrap intervals are written.
    """
    from negprobe.patching import planned_sweeps

    with clear_errors(), _lexicon(cues):
        if (original is None) != (counterfactual is None):
            raise NegprobeError("Give both statements of a pair, or neither of them to patch data sets.")
        if no_control and control is not None:
            raise NegprobeError("--control and --no-control exclude each other; give only one of them.")
        if original is None and (target or foil or control):
            raise NegprobeError("--target, --foil and --control apply to one pair; give its two statements.")
        if original is not None and (pairs or limit is not None or attribution):
            raise NegprobeError("--pairs, --limit and --attribution apply to data sets; leave out the two statements.")
        one_pair = original is not None
        # Checked before the model is loaded, so that a mistake is reported immediately.
        sweeps = planned_sweeps(
            site,
            by=None if by is None else tuple(by.value.split(",")),  # type: ignore[arg-type]
            heads_by=("head",) if one_pair else ("head", "role"),
            other_by=("position",) if one_pair else ("role",),
            directions=None if direction is None else [way.value for way in direction],
            how=how.value,
            keys=keys,
            renormalize=renormalize,
        )
        _make_folder(out)
        encoder = _encoder(model, revision, device, dtype, prompt, labels=labels)
        if original is not None and counterfactual is not None:
            _patch_one_pair(
                encoder, (original, counterfactual, target, foil, control), no_control, sweeps, objective, seed, out
            )
        else:
            loaded = _loaded(pairs, limit)
            estimates = (None, steps) if attribution else ()
            _patch_data_sets(encoder, loaded, no_control, sweeps, estimates, objective, seed, out)


def _patch_one_pair(
    encoder: "HookedEncoder",
    texts: tuple[str, str, str | None, str | None, str | None],
    no_control: bool,
    sweeps: "Sequence[PlannedSweep]",
    objective: str | None,
    seed: int,
    out: Path,
) -> None:
    """Draw the sweeps of one pair, write their numbers, and print the largest effects of the last one."""
    from negprobe.base.errors import PatchingError
    from negprobe.base.files import write_csv
    from negprobe.patching import effect, objective_named, patchable_pairs, readable_pairs, run_sweeps
    from negprobe.patching.effects import RUN_NAMES
    from negprobe.statements import StatementPair
    from negprobe.statements.unknown import warn_of_unknown_words
    from negprobe.study.tables import patching_table
    from negprobe.views import patching_map, save_figure

    pair = StatementPair(*texts)
    patched_objective = objective_named(encoder, objective, [pair])
    if pair.control is not None and (problem := readable_pairs(encoder, [pair]).invalid_controls.get(0)):
        raise PatchingError(f"This control cannot be used: {problem}. Give another, or leave it out.")
    swaps = patchable_pairs(encoder, [pair], with_control=not no_control).swaps
    swap = swaps[0]
    with printed_warnings():
        warn_of_unknown_words(swap.statements, encoder.tokenizer)
    if swap.pair.control is not None:
        console.print(f"Swapped with the control: {swap.pair.control}")
    elif not no_control:
        console.print("No control of the counterfactual's length was found; swapped with the original.")
    results = {}
    for sweep, found in run_sweeps(encoder, swaps, sweeps, objective=patched_objective, seed=seed):
        results[sweep.site, sweep.direction] = found
        if len(sweep.by) == 1:
            save_figure(patching_map(effect(found).squeeze("pair")), out / f"{sweep.site}-{sweep.direction}.png")
    write_csv(patching_table(results), out / "patching.csv")
    source, base = (found[name].item() for name in RUN_NAMES[::-1])
    console.print(
        f"{found.attrs['objective']}: {found['source'].item():.3f} on the {source}, "
        f"{found['base'].item():.3f} on the {base}."
    )
    if effect(found).attrs["near_zero_gap"]:
        console.print("The two runs give the same answer, so swaps have no effect to measure.")
    table = effect(found).squeeze("pair", drop=True).to_dataframe("effect").reset_index().dropna(subset="effect")
    parts = "Heads" if sweep.by == ("head",) else f"{sweep.site}: parts"
    _print_table(
        table[[*effect(found).dims[1:], "effect"]].sort_values("effect", ascending=False).head(10),
        f"{parts} that restore the {source}'s answer most",
    )
    _print_path("Maps and numbers: " if any(len(one.by) == 1 for one in sweeps) else "Numbers: ", out)


def _patch_data_sets(
    encoder: "HookedEncoder",
    pairs: "Sequence[StatementPair]",
    no_control: bool,
    sweeps: "Sequence[PlannedSweep]",
    estimates: Sequence[int | None],
    objective: str | None,
    seed: int,
    out: Path,
) -> None:
    """Write the results of each sweep of many pairs, its map and its averages, and print the largest effects."""
    import pandas as pd

    from negprobe.base.files import whole_file, write_csv
    from negprobe.patching import (
        estimate_agreement,
        mean_effect,
        objective_named,
        patchable_pairs,
        run_sweeps,
        save_results,
        sweep_averages,
    )
    from negprobe.views import patching_map, save_figure

    patched_objective = objective_named(encoder, objective, pairs)
    ready = patchable_pairs(encoder, pairs, with_control=not no_control)
    _print_notes(*(f"left out {reason}" for reason in ready.left_out))
    averages, agreements, worst = [], [], []
    with progress_on(console) as progress:
        for sweep, results in run_sweeps(
            encoder, ready.swaps, sweeps, objective=patched_objective, seed=seed, progress=progress
        ):
            save_results(results, out / f"{sweep.name}.nc")
            averages.append(sweep_averages(sweep, results, seed=seed))
            if len(sweep.by) == 1:
                mean = mean_effect(results).dropna(sweep.by[0], how="all")
                save_figure(patching_map(mean), out / f"{sweep.name}.png")
            if estimates:
                found = estimate_agreement(
                    encoder, ready.swaps, sweep, results, objective=patched_objective, steps=estimates
                )
                agreements.append(found[0])
                worst.append(found[1])
    table = pd.concat(averages, ignore_index=True)
    with whole_file(out / "averages.parquet") as part:
        table.to_parquet(part, index=False)
    _print_table(_largest(table), "The largest mean effects")
    if estimates:
        _print_table(pd.concat(agreements), "Estimates from gradients compared with the exact mean effects")
        write_csv(pd.concat(worst), out / "largest_differences.csv")
    _print_path(f"{len(sweeps)} sweeps of {len(ready.swaps)} pairs: ", out)


def _largest(averages: "pd.DataFrame") -> "pd.DataFrame":
    """The ten largest mean effects of several sweeps, with few columns for a narrow terminal."""
    largest = averages.sort_values("effect", key=abs, ascending=False).head(10)
    parts = [name for name in ("head", "role", "position") if name in largest]
    named = [
        " ".join(str(part) if name == "role" else f"{name} {part:.0f}" for name, part in row.items() if part == part)
        for row in largest[parts].to_dict("records")
    ]
    intervals = [f"{low:.2f} to {high:.2f}" for low, high in zip(largest["low"], largest["high"], strict=True)]
    return largest.assign(sweep=largest["site"] + " " + largest["direction"], part=named, interval=intervals)[
        ["sweep", "layer", "part", "effect", "interval", "n_pairs"]
    ]


@app.command(name="find-circuit")
def search_circuit(
    model: Annotated[str, typer.Argument(help=_MODEL_HELP)] = "tiny-negation",
    pairs: Pairs = None,
    limit: Limit = None,
    cues: Cues = None,
    sample: Annotated[int | None, typer.Option(min=4, help="Use only this many of the pairs, drawn at random.")] = None,
    no_control: Annotated[
        bool, typer.Option("--no-control", help="Compare with the original even if there is a control.")
    ] = False,
    objective: Objective = None,
    direction: Annotated[
        _Direction, typer.Option(help="denoising keeps the counterfactual's run, noising the other run.")
    ] = _Direction.DENOISING,
    ranking: Annotated[
        _Ranking, typer.Option(help="Rank components by patching each one (exact), or by estimates from gradients.")
    ] = _Ranking.EXACT,
    ablation: Annotated[
        _Ablation, typer.Option(help="What replaces the activations of the components outside the circuit.")
    ] = _Ablation.MEAN,
    threshold: Annotated[float, typer.Option(help="Faithfulness to reach, above 0 and at most 1.")] = 0.9,
    effort: Annotated[
        _Effort, typer.Option(help="thorough evaluates several times as many sets of components.")
    ] = _Effort.FAST,
    out: Annotated[Path, typer.Option(help="The folder to write to.")] = Path("negprobe-circuit"),
    seed: Annotated[int, typer.Option(min=0, help="Seed of sample, split, random sets and bootstrap.")] = 0,
    revision: Revision = None,
    prompt: Prompt = None,
    labels: Labels = None,
    device: Device = None,
    dtype: Dtype = _Dtype.FLOAT32,
) -> None:
    """Find a small circuit of heads and MLPs that processes negation, and test it on held-out pairs.

    circuit.json (for Circuit.load), circuit.png and faithfulness.png are written to OUT.
    """
    from negprobe.attention import AttentionProbe, head_story
    from negprobe.patching import find_circuit, objective_named, patchable_pairs
    from negprobe.views import circuit_graph, faithfulness_curve, head_sentence, save_figure

    with clear_errors(), _lexicon(cues):
        if not 0 < threshold <= 1:
            raise NegprobeError(f"--threshold must be above 0 and at most 1, got {threshold}.")
        _make_folder(out)
        encoder = _encoder(model, revision, device, dtype, prompt, labels=labels)
        loaded = _loaded(pairs, limit)
        searched_objective = objective_named(encoder, objective, loaded)
        ready = patchable_pairs(encoder, loaded, with_control=not no_control)
        _print_notes(*(f"left out {reason}" for reason in ready.left_out))
        swaps = list((ready if sample is None else ready.sample(sample, seed=seed)).swaps.values())
        with progress_on(console) as progress:
            circuit = find_circuit(
                encoder,
                swaps,
                ranking=ranking.value,
                direction=direction.value,
                ablation=ablation.value,
                objective=searched_objective,
                threshold=threshold,
                effort=effort.value,
                seed=seed,
                progress=progress,
            )
        circuit.save(out / "circuit.json")
        readings = AttentionProbe(encoder).readings([swap.pair for swap in swaps])
        save_figure(circuit_graph(circuit, readings), out / "circuit.png")
        save_figure(faithfulness_curve(circuit), out / "faithfulness.png")
        console.print(f"{circuit}.", soft_wrap=True)
        heads = [(part.layer, part.head) for part in circuit.components if part.head is not None]
        n_heads = encoder.cfg.n_layers * encoder.cfg.n_heads
        console.print(f"{len(heads)} of {n_heads} heads. What the highest-ranked heads attend to:")
        _print_notes(*(head_sentence(head_story(readings, layer, head)) for layer, head in heads[:_SHOWN_HEADS]))
        _print_path("Circuit and figures: ", out)


@app.command(name="evaluate")
def evaluate_model(
    dataset: Annotated[
        str, typer.Argument(help="'builtin', a file or folder of a public data set, or its name on the hub.")
    ],
    model: Annotated[str | None, typer.Option(help=f"{_MODEL_HELP} By default 'tiny-negation'.")] = None,
    revision: Revision = None,
    prompt: Prompt = None,
    labels: Labels = None,
    predictions: Annotated[
        Path | None,
        typer.Option(
            help="A file with predictions to score instead of a model: for each statement, a line with its most "
            "probable words."
        ),
    ] = None,
    cues: Cues = None,
    out: Annotated[Path | None, typer.Option(help="A .csv or .parquet file to write the scores to.")] = None,
    device: Device = None,
    dtype: Dtype = _Dtype.FLOAT32,
) -> None:
    """Score what a model answers on NEG-136, NEG-1500, ScoNe, MoNLI, BLiMP or pairs with a [MASK]."""
    import pandas as pd

    from negprobe.base.files import whole_file, write_csv
    from negprobe.behaviour import builtin_set, evaluate, read_predictions, scored_sets

    with clear_errors(), _lexicon(cues):
        # Checked first, so that a wrong file name is reported before anything is evaluated.
        if out is not None:
            if out.suffix not in (".csv", ".parquet"):
                raise NegprobeError(f"{out} is neither a .csv nor a .parquet file; choose another name with --out.")
            _make_folder(out.parent)
        sets, useless = ([builtin_set()], ()) if dataset == BUILTIN else scored_sets(dataset)
        words = read_predictions(predictions) if predictions is not None else None
        name = model or ("tiny-negation" if words is None else None)
        for option, value in (("--revision", revision), ("--prompt", prompt), ("--labels", labels)):
            if name is None and value is not None:
                raise NegprobeError(f"{option} applies only to --model; give --model, or leave out {option}.")
        encoder = _encoder(name, revision, device, dtype, prompt, labels=labels) if name is not None else None
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
        # Notes first, because there may be many and the table should stay visible.
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
    """Show versions and devices, and check that the bundled model answers right and that the hub can be reached."""
    from negprobe.doctor import checks

    with clear_errors():
        table = Table(show_header=False)
        found = list(checks())
        for check in found:
            table.add_row(check.name, check.found, _VERDICTS[check.passed])
        console.print(table)
        if any(check.passed is False for check in found):
            raise typer.Exit(1)


@contextmanager
def _lexicon(file: Path | None) -> Iterator[None]:
    """Use the cues of a file, in addition to the English ones, in the block."""
    if file is None:
        yield
        return
    from negprobe.statements import read_lexicon, use_lexicon

    before = use_lexicon(read_lexicon(file))
    try:
        yield
    finally:
        use_lexicon(before)


@contextmanager
def _threads(number: int) -> Iterator[None]:
    """Use this number of threads in the block, because the number affects rounding (see `StudyFolder.threads`)."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def _resumable(out: Path) -> Iterator[None]:
    """If Ctrl-C or SIGTERM stops a study, clean up unfinished files and print how to resume.

    The exit status is 128 plus the number of the signal, as in a shell.
    """

    def stop(number: int, _: object) -> None:
        raise _StoppedError(number)

    stopping = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.signal(number, stop) for number in stopping}
    try:
        yield
    except _StoppedError as stopped:
        # A second signal must not interrupt the exit.
        for number in stopping:
            signal.signal(number, signal.SIG_IGN)
        errors.print(
            f"Stopped. The finished measurements are kept in {out}; run the same command again to resume.",
            soft_wrap=True,
        )
        raise typer.Exit(128 + stopped.number) from stopped
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class _StoppedError(BaseException):
    """A signal that stops a study. Like KeyboardInterrupt it is no Exception, so that no error handler catches it."""

    def __init__(self, number: int) -> None:
        self.number = number


def _encoder(
    model: str,
    revision: str | None,
    device: str | None,
    dtype: _Dtype,
    prompt: str | None,
    *,
    labels: str | None = None,
) -> "HookedEncoder":
    import torch

    from negprobe.models import HookedEncoder

    with printed_warnings():
        return HookedEncoder.from_pretrained(
            model,
            revision=revision,
            device=device,
            dtype=getattr(torch, dtype),
            prompt=prompt,
            labels=_label_names(labels),
        )


def _label_names(labels: str | None) -> dict[str, str] | list[str] | None:
    """The names in --labels: a list, or new names by the present ones."""
    if labels is None:
        return None
    names = [name.strip() for name in labels.split(",")]
    renamed = [name.partition("=")[::2] for name in names if "=" in name]
    if not renamed:
        return names
    present = [old.strip() for old, _ in renamed]
    if len(renamed) < len(names) or len(set(present)) < len(present):
        raise NegprobeError(
            f"--labels {labels} mixes names with renamings, or renames a label twice. Give all names, as in "
            "entailment,neutral,contradiction, or only renamings, as in LABEL_0=entailment,LABEL_2=contradiction."
        )
    return {old: new.strip() for old, (_, new) in zip(present, renamed, strict=True)}


def _same_model(encoder: "HookedEncoder", model: str) -> tuple[str, str | None]:
    """The name and revision by which another process can load the same model, even in another working directory."""
    if encoder.cfg.revision:
        return encoder.cfg.model_name, encoder.cfg.revision
    return (str(Path(model).resolve()) if Path(model).is_dir() else model), None


def _command_line() -> str:
    """The command as it was typed, for a manifest, with bytes that are not valid UTF-8 escaped."""
    return shlex.join(["negprobe", *sys.argv[1:]]).encode("utf-8", "backslashreplace").decode()


def _loaded(pairs: list[str] | None, limit: int | None) -> "tuple[StatementPair, ...]":
    """The pairs of data sets; prints which rows were left out."""
    from negprobe.statements import load_pairs

    loaded = load_pairs(*(pairs or [BUILTIN]), limit=limit)
    _print_notes(*(f"left out {reason}" for reason in loaded.dropped))
    return loaded.pairs


def _print_notes(*notes: str) -> None:
    for note in notes:
        console.print(f"• {note}", soft_wrap=True)


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
        # With spaces, long names can break over lines in a narrow terminal.
        table.add_column(str(column).replace("_", " "), justify="right", overflow="fold")
    for row in frame.itertuples(index=False):
        table.add_row(*(f"{value:.3f}" if isinstance(value, float) else str(value) for value in row))
    console.print(table)
