"""Train models with a known circuit: small BERTs in which a few heads are live and all others are silenced.

    python scripts/train_planted.py --out tests/support/planted

In an ordinary trained model the true circuit is unknown, so the result of a circuit search cannot be checked. In these
models only the live heads write during training, so that "not" is processed through them alone, and every search must
rank each live head above each silenced one. A head is silenced in one of two ways:

- *off*: its columns of the output projection are zero. It attends and has a z, but writes nothing.
- *inaudible*: it writes only along the all-ones direction of d_model (each of its columns has the same number in every
  row), and the LayerNorm after attention subtracts the mean over d_model. Its output therefore has no effect on the
  logits, up to rounding. If its layer has a live head, it has the queries and keys of that head and twice its values:
  it attends to the negation exactly as the live head does, and its z changes twice as much. In other layers its
  projections are random, with a scale large enough that it attends sharply.

So shortcuts fail: a search that ranks heads by how much their activations differ between the statements of a pair, by
how much they attend to the cue, or by what they write, ranks the inaudible heads too high. If it ignores what heads
write, it also ranks the off heads too high. Only the effect on the output separates live from silenced heads.

The task is the one-clause part of the grammar of tiny-negation ("The door is not open. So the door is [MASK]."),
including denials ("it is not true that ...") and double negations, predicted only at [MASK]. The script stops with an
error if a model fails the task or has a live head without effect: mean-ablating it must reduce accuracy, and swapping
its z must move the logit difference in both directions. The seeds were chosen so that the models pass. A recipe and
its seed always give the same weights on the same machine and version of PyTorch.
"""

import json
import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import pandas as pd
import torch
import typer
from einops import rearrange, reduce, repeat
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import cross_entropy
from train_tiny_negation import (
    Draw,
    Example,
    accuracies,
    affirmed,
    answer_ids,
    answer_logits,
    build_tokenizer,
    denied,
    double,
    mixed,
    negated,
    progress,
)
from transformers import BertConfig, BertForMaskedLM, BertTokenizerFast

from negprobe import HookedEncoder, StatementPair, builtin_pairs, mean_effect
from negprobe.patching import DIRECTIONS, patch_sweep
from negprobe.statements.grammar import CONNECTIVES
from negprobe.statements.lexicon import held_out_combinations, training_combinations

Head = tuple[int, int]
"""Layer and head."""

N_LAYERS = 3
N_HEADS = 4
D_HEAD = 16
SAMPLES = 2000
MIN_ACCURACY = 0.99
MIN_DROP = 0.05
MIN_EFFECT = 0.1
MIX: dict[Draw, float] = {affirmed: 0.25, negated: 0.35, denied: 0.15, double: 0.25}
KINDS: dict[str, Draw] = {
    "affirmed": affirmed,
    "negated": negated,
    "denied as a whole": denied,
    "double negation": double,
}
"""The kinds of statements that the accuracies are reported for."""

README = """# Models with a planted circuit

{names}: BERT masked LMs of {size}, trained by

    python scripts/train_planted.py --out tests/support/planted

on the one-clause part of negprobe's grammar, with all heads silenced but those that `planted.json` calls live; the
script says how, and why. Recipe: {recipe}.

Accuracy on {samples} statements a column, about combinations of noun and scale that no training statement shows; right
is the answer with the highest logit of the whole vocabulary:

{accuracy}

Of every head: the accuracy on such statements of all kinds when its z is replaced by its mean over tokens and
statements; and on the built-in pairs of one clause the mean effect of swapping its z between original and
counterfactual (0: nothing, 1: the whole swing), how much its z changes between control and counterfactual (mean norm),
and how much of its attention goes to the cue. The last two are what a careless search would rank by.

{heads}

Weights are float16; read as float32 or float64 they are the same numbers. MIT licence, as negprobe.
"""


@dataclass(frozen=True)
class Recipe:
    """The settings that all models share."""

    batch: int = 96
    steps: int = 3000
    learning_rate: float = 2e-3
    warm_up: int = 100
    weight_decay: float = 0.01
    initializer_range: float = 0.08
    decoy_range: float = 0.3  # scale of what inaudible heads write, and of their random projections

    def learning_rate_at(self, step: int) -> float:
        """The learning rate: linear warm-up, then constant, and a linear decay to 0 over the last 30% of the steps."""
        left = (self.steps - step) / (0.3 * self.steps)
        return self.learning_rate * min(1.0, (step + 1) / self.warm_up, left)


