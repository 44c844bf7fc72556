"""Writes docs/models.md: which models are supported, and how far each is from its references.

    .venv/bin/python scripts/support_table.py            # all model types, about ten minutes on two cores
    .venv/bin/python scripts/support_table.py --type mpnet --out table.md

Each row is measured when the script runs, on the same small random models as the tests, with three heads each. It needs
the repository, whose tests it imports.
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
import transformers
from jaxtyping import Bool, Int
from torch import Tensor
from transformers import PreTrainedModel

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from negprobe import HookedEncoder, StatementPair, patch_sweep  # noqa: E402
from negprobe.attention.contribution_maps import CONTRIBUTIONS, contributions  # noqa: E402
from negprobe.base.errors import NegprobeError  # noqa: E402
from negprobe.models.families import FAMILY_OF  # noqa: E402
from negprobe.patching import attribute, attribute_edges, find_circuit, path_patch  # noqa: E402
from tests.support import slow_patching, tiny_models  # noqa: E402
from tests.support.parity import differences  # noqa: E402
from tests.support.sample_pairs import TINY, Known, answering, whole  # noqa: E402

# The names by which people know the models of each type.
KNOWN = {
    "bert": "BERT, MiniLM (all-MiniLM-L6-v2), BGE v1.5, E5 v2, GTE v1, mxbai-embed, cross-encoder/ms-marco-MiniLM",
    "distilbert": "DistilBERT, msmarco-distilbert, distilbert-sst-2",
    "roberta": "RoBERTa, all-distilroberta-v1, twitter-roberta-sentiment",
    "xlm-roberta": "XLM-R, multilingual-e5, BGE-M3 (dense), bge-reranker",
    "camembert": "CamemBERT",
    "electra": "ELECTRA, cross-encoder/ms-marco-electra",
    "mpnet": "MPNet, all-mpnet-base-v2, multi-qa-mpnet",
    "albert": "ALBERT, paraphrase-albert",
    "nomic_bert": "Nomic (nomic-embed-text-v1.5)",
    "gte": "GTE (gte-multilingual-base)",
    "jina_embeddings_v3": "jina-embeddings-v3 without adapters",
    "modernbert": "ModernBERT, Ettin, mmBERT, gte-modernbert, granite-embedding r2",
    "deberta": "DeBERTa v1",
    "deberta-v2": "DeBERTa v2 and v3, mDeBERTa, most NLI cross-encoders",
    "eurobert": "EuroBERT",
    "ernie": "ERNIE 2 and 3",
    "data2vec-text": "data2vec for text",
    "megatron-bert": "Megatron-BERT",
    "roberta-prelayernorm": "RoBERTa with norms before attention (efficient_mlm)",
    "xlm-roberta-xl": "XLM-R XL and XXL",
}

# Small models of a type that have a part which most models of the type lack get rows of their own.
WITH_A_PART = {"deberta-v2-conv": "with the convolution of v2-xlarge"}

HEADING = """# Models

This page is written by `python scripts/support_table.py`, which measures every number on it.

| `model_type` | models that people know | norms | positions | MLP |
|---|---|---|---|---|"""
EXPLANATION = """
Each type is read with a masked-LM head, as a sequence classifier (also a reranker with one logit), and without a head,
as a sentence encoder. Decoders that are used as embedders are not supported.

## How far from the references

Small random models of each type: 3 layers, 4 heads, all weights, biases and gains random.

- *float32* and *float64*: the largest difference of outputs, hidden states and attention patterns from Hugging Face's
  eager model, with padding on the right and (masked LMs) on the left, one token, and as many tokens as the context.
  Where Hugging Face's model rounds to float32 in a float64 model (ModernBERT, EuroBERT, DeBERTa v1), it is compared
  without that rounding.
- *own rounding*: the largest difference of Hugging Face's model in float32 from the same model in float64. Two float32
  models, each with its own rounding, may differ by twice as much.
- *sites* and *sweeps*: the number of sites, and the largest difference of `patch_sweep` at any of them from one forward
  pass with a hook for each patch, in float64.
- *edges*: the largest difference between a head's attribution and the sum of its edges.
- *paths*, *circuits*, *measures*: whether `path_patch`, `find_circuit` and the measures of `contributions` are defined.

| `model_type` | head | float32 | own rounding | float64 | sites | sweeps | edges | paths | circuits | measures |
|---|---|---|---|---|---|---|---|---|---|---|"""


@dataclass(frozen=True)
class Row:
    """What was measured for one model type, part and head: largest differences, and what is refused."""

    model_type: str
    part: str
    head: str
    float32: float
    own_rounding: float
    float64: float
    n_sites: int
    sweeps: float
    edges: float | str
    paths: str
    circuit: str
    refused: tuple[str, ...]


def cases_of(model_type: str) -> dict[str, list[str]]:
    """The tests' small models of a type, by the part that most models of the type lack."""
    found: dict[str, list[str]] = {}
    for name, case in tiny_models.FAMILIES.items():
        if case.is_installed and case.config().model_type == model_type:
            found.setdefault(WITH_A_PART.get(name, ""), []).append(name)
    return found


