"""Public data sets are known by their content, and what they give is what their authors published, leaks left out.

Bad input: a NEG-136 item with a gap; NEG-1500 lines without their partner, with other subjects, a typing error, the
same last word, too few words or other articles; ScoNe rows with a word replaced inside another word, an unknown label
or a label that stays; MoNLI items without, or with more than, one "not"; BLiMP sentences that do not differ by a
negation; a hub data set without the package, without the data set, or of another kind.
"""

import json
import re
import sys
from collections import Counter
from types import SimpleNamespace

import pytest

from negprobe.base.errors import StatementError
from negprobe.statements import LoadedPairs, StatementPair, complete, load_pairs, tokenize

SIMP = "item\tcontext_aff\tcontext_neg\ttarget_aff\ttarget_neg\n"
CONTEXTS = "A cat is (a|an)\tA cat is not (a|an)"


def test_neg136_items_become_masked_statements_with_one_article(write):
    loaded = load_pairs(write("simp.tsv", f"{SIMP}0\t{CONTEXTS}\tanimal\tinsect\n1\t{CONTEXTS}\tpet\tinsect\n"))
    assert loaded.pairs == (
        StatementPair(
            "A cat is an [MASK].",
            "A cat is not an [MASK].",
            "animal",
            "insect",
            category="SIMP",
            source="NEG-136-SIMP",
            cluster="NEG-136-SIMP 0",
        ),
    )
    (reason,) = loaded.dropped
    assert "simp.tsv, line 3: " in reason and "'pet' needs the article 'a' and the foil 'insect' needs 'an'" in reason


def test_a_neg136_item_with_a_gap_is_left_out(write):
    loaded = load_pairs(write("simp.tsv", f"{SIMP}0\t{CONTEXTS}\tanimal\t\n1\t{CONTEXTS}\tanimal\tinsect\n"))
    assert len(loaded.pairs) == 1
    assert loaded.dropped == (f"{loaded.dropped[0].partition(', ')[0]}, line 2: The target_neg is empty.",)


