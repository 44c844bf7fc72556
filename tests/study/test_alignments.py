"""A study says how the tokens of its pairs are aligned, and in how many pairs the affected word has no counterpart."""

import pandas as pd

from negprobe import HookedEncoder, StatementPair, run_study
from negprobe.study.summary import summarize
from negprobe.study.tables import write_numbers
from negprobe.views.report.findings import left_out

PAIRS = [
    StatementPair("The door opens.", "The door does not open."),
    StatementPair("The door is open.", "Nobody felt very tired today."),
    StatementPair("The door was open.", "The door was shut."),
]
KINDS = ["aligned_same", "aligned_case", "aligned_inflected", "aligned_replaced"]


def test_a_study_counts_links_by_kind_and_names_affected_words_without_a_counterpart(tmp_path):
    model = HookedEncoder.from_pretrained("tiny-negation", device="cpu")
    results = run_study(model, PAIRS, patch_pairs=0, contribution_pairs=0)
    write_numbers(results, tmp_path)
    table = pd.read_parquet(tmp_path / "pairs.parquet")
    # [CLS], the words, the full stop and [SEP]; "opens" and "open" are two forms of a word.
    assert table.loc[0, KINDS].tolist() == [5, 0, 1, 0]
    assert table.loc[2, KINDS].tolist() == [6, 0, 0, 1]
    assert table["affected_aligned"].tolist() == [True, False, pd.NA]
    row = summarize(results).row("affected_not_aligned")
    assert (row["hits"], row["n"]) == (1, 2)
    assert any("In 1 of 2 pairs, no word of the original corresponds" in note for note in left_out(results.summary))
