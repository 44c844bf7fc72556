"""A file's good rows are read whole, and each broken one is named with its line and the reason.

Bad input: a file that is missing, a folder or of another kind, an empty file or one with a header alone, columns
missing, unknown or twice, a row with too many or too few cells, empty cells, a quote that is never closed, bad JSON,
JSON that is no object or no text, spans of one number or outside the text, bytes that are not UTF-8, a file in which no
row is usable, and folders with nothing to read.
"""

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from negprobe.base.errors import StatementError
from negprobe.statements import LoadedPairs, StatementPair, load_pairs

PAIR = StatementPair(
    original='The "big" door, is open.',
    counterfactual='The "big" door, is not open.',
    target="open",
    foil="closed",
    control='The "big" door, is now open.',
    cue="not",
    cue_spans=((19, 22),),
    affected_spans=((23, 27),),
    category="open/closed",
    source="a",
)
PLAIN = StatementPair("It is café.", "It is none.", target="none", foil="NA", source="a")

COLUMNS = "original,counterfactual,target,foil,control,cue,cue_start,cue_end,affected_start,affected_end,category"
CSV = (
    COLUMNS
    + '\n"The ""big"" door, is open.","The ""big"" door, is not open.",open,closed,"The ""big"" door, is now open."'
    + ",not,19,22,23,27,open/closed\nIt is café.,It is none.,none,NA,,,,,,,\n"
)
ROWS = [
    {
        "original": PAIR.original,
        "counterfactual": PAIR.counterfactual,
        "target": "open",
        "foil": "closed",
        "control": PAIR.control,
        "cue": "not",
        "cue_start": 19,
        "cue_end": 22,
        "affected_start": 23,
        "affected_end": 27,
        "category": "open/closed",
    },
    {"original": PLAIN.original, "counterfactual": PLAIN.counterfactual, "target": "none", "foil": "NA", "cue": None},
]
JSONL = "".join(json.dumps(row) + "\n" for row in ROWS)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
@pytest.mark.parametrize(
    ("name", "text"), [("a.csv", CSV), ("a.CSV", CSV), ("a.jsonl", JSONL), ("a.csv", CSV.replace("\n", "\n \n"))]
)
def test_a_file_gives_its_pairs_whole(write, name, text, newline, encoding):
    assert load_pairs(write(name, text.replace("\n", newline), encoding)) == LoadedPairs((PAIR, PLAIN))


def test_a_tsv_is_read_by_tabs(write):
    path = write("a.tsv", "original\tcounterfactual\nIt is red, blue.\tIt isn't red, blue.\n")
    assert load_pairs(str(path)).pairs == (StatementPair("It is red, blue.", "It isn't red, blue.", source="a"),)