@dataclass(frozen=True)
class Plan:
    """A model to train; heads that are neither live nor inaudible are off."""

    name: str
    live: tuple[Head, ...]
    inaudible: tuple[Head, ...]
    seed: int

    @property
    def off(self) -> tuple[Head, ...]:
        """The heads that write nothing."""
        heads = ((layer, head) for layer in range(N_LAYERS) for head in range(N_HEADS))
        return tuple(head for head in heads if head not in self.live + self.inaudible)

    def kind(self, head: Head) -> str:
        """The kind of a head: "live", "off" or "inaudible"."""
        return next(kind for kind in ("live", "off", "inaudible") if head in getattr(self, kind))

    def is_live(self, layer: int) -> Bool[Tensor, " head"]:
        """Which heads of a layer are live."""
        return torch.tensor([(layer, head) in self.live for head in range(N_HEADS)])


PLANS = (
    Plan("two", live=((0, 1), (1, 3)), inaudible=((0, 2), (1, 0), (2, 0)), seed=0),
    Plan("three", live=((0, 0), (0, 2), (2, 1)), inaudible=((0, 3), (1, 1), (2, 2)), seed=3),
    Plan("four", live=((0, 0), (0, 3), (1, 2), (2, 1)), inaudible=((0, 1), (1, 3), (2, 0)), seed=8),
)


# ---- training ----------------------------------------------------------------------------------------------


def build_model(recipe: Recipe, plan: Plan, vocab_size: int) -> BertForMaskedLM:
    """The untrained model, in which only the live heads write, also during training."""
    torch.manual_seed(plan.seed)
    model = BertForMaskedLM(
        BertConfig(
            vocab_size=vocab_size,
            hidden_size=N_HEADS * D_HEAD,
            num_hidden_layers=N_LAYERS,
            num_attention_heads=N_HEADS,
            intermediate_size=2 * N_HEADS * D_HEAD,
            max_position_embeddings=64,
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
            initializer_range=recipe.initializer_range,
        )
    )
    for number, layer in enumerate(model.bert.encoder.layer):
        written = layer.attention.output.dense.weight
        columns = repeat(plan.is_live(number).float(), "head -> (head d_head)", d_head=D_HEAD)
        with torch.no_grad():
            written.mul_(columns)
        # The other columns stay zero: they start at zero, get no gradient, and weight decay does not change zeros.
        written.register_hook(lambda gradient, columns=columns: gradient * columns)
    return model


def train(recipe: Recipe, plan: Plan, tokenizer: BertTokenizerFast) -> BertForMaskedLM:
    """The trained model in evaluation mode, in which all heads except the live ones are still off."""
    model = build_model(recipe, plan, len(tokenizer))
    optimizer = torch.optim.AdamW(model.parameters(), betas=(0.9, 0.98), weight_decay=recipe.weight_decay)
    with progress() as bar:
        task = bar.add_task(plan.name, total=recipe.steps, loss=float("nan"))
        for step in range(recipe.steps):
            examples = draw_batch(recipe, plan, step)
            loss = cross_entropy(answer_logits(model, tokenizer, examples), answer_ids(tokenizer, examples))
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            for group in optimizer.param_groups:
                group["lr"] = recipe.learning_rate_at(step)
            optimizer.step()
            bar.update(task, advance=1, loss=loss.item())
    return model.eval()


def draw_batch(recipe: Recipe, plan: Plan, step: int) -> list[Example]:
    """The statements of one step; they depend only on the seed and the step."""
    rng = random.Random(f"{plan.seed}-{step}")
    draws = rng.choices(list(MIX), list(MIX.values()), k=recipe.batch)
    return [draw(rng, training_combinations()) for draw in draws]


