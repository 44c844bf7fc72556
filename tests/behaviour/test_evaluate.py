"""Data sets are scored as their authors scored them, and what could not be scored is counted and named.

Bad input: model and predictions together or neither, a masked LM for labels and a classifier for gaps or sentences,
predictions for several sets, for sentences, or too few of them, predictions that are no lists of words, are empty,
missing or not text, a classifier whose labels have other names or no tokenizer, statements too long for the model,
words that are not one token, sentences that the model reads alike, pairs that are no affirmative and negation, items
that are repeated, files of one name, and nothing left to score.
"""

import io
import math

import pandas as pd
import pytest
import torch
from rich.console import Console
from typer.testing import CliRunner

from negprobe import HookedEncoder, cli
from negprobe.base.errors import InputError, StatementError
from negprobe.behaviour import (
    SHARES,
    Gap,
    builtin_set,
    evaluate,
    pseudo_log_likelihoods,
    read_predictions,
    scored_sets,
)
from negprobe.cli import app
from negprobe.statements.readers.records import Record, Table

NEG1500 = """\
A trout is a fish,
A trout is not a tool,
A bee is an insect,
A bee is not a building,
A court is a place,
A cout is not a bird,
A rose is a flower,
A rose is not a bird,
"""
# Fish first and unchanged; insect second, changed with the article; the place of the broken pair first, changed; flower
# sixth, changed.
PREDICTED = """\
['fish', 'trout', 'bird', 'a', 'b', 'c']
["Fish", "trout", "bird", "a", "b", "c"]
['', 'animal', 'insect', 'ant', 'a', 'b', 'c']
['person', 'animal', 'ant', 'a', 'b', 'c']
['place', 'a', 'b', 'c', 'd', 'e']
['bird', 'a', 'b', 'c', 'd', 'e']
['rose', 'plant', 'poem', 'word', 'name', 'flower']
['thorn', 'rose', 'flower', 'a', 'b', 'c']
"""
TROUT = "0\tA trout is (a|an)\tA trout is not (a|an)\tfish\ttool\n"
NEG136 = "item\tcontext_aff\tcontext_neg\ttarget_aff\ttarget_neg\n"


def scores(evaluation):
    return {
        (row.data_set, row.condition, row.score): (row.hits, row.n) for row in evaluation.shares.itertuples(index=False)
    }


def test_predictions_are_scored_as_counted_by_hand(write):
    sets, useless = scored_sets(write("NEG-1500-SIMP-GEN.txt", NEG1500))
    evaluation = evaluate(sets, predictions=read_predictions(write("p.txt", PREDICTED)))
    name = "NEG-1500-SIMP-GEN"
    assert scores(evaluation) == {
        (name, "", "top-1"): (2, 4),
        (name, "", "top-5"): (3, 4),
        (name, "", "sensitivity"): (3, 4),
        (name, "", "sensitivity, one article"): (1, 2),
    }
    assert list(evaluation.shares.columns) == list(SHARES)
    assert "have no probabilities" in evaluation.notes[0]
    assert "1 of 8 predictions begin with an empty word" in evaluation.notes[1]
    assert (
        "1 of 4 items have statements that differ" in evaluation.notes[2]
        and "'A cout is not a bird,' differ" in evaluation.notes[2]
    )
    assert useless == () and len(evaluation.notes) == 3


def by_the_authors_script(lists, labels, index):
    """Top-1, top-5 and sensitivity as the script of Shivagunde et al. 2023 counts them, for lists from `index` on."""
    top_1 = sum(label == words[index] for words, label in zip(lists[::2], labels, strict=True))
    top_5 = sum(label in words[: index + 5] for words, label in zip(lists[::2], labels, strict=True))
    changed = sum(before[index] != after[index] for before, after in zip(lists[::2], lists[1::2], strict=True))
    return top_1, top_5, changed


T5 = [["", "fish"], ["fish"], ["insect", ""], ["", "building"], ["place"], ["", "place"], ["."], ["flower"]]
ROBERTA = [["", "fish"], [".", "tool"], ["", "insect"], ["", "insect"], [",", "bird"], ["", "x"], ["", "y"], ["", "y"]]


