"""Time of a patching sweep compared with two alternatives, in one process, on the same encoder and pair.

Three implementations compute the same array of logit differences from two sentences, on randomly initialised masked LMs
of the shapes of known models and a pair of 16 tokens that differ in one: the sweep of `transformer_lens.patching` (one
forward pass per patch), a plain batched sweep (the patches of a layer in batches, with hooks, running all layers and
the whole head), and ours. A ratio is the median over rounds of theirs / ours, timed back to back in each round. The
difference is the largest one between our numbers and those of the loop.

The rate is the number of floating-point operations of our sweep per second, as counted by torch. It is compared with
the rate of a product of two 2,048 x 2,048 matrices, timed in the same rounds.
"""

import argparse
import statistics
from functools import partial

import torch
from rich.console import Console
from rich.table import Table
from shapes import masked_lm
from timing import seconds
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode
from transformer_lens import patching
from transformers import PreTrainedTokenizerFast

from negprobe import HookedEncoder, StatementPair, patch_sweep
from negprobe.patching import By

ROWS: tuple[tuple[str, str, By | tuple[By, ...], float], ...] = (
    ("2 x 128", "resid_pre", "position", 30),
    ("6 x 768", "resid_pre", "position", 10),
    ("12 x 768", "resid_pre", "position", 8),
    ("6 x 768", "z", ("head", "position"), 15),
    ("MPNet-base", "resid_pre", "position", 8),
    ("ModernBERT-base", "resid_pre", "position", 8),
    ("DeBERTa-v3-base", "resid_pre", "position", 8),
)
PAIR = StatementPair(
    "the dog by the red door is really asleep so it is [MASK] .",
    "the dog by the red door is not asleep so it is [MASK] .",
    target="asleep",
    foil="awake",
)
HOOKS = {"resid_pre": "blocks.{}.hook_resid_pre", "z": "blocks.{}.attn.hook_z"}
THEIRS = {"resid_pre": patching.get_act_patch_resid_pre, "z": patching.get_act_patch_attn_head_out_by_pos}
# The padding id that MPNet requires.
D_VOCAB, PAD = 30522, 1


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="rounds per row, after a warm-up")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--model", choices=[row[0] for row in ROWS], action="append", help="by default all")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    console = Console(width=160)
    title = f"Patching sweeps of a 16-token pair, {arguments.device}, float32, {arguments.threads} threads"
    table = Table(title=title)
    for column in (
        *("model", "site", "patches", "loop (s)", "batched (s)", "ours (s)", "loop / ours", "goal", "batched / ours"),
        *("largest difference", "GFLOP", "GFLOP/s", "share of matmul rate"),
    ):
        table.add_column(column, justify="right")
    for name, site, by, goal in ROWS:
        if name not in (arguments.model or [name]):
            continue
        model = random_model(name, arguments.device)
        loop, batched = partial(loop_sweep, model, site), partial(batched_sweep, model, site)
        ours = partial(patch_sweep, model, PAIR, site, by=by)
        row = measured(loop, batched, ours, arguments.rounds, arguments.device)
        cells = [name, site, *row[:5], str(goal), *row[5:]]
        table.add_row(*cells)
        # The benchmark takes about ten minutes, so each row is printed as soon as it is measured.
        console.print(", ".join(f"{column.header} {cell}" for column, cell in zip(table.columns, cells, strict=True)))
    console.print(table)


class _NoModules:
    """Replaces torch's module tracker and attributes all operations to the total."""

    parents = frozenset({"Global"})

    def __enter__(self) -> None: ...

    def __exit__(self, *_: object) -> None: ...


