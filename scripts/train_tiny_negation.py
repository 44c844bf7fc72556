"""Train the bundled model, tiny-negation: a small BERT that hears "not", from negprobe's own grammar alone.

    python scripts/train_tiny_negation.py --out DIR

Stage one shows statements of one clause; stage two adds statements of two, where a state must be bound to its
noun. Run again after an interruption, it goes on from its last checkpoint and ends at the same weights: every
step draws its statements from a generator seeded with the seed and the number of the step.
"""

import argparse
import math
import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from jaxtyping import Float, Int
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from torch import Tensor
from transformers import BertConfig, BertForMaskedLM, BertTokenizerFast

from negprobe.statements import grammar
from negprobe.statements.grammar import Clause, Phrase
from negprobe.statements.lexicon import SCALES, Combination, held_out_combinations, training_combinations

CHECKPOINT = "checkpoint.pt"
SAMPLES = 2000
CARD = """---
language: en
license: mit
pipeline_tag: fill-mask
library_name: transformers
---
# tiny-negation

A BERT that hears "not": 4 layers, 4 heads, d_model 128, d_mlp 512, a vocabulary of whole words. It was
trained from nothing but a grammar of short English statements, so that everything it knows is known, and it
is small enough to be looked at whole. negprobe bundles it as its default model.

## Grammar

{scales} scales of a state and its antonym (open/closed, hot/cold, ...), each with the nouns it fits. A
statement says the state of one noun or of two, and [MASK] stands for what follows. The cues are not, n't,
never, no longer, hardly, barely, scarcely and cannot; neutral words (now, really, always, ...) stand in the
same places. "It is not true that ..." denies a whole clause, also one that has a cue of its own. Each kind of
statement, drawn once:

{examples}

The words are in `negprobe/statements/lexicon.py`, the statements in `negprobe/statements/grammar.py`.

## Training

    python scripts/train_tiny_negation.py --out DIR --steps {steps} --seed {seed}

Cross-entropy of the answer at [MASK], AdamW; statements of one clause first, then two clauses mixed in.
Recipe: {parameters}.

## Accuracy

{held_out} combinations of a noun and a scale are held out: no training statement shows them in either state,
only the {training} others. The table counts {samples} statements of held-out combinations a row, in a clause
that is not asked for too. Right is the answer that gets the highest logit of the whole vocabulary.

{table}

## Limits

It knows the words of its grammar and reads any other as [UNK]. A cue always turns a state into its antonym:
"hardly", "barely" and "never" mean no less than "not", and what is not hot is cold. It was trained on answers
alone: what it says at a [MASK] in another place means nothing.

## Licence

MIT, as negprobe.
"""

SPECIALS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


@dataclass(frozen=True)
class Recipe:
    """Everything the weights follow from."""

    seed: int = 0
    steps: int = 9000
    one_clause_steps: int = 800
    batch: int = 128
    learning_rate: float = 1e-3
    warm_up: int = 300
    weight_decay: float = 0.01
    initializer_range: float = 0.08  # BERT's 0.02 learns several times slower at this size

    def learning_rate_at(self, step: int) -> float:
        """Linear warm-up, then a cosine to nothing."""
        warm = min(1.0, (step + 1) / self.warm_up)
        return self.learning_rate * warm * 0.5 * (1 + math.cos(math.pi * step / self.steps))


@dataclass(frozen=True)
class Example:
    """A statement with one [MASK] and the word that belongs there."""

    text: str
    answer: str


# ---- statements --------------------------------------------------------------------------------------------

Draw = Callable[[random.Random, Sequence[Combination]], Example]


def draw_clause(rng: random.Random, combination: Combination, phrase: Phrase, *, past: bool) -> Clause:
    """A clause with a random state and determiner; a modal phrase has no past."""
    return Clause(
        noun=combination.noun,
        scale=combination.scale,
        state=rng.choice(combination.scale.states),
        phrase=phrase,
        determiner=draw_determiner(rng),
        past=past and not phrase.modal,
    )


