"""CSV files as people and programs write them: against Python's csv module and pandas.

Bad input: quotes that never close in files of any size, bytes that are not UTF-8 in a file or its name, and plain text
that is no data set.
"""

import csv
import io
import os

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from negprobe.base.errors import InputError, StatementError
from negprobe.behaviour import read_predictions
from negprobe.statements import StatementPair, load_pairs
from negprobe.statements.readers import records

HEADER = "original,counterfactual\n"
CELLS = st.text(alphabet="ab ,\"'\u00e9\n", max_size=6).map(lambda text: f"x{text}x")


@given(st.lists(st.tuples(CELLS, CELLS, st.integers(0, 2)), min_size=1, max_size=6), st.sampled_from(["\n", "\r\n"]))
def test_spaces_in_front_of_a_quote_are_no_part_of_the_cell(tmp_path_factory, rows, newline):
    quoted = [['"' + cell.replace('"', '""') + '"' for cell in row[:2]] for row in rows]
    lines = ['"original", "counterfactual"'] + [
        f"{a},{' ' * n}{b}" for (a, b), (_, _, n) in zip(quoted, rows, strict=True)
    ]
    text = newline.join(lines) + newline
    path = tmp_path_factory.getbasetemp() / "spaces.csv"
    path.write_bytes(text.encode("utf-8-sig"))
    theirs = list(csv.reader(io.StringIO(text, newline=""), skipinitialspace=True))[1:]
    # Pandas turns the line ends in a cell into \n.
    frame = pd.read_csv(io.StringIO(text), skipinitialspace=True, keep_default_na=False)
    ours = [list(record.cells.values()) for record in records.read_table(path).records]
    assert ours == theirs
    if newline == "\n":
        assert ours == frame.to_numpy().tolist()


def test_a_quoted_statement_behind_a_space_has_no_quotes(write):
    path = write(
        "a.csv", 'original, counterfactual,  target\n"It is open, wide.", "It is ""not"" open, wide.",  "open"\n'
    )
    (pair,) = load_pairs(path).pairs
    assert pair == StatementPair("It is open, wide.", 'It is "not" open, wide.', "open", source="a")


def test_a_cell_without_quotes_keeps_its_spaces_so_that_spans_hold(write):
    (pair,) = load_pairs(write("a.csv", "original,counterfactual,cue_start,cue_end\nx,  It is not,8,11\n")).pairs
    assert pair.counterfactual[slice(*pair.cue_spans[0])] == "not"


@pytest.mark.parametrize("suffix", [".csv", ".tsv"])
@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
@pytest.mark.parametrize("named", ["", "sep={}\n"])
def test_the_separator_of_the_header_is_that_of_the_file(write, separator, suffix, named):
    named = named.format(separator)
    path = write(f"a{suffix}", f"{named}original{separator}counterfactual\nIt is open.{separator}It is not open.\nx\n")
    loaded = load_pairs(path)
    assert loaded.pairs == (StatementPair("It is open.", "It is not open.", source="a"),)
    assert f"line {4 if named else 3}: 1 cells in a row of 2 columns" in loaded.dropped[0]


def test_names_of_columns_are_read_in_any_writing_and_others_are_carried_along(write):
    text = "ID, Original ,COUNTERFACTUAL,Cue Start,cue-end,My Notes,Source,\n"
    text += "7,It is.,It is not.,6.0,9.00,a,b,\n8,x,y,,,,,\n"
    first, second = load_pairs(write("a.csv", text)).pairs
    assert first.cue_spans == ((6, 9),) and first.source == "b" and second.source == "a"
    assert first.extra == (("id", "7"), ("my_notes", "a")) and second.extra == (("id", "8"),)
    row = '{"Original": "x", "counterfactual": "y", "id": 7, "tags": ["a"], "cue_start": null, "seen": true}'
    assert load_pairs(write("a.jsonl", row)).pairs[0].extra == (("id", 7), ("tags", '["a"]'), ("seen", True))


BROKEN = {"ragged": "a,b,c\n", "unclosed": 'The door,"is\n', "open in every state": 'a","\n'}


@pytest.mark.slow
@pytest.mark.parametrize("block", BROKEN.values(), ids=BROKEN)
def test_broken_lines_take_time_that_grows_with_their_number_alone(write, block, monkeypatch):
    n_read = 0
    plain_reader = csv.reader

    def counted(lines, **options):
        def each():
            nonlocal n_read
            for line in lines:
                n_read += 1
                yield line

        return plain_reader(each(), **options)

    monkeypatch.setattr(records.csv, "reader", counted)
    found = {}
    for n in (4_000, 16_000):
        n_read = 0
        loaded = load_pairs(write("a.csv", HEADER + "x,y\n" + block * n + "z,y\n"))
        found[n] = n_read
        assert [pair.original for pair in loaded.pairs] == ["x", "z"] and loaded.n_dropped == n
    assert found[16_000] < 6 * found[4_000] and found[16_000] < 25 * 16_000


