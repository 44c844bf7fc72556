"""DeBERTa's settings: every one gives what Hugging Face's model gives, or is refused by name."""

import json
from pathlib import Path

import pytest
import torch
import transformers
from torch import Tensor
from transformers import PreTrainedModel
from transformers.models.deberta_v2 import modeling_deberta_v2

from negprobe import HookedEncoder, StatementPair
from negprobe.attention.contribution_maps import contributions
from negprobe.attention.layer_measures import value_zeroing
from negprobe.base.errors import InputError, ModelError, NegprobeError, PatchingError
from negprobe.models.positions import logarithmic_buckets
from negprobe.patching import Patch, attribute_edges, patch, patch_sweep, path_patch
from tests.support import tiny_models
from tests.support.tiny_models import D_HEAD, HEADS, N_HEADS, N_LAYERS, largest_difference

TERMS = {"relative_attention": True, "pos_att_type": ["c2p", "p2c"]}
BUCKETS = TERMS | {"position_buckets": 4}
# What each model type can be given, beside the sizes: as in the published models, and each setting by itself.
VARIANTS: dict[str, list[dict[str, object]]] = {
    "deberta": [
        {},
        {"pos_att_type": ["c2p", "p2c"]},
        {"relative_attention": True},
        TERMS | {"pos_att_type": " C2P "},
        TERMS | {"pos_att_type": ["p2c"], "position_biased_input": False},
        TERMS | {"max_relative_positions": 4, "type_vocab_size": 2},
        TERMS | {"legacy": False, "pooler_hidden_act": "tanh", "hidden_act": "relu"},
    ],
    "deberta-v2": [
        {"norm_rel_ebd": "layer_norm", "share_att_key": True},
        {"pos_att_type": ["c2p", "p2c"]},
        {"relative_attention": True, "position_buckets": 4},
        TERMS | {"pos_att_type": "c2p"},
        TERMS | {"pos_att_type": ["p2c", "c2p"], "share_att_key": True},
        TERMS | {"pos_att_type": ["p2c"], "share_att_key": True, "position_biased_input": False},
        TERMS | {"max_relative_positions": 4, "norm_rel_ebd": "none|layer_norm"},
        BUCKETS | {"type_vocab_size": 2, "legacy": False},
        BUCKETS | {"position_buckets": 7, "max_relative_positions": 10},
        BUCKETS | {"position_buckets": 2, "max_relative_positions": 40},
        BUCKETS | {"position_buckets": 32, "max_relative_positions": 128, "pooler_hidden_act": "relu"},
        BUCKETS | {"conv_kernel_size": 5, "conv_groups": 3},
        {"conv_kernel_size": 1, "conv_act": "sigmoid", "norm_rel_ebd": "layer_norm"},
    ],
}
CASES = [
    pytest.param(kind, settings, id=f"{kind}-{number}")
    for kind, variants in VARIANTS.items()
    for number, settings in enumerate(variants)
]


def config(kind: str, settings: dict[str, object]) -> transformers.PreTrainedConfig:
    """A tiny configuration with these settings."""
    settings = {"max_position_embeddings": 16} | settings
    config_class = {"deberta": transformers.DebertaConfig, "deberta-v2": transformers.DebertaV2Config}[kind]
    sizes = {"vocab_size": 40, "hidden_size": 24, "num_hidden_layers": N_LAYERS, "num_attention_heads": N_HEADS}
    return config_class(**sizes, intermediate_size=40, num_labels=3, **settings)


def made(kind: str, settings: dict[str, object], head: str = "masked_lm") -> PreTrainedModel:
    """A model with these settings and wide random weights, in float64.

    The weights are numbers of float32, because transformers reads some of DeBERTa's biases as such in any model.
    """
    prefix = {"deberta": "Deberta", "deberta-v2": "DebertaV2"}[kind]
    model = getattr(transformers, prefix + tiny_models.SUFFIX[head])(config(kind, settings)).eval()
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.copy_((1 if "norm" in name.lower() and name.endswith("weight") else 0) + 0.4 * noise)
    return model.double()


