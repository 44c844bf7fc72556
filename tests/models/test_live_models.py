"""A Hugging Face model in memory is read as it computes, or refused with what to do."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import nn
from torch.nn.utils import parametrizations, parametrize, prune
from transformers import PreTrainedModel

from negprobe import HookedEncoder
from negprobe.base.errors import ModelError
from tests.support import tiny_models
from tests.support.tiny_models import FAMILIES, HEADS, N_LAYERS, SUFFIX, largest_difference

TOKENS = tiny_models.token_batch(0, (7,))
QUERY = "bert.encoder.layer.0.attention.self.query"
Change = Callable[[PreTrainedModel], nn.Module | None]


def model() -> PreTrainedModel:
    return tiny_models.hf_model("bert", "classification")


def load(hf_model: nn.Module, **options: Any) -> HookedEncoder:
    return HookedEncoder.from_pretrained(hf_model, device="cpu", **options)


def equals(theirs: PreTrainedModel) -> None:
    with torch.no_grad():
        assert largest_difference(load(theirs)(TOKENS), theirs.eval()(TOKENS).logits) < 1e-5


# What computes something else


class _Double(nn.Linear):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 2 * super().forward(x)


class _Twice(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 2 * x


class _TaggedTensor(torch.Tensor):
    """As torchao's: a quantized tensor that says it is a float."""


def _linear_of_its_own(theirs: PreTrainedModel) -> None:
    theirs.bert.encoder.layer[0].attention.self.query = _Double(24, 24)


def _pruned(theirs: PreTrainedModel) -> None:
    prune.l1_unstructured(theirs.get_submodule(QUERY), "weight", 0.5)


def _parametrized(theirs: PreTrainedModel) -> None:
    parametrize.register_parametrization(theirs.get_submodule(QUERY), "weight", _Twice())


def _weight_norm(theirs: PreTrainedModel) -> None:
    parametrizations.weight_norm(theirs.get_submodule(QUERY))


def _spectral_norm(theirs: PreTrainedModel) -> None:
    nn.utils.spectral_norm(theirs.get_submodule(QUERY))


def _quantized(theirs: PreTrainedModel) -> nn.Module:
    return torch.ao.quantization.quantize_dynamic(theirs, {nn.Linear}, dtype=torch.qint8)


def _int8(theirs: PreTrainedModel) -> None:
    theirs.get_submodule(QUERY).weight = nn.Parameter(torch.ones(24, 24, dtype=torch.int8), requires_grad=False)


def _float8(theirs: PreTrainedModel) -> None:
    weight = theirs.get_submodule(QUERY).weight
    weight.data = weight.data.to(torch.float8_e4m3fn)


def _tensor_of_its_own(theirs: PreTrainedModel) -> None:
    query = theirs.get_submodule(QUERY)
    query.weight = nn.Parameter(query.weight.data.as_subclass(_TaggedTensor))


def _offloaded(theirs: PreTrainedModel) -> None:
    theirs.get_submodule(QUERY).to("meta")


def _other_forward(theirs: PreTrainedModel) -> None:
    theirs.get_submodule(QUERY).forward = lambda x: 2 * x


def _hooked(theirs: PreTrainedModel) -> None:
    theirs.get_submodule(QUERY).register_forward_hook(lambda module, args, output: 2 * output)


def _other_activation(theirs: PreTrainedModel) -> None:
    theirs.bert.encoder.layer[1].intermediate.intermediate_act_fn = nn.ReLU()


def _other_eps(theirs: PreTrainedModel) -> None:
    theirs.bert.encoder.layer[1].output.LayerNorm.eps = 0.1


def _other_scaling(theirs: PreTrainedModel) -> None:
    theirs.bert.encoder.layer[1].attention.self.scaling = 1.0


def _max_norm(theirs: PreTrainedModel) -> None:
    theirs.bert.embeddings.word_embeddings.max_norm = 0.1


def _fewer_layers(theirs: PreTrainedModel) -> None:
    theirs.bert.encoder.layer = theirs.bert.encoder.layer[:1]


def _fewer_layers_in_the_config(theirs: PreTrainedModel) -> None:
    theirs.config.num_hidden_layers = 1


def _other_head(theirs: PreTrainedModel) -> None:
    theirs.classifier = nn.Sequential(nn.Linear(24, 24), nn.Linear(24, 3))


def _more_labels(theirs: PreTrainedModel) -> None:
    theirs.classifier = nn.Linear(24, 5)


def _another_weight(theirs: PreTrainedModel) -> None:
    theirs.get_submodule(QUERY).register_parameter("scale", nn.Parameter(torch.ones(24)))


def _without_bias(theirs: PreTrainedModel) -> None:
    theirs.get_submodule(QUERY).bias = None


def _callable_activation(theirs: PreTrainedModel) -> None:
    object.__setattr__(theirs.config, "hidden_act", torch.tanh)


def _data_parallel(theirs: PreTrainedModel) -> nn.Module:
    return nn.DataParallel(theirs)


def _compiled(theirs: PreTrainedModel) -> nn.Module:
    return torch.compile(theirs)