def test_a_row_of_many_lines_below_a_broken_one_is_read(write):
    text = HEADER + 'a,"b\n' + '"x\n\nx","y\n' + "\n" * 50 + 'z"\n'
    (pair,) = load_pairs(write("a.csv", text)).pairs
    assert pair.original == "x\n\nx" and pair.counterfactual == "y\n" + "\n" * 50 + "z"


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".txt"])
def test_no_more_is_read_than_a_limit_needs(write, suffix, monkeypatch):
    good = {
        ".csv": ("x{0},y{0}\n", HEADER),
        ".jsonl": ('{{"original": "x{0}", "counterfactual": "y{0}"}}\n', ""),
        ".txt": ("A cat{0} is a pet,\nA cat{0} is not a tool,\n", ""),
    }[suffix]
    n_read = 0
    whole = records._checked_lines

    def counted(path, lines):
        nonlocal n_read
        for line in whole(path, lines):
            n_read += 1
            yield line

    monkeypatch.setattr(records, "_checked_lines", counted)
    path = write(f"a{suffix}", good[1] + "".join(good[0].format(n) for n in range(20_000)))
    few = load_pairs(path, limit=20)
    assert n_read < 2_000
    assert few.pairs == load_pairs(path).pairs[:20] and few.dropped == ()
    with pytest.raises(InputError, match="limit must be at least 1"):
        load_pairs(path, limit=0)


def test_a_limit_finds_pairs_behind_many_broken_rows_and_names_those_in_front(write, tmp_path):
    path = write("a.csv", HEADER + "x,\n" * 3000 + "x,y\nx,z\n" + "x,\n" * 9)
    loaded = load_pairs(path, limit=2)
    assert [pair.counterfactual for pair in loaded.pairs] == ["y", "z"] and loaded.n_dropped == 3000
    (tmp_path / "more").mkdir()
    write("more/a.csv", HEADER + "x,y\nx,z\n")
    write("more/b.csv", HEADER + "x,u\nx,v\n")
    write("more/c.csv", "no pairs\n")
    loaded = load_pairs(tmp_path / "more", limit=3)
    assert [pair.counterfactual for pair in loaded.pairs] == ["y", "z", "u"] and loaded.unusable_files == ()


def test_a_foreign_text_is_of_an_unknown_format(write, tmp_path):
    path = write("notes.txt", "A day in the life.\nIt did not rain.\n" + "Some other line of prose.\n" * 30)
    for read in (load_pairs, lambda path: load_pairs(path, limit=3)):
        with pytest.raises(StatementError, match=r"notes\.txt has an unknown format: .* only 2 of 32 lines form"):
            read(path)


@pytest.mark.parametrize("code", ["utf-16", "utf-16-le", "utf-16-be", "utf-32"])
@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".txt"])
def test_a_file_in_another_encoding_is_one_clear_error(write, suffix, code):
    path = write(f"a{suffix}", HEADER + "It is caf\u00e9.,It is not caf\u00e9.\n" * 9, code)
    with pytest.raises(StatementError, match=r"is not UTF-8 text.*save it as UTF-8") as raised:
        load_pairs(path)
    assert len(str(raised.value)) < 300
    with pytest.raises(InputError, match=r"save the file as UTF-8|line 1: expected a list"):
        read_predictions(path)


def test_utf16_is_told_where_its_first_line_has_no_nul(write):
    with pytest.raises(StatementError, match="as UTF-16 has"):
        load_pairs(write("a.txt", "\u95e8\u6ca1\n", "utf-16"))


def test_rows_that_are_not_utf8_are_named_together(write):
    text = HEADER + "".join(f"It is caf\u00e9 {n}.,It is not caf\u00e9.\n" for n in range(9)) + "x,y\n"
    loaded = load_pairs(write("a.csv", text, "latin-1"))
    assert len(loaded.pairs) == 1 and len(loaded.dropped) == 1
    assert loaded.dropped[0].endswith("9, 10: The original is not UTF-8 text; save the file as UTF-8.")


def test_a_name_that_is_not_utf8_is_one_clear_error_for_files_and_folders(tmp_path):
    folder = tmp_path / os.fsdecode(b"\xff")
    folder.mkdir()
    (folder / "a.csv").write_text(HEADER + "x,y\n")
    for path in (folder, folder / "a.csv", folder / "a.xyz"):
        with pytest.raises(StatementError, match="is not UTF-8 text; rename the file or folder") as raised:
            load_pairs(path)
        str(raised.value).encode()
    with pytest.raises(InputError, match="is not UTF-8 text; rename"):
        read_predictions(folder / "a.csv")
