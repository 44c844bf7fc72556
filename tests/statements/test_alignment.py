"""Alignment follows what was put in, taken out and changed, and nothing else moves."""

from difflib import SequenceMatcher
from functools import cache
from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from negprobe.statements import TokenizedStatement, align, tokenize
from negprobe.statements.alignment import match_equal


def statement(ids):
    """A tokenized statement with the special tokens 0 and 1 around `ids`."""
    ids = (0, *ids, 1)
    return TokenizedStatement(
        text=" ".join(map(str, ids)),
        tokens=tuple(map(str, ids)),
        ids=ids,
        offsets=((0, 0),) * len(ids),
        special=(True, *[False] * (len(ids) - 2), True),
    )


def shown(tokenizer, original, counterfactual):
    """Unmatched tokens of both sides, and the aligned ones that differ."""
    first, second = tokenize(original, tokenizer), tokenize(counterfactual, tokenizer)
    alignment = align(first, second)
    pairs = zip(alignment.original, alignment.counterfactual, strict=True)
    return (
        [first.tokens[i] for i in alignment.unmatched_original],
        [second.tokens[j] for j in alignment.unmatched_counterfactual],
        [(first.tokens[i], second.tokens[j]) for i, j in pairs if first.ids[i] != second.ids[j]],
    )


CONCLUSION = " So the door is [MASK]."


@pytest.mark.parametrize(
    ("original", "counterfactual", "unmatched_original", "unmatched_counterfactual", "replaced"),
    [
        ("The door is open.", "The door is not open.", [], ["not"], []),
        ("The door is open.", "The door isn't open.", ["is"], ["isn", "'", "t"], []),
        ("The door must be open.", "The door cannot be open.", [], [], [("must", "cannot")]),
        ("The door is now open.", "The door is not open.", [], [], [("now", "not")]),
        ("The door is open.", "The door is no longer open.", [], ["no", "longer"], []),
        ("The door is open.", "It is not true that the door is open.", [], ["it", "is", "not", "true", "that"], []),
        ("All doors are not open.", "Not all doors are open.", ["not"], ["not"], []),
        ("Is the door open?", "Is the door not open?", [], ["not"], []),
    ],
)
def test_what_changed_is_told_from_what_stayed(
    bert, original, counterfactual, unmatched_original, unmatched_counterfactual, replaced
):
    expected = (unmatched_original, unmatched_counterfactual, replaced)
    assert shown(bert, original + CONCLUSION, counterfactual + CONCLUSION) == expected


def test_repeated_words_align_with_their_own_occurrence(bert):
    first = tokenize("the door is open . so the door is [MASK]", bert)
    second = tokenize("the door is not open . so the door is [MASK]", bert)
    alignment = align(first, second)
    assert alignment.original == tuple(range(len(first)))
    assert alignment.counterfactual == (0, 1, 2, 3, *range(5, len(second)))


def test_an_inserted_frame_stays_in_one_piece():
    # 7 and 8 stand in the frame as well: a match there would tear it in two.
    alignment = align(statement([7, 8, 9]), statement([5, 7, 6, 8, 5, 7, 8, 9]))
    assert alignment.unmatched_counterfactual == (1, 2, 3, 4, 5)


def test_of_equally_good_matches_the_earliest_is_taken():
    # The second 7 is as near, whether a statement begins there or a match came before.
    assert match_equal([7, 8], [7, 5, 7, 8]) == [(0, 0), (1, 3)]
    assert match_equal([4, 7, 8], [4, 7, 5, 7, 8]) == [(0, 0), (1, 1), (2, 4)]


def test_special_tokens_align_with_special_tokens_only():
    # The middle of the first is a word, that of the second a separator: as many tokens, nothing to align.
    first = TokenizedStatement("a", ("s", "a", "s"), (0, 5, 1), ((0, 0),) * 3, (True, False, True))
    second = TokenizedStatement("a", ("s", "s", "s"), (0, 1, 1), ((0, 0),) * 3, (True, True, True))
    alignment = align(first, second)
    assert (alignment.unmatched_original, alignment.unmatched_counterfactual) == ((1,), (1,))
    # And one written out in the text is not the one the tokenizer put there.
    written = TokenizedStatement("s", ("s", "s", "s"), (0, 1, 1), ((0, 0),) * 3, (True, False, True))
    assert align(second, written).unmatched_original == (1,)


few = st.lists(st.integers(2, 6), max_size=8)


