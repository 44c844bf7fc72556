"""Alignment follows what was put in, taken out and changed, and nothing else moves."""

from difflib import SequenceMatcher
from functools import cache
from itertools import accumulate, pairwise
from operator import eq

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from transformers import BertTokenizerFast

from negprobe.statements import TokenizedStatement, align, tokenize
from negprobe.statements.alignment import LINK_KINDS, match_equal
from negprobe.statements.word_forms import same_lexeme
from negprobe.statements.words import words_of


def statement(ids):
    """A tokenized statement with the special tokens 0 and 1 around `ids`, numbers or words."""
    tokens = [str(token) for token in ids]
    ids = [int.from_bytes(token.encode()) if isinstance(token, str) else token for token in ids]
    starts = accumulate((len(token) + 1 for token in tokens), initial=0)
    offsets = [(start, start + len(token)) for start, token in zip(starts, tokens, strict=False)]
    ids = (0, *ids, 1)
    return TokenizedStatement(
        text=" ".join(tokens),
        tokens=tuple(map(str, ids)),
        ids=ids,
        offsets=((0, 0), *offsets, (0, 0)),
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
        ("He likes tea.", "He does not like tea.", [], ["does", "not"], [("likes", "like")]),
        ("They left early.", "They didn't leave early.", [], ["didn", "'", "t"], [("left", "leave")]),
        # The "does" of the affirmative is the verb.
        ("He does the dishes.", "He does not do the dishes.", [], ["does", "not"], [("does", "do")]),
        ("They do like it.", "They do not like it.", [], ["not"], []),
        ("He has eaten it.", "He has not eaten it.", [], ["not"], []),
        ("He has already eaten.", "He has not eaten yet.", ["already"], ["not", "yet"], []),
        ("They have already left.", "They haven't left yet.", ["have", "already"], ["haven", "'", "t", "yet"], []),
        ("She still lives here.", "She no longer lives here.", ["still"], ["no", "longer"], []),
        ("He can swim.", "He can't swim.", [], ["'", "t"], []),
        ("It was said, then done.", "It was said not done.", [",", "then"], ["not"], []),
        ("It was red, blue.", "It was red or blue.", [","], ["or"], []),
        ("It's open.", "It isn't open.", ["'", "s"], ["isn", "'", "t"], []),
        # A function word does not replace a content word, only by chance in the same number of tokens.
        (
            "Ministers resigned after the vote.",
            "Not until after the vote did ministers resign.",
            ["ministers", "resigned"],
            ["not", "until", "did", "ministers", "resign"],
            [],
        ),
        ("The dog slept.", "The dog in.", ["slept"], ["in"], []),
        ("The dog must eat.", "The dog big eat.", ["must"], ["big"], []),
        ("The dog was ill.", "The dog became ill.", [], [], [("was", "became")]),
        ("She left before noon.", "Tom left after noon.", [], [], [("she", "tom"), ("before", "after")]),
        # Words that can be in either place.
        ("They must open it.", "They have opened it.", [], [], [("must", "have"), ("open", "opened")]),
        ("They must smoke.", "They never smoke.", [], [], [("must", "never")]),
        ("That is open.", "She is open.", [], [], [("that", "she")]),
        ("The dogs ran in.", "Two dogs ran here.", [], [], [("the", "two"), ("in", "here")]),
        ("The money is in.", "Little money is quickly.", [], [], [("the", "little"), ("in", "quickly")]),
        ("The young dog slept.", "The little dog slept.", [], [], [("young", "little")]),
        ("The door is open.", "The window is open.", [], [], [("door", "window")]),
        ("Every dog is in.", "No dog is out.", [], [], [("every", "no"), ("in", "out")]),
        # The neutral words of controls are in the place of "not".
        ("Do please open the door.", "Do not open the door.", [], [], [("please", "not")]),
        ("They did indeed.", "They did not.", [], [], [("indeed", "not")]),
        ("Almost all doors are open.", "Not all doors are open.", [], [], [("almost", "not")]),
        ("They did perhaps.", "They did not.", ["perhaps"], ["not"], []),
        ("John gave Mary it.", "Mary gave John it.", [], [], [("john", "mary"), ("mary", "john")]),
    ],
)
def test_what_changed_is_told_from_what_stayed(
    bert, original, counterfactual, unmatched_original, unmatched_counterfactual, replaced
):
    expected = (unmatched_original, unmatched_counterfactual, replaced)
    assert shown(bert, original + CONCLUSION, counterfactual + CONCLUSION) == expected


@pytest.fixture(scope="module")
def cased():
    """A cased WordPiece tokenizer that splits some words."""
    words = "The the door Open open is not Do do does Tea jig ##gles ##gled he try tri ##es un ##like ##s tea [UNK]"
    vocabulary = ["[PAD]", "[CLS]", "[SEP]", "[MASK]", *dict.fromkeys([*words.split(), ".", "'", "t", "n"])]
    return BertTokenizerFast(vocab={word: at for at, word in enumerate(vocabulary)}, do_lower_case=False)