@pytest.mark.parametrize(
    ("lists", "index", "other"), [(T5, 0, (3, 3, 2)), (ROBERTA, 1, (0, 2, 2))], ids=["t5", "roberta"]
)
def test_predictions_of_no_word_count_as_the_authors_count_them_and_a_note_has_both(write, lists, index, other):
    lists = [[*words, "a", "b", "c", "d", "e"] for words in lists]
    words = read_predictions(write("p.txt", "\n".join(map(str, lists))))
    evaluation = evaluate(scored_sets(write("NEG.txt", NEG1500))[0], predictions=words)
    expected = by_the_authors_script(lists, ["fish", "insect", "place", "flower"], index)
    found = {score: hits for (_, _, score), (hits, _) in scores(evaluation).items()}
    assert (found["top-1"], found["top-5"], found["sensitivity"]) == expected
    assert other[0] != expected[0]
    (note,) = (note for note in evaluation.notes if "an empty word or a punctuation mark" in note)
    assert note.endswith(
        "top-1 is {:.3f}, top-5 is {:.3f}, sensitivity is {:.3f}".format(*(hits / 4 for hits in other))
    )


def test_a_models_own_punctuation_counts_and_a_note_has_the_scores_without_it(write, masked_lm, monkeypatch):
    def read(model, texts, asked, k):
        return [Gap((".", "fish", "insect", "x"), {}) for text in texts]

    monkeypatch.setattr("negprobe.behaviour.cloze.read_gaps", read)
    evaluation = evaluate(scored_sets(write("simp.txt", NEG1500))[0], masked_lm[1])
    assert scores(evaluation)["simp", "", "top-1"] == (0, 4)
    assert any("8 of 8 predictions begin with" in note and "top-1 is 0.250" in note for note in evaluation.notes)


def test_pairs_with_labels_are_scored_on_a_classifier_statement_by_statement(write, classifier, tokenizer):
    theirs, ours = classifier
    rows = [
        ("It is red. [SEP] It is dark red.", "It is not red. [SEP] It is not dark red.", "neutral", "entailment"),
        ("It is open.", "It is not open.", "entailment", "contradiction"),
        ("It was open.", "It was never open.", "entailment", "contradiction"),
    ]
    text = "original,counterfactual,target,foil\n" + "\n".join(",".join(row) for row in [*rows, ("x", "y", "", "")])
    sets, _ = scored_sets(write("mine.csv", text))
    assert all("line 5: The pair has no target or no foil" in part.dropped[0] for part in sets)

    def label(text):
        with torch.no_grad():
            logits = theirs(**tokenizer(*text.split(" [SEP] "), return_tensors="pt")).logits[0]
        return theirs.config.id2label[int(logits.argmax())].lower()

    assert scores(evaluate(sets, ours)) == {
        ("mine", side, "accuracy"): (sum(label(row[at]) == row[2 + at] for row in rows), 3)
        for at, side in enumerate(("original", "counterfactual"))
    }


def test_predictions_for_a_table_are_two_lines_an_item_broken_rows_included(write):
    rows = f"{TROUT}1\tx\n2\tAn oak is (a|an)\tAn oak is not (a|an)\ttree\tbird\n"
    sets, _ = scored_sets(write("simp.tsv", NEG136 + rows))
    words = [["fish"], ["bird"], ["fish"], ["fish"], ["tree"], ["tree"]]
    evaluation = evaluate(sets, predictions=words)
    assert scores(evaluation)["NEG-136-SIMP", "", "top-1"] == (2, 2)
    assert scores(evaluation)["NEG-136-SIMP", "", "sensitivity"] == (1, 2)
    assert any("have only 1 word, so" in note for note in evaluation.notes)


