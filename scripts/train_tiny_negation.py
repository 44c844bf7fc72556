"""Train the bundled model, tiny-negation: a small BERT that processes negation, trained only on negprobe's grammar.

    python scripts/train_tiny_negation.py --out DIR

Stage one has statements of one clause. Stage two adds statements of two clauses, in which the model must bind each
state to its noun. In these stages the loss also includes predicting the true state at every mention of a noun. In stage
three the loss is computed at [MASK] only, and most statements are questions.

After an interruption the script resumes from its last checkpoint and produces the same weights, because every step
draws its statements from a generator seeded with the seed and the number of the step.
"""

import argparse
import math
import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import cache
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
from torch.nn.functional import cross_entropy
from transformers import BertConfig, BertForMaskedLM, BertTokenizerFast

from negprobe.statements import grammar
from negprobe.statements.grammar import Clause, Phrase
from negprobe.statements.lexicon import SCALES, Combination, held_out_combinations, training_combinations

CHECKPOINT = "checkpoint.pt"
SAMPLES = 2000
IGNORED = -100
CARD = """---
language: en
license: mit
pipeline_tag: fill-mask
library_name: transformers
---
# tiny-negation

A small BERT that responds to "not": 4 layers, 4 heads, d_model 128, d_mlp 512, a vocabulary of whole words. It
was trained only on a grammar of short English statements, so its training data is fully known, and it is small
enough to inspect completely. negprobe bundles it as its default model.

## Grammar

{scales} scales of a state and its antonym (open/closed, hot/cold, ...), each with the nouns it applies to.
A statement gives the state of one or two nouns, and [MASK] is the state (or answer) that follows from it. The cues
are not, n't, never, no longer, hardly, barely, scarcely and cannot; neutral words (now, really, always, ...) are used
in the same places. "It is not true that ..." negates a whole clause, including clauses with a cue of their own. One
random example of each kind of statement:

{examples}

The words are in `negprobe/statements/lexicon.py`, and the grammar is in `negprobe/statements/grammar.py`.

## Training

    python scripts/train_tiny_negation.py --out DIR --steps {steps} --seed {seed}

Stage one has statements of one clause, with nouns that fit their scale. Stage two adds statements of two clauses, with
nouns on any scale that is not held out for them, so that only the position of a state shows which noun it belongs to.
The loss is the cross-entropy of the answer at [MASK] and, before stage three, of the true state at every mention of a
noun, which helps the model to bind states to nouns. Stage three uses the loss at [MASK] only, and mostly yes/no
questions, which are learnt last. Keys are initialised as a copy of the queries, so that at first a token attends to
similar tokens. The optimizer is AdamW; the learning rate falls to zero over the last 30 %.
Recipe: {parameters}.

## Accuracy

Of {sensible} combinations of a noun and a scale that fits it, {held_out} are held out: no training statement
contains them, in either state. The table counts {samples} statements per row, in which every clause has a held-out
combination. An answer is right if it has the highest logit of the whole vocabulary.

{table}

## Limits

The model knows only the words of its grammar; every other word becomes [UNK]. A cue always turns a state into its
antonym: "hardly", "barely" and "never" have the meaning of "not", and what is not hot is cold. It is not a general
language model: its predictions at tokens other than [MASK], or at a [MASK] in another position, are meaningless.
Statements have at most two clauses, and questions follow a single clause only.

## Licence

MIT, as negprobe.
"""

SPECIALS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


@dataclass(frozen=True)
class Recipe:
    """The settings that determine the weights."""

    seed: int = 0
    steps: int = 3600
    single_steps: int = 600
    binding_steps: int = 1100
    batch: int = 96
    learning_rate: float = 1e-3
    warm_up: int = 200
    weight_decay: float = 0.01
    mention_weight: float = 2.0
    initializer_range: float = 0.08  # BERT's 0.02 is slow to learn at this size

    def learning_rate_at(self, step: int) -> float:
        """The learning rate: linear warm-up, then constant, and a linear decay to 0 over the last 30% of the steps."""
        left = (self.steps - step) / (0.3 * self.steps)
        return self.learning_rate * min(1.0, (step + 1) / self.warm_up, left)


@dataclass(frozen=True)
class Example:
    """A statement with one [MASK], the right word for it, and the true state of each noun in the statement."""

    text: str
    answer: str
    truths: dict[str, str]


# ---- statements --------------------------------------------------------------------------------------------

Draw = Callable[[random.Random, Sequence[Combination]], Example]


