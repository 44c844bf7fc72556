"""What is odd about pairs is said, and the pairs stay as they are."""

from negprobe.statements import StatementPair, pair_notes

GOOD = StatementPair("It is open.", "It is not open.")


def test_swapped_statements_are_counted_and_the_first_is_named():
    swapped = StatementPair("It is not open.", "It is open.")
    (note,) = pair_notes([GOOD, swapped, swapped])
    assert note.startswith("2 of 3 pairs have the negation in the original and none in the counterfactual")
    assert "'It is not open.'" in note


def test_a_negation_that_the_pair_marks_itself_or_both_statements_have_is_no_swap():
    marked = StatementPair("Not all are open.", "Few are open.", cue_spans=((0, 3),))
    assert pair_notes([GOOD, marked, StatementPair("It is not open.", "It is never open.")]) == ()


def test_other_quotation_marks_around_both_statements_are_named():
    for opening, closing in ("''", "\u2018\u2019", "\u201c\u201d"):
        pair = StatementPair(f"{opening}It is.{closing}", f" {opening}It is not.{closing}")
        assert "1 of 2 pairs have both statements in quotation marks" in pair_notes([GOOD, pair])[0]


def test_columns_that_are_carried_along_are_named():
    pair = StatementPair("It is.", "It is not.", extra=(("id", 3), ("traget", "x")))
    assert pair_notes([GOOD, pair]) == ("Extra columns, kept but not used: 'id, traget'.",)