@pytest.mark.sampled(4)
@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("kind, settings", CASES)
def test_every_setting_gives_what_hugging_face_gives(
    tmp_path: Path, kind: str, settings: dict[str, object], head: str
) -> None:
    """Read from a folder, whose fields are checked; without the rounding to float32 in DeBERTa's own LayerNorms."""
    theirs = made(kind, settings, head)
    tiny_models.skip_unless_loadable(theirs)
    theirs.save_pretrained(tmp_path)
    ours = HookedEncoder.from_pretrained(tmp_path, device="cpu", dtype=torch.float64)
    for lengths in ((16, 9, 1), (7,)):
        inputs = tiny_models.hf_inputs(theirs, tiny_models.token_batch(0, lengths))
        if settings.get("type_vocab_size"):
            inputs["token_type_ids"] = inputs["input_ids"] % 2
        real = inputs["attention_mask"].bool()
        with torch.no_grad():
            expected = theirs(**inputs, output_attentions=True)
            output = tiny_models.hf_output(theirs, head, inputs)
            types = inputs.get("token_type_ids")
            found, cache = ours.run_with_cache(inputs["input_ids"], token_type_ids=types)
            fused = ours(inputs["input_ids"], token_type_ids=types)
        for one in (found, fused):
            compared = (one[real], output[real]) if head == "masked_lm" else (one, output)
            assert largest_difference(*compared) < 1e-10
        for layer, pattern in enumerate(expected.attentions):
            mine, wanted = (maps.transpose(1, 2)[real] for maps in (cache["pattern", layer], pattern))
            assert largest_difference(mine, wanted) < 1e-10


@pytest.mark.parametrize(
    ("n_buckets", "max_distance"), [(2, 3), (4, 16), (7, 40), (32, 128), (50, 64), (256, 512), (256, 131), (320, 512)]
)
def test_buckets_are_hugging_faces_for_every_distance(n_buckets: int, max_distance: int) -> None:
    distance = torch.arange(-600, 601)
    expected = modeling_deberta_v2.make_log_bucket_position(distance, n_buckets, max_distance)
    found = logarithmic_buckets(distance, n_buckets, max_distance)
    assert torch.equal(found, expected.long())


def slow_terms(theirs: PreTrainedModel, layer: int, q: Tensor, k: Tensor) -> dict[str, Tensor]:
    """The two terms of one text, one query and key after another, from DeBERTa-v2's own modules."""
    encoder, attention = theirs.base_model.encoder, theirs.base_model.encoder.layer[layer].attention.self
    n, shares = len(q), attention.share_att_key
    embeddings = encoder.get_rel_embedding()
    key, query = (
        (attention.key_proj, attention.query_proj) if shares else (attention.pos_key_proj, attention.pos_query_proj)
    )
    scale = float(torch.tensor(3.0 * D_HEAD).sqrt())
    terms = {name: q.new_zeros(N_HEADS, n, n) for name in ("c2p", "p2c")}
    [buckets] = modeling_deberta_v2.build_relative_position(q[:, 0], k[:, 0], encoder.position_buckets, 16)
    for at in range(n):
        for to in range(n):
            embedding = embeddings[attention.pos_ebd_size + int(buckets[at, to])]
            for head in range(N_HEADS):
                columns = slice(head * D_HEAD, (head + 1) * D_HEAD)
                terms["c2p"][head, at, to] = q[at, head] @ key(embedding)[columns] / scale
                terms["p2c"][head, at, to] = k[to, head] @ query(embedding)[columns] / scale
    return terms


@torch.no_grad()
@pytest.mark.parametrize("shares", [False, True])
def test_each_term_is_the_product_with_the_embedding_of_the_distance(shares: bool) -> None:
    theirs = made("deberta-v2", BUCKETS | {"share_att_key": shares, "norm_rel_ebd": "layer_norm"})
    ours = HookedEncoder.from_pretrained(theirs, device="cpu", dtype=torch.float64)
    tokens = tiny_models.token_batch(0, (8,))
    _, cache = ours.run_with_cache(tokens)
    for layer in range(N_LAYERS):
        q, k = cache["q", layer][0], cache["k", layer][0]
        for name, expected in slow_terms(theirs, layer, q, k).items():
            assert largest_difference(cache[f"blocks.{layer}.attn.hook_{name}"][0], expected) < 1e-10