def test_a_masked_lm_is_asked_each_word_behind_its_own_article(write, masked_lm, tokenizer):
    theirs, ours = masked_lm
    rows = f"{TROUT}1\tAn ant is (a|an)\tAn ant is not (a|an)\tinsect\ttree\n"
    evaluation = evaluate(scored_sets(write("simp.tsv", NEG136 + rows))[0], ours)

    def said(context):
        inputs = tokenizer(f"{context} [MASK].", return_tensors="pt")
        at = inputs["input_ids"][0].tolist().index(tokenizer.mask_token_id)
        with torch.no_grad():
            return theirs(**inputs).logits[0, at].log_softmax(dim=-1)

    def log_probability(context, word):
        return float(said(context)[tokenizer.convert_tokens_to_ids(word)])

    affirmative = [
        log_probability("A trout is a", "fish") > log_probability("A trout is a", "tool"),
        log_probability("An ant is an", "insect") > log_probability("An ant is a", "tree"),
    ]
    negated = [
        log_probability("A trout is not a", "tool") > log_probability("A trout is not a", "fish"),
        log_probability("An ant is not a", "tree") > log_probability("An ant is not an", "insect"),
    ]
    changed = [
        int(said("A trout is a").argmax()) != int(said("A trout is not a").argmax()),
        int(said("An ant is an").argmax()) != int(said("An ant is not a").argmax()),
    ]
    top_5 = [
        tokenizer.convert_tokens_to_ids(word) in said(context).topk(5).indices.tolist()
        for context, word in (("A trout is a", "fish"), ("An ant is an", "insect"))
    ]
    found = {score: counts for (_, _, score), counts in scores(evaluation).items()}
    assert found["true over false, affirmative"] == (sum(affirmative), 2)
    assert found["true over false, negated"] == (sum(negated), 2)
    assert found["sensitivity"] == (sum(changed), 2)
    assert found["sensitivity, one article"] == (changed[0], 1)
    assert found["top-5"] == (sum(top_5), 2)


def test_sensitivity_is_that_of_the_statements_as_published(write, masked_lm, monkeypatch):
    # A model that says the article before the gap: only published articles tell the lines apart.
    def read(model, texts, asked, k):
        return [Gap((text.split()[-2],), {}) for text in texts]

    monkeypatch.setattr("negprobe.behaviour.cloze.read_gaps", read)
    found = scores(evaluate(scored_sets(write("simp.txt", NEG1500))[0], masked_lm[1]))
    assert found["simp", "", "sensitivity"] == (1, 4) and found["simp", "", "sensitivity, one article"] == (0, 2)


def test_statements_with_other_subjects_are_not_asked_which_word_is_truer(write, masked_lm):
    lines = "An ant is an insect,\nA ant is not a vegetable,\nA trout is a fish,\nA trout is not a fish,\n"
    evaluation = evaluate(scored_sets(write("simp.txt", NEG1500 + lines))[0], masked_lm[1])
    found = {score: n for (_, _, score), (_, n) in scores(evaluation).items()}
    assert found == {
        "top-1": 6, "top-5": 6, "sensitivity": 6, "sensitivity, one article": 2,
        "true over false, affirmative": 3, "true over false, negated": 3,
    }  # fmt: skip
    assert any("3 of 6 items have statements that differ" in note for note in evaluation.notes)
    # Nothing is said of words in more than one token where none is left out for it.
    assert not any("not one token" in note for note in evaluation.notes)


def test_the_built_in_pairs_are_scored_and_the_bundled_model_knows_them():
    evaluation = evaluate([builtin_set()], HookedEncoder.from_pretrained("tiny-negation", device="cpu"))
    found = scores(evaluation)
    n = len(builtin_set().items)
    assert found["builtin", "", "true over false, affirmative"][1] == n
    assert min(hits for hits, _ in found.values()) > 0.95 * n
    assert evaluation.notes == ()