@torch.no_grad()
def plant_inaudible(recipe: Recipe, plan: Plan, model: BertForMaskedLM) -> None:
    """Set the projections of the inaudible heads, so that they write along the all-ones direction."""
    generator = torch.Generator().manual_seed(plan.seed)
    for layer, head in plan.inaudible:
        attention = model.bert.encoder.layer[layer].attention
        twins = [live for live_layer, live in plan.live if live_layer == layer]
        mine = columns_of(head)
        for module, scale in ((attention.self.query, 1), (attention.self.key, 1), (attention.self.value, 2)):
            if twins:
                module.weight[mine] = scale * module.weight[columns_of(twins[0])]
                module.bias[mine] = scale * module.bias[columns_of(twins[0])]
            else:
                module.weight[mine] = recipe.decoy_range * torch.randn(D_HEAD, N_HEADS * D_HEAD, generator=generator)
        # One number per column, so that all rows are equal in float16 too, and subtracting the mean leaves nothing.
        numbers = recipe.decoy_range * torch.randn(D_HEAD, generator=generator)
        attention.output.dense.weight[:, mine] = repeat(numbers, "d_head -> d_model d_head", d_model=N_HEADS * D_HEAD)


def columns_of(head: int) -> slice:
    """The columns of a head in the output projection, which are also its rows in the other projections."""
    return slice(head * D_HEAD, (head + 1) * D_HEAD)


# ---- effects of the heads -----------------------------------------------------------------------------------


def one_clause_pairs() -> list[StatementPair]:
    """The built-in pairs of one clause, with and without a frame ("it is true that ...")."""
    joined = tuple(f" {word} " for word in CONNECTIVES)
    return [pair for pair in builtin_pairs() if not any(word in pair.original for word in joined)]


@torch.no_grad()
def mean_ablated_accuracy(
    model: BertForMaskedLM, tokenizer: BertTokenizerFast, head: Head, examples: Sequence[Example]
) -> float:
    """The accuracy if the z of one head is replaced by its mean over all tokens (without padding) of all statements."""

    def ablate(module: torch.nn.Module, inputs: tuple[Float[Tensor, "batch pos d_model"]]) -> tuple[Tensor]:
        z = inputs[0].clone()
        mine = columns_of(head[1])
        z[..., mine] = z[real][:, mine].mean(dim=0)
        return (z,)

    real = tokenizer([example.text for example in examples], return_tensors="pt", padding=True).attention_mask.bool()
    dense = model.bert.encoder.layer[head[0]].attention.output.dense
    handle = dense.register_forward_pre_hook(ablate)
    chosen = answer_logits(model, tokenizer, examples).argmax(dim=-1)
    handle.remove()
    return (chosen == answer_ids(tokenizer, examples)).float().mean().item()


@torch.no_grad()
def changes(model: HookedEncoder, pairs: Sequence[StatementPair]) -> tuple[np.ndarray, np.ndarray]:
    """How much z changes between control and counterfactual, and how much attention goes to the cue, `[layer head]`."""
    change, to_cue = [], []
    for pair in pairs:
        tokens, _, _ = model.to_tokens([str(pair.control), pair.counterfactual])
        _, cache = model.run_with_cache(tokens)
        z, pattern = cache.stack_activation("z"), cache.stack_activation("pattern")
        at_cue = tokens[0] != tokens[1]
        change.append(reduce((z[:, 1] - z[:, 0]).norm(dim=-1), "layer pos head -> layer head", "mean"))
        to_cue.append(reduce(pattern[:, 1, ..., at_cue].sum(dim=-1), "layer head query -> layer head", "mean"))
    return tuple(torch.stack(values).mean(dim=0).numpy() for values in (change, to_cue))  # type: ignore[return-value]


def head_table(plan: Plan, model: BertForMaskedLM, tokenizer: BertTokenizerFast, folder: Path) -> pd.DataFrame:
    """One row per head: the effects of ablating and swapping it, and the quantities that mislead a careless search."""
    rng = random.Random(plan.seed)
    examples = [mixed(list(MIX))(rng, held_out_combinations()) for _ in range(SAMPLES)]
    pairs = one_clause_pairs()
    ours = HookedEncoder.from_pretrained(folder, device="cpu", dtype=torch.float64)
    swaps = {name: mean_effect(patch_sweep(ours, pairs, "z", by="head", direction=name)).values for name in DIRECTIONS}
    change, to_cue = changes(ours, pairs)
    heads = [(layer, head) for layer in range(N_LAYERS) for head in range(N_HEADS)]
    return pd.DataFrame(
        {
            "model": plan.name,
            "head": [f"{layer}.{head}" for layer, head in heads],
            "kind": [plan.kind(head) for head in heads],
            "mean-ablated": [mean_ablated_accuracy(model, tokenizer, head, examples) for head in heads],
            **{name: rearrange(effects, "layer head -> (layer head)") for name, effects in swaps.items()},
            "change of z": rearrange(change, "layer head -> (layer head)"),
            "to the cue": rearrange(to_cue, "layer head -> (layer head)"),
        }
    )


