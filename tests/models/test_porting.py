"""The rows of docs/porting.md that say which hook of TransformerLens 4's bridge is which of ours."""

import re
from pathlib import Path

import pytest
import torch
from transformer_lens.model_bridge import TransformerBridge

from tests.support import ROOT, tiny_models
from tests.support.tiny_models import largest_difference

PAGE = ROOT / "docs" / "porting.md"
OTHER_MEANINGS = ("hook_attn_out", "hook_mlp_in", "hook_resid_mid", "hook_resid_post")


def rows() -> dict[str, str]:
    """Our name of each hook of the bridge in the table."""
    table = PAGE.read_text(encoding="utf-8").split("<!-- bridge table -->")[1].split("\n\n")[0]
    return dict(re.findall(r"^\| `(\S+)` \| `(\S+)` \|$", table, re.MULTILINE))


@pytest.mark.slow
@torch.no_grad()
def test_every_row_of_the_bridge(tmp_path: Path) -> None:
    theirs, ours = tiny_models.pair("bert", "masked_lm")
    theirs.save_pretrained(tmp_path)
    tiny_models.tokenizer().save_pretrained(tmp_path)
    bridge = TransformerBridge.boot_transformers(str(tmp_path), device="cpu")
    tokens = tiny_models.token_batch(0, (8,))
    ours.set_use_hook_mlp_in(True)
    _, cache = ours.run_with_cache(tokens)
    _, other = bridge.run_with_cache(tokens)
    assert len(rows()) == 25
    for theirs_name, our_name in rows().items():
        for layer in range(3 if "blocks.0" in our_name else 1):
            names = [name.replace("blocks.0", f"blocks.{layer}") for name in (theirs_name, our_name)]
            assert largest_difference(other[names[0]], cache[names[1]]) < 1e-5, names
    for name in OTHER_MEANINGS:
        assert largest_difference(other[f"blocks.1.{name}"], cache[f"blocks.1.{name}"]) > 0.1, name


def test_the_page_names_tests_and_functions_that_exist() -> None:
    text = PAGE.read_text(encoding="utf-8")
    named = set(re.findall(r"`((?:tests/models/)?test_\w+\.py)`", text))
    assert len(named) > 8
    assert [name for name in named if not (ROOT / "tests" / "models" / Path(name).name).is_file()] == []
    assert "docs/porting.md" in (ROOT / "README.md").read_text(encoding="utf-8")
