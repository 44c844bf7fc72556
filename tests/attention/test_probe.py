"""The probe measures statements and pairs of any length, in batches, and gives them back one for one."""

import warnings

import numpy as np
import pytest
import torch
import xarray as xr
from scipy import stats

from negprobe import HookedEncoder
from negprobe.attention import BY_ROLE, DISTANCES, METRICS, AttentionProbe, contributions
from negprobe.base.errors import InputError, NegprobeWarning, StatementError, ViewError
from negprobe.statements import StatementPair

EQUAL = StatementPair("The door is now open.", "The door is not open.")
LONGER = StatementPair(
    "The soup on the old table was warm and good.", "The soup on the old table wasn't warm and good."
)
INSERTED = StatementPair("Dogs like cats.", "Dogs no longer like cats.")
PAIRS = [LONGER, EQUAL, INSERTED, EQUAL]


def test_zeroing_is_that_of_each_statement_alone_and_only_there_when_asked_for(probe):
    comparisons = probe.compare(PAIRS, zeroing=True)
    for pair, comparison in zip(PAIRS, comparisons, strict=True):
        for text, side in ((pair.original, comparison.original), (pair.counterfactual, comparison.counterfactual)):
            tokens, types, mask = probe.model.to_tokens(text)
            alone = contributions(probe.model, tokens, mask, "zeroing", token_type_ids=types)[0]
            torch.testing.assert_close(side.zeroing, alone, atol=1e-10, rtol=0)
    assert probe.compare(EQUAL).original.zeroing is None


def test_two_statements_are_compared_as_their_pair_is(probe):
    of_strings = probe.compare(EQUAL.original, EQUAL.counterfactual, zeroing=True)
    of_pair = probe.compare(EQUAL, zeroing=True)
    assert of_strings.pair == of_pair.pair
    xr.testing.assert_identical(of_strings.metrics, of_pair.metrics)
    assert torch.equal(of_strings.original.zeroing, of_pair.original.zeroing)
    assert probe.run(EQUAL.original).statement == of_pair.original.statement
    for wrong in ((EQUAL.original,), (EQUAL, EQUAL.counterfactual), (PAIRS, EQUAL.counterfactual)):
        with pytest.raises(InputError, match="compare takes two texts"):
            probe.compare(*wrong)


UNKNOWN = StatementPair("The door is 龘.", "The door is not 龘 or 龗.")
CALLS = {
    "run": lambda probe, pair: probe.run([pair.original, pair.counterfactual, pair.original]),
    "compare": lambda probe, pair: probe.compare(pair),
    "two statements": lambda probe, pair: probe.compare(pair.original, pair.counterfactual),
    "metrics": lambda probe, pair: probe.metrics([pair, EQUAL, pair]),
    "cue_shares": lambda probe, pair: probe.cue_shares([pair]),
    "readings": lambda probe, pair: probe.readings([pair]),
}


