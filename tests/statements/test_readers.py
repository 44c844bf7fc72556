"""Files of pairs are read whole, or the line that is wrong is named."""

import json

import pytest

from negprobe.errors import StatementError
from negprobe.statements import LoadedPairs, StatementPair, complete, load_pairs

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
)
PLAIN = StatementPair("It is café.", "It is none.", target="none", foil="NA")

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


@pytest.fixture
def write(tmp_path):
    def write(name, text, encoding="utf-8"):
        path = tmp_path / name
        path.write_bytes(text.encode(encoding))
        return path

    return write


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
@pytest.mark.parametrize(
    ("name", "text"), [("a.csv", CSV), ("a.CSV", CSV), ("a.jsonl", JSONL), ("a.csv", CSV.replace("\n", "\n \n"))]
)
def test_a_file_gives_its_pairs_whole(write, name, text, newline, encoding):
    assert load_pairs(write(name, text.replace("\n", newline), encoding)) == LoadedPairs((PAIR, PLAIN))


def test_a_tsv_is_read_by_tabs(write):
    path = write("a.tsv", "original\tcounterfactual\nIt is red, blue.\tIt isn't red, blue.\n")
    assert load_pairs(str(path)).pairs == (StatementPair("It is red, blue.", "It isn't red, blue."),)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.csv", "original,target\nx,y\n", "lacks column.*'counterfactual'.*it needs original, counterfactual"),
        ("a.csv", "original,counterfactual,note\nx,y,z\n", "unknown column.*'note'"),
        ("a.csv", "original,counterfactual,original\nx,y,z\n", "twice the column.*'original'"),
        ("a.csv", "original,counterfactual\nx,y\nx,\n", "line 3: The counterfactual of a pair is empty"),
        ("a.csv", "original,counterfactual\n , \n", "line 2: The original of a pair is empty"),
        ("a.csv", "original,counterfactual\nx,y,z\n", "line 2: 3 cells under 2 columns"),
        ("a.csv", "original,counterfactual\nx\n", "line 2: 1 cells under 2 columns"),
        ("a.csv", 'original,counterfactual\nx,"y\n', "line 2: .*quotes"),
        ("a.csv", "original,counterfactual\n", "no pairs"),
        ("a.csv", "", "no pairs"),
        ("a.csv", "original,counterfactual,cue_start,cue_end\nx,y z,1,\n", "line 2: cue_start and cue_end are '1'"),
        ("a.csv", "original,counterfactual,cue_start,cue_end\nx,y z,1,9\n", "line 2: .1, 9. of cue_spans is not"),
        ("a.jsonl", '{"original": "x", "counterfactual": "y"}\n{"original"\n', "line 2: not JSON"),
        ("a.jsonl", '["x", "y"]\n', "line 1: .* is not an object"),
        ("a.jsonl", '\n{"original": "x"}\n', "line 2 lacks column.*'counterfactual'"),
        ("a.jsonl", '{"original": "x", "counterfactual": 3}\n', "line 1: The counterfactual is 3; it has to be text"),
        ("a.jsonl", '{"original": "x", "counterfactual": null}\n', "line 1: The counterfactual of a pair is empty"),
        ("a.txt", "x", "give a .csv, .tsv or .jsonl file"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_with_its_line(write, name, text, message):
    path = write(name, text)
    with pytest.raises(StatementError, match=message) as raised:
        load_pairs(path)
    assert str(raised.value).startswith(str(path))
    assert str(raised.value).count(str(path)) == 1


def test_lines_are_counted_as_an_editor_counts_them(write):
    path = write("a.csv", 'original,counterfactual\n\n"x\nx",y\nx,\n')
    with pytest.raises(StatementError, match="line 5:"):
        load_pairs(path)


def test_a_file_that_is_not_there_or_not_text_is_an_error(tmp_path, write):
    with pytest.raises(StatementError, match="cannot be read"):
        load_pairs(tmp_path / "none.csv")
    with pytest.raises(StatementError, match="not UTF-8"):
        load_pairs(write("a.csv", CSV, "latin-1"))
    with pytest.raises(StatementError, match=r"folder without NEG-136-\*\.tsv"):
        load_pairs(tmp_path)


SIMP = "item\tcontext_aff\tcontext_neg\ttarget_aff\ttarget_neg\n"


def test_neg136_items_become_masked_statements_with_one_article(write):
    contexts = "A cat is (a|an)\tA cat is not (a|an)"
    loaded = load_pairs(write("simp.tsv", f"{SIMP}0\t{contexts}\tanimal\tinsect\n1\t{contexts}\tpet\tinsect\n"))
    assert loaded.pairs == (
        StatementPair("A cat is an [MASK].", "A cat is not an [MASK].", "animal", "insect", category="SIMP"),
    )
    (reason,) = loaded.dropped
    assert "simp.tsv, line 3: " in reason and "'pet' wants 'a' and the foil 'insect' 'an'" in reason


def test_a_neg136_item_with_a_gap_is_an_error(write):
    with pytest.raises(StatementError, match="line 2: A context or target"):
        load_pairs(write("simp.tsv", SIMP + "0\tA cat is (a|an)\tA cat is not (a|an)\tanimal\t\n"))


def test_neg136_is_read_from_its_folder(shared_datasets, bert):
    folder = shared_datasets / "neg136"
    loaded = load_pairs(folder)
    categories = [pair.category for pair in loaded.pairs]
    # 18 simple items, 4 of which need another article for the foil, and 16 natural ones.
    assert (categories.count("SIMP"), categories.count("NAT"), len(loaded.dropped)) == (14, 16, 4)
    assert all("insect" in reason for reason in loaded.dropped)
    assert loaded.pairs[16] == StatementPair(
        "A trout is a [MASK].", "A trout is not a [MASK].", "fish", "tool", category="SIMP"
    )
    for pair in loaded.pairs:
        found = complete(pair, bert)
        assert found.cue in ("not", "n't") and found.control is not None
        assert found.counterfactual[slice(*found.affected_spans[0])] == "[MASK]"
        assert "(a|an)" not in pair.original + pair.counterfactual


def test_both_neg136_files_are_read_alone(shared_datasets):
    folder = shared_datasets / "neg136"
    alone = [load_pairs(folder / f"NEG-136-{part}.tsv") for part in ("NAT", "SIMP")]
    assert alone[0].pairs + alone[1].pairs == load_pairs(folder).pairs