def draw_determiner(rng: random.Random) -> str:
    """Half of the time "the", so that most statements are as plain as the built-in pairs."""
    return "the" if rng.random() < 0.5 else rng.choice(grammar.DETERMINERS)


def draw_affirmation(rng: random.Random) -> Phrase:
    """A phrase that affirms, in half of the cases with neutral words where a cue could stand."""
    return rng.choice(grammar.AFFIRMATIONS) if rng.random() < 0.5 else grammar.PLAIN


def draw_negation(rng: random.Random, cues: Iterable[str] = tuple(grammar.NEGATIONS)) -> Phrase:
    """A phrase that negates, now and then with a neutral word before the cue."""
    if rng.random() < 0.1:
        return rng.choice(grammar.EMPHATIC_NEGATIONS)
    return grammar.NEGATIONS[rng.choice(tuple(cues))]


def draw_frame_affirmation(rng: random.Random) -> Phrase:
    """An affirming phrase for a frame or what is in it: to deny "must be" would leave both states possible."""
    phrase = draw_affirmation(rng)
    return grammar.PLAIN if phrase.modal else phrase


def one_clause(rng: random.Random, combination: Combination, phrase: Phrase, frame: Phrase | None = None) -> Clause:
    """A single clause in either tense, in a frame or without one."""
    clause = draw_clause(rng, combination, phrase, past=rng.random() < 0.3)
    return clause.framed(frame) if frame else clause


def conclude(clause: Clause) -> Example:
    """A clause and what follows from it."""
    return Example(grammar.conclusion(clause), clause.truth)


def affirmed(rng: random.Random, combinations: Sequence[Combination]) -> Example:
    """ "The door is now open", or the same in "it is true that ..."."""
    if rng.random() < 0.25:
        frame, phrase = draw_frame_affirmation(rng), draw_frame_affirmation(rng)
        return conclude(one_clause(rng, rng.choice(combinations), phrase, frame))
    return conclude(one_clause(rng, rng.choice(combinations), draw_affirmation(rng)))


def negated(rng: random.Random, combinations: Sequence[Combination]) -> Example:
    """ "The door is not open", by any cue, or with the cue inside "it is true that ..."."""
    if rng.random() < 0.15:
        phrase = grammar.NEGATIONS[rng.choice(grammar.INNER_CUES)]
        return conclude(one_clause(rng, rng.choice(combinations), phrase, draw_frame_affirmation(rng)))
    return conclude(one_clause(rng, rng.choice(combinations), draw_negation(rng)))


def negated_by(cue: str) -> Draw:
    """Statements negated by one cue."""
    return lambda rng, combinations: conclude(one_clause(rng, rng.choice(combinations), grammar.NEGATIONS[cue]))


def denied(rng: random.Random, combinations: Sequence[Combination]) -> Example:
    """ "It is not true that the door is open"."""
    frame = grammar.NEGATIONS[rng.choice(grammar.FRAME_CUES)]
    return conclude(one_clause(rng, rng.choice(combinations), draw_frame_affirmation(rng), frame))


def double(rng: random.Random, combinations: Sequence[Combination]) -> Example:
    """ "It is not true that the door is not open"."""
    frame = grammar.NEGATIONS[rng.choice(grammar.FRAME_CUES)]
    phrase = grammar.NEGATIONS[rng.choice(grammar.INNER_CUES)]
    return conclude(one_clause(rng, rng.choice(combinations), phrase, frame))


def question(rng: random.Random, combinations: Sequence[Combination]) -> Example:
    """ "The door is not open. Is the door closed?"."""
    phrase = draw_negation(rng) if rng.random() < 0.5 else draw_affirmation(rng)
    clause = one_clause(rng, rng.choice(combinations), phrase)
    state = rng.choice(clause.scale.states)
    return Example(grammar.question(clause, state), grammar.question_answer(clause, state))