@pytest.mark.sampled(3)
@pytest.mark.parametrize("name", CALLS)
def test_words_the_model_does_not_know_are_named_in_one_warning_a_call(probe, name, monkeypatch):
    monkeypatch.setattr("negprobe.attention.probe._WINDOW", 1)
    with pytest.warns(NegprobeWarning) as warned:
        CALLS[name](probe, UNKNOWN)
    (one,) = (str(warning.message) for warning in warned)
    assert one.startswith("Not in the model's vocabulary: 龗, 龘. ")
    assert warned[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        CALLS[name](probe, LONGER)


def test_a_page_of_pairs_is_written_and_returned(probe, tmp_path):
    assert probe.html(PAIRS, tmp_path / "page.html").read_text(encoding="utf-8").count("<option") > len(PAIRS)
    assert probe.html(EQUAL, tmp_path / "one.html").exists()
    page = probe.compare(EQUAL).html(tmp_path / "pair.html").read_text(encoding="utf-8")
    assert f"<title>{EQUAL.original} / {EQUAL.counterfactual}</title>" in page
    with pytest.raises(ViewError, match="at least one"):
        probe.html([], tmp_path / "none.html")


def test_on_equal_lengths_the_metrics_are_the_plain_definitions(hugging_face, probe):
    model, tokenizer = hugging_face
    comparison = probe.compare(EQUAL)
    with torch.no_grad():
        sides = [
            model(**tokenizer(text, return_tensors="pt"), output_attentions=True, output_hidden_states=True)
            for text in (EQUAL.original, EQUAL.counterfactual)
        ]
    table = comparison.metrics[list(METRICS)].to_dataframe()
    assert len(table) == 6 * 12
    for layer, block in enumerate(model.encoder.layer):
        with torch.no_grad():
            v, y = (block.attention.self.value(side.hidden_states[layer][0]) for side in sides)
        for head in range(12):
            A, B = (side.attentions[layer][0, head] for side in sides)
            part = slice(head * 32, head * 32 + 32)
            row = table.loc[(layer, head)]
            assert row["max_attention_diff"] == pytest.approx((A - B).abs().max().item(), abs=1e-9)
            assert row["mean_attention_diff"] == pytest.approx((A - B).abs().mean().item(), abs=1e-9)
            expected = stats.pearsonr(A.flatten(), B.flatten()).statistic
            assert row["attention_pattern_correlation"] == pytest.approx(expected, abs=1e-9)
            expected = stats.pearsonr((A @ v[:, part]).flatten(), (B @ y[:, part]).flatten()).statistic
            assert row["value_output_correlation"] == pytest.approx(expected, abs=1e-9)


def test_an_inserted_cue_is_left_out_of_the_metrics_and_reported(probe):
    comparison = probe.compare(INSERTED)
    # [CLS] dogs (no longer) like cats . [SEP]
    there = [0, 1, 4, 5, 6, 7]
    assert comparison.cue_positions == (2, 3)
    assert comparison.alignment.counterfactual == tuple(there)
    assert comparison.alignment.unmatched_counterfactual == (2, 3)
    A = comparison.original.raw.numpy()
    B = comparison.counterfactual.raw.numpy()[:, :, there][:, :, :, there]
    expected = np.abs(A - B).mean(axis=(2, 3))
    np.testing.assert_allclose(comparison.metrics["mean_attention_diff"], expected, atol=1e-12)
    to_cue = comparison.counterfactual.raw.numpy()[:, :, [1, 4, 5, 6]][..., [2, 3]].sum(axis=-1).mean(axis=-1)
    np.testing.assert_allclose(comparison.metrics["attention_to_cue"], to_cue, atol=1e-12)
    assert probe.compare(StatementPair("Dogs like cats.", "Dogs like mice.")).metrics["attention_to_cue"].isnull().all()


def test_a_batch_gives_every_pair_what_it_gets_alone_in_the_order_given(probe):
    together = probe.compare(PAIRS)
    for pair, comparison in zip(PAIRS, together, strict=True):
        alone = probe.compare(pair)
        assert comparison.pair == alone.pair
        xr.testing.assert_allclose(comparison.metrics.drop_vars("pair"), alone.metrics.drop_vars("pair"), atol=1e-10)
        for side in ("original", "counterfactual"):
            for name in ("raw", "similarity", "norm", "value", "z"):
                ours, theirs = (getattr(getattr(c, side), name) for c in (comparison, alone))
                torch.testing.assert_close(ours, theirs, atol=1e-10, rtol=0)


def test_the_metrics_of_a_comparison_are_those_of_its_pair(probe):
    # In these every aligned token has a partner in the control as well; a category and an unknown cue are coordinates.
    pairs = [INSERTED, EQUAL, StatementPair("Dogs like cats.", "Dogs like mice.", category="other")]
    many = probe.metrics(pairs).sel(compared="counterfactual")
    for index, comparison in enumerate(probe.compare(pairs)):
        expected = many.sel(pair=index)
        assert set(comparison.metrics.data_vars) == set(expected.data_vars) > {*METRICS, *BY_ROLE, *DISTANCES}
        for name, variable in expected.variables.items():
            assert comparison.metrics[name].dims == variable.dims
            if variable.dtype.kind == "f":
                np.testing.assert_allclose(comparison.metrics[name], variable, rtol=1e-6, atol=1e-6)
            else:
                np.testing.assert_array_equal(comparison.metrics[name], variable)
        assert comparison.metrics.attrs == expected.attrs
    assert set(comparison.metrics["mean_attention_diff"].dims) == {"layer", "head"}
    assert [comparison.metrics[name].item() for name in ("category", "cue", "pair")] == ["other", "", 2]


def test_one_pairs_metrics_are_its_slice_of_all_metrics_to_the_last_digit_of_float32():
    model = HookedEncoder.from_pretrained("tiny-negation", device="cpu")
    pair = StatementPair("The door is open.", "The door is not open.")
    alone = AttentionProbe(model).metrics([pair]).sel(compared="counterfactual", pair=0)
    metrics = AttentionProbe(model).compare(pair).metrics
    xr.testing.assert_identical(metrics.astype(dict.fromkeys(metrics, np.float32)), alone)


def test_statements_come_back_one_for_one(probe):
    texts = [LONGER.original, "No.", EQUAL.original]
    results = probe.run(texts)
    assert [result.statement.text for result in results] == texts
    assert isinstance(probe.run("No."), type(results[0]))
    for result in results:
        torch.testing.assert_close(result.raw.sum(dim=-1), torch.ones_like(result.raw[..., 0]))


def test_an_undefined_correlation_says_why(minilm_path):
    # With no queries, every head attends uniformly: its pattern is constant, and a correlation with it means nothing.
    model = HookedEncoder.from_pretrained(minilm_path, device="cpu")
    with torch.no_grad():
        for block in model.blocks:
            block.attn.W_Q.zero_()
            block.attn.b_Q.zero_()
    comparison = AttentionProbe(model).compare(EQUAL)
    assert comparison.metrics["attention_pattern_correlation"].isnull().all()
    assert (comparison.undefined == "a pattern is constant over the aligned tokens").all()
    assert comparison.metrics["mean_attention_diff"].notnull().all()


def test_unusable_input_is_a_clear_error(probe):
    with pytest.raises(InputError, match="at most 256"):
        probe.run("no " * 600)
    with pytest.raises(InputError, match="no pairs"):
        probe.metrics([])
    with pytest.raises(StatementError, match="empty"):
        probe.run([" "])
    untokenized = HookedEncoder(probe.model.cfg)
    with pytest.raises(InputError, match="tokenizer"):
        AttentionProbe(untokenized)
