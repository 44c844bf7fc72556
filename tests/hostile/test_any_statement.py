"""Whatever a statement holds, what reads it gives a result or one clear error, and soon."""

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from torch import Tensor

from negprobe import AttentionProbe, HookedEncoder, NegprobeError, StatementPair, effect, mean_effect, patch_sweep
from negprobe.attention import METRICS
from negprobe.base.errors import InputError, StatementError
from negprobe.patching import answerable, objective_values
from negprobe.statements import added_cues, align, complete, find_cues, tokenize

ODD = (
    "", " ", "\u3000", "!!!", "[MASK]", "[SEP]", " [SEP] ", "[CLS]", "[PAD]", "[UNK]", "\0", "\x07", "\x1c", "\x85",
    "\n", "\u202e", "\u200f", "e\u0301", "\u0301", "\U0001f469\u200d\U0001f469\u200d\U0001f467", "\ud800", "\udfff",
    "\u0130", "\ufb01", "\u6f22\u5b57", "\ufffd", "\ufeff", "\u200b", "\u00ad", "##open", "n't",
    "</script>", "$\\frac{",
)  # fmt: skip
WORDS = ("The door is ", "open", " not ", "closed", " no longer ")
TEXTS = st.lists(
    st.sampled_from(ODD + WORDS) | st.characters() | st.characters(categories=["Cs", "Cc", "Cf", "Mn", "Zs"]),
    max_size=7,
).map("".join)
STATEMENTS = TEXTS | TEXTS.map(lambda text: f"The door is {text} open, so it is [MASK].")
LONG = {
    "words": "The door is open. " * 2500,
    "cues": "not " * 10_000,
    "a premise and a hypothesis": "The door is open. " * 1250 + "[SEP]" + " It is closed." * 1700,
    "marks": "!" * 10_000,
}

fuzzed = settings(max_examples=40, suppress_health_check=list(HealthCheck))


@pytest.fixture(scope="module")
def model() -> HookedEncoder:
    return HookedEncoder.from_pretrained("tiny-negation", device="cpu")


@pytest.fixture(scope="module")
def probe(model: HookedEncoder) -> AttentionProbe:
    return AttentionProbe(model)


def attempt(function: Callable[[], Any]) -> Any:
    """A result, or None and one error that can be read; any other exception is the test's failure."""
    try:
        return function()
    except NegprobeError as error:
        assert 20 < len(str(error)) < 1000, str(error)
        return None


@given(TEXTS, TEXTS)
@fuzzed
def test_one_statement_is_read_or_refused(model: HookedEncoder, probe: AttentionProbe, text: str, other: str) -> None:
    attention = attempt(lambda: probe.run(text))
    statement = attempt(lambda: tokenize(text, model.tokenizer))
    assert (attention is None) == (statement is None)
    if statement is not None:
        assert statement.text == text
        assert all(0 <= start <= end <= len(text) for start, end in statement.offsets)
        assert attention.raw.isfinite().all() and attention.raw.shape[-1] == len(statement)
    for given_text in (text, [text, other], (text, other)):
        logits = attempt(lambda given_text=given_text: model(given_text))
        assert logits is None or (isinstance(logits, Tensor) and logits.isfinite().all())
        attempt(lambda given_text=given_text: model(given_text, return_type="predictions"))
    for cue in find_cues(text):
        assert text[slice(*cue.span)] == cue.text
    added_cues(text, other)


