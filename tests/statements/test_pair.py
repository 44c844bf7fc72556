"""A pair that cannot be measured is refused when it is made."""

import pytest

from negprobe.base.errors import StatementError
from negprobe.statements import StatementPair

ORIGINAL, COUNTERFACTUAL = "The door is open.", "The door is not open."


def test_spans_are_characters_of_the_counterfactual():
    pair = StatementPair(ORIGINAL, COUNTERFACTUAL, cue_spans=((12, 15),), affected_spans=((16, len(COUNTERFACTUAL)),))
    assert pair.counterfactual[slice(*pair.cue_spans[0])] == "not"


@pytest.mark.parametrize("field", ["original", "counterfactual", "control"])
@pytest.mark.parametrize("text", ["", " \n"])
def test_an_empty_text_is_an_error(field, text):
    texts = {"original": ORIGINAL, "counterfactual": COUNTERFACTUAL, field: text}
    with pytest.raises(StatementError, match=f"The {field} of a pair is empty"):
        StatementPair(**texts)


@pytest.mark.parametrize("field", ["cue_spans", "affected_spans"])
@pytest.mark.parametrize("span", [(3, 3), (5, 4), (-1, 2), (16, len(COUNTERFACTUAL) + 1)])
def test_a_span_outside_the_counterfactual_is_an_error(field, span):
    with pytest.raises(StatementError, match=rf"{field} contains .* not a range inside the counterfactual"):
        StatementPair(ORIGINAL, COUNTERFACTUAL, **{field: ((0, 1), span)})
