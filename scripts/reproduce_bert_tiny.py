"""Test the claims of the study that negprobe grew from, on its model or on another one.

    python scripts/reproduce_bert_tiny.py --out results/bert-tiny
    python scripts/reproduce_bert_tiny.py google-bert/bert-base-uncased --pairs pairs.csv --out results/bert-base

That study looked at bert-tiny (2 layers of 2 heads) and DistilBERT on five sentences. This script measures each of its
claims as a quantity over many pairs, with an interval and a test (see `original_claims.py`), and reports whether it
holds, does not hold, or is undecided. The default MODEL is bert-tiny, or the bundled tiny-negation if the hub cannot be
reached; the output states which and why.

The script writes to OUT: `claims.csv` and `claims.json` with one row per claim, `heads.parquet` with the same
quantities per head, and figures as PNG, including the four heatmaps of a model with DistilBERT's architecture.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import pandas as pd
import torch
import typer
import xarray as xr
from huggingface_hub import HfApi, snapshot_download
from huggingface_hub.errors import LocalEntryNotFoundError
from matplotlib.figure import Figure
from original_claims import Claim, answer, map_correlations, questions, with_references, without_repeats
from rich.progress import Progress
from rich.table import Table
from transformers import BertForMaskedLM, DistilBertConfig, DistilBertForMaskedLM

from negprobe.attention import AttentionProbe, Comparison
from negprobe.base.errors import ModelError
from negprobe.base.files import whole_file, write_csv
from negprobe.models import HookedEncoder
from negprobe.models.families.bert import NAMES as BERT_NAMES
from negprobe.models.families.distilbert import NAMES as DISTILBERT_NAMES
from negprobe.models.loading import BUNDLED_MODEL, find_checkpoint, read_checkpoint, read_tokenizer
from negprobe.statements import StatementPair, builtin_pairs, complete, load_pairs
from negprobe.statistics import ALPHA, effect_tests, negation_effects
from negprobe.terminal import PlainConsole, clear_errors, printed_warnings
from negprobe.views.figures.attention import four_heatmaps, raw_beside_value_weighted
from negprobe.views.figures.drawing import save_figure
from negprobe.views.figures.statistics import (
    attention_distance_by_layer,
    diffusion_by_role,
    effect_map,
    raw_against_norm,
)

BERT_TINY = ("prajjwal1/bert-tiny", "google/bert_uncased_L-2_H-128_A-2", "nreimers/BERT-Tiny_L-2_H-128_A-2")
"""Hub names of the study's model: the study's, the authors' own, and a copy. The first with safetensors is used."""

DISTILBERT = "distilbert/distilbert-base-uncased"

_SECONDS_FOR_THE_HUB = 5
_EMBEDDINGS = ("word_embeddings.weight", "LayerNorm.weight", "LayerNorm.bias")
_PER_LAYER = ("attention_q", "attention_k", "attention_v", "attention_out", "ln1", "mlp_in", "mlp_out", "ln2")
_OF_HEAD = ("lm_dense", "lm_ln", "lm_decoder")


@dataclass(frozen=True)
class Taken:
    """A model, and the reason why it was chosen.

    Attributes:
        model: The model.
        name: Its name in the output.
        why: Why it was chosen.
    """

    model: HookedEncoder
    name: str
    why: str


def hub_problem() -> str:
    """Why the hub cannot be reached, checked with a short timeout; empty if it can."""
    try:
        HfApi().model_info(DISTILBERT, timeout=_SECONDS_FOR_THE_HUB)
    except Exception as error:  # no network, a proxy and offline mode all raise different errors
        return f"the hub cannot be reached ({type(error).__name__})"
    return ""


def from_hub(name: str, problem: str) -> HookedEncoder:
    """A model from the hub; if `problem` is not empty, from the hub's local cache only.

    Raises:
        ModelError: if the model is not found or cannot be read.
    """
    if not problem:
        return HookedEncoder.from_pretrained(name)
    try:
        return HookedEncoder.from_pretrained(snapshot_download(name, local_files_only=True))
    except LocalEntryNotFoundError as error:
        raise ModelError(f"{problem}, and {name!r} is not in its local cache.") from error