@pytest.mark.slow
@example("The door is [MASK].", "The door is not [MASK].", "The door is ajar.", "open", None)
@given(
    STATEMENTS, STATEMENTS, st.none() | STATEMENTS, st.sampled_from([None, "open", "\ud800"]) | TEXTS, st.none() | TEXTS
)
@fuzzed
def test_a_pair_is_measured_and_patched_or_refused(
    model: HookedEncoder,
    probe: AttentionProbe,
    tmp_path_factory: pytest.TempPathFactory,
    original: str,
    counterfactual: str,
    control: str | None,
    target: str | None,
    cue: str | None,
) -> None:
    pair = attempt(lambda: StatementPair(original, counterfactual, target, "closed", control, cue))
    if pair is None:
        return
    attempt(lambda: complete(pair, model.tokenizer))
    attempt(lambda: align(*(tokenize(text, model.tokenizer) for text in (original, counterfactual))))
    comparison = attempt(lambda: probe.compare(pair))
    if comparison is not None:
        undefined = comparison.metrics[list(METRICS)].to_array().isnull().any("variable") & (comparison.undefined == "")
        # Without a cue, what is about the cue is not defined for any head, and the pair says so.
        assert not undefined.any() or not comparison.cue_positions
    metrics = attempt(lambda: probe.metrics([pair]))
    if metrics is not None:
        one = metrics["mean_attention_diff"].sel(compared="counterfactual").values
        assert np.isfinite(one).all() or str(metrics["missing"].values[0])
    attempt(lambda: probe.cue_shares([pair]))
    attempt(lambda: probe.readings([pair]))
    page = attempt(lambda: probe.html(pair, tmp_path_factory.getbasetemp() / "page.html"))
    assert page is None or "</html>" in page.read_text(encoding="utf-8")
    asked = attempt(lambda: answerable(model, [pair]))
    attempt(lambda: objective_values(model, [pair]))
    # A sweep leaves the control alone, which may have no answer where the pair has one.
    values = attempt(lambda: objective_values(model, [replace(pair, control=None)]))
    for by in ("position", "role"):
        swept = attempt(lambda by=by: patch_sweep(model, pair, "resid_pre", by=by))
        assert (swept is None) == (values is None)
        if swept is not None:
            assert (
                np.isfinite(swept["base"]).all() and effect(swept).shape == mean_effect(swept).expand_dims("pair").shape
            )
    assert asked is None or len(asked.pairs) + len(asked.unanswerable) == 1


@pytest.mark.sampled(4)
@pytest.mark.parametrize("text", LONG.values(), ids=LONG)
def test_ten_thousand_words_are_refused_at_once_with_both_lengths(
    model: HookedEncoder, probe: AttentionProbe, text: str
) -> None:
    pair = StatementPair(f"{text} [MASK]", f"never {text} not [MASK]", "open", "closed")
    other = StatementPair("The door is [MASK].", f"{text} not [MASK]", "open", "closed")
    for function in (
        lambda: model(text),
        lambda: probe.run(["short", text]),
        *(
            part
            for chosen in (pair, other)
            for part in (
                lambda chosen=chosen: probe.compare(chosen),
                lambda chosen=chosen: probe.metrics([chosen]),
                lambda chosen=chosen: probe.readings([chosen]),
                lambda chosen=chosen: patch_sweep(model, chosen, "resid_pre", by="role"),
                lambda chosen=chosen: objective_values(model, [chosen]),
            )
        ),
    ):
        start = time.perf_counter()
        with pytest.raises(InputError, match=r"1\d,?\d{3}.* at most 64") as raised:
            function()
        assert time.perf_counter() - start < 3
        assert len(str(raised.value)) < 300
    assert "more than the 64" in answerable(model, [pair]).unanswerable[0]


def test_statements_too_long_to_compare_and_too_many_cues_are_refused_at_once(model: HookedEncoder) -> None:
    long, cues = "open closed " * 5000, "not " * 10_000
    start = time.perf_counter()
    for function in (
        lambda: added_cues(long, cues),
        lambda: complete(StatementPair(long, cues), model.tokenizer),
        lambda: align(tokenize(long, model.tokenizer), tokenize(cues, model.tokenizer)),
    ):
        with pytest.raises(StatementError, match="10000 of them"):
            function()
    with pytest.raises(StatementError, match="adds 10000 negations"):
        complete(StatementPair("The door.", cues), model.tokenizer)
    # Two seconds, or six if annotations are checked; an alignment or search that is quadratic takes minutes.
    assert time.perf_counter() - start < 20
    assert len(added_cues(long, f"{long} not open")) == 1
