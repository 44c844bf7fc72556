"""Two studies are compared on their common pairs, and every number equals that of a loop over these pairs."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from negprobe.base.errors import NegprobeError
from negprobe.statistics import effect_tests, negation_effects
from negprobe.study.comparison import StudyComparison, compare_studies
from negprobe.study.saved import SavedStudy, metrics_dataset, read_study


@pytest.fixture(scope="module")
def studies(two_studies: tuple[Path, Path]) -> tuple[SavedStudy, SavedStudy]:
    return read_study(two_studies[0]), read_study(two_studies[1])


@pytest.fixture(scope="module")
def compared(studies: tuple[SavedStudy, SavedStudy]) -> StudyComparison:
    return compare_studies(*studies)


def test_pairs_are_matched_by_their_texts_whatever_their_numbers(studies, compared) -> None:
    a, b = studies
    assert len(compared.common) == 8 and len(a.pairs) == 10 and len(b.pairs) == 9
    for row in compared.common.itertuples():
        for column in ("original", "counterfactual", "target", "foil"):
            assert a.pairs.set_index("pair").loc[row.a, column] == b.pairs.set_index("pair").loc[row.b, column]
    assert list(compared.common["a"]) != list(compared.common["b"])


def test_pairs_of_the_same_texts_are_matched_once_each(studies) -> None:
    a = studies[0]
    twice = replace(a, pairs=a.pairs.assign(**dict.fromkeys(("original", "counterfactual", "target", "foil"), "same")))
    common = compare_studies(twice, replace(twice, pairs=twice.pairs.head(4))).common
    assert list(common["a"]) == list(common["b"]) == [0, 1, 2, 3]


def test_a_study_against_itself_differs_nowhere(studies) -> None:
    same = compare_studies(studies[0], studies[0])
    assert len(same.common) == len(studies[0].pairs)
    for table in (same.answers, same.swaps):
        assert len(table)
        assert (table["difference"] == 0).all()
        assert (table[["low", "high"]].fillna(0) == 0).all(axis=None)
        pd.testing.assert_series_equal(table["A"], table["B"], check_names=False)
    assert same.change is not None
    assert not same.change["effect"].any() and (same.change["p"] == 1).all()


def test_answers_are_the_shares_that_a_loop_counts(studies, compared) -> None:
    answers = [study.answers.set_index("pair") for study in studies]
    right = {"A": [], "B": []}
    for row in compared.common.itertuples():
        for name, table, number in zip("AB", answers, (row.a, row.b), strict=True):
            right[name].append(table.loc[number, "original"] > 0 and table.loc[number, "counterfactual"] < 0)
    (found,) = compared.answers.query("cue == 'all' and statement == 'both'").itertuples()
    assert (np.mean(right["A"]), np.mean(right["B"])) == (found.A, found.B)
    assert found.difference == found.B - found.A and found.low <= found.difference <= found.high


def test_the_interval_of_a_difference_is_that_of_resampled_pairs(studies) -> None:
    a, b = studies
    worse = b.answers.assign(original=np.where(np.arange(len(b.answers)) % 2, -1.0, 1.0), counterfactual=-1.0)
    compared = compare_studies(a, replace(b, answers=worse))
    (found,) = compared.answers.query("cue == 'all' and statement == 'original'").itertuples()
    values = [
        (worse.set_index("pair").loc[row.b, "original"] > 0) * 1.0
        - (a.answers.set_index("pair").loc[row.a, "original"] > 0)
        for row in compared.common.itertuples()
    ]
    rng = np.random.default_rng(5)
    means = np.sort([np.mean(rng.choice(values, len(values))) for _ in range(4000)])
    assert found.difference == pytest.approx(np.mean(values))
    assert (found.low, found.high) == pytest.approx((means[100], means[-100]), abs=0.13)


def test_swaps_are_ratios_of_means_over_the_pairs_patched_in_both(studies, compared) -> None:
    assert 0 < compared.patched < len(compared.common)
    patched = [
        row for row in compared.common.itertuples() if _patched(studies[0], row.a) and _patched(studies[1], row.b)
    ]
    assert len(patched) == compared.patched
    rows = compared.swaps.query("site == 'z' and direction == 'denoising'")
    assert len(rows) == 16
    for row in rows.itertuples():
        # As scipy draws them with the seed of A.
        draws = np.random.default_rng(3).integers(0, compared.patched, (1000, compared.patched))
        ratios = []
        for name, study, numbers in zip("AB", studies, zip(*((p.a, p.b) for p in patched), strict=True), strict=True):
            table = study.patching.query("site == 'z' and direction == 'denoising' and layer == @row.layer")
            cell = table[(table["part"] == row.part) & table["pair"].isin(numbers)]
            gap = cell["source"] - cell["base"]
            expected = ((cell["patched"] - cell["base"]) * np.sign(gap)).sum() / gap.abs().sum()
            assert getattr(row, name) == pytest.approx(expected)
            by_pair = cell.assign(moved=(cell["patched"] - cell["base"]) * np.sign(gap), gap=gap.abs())
            by_pair = by_pair.set_index("pair")
            moved, swing = (by_pair.loc[list(numbers), column].to_numpy() for column in ("moved", "gap"))
            ratios.append(moved[draws].sum(1) / swing[draws].sum(1))
            assert_bounds(row, f"{name}_", ratios[-1])
        assert_bounds(row, "", ratios[1] - ratios[0])
        assert row.difference == pytest.approx(row.B - row.A)
        assert row.low <= row.high and row.pairs == compared.patched


def assert_bounds(row, name: str, drawn: np.ndarray) -> None:
    assert [getattr(row, f"{name}{end}") for end in ("low", "high")] == pytest.approx(
        np.quantile(drawn, [0.025, 0.975]), abs=1e-12
    )


def _patched(study: SavedStudy, pair: int) -> bool:
    return bool((study.patching["pair"] == pair).any())


def test_the_change_of_the_effects_is_tested_pair_by_pair(studies, compared) -> None:
    effects = [
        negation_effects(metrics_dataset(study, compared.common[side].tolist())).drop_vars("pair")
        for study, side in zip(studies, "ab", strict=True)
    ]
    expected = effect_tests(effects[1] - effects[0], seed=3)
    for name in ("effect", "low", "high", "p", "q", "p_max_t", "n"):
        np.testing.assert_allclose(compared.change[name], expected[name])
    for tests, own in zip(compared.tests, effects, strict=True):
        np.testing.assert_allclose(tests["effect"], effect_tests(own, seed=3)["effect"])


def test_models_of_other_shapes_have_no_head_by_head_difference(studies) -> None:
    a, b = studies
    model = b.manifest["model"] | {"heads": 5}
    other = compare_studies(a, replace(b, manifest=b.manifest | {"model": model}))
    assert not other.same_shape and other.change is None
    assert other.swaps["difference"].isna().all() and other.swaps[["A", "B"]].notna().any().all()


@pytest.mark.slow
def test_embeddings_are_compared_by_their_cosine_and_not_with_answers(studies) -> None:
    def embedding(study: SavedStudy) -> SavedStudy:
        return replace(study, manifest=study.manifest | {"model": study.manifest["model"] | {"head": "none"}})

    a, b = studies
    found = compare_studies(embedding(a), embedding(b)).answers
    assert set(found["statement"]) == {"cosine"}
    numbers = compare_studies(a, b).common["a"]
    expected = np.mean([1 - a.answers.set_index("pair").loc[number, "original"] for number in numbers])
    assert found.query("cue == 'all'")["A"].iloc[0] == pytest.approx(expected)
    mixed = compare_studies(a, embedding(b))
    assert mixed.answers.empty and "embeddings" in mixed.no_answers


def test_cutting_attention_to_the_cue_is_compared_set_by_set(studies, compared) -> None:
    rows = compared.swaps[compared.swaps["site"] == "knock_out"].set_index("part")
    patched_in_both = [row.a for row in compared.common.itertuples() if _patched(studies[1], row.b)]
    numbers = [number for number in patched_in_both if _patched(studies[0], number)]
    table = studies[0].knock_out_sets
    for patch in ("everywhere", "layer 0"):
        cell = table[(table["patch"] == patch) & table["pair"].isin(numbers)]
        gap = cell["source"] - cell["base"]
        expected = ((cell["patched"] - cell["base"]) * np.sign(gap)).sum() / gap.abs().sum()
        assert rows.loc[patch, "A"] == pytest.approx(expected)


def test_without_controls_nothing_is_tested_and_the_rest_is_compared(studies) -> None:
    a, b = (replace(study, metrics=study.metrics.query("compared == 'counterfactual'")) for study in studies)
    found = compare_studies(a, b)
    assert found.tests == (None, None) and found.change is None
    assert len(found.swaps) and len(found.answers)
    one_sided = compare_studies(a, studies[1])
    assert one_sided.tests[0] is None and one_sided.tests[1] is not None and one_sided.change is None


def test_without_answers_or_swaps_that_is_said(studies) -> None:
    a, b = studies
    found = compare_studies(a, replace(b, answers=b.answers.iloc[:0], patching=b.patching.iloc[:0]))
    assert found.answers.empty and found.no_answers == "no common pair has an answer in both studies"
    assert found.swaps.empty and found.patched == 0


def test_studies_without_a_common_pair_are_an_error(studies) -> None:
    a = studies[0]
    other = replace(a, pairs=a.pairs.assign(original="Something else."))
    with pytest.raises(NegprobeError, match="no common pair"):
        compare_studies(a, other)