@given(few, few)
def test_alignment_is_monotone_and_covers_each_side_once(a, b):
    first, second = statement(a), statement(b)
    alignment = align(first, second)
    assert len(alignment.original) == len(alignment.counterfactual)
    assert list(alignment.original) == sorted(set(alignment.original))
    assert list(alignment.counterfactual) == sorted(set(alignment.counterfactual))
    assert sorted(alignment.original + alignment.unmatched_original) == list(range(len(first)))
    assert sorted(alignment.counterfactual + alignment.unmatched_counterfactual) == list(range(len(second)))
    assert {0, len(first) - 1} <= set(alignment.original)


@given(few, few)
def test_swapping_the_statements_swaps_the_alignment(a, b):
    there, back = align(statement(a), statement(b)), align(statement(b), statement(a))
    assert (there.original, there.counterfactual) == (back.counterfactual, back.original)
    assert (there.unmatched_original, there.unmatched_counterfactual) == (
        back.unmatched_counterfactual,
        back.unmatched_original,
    )


@given(few)
def test_a_statement_aligns_with_itself_position_by_position(a):
    alignment = align(statement(a), statement(a))
    assert alignment.original == alignment.counterfactual == tuple(range(len(a) + 2))


@given(few, st.lists(st.tuples(st.integers(0, 100), st.integers(2, 6)), max_size=4))
def test_inserted_tokens_are_the_only_unmatched_ones(a, insertions):
    b = list(a)
    for at, token in insertions:
        b.insert(at % (len(b) + 1), token)
    alignment = align(statement(a), statement(b))
    assert alignment.unmatched_original == ()
    assert len(alignment.unmatched_counterfactual) == len(insertions)


@given(few, st.sets(st.integers(0, 7)))
def test_replaced_tokens_of_equal_number_keep_every_position(a, places):
    b = [100 + at if at in places else token for at, token in enumerate(a)]
    alignment = align(statement(a), statement(b))
    assert alignment.original == alignment.counterfactual == tuple(range(len(a) + 2))


def edits(a, b):
    """Edit distance by the textbook recursion."""

    @cache
    def distance(i, j):
        if i == len(a) or j == len(b):
            return len(a) - i + len(b) - j
        if a[i] == b[j]:
            return distance(i + 1, j + 1)
        return 1 + min(distance(i + 1, j + 1), distance(i + 1, j), distance(i, j + 1))

    return distance(0, 0)


@given(few, few)
def test_no_cheaper_edit_exists(a, b):
    cost, i, j = 0, 0, 0
    for matched in (*match_equal(a, b), (len(a), len(b))):
        cost += max(matched[0] - i, matched[1] - j)
        i, j = matched[0] + 1, matched[1] + 1
    assert cost == edits(a, b)


def stretches(matches, n, m):
    """How many separate runs of edits lie between the matches."""
    edges = [(-1, -1), *matches, (n, m)]
    return sum((i + 1, j + 1) != after for (i, j), after in pairwise(edges))


def all_matchings(a, b):
    """Every way to match equal items in order."""
    if not a or not b:
        return [[]]
    shifted = [[(i + 1, j) for i, j in way] for way in all_matchings(a[1:], b)]
    for j, item in enumerate(b):
        if item == a[0]:
            rest = all_matchings(a[1:], b[j + 1 :])
            shifted += [[(0, j), *((i + 1, k + j + 1) for i, k in way)] for way in rest]
    return shifted


# Random sequences rarely have a cheapest edit with more stretches than another.
@example([2, 3], [4, 2, 2, 3, 4])
@given(st.lists(st.integers(2, 4), max_size=5), st.lists(st.integers(2, 4), max_size=5))
def test_no_equally_cheap_edit_has_fewer_stretches(a, b):
    def cost(matches):
        edges = [(-1, -1), *matches, (len(a), len(b))]
        n_edits = sum(max(x[0] - i, x[1] - j) - 1 for (i, j), x in pairwise(edges))
        return n_edits, stretches(matches, len(a), len(b))

    assert cost(match_equal(a, b)) == min(map(cost, all_matchings(a, b)))


@given(st.permutations(range(2, 9)), st.integers(0, 7), st.integers(1, 3))
def test_with_distinct_words_it_agrees_with_difflib(a, at, count):
    b = [*a[:at], *range(20, 20 + count), *a[at + count :]]
    blocks = SequenceMatcher(None, a, b, autojunk=False).get_matching_blocks()
    expected = [(block.a + k, block.b + k) for block in blocks for k in range(block.size)]
    assert match_equal(a, b) == expected
