"""How large an interactive page of many pairs is, and how soon it opens.

    python benchmarks/page.py

Built-in pairs, value zeroing included, on a randomly initialised BERT of 12 layers and 12 heads, whose attention is as
hard to compress as any. The page is opened in Chromium, without a network, again and again; told are the medians until
the document is there and until every head of the first layer is drawn. The page stays in OUT.
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
    """Write, open, print."""
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
    print(f"opens in {statistics.median(loaded):.2f} s, drawn after {statistics.median(drawn):.2f} s")


def opened(page: Path) -> tuple[float, float]:
    """Seconds until the document is there, and until both statements' heads and their difference are drawn."""
    path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        tab = browser.new_page(viewport={"width": 1300, "height": 900})
        start = time.perf_counter()
        tab.goto(page.resolve().as_uri())
        loaded = time.perf_counter() - start
        # Every small map of three views, and the enlarged one of each.
        tab.wait_for_function("n => document.querySelectorAll('canvas').length === n", arg=3 * (HEADS + 1))
        drawn = time.perf_counter() - start
        browser.close()
    return loaded, drawn


if __name__ == "__main__":
    main()