CHANGES = {
    _linear_of_its_own: rf"{QUERY} is .*_Double, not Linear",
    _pruned: rf"{QUERY} is pruned.*prune\.remove",
    _parametrized: rf"{QUERY} is .*ParametrizedLinear, not Linear.*remove_parametrizations",
    _weight_norm: rf"{QUERY} is .*ParametrizedLinear.*remove_parametrizations",
    _spectral_norm: rf"{QUERY} has a forward hook",
    _quantized: rf"{QUERY} is torch\.ao\..*Linear, not Linear.*without quantization_config",
    _int8: rf"{QUERY}\.weight is int8, but only floating-point weights.*without quantization_config",
    _float8: rf"{QUERY}\.weight is float8_e4m3fn, but only floating-point",
    _tensor_of_its_own: rf"{QUERY}\.weight is .*_TaggedTensor",
    _offloaded: rf"{QUERY}\.weight is on the meta device.*without device_map",
    _other_forward: rf"{QUERY} has its own forward",
    _hooked: rf"{QUERY} has a forward hook.*Remove the hook",
    _other_activation: r"layer\.1\.intermediate\.intermediate_act_fn is .*ReLU, not GELUActivation",
    _other_eps: r"layer\.1\.output\.LayerNorm has eps = 0\.1, not 1e-12",
    _other_scaling: r"layer\.1\.attention\.self has scaling = 1\.0",
    _max_norm: r"word_embeddings has max_norm = 0\.1, not None",
    _fewer_layers: r"bert\.encoder\.layer\.1 is missing",
    _fewer_layers_in_the_config: r"bert\.encoder\.layer\.1 has .*BertLayer, which its class and configuration do not",
    _other_head: r"classifier is .*Sequential, not Linear",
    _more_labels: r"classifier has out_features = 5, not 3",
    _another_weight: rf"{QUERY}\.scale is a weight that",
    _without_bias: rf"{QUERY}\.bias is missing",
    _callable_activation: r"hidden_act = .*tanh.*not an activation",
    _data_parallel: r"DataParallel is not a transformers model.*model\.module",
    _compiled: r"OptimizedModule is not a transformers model.*_orig_mod",
}


@pytest.mark.sampled(3)
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__.strip("_"))
@pytest.mark.parametrize("by", ["name_or_path", "hf_model"])
def test_a_model_that_computes_something_else_is_refused(change: Change, by: str) -> None:
    theirs = model()
    changed = change(theirs)
    changed = theirs if changed is None else changed
    with pytest.raises(ModelError, match=CHANGES[change]):
        HookedEncoder.from_pretrained(**{"name_or_path": "a name", by: changed}, device="cpu")


def test_adapters_of_peft_are_refused_until_they_are_merged() -> None:
    peft = pytest.importorskip("peft", reason="needs: pip install peft")
    lora = peft.LoraConfig(target_modules=["query", "value"], init_lora_weights=False)
    wrapped = peft.get_peft_model(model(), lora)
    inside, added = wrapped.base_model.model, model()
    added.add_adapter(lora)
    for refused in (wrapped, inside, added):
        with pytest.raises(ModelError, match=r"Merge the adapter first: .*merge_and_unload"):
            load(refused)
    merged = wrapped.merge_and_unload()
    assert largest_difference(merged(TOKENS).logits, model()(TOKENS).logits) > 1e-2
    equals(merged)


@pytest.mark.parametrize("bits", [8, 4])
def test_models_quantized_by_bitsandbytes_are_refused_until_they_are_dequantized(tmp_path: Path, bits: int) -> None:
    pytest.importorskip("bitsandbytes", reason="needs: pip install bitsandbytes")
    model().save_pretrained(tmp_path)
    options = transformers.BitsAndBytesConfig(llm_int8_skip_modules=["classifier"], **{f"load_in_{bits}bit": True})
    quantized = transformers.BertForSequenceClassification.from_pretrained(
        tmp_path, quantization_config=options, device_map="cpu"
    )
    with pytest.raises(ModelError, match=rf"{QUERY} is bitsandbytes.*without quantization_config"):
        load(quantized)
    equals(quantized.dequantize())


def test_two_models_are_one_too_many() -> None:
    with pytest.raises(ModelError, match="are both models"):
        HookedEncoder.from_pretrained(model(), hf_model=model(), device="cpu")


@pytest.mark.parametrize("thing", [nn.Linear(2, 2), nn.Sequential()])
def test_modules_that_are_no_models_of_transformers(thing: nn.Module) -> None:
    with pytest.raises(ModelError, match=r"torch\.nn\..* is not a transformers model"):
        load(thing)


# What makes no difference


@pytest.mark.sampled(4)
@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("family", FAMILIES)
def test_every_class_that_transformers_makes_is_accepted(family: str, head: str) -> None:
    theirs = tiny_models.hf_model(family, head)
    for change in (lambda: None, theirs.train, theirs.bfloat16):
        change()
        assert load(theirs).cfg.n_layers == N_LAYERS