@torch.no_grad()
def test_edited_queries_and_keys_change_the_terms() -> None:
    ours = HookedEncoder.from_pretrained(made("deberta-v2", BUCKETS), device="cpu", dtype=torch.float64)
    tokens = tiny_models.token_batch(0, (8,))
    _, plain = ours.run_with_cache(tokens)
    for site, follows, stays in (("q", "c2p", "p2c"), ("k", "p2c", "c2p")):
        with ours.hooks(fwd_hooks=[(f"blocks.1.attn.hook_{site}", lambda activation, hook: 2 * activation)]):
            _, cache = ours.run_with_cache(tokens)
        name = "blocks.1.attn.hook_{}".format
        assert largest_difference(cache[name(follows)], 2 * plain[name(follows)]) < 1e-10
        assert largest_difference(cache[name(stays)], plain[name(stays)]) == 0


@torch.no_grad()
def test_scores_are_not_those_of_the_query_key_circuit_alone() -> None:
    """What the docstring of `QK` says."""
    ours = HookedEncoder.from_pretrained(made("deberta", TERMS), device="cpu", dtype=torch.float64)
    _, cache = ours.run_with_cache(tiny_models.token_batch(0, (8,)))
    x, block = cache["resid_pre", 1][0], ours.blocks[1].attn
    for head in range(N_HEADS):
        by_bias = (x @ block.W_K[head] @ block.b_Q[head])[None] + 0 * x[:, :1]
        by_circuit = (x @ ours.QK.AB[1, head] @ x.T + by_bias) / ours.architecture.attn_scale
        rest = cache["blocks.1.attn.hook_c2p"][0, head] + cache["blocks.1.attn.hook_p2c"][0, head]
        assert largest_difference(cache["attn_scores", 1][0, head], by_circuit + rest) < 1e-10
        assert rest.abs().max() > 0.1


REFUSED = [
    ("deberta", {"pos_att_type": ["c2p", "p2p"]}, "pos_att_type"),
    ("deberta", {"pos_att_type": ""}, "pos_att_type"),
    ("deberta", {"pos_att_type": ["c2p", "c2p"]}, "pos_att_type"),
    ("deberta", {"pos_att_type": 3}, "pos_att_type"),
    ("deberta", {"talking_head": True}, "talking_head"),
    ("deberta", {"embedding_size": 12}, "embedding_size"),
    ("deberta", {"relative_attention": 1}, "relative_attention"),
    ("deberta", {"max_relative_positions": 10**9}, "max_relative_positions"),
    ("deberta", {"architectures": ["DebertaV2ForMaskedLM"]}, "DebertaV2ForMaskedLM"),
    ("deberta-v2", {"architectures": ["DebertaForMaskedLM"]}, "DebertaForMaskedLM"),
    ("deberta-v2", {"embedding_size": 12}, "embedding_size"),
    ("deberta-v2", {"attention_head_size": 12}, "attention_head_size"),
    ("deberta-v2", {"norm_rel_ebd": "batch_norm"}, "norm_rel_ebd"),
    ("deberta-v2", {"norm_rel_ebd": None}, "norm_rel_ebd"),
    ("deberta-v2", {"position_buckets": 1}, "position_buckets"),
    ("deberta-v2", {"position_buckets": 30}, "position_buckets"),
    ("deberta-v2", {"share_att_key": "yes"}, "share_att_key"),
    ("deberta-v2", {"conv_kernel_size": 2}, "conv_kernel_size"),
    ("deberta-v2", {"conv_kernel_size": 3, "conv_groups": 5}, "conv_groups"),
    ("deberta-v2", {"conv_kernel_size": 3, "num_hidden_layers": 1}, "num_hidden_layers"),
    ("deberta-v2", {"conv_act": "none"}, "conv_act"),
]