def parity(family: str, head: str, dtype: torch.dtype) -> float:
    """The largest difference from Hugging Face's eager model: padding right and left, one token, n_ctx tokens."""
    theirs, ours = tiny_models.pair(family, head, dtype)
    found = [
        differences(theirs, ours, tiny_models.hf_inputs(theirs, tokens), head)
        for tokens in batches(theirs.config.pad_token_id, ours.cfg.n_ctx, head)
    ]
    return max(value for each in found for value in each.values())


@torch.no_grad()
def own_rounding(family: str, head: str) -> float:
    """The largest difference of Hugging Face's model in float32 from the same in float64, as `parity` compares them."""
    narrow, wide = (tiny_models.hf_model(family, head, dtype) for dtype in (torch.float32, torch.float64))
    largest = 0.0
    for tokens in batches(narrow.config.pad_token_id, tiny_models.pair(family, head)[1].cfg.n_ctx, head):
        inputs = tiny_models.hf_inputs(narrow, tokens)
        real = inputs["attention_mask"].bool()
        at_real = [real_numbers(model, head, inputs, real) for model in (narrow, wide)]
        largest = max(largest, *(float((a - b).abs().max()) for a, b in zip(*at_real, strict=True)))
    return largest


def real_numbers(
    theirs: PreTrainedModel, head: str, inputs: dict[str, Tensor], real: Bool[Tensor, "batch pos"]
) -> list:
    """The output, hidden states and patterns of Hugging Face's model, where tokens are real."""
    found = theirs(**inputs, output_hidden_states=True, output_attentions=True)
    output = tiny_models.hf_output(theirs, head, inputs)
    patterns = [pattern.transpose(1, 2)[real] for pattern in found.attentions]
    return [output[real] if head == "masked_lm" else output, *(state[real] for state in found.hidden_states), *patterns]


def batches(pad: int, n_ctx: int, head: str) -> list[Int[Tensor, "batch pos"]]:
    """Tokens with padding on the right and the left, one token, and as many as the context."""
    padded = tiny_models.token_batch(pad)
    # The other heads read the first position, which would be padding.
    left = [padded.flip(1)] if head == "masked_lm" else []
    return [padded, padded[:1, :1], tiny_models.token_batch(pad, (n_ctx,)), *left]


def sweeps(model: HookedEncoder, pair: Known) -> tuple[int, float]:
    """The number of sites, and the largest difference of their sweeps from whole forward passes with hooks."""
    largest = 0.0
    sites = slow_patching.sites_of(model)
    for site in sites:
        by = slow_patching.parts_of(site)[0]
        found = patch_sweep(model, pair.pair, site, by=by)["patched"].values[0]
        expected = slow_patching.swaps(model, pair, site, by, "noising")
        largest = max(largest, float(np.nanmax(abs(found - expected))))
    return len(sites), largest


def edges(model: HookedEncoder, pair: StatementPair) -> float | str:
    """The largest difference between a component's attribution and the sum of its edges, or why there are none."""
    try:
        found = attribute_edges(model, pair)
    except NegprobeError as error:
        return str(error)
    totals = (found["patched"] - found["base"]).sum("receiver")
    heads = attribute(model, pair, sites=["z"], by="head")["z"]
    expected = (heads["patched"] - heads["base"]).values.reshape(1, -1)
    names = [f"{layer}.{head}" for layer in range(model.cfg.n_layers) for head in range(model.cfg.n_heads)]
    return float(abs(totals.sel(sender=names).values - expected).max())


def outcome(function: Callable[[], object]) -> str:
    """ "yes", or the reason for which a function refuses a model."""
    try:
        function()
    except NegprobeError as error:
        return str(error)
    return "yes"


def circuit_pairs(head: str) -> list[StatementPair]:
    """Pairs for a search: enough of them to hold some out."""
    last = "[MASK]" if head == "masked_lm" else "open"
    answers = {"masked_lm": ("big", "red"), "classification": ("LABEL_0", "LABEL_2"), "none": (None, None)}[head]
    return [
        StatementPair(f"The {noun} is {adverb} {last}.", f"The {noun} is not {last}.", *answers)
        for noun in ("door", "dog", "house")
        for adverb in ("now", "really")
    ]