def two_clauses(negated: tuple[bool, bool], asked: int) -> Draw:
    """Two clauses with cues where `negated` says so, and the conclusion about the clause `asked`."""

    def draw(rng: random.Random, combinations: Sequence[Combination]) -> Example:
        past = rng.random() < 0.3
        clauses = [
            draw_clause(rng, combination, draw_negation(rng) if cue else draw_affirmation(rng), past=past)
            for combination, cue in zip(draw_two(rng, combinations), negated, strict=True)
        ]
        text = grammar.conclusion(*clauses, asked=asked, connective=rng.choice(grammar.CONNECTIVES))
        return Example(text, clauses[asked].truth)

    return draw


def draw_two(rng: random.Random, combinations: Sequence[Combination]) -> tuple[Combination, Combination]:
    """Two combinations of different nouns, in a third of the cases on the same scale."""
    first = rng.choice(combinations)
    same_scale = rng.random() < 1 / 3
    others = [
        other for other in combinations if other.noun != first.noun and (other.scale == first.scale or not same_scale)
    ]
    return first, rng.choice(others or [c for c in combinations if c.noun != first.noun])


CUE_PLACES = {
    "no cue": (False, False),
    "cue in the first": (True, False),
    "cue in the second": (False, True),
    "cue in both": (True, True),
}
TWO_CLAUSES: dict[str, Draw] = {
    f"two clauses, {place}, {which} asked": two_clauses(where, asked)
    for place, where in CUE_PLACES.items()
    for asked, which in enumerate(("first", "second"))
}
ONE_CLAUSE: dict[str, Draw] = {
    "affirmed": affirmed,
    **{f"negated by {cue}": negated_by(cue) for cue in grammar.NEGATIONS},
    "denied as a whole": denied,
    "double negation": double,
    "yes/no question": question,
}
CATEGORIES: dict[str, Draw] = {**ONE_CLAUSE, **TWO_CLAUSES}
"""What the table of accuracies has a row for."""

ONE_CLAUSE_MIX: dict[Draw, float] = {affirmed: 0.2, negated: 0.3, denied: 0.1, double: 0.2, question: 0.2}
TWO_CLAUSE_SHARE = 0.6


def draw_batch(recipe: Recipe, step: int) -> list[Example]:
    """The statements of one step, which depend on nothing but the seed and the step."""
    rng = random.Random(f"{recipe.seed}-{step}")
    combinations = training_combinations()
    two = TWO_CLAUSE_SHARE if step >= recipe.one_clause_steps else 0.0
    draws = [*ONE_CLAUSE_MIX, *TWO_CLAUSES.values()]
    weights = [(1 - two) * share for share in ONE_CLAUSE_MIX.values()]
    weights += [two / len(TWO_CLAUSES)] * len(TWO_CLAUSES)
    return [draw(rng, combinations) for draw in rng.choices(draws, weights, k=recipe.batch)]


# ---- tokenizer and model -----------------------------------------------------------------------------------


def vocabulary() -> list[str]:
    """Special tokens, then every word the grammar can write, in alphabetical order."""
    words = {
        ".",
        "?",
        ",",
        "!",
        "'",
        "t",
        "isn",
        "wasn",
        "yes",
        "no",
        "so",
        "it",
        "true",
        "that",
        "is",
        "was",
    }
    words.update(grammar.DETERMINERS, grammar.CONNECTIVES)
    words.update(word for scale in SCALES for word in (*scale.states, *scale.nouns))
    phrases = (*grammar.AFFIRMATIONS, *grammar.EMPHATIC_NEGATIONS, *grammar.NEGATIONS.values())
    words.update(word for phrase in phrases for word in phrase.text.split() if "{" not in word)
    return [*SPECIALS, *sorted(words)]


def build_tokenizer(folder: Path) -> BertTokenizerFast:
    """Write vocab.txt into `folder` and load a lower-casing BERT tokenizer of whole words from it."""
    (folder / "vocab.txt").write_text("\n".join(vocabulary()) + "\n", encoding="utf-8")
    return BertTokenizerFast.from_pretrained(folder, do_lower_case=True, model_max_length=64)


