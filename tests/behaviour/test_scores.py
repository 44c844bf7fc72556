"""Scores are what their definitions say, with scipy's intervals."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm

from negprobe.base.errors import InputError
from negprobe.behaviour import accuracy, preference, sensitivity, share, top_k_accuracy


@given(st.lists(st.booleans(), min_size=1, max_size=300))
def test_a_share_has_wilsons_interval(hits):
    found = share(hits)
    n, p, z = len(hits), sum(hits) / len(hits), norm.ppf(0.975)
    # Wilson 1927, spelled out.
    middle = (p + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * math.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    assert (found.hits, found.n, found.share) == (sum(hits), n, p)
    assert found.low == pytest.approx(middle - half, abs=1e-12)
    assert found.high == pytest.approx(middle + half, abs=1e-12)


def test_nothing_counted_is_nan_and_not_a_crash():
    found = share([])
    assert (found.hits, found.n) == (0, 0)
    assert all(math.isnan(value) for value in (found.share, found.low, found.high))


AFFIRMATIVE = [["fish", "trout"], ["Trout", "fish"], ["bird", "animal", "fish"], []]
NEGATED = [["fish"], ["fish", "trout"], ["animal", "bird"], ["x"]]


@pytest.mark.parametrize(("k", "hits"), [(1, 1), (2, 2), (3, 3), (5, 3)])
def test_a_target_is_right_among_the_first_k_words_in_any_case(k, hits):
    found = top_k_accuracy(AFFIRMATIVE, ["FISH "] * 4, k)
    assert (found.hits, found.n) == (hits, 4)


def test_sensitivity_counts_changed_first_words():
    # fish-fish stays, trout-fish and bird-animal change, and where nothing was said nothing changed.
    assert sensitivity(AFFIRMATIVE, NEGATED) == share([False, True, True, False])
    assert sensitivity([["Fish"]], [["fish "]]).hits == 0


def test_a_preference_is_strict_and_an_accuracy_takes_any_case():
    assert preference([1.0, 2.0, 3.0], [0.5, 2.0, 4.0]) == share([True, False, False])
    assert accuracy(["Entailment", "neutral"], ["entailment", "entailment"]) == share([True, False])


@pytest.mark.parametrize("score", [sensitivity, preference, accuracy, lambda a, b: top_k_accuracy(a, b, 1)])
def test_lists_of_other_lengths_are_refused(score):
    with pytest.raises(InputError, match="2 and 1"):
        score(["a", "b"], ["a"]) if score is not preference else score([1.0, 2.0], [1.0])
