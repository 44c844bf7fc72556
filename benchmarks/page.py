"""Size of an interactive page of many pairs, and the time until a browser has loaded and drawn it.

    python benchmarks/page.py

The page shows built-in pairs, including value zeroing, for a randomly initialised BERT with 12 layers and 12 heads. It
is opened several times in Chromium, without network access. The script prints the median times until the document is
loaded and until all heads of the first layer are drawn, and keeps the page in OUT.
"""

import argparse
import shutil
import statistics
import time
from pathlib import Path

import torch
from playwright.sync_api import sync_playwright
from transformers import BertConfig, BertForMaskedLM

from negprobe import AttentionProbe, HookedEncoder, builtin_pairs
from negprobe.views import write_page

LAYERS = HEADS = 12


def main() -> None:
    """Write the page, open it several times, and print its size and times."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path("negprobe-page.html"))
    arguments = parser.parse_args()
    tokenizer = HookedEncoder.from_pretrained("tiny-negation", device="cpu").tokenizer
    assert tokenizer is not None
    torch.manual_seed(0)
    config = BertConfig(vocab_size=len(tokenizer), num_hidden_layers=LAYERS, num_attention_heads=HEADS)
    model = HookedEncoder.from_pretrained(BertForMaskedLM(config).eval(), tokenizer=tokenizer, device="cpu")
    pairs = builtin_pairs()
    chosen = [pairs[i * len(pairs) // arguments.pairs] for i in range(arguments.pairs)]
    comparisons = AttentionProbe(model).compare(chosen, zeroing=True)
    page = write_page(comparisons, arguments.out, title=f"{len(chosen)} pairs, {LAYERS} x {HEADS} heads")
    tokens = statistics.mean(len(comparison.counterfactual.statement) for comparison in comparisons)
    print(f"{len(chosen)} pairs of {tokens:.1f} tokens on average: {page.stat().st_size / 1e6:.1f} MB, {page}")
    loaded, drawn = zip(*(opened(page) for _ in range(arguments.rounds)), strict=True)
    print(f"loaded after {statistics.median(loaded):.2f} s, drawn after {statistics.median(drawn):.2f} s")


def opened(page: Path) -> tuple[float, float]:
    """Seconds until the document is loaded, and until the heads of both statements and their difference are drawn."""
    path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        tab = browser.new_page(viewport={"width": 1300, "height": 900})
        start = time.perf_counter()
        tab.goto(page.resolve().as_uri())
        loaded = time.perf_counter() - start
        # Three views, each with a small map per head and one enlarged map.
        tab.wait_for_function("n => document.querySelectorAll('canvas').length === n", arg=3 * (HEADS + 1))
        drawn = time.perf_counter() - start
        browser.close()
    return loaded, drawn


if __name__ == "__main__":
    main()
