"""Make the README's picture: a screenshot of the interactive page of a pair on the bundled model.

python scripts/draw_readme.py docs/page.png
"""

import argparse
import shutil
import tempfile
from pathlib import Path

from playwright.sync_api import sync_playwright

from negprobe import AttentionProbe, HookedEncoder, builtin_pairs, patch_sweep
from negprobe.views import write_page

WIDTH, HEIGHT = 1300, 900


def main() -> None:
    """Write the page, open it, select the head that attends to the cue, and save a screenshot."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, nargs="?", default=Path("docs/page.png"))
    out = parser.parse_args().out
    model = HookedEncoder.from_pretrained("tiny-negation", device="cpu")
    pairs = builtin_pairs()[:3]
    comparisons = AttentionProbe(model).compare(pairs, zeroing=True)
    swept = patch_sweep(model, pairs[0], "resid_pre", by="position", direction="denoising")
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        page = write_page(
            comparisons, Path(folder) / "page.html", title="Where tiny-negation hears “not”", sweeps=[swept]
        )
        path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        tab = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT})
        tab.goto(page.as_uri())
        tab.select_option("select[name=metric]", "norm_to_cue")
        # Select head 0.3, in which the negated word attends to the negation.
        tab.locator("#negprobe-overview tr").nth(1).locator("button").nth(3).click()
        cue = comparisons[0].cue_positions[-1]
        tab.locator("[data-side=counterfactual] .negprobe-tokens button").nth(cue + 1).click()
        tab.wait_for_timeout(1000)
        tab.screenshot(path=out, full_page=True)
        browser.close()


if __name__ == "__main__":
    main()