def chosen_model(requested: str | None, problem: str) -> Taken:
    """The requested model; by default the study's model, or the bundled one if that cannot be loaded.

    Args:
        requested: A model; None for the study's.
        problem: The result of `hub_problem`.

    Raises:
        ModelError: if a requested model cannot be read.
    """
    if requested is not None:
        return Taken(HookedEncoder.from_pretrained(requested), requested, "it was requested.")
    reasons = []
    for name in BERT_TINY:
        try:
            found = from_hub(name, problem)
        except ModelError as error:
            reasons.append(f"Not {name}: {error}")
        else:
            return Taken(found, name, " ".join(["it is the study's model.", *reasons]))
    if problem:
        reasons = [f"{problem}, and the study's model is not in its local cache."]
    why = " ".join(["it is bundled and replaces the study's model:", *reasons])
    return Taken(HookedEncoder.from_pretrained(BUNDLED_MODEL), BUNDLED_MODEL, why)


def chosen_distilbert(requested: str | None, problem: str) -> Taken:
    """The requested DistilBERT; by default the one on the hub, or the bundled model in its architecture.

    Raises:
        ModelError: if a requested model cannot be read.
    """
    if requested is not None:
        return Taken(HookedEncoder.from_pretrained(requested), requested, "it was requested.")
    try:
        return Taken(from_hub(DISTILBERT, problem), DISTILBERT, "it is the study's second model.")
    except ModelError as error:
        folder = find_checkpoint(BUNDLED_MODEL).folder
        bert, _ = read_checkpoint(folder, BUNDLED_MODEL, torch.float32)
        tokenizer = read_tokenizer(folder, bert, BUNDLED_MODEL)
        name = f"{BUNDLED_MODEL}'s weights in DistilBERT's architecture"
        model = HookedEncoder.from_pretrained(name, hf_model=as_distilbert(bert), tokenizer=tokenizer)
        return Taken(model, name, f"it replaces {DISTILBERT}: {error}")


def as_distilbert(bert: BertForMaskedLM) -> DistilBertForMaskedLM:
    """A DistilBERT with the weights of a BERT, which computes the same for single texts.

    DistilBERT has no token types, so the token-type embedding of single texts is added to the position embeddings.

    Raises:
        ModelError: if the epsilon of the BERT's LayerNorms differs from DistilBERT's, which is fixed.
    """
    cfg = bert.config
    if cfg.layer_norm_eps != 1e-12:
        raise ModelError(
            f"DistilBERT's LayerNorms have epsilon 1e-12, but this model's have {cfg.layer_norm_eps:g}; give a BERT "
            "with epsilon 1e-12."
        )
    config = DistilBertConfig(
        vocab_size=cfg.vocab_size,
        max_position_embeddings=cfg.max_position_embeddings,
        n_layers=cfg.num_hidden_layers,
        n_heads=cfg.num_attention_heads,
        dim=cfg.hidden_size,
        hidden_dim=cfg.intermediate_size,
        activation=cfg.hidden_act,
        pad_token_id=cfg.pad_token_id,
    )
    source, target = BERT_NAMES, DISTILBERT_NAMES
    renamed = {getattr(source, part): getattr(target, part) for part in _OF_HEAD}
    for layer in range(cfg.num_hidden_layers):
        of, to = (f"{names.prefix}.{names.blocks}.{layer}" for names in (source, target))
        renamed |= {f"{of}.{getattr(source, part)}": f"{to}.{getattr(target, part)}" for part in _PER_LAYER}
    theirs = bert.state_dict()
    weights = {f"{to}.{kind}": theirs[f"{of}.{kind}"] for of, to in renamed.items() for kind in ("weight", "bias")}
    embeddings = f"{source.prefix}.embeddings"
    weights |= {f"{target.prefix}.embeddings.{part}": theirs[f"{embeddings}.{part}"] for part in _EMBEDDINGS}
    weights[f"{target.prefix}.embeddings.position_embeddings.weight"] = (
        theirs[f"{embeddings}.position_embeddings.weight"] + theirs[f"{embeddings}.token_type_embeddings.weight"][0]
    )
    distilbert = DistilBertForMaskedLM(config).to(bert.dtype)
    distilbert.load_state_dict(weights)
    return distilbert.eval()