def measured(loop, batched, ours, rounds: int, device: str) -> list[str]:
    """The cells of one row: times, ratios, difference, operations and rate."""
    counter = FlopCounterMode(display=False)
    # The counter's module tracker uses global hooks, which would switch off the fast paths of patching.
    counter.mod_tracker = _NoModules()
    with counter, torch.no_grad():
        mine = ours()["patched"].squeeze("pair")
    theirs = loop()
    if theirs.ndim == 3:
        theirs = theirs.transpose(1, 2)
    largest = float((torch.tensor(mine.values) - theirs.double().cpu()).abs().max())
    batched()
    square = torch.randn(2048, 2048, device=device)
    times: dict[str, list[float]] = {"loop": [], "batched": [], "ours": [], "square": []}
    ways = {"loop": loop, "batched": batched, "ours": ours, "square": lambda: square @ square}
    for number in range(rounds):
        # Later functions find warm caches, so the order alternates between rounds.
        for way in sorted(ways, reverse=bool(number % 2)):
            times[way].append(seconds(partial(finished, ways[way], device)))
    median = {way: statistics.median(found) for way, found in times.items()}
    ratio = {
        way: statistics.median(a / b for a, b in zip(times[way], times["ours"], strict=True))
        for way in ("loop", "batched")
    }
    work = counter.get_total_flops()
    rate, most = work / median["ours"], 2 * 2048**3 / median["square"]
    return [
        str(mine.size),
        *(f"{median[way]:.4g}" for way in ("loop", "batched", "ours")),
        f"{ratio['loop']:.1f}",
        f"{ratio['batched']:.1f}",
        f"{largest:.1e}",
        f"{work / 1e9:.3g}",
        f"{rate / 1e9:.0f} of {most / 1e9:.0f}",
        f"{rate / most:.0%}",
    ]


def finished(function, device: str) -> None:
    """Call a function, and wait for the device to finish."""
    with torch.no_grad():
        function()
    if device != "cpu":
        torch.cuda.synchronize()


def random_model(name: str, device: str) -> HookedEncoder:
    """A masked LM with random weights, and a tokenizer with the words of the pair."""
    torch.manual_seed(0)
    hf_model = masked_lm(name, vocab_size=D_VOCAB, pad_token_id=PAD)
    assert hf_model is not None
    specials = ["[UNK]", "[PAD]", "[CLS]", "[SEP]", "[MASK]"]
    words = dict.fromkeys([*specials, "awake", *PAIR.original.split(), *PAIR.counterfactual.split()])
    vocabulary = {word: index for index, word in enumerate(words)}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    backend.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    names = {f"{token.strip('[]').lower()}_token": token for token in specials}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, **names)
    return HookedEncoder.from_pretrained(hf_model, tokenizer=tokenizer, device=device)


def prepared(model: HookedEncoder) -> tuple[Tensor, Tensor, int, int, int]:
    """The tokens of both statements, the position of the mask, and the ids of the two answers."""
    assert model.tokenizer is not None
    original, counterfactual = (model.to_tokens(text)[0] for text in (PAIR.original, PAIR.counterfactual))
    at = int((original[0] == model.tokenizer.mask_token_id).nonzero())
    return original, counterfactual, at, *(model.to_single_token(word) for word in ("asleep", "awake"))


def loop_sweep(model: HookedEncoder, site: str) -> Tensor:
    """The sweep of `transformer_lens.patching`."""
    original, counterfactual, at, target, foil = prepared(model)
    names = [HOOKS[site].format(layer) for layer in range(model.cfg.n_layers)]
    _, cache = model.run_with_cache(counterfactual, names_filter=names)
    sweep = THEIRS[site]
    import transformer_lens.patching as shown

    bar, shown.tqdm = shown.tqdm, lambda rows, **_: rows
    try:
        return sweep(model, original, cache, lambda logits: logits[0, at, target] - logits[0, at, foil])
    finally:
        shown.tqdm = bar


def batched_sweep(model: HookedEncoder, site: str) -> Tensor:
    """The patches of a layer in batches of 64, with hooks, from the tokens to all logits."""
    original, counterfactual, at, target, foil = prepared(model)
    names = [HOOKS[site].format(layer) for layer in range(model.cfg.n_layers)]
    _, cache = model.run_with_cache(counterfactual, names_filter=names)
    n_pos = original.shape[1]
    shape = (n_pos,) if site == "resid_pre" else (model.cfg.n_heads, n_pos)
    cells = torch.cartesian_prod(*(torch.arange(size) for size in shape)).reshape(-1, len(shape)).to(original.device)
    values = []
    for name in names:
        for chunk in cells.split(64):

            def swap(activation: Tensor, hook: object, chunk: Tensor = chunk, name: str = name) -> Tensor:
                where = (chunk[:, -1], *chunk[:, :-1].unbind(dim=1))
                activation = activation.clone()
                activation[(torch.arange(len(chunk)), *where)] = cache[name][(0, *where)]
                return activation

            logits = model.run_with_hooks(original.expand(len(chunk), -1), fwd_hooks=[(name, swap)])
            values.append(logits[:, at, target] - logits[:, at, foil])
    return torch.cat(values).reshape(model.cfg.n_layers, *shape)


if __name__ == "__main__":
    main()