@pytest.mark.sampled(4)
@pytest.mark.parametrize(("kind", "change", "field"), REFUSED, ids=lambda value: str(value)[:40])
def test_what_is_not_computed_is_refused_by_name(
    tmp_path: Path, kind: str, change: dict[str, object], field: str
) -> None:
    made(kind, TERMS).save_pretrained(tmp_path)
    file = tmp_path / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    with pytest.raises(ModelError, match=field):
        HookedEncoder.from_pretrained(tmp_path, device="cpu")


def test_the_poolers_width_is_that_of_the_states(tmp_path: Path) -> None:
    theirs = made("deberta-v2", {}, "classification")
    theirs.save_pretrained(tmp_path)
    file = tmp_path / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"pooler_hidden_size": 12}))
    with pytest.raises(ModelError, match="pooler_hidden_size = 12, which is not 24"):
        HookedEncoder.from_pretrained(tmp_path, device="cpu")


def test_a_live_model_with_talking_heads_is_refused() -> None:
    theirs = transformers.DebertaForMaskedLM(config("deberta", TERMS | {"talking_head": True}))
    with pytest.raises(ModelError, match="talking_head = True"):
        HookedEncoder.from_pretrained(theirs, device="cpu")


def test_a_published_configuration_is_read(tmp_path: Path) -> None:
    """The fields of microsoft/deberta-v3-base, with smaller sizes; its weights include an unused position embedding."""
    published = {
        **{"model_type": "deberta-v2", "attention_probs_dropout_prob": 0.1, "hidden_act": "gelu"},
        **{"hidden_dropout_prob": 0.1, "initializer_range": 0.02, "max_position_embeddings": 512},
        **{"relative_attention": True, "position_buckets": 256, "norm_rel_ebd": "layer_norm", "share_att_key": True},
        **{"pos_att_type": "p2c|c2p", "layer_norm_eps": 1e-7, "max_relative_positions": -1, "pad_token_id": 0},
        **{"position_biased_input": False, "num_attention_heads": 4, "hidden_size": 24, "num_hidden_layers": 2},
        **{"intermediate_size": 40, "type_vocab_size": 0, "vocab_size": 40},
    }
    theirs = transformers.DebertaV2Model(transformers.DebertaV2Config(**published)).eval()
    weights = theirs.state_dict() | {"embeddings.position_embeddings.weight": torch.zeros(512, 24)}
    theirs.save_pretrained(tmp_path, state_dict=weights)
    (tmp_path / "config.json").write_text(json.dumps(published | {"architectures": ["DebertaV2Model"]}))
    ours = HookedEncoder.from_pretrained(tmp_path, device="cpu")
    tokens = tiny_models.token_batch(0, (9, 4))
    tokens = torch.cat([tokens] * 40, dim=1)[:, :300]
    inputs = {"input_ids": tokens, "attention_mask": torch.ones_like(tokens)}
    with torch.no_grad():
        expected = tiny_models.hf_output(theirs, "none", inputs)
        assert largest_difference(ours(tokens, one_zero_attention_mask=inputs["attention_mask"]), expected) < 1e-5


@pytest.mark.parametrize("kind", ["deberta", "deberta-v2"])
def test_a_folder_with_its_tokenizer_is_read_and_patched(tmp_path: Path, kind: str) -> None:
    words = ["The", "door", "is", "not", "now", "open", "closed", "so", "it"]
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tokenizer: transformers.PreTrainedTokenizerBase
    if kind == "deberta":
        # Characters, because a byte-level vocabulary needs merges for anything longer.
        pieces = [*special, "Ġ", *sorted(set("".join(words) + ".,"))]
        tokenizer = transformers.DebertaTokenizer(vocab={piece: i for i, piece in enumerate(pieces)}, merges=[])
    else:
        scored = [(f"▁{word}", -1.0) for word in words] + [(".", -1.0), (",", -1.0), ("▁", -9.0)]
        tokenizer = transformers.DebertaV2Tokenizer(vocab=[*((token, 0.0) for token in special), *scored], unk_id=1)
    theirs = made(kind, TERMS | {"max_position_embeddings": 64}).float()
    theirs.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    ours = HookedEncoder.from_pretrained(tmp_path, device="cpu")
    texts = ["The door is not open.", "The door is [MASK], so it is not now closed."]
    encoded = transformers.AutoTokenizer.from_pretrained(tmp_path)(texts, padding=True, return_tensors="pt")
    real = encoded["attention_mask"].bool()
    with torch.no_grad():
        assert largest_difference(ours(texts)[real], theirs(**encoded).logits[real]) < 1e-5
    target, foil = ("o", "c") if kind == "deberta" else ("open", "closed")
    pair = StatementPair(
        "The door is now open, so it is [MASK].", "The door is not open, so it is [MASK].", target, foil
    )
    result = patch_sweep(ours, pair, "c2p", by=("head", "role"), direction="denoising")
    assert abs(result["patched"].sel(role="cue") - result["base"]).max() > 1e-6


