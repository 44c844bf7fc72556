"""Words at a gap and sentence scores equal Hugging Face's, one text and one mask at a time.

Bad input: a model without a masked-LM head, without a tokenizer, a statement without a gap, with two, or too long.
"""

import pytest
import torch

from negprobe import HookedEncoder
from negprobe.base.errors import InputError
from negprobe.behaviour import pseudo_log_likelihoods, read_gaps

GAPS = [
    "A robin is a [MASK].",
    "With proper equipment, scuba-diving isn't very [MASK].",
    "An [MASK] is not an insect, and nobody ever said that it was.",
    "[MASK]",
]


def test_gaps_hold_hugging_faces_words_and_log_probabilities(masked_lm, tokenizer):
    theirs, ours = masked_lm
    gaps = read_gaps(ours, GAPS, [["bird", "scuba-diving"]] * len(GAPS), k=7, batch_size=3)
    for text, gap in zip(GAPS, gaps, strict=True):
        inputs = tokenizer(text, return_tensors="pt")
        at = inputs["input_ids"][0].tolist().index(tokenizer.mask_token_id)
        with torch.no_grad():
            expected = theirs(**inputs).logits[0, at].log_softmax(dim=-1)
        assert list(gap.words) == [tokenizer.decode([token]) for token in expected.topk(7).indices.tolist()]
        # "scuba-diving" is several tokens.
        assert set(gap.log_probabilities) == {"bird"}
        bird = tokenizer.convert_tokens_to_ids("bird")
        assert gap.log_probabilities["bird"] == pytest.approx(float(expected[bird]), abs=1e-12)


SENTENCES = [
    "Teresa had not ever sold a movie theater.",
    "No.",
    "Even every cashier had clearly found out who hasn't sung.",
    "A man is not running. [SEP] A man is not jogging.",
    "Teresa had probably ever sold a movie theater.",
]


@pytest.mark.parametrize("batch_size", [1, 7, 256])
def test_pseudo_log_likelihoods_are_a_slow_loop_over_hugging_face(masked_lm, tokenizer, batch_size):
    theirs, ours = masked_lm
    expected = []
    for text in SENTENCES:
        inputs = tokenizer(*text.split(" [SEP] "), return_tensors="pt")
        ids = inputs["input_ids"]
        total = 0.0
        for at, word in enumerate(ids[0].tolist()):
            if word in (tokenizer.cls_token_id, tokenizer.sep_token_id):
                continue
            masked = ids.clone()
            masked[0, at] = tokenizer.mask_token_id
            with torch.no_grad():
                logits = theirs(input_ids=masked, token_type_ids=inputs["token_type_ids"]).logits
            total += float(logits[0, at].log_softmax(dim=-1)[word])
        expected.append(total)
    found = pseudo_log_likelihoods(ours, SENTENCES, batch_size=batch_size)
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64), rtol=0, atol=1e-10)


def test_a_gap_and_a_score_do_not_depend_on_what_they_are_run_with(masked_lm):
    ours = masked_lm[1]
    alone = [read_gaps(ours, [text], [["bird"]])[0] for text in GAPS]
    together = read_gaps(ours, GAPS, [["bird"]] * len(GAPS))
    assert [gap.words for gap in alone] == [gap.words for gap in together]
    scores = torch.cat([pseudo_log_likelihoods(ours, [text]) for text in SENTENCES])
    torch.testing.assert_close(scores, pseudo_log_likelihoods(ours, SENTENCES), rtol=0, atol=1e-10)


def test_nothing_to_read_is_nothing(masked_lm):
    assert read_gaps(masked_lm[1], [], []) == []
    assert pseudo_log_likelihoods(masked_lm[1], []).shape == (0,)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("A robin is a bird.", "has 0 mask tokens instead of one"),
        ("A [MASK] is a [MASK].", "has 2 mask tokens instead of one"),
        ("A robin is not " + "very " * 40 + "[MASK].", "has 48 tokens, more than the model's maximum of 40"),
    ],
)
def test_a_statement_that_cannot_be_read_is_an_error(masked_lm, text, message):
    with pytest.raises(InputError, match=message):
        read_gaps(masked_lm[1], [text], [[]])


def test_a_sentence_that_is_too_long_is_an_error(masked_lm):
    with pytest.raises(InputError, match="maximum of 40"):
        pseudo_log_likelihoods(masked_lm[1], ["very " * 40])


def test_words_need_a_masked_lm_with_a_tokenizer(masked_lm, classifier):
    theirs, _ = masked_lm
    without_tokenizer = HookedEncoder.from_pretrained(theirs, dtype=torch.float64, device="cpu")
    for model, lack in ((classifier[1], "no masked-LM head"), (without_tokenizer, "no tokenizer")):
        with pytest.raises(InputError, match=lack):
            read_gaps(model, GAPS, [[]] * len(GAPS))
        with pytest.raises(InputError, match=lack):
            pseudo_log_likelihoods(model, SENTENCES)
