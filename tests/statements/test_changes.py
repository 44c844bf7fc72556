"""The built-in pairs without a cue differ in what their category says, and their answers follow from the words."""

import re

import pytest

from negprobe.statements import added_cues, change_pairs, load_pairs, tokenize

PAIRS = change_pairs()


def words(text):
    return re.findall(r"\w+|\[MASK\]", text)


def test_no_statement_has_a_cue_and_no_pair_occurs_twice():
    assert not any(added_cues(a, b) for pair in PAIRS for a, b in ((pair.original, pair.counterfactual),) * 2)
    assert len({(pair.original, pair.counterfactual) for pair in PAIRS}) == len(PAIRS) == 68


@pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: pair.original)
def test_a_role_swap_has_the_same_words_in_another_order_and_other_pairs_differ_in_one(pair):
    original, counterfactual = words(pair.original), words(pair.counterfactual)
    differing = [at for at, both in enumerate(zip(original, counterfactual, strict=True)) if both[0] != both[1]]
    if pair.category == "role swap":
        assert sorted(original) == sorted(counterfactual) and len(differing) == 2
        assert {pair.target, pair.foil} == {original[at] for at in differing}
    else:
        assert len(differing) == 1


def test_every_word_is_one_token_of_berts_vocabulary(bert):
    for pair in PAIRS:
        for text in (pair.original, pair.counterfactual):
            statement = tokenize(text, bert)
            assert bert.unk_token_id not in statement.ids
        assert all(len(tokenize(word, bert)) == 3 for word in (pair.target, pair.foil))
        assert len(tokenize(pair.original, bert)) == len(tokenize(pair.counterfactual, bert))


def test_they_are_loaded_by_name():
    assert load_pairs("changes").pairs == tuple(PAIRS)
    assert load_pairs("changes", limit=3).pairs == tuple(PAIRS[:3])