def draw_clause(rng: random.Random, combination: Combination, phrase: Phrase, *, past: bool) -> Clause:
    """A clause with a random state and determiner; modal phrases are always in the present tense."""
    return Clause(
        noun=combination.noun,
        scale=combination.scale,
        state=rng.choice(combination.scale.states),
        phrase=phrase,
        determiner=draw_determiner(rng),
        past=past and not phrase.modal,
    )


def draw_determiner(rng: random.Random) -> str:
    """A random determiner: "the" in half of the cases, so that most statements resemble the built-in pairs."""
    return "the" if rng.random() < 0.5 else rng.choice(grammar.DETERMINERS)


def draw_affirmation(rng: random.Random) -> Phrase:
    """An affirming phrase, in half of the cases with neutral words in the place of a cue."""
    return rng.choice(grammar.AFFIRMATIONS) if rng.random() < 0.5 else grammar.PLAIN


def draw_negation(rng: random.Random, cues: Iterable[str] = tuple(grammar.NEGATIONS)) -> Phrase:
    """A negating phrase, in a tenth of the cases with a neutral word before the cue."""
    if rng.random() < 0.1:
        return rng.choice(grammar.EMPHATIC_NEGATIONS)
    return grammar.NEGATIONS[rng.choice(tuple(cues))]


def draw_frame_affirmation(rng: random.Random) -> Phrase:
    """An affirming phrase without modals for a frame and its clause: a denied "must be" would allow both states."""
    phrase = draw_affirmation(rng)
    return grammar.PLAIN if phrase.modal else phrase


def one_clause(rng: random.Random, combination: Combination, phrase: Phrase, frame: Phrase | None = None) -> Clause:
    """A single clause in either tense, in a frame or without one."""
    clause = draw_clause(rng, combination, phrase, past=rng.random() < 0.3)
    return clause.framed(frame) if frame else clause


def conclude(clause: Clause) -> Example:
    """A clause followed by the conclusion drawn from it."""
    return Example(grammar.conclusion(clause), clause.truth, {clause.noun: clause.truth})


def affirmed(rng: random.Random, combinations: Sequence[Combination]) -> Example:
    """ "The door is now open", or the same in "it is true that ..."."""
    if rng.random() < 0.25:
        frame, phrase = draw_frame_affirmation(rng), draw_frame_affirmation(rng)
        return conclude(one_clause(rng, rng.choice(combinations), phrase, frame))
    return conclude(one_clause(rng, rng.choice(combinations), draw_affirmation(rng)))


def negated(rng: random.Random, combinations: Sequence[Combination]) -> Example:
    """ "The door is not open", with any cue, or the same in "it is true that ..."."""
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
    return Example(
        grammar.question(clause, state),
        grammar.question_answer(clause, state),
        {clause.noun: clause.truth},
    )


def two_clauses(negated: tuple[bool, bool], about: int) -> Draw:
    """Two clauses with cues where `negated` says so, and the conclusion about the clause with index `about`."""

    def draw(rng: random.Random, combinations: Sequence[Combination]) -> Example:
        past = rng.random() < 0.3
        clauses = [
            draw_clause(rng, combination, draw_negation(rng) if cue else draw_affirmation(rng), past=past)
            for combination, cue in zip(draw_two(rng, combinations), negated, strict=True)
        ]
        text = grammar.conclusion(*clauses, about=about, connective=rng.choice(grammar.CONNECTIVES))
        return Example(text, clauses[about].truth, {clause.noun: clause.truth for clause in clauses})

    return draw


def draw_two(rng: random.Random, combinations: Sequence[Combination]) -> tuple[Combination, Combination]:
    """Two combinations with different nouns; in a third of the cases, if possible, with the same scale."""
    first = rng.choice(combinations)
    if rng.random() < 1 / 3:
        rivals = [one for one in combinations if one.scale == first.scale and one.noun != first.noun]
        if rivals:
            return first, rng.choice(rivals)
    second = first
    while second.noun == first.noun:
        second = rng.choice(combinations)
    return first, second


@cache
def free_combinations() -> tuple[Combination, ...]:
    """Every noun with every scale, whether or not they fit, except for the held-out combinations.

    Statements of two clauses use these in training, so that the model cannot infer which state belongs to a noun from
    what fits the noun. It must use the position of the state.
    """
    nouns = sorted({noun for scale in SCALES for noun in scale.nouns})
    held_out = set(held_out_combinations())
    combinations = (Combination(noun, scale) for scale in SCALES for noun in nouns)
    return tuple(combination for combination in combinations if combination not in held_out)


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
"""The kinds of statements in the table of accuracies."""