HEADER = "original,counterfactual\n"
SPANS = "original,counterfactual,cue_start,cue_end\n"
GOOD = StatementPair("x", "y", source="a")


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("a.csv", HEADER + "x,y\nx,\n", "line 3: The counterfactual of a pair is empty"),
        ("a.csv", HEADER + " , \nx,y\n", "line 2: The original of a pair is empty"),
        ("a.csv", HEADER + "x,y,z\nx,y\n", "line 2: 3 cells in a row of 2 columns"),
        ("a.csv", HEADER + "x\nx,y\n", "line 2: 1 cells in a row of 2 columns"),
        ("a.csv", HEADER + 'q,"y\nx,y\n', "line 2: .*quotes"),
        ("a.csv", HEADER + '"q"q,y\nx,y\n', "line 2: .*quotes"),
        ("a.csv", HEADER + 'x,y\nq,"y\n', "line 3: .*quotes"),
        ("a.csv", HEADER + "\n\"x\nx\",y,z\nx,y\n", "lines 3, 4: 3 cells"),
        ("a.csv", SPANS + "x,y z,1,\nx,y,,\n", "line 2: cue_start and cue_end are '1'"),
        ("a.csv", SPANS + "x,y z,1,9\nx,y,,\n", "line 2: cue_spans contains .1, 9., which is not"),
        ("a.csv", SPANS + "x,y z,1.5,2\nx,y,,\n", "line 2: .*two whole numbers"),
        ("a.csv", SPANS[:-1] + ",cue_spans\nx,y z,0,1,\"((0, 1),)\"\nx,y,,,\n",
         "line 2: .*both cue_spans and cue_start"),
        ("a.csv", "original,counterfactual,cue_spans\nx,y z,a\nx,y,\n", "line 2: cue_spans is 'a'; give character"),
        ("a.csv", HEADER + "x,x\nx,y\n", "line 2: The two statements of the pair are the same"),
        ("a.csv", HEADER + "x x, x  x\nx,y\n", "line 2: The two statements of the pair are the same"),
        ("a.csv", HEADER + '"x" ,"y"\nx,y\n', "line 2: .*quotes"),
        ("a.csv", HEADER + 'x, "y" z\nx,y\n', "line 2: .*quotes"),
        ("a.jsonl", '{"original": "x", "counterfactual": "y"}\n{"original"\n', "line 2: not JSON"),
        ("a.jsonl", '["x", "y"]\n{"original": "x", "counterfactual": "y"}\n', "line 1: .* is not a JSON object"),
        ("a.jsonl", '{"original": "x", "counterfactual": "y"}\n\n{"original": "x"}\n', "line 3: .*'counterfactual'"),
        ("a.jsonl", '{"original": "x", "counterfactual": "y"}\n{"original": "x", "counterfactual": "y", '
         '"Cue": "", "cue": ""}',
         "line 2: The object has duplicate column.*'cue' .'Cue', 'cue';"),
        ("a.jsonl", '{"original": "x", "counterfactual": "y"}\n{"original": "x", "counterfactual": 3}\n',
         "line 2: The counterfactual is 3; it must be text"),
        ("a.jsonl", '{"original": "x", "counterfactual": "y"}\n{"original": "x", "counterfactual": null}\n',
         "line 2: The counterfactual of a pair is empty"),
        ("a.jsonl", '{"original": "x", "counterfactual": "y"}\n{"original": "x", "counterfactual": "\\ud800"}\n',
         "line 2: .*not UTF-8"),
        ("a.jsonl", '{"original": "x", "counterfactual": "y"}\n' + "[" * 100_000 + "\n", "line 2: not JSON"),
        ("a.jsonl", '{"orignal": "z"}\n' + '{"original": "x", "counterfactual": "y"}\n' * 2, "line 1: .*'original'"),
        ("a.jsonl", '{"text": "z"}\n' + '{"counterfactual": "y", "original": "x"}\n{"original": "x", '
         '"counterfactual": "y"}\n', "line 1: .*'original'"),
    ],
)  # fmt: skip
def test_a_broken_row_costs_no_good_one_and_is_named_with_its_line(write, name, text, reason):
    path = write(name, text)
    loaded = load_pairs(path)
    assert GOOD in loaded.pairs
    assert str(loaded.dropped[0]).startswith(f"{path}, ")
    assert re.search(reason, loaded.dropped[0], re.DOTALL), loaded.dropped[0]


def test_a_row_that_is_not_utf8_is_left_out_alone(write):
    loaded = load_pairs(write("a.csv", CSV, "latin-1"))
    assert loaded.pairs == (PAIR,)
    assert "line 3" in loaded.dropped[0] and "UTF-8" in loaded.dropped[0]


@given(
    st.lists(
        st.sampled_from(["good", "x,", 'x,"y', 'x"y",z,', "x,y,z", '"x"y,z', "", '"', '"a\nb",c,d', ",", "\x00,\x00"]),
        max_size=12,
    )
)
def test_the_good_rows_are_read_whatever_stands_between_them(tmp_path_factory, lines):
    rows = [f"It is {i}.,It is not {i}." if line == "good" else line for i, line in enumerate(lines)]
    path = tmp_path_factory.mktemp("rows") / "a.csv"
    path.write_text(HEADER + "first,one\n" + "\n".join(rows), encoding="utf-8", newline="")
    pairs = load_pairs(path).pairs
    wanted = [f"It is {i}." for i, line in enumerate(lines) if line == "good"]
    # A quote that is opened in one row and closed in a later one takes in the good rows between, as it should.
    quoted = any('"' in line for line in lines)
    found = [pair.original for pair in pairs if pair.original.startswith("It is")]
    assert set(found) <= set(wanted) if quoted else found == wanted


