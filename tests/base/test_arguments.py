"""What public functions take besides what their annotations say first, and how they refuse the rest."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Literal

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr
from jaxtyping import Int
from torch import Tensor

from negprobe import NegprobeError, behaviour, statistics
from negprobe.base.arguments import checked
from negprobe.base.errors import ArgumentError, InputError
from negprobe.models import HookedEncoder
from negprobe.statements import builtin_pairs
from negprobe.study import run_study
from negprobe.study.saved import read_study
from negprobe.views import write_study


@checked
def numbers(whole: int, real: float = 0.0, many: tuple[tuple[int, int], ...] = ()) -> float:
    return whole + real + len(many)


@checked
def words(texts: Sequence[str], asked: Sequence[Sequence[str]] = ()) -> int:
    return len(texts) + len(asked)


def test_numbers_of_arrays_are_as_good_as_pythons_own() -> None:
    assert numbers(np.int64(1), np.float32(2), ((np.int32(3), 4),)) == 4
    assert numbers(1, np.int64(2)) == 3


@pytest.mark.parametrize("wrong", [True, np.True_, 1.5, np.float64(1), "1", None])
def test_what_is_no_whole_number_is_refused(wrong: object) -> None:
    with pytest.raises(ArgumentError, match="numbers"):
        numbers(wrong)  # type: ignore[arg-type]


def test_an_error_names_function_argument_and_value_and_is_a_type_error() -> None:
    with pytest.raises(TypeError, match=r"^numbers\(\): real must be a number; got True\.$") as raised:
        numbers(1, True)
    assert isinstance(raised.value, NegprobeError)


@checked
def choices(
    way: Literal["noising", "denoising"] = "noising",
    by: Literal["head", "role"] | Sequence[Literal["head", "role"]] = "head",
    tokens: Int[Tensor, "batch pos"] | None = None,
    called: Callable[[int], None] | None = None,
    names: Mapping[str, Sequence[int]] = MappingProxyType({}),
    model: HookedEncoder | str | Path = "",
) -> None: ...


@checked
@dataclass(frozen=True)
class Part:
    spans: tuple[tuple[int, int], ...]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: choices("x"), "choices(): way must be one of 'noising', 'denoising'; got 'x'."),
        (lambda: choices(way=None), "choices(): way must be one of 'noising', 'denoising'; got None."),
        (
            lambda: choices(by=["head", "x"]),
            "choices(): by must be one of 'head', 'role', or a sequence of items that are each one of 'head', 'role'; "
            "by[1] is 'x'.",
        ),
        (
            lambda: choices(tokens=torch.ones(2)),
            "choices(): tokens must be an integer tensor of shape [batch pos] or None; got a Tensor of shape [2] and "
            "type torch.float32.",
        ),
        (lambda: choices(called=3), "choices(): called must be a function or None; got 3 (int)."),
        (
            lambda: choices(names=[]),
            "choices(): names must be a mapping of strings to items that are each a sequence of whole numbers; got [] "
            "(list).",
        ),
        (
            lambda: words([], [["a"], ["a", 3]]),
            "words(): asked must be a sequence of items that are each a sequence of strings; asked[1][1] is 3 (int).",
        ),
        (
            lambda: choices(model=None),
            "choices(): model must be a HookedEncoder, a string, or a path; got None.",
        ),
        (
            lambda: Part(((0, 1), (0, "x"))),
            "Part(): spans must be a tuple of items that are each a tuple (a whole number, a whole number); spans[1] "
            "is (0, 'x') (tuple).",
        ),
    ],
)
def test_an_error_lists_what_is_taken_in_words(call: Callable[[], object], message: str) -> None:
    with pytest.raises(ArgumentError) as raised:
        call()
    assert str(raised.value) == message


def test_a_checked_function_keeps_its_name_and_signature() -> None:
    assert numbers.__name__ == "numbers" and list(inspect.signature(numbers).parameters) == ["whole", "real", "many"]
    assert inspect.signature(numbers).parameters["whole"].annotation is int
    assert Part(((0, 1),)) == Part(((0, 1),)) and list(inspect.signature(Part).parameters) == ["spans"]


def test_an_error_inside_a_function_names_the_function_that_refused() -> None:
    @checked
    def outer(anything: object) -> float:
        return numbers(anything)  # type: ignore[arg-type]

    with pytest.raises(ArgumentError, match=r"^numbers\(\): whole must be a whole number"):
        outer("x")


def test_every_item_of_a_sequence_is_checked_also_inside_another() -> None:
    assert words(["a"], [["a"], ("b", "c")]) == 3
    # One item taken at random would pass now and then.
    for _ in range(8):
        with pytest.raises(ArgumentError, match="texts"):
            words(["a", "b", "c", 3])  # type: ignore[list-item]
        with pytest.raises(ArgumentError, match="asked"):
            words([], [["a"], ["a", "b", 3]])  # type: ignore[list-item]
        with pytest.raises(ArgumentError, match="many"):
            numbers(1, many=((1, 2), (3, 4), (5, True)))


@pytest.mark.parametrize("column", [list, np.array, pd.Series, lambda cells: pd.Series(cells, index=[7, 3])])
def test_scores_are_made_of_lists_arrays_and_columns(column: type) -> None:
    assert behaviour.accuracy(column(["a", "b"]), column(["A", "c"])).hits == 1
    assert behaviour.preference(column([1.0, 2.0]), column([0.0, 3.0])).hits == 1
    assert behaviour.share(column([True, False])).hits == 1
    words, others = column([["a", "b"], ["c", "d"]]), column([["a", "b"], ["e", "f"]])
    assert behaviour.sensitivity(words, others).hits == 1
    assert behaviour.top_k_accuracy(words, column(["b", "c"]), 1).hits == 1
    one_pair = [column(["a", "b"])], [column(["b", "a"])]
    assert behaviour.sensitivity(*one_pair).hits == 1
    assert behaviour.top_k_accuracy(one_pair[0], ["b"], 2).hits == 1


def test_columns_that_hold_something_else_are_refused() -> None:
    with pytest.raises(InputError, match="nan is not a word"):
        behaviour.accuracy(pd.Series(["a", np.nan]), ["a", "b"])
    with pytest.raises(InputError, match="not all numbers"):
        behaviour.preference(np.array(["x"]), [1.0])
    with pytest.raises(InputError, match="2 dimensions"):
        behaviour.preference(np.ones((2, 2)), np.ones((2, 2)))
    with pytest.raises(InputError, match="true or false"):
        behaviour.share(np.ones((2, 2)))


def test_groups_are_a_list_an_array_or_a_column() -> None:
    rng = np.random.default_rng(0)
    effects = xr.Dataset({"m": (("pair", "layer", "head"), rng.normal(size=(12, 1, 1)))})
    names = ["a", "b"] * 6
    found = [
        statistics.replication(effects, groups, n_resamples=9)
        for groups in (names, np.array(names), pd.Series(names), xr.DataArray(names, dims="pair"))
    ]
    assert all(one.identical(found[0]) for one in found)


@pytest.mark.usefixtures("without_figures")
def test_a_study_takes_its_folders_as_text(tmp_path: Path) -> None:
    model = HookedEncoder.from_pretrained("tiny-negation", device="cpu")
    pairs = builtin_pairs()[:1]
    results = run_study(model, pairs, patch_pairs=0, circuit_pairs=0, shards=str(tmp_path / "shards"))
    report = write_study(results, str(tmp_path / "study"))
    assert report == tmp_path / "study" / "report.html"
    assert read_study(str(tmp_path / "study")).seed == 0


@pytest.mark.parametrize(
    "options",
    [
        {"patch_pairs": -1},
        {"circuit_pairs": -1},
        {"contribution_pairs": -1},
        {"seed": -1},
        {"seed": 2**31},
        {"seed": 2**70},
        {"source": "\ud800"},
    ],
)
def test_a_study_refuses_before_it_measures_what_would_fail_after(options: dict[str, object]) -> None:
    model = HookedEncoder.from_pretrained("tiny-negation", device="cpu")

    def measured(step: str, done: int, total: int) -> None:
        raise AssertionError(step)

    with pytest.raises(InputError, match=next(iter(options))):
        run_study(model, builtin_pairs()[:1], progress=measured, **options)  # type: ignore[arg-type]
