"""Time of negprobe's encoder compared with Hugging Face's, alternating in one process.

Two comparisons on randomly initialised masked LMs of the shapes of known models: the plain forward pass with the faster
of Hugging Face's implementations of attention (SDPA or eager; some models have eager only), and `run_with_cache` of all
activations with Hugging Face's eager forward pass that returns all attentions and hidden states. A ratio is the median
over rounds of ours / theirs; both are timed back to back in each round.
"""

import argparse
from functools import partial

import torch
from rich.console import Console
from rich.table import Table
from shapes import SHAPES, masked_lm
from timing import paired, seconds

from negprobe import HookedEncoder

MODELS = [name for name in SHAPES if name != "6 x 768"]
BATCHES = {"16 x 16": (16, 16), "8 x 128": (8, 128)}
TARGETS = {"forward": 1.15, "cache": 1.3}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=10.0, help="time spent on each row")
    parser.add_argument("--model", choices=MODELS, action="append", help="models to time; by default all")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)

    table = Table(title=f"negprobe / Hugging Face, CPU, float32, {arguments.threads} threads")
    for column in ("model", "batch x tokens", "function", "ours (ms)", "Hugging Face (ms)", "ratio", "goal"):
        table.add_column(column, justify="right")
    for model_name in arguments.model or MODELS:
        eager, fused = masked_lm(model_name), masked_lm(model_name, "sdpa")
        assert eager is not None
        if fused is not None:
            fused.load_state_dict(eager.state_dict())
        ours = HookedEncoder.from_pretrained(eager, device="cpu")
        for batch_name, (batch, pos) in BATCHES.items():
            tokens = torch.randint(1000, 20000, (batch, pos))
            inputs = {"input_ids": tokens, "attention_mask": torch.ones_like(tokens)}
            with torch.no_grad():
                ways = {"eager": partial(eager, **inputs), **({"sdpa": partial(fused, **inputs)} if fused else {})}
                fastest = min(ways, key=lambda way: min(seconds(ways[way]) for _ in range(3)))
            everything = inputs | {"output_attentions": True, "output_hidden_states": True}
            pairs = {
                f"forward ({fastest})": (partial(ours, tokens), ways[fastest]),
                "cache": (partial(ours.run_with_cache, tokens), partial(eager, **everything)),
            }
            for what, (mine, theirs) in pairs.items():
                with torch.no_grad():
                    a, b, ratio = paired(mine, theirs, arguments.seconds)
                table.add_row(
                    model_name,
                    batch_name,
                    what,
                    f"{a * 1e3:.2f}",
                    f"{b * 1e3:.2f}",
                    f"{ratio:.2f}",
                    str(TARGETS[what.split()[0]]),
                )
    Console().print(table)


if __name__ == "__main__":
    main()
