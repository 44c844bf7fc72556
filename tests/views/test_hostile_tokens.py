"""Whatever tokens hold, every figure that shows them shows them as text, without an error or a warning."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text

from negprobe import views
from negprobe.views.labels import aligned_label, tick_label
from tests.support.sample_comparisons import attention_of, comparison_of
from tests.support.sample_patching import averages_of, by_head, circuit_of, effects_and_attention, mean_effects_of
from tests.support.sample_statistics import replication_of

HOSTILE = (r"$\frac{", "<script>", "w" * 200, "\u05e9\u05dc\u05d5\u05dd", "\U0001f600", "", "\n", "_^$", "%s{}")


def hostile_figures() -> dict[str, tuple[Figure, list[str]]]:
    """Figures of tokens, and the names that they have to show."""
    n = len(HOSTILE)
    tokens = ("[CLS]", *HOSTILE, "[SEP]")
    comparison = comparison_of(tokens, cue=HOSTILE[0], at=2, layers=1, heads=1)
    labels, longer = ([tick_label(token, longest) for token in HOSTILE] for longest in (9, 14))
    changed = [aligned_label(token, token, 9) for token in HOSTILE]
    circuit = replace(circuit_of(2, 2, 2), model_name=HOSTILE[0])
    roles = by_head(np.arange(n, dtype=float).reshape(1, n)).rename(head="role").assign_coords(role=list(HOSTILE))
    groups = replication_of(groups=[token for token in HOSTILE if token.split()])
    return {
        "raw": (views.raw_beside_value_weighted(attention_of(tokens, layers=1, heads=1), 0, 0, width=14.0), labels),
        "four": (views.four_heatmaps(comparison, 0, 0, width=14.0), labels),
        "difference": (views.difference_map(comparison, 0, 0, width=14.0), changed),
        "positions": (
            views.patching_map(mean_effects_of("position", list(HOSTILE), 2)),
            longer,
        ),
        "roles": (views.patching_map(mean_effects_of("role", list(HOSTILE), 2)), longer),
        "label": (views.layer_head_map(np.ones((2, 2)), label=HOSTILE[0]), [HOSTILE[0]]),
        "circuit": (views.circuit_graph(circuit), [HOSTILE[0]]),
        "agreement": (views.attribution_agreement(roles, roles * 1.5), [f"0 {tick_label(HOSTILE[-1])}"]),
        "averages": (views.effect_by_role(averages_of("role", list(HOSTILE), 2)), longer),
        "groups": (
            views.effect_by_group(groups, "norm_to_cue", heads=[(1, 1)]),
            [tick_label(token) for token in HOSTILE if token.split()],
        ),
        "causal": (views.causal_against_attention(*effects_and_attention(), HOSTILE[0]), [HOSTILE[0]]),
    }


@pytest.mark.slow
@pytest.mark.filterwarnings("error")
def test_hostile_tokens_are_shown_as_text(shown: Callable[[Figure], list[Text]]) -> None:
    for name, (figure, expected) in hostile_figures().items():
        written = {text.get_text(): text for text in shown(figure)}
        for label in expected:
            holding = [text for said, text in written.items() if label in said]
            assert holding, f"{name} does not show {label!r} but {sorted(written)}"
            assert not any(text.get_parse_math() for text in holding if "$" in text.get_text()), f"{name}: {label!r}"


def test_tokens_are_shown_in_order_whatever_their_script() -> None:
    tokens = ("\u05d0\u05d1", "open", "\u05d2\u05d3")
    axes = views.patching_map(mean_effects_of("position", list(tokens), 2)).axes[0]
    assert [text.get_text() for text in axes.get_xticklabels()] == list(tokens)