def measured(model: HookedEncoder, pairs: Sequence[StatementPair], console: PlainConsole) -> xr.Dataset:
    """Everything that the claims use: the metrics, their references, and the correlations of the maps."""
    probe = AttentionProbe(model)
    with Progress(console=console, transient=True) as bar:
        task = bar.add_task("Measuring", total=len(pairs))
        metrics = probe.metrics(pairs, progress=lambda _, done, total: bar.update(task, completed=done))
    return with_references(metrics, pairs, model.tokenizer).merge(map_correlations(probe, pairs))


def figures_of(metrics: xr.Dataset, model: HookedEncoder, example: StatementPair, name: str) -> dict[str, Figure]:
    """The figures of the claims, by file name; those that compare with a neutral word only if a pair has a control."""
    drawn = {"distance": attention_distance_by_layer(metrics), "diffusion": diffusion_by_role(metrics)}
    of_affected = {
        "affected word, attention_to_cue": "attention_to_cue_by_role",
        "affected word, attention_from_cue": "attention_from_cue_by_role",
    }
    by_role = metrics[list(of_affected.values())].sel(role="affected", drop=True)
    effects = negation_effects(by_role.rename({variable: title for title, variable in of_affected.items()}))
    for title, file in zip(of_affected, ("to_cue", "from_cue"), strict=True):
        if effects[title].notnull().any():
            drawn[file] = effect_map(effect_tests(effects), title)
    shares = negation_effects(metrics[["attention_to_cue", "norm_to_cue"]])
    if shares["attention_to_cue"].notnull().any():
        drawn["raw_against_norm"] = raw_against_norm(effect_tests(shares))
    comparison = AttentionProbe(model).compare(example)
    drawn["heatmaps"] = head_that_changes_most(comparison, name)
    correlation = metrics["raw_norm_correlation"].mean("pair")
    if correlation.notnull().any():
        layer, head = (int(index) for index in correlation.argmin(("layer", "head")).values())
        drawn["disagreement"] = raw_beside_value_weighted(comparison.counterfactual, layer, head)
        _add_to_title(drawn["disagreement"], f"of {name}, with the largest disagreement of raw and norm-weighted maps")
    return drawn


def head_that_changes_most(comparison: Comparison, name: str) -> Figure:
    """The four heatmaps of the head with the largest change in attention, with the model's name in the title."""
    strongest = comparison.metrics["mean_attention_diff"].argmax(("layer", "head"))
    layer, head = (int(index) for index in strongest.values())
    figure = four_heatmaps(comparison, layer, head)
    _add_to_title(figure, f"of {name}, with the largest change in attention")
    return figure


def _add_to_title(figure: Figure, more: str) -> None:
    figure.suptitle(f"{figure.get_suptitle()} {more}", fontsize=10, parse_math=False)


def print_claims(claims: Sequence[Claim], console: PlainConsole) -> None:
    """Print a table of the claims, and each claim as a sentence."""
    table = Table(title="The claims of the original study")
    for column in ("", "claim", "measured", "border", "p", "pairs", "verdict"):
        table.add_column(column, justify="right" if column in ("measured", "border", "p", "pairs") else "left")
    for claim in claims:
        numbers = [f"{number:.3g}" for number in (claim.value, claim.border, claim.p)]
        value, border, p = ("–" if number == "nan" else number for number in numbers)
        where = f"{claim.claim}; head {claim.head}" if claim.head else claim.claim
        table.add_row(claim.number, where, value, border, p, str(claim.n), claim.verdict)
    console.print(table)
    for claim in claims:
        console.print(f"{claim.number}. {claim.sentence()}")
    console.print(
        "Intervals are percentile bootstrap intervals; p is from sign flips over pairs. A reported head is the "
        "strongest one: its p is corrected for this choice (max-T) but its interval is not, so expect a smaller value "
        "on new pairs. If a claim holds in no head, p is the largest uncorrected p of the heads.",
    )
    console.print(not_corrected(claims))


