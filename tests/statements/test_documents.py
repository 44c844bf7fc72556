"""Queries and documents: pairs that differ in either, tables of them, and the pair with its other document."""

from dataclasses import replace

import pytest

from negprobe.base.errors import StatementError
from negprobe.statements import StatementPair, document_pair, load_pairs
from negprobe.statements.documents import ranks_documents, with_foil

QUERIES = ("hotels with a pool", "hotels without a pool")
POOL, NONE = "It has a large pool.", "There is no pool."


def test_a_pair_differs_in_the_query_or_in_the_document():
    assert document_pair(
        QUERIES[0], POOL, counterfactual_query=f" {QUERIES[1]} ", other_document=NONE
    ) == StatementPair(
        f"hotels with a pool [SEP] {POOL}", f"hotels without a pool [SEP] {POOL}", target=POOL, foil=NONE
    )
    assert document_pair(QUERIES[0], POOL, counterfactual_document=NONE) == StatementPair(
        f"hotels with a pool [SEP] {POOL}", f"hotels with a pool [SEP] {NONE}"
    )


@pytest.mark.parametrize(
    ("texts", "said"),
    [
        ({}, "exactly one of counterfactual_query and counterfactual_document"),
        ({"counterfactual_query": "a", "counterfactual_document": "b"}, "exactly one of"),
        ({"counterfactual_document": "b", "other_document": "c"}, "other_document needs a counterfactual_query"),
        ({"counterfactual_document": "b", "control_query": "c"}, "control_query needs a counterfactual_query"),
        ({"counterfactual_query": " "}, "The counterfactual_query is ' '"),
        ({"counterfactual_query": "a [SEP] b"}, r"without \[SEP\] and \[MASK\]"),
        ({"counterfactual_query": "a", "other_document": "a [MASK]"}, "The other_document is 'a"),
    ],
)
def test_other_combinations_and_texts_are_refused(texts, said):
    with pytest.raises(StatementError, match=said):
        document_pair("hotels", POOL, **texts)


def test_the_other_document_takes_the_place_of_the_target_in_every_statement():
    pair = document_pair(
        QUERIES[0], POOL, counterfactual_query=QUERIES[1], other_document=NONE, control_query="hotels with just a pool"
    )
    pair = replace(pair, cue_spans=((7, 14),), affected_spans=((17, 21), (26, 28)))
    assert ranks_documents(pair)
    assert with_foil(pair) == StatementPair(
        f"hotels with a pool [SEP] {NONE}",
        f"hotels without a pool [SEP] {NONE}",
        target=NONE,
        foil=POOL,
        control=f"hotels with just a pool [SEP] {NONE}",
        cue_spans=((7, 14),),
        affected_spans=((17, 21),),
    )
    assert with_foil(with_foil(pair)) == replace(pair, affected_spans=((17, 21),))


@pytest.mark.parametrize(
    "pair",
    [
        StatementPair("a door", "no door", "a", "b"),
        StatementPair("a [SEP] b", "no [SEP] b", "c", "d"),
        StatementPair("a [SEP] b", "no [SEP] b", "b"),
        StatementPair("a [SEP] b", "a [SEP] c", "b", "c"),
    ],
)
def test_a_pair_without_two_documents_has_no_other_one(pair):
    assert not ranks_documents(pair)
    with pytest.raises(StatementError, match="does not rank two documents"):
        with_foil(pair)


TABLE = """Query,Counterfactual query,Document,Other document,Counterfactual document,Cluster,Rank
hotels with a pool,hotels without a pool,It has a large pool.,There is no pool.,,,1
hotels,,It has a pool.,,It has no pool.,c7,2
hotels,,It has a pool.,,,,
hotels,hotels,It has a pool.,,,,
,no hotels,It has a pool.,,,,
"""


def test_a_table_of_queries_and_documents(write):
    loaded = load_pairs(write("hotels.csv", TABLE))
    assert loaded.pairs == (
        replace(
            document_pair(QUERIES[0], POOL, counterfactual_query=QUERIES[1], other_document=NONE),
            source="hotels",
            cluster="hotels with a pool",
            extra=(("rank", "1"),),
        ),
        replace(
            document_pair("hotels", "It has a pool.", counterfactual_document="It has no pool."),
            source="hotels",
            cluster="c7",
            extra=(("rank", "2"),),
        ),
    )
    assert [reason.partition(", ")[2] for reason in loaded.dropped] == [
        "line 4: A pair differs either in the query or in the document; give exactly one of counterfactual_query and "
        "counterfactual_document.",
        "line 5: The two statements of the pair are the same.",
        "line 6: The query is empty.",
    ]


def test_a_table_in_json_lines(write):
    line = '{"query": "open doors", "counterfactual_query": "doors that are not open", "document": "It is open."}\n'
    (pair,) = load_pairs(write("doors.jsonl", line)).pairs
    assert (pair.counterfactual, pair.target, pair.foil) == (
        "doors that are not open [SEP] It is open.",
        "It is open.",
        None,
    )