def test_a_file_of_pairs_is_scored_where_it_has_gaps(write, masked_lm):
    header = "original,counterfactual,target,foil\n"
    sets, _ = scored_sets(
        write("mine.csv", header + "It is [MASK].,It is not [MASK].,good,bad\nIt is.,It is not.,good,bad\n[MASK],x,,\n")
    )
    assert sets[0].name == "mine" and sets[0].n_statements == 6 and len(sets[0].items) == 1
    assert "line 3: " in sets[0].dropped[0] and "line 4: " in sets[0].dropped[1]
    assert scores(evaluate(sets, masked_lm[1]))["mine", "", "top-1"][1] == 1


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("It is not [MASK].,It is [MASK].,bad,good,,", "The original has the negation"),
        ("It is [MASK].,It was [MASK].,good,bad,,", "The counterfactual has no negation that"),
        ("It is not [MASK].,It was not [MASK].,good,bad,,", "The counterfactual has no negation that"),
        ("It is [MASK]., It is [MASK]. ,good,bad,,", "The two statements of the pair are the same"),
        ("It isn't [MASK].,It is [MASK].,good,bad,0,2", "The original has the negation"),
    ],
)
def test_only_an_affirmative_and_its_negation_are_scored_as_such(write, row, reason):
    header = "original,counterfactual,target,foil,cue_start,cue_end\n"
    good = ["It is [MASK].,It is not [MASK].,good,bad,,", "All are [MASK].,Few are [MASK].,good,bad,0,3"]
    (part,), _ = scored_sets(write("mine.csv", header + "\n".join([*good, row])))
    assert [(item.affirmative, item.negated) for item in part.items] == [
        ("It is [MASK].", "It is not [MASK]."),
        ("All are [MASK].", "Few are [MASK]."),
    ]
    assert len(part.dropped) == 1 and f"line 4: {reason}" in part.dropped[0]


def test_items_that_are_repeated_are_scored_once(write, masked_lm):
    once = evaluate(scored_sets(write("NEG.txt", NEG1500))[0], masked_lm[1])
    (part,), _ = scored_sets(write("NEG.txt", NEG1500 * 2 + NEG1500.partition("A court")[0]))
    twice = evaluate([part], masked_lm[1])
    assert part.n_statements == 20
    pd.testing.assert_frame_equal(once.shares, twice.shares)
    assert twice.notes[0].endswith("NEG.txt: 6 items repeat earlier ones; each is scored once.")
    # What is predicted for the repetitions is passed over.
    words = read_predictions(write("p.txt", PREDICTED))
    (again,), _ = scored_sets(write("NEG.txt", NEG1500 * 2))
    found = scores(evaluate([again], predictions=words + [("x",)] * 8))
    assert found == scores(evaluate(scored_sets(write("NEG.txt", NEG1500))[0], predictions=words))


def test_pairs_and_labelled_items_are_counted_once_too(write, classifier):
    (part,), _ = scored_sets(write("npi.jsonl", BLIMP + BLIMP.splitlines()[0]))
    assert len(part.items) == 3 and part.dropped[0].endswith("1 item repeats an earlier one; each is scored once.")
    (part,), _ = scored_sets(write("nmonli.jsonl", monli([*MONLI, MONLI[0]])))
    assert len(part.items) == 4


def test_an_item_that_is_repeated_under_another_number_is_scored_once(write):
    rows = "".join(f"{number}\tA robin is (a|an)\tA robin is not (a|an)\tbird\ttree\n" for number in (4, 5))
    (part,), _ = scored_sets(write("simp.tsv", f"item\tcontext_aff\tcontext_neg\ttarget_aff\ttarget_neg\n{rows}"))
    assert len(part.items) == 1