def not_corrected(claims: Sequence[Claim]) -> str:
    """A sentence: the number of tested claims, and that the verdicts are not corrected for multiple testing."""
    tested = sum(not math.isnan(claim.p) for claim in claims)
    return f"Claims tested: {tested}, each at p ≤ {ALPHA:g}; their verdicts are not corrected for multiple testing."


def main(
    model: Annotated[
        str | None, typer.Argument(help="A model folder or hub name (default: bert-tiny, or else the bundled model).")
    ] = None,
    pairs: Annotated[str, typer.Option(help="'builtin', or a CSV, TSV or JSONL file.")] = "builtin",
    out: Annotated[Path, typer.Option(help="The folder to write to.")] = Path("negprobe-claims"),
    limit: Annotated[int | None, typer.Option(min=1, help="Use only the first pairs.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of the tests and intervals.")] = 0,
    distilbert: Annotated[
        str | None,
        typer.Option(help="The DistilBERT for the heatmaps (default: the study's, or else the bundled one)."),
    ] = None,
) -> None:
    """Test the claims on a model, and write tables and figures."""
    console = PlainConsole()
    with clear_errors(), printed_warnings():
        out.mkdir(parents=True, exist_ok=True)
        loaded = load_pairs(pairs)
        problem = "" if model and distilbert else hub_problem()
        taken, second = chosen_model(model, problem), chosen_distilbert(distilbert, problem)
        given = [complete(pair, taken.model.tokenizer) for pair in loaded.pairs[:limit]]
        chosen = without_repeats(given, taken.model.tokenizer)
        repeats = len(given) - len(chosen)
        notes = [f"left out {reason}" for reason in loaded.dropped]
        if repeats:
            notes.append(f"left out {repeats} of {len(given)} pairs: same tokens as an earlier pair")
        notes += [f"Model: {taken.name}, because {taken.why}", f"DistilBERT: {second.name}, because {second.why}"]
        for line in notes:
            console.print(line)
        metrics = measured(taken.model, chosen, console)
        answers = [answer(question, seed) for question in questions(metrics)]
        claims = [found.claim for found in answers]
        print_claims(claims, console)
        table = pd.DataFrame([asdict(claim) for claim in claims])
        write_csv(table, out / "claims.csv")
        about = {
            "model": taken.name,
            "model_because": taken.why,
            "distilbert": second.name,
            "distilbert_because": second.why,
            "pairs": pairs,
            "n_pairs": len(chosen),
            "n_repeats_left_out": repeats,
            "seed": seed,
            "correction": not_corrected(claims),
            "claims": json.loads(table.to_json(orient="records")),
        }
        with whole_file(out / "claims.json") as part:
            part.write_text(json.dumps(about, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        with whole_file(out / "heads.parquet") as part:
            pd.concat([found.heads for found in answers]).to_parquet(part, index=False)
        # The last two parts of a folder's path fit into a title; a hub name has at most two.
        drawn = figures_of(metrics, taken.model, chosen[0], "/".join(Path(taken.name).parts[-2:]))
        # Every English BERT, including the bundled model, knows the words of the built-in pairs.
        of_second = AttentionProbe(second.model).compare(builtin_pairs()[0])
        drawn["distilbert_heatmaps"] = head_that_changes_most(of_second, second.name)
        for name, figure in drawn.items():
            save_figure(figure, out / f"{name}.png")
        console.print(f"Wrote {len(claims)} claims and {len(drawn)} figures to {out}.")


if __name__ == "__main__":
    typer.run(main)