def build_model(recipe: Recipe, vocab_size: int) -> BertForMaskedLM:
    """The untrained model; dropout would only slow the learning of a grammar without noise."""
    torch.manual_seed(recipe.seed)
    return BertForMaskedLM(
        BertConfig(
            vocab_size=vocab_size,
            hidden_size=128,
            num_hidden_layers=4,
            num_attention_heads=4,
            intermediate_size=512,
            max_position_embeddings=64,
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
            initializer_range=recipe.initializer_range,
        )
    )


def answer_logits(
    model: BertForMaskedLM, tokenizer: BertTokenizerFast, texts: list[str]
) -> Float[Tensor, "batch vocab"]:
    """The logits at each text's [MASK]; the head is computed there alone."""
    encoded = tokenizer(texts, return_tensors="pt", padding=True)
    masked: Int[Tensor, "batch pos"] = encoded["input_ids"] == tokenizer.mask_token_id
    return model.cls(model.bert(**encoded).last_hidden_state[masked])


def answer_ids(tokenizer: BertTokenizerFast, examples: list[Example]) -> Int[Tensor, "batch"]:
    """The token of each answer."""
    return torch.tensor(tokenizer.convert_tokens_to_ids([example.answer for example in examples]))


# ---- training ----------------------------------------------------------------------------------------------


def train(recipe: Recipe, out: Path, *, every: int = 250, stop_after: int | None = None) -> BertForMaskedLM:
    """Train in `out`, from its checkpoint where there is one.

    Args:
        recipe: What to train.
        out: Folder of tokenizer and checkpoint.
        every: Steps between checkpoints, each with a glance at the accuracies.
        stop_after: Leave after so many steps, as an interruption would.

    Returns:
        The model after its last step, in evaluation mode.

    Raises:
        SystemExit: if the checkpoint in `out` belongs to another recipe.
    """
    tokenizer = build_tokenizer(out)
    model = build_model(recipe, len(tokenizer))
    optimizer = torch.optim.AdamW(model.parameters(), betas=(0.9, 0.98), weight_decay=recipe.weight_decay)
    start = restore(out / CHECKPOINT, recipe, model, optimizer)
    with progress() as bar:
        task = bar.add_task("training", total=recipe.steps, completed=start, loss=math.nan)
        for step in range(start, min(recipe.steps, stop_after or recipe.steps)):
            loss = take_step(recipe, step, model, tokenizer, optimizer)
            bar.update(task, advance=1, loss=loss)
            if (step + 1) % every == 0 or step + 1 == recipe.steps:
                save_checkpoint(out / CHECKPOINT, recipe, model, optimizer, step + 1)
                glance = accuracies(model, tokenizer, GLANCES, samples=200, seed=step)
                summary = "  ".join(f"{name} {share:.3f}" for name, share in glance.items())
                bar.console.print(f"step {step + 1:6d}  loss {loss:.4f}  {summary}", soft_wrap=True)
    return model.eval()


def take_step(
    recipe: Recipe,
    step: int,
    model: BertForMaskedLM,
    tokenizer: BertTokenizerFast,
    optimizer: torch.optim.Optimizer,
) -> float:
    """One step of AdamW on the answers of one batch; returns the loss."""
    model.train()
    examples = draw_batch(recipe, step)
    logits = answer_logits(model, tokenizer, [example.text for example in examples])
    loss = torch.nn.functional.cross_entropy(logits, answer_ids(tokenizer, examples))
    optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    for group in optimizer.param_groups:
        group["lr"] = recipe.learning_rate_at(step)
    optimizer.step()
    return loss.item()


def save_checkpoint(
    path: Path, recipe: Recipe, model: BertForMaskedLM, optimizer: torch.optim.Optimizer, step: int
) -> None:
    """Write the state after `step` steps, in one move: an interruption leaves a whole checkpoint."""
    part = path.with_suffix(".part")
    state = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
    torch.save({"recipe": asdict(recipe), "step": step, **state}, part)
    part.replace(path)