def test_files_of_one_name_are_told_apart_and_a_copy_is_scored_once(write, tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    write("a/NEG.txt", NEG1500)
    write("b/NEG.txt", NEG1500.partition("A court")[0])
    write("b/copy.txt", NEG1500)
    write("b/other.txt", NEG1500.partition("A bee")[0])
    sets, useless = scored_sets(tmp_path)
    assert [part.name for part in sets] == ["NEG (a/NEG.txt)", "NEG (b/NEG.txt)", "other"]
    assert len(useless) == 1 and "b/copy.txt has the same items as" in useless[0] and "a/NEG.txt" in useless[0]


def test_splits_of_a_hub_data_set_are_told_apart(monkeypatch):
    tables = [
        Table(f"lab/NEG, {split}", "NEG", ("text",), tuple(Record(i, {"text": line}) for i, line in enumerate(lines)))
        for split, lines in (("train", NEG1500.splitlines()), ("test", NEG1500.splitlines()[:2]))
    ]
    monkeypatch.setattr("negprobe.statements.readers.load.hub_tables", lambda name: tables)
    assert [part.name for part in scored_sets("lab/NEG")[0]] == ["NEG (train)", "NEG (test)"]


def test_what_the_model_cannot_read_is_left_out_and_counted(write, masked_lm):
    header = "original,counterfactual,target,foil\n"
    rows = [
        "It is [MASK].,It is not [MASK].,good,bad",
        f"It is {'very ' * 40}[MASK].,It is not {'very ' * 40}[MASK].,good,bad",
        "It is [MASK].,It is not [MASK].,good,scuba-diving",
        "It is \u9f98 [MASK].,It is not [MASK].,good,bad",
    ]
    evaluation = evaluate(scored_sets(write("mine.csv", header + "\n".join(rows)))[0], masked_lm[1])
    found = {score: n for (_, _, score), (_, n) in scores(evaluation).items()}
    assert found["top-1"] == 3 and found["true over false, negated"] == 2
    notes = " ".join(evaluation.notes)
    assert "tokens, more than the model's maximum of 40" in notes
    assert "1 of 3 items are not scored for true over false" in notes and "scuba-diving" in notes
    assert "1 of 3 items have words outside the model's vocabulary: \u9f98" in notes


BLIMP = (
    '{"sentence_good": "He did not ever go.", "sentence_bad": "He did really ever go.", "UID": "npi"}\n'
    '{"sentence_good": "HE did not ever go.", "sentence_bad": "He did not ever go.", "UID": "npi"}\n'
    '{"sentence_good": "%s", "sentence_bad": "He.", "UID": "npi"}\n' % ("go " * 40)
)


def test_acceptable_sentences_are_preferred_by_pseudo_log_likelihood(write, masked_lm):
    evaluation = evaluate(scored_sets(write("npi.jsonl", BLIMP))[0], masked_lm[1])
    good, bad = pseudo_log_likelihoods(masked_lm[1], ["He did not ever go.", "He did really ever go."]).tolist()
    assert scores(evaluation) == {("BLiMP", "npi", "acceptable over unacceptable"): (int(good > bad), 1)}
    assert any("1 of 3 pairs are left out" in note for note in evaluation.notes)
    (too_long,) = (note for note in evaluation.notes if "maximum of 40" in note)
    assert too_long.count("go ") == 19 and "…" in too_long


def test_words_the_model_does_not_know_are_told_for_sentences_and_labels_too(write, masked_lm, classifier):
    rows = BLIMP.splitlines()[0] + "\n" + BLIMP.splitlines()[0].replace(" go.", " 龘 龗.")
    notes = evaluate(scored_sets(write("npi.jsonl", rows))[0], masked_lm[1]).notes
    assert notes == ("BLiMP npi: 1 of 2 pairs have words outside the model's vocabulary: 龗, 龘",)
    items = [*MONLI[:3], ("The 龘 is not red.", "The 龘 is not dark red.", "entailment")]
    notes = evaluate(scored_sets(write("nmonli.jsonl", monli(items)))[0], classifier[1]).notes
    assert notes == ("MoNLI nmonli: 1 of 4 items have words outside the model's vocabulary: 龘",)


def test_nothing_left_to_score_is_one_clear_error(write, masked_lm):
    alike = scored_sets(write("npi.jsonl", BLIMP.splitlines()[1]))[0]
    with pytest.raises(InputError, match=r"Nothing is left to score\. BLiMP npi: 1 of 1 pairs are left out"):
        evaluate(alike, masked_lm[1])
    text = f"original,counterfactual,target,foil\nIt is {'so ' * 50}[MASK].,It is not [MASK].,good,bad\nx,,,\n"
    with pytest.raises(InputError, match=r"Nothing is left to score.*maximum of 40") as raised:
        evaluate(scored_sets(write("mine.csv", text))[0], masked_lm[1])
    assert len(str(raised.value)) < 200
    # One of several sets is shown as empty.
    both = evaluate([*alike, *scored_sets(write("NEG.txt", NEG1500))[0]], masked_lm[1])
    assert both.shares["n"][0] == 0 and math.isnan(both.shares["share"][0]) and both.shares["n"][1] == 4


MONLI = [
    ("The girl does not wear a hat.", "The girl does not wear a sunhat.", "entailment"),
    ("The girl does not wear a sunhat.", "The girl does not wear a hat.", "neutral"),
    ("Some dishes do not have rice.", "Some dishes do not have any food at all.", "neutral"),
    ("very " * 40, "x", "neutral"),
]


def monli(rows):
    return pd.DataFrame(rows, columns=["sentence1", "sentence2", "gold_label"]).assign(depth=1).to_json(
        orient="records", lines=True
    )  # fmt: skip


def test_labels_are_hugging_faces_matched_in_any_case(write, classifier, tokenizer):
    theirs, ours = classifier
    evaluation = evaluate(scored_sets(write("nmonli.jsonl", monli(MONLI)))[0], ours)
    hits = 0
    for premise, hypothesis, label in MONLI[:3]:
        with torch.no_grad():
            best = int(theirs(**tokenizer(premise, hypothesis, return_tensors="pt")).logits.argmax())
        hits += theirs.config.id2label[best].lower() == label
    assert scores(evaluation) == {("MoNLI", "nmonli", "accuracy"): (hits, 3)}
    assert "maximum of 40" in evaluation.notes[0]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"id2label": {0: "entailment"}}, "has one logit"),
        ({"problem_type": "multi_label_classification"}, "do not exclude each other"),
        ({"problem_type": "regression"}, "is a regression model"),
    ],
)
def test_a_classifier_that_does_not_choose_one_label_is_refused(write, classifier, tokenizer, changes, message):
    config = classifier[0].config.to_dict() | changes
    theirs = type(classifier[0])(type(classifier[0].config)(**config))
    model = HookedEncoder.from_pretrained(theirs, tokenizer=tokenizer, device="cpu")
    with pytest.raises(InputError, match=f"MoNLI needs a classifier that predicts one of several labels; .* {message}"):
        evaluate(scored_sets(write("nmonli.jsonl", monli(MONLI)))[0], model)


