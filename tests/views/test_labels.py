import pytest
import xarray as xr

from negprobe.views.labels import ablation_label, aligned_label, patching_title, run_name, tick_label


def test_a_short_token_is_its_own_label() -> None:
    assert tick_label("door") == "door"


def test_a_long_token_is_cut_and_says_so() -> None:
    assert tick_label("x" * 200) == "x" * 13 + "…"
    assert tick_label("x" * 14) == "x" * 14


def test_what_cannot_be_seen_becomes_visible_on_one_line() -> None:
    assert tick_label("a b\n\u202e") == "a␣b␣␣"
    assert tick_label("") == "␣"


def test_aligned_tokens_share_a_label_only_where_they_agree() -> None:
    assert aligned_label("door", "door") == "door"
    assert aligned_label("now", "not").replace("\u200e", "") == "now→not"


def test_of_aligned_tokens_the_original_s_stands_first_in_any_script() -> None:
    # Without the marks, two right-to-left words would change places around the arrow.
    assert aligned_label("\u05d0", "\u05d1") == "\u05d0\u200e→\u200e\u05d1"


@pytest.mark.parametrize(
    ("coords", "attrs", "line"),
    [
        (("control", "counterfactual"), {"direction": "noising"}, "from the counterfactual into the control (noising)"),
        (
            ("counterfactual", "control"),
            {"direction": "denoising"},
            "from the control into the counterfactual (denoising)",
        ),
        (
            ("original", "counterfactual"),
            {"direction": "noising"},
            "from the counterfactual into the original (noising)",
        ),
        (("control", "counterfactual"), {"direction": "noising", "how": "zero"}, "in the control (noising)"),
        # Results that do not say: a noising run may be of the original or of its control.
        (None, {"direction": "denoising"}, "in the counterfactual (denoising)"),
        (None, {"direction": "noising"}, "noising"),
        (None, {}, None),
    ],
)
def test_a_title_names_the_runs_that_the_result_names(coords, attrs, line) -> None:
    named = dict(zip(("base_run", "source_run"), coords, strict=True)) if coords else {}
    assert patching_title(xr.DataArray(0.0, coords=named, attrs=attrs)) == ([] if line is None else [line])


def test_pairs_with_and_without_a_control_are_named_together() -> None:
    effects = xr.DataArray([0.0, 1.0], dims="pair", coords={"base_run": ("pair", ["original", "control"])})
    assert run_name(effects, "base_run") == "control or original"


def test_a_circuit_of_noised_runs_is_not_said_to_be_of_the_originals() -> None:
    assert ablation_label("noising", "mean") == "mean ablation in the control or original (noising)"
    assert ablation_label("denoising", "mean") == "mean ablation in the counterfactual (denoising)"