PAIR = StatementPair("The door is now open, so it [MASK].", "The door is not open, so it [MASK].", "open", "closed")


@pytest.fixture(scope="module")
def convolving() -> HookedEncoder:
    return tiny_models.pair("deberta-v2-conv", "masked_lm", torch.float64)[1]


def zeroed(model: HookedEncoder, layer: int) -> Tensor:
    pattern = torch.full((1, N_HEADS, 2, 2), 0.5, dtype=torch.float64)
    v = torch.zeros(1, 2, N_HEADS, D_HEAD, dtype=torch.float64)
    return value_zeroing(pattern, v, torch.randn(1, 2, 24, dtype=torch.float64), model.blocks[layer])


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda model: path_patch(model, PAIR), PatchingError),
        (lambda model: attribute_edges(model, PAIR), PatchingError),
        (lambda model: zeroed(model, 0), InputError),
        (lambda model: model.run_with_cache("The door is open.")[1].decompose_resid(), InputError),
        *(
            (lambda model, measure=measure: contributions(model, torch.tensor([[2, 5, 3]]), None, measure), InputError)
            for measure in ("zeroing", "rollout", "globenc")
        ),
    ],
    ids=["path_patch", "attribute_edges", "value_zeroing", "decompose_resid", "zeroing", "rollout", "globenc"],
)
def test_what_a_convolution_makes_undefined_is_refused(
    convolving: HookedEncoder, call: object, error: type[NegprobeError]
) -> None:
    with pytest.raises(error, match="convolution"):
        call(convolving)


@torch.no_grad()
def test_what_a_convolution_leaves_defined_is_computed(convolving: HookedEncoder) -> None:
    assert zeroed(convolving, 1).isfinite().all()
    _, cache = convolving.run_with_cache("The door is open.")
    assert cache.decompose_resid(layer=0).shape[0] == 4
    states = cache.accumulated_resid()
    assert largest_difference(states[1], cache["resid_pre", 1]) == 0
    tokens = convolving.to_tokens("The door is open.")[0]
    for measure in ("all_heads_norm", "residual"):
        expected = contributions(convolving, tokens, None, measure)
        with convolving.hooks(fwd_hooks=[("blocks.0.conv.hook_post", lambda activation, hook: activation)]):
            assert largest_difference(contributions(convolving, tokens, None, measure), expected) == 0
        doubled = [("blocks.0.conv.hook_post", lambda activation, hook: 2 * activation)]
        with convolving.hooks(fwd_hooks=doubled), pytest.raises(InputError, match="changes how the output of block 0"):
            contributions(convolving, tokens, None, measure)


def test_keys_of_every_map_can_be_chosen() -> None:
    model = tiny_models.pair("deberta", "masked_lm", torch.float64)[1]
    for site in ("c2p", "p2c", "attn_scores", "pattern"):
        result = patch(model, PAIR, Patch(site, 0, 1, key_role="cue"))
        assert abs(result["patched"] - result["base"]).max() > 1e-9, site
    with pytest.raises(PatchingError, match="has no keys; use keys only with c2p, p2c, attn_scores, pattern"):
        patch(model, PAIR, Patch("z", 0, 1, key_role="cue"))