def test_labels_that_differ_by_case_alone_are_told_apart(write, classifier, tokenizer):
    theirs, _ = classifier
    labels = {0: "ENTAILMENT", 1: "neutral", 2: "entailment"}
    named = type(theirs)(type(theirs.config)(**(theirs.config.to_dict() | {"id2label": labels}))).double().eval()
    named.load_state_dict(theirs.state_dict())
    ours = HookedEncoder.from_pretrained(named, tokenizer=tokenizer, dtype=torch.float64, device="cpu")
    hits = 0
    for premise, hypothesis, label in MONLI[:3]:
        with torch.no_grad():
            best = int(named(**tokenizer(premise, hypothesis, return_tensors="pt")).logits.argmax())
        hits += labels[best] == label
    evaluation = evaluate(scored_sets(write("nmonli.jsonl", monli(MONLI)))[0], ours)
    assert scores(evaluation)["MoNLI", "nmonli", "accuracy"] == (hits, 3)


def test_other_label_names_are_a_clear_error(write, masked_lm, classifier, tokenizer):
    sets, _ = scored_sets(write("nmonli.jsonl", monli(MONLI)))
    theirs = type(classifier[0])(classifier[0].config.__class__(**{**classifier[0].config.to_dict(), "id2label": None}))
    unnamed = HookedEncoder.from_pretrained(theirs, tokenizer=tokenizer, device="cpu")
    with pytest.raises(InputError, match=r"MoNLI has the labels entailment, neutral, but those of .* are LABEL_0"):
        evaluate(sets, unnamed)
    with pytest.raises(InputError, match="has no tokenizer"):
        evaluate(sets, HookedEncoder.from_pretrained(classifier[0], device="cpu"))


@pytest.mark.parametrize(
    ("name", "text", "kind", "message"),
    [
        ("simp.txt", NEG1500, "classifier", r"simp has statements with a \[MASK\], which need a masked LM"),
        ("npi.jsonl", BLIMP, "classifier", "BLiMP has acceptable and unacceptable sentences, which need a masked LM"),
        (
            "m.jsonl",
            monli(MONLI),
            "masked_lm",
            "MoNLI has premises and hypotheses with labels, which need a",
        ),
    ],
)
def test_a_model_of_the_wrong_kind_is_one_clear_error(request, write, name, text, kind, message):
    with pytest.raises(InputError, match=message):
        evaluate(scored_sets(write(name, text))[0], request.getfixturevalue(kind)[1])


