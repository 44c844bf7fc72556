"""What a notebook shows: text, a table and a picture, and nothing that runs."""

import base64
import io
import re

import pytest
from matplotlib.image import imread

from negprobe import HookedEncoder, builtin_pairs
from negprobe.patching import find_circuit
from negprobe.views.notebook import attention_summary, circuit_summary, comparison_summary
from tests.support.sample_comparisons import ORIGINAL, comparison_of


def picture(shown: str):
    (data,) = re.findall(r'src="data:image/png;base64,([^"]+)"', shown)
    return imread(io.BytesIO(base64.b64decode(data)))


@pytest.mark.slow
def test_a_comparison_shows_its_cue_its_strongest_heads_and_a_picture(comparison):
    shown = comparison._repr_html_()
    assert shown == comparison_summary(comparison)
    assert "<b><u><bdi>not</bdi></u></b>" in shown
    change = comparison.metrics["mean_attention_diff"]
    strongest = change.isel(change.argmax(("layer", "head")))
    first = re.findall(r"<td>(.*?)</td>", shown)[:4]
    assert first[:2] == [str(int(strongest["layer"])), str(int(strongest["head"]))]
    assert float(first[3]) == pytest.approx(strongest.item(), abs=5e-4)
    assert picture(shown).std() > 0


def test_a_statement_shows_its_tokens_and_a_picture(comparison):
    shown = comparison.original._repr_html_()
    assert shown == attention_summary(comparison.original)
    assert re.findall("<bdi>(.*?)</bdi>", shown) == list(ORIGINAL)
    assert picture(shown).std() > 0


def test_a_circuit_shows_its_sentence_and_a_picture():
    model = HookedEncoder.from_pretrained("tiny-negation", device="cpu")
    circuit = find_circuit(model, builtin_pairs()[:8], ablation="mean", direction="denoising")
    shown = circuit._repr_html_()
    assert shown == circuit_summary(circuit)
    assert f"{len(circuit)} of 20 components" in shown
    assert picture(shown).std() > 0


def test_hostile_tokens_are_text():
    shown = comparison_of(("[CLS]", "<script>alert(1)</script>", "$\\frac{", "[SEP]"), at=1)._repr_html_()
    assert "<script" not in shown and "&lt;script&gt;" in shown