def test_neg136_is_read_from_its_folder(shared_datasets, bert):
    loaded = load_pairs(shared_datasets / "neg136")
    # 18 simple items, 4 of which need another article for the foil, and 16 natural ones.
    assert Counter((pair.source, pair.category) for pair in loaded.pairs) == {
        ("NEG-136-SIMP", "SIMP"): 14,
        ("NEG-136-NAT", "NAT natural"): 8,
        ("NEG-136-NAT", "NAT less natural"): 8,
    }
    assert sum("'insect'" in reason for reason in loaded.dropped) == 4
    assert loaded.pairs[16] == StatementPair(
        "A trout is a [MASK].",
        "A trout is not a [MASK].",
        "fish",
        "tool",
        category="SIMP",
        source="NEG-136-SIMP",
        cluster="NEG-136-SIMP 0",
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
    assert load_pairs(*(folder / f"NEG-136-{part}.tsv" for part in ("NAT", "SIMP"))).pairs == load_pairs(folder).pairs


NEG1500 = """\
A cat is an animal,
A cat is not an insect,
A court is a place,
A cout is not a tool,
A dog is an animal,
A dog is not a plant,
Gold is a metal,

Iron is a metal,
Iron is not a toy,
Tin is not a toy,
An owl  is a bird,
An owl is not a bird,
A book is a text,
A book is never a person,
Snow,
Snow not,
Salt is white,
Salt is not black,
"""


def test_neg1500_lines_become_pairs_with_both_words_asked_in_one_context(write):
    loaded = load_pairs(write("NEG-1500-SIMP-GEN.txt", NEG1500))
    assert [(pair.original, pair.counterfactual, pair.target, pair.foil) for pair in loaded.pairs] == [
        ("A cat is an [MASK].", "A cat is not an [MASK].", "animal", "insect"),
        ("Iron is a [MASK].", "Iron is not a [MASK].", "metal", "toy"),
        ("Salt is [MASK].", "Salt is not [MASK].", "white", "black"),
    ]
    assert {pair.source for pair in loaded.pairs} == {"NEG-1500-SIMP-GEN"}
    reasons = {
        3: "differ by more than one 'not'",
        5: "'animal' needs the article 'an' and the foil 'plant' needs 'a'",
        7: "without its negation",
        11: "without its affirmative",
        12: "both end in 'bird'",
        14: "differ by more than one 'not'",
        16: "too short",
    }
    assert len(loaded.dropped) == len(reasons)
    for (line, reason), found in zip(sorted(reasons.items()), loaded.dropped, strict=True):
        assert f"line {line}: " in found and reason in found


def test_neg1500_gives_the_627_pairs_that_differ_by_not_alone(shared_datasets):
    path = shared_datasets / "neg1500" / "NEG-1500-SIMP-TEMP.txt"
    loaded = load_pairs(path)
    lines = [line.strip(",\n").split() for line in path.read_text().splitlines()]
    same = [(a, b) for a, b in zip(lines[::2], lines[1::2], strict=True) if a[:-1] == [w for w in b[:-1] if w != "not"]]
    assert len(lines) == 2 * 770 and len(same) == 627
    assert [(pair.original, pair.target, pair.foil) for pair in loaded.pairs] == [
        (f"{' '.join(a[:-1])} [MASK].", a[-1], b[-1]) for a, b in same
    ]
    dropped = [int(number) for reason in loaded.dropped for number in _lines_of(reason)]
    assert loaded.n_dropped == len(dropped) == 770 - 627
    assert all(pair.counterfactual.replace(" not ", " ") == pair.original for pair in loaded.pairs)


def test_lines_as_json_lose_only_what_is_broken(write):
    rows = [
        {"text": line} for line in ("A cat is a pet,", "A cat is not a toy,", "Tin is a metal,", "Tin is not a pet,")
    ]
    lines = [json.dumps(row) for row in [{"note": "x"}, *rows[:2]]] + ["[1]", *map(json.dumps, rows[2:3])]
    loaded = load_pairs(write("NEG.jsonl", "\n".join([*lines, '{"text": 3}', *map(json.dumps, rows[2:])])))
    assert [pair.target for pair in loaded.pairs] == ["pet", "metal"]
    expected = (
        "line 1: The row has no 'text'",
        "line 4: [1] is not a JSON object",
        "line 5: an affirmative line without",
        "line 6: The text is 3",
    )
    assert all(reason in found for reason, found in zip(expected, loaded.dropped, strict=True))


def test_a_folder_counts_rows_and_files_of_no_use_apart(shared_datasets):
    loaded = load_pairs(shared_datasets / "blimp_npi")
    assert loaded.n_dropped == 0 and sum("in 1000 rows" in reason for reason in loaded.unusable_files) == 3
    assert not any("SOURCE" in reason for reason in loaded.dropped)
    assert load_pairs(shared_datasets / "neg136").n_dropped == 4


def _lines_of(reason):
    return re.findall(r"\d+", reason.partition(", line")[2].partition(":")[0])


SCONE = (
    ",sentence1,sentence2,gold_label,sentence1_lex,sentence2_lex,group_index,"
    "sentence1_edited,sentence2_edited,gold_label_edited\n"
)


def scone_row(edited, hypothesis, label="neutral", negated="entailment", rest="She does not own a"):
    return f"0,{rest} hat.,{rest} sunhat.,{negated},hat,sunhat,0,{edited},{hypothesis},{label}\n"


def test_scone_pairs_have_premise_and_hypothesis_and_the_labels_as_answers(write):
    loaded = load_pairs(
        write(
            "no_negation.csv",
            SCONE
            + scone_row("She does own a hat.", "She does own a sunhat.")
            + scone_row("She owns a hat.", "She owns a sunhat.")
            + scone_row("She said that it is a hat.", "She said tsunhat it is a sunhat.")
            + scone_row("She owns a hat.", "She owns a sunhat.", label="neutral", negated="neutral")
            + scone_row("She owns a hat.", "She owns a sunhat.", label="unknown")
            + scone_row("She owns a hat.", "She owns a sunhat.", label=""),
        )
    )
    minimal, reworded = loaded.pairs
    assert minimal == StatementPair(
        "She does own a hat. [SEP] She does own a sunhat.",
        "She does not own a hat. [SEP] She does not own a sunhat.",
        "neutral",
        "entailment",
        category="minimal",
        source="ScoNe",
        cluster="she does not own a _",
    )
    assert reworded.category == "reworded"
    for line, reason in zip(
        (4, 5, 6, 7), ("tsunhat", "does not change the label, 'neutral'", "'unknown' is not", "is empty"), strict=True
    ):
        assert any(f"line {line}: " in found and reason in found for found in loaded.dropped)


def test_scone_gives_its_contrast_pairs_from_its_folder(shared_datasets, bert):
    loaded = load_pairs(shared_datasets / "scone")
    assert len(loaded.pairs) == 1002
    assert Counter((pair.target, pair.foil) for pair in loaded.pairs) == {
        ("neutral", "entailment"): 501,
        ("entailment", "neutral"): 501,
    }
    for pair in loaded.pairs[::50]:
        found = complete(pair, bert)
        assert found.cue == "not" and [found.counterfactual[slice(*span)] for span in found.cue_spans] == ["not", "not"]
        # "any" is only possible after a negation.
        assert (found.control is None) == (" any" in pair.counterfactual)
        if found.control is not None:
            assert len(tokenize(found.control, bert)) == len(tokenize(pair.counterfactual, bert))
    # Each of the five other conditions, and what is no NLI file, is named once.
    assert sum("train" in reason for reason in loaded.dropped) == 5


MONLI = (
    '{"sentence1": "The girl does not wear a hat.", "sentence2": "The girl does not wear a sunhat.", '
    '"gold_label": "entailment", "depth": -1}\n'
    '{"sentence1": "Not a dog barks", "sentence2": "Not an animal barks", "gold_label": "neutral", "depth": 7, '
    '"sentence1_lex": "dog", "sentence2_lex": "animal"}\n'
)


def test_monli_items_get_their_affirmative_by_taking_not_out(write):
    loaded = load_pairs(
        write(
            "nmonli.jsonl",
            MONLI
            + MONLI.splitlines()[0].replace("not ", "", 1)
            + "\n"
            + MONLI.splitlines()[0].replace("not ", "")
            + "\n",
        )
    )
    assert loaded.pairs == (
        StatementPair(
            "The girl does wear a hat. [SEP] The girl does wear a sunhat.",
            "The girl does not wear a hat. [SEP] The girl does not wear a sunhat.",
            "neutral",
            "entailment",
            category="minimal",
            source="MoNLI",
            cluster="the girl does not wear a hat",
        ),
        StatementPair(
            "a dog barks [SEP] an animal barks",
            "Not a dog barks [SEP] Not an animal barks",
            "entailment",
            "neutral",
            category="minimal",
            source="MoNLI",
            cluster="not a _ barks",
        ),
    )
    assert "line 3: " in loaded.dropped[0] and "not have exactly one 'not'" in loaded.dropped[0]
    assert "line 4: The item has no negation" in loaded.dropped[1]


def test_affirmative_monli_items_give_no_pairs(write):
    with pytest.raises(StatementError, match="no usable pair in 2 rows; line 1: The item has no negation"):
        load_pairs(write("pmonli.jsonl", MONLI.replace("not ", "").replace("Not ", "")))


def test_blimp_gives_pairs_where_a_negation_is_what_differs(shared_datasets, bert):
    folder = shared_datasets / "blimp_npi"
    loaded = load_pairs(folder / "sentential_negation_npi_licensor_present.jsonl")
    assert len(loaded.pairs) == 1000 and loaded.dropped == ()
    assert loaded.pairs[0] == StatementPair(
        "Teresa had probably ever sold a movie theater.",
        "Teresa had not ever sold a movie theater.",
        category="sentential_negation_npi_licensor_present",
        source="BLiMP",
    )
    lengths = [(len(pair.original.split()), len(pair.counterfactual.split())) for pair in loaded.pairs]
    assert all(a == b for a, b in lengths)
    assert complete(loaded.pairs[0], bert).cue == "not"


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("npi_present_1", "neither sentence has a negation"),
        ("only_npi_licensor_present", "neither sentence has a negation"),
        ("sentential_negation_npi_scope", "both sentences have the same negations"),
    ],
)
def test_other_blimp_files_say_why_they_give_no_pairs(shared_datasets, name, reason):
    with pytest.raises(StatementError, match=f"no usable pair in 1000 rows; line 1: {reason}"):
        load_pairs(shared_datasets / "blimp_npi" / f"{name}.jsonl")