def test_predictions_that_do_not_fit_are_one_clear_error(write, masked_lm):
    gaps, _ = scored_sets(write("simp.txt", NEG1500))
    words = read_predictions(write("p.txt", PREDICTED))
    with pytest.raises(InputError, match="either a model or predictions"):
        evaluate(gaps)
    with pytest.raises(InputError, match="either a model or predictions"):
        evaluate(gaps, masked_lm[1], predictions=words)
    with pytest.raises(InputError, match="There are 7 predictions, but simp has 8 statements"):
        evaluate(gaps, predictions=words[:-1])
    with pytest.raises(InputError, match="gaps of one data set; got simp, BLiMP"):
        evaluate([*gaps, *scored_sets(write("npi.jsonl", BLIMP))[0]], predictions=words)
    with pytest.raises(InputError, match="gaps of one data set; got BLiMP"):
        evaluate(scored_sets(write("npi.jsonl", BLIMP))[0], predictions=words)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("['a']\nfish\n", "line 2: expected a list of words"),
        ("['a', 1]\n", "line 1: expected a list of words, got"),
        ("'fish'\n", "line 1: expected a list of words, got 'fish'"),
        ("['a'\n", "line 1: expected a list of words"),
        ("[" * 5000, "line 1: expected a list of words"),
        ("\n \n", "are empty"),
    ],
)
def test_predictions_that_are_no_lists_of_words_are_named_by_line(write, text, message):
    with pytest.raises(InputError, match=message):
        read_predictions(write("p.txt", text))


def test_predictions_that_cannot_be_read_are_an_error(tmp_path):
    with pytest.raises(InputError, match="cannot be read"):
        read_predictions(tmp_path / "none.txt")
    (tmp_path / "p.txt").write_bytes(b"['caf\xe9']")
    with pytest.raises(InputError, match="cannot be read as text"):
        read_predictions(tmp_path / "p.txt")


def test_items_are_those_that_were_published(shared_datasets):
    sets = {(part.name, part.condition): part for part in scored_sets(shared_datasets)[0]}
    counts = {key: (len(part.items), part.n_statements) for key, part in sets.items()}
    # The items of one_scoped are MoNLI's negated ones, which are scored once.
    train = ("no_negation", "one_not_scoped", "one_scoped_one_not_scoped", "two_not_scoped", "two_scoped")
    blimp = ("npi_present_1", "only_npi_licensor_present", "sentential_negation_npi_licensor_present",
             "sentential_negation_npi_scope")  # fmt: skip
    # A hat was replaced in "that" 20 and 6 times, and a man 6 times in "woman".
    broken = {"two_scoped": 20, "two_not_scoped": 6, "one_scoped_one_not_scoped": 6}
    # Some items were published twice.
    repeated = dict(zip(train, (8, 4, 4, 4, 4), strict=True))
    assert counts == {
        ("NEG-136-NAT", ""): (16, 32),
        ("NEG-136-SIMP", ""): (18, 36),
        ("NEG-1500-SIMP-TEMP", ""): (770, 1540),
        ("MoNLI", "nmonli_test"): (200, 200),
        ("MoNLI", "nmonli_train"): (994, 1002),
        ("MoNLI", "pmonli"): (1472, 1476),
        **{("BLiMP", name): (1000, 1000) for name in blimp},
        **{("ScoNe train", name): (1002 - broken.get(name, 0) - repeated[name], 1002) for name in train},
    }
    for name in train:
        again = [reason for reason in sets["ScoNe train", name].dropped if "repeat earlier ones" in reason]
        assert len(again) == 1 and again[0].count(f": {repeated[name]} items") == 1
        assert len(sets["ScoNe train", name].dropped) == broken.get(name, 0) + 1
    words = " ".join(sets["ScoNe train", "two_scoped"].dropped + sets["ScoNe train", "two_not_scoped"].dropped)
    assert words.count("sunhat there") >= 1 and "tfedora" in words and "tbowler" in words and "tsombrero" in words
    for part in (sets["ScoNe train", name] for name in train):
        text = " ".join(item.text for item in part.items)
        assert not any(word in text for word in ("tsunhat", "tfedora", "tbowler", "tsombrero", "woadult", "woperson"))


