"""A prepared pair says which of its words have a counterpart; a control is aligned by position."""

from negprobe.statements import StatementPair, control_swap, prepare


def test_a_control_is_aligned_by_position_whatever_its_words_are(bert):
    # "still" is not one of the words that `align` pairs with "not".
    pair = StatementPair("It was open.", "It was not open.", control="It was still open.")
    alignment = control_swap(pair, bert).alignment
    assert alignment.original == alignment.counterfactual == tuple(range(7))
    assert alignment.kinds == ("same", "same", "same", "replaced", "same", "same", "same")


def test_a_longer_control_is_aligned_by_its_words(bert):
    pair = StatementPair("It was open.", "It was not open.", control="It was still quite open.")
    alignment = control_swap(pair, bert).alignment
    assert (alignment.unmatched_original, alignment.unmatched_counterfactual) == ((3, 4), (3,))


def test_the_control_of_no_one_may_replace_both_words(bert):
    for original, counterfactual, control, is_valid in (
        ("Everyone came.", "No one came.", "One person came.", True),
        ("Everyone came.", "Noone came.", "One person came.", True),
        ("Everyone came.", "No one came.", "One person left.", False),
        ("A boy came.", "No boy came.", "One person came.", False),
    ):
        _, problem = prepare(StatementPair(original, counterfactual, control=control), bert, n_ctx=64)
        assert (not problem) is is_valid, problem


def test_a_pair_says_whether_its_affected_word_is_aligned(bert):
    aligned = {
        "He does not like tea.": True,
        "Nobody here is awake.": False,
        "He likes tea.": None,
    }
    for counterfactual, expected in aligned.items():
        prepared, _ = prepare(StatementPair("He likes coffee.", counterfactual), bert, n_ctx=64)
        assert prepared.affected_is_aligned is expected, counterfactual
        assert ("affected word" in prepared.missing) == (expected is False)


def test_links_on_common_tokens_keep_their_kinds(bert):
    # "has" has a counterpart in the control, but none in "hasn ' t".
    pair = StatementPair("He has eaten.", "He hasn't eaten.", control="He has now really eaten.")
    prepared, problem = prepare(pair, bert, n_ctx=64)
    assert not problem
    for alignment in prepared.alignments:
        assert alignment.original == (0, 1, 3, 4, 5)
        assert alignment.kinds == ("same",) * 5
        assert alignment.unmatched_original == (2,)
