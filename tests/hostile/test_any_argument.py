"""Every public function answers wrong values with a result or one clear error, and answers."""

import importlib
import inspect
import os
import signal
from collections.abc import Iterator
from types import ModuleType

import pytest
import torch

from negprobe import statistics

pytestmark = [
    pytest.mark.filterwarnings("ignore"),
    pytest.mark.skipif(
        os.environ.get("NEGPROBE_TYPES") == "1",
        reason="the tests' check of annotations would refuse a wrong value before negprobe's own check",
    ),
]

MODULES = ("negprobe", *(f"negprobe.{name}" for name in ("attention", "behaviour", "patching", "statements", "views")))
CLASSES = {"AttentionProbe", "Circuit", "Component", "Cue", "HookedEncoder", "Patch", "StatementPair"}


def public() -> set[str]:
    """The names of what can be called with arguments: functions, and classes that do more than hold results."""
    found = {
        name
        for module in map(importlib.import_module, MODULES)
        for name in module.__all__
        if inspect.isfunction(getattr(module, name)) or name in CLASSES
    }
    return found | {
        name
        for name, one in vars(statistics).items()
        if inspect.isfunction(one) and one.__module__.startswith(statistics.__name__) and not name.startswith("_")
    }


PUBLIC = sorted(public())
OBJECTIVES = {
    "class_logit_difference",
    "embedding_contrast",
    "kl_divergence",
    "logit_difference",
    "score_margin",
    "single_logit",
    "target_probability",
}
# Functions without arguments, and objectives, which a sweep calls.
NO_ARGUMENTS = {"builtin_pairs", "change_pairs", "builtin_set", "lexicon_in_use", *OBJECTIVES}


def out_of_time(signum: int, frame: object) -> None:
    raise TimeoutError("it does not end")


@pytest.fixture(scope="module")
def wrong() -> Iterator[ModuleType]:
    """The calls, in a folder of their own."""
    from tests.support import wrong_arguments

    before = signal.signal(signal.SIGALRM, out_of_time)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(wrong_arguments.HERE)  # a strange name can be a good one, relative to the working directory
        torch.set_printoptions(threshold=0, edgeitems=1)  # errors quote the tensors that they are given
        yield wrong_arguments
        torch.set_printoptions(profile="default")
    signal.signal(signal.SIGALRM, before)


def failures(calls: Iterator[tuple[str, object]], wrong: ModuleType) -> list[str]:
    """The calls that end in anything but a result or one clear error."""
    found = []
    for name, call in calls:
        signal.alarm(60)
        told = wrong.answer(call)
        signal.alarm(0)
        if told:
            found.append(f"{name}: {told}")
    return found


@pytest.mark.parametrize("function", PUBLIC)
def test_wrong_values_of_the_right_type_get_a_result_or_one_clear_error(function: str, wrong: ModuleType) -> None:
    assert failures(wrong.calls(function), wrong) == []


# Functions that draw large figures whatever most of their arguments are.
DRAWING = {"draw_figures", "write_study", "four_heatmaps", "raw_beside_value_weighted"}
TYPED = [
    pytest.param(name, marks=pytest.mark.slow if name in DRAWING else ()) for name in PUBLIC if name not in NO_ARGUMENTS
]


@pytest.mark.parametrize("function", TYPED)
def test_values_of_any_type_get_a_result_or_one_clear_error(function: str, wrong: ModuleType) -> None:
    good = {name: call for name, call in wrong.WORKS.items() if wrong.owner(name) == function}
    assert all(wrong.works(*call) for call in good.values())
    assert failures(wrong.calls_of_any_type(function), wrong) == []


def test_every_public_function_is_called(wrong: ModuleType) -> None:
    cases, works = ({wrong.owner(name) for name in calls} for calls in (wrong.CASES, wrong.WORKS))
    assert set(PUBLIC) == cases | works
    assert set(PUBLIC) - works == NO_ARGUMENTS
