"""Tables of pairs are read back as they were written, and missing values are values not given."""

import io

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from negprobe.base.errors import StatementError
from negprobe.statements import StatementPair, builtin_pairs, from_dataframe, load_pairs, to_dataframe

WORDS = st.text(alphabet="ab \u00e9'\u2019,;\"\n", min_size=1, max_size=8).map(lambda text: f"x{text}x")
LABELS = st.none() | st.sampled_from(["good", "bad"])
FIELDS = st.tuples(
    WORDS, LABELS, st.none() | WORDS, st.sampled_from([(), ((0, 3),), ((0, 3), (4, 5))]),
    st.dictionaries(st.sampled_from(["id", "notes", "pair"]), st.integers(-5, 5) | WORDS | st.booleans(), max_size=3),
)  # fmt: skip


def pair_of(original, target, control, spans, extra):
    return StatementPair(
        original,
        f"not {original}",
        target,
        control=control,
        cue="not",
        cue_spans=spans,
        category="c",
        source="s",
        extra=tuple(extra.items()),
    )


@given(st.lists(FIELDS, min_size=1, max_size=5))
def test_pairs_come_back_from_a_table_as_they_were(rows):
    pairs = [pair_of(*row) for row in rows]
    found = from_dataframe(to_dataframe(pairs))
    # Columns of all pairs stand in one order.
    assert [dict(pair.extra) for pair in found.pairs] == [dict(pair.extra) for pair in pairs]
    bare = [StatementPair(**{**vars(pair), "extra": ()}) for pair in pairs]
    assert [StatementPair(**{**vars(pair), "extra": ()}) for pair in found.pairs] == bare
    assert found.dropped == ()


def test_pairs_come_back_from_a_file_of_such_a_table(tmp_path):
    pairs = (
        StatementPair("a, b", "not a", "x", cue_spans=((0, 3), (4, 5)), extra=(("id", "7"),)),
        *builtin_pairs()[:3],
    )
    to_dataframe(pairs).to_csv(tmp_path / "a.csv", index=False)
    found = load_pairs(tmp_path / "a.csv").pairs
    assert found == (StatementPair(**{**vars(pairs[0]), "source": "a"}), *pairs[1:])


def test_names_are_read_in_any_writing_and_missing_values_of_every_kind_are_not_given():
    frame = pd.DataFrame(
        {
            " Original": ["It is open."] * 4,
            "COUNTERFACTUAL": ["It is not open."] * 4,
            "Target": [np.nan, None, pd.NA, "nan"],
            "Cue Start": [6.0, np.nan, 6.0, np.nan],
            "cue-end": [9.0, np.nan, 9.0, np.nan],
            "ID": [1, 2, 3, 4],
            "made": pd.to_datetime(["2024-01-01", None, None, None]),
        }
    )
    found = from_dataframe(frame, source="mine").pairs
    assert [pair.target for pair in found] == [None] * 4
    assert [pair.cue_spans for pair in found] == [((6, 9),), (), ((6, 9),), ()]
    assert [pair.extra for pair in found[1:]] == [(("id", 2),), (("id", 3),), (("id", 4),)]
    assert dict(found[0].extra)["made"].strip('"').startswith("2024-01-01") and found[0].source == "mine"


def test_a_table_that_a_file_was_read_into_gives_what_the_file_gives(write):
    text = "original,counterfactual,target,id\nx,y,,1\nx,z,good,\nx,x,,\n,y,,\n"
    path = write("a.csv", text)
    found, loaded = from_dataframe(pd.read_csv(io.StringIO(text)), source="a"), load_pairs(path)
    assert [(pair.counterfactual, pair.target) for pair in found.pairs] == [("y", None), ("z", "good")]
    assert [(pair.counterfactual, pair.target) for pair in loaded.pairs] == [("y", None), ("z", "good")]
    assert [reason.partition(": ")[2] for reason in found.dropped] == [
        reason.removeprefix(str(path)).partition(": ")[2] for reason in loaded.dropped
    ]
    assert found.dropped[0].startswith("The DataFrame, row 3: ")


def test_a_table_of_no_use_is_a_clear_error():
    for frame, message in (
        (pd.DataFrame({"original": ["x"]}), "missing column.*'counterfactual'; it has 'original'"),
        (pd.DataFrame({"original": ["x"], "counterfactual": [None]}), "no usable pair in 1 rows; row 1: The counter"),
        (pd.DataFrame([["x", "y", "z"]], columns=["original", "Original", "counterfactual"]), "duplicate column"),
    ):
        with pytest.raises(StatementError, match=message):
            from_dataframe(frame)
    assert list(to_dataframe([]).columns)[:2] == ["original", "counterfactual"]