@dataclass(frozen=True)
class Stage:
    """The composition of a batch, and the positions that the loss includes.

    Attributes:
        one_clause: The share of statements with one clause; the others have two.
        mix: The relative frequency of each kind of one-clause statement.
        mentions: Whether the loss includes the true state at every mention of a noun, in addition to [MASK].
    """

    one_clause: float
    mix: dict[Draw, float]
    mentions: bool


_MIX: dict[Draw, float] = {affirmed: 0.15, negated: 0.25, denied: 0.1, double: 0.15, question: 0.35}
_QUESTIONS: dict[Draw, float] = {affirmed: 0.05, negated: 0.1, denied: 0.05, double: 0.1, question: 0.7}
SINGLE = Stage(one_clause=1.0, mix=_MIX, mentions=True)
BINDING = Stage(one_clause=0.5, mix=_MIX, mentions=True)
ASKING = Stage(one_clause=0.65, mix=_QUESTIONS, mentions=False)


def stage_at(recipe: Recipe, step: int) -> Stage:
    """The stage of a step."""
    if step < recipe.single_steps:
        return SINGLE
    return BINDING if step < recipe.single_steps + recipe.binding_steps else ASKING


def draw_batch(recipe: Recipe, step: int) -> list[Example]:
    """The statements of one step; they depend only on the seed and the step."""
    rng = random.Random(f"{recipe.seed}-{step}")
    stage = stage_at(recipe, step)
    one = round(recipe.batch * stage.one_clause)
    draws = rng.choices(list(stage.mix), list(stage.mix.values()), k=one)
    examples = [draw(rng, training_combinations()) for draw in draws]
    draws = rng.choices(list(TWO_CLAUSES.values()), k=recipe.batch - one)
    return examples + [draw(rng, free_combinations()) for draw in draws]


# ---- tokenizer and model -----------------------------------------------------------------------------------


def vocabulary() -> list[str]:
    """The special tokens, then every word that the grammar can produce, in alphabetical order."""
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
    """A lower-casing BERT tokenizer of whole words; its vocab.txt is written to `folder`."""
    (folder / "vocab.txt").write_text("\n".join(vocabulary()) + "\n", encoding="utf-8")
    return BertTokenizerFast.from_pretrained(folder, do_lower_case=True, model_max_length=64)