@pytest.mark.slow
def test_every_data_set_at_once(shared_datasets):
    counts = Counter(pair.source for pair in load_pairs(shared_datasets).pairs)
    assert counts == {
        "BLiMP": 1000,
        "MoNLI": 1202,
        "NEG-136-NAT": 16,
        "NEG-136-SIMP": 14,
        "NEG-1500-SIMP-TEMP": 627,
        "ScoNe train": 1002,
    }


class Split(list):
    """Rows as Hugging Face gives them."""

    @property
    def column_names(self):
        return list(self[0])


@pytest.fixture
def hub(monkeypatch):
    """A stand-in for Hugging Face's `datasets`, which needs a network."""
    known = {
        ("text-machine-lab/NEG-1500-SIMP-TEMP", None): {
            "train": Split({"text": line} for line in NEG1500.splitlines() if line)
        },
        ("nyu-mll/blimp", "sentential_negation_npi_licensor_present"): {
            "train": Split([{"sentence_good": "He did not ever go.", "sentence_bad": "He did really ever go.",
                             "UID": "sentential_negation_npi_licensor_present", "pair_id": 0}])
        },
        ("some/plain", None): {
            "train": Split([{"original": "x", "counterfactual": "y"}]),
            "test": Split([{"original": "x", "counterfactual": "z"}]),
        },
    }  # fmt: skip

    class DatasetsError(Exception):
        """Of no other kind, as Hugging Face's."""

    def load_dataset(name, configuration=None):
        if name == "some/broken":
            raise DatasetsError("An error occurred") from TypeError("two files have different columns")
        if (name, configuration) not in known:
            raise ValueError("no such data set or configuration")
        return known[name, configuration]

    monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(load_dataset=load_dataset))
    monkeypatch.setitem(sys.modules, "datasets.exceptions", SimpleNamespace(DatasetsError=DatasetsError))


