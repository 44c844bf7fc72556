"""What a notebook prints of a result is a few lines, however much the result holds, and says what it is."""

from dataclasses import replace

import pytest
import torch

from negprobe import AttentionProbe, HookedEncoder, StatementPair, builtin_pairs, load_pairs
from negprobe.base.reprs import Listed
from negprobe.behaviour import builtin_set, evaluate
from negprobe.patching import answerable
from negprobe.study.comparison import compare_studies
from negprobe.study.saved import read_study
from negprobe.views import write_study
from tests.support.undrawn import draw_nothing

MOST = 5_000


@pytest.fixture(scope="module")
def model():
    return HookedEncoder.from_pretrained("tiny-negation", device="cpu")


@pytest.fixture(scope="module")
def results(study_with_circuit):
    return study_with_circuit


@pytest.fixture(scope="module")
def everything(model, results, tmp_path_factory):
    out = tmp_path_factory.mktemp("study")
    with pytest.MonkeyPatch.context() as patch:
        draw_nothing(patch)
        write_study(results, out, command="negprobe study")
    study = read_study(out)
    probe = AttentionProbe(model)
    pairs = builtin_pairs()
    long = StatementPair("a " * 9999, "not " + "a " * 9999)
    compared = probe.compare(pairs[:50])
    assert results.mechanism is not None and results.mechanism.circuit is not None
    return {
        "builtin_pairs": pairs,
        "slice": pairs[:50],
        "long pair": long,
        "load_pairs": load_pairs("builtin"),
        "model": model,
        "probe": probe,
        "compare": compared,
        "comparison": compared[0],
        "attention": compared[0].original,
        "run": probe.run([pair.original for pair in pairs[:50]]),
        "answerable": answerable(model, pairs),
        "builtin_set": builtin_set(),
        "evaluation": evaluate([builtin_set()], model),
        "results": results,
        "results with reasons": replace(results, dropped=("too long " * 50,) * 500, source="x" * 9999),
        "mechanism": results.mechanism,
        "circuit": results.mechanism.circuit,
        "study": study,
        "comparison of studies": compare_studies(study, study),
    }


def test_no_public_result_prints_more_than_a_screen(everything):
    # 5 KiB: what torch prints of the modules of a model is a little more than 5,000 characters.
    sizes = {name: len(repr(result)) for name, result in everything.items()}
    assert {name: size for name, size in sizes.items() if size > 1.03 * MOST} == {}


def test_a_pair_shows_the_fields_that_were_given():
    assert repr(StatementPair("It is.", "It is not.", cue="not")) == (
        "StatementPair(original='It is.', counterfactual='It is not.', cue='not')"
    )
    # What was given is still enough to make it again.
    pair = builtin_pairs()[0]
    assert eval(repr(pair), {"StatementPair": StatementPair}) == pair


def test_a_list_of_pairs_is_a_list_that_says_how_many_there_are():
    pairs = builtin_pairs()
    assert isinstance(pairs, list) and pairs == [*pairs]
    assert repr(pairs).endswith(f"… {len(pairs)} items]")
    assert repr(pairs[:2]) == repr([*pairs[:2]])
    assert isinstance(pairs[:50], Listed) and isinstance(pairs[0], StatementPair)


def test_a_study_says_what_was_measured_as_text_and_in_a_notebook(results):
    hostile = replace(results, source="<script>alert(1)</script>")
    for shown in (repr(results), results._repr_html_()):
        assert "tiny-negation" in shown and "60 from 'pairs'" in shown.replace("&#x27;", "'")
        assert f"{len(results.mechanism.circuit)} components" in shown
    assert "write_study" in results._repr_html_()
    assert "<script" not in hostile._repr_html_() and "&lt;script&gt;" in hostile._repr_html_()


def test_arrays_are_shown_by_their_shapes(everything):
    attention = everything["attention"]
    assert f"raw=<Tensor {' × '.join(map(str, attention.raw.shape))}>" in repr(attention)
    assert isinstance(attention.raw, torch.Tensor)


def test_scores_are_a_table_in_a_notebook(everything):
    shown = everything["evaluation"]._repr_html_()
    assert shown.count("<tr") == 1 + len(everything["evaluation"].shares)
