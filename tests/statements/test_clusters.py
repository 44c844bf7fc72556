"""Pairs that share material have the same cluster, as their data set or the user says."""

from collections import Counter

import pandas as pd
import pytest

from negprobe import builtin_pairs, load_pairs
from negprobe.base.errors import StatementError
from negprobe.statements import StatementPair, clustered_by, from_dataframe, pair_notes, to_dataframe


def test_builtin_pairs_are_clustered_by_the_noun_of_the_conclusion():
    for pair in builtin_pairs():
        assert pair.counterfactual.partition(". So the ")[2].startswith(f"{pair.cluster} ")


@pytest.mark.parametrize(
    ("cells", "expected"),
    [
        (["a", " b ", ""], ["a", "b", ""]),
        ([1, None, 7.0], ["1", "", "7"]),
        ([0.5, float("nan"), "x"], ["0.5", "", "x"]),
    ],
)
def test_a_column_of_clusters_is_read_and_written(tmp_path, cells, expected):
    frame = pd.DataFrame(
        {
            "original": ["It is open.", "It is wet.", "It is new."],
            "counterfactual": ["It is not open.", "It is not wet.", "It is not new."],
            "cluster": pd.Series(cells, dtype=object),
        }
    )
    pairs = from_dataframe(frame).pairs
    assert [pair.cluster for pair in pairs] == expected
    to_dataframe(pairs).to_csv(tmp_path / "pairs.csv", index=False)
    assert [pair.cluster for pair in load_pairs(tmp_path / "pairs.csv").pairs] == expected


def test_a_cluster_that_is_no_label_is_named():
    frame = pd.DataFrame({"original": ["a"], "counterfactual": ["b"], "cluster": [[1]]})
    with pytest.raises(StatementError, match=r"cluster is .* must be text"):
        from_dataframe(frame)


def test_scone_and_monli_are_clustered_by_the_sentence_they_were_made_from(shared_datasets):
    scone = load_pairs(shared_datasets / "scone" / "scone_nli" / "train" / "no_negation.csv").pairs
    monli = load_pairs(shared_datasets / "monli" / "nmonli_train.jsonl").pairs
    for pairs, n_sentences in ((scone, 37), (monli, 37)):
        clusters = Counter(pair.cluster for pair in pairs)
        assert len(clusters) == n_sentences and clusters.most_common(1)[0][0] == (
            "there is not a single _ walking in the city"
        )
        assert min(clusters.values()) > 1


def test_neg1500_is_clustered_by_category_and_neg136_by_item(shared_datasets):
    pairs = load_pairs(shared_datasets / "neg1500" / "NEG-1500-SIMP-TEMP.txt").pairs
    assert all(pair.cluster == pair.target for pair in pairs)
    clusters = [pair.cluster for pair in load_pairs(shared_datasets / "neg136").pairs]
    assert len(set(clusters)) == len(clusters) and "NEG-136-SIMP 4" in clusters and "NEG-136-NAT 4" in clusters


def test_pairs_are_clustered_by_a_column():
    pairs = [
        StatementPair("It is open.", "It is not open.", category="a", cluster="x", extra=(("item", 3),)),
        StatementPair("It is open.", "It is never open.", category="b", extra=(("item", 3),)),
        StatementPair("It is wet.", "It isn't wet."),
    ]
    expected = {
        "original": ["It is open.", "It is open.", "It is wet."],
        "category": ["a", "b", ""],
        "cluster": ["x", "", ""],
        "cue": ["not", "never", "n't"],
        "item": ["3", "3", ""],
    }
    for column, clusters in expected.items():
        assert [pair.cluster for pair in clustered_by(pairs, column)] == clusters
    assert pair_notes(pairs) == ("Extra columns, kept but not used: 'item'.",)
    assert pair_notes(clustered_by(pairs, "item")) == ()
    with pytest.raises(StatementError, match=r"No pair has a value in the column 'itme' .*category, .*item"):
        clustered_by(pairs, "itme")