def test_hub_names_give_the_same_pairs_as_the_files(hub, write):
    from_hub = load_pairs("text-machine-lab/NEG-1500-SIMP-TEMP")
    from_file = load_pairs(write("NEG-1500-SIMP-TEMP.txt", NEG1500))
    assert from_hub.pairs == from_file.pairs
    assert from_hub.dropped[0].startswith("text-machine-lab/NEG-1500-SIMP-TEMP, train, line 3: ")
    blimp = load_pairs("nyu-mll/blimp:sentential_negation_npi_licensor_present")
    assert [(pair.counterfactual, pair.source) for pair in blimp.pairs] == [("He did not ever go.", "BLiMP")]
    assert load_pairs("some/plain") == LoadedPairs(
        (StatementPair("x", "y", source="plain"), StatementPair("x", "z", source="plain"))
    )


def test_a_hub_name_without_the_package_or_the_data_set_is_a_clear_error(hub, monkeypatch):
    with pytest.raises(StatementError, match=r"There is no file or folder nyu-mll/blimp.*no such data set or config"):
        load_pairs("nyu-mll/blimp")
    with pytest.raises(StatementError, match=r"some/broken, .* An error occurred \(two files have different"):
        load_pairs("some/broken")
    with pytest.raises(StatementError, match="not a supported kind of file"):
        load_pairs("not a/hub name")
    with pytest.raises(StatementError, match="cannot be read"):
        load_pairs("folder/pairs.csv")
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(StatementError, match=r"pip install 'negprobe\[datasets\]'"):
        load_pairs("nyu-mll/blimp")


def test_a_local_file_is_read_before_the_hub_is_asked(hub, write, monkeypatch, tmp_path):
    (tmp_path / "some" / "plain").mkdir(parents=True)
    write("some/plain/pairs.csv", "original,counterfactual\nlocal,file\n")
    monkeypatch.chdir(tmp_path)
    assert load_pairs("some/plain").pairs[0].original == "local"
