"""Put the claims of the study negprobe grew from to the test, on its model or on any other.

    python scripts/reproduce_bert_tiny.py --out results/bert-tiny
    python scripts/reproduce_bert_tiny.py google-bert/bert-base-uncased --pairs pairs.csv --out results/bert-base

That study looked at bert-tiny (2 layers of 2 heads) and DistilBERT on five sentences. Here each of its claims is a
quantity over many pairs with an interval and a test (see `original_claims.py`), and is said to hold, not to hold, or
not to be tellable. Without MODEL it is bert-tiny, or the bundled tiny-negation where the hub cannot be reached; the
output says which and why.

OUT gets `claims.csv` and `claims.json` with a row a claim, `heads.parquet` with the same quantities head by head, and
figures as PNG, one of them the four heatmaps of a model of DistilBERT's architecture.
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
from negprobe.models.convert import FAMILIES
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
"""Hub names of the study's model: the one it used, its authors' own, and a copy; the first that has safetensors."""

DISTILBERT = "distilbert/distilbert-base-uncased"

_SECONDS_FOR_THE_HUB = 5
_EMBEDDINGS = ("word_embeddings.weight", "LayerNorm.weight", "LayerNorm.bias")
_PER_LAYER = ("attention_q", "attention_k", "attention_v", "attention_out", "ln1", "mlp_in", "mlp_out", "ln2")
_OF_HEAD = ("lm_dense", "lm_ln", "lm_decoder")


@dataclass(frozen=True)
class Taken:
    """A model, and why it was this one.

    Attributes:
        model: The model.
        name: What to call it.
        why: Why it was taken.
    """

    model: HookedEncoder
    name: str
    why: str


def hub_problem() -> str:
    """Why the hub cannot be used, found out within seconds; empty if it answers."""
    try:
        HfApi().model_info(DISTILBERT, timeout=_SECONDS_FOR_THE_HUB)
    except Exception as error:  # no network, a proxy, offline mode: each raises its own
        return f"the hub cannot be reached ({type(error).__name__})"
    return ""


def from_hub(name: str, problem: str) -> HookedEncoder:
    """A model of the hub; where there is a problem with the hub, from its local cache, without asking the network.

    Raises:
        ModelError: if it is not there or cannot be read.
    """
    if not problem:
        return HookedEncoder.from_pretrained(name)
    try:
        return HookedEncoder.from_pretrained(snapshot_download(name, local_files_only=True))
    except LocalEntryNotFoundError as error:
        raise ModelError(f"{problem}, and {name!r} is not in its cache.") from error


def chosen_model(asked: str | None, problem: str) -> Taken:
    """The model that was asked for; or the study's, from the first place with safetensors; or the bundled one.

    Args:
        asked: A model; None for the study's.
        problem: What `hub_problem` says.

    Raises:
        ModelError: if a model was asked for and cannot be read.
    """
    if asked is not None:
        return Taken(HookedEncoder.from_pretrained(asked), asked, "it was asked for.")
    reasons = []
    for name in BERT_TINY:
        try:
            found = from_hub(name, problem)
        except ModelError as error:
            reasons.append(f"Not {name}: {error}")
        else:
            return Taken(found, name, " ".join(["it is the study's model.", *reasons]))
    if problem:
        reasons = [f"{problem}, nor is the study's model in its cache."]
    why = " ".join(["it is bundled, and stands in for the study's model:", *reasons])
    return Taken(HookedEncoder.from_pretrained(BUNDLED_MODEL), BUNDLED_MODEL, why)


def chosen_distilbert(asked: str | None, problem: str) -> Taken:
    """DistilBERT as asked for, or from the hub, or the bundled model in its architecture.

    Raises:
        ModelError: if one was asked for and cannot be read.
    """
    if asked is not None:
        return Taken(HookedEncoder.from_pretrained(asked), asked, "it was asked for.")
    try:
        return Taken(from_hub(DISTILBERT, problem), DISTILBERT, "it is the study's second model.")
    except ModelError as error:
        folder = find_checkpoint(BUNDLED_MODEL).folder
        bert, _ = read_checkpoint(folder, BUNDLED_MODEL, torch.float32)
        tokenizer = read_tokenizer(folder, bert, BUNDLED_MODEL)
        name = f"{BUNDLED_MODEL}'s weights in DistilBERT's architecture"
        model = HookedEncoder.from_pretrained(name, hf_model=as_distilbert(bert), tokenizer=tokenizer)
        return Taken(model, name, f"it stands in for {DISTILBERT}: {error}")


def as_distilbert(bert: BertForMaskedLM) -> DistilBertForMaskedLM:
    """A BERT's weights in DistilBERT's architecture, which computes the same for statements of one text.

    DistilBERT has no token types: the one that all tokens of a single text have is added to the position embeddings.

    Raises:
        ModelError: if its LayerNorms have another epsilon than DistilBERT's, which is fixed.
    """
    cfg = bert.config
    if cfg.layer_norm_eps != 1e-12:
        raise ModelError(
            f"DistilBERT's LayerNorms have an epsilon of 1e-12, this model's one of {cfg.layer_norm_eps:g}; "
            "give a BERT with DistilBERT's."
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
    source, target = FAMILIES["bert"], FAMILIES["distilbert"]
    renamed = {getattr(source, part): getattr(target, part) for part in _OF_HEAD}
    for layer in range(cfg.num_hidden_layers):
        of, to = (f"{family.prefix}.{family.blocks}.{layer}" for family in (source, target))
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
    """All that the claims are about: the metrics, their references, and the correlations of the maps."""
    probe = AttentionProbe(model)
    with Progress(console=console, transient=True) as bar:
        task = bar.add_task("Measuring", total=len(pairs))
        metrics = probe.metrics(pairs, progress=lambda _, done, total: bar.update(task, completed=done))
    return with_references(metrics, pairs, model.tokenizer).merge(map_correlations(probe, pairs))


def figures_of(metrics: xr.Dataset, model: HookedEncoder, example: StatementPair, name: str) -> dict[str, Figure]:
    """Figures of the claims, by file name; those of negation beyond a neutral word only where a pair has a control."""
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
        _add_to_title(drawn["disagreement"], f"of {name}, where raw and norm-weighted maps disagree most")
    return drawn


def head_that_changes_most(comparison: Comparison, name: str) -> Figure:
    """The four heatmaps of the head whose attention changes most with the negation, titled with the model's name."""
    strongest = comparison.metrics["mean_attention_diff"].argmax(("layer", "head"))
    layer, head = (int(index) for index in strongest.values())
    figure = four_heatmaps(comparison, layer, head)
    _add_to_title(figure, f"of {name}, whose attention changes most")
    return figure