def refused_measures(model: HookedEncoder) -> tuple[str, ...]:
    """The measures that are not defined for a model."""
    tokens = tiny_models.token_batch(model.cfg.pad_token_id)
    return tuple(name for name in CONTRIBUTIONS if outcome(partial(contributions, model, tokens, None, name)) != "yes")


def measured(model_type: str, part: str, head: str) -> Row:
    """The row of a model type, part and head: the largest differences over the small models of the type."""
    labels = ("LABEL_0", "LABEL_2") if head == "classification" else None
    pairs = TINY if head == "masked_lm" else [answering(of, *labels) if labels else whole(of) for of in TINY]
    rows = []
    for family in cases_of(model_type)[part]:
        model = slow_patching.tiny_model(family, head)
        given = [of.pair for of in pairs]
        n_sites, swept = sweeps(model, pairs[1])
        rows.append(
            Row(
                model_type,
                part,
                head,
                parity(family, head, torch.float32),
                own_rounding(family, head),
                parity(family, head, torch.float64),
                n_sites,
                swept,
                edges(model, given[1]),
                outcome(partial(path_patch, model, given)),
                outcome(partial(find_circuit, model, circuit_pairs(head), threshold=0.5)),
                refused_measures(model),
            )
        )
    return rows[0] if len(rows) == 1 else merged(rows)


def merged(rows: Sequence[Row]) -> Row:
    """One row for several small models of a type; what one of them refuses is named."""
    numbers = [row.edges for row in rows if isinstance(row.edges, float)]
    first = rows[0]
    return Row(
        first.model_type,
        first.part,
        first.head,
        max(row.float32 for row in rows),
        max(row.own_rounding for row in rows),
        max(row.float64 for row in rows),
        max(row.n_sites for row in rows),
        max(row.sweeps for row in rows),
        max(numbers) if len(numbers) == len(rows) else next(row.edges for row in rows if isinstance(row.edges, str)),
        next((row.paths for row in rows if row.paths != "yes"), "yes"),
        next((row.circuit for row in rows if row.circuit != "yes"), "yes"),
        tuple(dict.fromkeys(name for row in rows for name in row.refused)),
    )


def parts(model_type: str) -> list[str]:
    """The parts of the first small model of a type, in words."""
    model = tiny_models.pair(cases_of(model_type)[""][0], "none")[1]
    one = model.architecture
    positions = {
        "absolute": "absolute",
        "rotary": "rotary",
        "relative": "absolute, and a bias by distance",
        "disentangled": "terms by distance",
    }[one.positions]
    window = ", local windows" if any(window is not None for window in one.windows) else ""
    shared = ", layers share weights" if model.cfg.tied_to else ""
    norms = f"{ {'LN': 'LayerNorm', 'RMS': 'RMSNorm'}[one.norm] } {'before' if one.norms == 'pre' else 'after'}"
    return [norms, positions + window, ("gated" if one.gated_mlp else "plain") + shared]


def markdown(rows: Sequence[Row]) -> str:
    """The page."""
    types = list(dict.fromkeys(row.model_type for row in rows))
    kinds = [f"| `{name}` | {KNOWN[name]} | {' | '.join(parts(name))} |" for name in types]
    lines = [HEADING, *kinds, EXPLANATION]
    notes: list[str] = []

    def cell(value: float | str) -> str:
        if isinstance(value, float):
            return f"{value:.1e}"
        if value == "yes":
            return value
        if value not in notes:
            notes.append(value)
        return f"no ({notes.index(value) + 1})"

    for row in rows:
        measures = "all" if not row.refused else f"all but {', '.join(row.refused)}"
        cells = [cell(row.edges), cell(row.paths), cell(row.circuit), measures]
        differences_of = [f"{value:.1e}" for value in (row.float32, row.own_rounding, row.float64)]
        numbers = [*differences_of, str(row.n_sites), f"{row.sweeps:.1e}"]
        name = f"`{row.model_type}` {row.part}".rstrip()
        lines.append(f"| {name} | {row.head} | {' | '.join([*numbers, *cells])} |")
    lines += ["", *(f"{index}. {note}" for index, note in enumerate(notes, 1))]
    return "\n".join(lines).rstrip() + "\n"


def main() -> None:
    """Measure, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--type", choices=list(FAMILY_OF), action="append", help="model types; by default all")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "models.md")
    arguments = parser.parse_args()
    transformers.utils.logging.set_verbosity_error()
    rows = []
    for model_type in arguments.type or FAMILY_OF:
        for part in cases_of(model_type):
            for head in tiny_models.HEADS:
                rows.append(measured(model_type, part, head))
                print(rows[-1], flush=True)
    arguments.out.write_text(markdown(rows), encoding="utf-8", newline="\n")


if __name__ == "__main__":
    main()