@pytest.mark.parametrize("name", ["BertForPreTraining", "ElectraForPreTraining", "BertModel"])
def test_parts_that_no_head_reads_may_be_anything(name: str) -> None:
    theirs = getattr(transformers, name)(FAMILIES["electra" if name.startswith("Electra") else "bert"].config())
    for part in ("cls.seq_relationship", "bert.pooler.dense", "pooler.dense", "discriminator_predictions.dense"):
        if part in dict(theirs.named_modules()):
            prune.l1_unstructured(theirs.get_submodule(part), "weight", 0.5)
    assert load(theirs).cfg.head == ("masked_lm" if name == "BertForPreTraining" else "none")


def test_a_base_model_without_a_pooler() -> None:
    assert load(transformers.BertModel(FAMILIES["bert"].config(), add_pooling_layer=False)).cfg.head == "none"


def test_training_and_how_attention_is_computed_make_no_difference() -> None:
    theirs = model()
    theirs(TOKENS, output_hidden_states=True, output_attentions=True)  # which leaves transformers' own hooks behind
    theirs.gradient_checkpointing_enable()
    theirs.enable_input_require_grads()
    theirs.config.hidden_dropout_prob = 0.9
    theirs.bert.embeddings.dropout = nn.Identity()
    theirs.bert.encoder.layer[0].output.dropout.p = 0.5
    theirs.train()
    equals(theirs)
    theirs.set_attn_implementation("sdpa")
    equals(theirs)


def test_layers_may_be_removed_where_the_configuration_says_so() -> None:
    theirs = model()
    theirs.bert.encoder.layer = theirs.bert.encoder.layer[1:]
    theirs.config.num_hidden_layers = N_LAYERS - 1
    equals(theirs)


# Classes


class NliModel(transformers.BertForSequenceClassification):
    """With the name of an encoder without a head."""


class ReversedBertForSequenceClassification(transformers.BertForSequenceClassification):
    def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
        return -super().forward(input_ids).logits


class WithMore(transformers.BertForSequenceClassification):
    def __init__(self, config: transformers.BertConfig) -> None:
        super().__init__(config)
        self.extra = nn.Linear(24, 2)


def _of(hf_class: type[PreTrainedModel]) -> PreTrainedModel:
    theirs = hf_class(FAMILIES["bert"].config()).eval()
    theirs.load_state_dict(model().state_dict(), strict=False)
    return theirs


@pytest.mark.parametrize("hf_class", [NliModel, ReversedBertForSequenceClassification, WithMore])
def test_a_derived_class_is_read_only_as_the_class_that_is_asked_for(hf_class: type[PreTrainedModel]) -> None:
    theirs = _of(hf_class)
    with pytest.raises(
        ModelError,
        match=rf"{hf_class.__name__} is derived from transformers' BertForSequenceClassification.*architecture=",
    ):
        load(theirs)
    ours = load(theirs, architecture="BertForSequenceClassification")
    assert ours.cfg.head == "classification"
    with torch.no_grad():
        assert largest_difference(ours(TOKENS), model()(TOKENS).logits) < 1e-5


@pytest.mark.parametrize("asked", ["BertModel", "BertForMaskedLM", "NliModel", "", "__name__", "AutoModel"])
def test_a_class_that_the_model_is_not_derived_from(asked: str) -> None:
    with pytest.raises(ModelError, match=rf"is a NliModel, so it cannot be read as '{asked}'"):
        load(_of(NliModel), architecture=asked)


def test_a_class_of_the_same_name_as_one_of_transformers() -> None:
    same = type("BertForSequenceClassification", (transformers.BertForSequenceClassification,), {})
    with pytest.raises(ModelError, match="is derived from transformers' "):
        load(_of(same))


def test_a_derived_class_with_other_parts_inside_its_base() -> None:
    theirs = _of(NliModel)
    _linear_of_its_own(theirs)
    with pytest.raises(ModelError, match=rf"{QUERY} is .*_Double"):
        load(theirs, architecture="BertForSequenceClassification")


def test_a_model_of_ones_own_around_an_encoder() -> None:
    class Own(transformers.BertPreTrainedModel):
        def __init__(self, config: transformers.BertConfig) -> None:
            super().__init__(config)
            self.bert = transformers.BertModel(config)

    with pytest.raises(ModelError, match=r"Own is not a transformers class that negprobe supports"):
        load(Own(FAMILIES["bert"].config()))


@pytest.mark.parametrize("suffix", ["ForTokenClassification", "ForQuestionAnswering", "ForMultipleChoice"])
def test_heads_that_are_not_read(suffix: str) -> None:
    theirs = getattr(transformers, f"Bert{suffix}")(copy.deepcopy(FAMILIES["bert"].config()))
    with pytest.raises(ModelError, match=f"Bert{suffix} has a head that negprobe does not support"):
        load(theirs)


def test_every_class_with_a_head_is_one_of_transformers() -> None:
    for family in (case for case in FAMILIES.values() if case.is_installed):
        for suffix in SUFFIX.values():
            assert getattr(transformers, family.prefix + suffix).__name__ == family.prefix + suffix