def _add_to_title(figure: Figure, more: str) -> None:
    figure.suptitle(f"{figure.get_suptitle()} {more}", fontsize=10, parse_math=False)


def print_claims(claims: Sequence[Claim], console: PlainConsole) -> None:
    """A table of the claims, and each in a sentence."""
    table = Table(title="The claims of the original study")
    for column in ("", "claim", "measured", "against", "p", "pairs", "verdict"):
        table.add_column(column, justify="right" if column in ("measured", "against", "p", "pairs") else "left")
    for claim in claims:
        numbers = [f"{number:.3g}" for number in (claim.value, claim.border, claim.p)]
        value, border, p = ("–" if number == "nan" else number for number in numbers)
        where = f"{claim.claim}; head {claim.head}" if claim.head else claim.claim
        table.add_row(claim.number, where, value, border, p, str(claim.n), claim.verdict)
    console.print(table)
    for claim in claims:
        console.print(f"{claim.number}. {claim.sentence()}")
    console.print(
        "Intervals are percentile bootstrap, p is from sign flips over pairs. A head is told as the strongest of all: "
        "its p is corrected for that (max-T), its interval is not, and new pairs would show less. "
        "Where the claim holds in no head, p is the largest of the heads' own.",
    )
    console.print(not_corrected(claims))


def not_corrected(claims: Sequence[Claim]) -> str:
    """How many claims were tested, and that their verdicts are not corrected for one another."""
    tested = sum(not math.isnan(claim.p) for claim in claims)
    return f"Claims tested: {tested}, each at p ≤ {ALPHA:g}; their verdicts are not corrected for one another."


def main(
    model: Annotated[
        str | None, typer.Argument(help="A model folder or hub name; by default bert-tiny, or else the bundled model.")
    ] = None,
    pairs: Annotated[str, typer.Option(help="'builtin', or a CSV, TSV or JSONL file.")] = "builtin",
    out: Annotated[Path, typer.Option(help="The folder to write to.")] = Path("negprobe-claims"),
    limit: Annotated[int | None, typer.Option(min=1, help="Use only the first pairs.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of the tests and intervals.")] = 0,
    distilbert: Annotated[
        str | None, typer.Option(help="The DistilBERT to draw; by default the study's, or else the bundled model's.")
    ] = None,
) -> None:
    """Measure, judge, draw and write."""
    console = PlainConsole()
    with clear_errors(), printed_warnings():
        out.mkdir(parents=True, exist_ok=True)
        loaded = load_pairs(pairs)
        problem = "" if model and distilbert else hub_problem()
        taken, second = chosen_model(model, problem), chosen_distilbert(distilbert, problem)
        given = [complete(pair, taken.model.tokenizer) for pair in loaded.pairs[:limit]]
        chosen = without_repeats(given, taken.model.tokenizer)
        repeats = len(given) - len(chosen)
        said = [f"left out {reason}" for reason in loaded.dropped]
        if repeats:
            said.append(
                f"left out {repeats} of {len(given)} pairs: to this model's tokenizer the same as an earlier one"
            )
        said += [f"Model: {taken.name}, because {taken.why}", f"DistilBERT: {second.name}, because {second.why}"]
        for line in said:
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
        # Of a folder's path the last two parts fit a title; a hub name has no more.
        drawn = figures_of(metrics, taken.model, chosen[0], "/".join(Path(taken.name).parts[-2:]))
        # Any English BERT knows the words of a built-in pair, the bundled model among them.
        of_second = AttentionProbe(second.model).compare(builtin_pairs()[0])
        drawn["distilbert_heatmaps"] = head_that_changes_most(of_second, second.name)
        for name, figure in drawn.items():
            save_figure(figure, out / f"{name}.png")
        console.print(f"Wrote {len(claims)} claims and {len(drawn)} figures to {out}.")


if __name__ == "__main__":
    typer.run(main)