def test_rows_dropped_for_one_reason_are_named_together_and_counted(write):
    path = write("a.csv", HEADER + "x,y\n" + "x,\n" * 12)
    assert load_pairs(path).n_dropped == 12 and load_pairs(path, path).n_dropped == 24
    assert load_pairs(path).unusable_files == ()
    assert load_pairs(path).dropped == (
        f"{path}, lines 3, 4, 5, 6, 7, 8, 9, 10, 11, 12 and 2 more: The counterfactual of a pair is empty; "
        "give it at least one word.",
    )


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.csv", "original,target\nx,y\n",
         "is missing column.*'counterfactual'; it has 'original, target'. Required: original, counterfactual"),
        ("a.csv", "original,counterfactual,original\nx,y,z\n", "duplicate column.*'original'"),
        ("a.csv", "original,counterfactual,cue-start,Cue Start\nx,y,1,2\n",
         "duplicate.*'cue_start' .'cue-start', 'Cue Start'; names"),
        ("a.csv", "origin\u00e4l,counterfactual\nx,y\n", "not UTF-8"),
        ("a.csv", HEADER, "no usable pair in 0 rows"),
        ("a.csv", HEADER + "x,\n", "no usable pair in 1 rows; line 2: The counterfactual"),
        ("a.csv", "", "is empty"),
        ("a.csv", "\n \n", "is empty"),
        ("a.csv", '"original\nx,y\n', "line 1: .*quotes"),
        ("a.jsonl", "", "no pairs"),
        ("a.jsonl", "{\n", "Line 1: not JSON"),
        ("a.jsonl", '{"original": "x"}\n', "is missing column.*'counterfactual'"),
        ("a.xlsx", "x", "give a .csv, .tsv, .jsonl, .txt file"),
    ],
)  # fmt: skip
def test_a_file_of_no_use_is_an_error_that_names_it(write, name, text, message):
    path = write(name, text, "latin-1")
    with pytest.raises(StatementError, match=message) as raised:
        load_pairs(path)
    assert str(raised.value).startswith(str(path))
    assert str(raised.value).count(str(path)) == 1


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".txt"])
def test_text_in_another_encoding_is_named_as_such(write, suffix):
    path = write(f"a{suffix}", CSV if suffix == ".csv" else JSONL, "utf-16-le")
    with pytest.raises(StatementError, match=r"a\.\w+ is not UTF-8 text but has NUL characters"):
        load_pairs(path)


def test_an_object_that_is_none_is_named_in_short(write):
    good = json.dumps({"original": "x", "counterfactual": "y"})
    (reason,) = load_pairs(write("a.jsonl", f'{good}\n"{"z" * 1000}"\n')).dropped
    assert "is not a JSON object" in reason and "z" * 100 not in reason


def test_a_path_that_is_not_there_or_has_nothing_to_read_is_an_error(tmp_path):
    with pytest.raises(StatementError, match=r"none\.csv cannot be read"):
        load_pairs(tmp_path / "none.csv")
    (tmp_path / "empty").mkdir()
    with pytest.raises(StatementError, match=r"It has no \.csv, \.tsv, \.jsonl, \.txt file"):
        load_pairs(tmp_path / "empty")
    (tmp_path / "empty" / "a.csv").write_text("x,y\n1,2\n")
    with pytest.raises(StatementError, match=r"No readable pair files in .*a\.csv is missing"):
        load_pairs(tmp_path / "empty")


def test_several_paths_and_folders_give_pairs_that_know_their_data_set(write, tmp_path):
    (tmp_path / "more" / "deep").mkdir(parents=True)
    first, second = write("first.csv", HEADER + "x,y\n"), write("more/deep/second.csv", HEADER + "x,z\n")
    write("more/notes.csv", "a,b\n1,2\n")
    loaded = load_pairs(first, second.parents[1])
    assert [pair.source for pair in loaded.pairs] == ["first", "second"]
    assert len(loaded.dropped) == 1 and "notes.csv is missing column" in loaded.dropped[0]
    assert loaded.unusable_files == loaded.dropped and loaded.n_dropped == 0


def test_a_text_about_the_data_beside_them_is_no_file_of_no_use(write, tmp_path):
    write("a.csv", HEADER + "x,y\n")
    for name in ("SOURCE.txt", "readme.txt", "LICENSE.txt"):
        write(name, "Downloaded from somewhere.\n")
    assert load_pairs(tmp_path) == LoadedPairs((GOOD,))
    write("other.txt", "Not about it.\n")
    assert len(load_pairs(tmp_path).unusable_files) == 1