def problems(shares: dict[str, float], heads: pd.DataFrame) -> list[str]:
    """The reasons why a model cannot be used: low accuracies, and live heads with hardly any effect."""
    found = [f"accuracy {share:.4f} on {kind}" for kind, share in shares.items() if share < MIN_ACCURACY]
    live = heads[heads["kind"] == "live"]
    idle = live[(live["mean-ablated"] > 1 - MIN_DROP) | (live[[*DIRECTIONS]] < MIN_EFFECT).any(axis=1)]
    return found + [f"head {head} with hardly any effect" for head in idle["head"]]


# ---- the folder --------------------------------------------------------------------------------------------


def make(recipe: Recipe, plan: Plan, folder: Path) -> tuple[dict[str, float], pd.DataFrame]:
    """The accuracies and the table of heads of one model, after training it and writing it to a folder.

    Raises:
        SystemExit: if the model fails its task, or a live head has hardly any effect.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = build_tokenizer(folder)
    model = train(recipe, plan, tokenizer)
    plant_inaudible(recipe, plan, model)
    model.half().save_pretrained(folder)
    build_tokenizer(folder).save_pretrained(folder)  # built again, because the used one keeps the padding
    (folder / "vocab.txt").unlink()
    truth = {kind: getattr(plan, kind) for kind in ("live", "off", "inaudible")}
    (folder / "planted.json").write_text(json.dumps(truth) + "\n", encoding="utf-8")

    model.float()  # evaluates the float16 weights, which are the ones that are saved
    shares = accuracies(model, tokenizer, KINDS, samples=SAMPLES, seed=plan.seed)
    heads = head_table(plan, model, tokenizer, folder)
    print(as_markdown(pd.DataFrame([shares])), as_markdown(heads), sep="\n\n")
    if found := problems(shares, heads):
        raise SystemExit(f"Model {plan.name!r} has {', '.join(found)}; give it another seed.")
    return shares, heads


def as_markdown(table: pd.DataFrame) -> str:
    """A Markdown table with numbers to three decimals."""
    # Adding zero turns a rounded -0.0 into 0.0.
    lines = [[f"{round(v, 3) + 0.0:.3f}" if isinstance(v, float) else str(v) for v in row] for row in table.values]
    return "\n".join(f"| {' | '.join(row)} |" for row in ([*table.columns], ["---"] * len(table.columns), *lines))


def readme(recipe: Recipe, shares: dict[str, dict[str, float]], heads: pd.DataFrame) -> str:
    """The text of README.md for the folder of models."""
    accuracy = pd.DataFrame([{"model": name, **of_kind} for name, of_kind in shares.items()])
    return README.format(
        names=", ".join(f"`{name}`" for name in shares),
        size=f"{N_LAYERS} layers, {N_HEADS} heads, d_model {N_HEADS * D_HEAD}, d_mlp {2 * N_HEADS * D_HEAD}",
        recipe=" ".join(f"{name}={value}" for name, value in asdict(recipe).items())
        + f"; seeds {', '.join(str(plan.seed) for plan in PLANS)}",
        samples=SAMPLES,
        accuracy=as_markdown(accuracy),
        heads=as_markdown(heads),
    )


def main(out: Annotated[Path, typer.Option(help="The folder to write the models to.")]) -> None:
    """Train all models and write their folders and README.md; each takes a few minutes on one core."""
    recipe = Recipe()
    made = {plan.name: make(recipe, plan, out / plan.name) for plan in PLANS}
    shares = {name: shares for name, (shares, _) in made.items()}
    heads = pd.concat([heads for _, heads in made.values()])
    (out / "README.md").write_text(readme(recipe, shares, heads), encoding="utf-8")


if __name__ == "__main__":
    typer.run(main)
