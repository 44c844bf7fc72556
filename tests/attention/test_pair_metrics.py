"""The metrics of whole data sets equal loops over Hugging Face's own activations, one pair and one head at a time."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import stats
from scipy.spatial.distance import jensenshannon

from negprobe import HookedEncoder
from negprobe.attention import (
    BY_ROLE,
    COMPARED,
    CONTRIBUTIONS,
    DISTANCES,
    METRICS,
    AttentionProbe,
    contributions,
)
from negprobe.base.errors import InputError
from negprobe.statements import ROLES, StatementPair
from negprobe.statistics import negation_effects

DOOR = StatementPair(
    "The door is open.",
    "The door is not open.",
    control="The door is now open.",
    target="shut",
    category="doors",
)
SOUP = StatementPair(
    "The soup was warm and good.", "The soup wasn't warm and good.", control="The soup was now really warm and good."
)
NLI = StatementPair(
    "A man is out. [SEP] A man is away.",
    "A man is not out. [SEP] A man is not away.",
    control="A man is now out. [SEP] A man is now away.",
)
PLAIN = StatementPair("Dogs like cats.", "Dogs far from like cats.", cue_spans=((5, 13),))
CUELESS = StatementPair("Dogs like cats.", "Dogs like mice.")
PAIRS = [DOOR, SOUP, NLI, PLAIN, CUELESS]

# By hand, for each pair: aligned positions of original, counterfactual and control, the roles of the counterfactual's
# tokens, and its cue. The "was" of SOUP has a partner in the control alone, so it is not among them.
D, S = "cls other other other cue affected other sep", "cls other other cue cue cue affected other other other sep"
N = "cls other other other cue affected other sep other other other cue affected other sep"
P, C = "cls other cue cue affected other other sep", "cls other other changed other sep"
LAYOUT = {
    0: ([[0, 1, 2, 3, 4, 5, 6], [0, 1, 2, 3, 5, 6, 7], [0, 1, 2, 3, 5, 6, 7]], D.split(), [4]),
    1: ([[0, 1, 2, 4, 5, 6, 7, 8], [0, 1, 2, 6, 7, 8, 9, 10], [0, 1, 2, 6, 7, 8, 9, 10]], S.split(), [3, 4, 5]),
    2: (
        [list(range(13)), [0, 1, 2, 3, 5, 6, 7, 8, 9, 10, 12, 13, 14], [0, 1, 2, 3, 5, 6, 7, 8, 9, 10, 12, 13, 14]],
        N.split(),
        [4, 11],
    ),
    3: ([[0, 1, 2, 3, 4, 5], [0, 1, 4, 5, 6, 7]], P.split(), [2, 3]),
    4: ([[0, 1, 2, 3, 4, 5], [0, 1, 2, 3, 4, 5]], C.split(), []),
}


@pytest.fixture(scope="module")
def measured(probe):
    return AttentionProbe(probe.model, batch_size=2).metrics(PAIRS)


@pytest.fixture(scope="module")
def run(hugging_face):
    """Pattern, norm-weighted map and output of each layer and head, of Hugging Face's model."""
    model, tokenizer = hugging_face

    @torch.no_grad()
    def run(text):
        encoded = tokenizer(*text.split(" [SEP] "), return_tensors="pt")
        output = model(**encoded, output_attentions=True, output_hidden_states=True)
        A = torch.stack(output.attentions)[:, 0]
        norm, z = torch.zeros_like(A), []
        for layer, block in enumerate(model.encoder.layer):
            v = block.attention.self.value(output.hidden_states[layer][0])
            W = block.attention.output.dense.weight
            outputs = []
            for head in range(12):
                part = slice(head * 32, head * 32 + 32)
                f = v[:, part] @ W[:, part].T
                for q in range(len(v)):
                    for k in range(len(v)):
                        norm[layer, head, q, k] = (A[layer, head, q, k] * f[k]).norm()
                outputs.append(A[layer, head] @ v[:, part])
            z.append(torch.stack(outputs))
        norm = norm / norm.sum(dim=-1, keepdim=True)
        return {"attention": A.numpy(), "norm": norm.numpy(), "z": torch.stack(z).numpy()}

    return run


