"""Speed of the metrics of a data set, compared with a loop over pairs, layers and heads and with bare forward passes.

"Ours" is `AttentionProbe.metrics` of the built-in pairs, from sentences to labelled arrays: original, counterfactual
and control, with all metrics, raw and norm-weighted, by role. The loop is typical notebook code: one pair at a time,
two forward passes for each layer and head, and four metrics. The bare passes run the same batches of tokens without the
model's head and without storing activations. Their ratio to ours is the median over rounds in which both run.

    python benchmarks/metrics.py             # the speed
    python benchmarks/metrics.py --model sentence-transformers/all-mpnet-base-v2
    python benchmarks/metrics.py --memory    # how memory grows with the number of pairs
"""

import argparse
import resource
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from itertools import cycle, islice
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from shapes import SHAPES, masked_lm
from timing import paired, seconds

from negprobe import AttentionProbe, HookedEncoder, StatementPair, builtin_pairs

MIN_SPEED_UP, MAX_OVERHEAD = 50, 2.5
MODELS = ["tiny-negation", "6 x 768", "ModernBERT-base", "DeBERTa-v3-base"]


def random_model(name: str) -> HookedEncoder:
    """A masked LM of a known shape with random weights, and the bundled model's tokenizer."""
    tokenizer = HookedEncoder.from_pretrained("tiny-negation", device="cpu").tokenizer
    hf_model = masked_lm(name, vocab_size=len(tokenizer), pad_token_id=tokenizer.pad_token_id)
    return HookedEncoder.from_pretrained(hf_model, tokenizer=tokenizer, device="cpu")


@torch.no_grad()
def notebook_loop(model: HookedEncoder, pairs: list[StatementPair]) -> dict[tuple[int, int, int], list[float]]:
    """The four metrics of each pair, layer and head, each from its own two forward passes."""
    found = {}
    for index, pair in enumerate(pairs):
        for layer in range(model.cfg.n_layers):
            for head in range(model.cfg.n_heads):
                maps, outputs = [], []
                for text in (pair.original, pair.counterfactual):
                    _, cache = model.run_with_cache(text)
                    maps.append(cache["pattern", layer][0, head].numpy())
                    outputs.append(cache["z", layer][0, :, head].numpy())
                n = min(map(len, maps))
                a, b = (pattern[:n, :n] for pattern in maps)
                y, z = (output[:n] for output in outputs)
                difference = np.abs(a - b)
                found[index, layer, head] = [
                    float(difference.max()),
                    float(difference.mean()),
                    float(np.corrcoef(a.ravel(), b.ravel())[0, 1]),
                    float(np.corrcoef(y.ravel(), z.ravel())[0, 1]),
                ]
    return found


def bare_passes(probe: AttentionProbe, pairs: list[StatementPair]) -> Callable[[], None]:
    """A function that runs only the forward passes that the metrics of these pairs need."""
    model, batches = probe.model, []
    run = model.run_with_cache

    def remember(tokens: torch.Tensor, **options: object) -> object:
        passed = {name: value for name, value in options.items() if name != "names_filter"}
        batches.append((tokens, passed))
        return run(tokens, **options)

    model.run_with_cache = remember  # type: ignore[method-assign]
    try:
        probe.metrics(pairs)
    finally:
        del model.run_with_cache

    @torch.no_grad()
    def passes() -> None:
        for tokens, options in batches:
            model(tokens, **options)

    return passes


def print_speed(budget: float, names: list[str]) -> None:
    """Print a table with a row for each model."""
    table = Table(title=f"pairs per second, CPU, float32, {torch.get_num_threads()} threads")
    ratios = (f"ours / loop (≥ {MIN_SPEED_UP})", f"bare / ours (≤ {MAX_OVERHEAD})")
    for column in ("model", "ours", "notebook loop", "bare passes", *ratios):
        table.add_column(column, justify="right")
    pairs = builtin_pairs()
    for name in names:
        model = random_model(name) if name in SHAPES else HookedEncoder.from_pretrained(name, device="cpu")
        n_pairs, n_looped = (len(pairs), 4) if model.cfg.d_model < 256 else (96, 1)
        probe, chosen = AttentionProbe(model), pairs[:n_pairs]
        looped = pairs[:: len(pairs) // n_looped][:n_looped]
        ours, bare, ratio = paired(
            partial(probe.metrics, chosen), bare_passes(probe, chosen), budget, warm_up=1, least=3
        )
        loop = min(seconds(partial(notebook_loop, model, looped)) for _ in range(2)) / len(looped)
        table.add_row(
            f"random {name}" if name in SHAPES else Path(name).name,
            f"{len(chosen) / ours:.1f}",
            f"{1 / loop:.3g}",
            f"{len(chosen) / bare:.1f}",
            f"{loop / (ours / len(chosen)):.0f}",
            f"{ratio:.2f}",
        )
    Console().print(table)


def print_memory(n_pairs: int) -> None:
    """Print the memory of a process with `n_pairs` pairs and of one with ten times as many."""
    table = Table(title="peak memory of AttentionProbe.metrics on tiny-negation, beyond a warmed-up process (MB)")
    for column in ("pairs", "growth of the peak", "results", "rest"):
        table.add_column(column, justify="right")
    for n in (n_pairs, 10 * n_pairs):
        done = subprocess.run([sys.executable, __file__, "--grow", str(n)], check=True, capture_output=True, text=True)
        growth, results = (float(number) for number in done.stdout.split())
        table.add_row(str(n), f"{growth:.1f}", f"{results:.1f}", f"{growth - results:.1f}")
    Console().print(table)


def grow(n_pairs: int) -> None:
    """Print how much the peak memory grows from the built-in pairs to `n_pairs`, and the size of the results, in MB."""
    probe = AttentionProbe(HookedEncoder.from_pretrained("tiny-negation", device="cpu"))
    probe.metrics(builtin_pairs())
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    results = probe.metrics(list(islice(cycle(builtin_pairs()), n_pairs)))
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print((after - before) / 1e3, results.nbytes / 1e6)


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=20.0, help="time spent on each model")
    shapes = f"one of {', '.join(SHAPES)} with random weights, or a folder or hub name; by default {', '.join(MODELS)}"
    parser.add_argument("--model", action="append", help=shapes)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--memory", action="store_true", help="measure memory at 1,000 and 10,000 pairs instead")
    parser.add_argument("--grow", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    if arguments.grow:
        grow(arguments.grow)
    elif arguments.memory:
        print_memory(1000)
    else:
        print_speed(arguments.seconds, arguments.model or MODELS)


if __name__ == "__main__":
    main()