def build_model(recipe: Recipe, vocab_size: int) -> BertForMaskedLM:
    """The untrained model.

    The keys start as a copy of the queries, so that from the first step a token attends to tokens similar to it, such
    as the other mention of its noun. There is no dropout, because the grammar has no noise.
    """
    torch.manual_seed(recipe.seed)
    model = BertForMaskedLM(
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
    with torch.no_grad():
        for layer in model.bert.encoder.layer:
            layer.attention.self.key.weight.copy_(layer.attention.self.query.weight)
    return model


def answer_logits(
    model: BertForMaskedLM, tokenizer: BertTokenizerFast, examples: Sequence[Example]
) -> Float[Tensor, "batch vocab"]:
    """The logits at the [MASK] of each statement; the model's head is computed only there."""
    encoded = tokenizer([example.text for example in examples], return_tensors="pt", padding=True)
    masked = encoded["input_ids"] == tokenizer.mask_token_id
    return model.cls(model.bert(**encoded).last_hidden_state[masked])


def answer_ids(tokenizer: BertTokenizerFast, examples: Sequence[Example]) -> Int[Tensor, "batch"]:
    """The token id of each answer."""
    return torch.tensor(tokenizer.convert_tokens_to_ids([example.answer for example in examples]))


def mention_ids(
    ids: Int[Tensor, "batch pos"], tokenizer: BertTokenizerFast, examples: Sequence[Example]
) -> Int[Tensor, "batch pos"]:
    """The token id of the true state at every mention of a noun, and IGNORED elsewhere."""
    labels = torch.full_like(ids, IGNORED)
    for row, label, example in zip(ids, labels, examples, strict=True):
        for noun, truth in example.truths.items():
            label[row == tokenizer.convert_tokens_to_ids(noun)] = tokenizer.convert_tokens_to_ids(truth)
    return labels


def training_loss(
    recipe: Recipe, step: int, model: BertForMaskedLM, tokenizer: BertTokenizerFast, examples: Sequence[Example]
) -> Float[Tensor, ""]:
    """The loss: cross-entropy of the answers at [MASK] and, before stage three, of true states at mentions of nouns.

    The second term teaches binding in steps: first of a state to its noun within a clause, then to the other mention of
    the noun, which the adjacent [MASK] attends to. Binding persists without this term, and questions are learnt without
    it.
    """
    encoded = tokenizer([example.text for example in examples], return_tensors="pt", padding=True)
    ids = encoded["input_ids"]
    masked = ids == tokenizer.mask_token_id
    hidden = model.bert(**encoded).last_hidden_state
    answers = cross_entropy(model.cls(hidden[masked]), answer_ids(tokenizer, examples))
    if not stage_at(recipe, step).mentions:
        return answers
    mentions = mention_ids(ids, tokenizer, examples)
    labelled = mentions != IGNORED
    return answers + recipe.mention_weight * cross_entropy(model.cls(hidden[labelled]), mentions[labelled])


# ---- training ----------------------------------------------------------------------------------------------


def train(recipe: Recipe, out: Path, *, every: int = 250, stop_after: int | None = None) -> BertForMaskedLM:
    """The trained model; training resumes from the checkpoint in `out` if there is one.

    Args:
        recipe: The settings.
        out: The folder of the tokenizer and the checkpoint.
        every: Number of steps between checkpoints, at which accuracies on a few statements are printed too.
        stop_after: Stop after this many steps, to simulate an interruption.

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
    """The loss of one batch, after one step of AdamW on it."""
    model.train()
    examples = draw_batch(recipe, step)
    loss = training_loss(recipe, step, model, tokenizer, examples)
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
    """Write the state after `step` steps atomically, so that an interruption leaves a complete checkpoint."""
    part = path.with_suffix(".part")
    state = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
    torch.save({"recipe": asdict(recipe), "step": step, **state}, part)
    part.replace(path)


def restore(path: Path, recipe: Recipe, model: BertForMaskedLM, optimizer: torch.optim.Optimizer) -> int:
    """The number of steps already taken, after loading the checkpoint if there is one.

    Raises:
        SystemExit: if the checkpoint belongs to another recipe.
    """
    if not path.exists():
        return 0
    state = torch.load(path, weights_only=True)
    if state["recipe"] != asdict(recipe):
        raise SystemExit(f"{path} belongs to another recipe: {state['recipe']}. Give another --out, or delete it.")
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    return state["step"]


def progress() -> Progress:
    """A progress bar with the loss and the remaining time."""
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
    """The accuracy on held-out statements of each kind; right is the highest logit of the whole vocabulary."""
    model.eval()
    return {name: accuracy(model, tokenizer, draw, samples, f"{seed}-{name}") for name, draw in draws.items()}


def accuracy(model: BertForMaskedLM, tokenizer: BertTokenizerFast, draw: Draw, samples: int, seed: str) -> float:
    """The accuracy on `samples` held-out statements of one kind."""
    rng = random.Random(seed)
    examples = [draw(rng, held_out_combinations()) for _ in range(samples)]
    chosen = [answer_logits(model, tokenizer, examples[i : i + 250]).argmax(-1) for i in range(0, samples, 250)]
    return (torch.cat(chosen) == answer_ids(tokenizer, examples)).float().mean().item()


def as_table(shares: dict[str, float]) -> str:
    """The accuracies as a Markdown table."""
    rows = [f"| {name} | {share:.4f} |" for name, share in shares.items()]
    return "\n".join(["| statements | accuracy |", "|---|---|", *rows])


def model_card(recipe: Recipe, table: str) -> str:
    """The text of README.md for the model folder."""
    rng = random.Random(recipe.seed)
    examples = [draw(rng, training_combinations()) for draw in CATEGORIES.values()]
    return CARD.format(
        parameters=" ".join(f"{name}={value}" for name, value in asdict(recipe).items()),
        seed=recipe.seed,
        steps=recipe.steps,
        sensible=len(training_combinations()) + len(held_out_combinations()),
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
    parser.add_argument("--out", type=Path, required=True, help="folder to write the model and its checkpoints to")
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
    build_tokenizer(args.out).save_pretrained(args.out)  # built again, because the used one keeps the padding
    (args.out / "README.md").write_text(model_card(recipe, table), encoding="utf-8")
    (args.out / CHECKPOINT).unlink()


if __name__ == "__main__":
    main()
