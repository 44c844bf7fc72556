"""Time of negprobe's encoder compared with Hugging Face's, alternating in one process.

Two comparisons on randomly initialised BERT masked LMs: the plain forward pass with Hugging Face's fused attention
(SDPA), and `run_with_cache` of all activations with Hugging Face's eager forward pass that returns all attentions and
hidden states. A ratio is the median over rounds of ours / theirs; both are timed back to back in each round.
"""

import argparse
from functools import partial

import torch
from rich.console import Console
from rich.table import Table
from timing import paired
from transformers import BertConfig, BertForMaskedLM

from negprobe import HookedEncoder

MODELS = {"2 x 128": (2, 128, 2), "12 x 768": (12, 768, 12)}
BATCHES = {"16 x 16": (16, 16), "8 x 128": (8, 128)}
TARGETS = {"forward": 1.15, "cache": 1.3}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=10.0, help="time spent on each row")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)

    table = Table(title=f"negprobe / Hugging Face, CPU, float32, {arguments.threads} threads")
    for column in ("model", "batch x tokens", "function", "ours (ms)", "Hugging Face (ms)", "ratio", "maximum ratio"):
        table.add_column(column, justify="right")
    for model_name, (layers, width, heads) in MODELS.items():
        config = BertConfig(
            num_hidden_layers=layers,
            hidden_size=width,
            num_attention_heads=heads,
            intermediate_size=4 * width,
        )
        fused = BertForMaskedLM._from_config(config, attn_implementation="sdpa").eval()
        eager = BertForMaskedLM._from_config(config, attn_implementation="eager").eval()
        eager.load_state_dict(fused.state_dict())
        ours = HookedEncoder.from_pretrained(fused, device="cpu")
        for batch_name, (batch, pos) in BATCHES.items():
            tokens = torch.randint(1000, 20000, (batch, pos))
            inputs = {"input_ids": tokens, "attention_mask": torch.ones_like(tokens)}
            everything = inputs | {"output_attentions": True, "output_hidden_states": True}
            pairs = {
                "forward": (partial(ours, tokens), partial(fused, **inputs)),
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
                    str(TARGETS[what]),
                )
    Console().print(table)


if __name__ == "__main__":
    main()
