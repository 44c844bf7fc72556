"""Data sets are scored as their authors scored them, and what could not be scored is counted and named.

Bad input: model and predictions together or neither, a masked LM for labels and a classifier for gaps or sentences,
predictions for several sets, for sentences, or too few of them, predictions that are no lists of words, are empty,
missing or not text, a classifier whose labels have other names or no tokenizer, statements too long for the model,
words that are not one token, and sentences that the model reads alike.
"""

import math

import pandas as pd
import pytest
import torch
from typer.testing import CliRunner

from negprobe import HookedEncoder
from negprobe.cli import app
from negprobe.errors import InputError, StatementError
from negprobe.evaluation import (
    SHARES,
    Gap,
    builtin_set,
    evaluate,
    pseudo_log_likelihoods,
    read_predictions,
    scored_sets,
)

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
# Fish first and unchanged; insect second, changed with the article; flower sixth, changed; the broken pair is skipped.
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
        (name, "", "top-1"): (1, 3),
        (name, "", "top-5"): (2, 3),
        (name, "", "sensitivity"): (2, 3),
        (name, "", "sensitivity, one article"): (1, 2),
        (name, "", "true over false, affirmative"): (0, 0),
        (name, "", "true over false, negated"): (0, 0),
    }
    assert list(evaluation.shares.columns) == list(SHARES)
    assert "line 5: " in evaluation.notes[0] and "without probabilities" in evaluation.notes[1]
    assert useless == ()


def test_predictions_for_a_table_are_two_lines_an_item_broken_rows_included(write):
    rows = f"{TROUT}1\tx\n2\tAn oak is (a|an)\tAn oak is not (a|an)\ttree\tbird\n"
    sets, _ = scored_sets(write("simp.tsv", NEG136 + rows))
    words = [["fish"], ["bird"], ["fish"], ["fish"], ["tree"], ["tree"]]
    evaluation = evaluate(sets, predictions=words)
    assert scores(evaluation)["NEG-136-SIMP", "", "top-1"] == (2, 2)
    assert scores(evaluation)["NEG-136-SIMP", "", "sensitivity"] == (1, 2)
    assert any("only 1 words" in note for note in evaluation.notes)


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

    monkeypatch.setattr("negprobe.evaluation.cloze.read_gaps", read)
    found = scores(evaluate(scored_sets(write("simp.txt", NEG1500))[0], masked_lm[1]))
    assert found["simp", "", "sensitivity"] == (1, 3) and found["simp", "", "sensitivity, one article"] == (0, 2)


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
    assert "tokens, more than the 40" in notes
    assert "1 of 3 items are left out of true over false" in notes and "scuba-diving" in notes
    assert "1 of 3 items have words the model does not know: \u9f98" in notes


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
    assert any("more than the 40" in note for note in evaluation.notes)


def test_nothing_left_to_score_is_nan(write, masked_lm):
    evaluation = evaluate(scored_sets(write("npi.jsonl", BLIMP.splitlines()[1]))[0], masked_lm[1])
    assert evaluation.shares["n"].tolist() == [0] and math.isnan(evaluation.shares["share"][0])


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
    assert "more than the 40" in evaluation.notes[0]


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
    with pytest.raises(InputError, match="either a model or the predictions"):
        evaluate(gaps)
    with pytest.raises(InputError, match="either a model or the predictions"):
        evaluate(gaps, masked_lm[1], predictions=words)
    with pytest.raises(InputError, match="There are 7 predictions, but simp has 8 statements"):
        evaluate(gaps, predictions=words[:-1])
    with pytest.raises(InputError, match="gaps of one data set; this is simp, BLiMP"):
        evaluate([*gaps, *scored_sets(write("npi.jsonl", BLIMP))[0]], predictions=words)
    with pytest.raises(InputError, match="gaps of one data set; this is BLiMP"):
        evaluate(scored_sets(write("npi.jsonl", BLIMP))[0], predictions=words)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("['a']\nfish\n", "line 2: not a list of words"),
        ("['a', 1]\n", "line 1: not a list of words but"),
        ("'fish'\n", "line 1: not a list of words but 'fish'"),
        ("['a'\n", "line 1: not a list of words"),
        ("[" * 5000, "line 1: not a list of words"),
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
    train = ("no_negation", "one_not_scoped", "one_scoped", "one_scoped_one_not_scoped", "two_not_scoped", "two_scoped")
    blimp = ("npi_present_1", "only_npi_licensor_present", "sentential_negation_npi_licensor_present",
             "sentential_negation_npi_scope")  # fmt: skip
    # A hat was replaced in "that" 20 and 6 times, and a man 6 times in "woman".
    broken = {"two_scoped": 20, "two_not_scoped": 6, "one_scoped_one_not_scoped": 6}
    assert counts == {
        ("NEG-136-NAT", ""): (16, 32),
        ("NEG-136-SIMP", ""): (18, 36),
        ("NEG-1500-SIMP-TEMP", ""): (770, 1540),
        **{("BLiMP", name): (1000, 1000) for name in blimp},
        **{("ScoNe train", name): (1002 - broken.get(name, 0), 1002) for name in train},
    }
    for name in broken:
        assert len(sets["ScoNe train", name].dropped) == broken[name]
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
    assert list(table.columns) == list(SHARES) and table.loc[0, "hits"] == 1
    assert "1/3" in result.output and "0.333" in result.output and "differ by more than one 'not'" in result.output


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
    with pytest.raises(StatementError, match="no item to score in 1 rows; line 2: The pair names no target and foil"):
        scored_sets(write("a.csv", "original,counterfactual\nx,y\n"))