def in_roles(values, roles, combine=np.mean):
    """`values` by token, combined within each role; NaN for a role without a token."""
    return {role: combine([v for v, r in zip(values, roles, strict=True) if r == role] or [np.nan]) for role in ROLES}


def is_close(found, expected):
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-7)


HEADS = [(0, 0), (0, 7), (2, 3), (5, 11)]


@pytest.mark.parametrize("index", range(5))
def test_every_metric_equals_a_loop_over_tokens(measured, run, index):
    pair = PAIRS[index]
    aligned, roles, cue = LAYOUT[index]
    original = run(pair.original)
    for compared, text, there in zip(COMPARED, [pair.counterfactual, pair.control], aligned[1:], strict=False):
        other, here = run(text), aligned[0]
        links = list(zip(here, there, strict=True))
        words = [i for i, role in enumerate(roles) if role not in ("cue", "cls", "sep")]
        for layer, head in HEADS:
            found = measured.sel(pair=index, compared=compared, layer=layer, head=head)
            z, y = original["z"][layer, head][here], other["z"][layer, head][there]
            sizes = [np.sqrt((u @ u + w @ w) / 2) for u, w in zip(z, y, strict=True)]
            relative = [np.linalg.norm(w - u) / size for u, w, size in zip(z, y, sizes, strict=True)]
            at_role = [roles[j] for j in there]
            is_word = [j in words for j in there]
            is_close(found["output_change"], np.mean([r for r, w in zip(relative, is_word, strict=True) if w]))
            for role, expected in in_roles(relative, at_role).items():
                is_close(found["output_change_by_role"].sel(role=role), expected)
            change = [np.linalg.norm(w - u) for u, w, word in zip(z, y, is_word, strict=True) if word]
            is_close(found["diffusion"], sum(change) ** 2 / len(change) / sum(c * c for c in change))
            if cue:
                steps = [min(abs(j - c) for c in cue) for j, word in zip(there, is_word, strict=True) if word]
                expected = np.average(steps, weights=change) / np.mean(steps)
                is_close(found["diffusion_distance"], expected)
            for kind, prefix in (("attention", ""), ("norm", "norm_")):
                A, B = original[kind][layer, head], other[kind][layer, head]
                rows = [(A[i, here] / A[i, here].sum(), B[j, there] / B[j, there].sum()) for i, j in links]
                divergence = [jensenshannon(p, q, base=2) ** 2 for p, q in rows]
                bits = [stats.entropy(q, base=2) - stats.entropy(p, base=2) for p, q in rows]
                for name, values in (("js_divergence", divergence), ("entropy_change", bits)):
                    is_close(found[prefix + name], np.mean([v for v, w in zip(values, is_word, strict=True) if w]))
                    for role, expected in in_roles(values, at_role).items():
                        is_close(found[f"{prefix}{name}_by_role"].sel(role=role), expected)
                to_name, from_name = (f"{kind}_{way}_cue" for way in ("to", "from"))
                if not cue:
                    assert np.isnan(found[to_name]) and np.isnan(found[from_name])
                    continue
                to_cue = [sum(B[q, c] for c in cue) for q in range(len(B))]
                is_close(found[to_name], np.mean([to_cue[q] for q in words]))
                for role, expected in in_roles(to_cue, roles).items():
                    is_close(found[f"{to_name}_by_role"].sel(role=role), expected)
                from_cue = [np.mean([B[c, k] for c in cue]) for k in range(len(B))]
                is_close(found[from_name], sum(from_cue[k] for k in words))
                for role, expected in in_roles(from_cue, roles, np.sum).items():
                    is_close(found[f"{from_name}_by_role"].sel(role=role), expected)
            A, B = original["attention"][layer, head], other["attention"][layer, head]
            gaps = [np.mean(np.abs(A[i, here] - B[j, there])) for i, j in links]
            is_close(found["mean_attention_diff"], np.mean(gaps))
            is_close(found["max_attention_diff"], np.abs(A[np.ix_(here, here)] - B[np.ix_(there, there)]).max())
            for role, expected in in_roles(gaps, at_role).items():
                is_close(found["attention_diff_by_role"].sel(role=role), expected)