@pytest.mark.parametrize(
    ("original", "counterfactual", "links"),
    [
        ("Open the door.", "Do not open the door.", "Open-open case, the-the same, door-door same, .-. same"),
        # As many pieces: one by one. Fewer: those at the common beginning, or the first.
        ("he jiggles.", "he jiggled.", "he-he same, jig-jig inflected, ##gles-##gled inflected, .-. same"),
        ("he tries.", "he does not try.", "he-he same, tri-try inflected, .-. same"),
        ("he unlikes.", "he unlike.", "he-he same, un-un inflected, ##like-##like inflected, .-. same"),
        (
            "the door is open.",
            "the tea is open.",
            "the-the same, door-tea replaced, is-is same, open-open same, .-. same",
        ),
    ],
)
def test_words_are_aligned_before_their_pieces(cased, original, counterfactual, links):
    first, second = tokenize(original, cased), tokenize(counterfactual, cased)
    alignment = align(first, second)
    found = [
        f"{first.tokens[i]}-{second.tokens[j]} {kind}"
        for i, j, kind in zip(alignment.original, alignment.counterfactual, alignment.kinds, strict=True)
    ]
    assert found[1:-1] == links.split(", ")


def test_only_links_of_the_chosen_kinds_are_kept(cased):
    first, second = tokenize("The door jiggles.", cased), tokenize("the tea jiggled.", cased)
    everything = align(first, second)
    assert everything.kinds == ("same", "case", "replaced", "inflected", "inflected", "same", "same")
    for kind in LINK_KINDS:
        alignment = align(first, second, links=[kind])
        assert set(alignment.kinds) == {kind}
        kept = [i for i, found in zip(everything.original, everything.kinds, strict=True) if found == kind]
        assert list(alignment.original) == list(alignment.counterfactual) == kept
        others = [at for at in range(len(first)) if at not in kept]
        assert list(alignment.unmatched_original) == list(alignment.unmatched_counterfactual) == others


RELATED = """
    likes/like went/go tries/try tried/tries eaten/eat has/have running/run stopped/stop goes/go is/were watches/watch
    opening/open hoping/hope agreed/agree left/leave dying/die children/child walks/walked
"""
UNRELATED = """
    hoping/hop hated/hat his/hi is/i as/a news/new seed/see bed/be thing/th to/toes need/nee already/not
    open/closed possible/impossible
"""


@pytest.mark.parametrize(("pairs", "related"), [(RELATED, True), (UNRELATED, False)])
def test_forms_of_one_word_are_told_from_words_that_look_like_them(pairs, related):
    for first, second in (pair.split("/") for pair in pairs.split()):
        assert same_lexeme(first, second) == same_lexeme(second, first) == related, (first, second)


def test_without_spaces_each_character_is_a_word(bert):
    assert [word.text for word in words_of(tokenize("門は開いて", bert))] == ["", *"門は開いて", ""]
    assert shown(bert, "門は開い", "門は不開い") == ([], ["不"], [])


def test_the_words_of_a_statement_have_all_of_its_tokens(tokenizer):
    for text in ("The door isn't open, it’s _shut_.", "I cannot; don ' t!", "ドアは・not開 0.5 ％", "á 🙂🙂 b"):
        statement = tokenize(text, tokenizer)
        assert [at for word in words_of(statement) for at in word.positions] == list(range(len(statement)))


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


def n_edits(matches, n, m):
    """How many insertions, deletions and replacements lie between the matches."""
    edges = [(-1, -1), *matches, (n, m)]
    return sum(max(x[0] - i, x[1] - j) - 1 for (i, j), x in pairwise(edges))


def all_matchings(a, b, match=eq):
    """Every way to match items in order."""
    if not a or not b:
        return [[]]
    shifted = [[(i + 1, j) for i, j in way] for way in all_matchings(a[1:], b, match)]
    for j, item in enumerate(b):
        if match(item, a[0]):
            rest = all_matchings(a[1:], b[j + 1 :], match)
            shifted += [[(0, j), *((i + 1, k + j + 1) for i, k in way)] for way in rest]
    return shifted


# Random sequences rarely have a cheapest edit with more stretches than another.
@example([2, 3], [4, 2, 2, 3, 4])
@given(st.lists(st.integers(2, 4), max_size=5), st.lists(st.integers(2, 4), max_size=5))
def test_no_equally_cheap_edit_has_fewer_stretches(a, b):
    def cost(matches):
        return n_edits(matches, len(a), len(b)), stretches(matches, len(a), len(b))

    assert cost(match_equal(a, b)) == min(map(cost, all_matchings(a, b)))


# Of "like", "Like" and "likes", two are the better aligned the lower this is.
GRADES = {frozenset(["like", "Like"]): 1, frozenset(["like", "likes"]): 2, frozenset(["Like", "likes"]): 2}
some_words = st.lists(st.sampled_from(["like", "Like", "likes", "tea", "it"]), max_size=5)


@given(some_words, some_words)
def test_no_cheaper_alignment_of_words_exists(a, b):
    def grade(first, second):
        return 0 if first == second else GRADES.get(frozenset([first, second]))

    def cost(matches):
        # The more words stay, the fewer are replaced.
        grades = sum(grade(a[i], b[j]) for i, j in matches)
        return n_edits(matches, len(a), len(b)), -len(matches), grades, stretches(matches, len(a), len(b))

    alignment = align(statement(a), statement(b))
    links = list(zip(alignment.original, alignment.counterfactual, alignment.kinds, strict=True))[1:-1]
    found = [(i - 1, j - 1) for i, j, kind in links if kind != "replaced"]
    assert cost(found) == min(map(cost, all_matchings(a, b, lambda x, y: grade(x, y) is not None)))


@given(st.permutations(range(2, 9)), st.integers(0, 7), st.integers(1, 3))
def test_with_distinct_words_it_agrees_with_difflib(a, at, count):
    b = [*a[:at], *range(20, 20 + count), *a[at + count :]]
    blocks = SequenceMatcher(None, a, b, autojunk=False).get_matching_blocks()
    expected = [(block.a + k, block.b + k) for block in blocks for k in range(block.size)]
    assert match_equal(a, b) == expected