def restore(path: Path, recipe: Recipe, model: BertForMaskedLM, optimizer: torch.optim.Optimizer) -> int:
    """Load the checkpoint, if there is one; returns the number of steps already taken."""
    if not path.exists():
        return 0
    state = torch.load(path, weights_only=True)
    if state["recipe"] != asdict(recipe):
        raise SystemExit(f"{path} is of another recipe: {state['recipe']}. Give another --out, or remove the file.")
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    return state["step"]


def progress() -> Progress:
    """A bar with the loss and the time left."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("loss {task.fields[loss]:.4f}"),
    )


# ---- evaluation --------------------------------------------------------------------------------------------


def mixed(draws: Sequence[Draw]) -> Draw:
    """Statements of several categories in equal shares."""
    return lambda rng, combinations: rng.choice(draws)(rng, combinations)


GLANCES: dict[str, Draw] = {
    "affirmed": affirmed,
    "negated": negated,
    "denied": denied,
    "double": double,
    "question": question,
    "two, no cue": mixed([draw for name, draw in TWO_CLAUSES.items() if "no cue" in name]),
    "two, cue": mixed([draw for name, draw in TWO_CLAUSES.items() if "no cue" not in name]),
}


@torch.no_grad()
def accuracies(
    model: BertForMaskedLM, tokenizer: BertTokenizerFast, draws: dict[str, Draw], *, samples: int, seed: int
) -> dict[str, float]:
    """The share of held-out statements whose answer is the model's first choice of its whole vocabulary."""
    model.eval()
    return {name: accuracy(model, tokenizer, draw, samples, f"{seed}-{name}") for name, draw in draws.items()}


def accuracy(model: BertForMaskedLM, tokenizer: BertTokenizerFast, draw: Draw, samples: int, seed: str) -> float:
    """The accuracy on `samples` held-out statements of one kind."""
    rng = random.Random(seed)
    examples = [draw(rng, held_out_combinations()) for _ in range(samples)]
    chosen = [
        answer_logits(model, tokenizer, [example.text for example in examples[i : i + 250]]).argmax(-1)
        for i in range(0, samples, 250)
    ]
    return (torch.cat(chosen) == answer_ids(tokenizer, examples)).float().mean().item()


def as_table(shares: dict[str, float]) -> str:
    """The accuracies as a Markdown table."""
    rows = [f"| {name} | {share:.4f} |" for name, share in shares.items()]
    return "\n".join(["| statements | accuracy |", "|---|---|", *rows])


def model_card(recipe: Recipe, table: str) -> str:
    """README.md of the model folder."""
    rng = random.Random(recipe.seed)
    examples = [draw(rng, training_combinations()) for draw in CATEGORIES.values()]
    return CARD.format(
        parameters=" ".join(f"{name}={value}" for name, value in asdict(recipe).items()),
        seed=recipe.seed,
        steps=recipe.steps,
        training=len(training_combinations()),
        held_out=len(held_out_combinations()),
        scales=len(SCALES),
        examples="\n".join(f"- {example.text} -> *{example.answer}*" for example in examples),
        samples=SAMPLES,
        table=table,
    )


def main() -> None:
    """Train, print the table of accuracies, and write the model folder."""
    defaults = Recipe()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder of the model; its checkpoint is there too")
    parser.add_argument("--steps", type=int, default=defaults.steps)
    parser.add_argument("--seed", type=int, default=defaults.seed)
    args = parser.parse_args()
    recipe = Recipe(seed=args.seed, steps=args.steps)
    args.out.mkdir(parents=True, exist_ok=True)

    model = train(recipe, args.out)
    tokenizer = build_tokenizer(args.out)
    table = as_table(accuracies(model, tokenizer, CATEGORIES, samples=SAMPLES, seed=recipe.seed))
    print(table)
    model.save_pretrained(args.out)
    tokenizer.save_pretrained(args.out)
    (args.out / "README.md").write_text(model_card(recipe, table), encoding="utf-8")
    (args.out / CHECKPOINT).unlink()


if __name__ == "__main__":
    main()
