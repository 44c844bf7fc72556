"""Every token has exactly one role, the most telling one."""

import pytest

from negprobe.base.errors import StatementError
from negprobe.statements import ROLES, StatementPair, control_swap, find_cues, prepare, roles, tokenize

TEXT = "The door isn't open. So the door is [MASK], not closed or reopened."


def by_role(statement, named):
    """The words each role's tokens stand in, in order."""
    assert len(named) == len(statement) and set(named) <= set(ROLES)
    return {
        role: [statement.text[slice(*statement.offsets[i])] for i, given in enumerate(named) if given == role]
        for role in ROLES
    }


def test_each_role_is_at_its_words(tokenizer):
    statement = tokenize(TEXT, tokenizer)
    cue, _ = find_cues(TEXT)
    affected = (TEXT.index("open"), TEXT.index("open") + 4)
    words = by_role(
        statement, roles(statement, tokenizer, cue_spans=[cue.span], affected_spans=[affected], target="Closed")
    )
    assert {role: "".join(texts) for role, texts in words.items() if role in ("affected", "mask", "target")} == {
        "affected": "open",
        "mask": "[MASK]",
        "target": "closed",
    }
    assert "".join(words["cue"]).endswith("n't")
    assert len(words["cls"]) == len(words["sep"]) == 1
    assert "not" in "".join(words["other"]) and "reopened" in "".join(words["other"])


def test_roles_of_berts_tokens_one_by_one(bert):
    statement = tokenize("It is not open. So open is [MASK]", bert)
    assert roles(statement, bert, cue_spans=[(6, 9)], affected_spans=[(10, 14)], target="open") == (
        *("cls", "other", "other", "cue", "affected", "other", "other", "target", "other", "mask", "sep"),
    )


def test_where_roles_meet_the_first_is_taken(bert):
    statement = tokenize("not open [MASK]", bert)
    everything = (0, len(statement.text))
    assert roles(statement, bert, cue_spans=[everything], target="open") == ("cls", "cue", "cue", "mask", "sep")
    assert roles(statement, bert, cue_spans=[(0, 8)], affected_spans=[everything], target="open")[1:3] == ("cue", "cue")
    assert roles(statement, bert, affected_spans=[everything], target="open")[1:3] == ("affected", "affected")


def test_without_anything_marked_words_are_other(tokenizer):
    statement = tokenize("open", tokenizer)
    named = roles(statement, tokenizer)
    assert (named[0], named[-1], set(named[1:-1])) == ("cls", "sep", {"other"})


def test_a_target_is_a_whole_word_and_taken_literally(bert):
    statement = tokenize("open reopened open-air a.b axb", bert)
    assert by_role(statement, roles(statement, bert, target="open"))["target"] == ["open", "open"]
    assert by_role(statement, roles(statement, bert, target="a.b"))["target"] == ["a", ".", "b"]
    assert by_role(statement, roles(statement, bert, target="closed"))["target"] == []


def test_a_span_without_a_token_is_an_error(bert):
    statement = tokenize("not open", bert)
    with pytest.raises(StatementError, match="There is no token in"):
        roles(statement, bert, cue_spans=[(3, 4)])


@pytest.mark.parametrize(
    ("texts", "changed"),
    [
        (("John gave Mary the book.", "Mary gave John the book."), ("John Mary", "Mary John")),
        (("The old door is open.", "The door is open."), ("old", "")),
        (("The door is open.", "The old door is open."), ("", "old")),
        (("The door is not open.", "The door is open."), ("not", "")),
        (("The door is open.", "The door is not open."), ("", "")),
    ],
)
def test_without_a_cue_the_words_that_differ_are_changed(bert, texts, changed):
    prepared, _ = prepare(StatementPair(*texts), bert, n_ctx=64)
    swap = control_swap(prepared.pair if prepared.pair.control is None else StatementPair(*texts), bert)
    for named in (prepared.roles, swap.roles):
        for side, roles_of_side, expected in zip(prepared.sides, named, changed, strict=False):
            assert " ".join(by_role(side, roles_of_side)["changed"]) == expected


def test_a_changed_word_has_that_role_although_it_is_the_target(bert):
    frame = "{} gave the book. So [MASK] has it."
    pair = StatementPair(frame.format("John"), frame.format("Mary"), "John", "Mary")
    swap = control_swap(pair, bert)
    assert by_role(swap.statements[0], swap.roles[0])["changed"] == ["John"]
    assert by_role(swap.statements[1], swap.roles[1])["changed"] == ["Mary"]