def test_natural_negations_are_scored_apart(shared_datasets, masked_lm):
    found = scores(evaluate(scored_sets(shared_datasets / "neg136" / "NEG-136-NAT.tsv")[0], masked_lm[1]))
    assert {condition: n for (_, condition, score), (_, n) in found.items() if score == "sensitivity"} == {
        "": 16, "NAT natural": 8, "NAT less natural": 8,
    }  # fmt: skip


@pytest.mark.slow
def test_a_classifier_made_for_scone_scores_as_its_card_says(shared_datasets, scone_model, write):
    folder = shared_datasets / "scone" / "scone_nli" / "train"
    for name in ("no_negation", "one_scoped", "one_not_scoped", "two_scoped"):
        lines = (folder / f"{name}.csv").read_text(encoding="utf-8").splitlines()
        # Every tenth row; its card has 0.97 and more on these conditions' test files, and it was trained on these.
        sets, _ = scored_sets(write(f"{name}.csv", "\n".join([lines[0], *lines[1::10]])))
        (row,) = evaluate(sets, scone_model).shares.itertuples(index=False)
        assert (row.data_set, row.condition, row.score) == ("ScoNe", name, "accuracy")
        assert row.n >= 98 and row.share >= 0.97


def run(*arguments):
    return CliRunner().invoke(app, ["evaluate", *map(str, arguments)])


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_the_command_prints_and_writes_the_scores(write, tmp_path, suffix):
    out = tmp_path / "new" / f"scores{suffix}"
    result = run(write("NEG.txt", NEG1500), "--predictions", write("p.txt", PREDICTED), "--out", out)
    assert result.exit_code == 0, result.output
    table = pd.read_csv(out) if suffix == ".csv" else pd.read_parquet(out)
    assert list(table.columns) == list(SHARES) and table.loc[0, "hits"] == 2
    assert "2/4" in result.output and "0.500" in result.output and "differ by more than a 'not'" in result.output
    assert "1/2" in result.output and "true over false," not in result.output


def test_long_names_are_printed_whole(write, tmp_path, monkeypatch, masked_lm):
    monkeypatch.setattr(cli, "console", Console(width=80, file=io.StringIO()))
    monkeypatch.setattr(HookedEncoder, "from_pretrained", lambda *_, **__: masked_lm[1])
    for name, text in (("scope", BLIMP), ("licensor", BLIMP.splitlines()[0])):
        write(f"{name}.jsonl", text.replace('"npi"', f'"sentential_negation_npi_is_not_ever_{name}"'))
    assert run(tmp_path).exit_code == 0
    table = cli.console.file.getvalue().partition("┏")[2]
    assert "…" not in table
    data = "".join(line.split("│")[1].strip() for line in table.splitlines() if line.startswith("│"))
    assert data == "".join(f"BLiMPsentential_negation_npi_is_not_ever_{name}" for name in ("licensor", "scope"))


def test_the_command_scores_the_bundled_model_on_its_own_pairs():
    result = run("builtin")
    assert result.exit_code == 0, result.output
    assert "tiny-negation on builtin" in result.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["none.csv"], "cannot be read"),
        (["builtin", "--out", "scores.txt"], "neither a .csv nor a .parquet"),
        (["builtin", "--predictions", "none.txt"], "cannot be read"),
        (["builtin", "--model", "./none"], "no model folder"),
    ],
)
def test_a_wrong_command_is_one_line_and_exit_code_1(arguments, message):
    result = run(*arguments)
    assert result.exit_code == 1
    assert message in " ".join(result.output.split()) and "Traceback" not in result.output


def test_a_data_set_for_a_classifier_is_one_line_for_a_masked_lm(write):
    result = run(write("nmonli.jsonl", monli(MONLI)))
    assert result.exit_code == 1 and "which need a classifier" in result.output


def test_a_file_with_nothing_to_score_says_why(write):
    with pytest.raises(StatementError, match="no item to score in 1 rows; line 2: The pair has no target or no foil"):
        scored_sets(write("a.csv", "original,counterfactual\nx [MASK],y [MASK]\n"))
    with pytest.raises(StatementError, match="no item to score in 1 rows; line 2: The pair has no target or no foil"):
        scored_sets(write("a.csv", "original,counterfactual\nx,y\n"))