def test_distances_are_those_of_the_originals_words(measured, run):
    for index, pair in enumerate(PAIRS):
        original = run(pair.original)
        n = original["attention"].shape[-1]
        middle = [n // 2] if index == 2 else []  # the [SEP] between premise and hypothesis
        words = [i for i in range(1, n - 1) if i not in middle]
        for name, kind in zip(DISTANCES, ("attention", "norm"), strict=True):
            for layer, head in HEADS:
                A = original[kind][layer, head]
                rows = [
                    sum(A[q, k] * abs(q - k) for k in words) / sum(A[q, k] for k in words) for q in words
                ]  # fmt: skip
                is_close(measured[name].sel(pair=index, layer=layer, head=head), np.mean(rows))
        is_close(measured["uniform_distance"].sel(pair=index), np.mean([abs(q - k) for q in words for k in words]))


def test_the_cue_gives_all_its_attention_to_some_role(measured):
    for name in ("attention_from_cue_by_role", "norm_from_cue_by_role"):
        total = measured[name].sel(pair=[0, 1, 2]).sum("role")
        np.testing.assert_allclose(total, 1, atol=1e-5)


def test_what_is_undefined_is_nan_with_a_reason(measured):
    assert measured["missing"].values.tolist() == [
        *("", "", "", "no control"),
        "no cue that the counterfactual has and the original lacks; no control",
    ]
    for name in (*METRICS, *BY_ROLE):
        assert measured[name].sel(pair=[3, 4], compared="control").isnull().all()
    assert measured["attention_to_cue"].sel(pair=4).isnull().all()
    assert measured["cue"].values.tolist() == ["not", "n't", "not", "far from", ""]
    assert measured["category"].values.tolist() == ["doors", "", "", "", ""]
    assert measured[list(METRICS)].sel(pair=[0, 1, 2]).to_array().notnull().all()


def test_batches_order_and_neighbours_change_nothing(probe, measured):
    order = [2, 0, 4, 3, 1]
    again = AttentionProbe(probe.model, batch_size=32).metrics([PAIRS[i] for i in order])
    for name in (*METRICS, *BY_ROLE, *DISTANCES):
        np.testing.assert_allclose(again[name], measured[name].isel(pair=order), atol=1e-6, err_msg=name)


def test_every_side_of_every_pair_is_run_once(probe, monkeypatch):
    texts = []
    original = HookedEncoder.forward

    def counted(self, tokens, *args, **kwargs):
        mask = kwargs["one_zero_attention_mask"]
        texts.extend(tuple(row[keep.bool()].tolist()) for row, keep in zip(tokens, mask, strict=True))
        return original(self, tokens, *args, **kwargs)

    monkeypatch.setattr(HookedEncoder, "forward", counted)
    AttentionProbe(probe.model, batch_size=2).metrics(PAIRS)
    statements = [text for p in PAIRS for text in (p.original, p.counterfactual, p.control) if text]
    assert len(texts) == len(statements)


def test_progress_counts_the_pairs(probe):
    told = []
    AttentionProbe(probe.model, batch_size=2).metrics(PAIRS, progress=lambda step, done, total: told.append(done))
    assert told == sorted(told) and told[-1] == len(PAIRS)


@pytest.mark.parametrize(
    ("control", "why"),
    [
        ("The door is now really open.", "the control has 9 tokens and the counterfactual 8"),
        ("The gate is now open.", "the control differs from the counterfactual in more than the cue"),
        ("The door is not open.", "the control is identical to the counterfactual"),
    ],
)
def test_a_control_that_does_not_fit_is_left_out_and_said(probe, control, why):
    found = probe.metrics([replace(DOOR, control=control)])
    assert found["missing"].item() == why
    assert found["mean_attention_diff"].sel(compared="control").isnull().all()
    assert found["mean_attention_diff"].sel(compared="counterfactual").notnull().all()


@pytest.mark.parametrize(
    "pair",
    [
        StatementPair("Open the door.", "Never open the door."),
        StatementPair("It is open", "It is open not"),
        StatementPair("Is it open?", "Isn't it open?"),
        StatementPair("It is red or blue.", "It is neither red nor blue."),
        StatementPair("No", "Not"),
        StatementPair("Open", "Never not open"),
    ],
)
def test_a_cue_at_either_end_two_cues_and_one_word_statements_have_metrics(probe, pair):
    found = probe.metrics([pair]).sel(compared="counterfactual", pair=0)
    assert found["attention_to_cue_by_role"].sel(role="cls").notnull().all()
    assert found["mean_attention_diff"].notnull().all()


def test_identical_statements_and_statements_without_a_common_word_are_told(probe):
    same = probe.metrics([StatementPair("It is not open.", "It is not open.")]).sel(compared="counterfactual")
    assert same["max_attention_diff"].max() < 1e-12
    assert same["diffusion"].isnull().all() and same["diffusion_distance"].isnull().all()
    assert "no cue" in same["missing"].item() and "the two statements are the same" in same["missing"].item()
    other = probe.metrics([StatementPair("Dogs bark loudly today", "Nobody came")])
    assert "no word of the original is aligned" in other["missing"].item()
    assert other["js_divergence"].isnull().all() and other["max_attention_diff"].notnull().any()


def test_no_pairs_and_too_long_statements_are_errors(probe):
    with pytest.raises(InputError, match="no pairs"):
        probe.metrics([])
    with pytest.raises(InputError, match="at most 256"):
        probe.metrics([StatementPair("open", "not " * 600)])
    with pytest.raises(InputError, match="batch_size must be at least 1, got 0"):
        AttentionProbe(probe.model, batch_size=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_lower_precision_gives_the_same_metrics_to_that_precision(minilm_path, measured, dtype):
    model = HookedEncoder.from_pretrained(minilm_path, device="cpu", dtype=dtype)
    found = AttentionProbe(model).metrics(PAIRS)
    for name in (*METRICS, *BY_ROLE, *DISTANCES):
        error = abs(found[name] - measured[name])
        # Outputs of a head that is nearly constant have a correlation of rounding errors; so the typical error counts.
        assert float(error.median()) < 8 * torch.finfo(dtype).eps, name
    assert found.attrs["rounding"] == 8 * torch.finfo(dtype).eps


def test_what_rounding_moves_is_no_effect(minilm_path):
    # In the first layer, words attend to each other as before, whatever is put between them.
    nouns = ("cat", "dog", "house", "river", "table", "book", "garden", "window")
    pairs = [StatementPair(f"The {n} on the hill is old.", f"The {n} on the hill is not old.") for n in nouns]
    metrics = AttentionProbe(HookedEncoder.from_pretrained(minilm_path, device="cpu"), batch_size=3).metrics(pairs)
    effects = negation_effects(metrics).sel(layer=0)
    assert abs(metrics["entropy_change"].sel(layer=0)).max() > 0
    for name in ("js_divergence", "entropy_change", "norm_js_divergence", "norm_entropy_change"):
        assert abs(effects[name]).max() == 0, name
    assert abs(effects["attention_to_cue"]).max() > 1e-3


@pytest.mark.slow
def test_cue_shares_equal_a_loop_over_each_statements_own_map(probe):
    shares = AttentionProbe(probe.model, batch_size=2).cue_shares(PAIRS)
    assert shares.sel(pair=4).isnull().all() and shares.sel(pair=3, compared="control").isnull().all()
    for index in (0, 1, 2, 3):
        pair, (_, roles, cue) = PAIRS[index], LAYOUT[index]
        words = [i for i, role in enumerate(roles) if role not in ("cue", "cls", "sep")]
        for compared, text in zip(COMPARED, (pair.counterfactual, pair.control), strict=True):
            if text is None:
                continue
            tokens, types, mask = probe.model.to_tokens([tuple(text.split(" [SEP] "))] if "[SEP]" in text else [text])
            for measure in CONTRIBUTIONS:
                maps = contributions(probe.model, tokens, mask, measure, token_type_ids=types)[0].numpy()
                expected = [np.mean([sum(m[q, c] for c in cue) / m[q].sum() for q in words]) for m in maps]
                is_close(shares.sel(pair=index, compared=compared, measure=measure), expected)
