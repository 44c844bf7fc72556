"""Checks that a loaded Hugging Face model computes what its class and configuration describe, in plain floats."""

from collections.abc import Iterator
from types import BuiltinFunctionType, FunctionType
from typing import Any

import torch
import transformers
from torch import Tensor, nn
from torch.nn.utils import parametrize
from transformers import PreTrainedConfig, PreTrainedModel

from negprobe.base.errors import ModelError
from negprobe.models.convert import CLASSES, check_supported, head_of
from negprobe.models.folder import config_of

_UNUSED = ("pooler", "cls.seq_relationship", "discriminator_predictions")
"""Parts that no supported head uses, except a classifier that uses the pooler."""

_HARMLESS = {
    "training",
    "gradient_checkpointing",
    "chunk_size_feed_forward",
    "layer_idx",
    "padding_idx",
    "p",
    "inplace",
}
"""Module attributes that affect training, memory or bookkeeping, but no value in evaluation mode."""

FLOAT_DTYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16)

_MERGE = "Merge the adapter first: model = model.merge_and_unload(), on peft's PeftModel."
_UNQUANTIZED = "Load the model without quantization_config, or as it was before it was quantized."
_ADVICE = {
    "peft": _MERGE,
    "adapters": "Merge the adapter first: model.merge_adapter().",
    "sentence_transformers": "Save it with save_pretrained() and give the folder.",
    "torch.nn.parallel": "Give the model inside it: model.module.",
    "torch._dynamo": "Give the model that was compiled: model._orig_mod.",
    "torch.nn.utils.parametrize": "Remove the parametrization first: "
    "torch.nn.utils.parametrize.remove_parametrizations(module, 'weight').",
    **dict.fromkeys(
        (
            *("bitsandbytes", "torchao", "torch.ao", "torch.nn.quantized", "transformers.integrations", "optimum"),
            *("gptqmodel", "auto_gptq", "awq", "hqq", "compressed_tensors"),
        ),
        _UNQUANTIZED,
    ),
}
"""What to do about a module, parameter or wrapper, by the package that defines it."""


def read_model(hf_model: nn.Module, architecture: str | None, name: str) -> tuple[PreTrainedConfig, str]:
    """The configuration of a loaded model, and the class of transformers that it is read as.

    The model is compared with one that transformers makes from its class and configuration: the same modules of the
    same classes, with the same settings, and weights of the same shapes. Dropout, gradient checkpointing and the
    implementation of attention may differ.

    Args:
        hf_model: The model.
        architecture: The class to read it as; by default its own.
        name: The model's name, for messages.

    Raises:
        ModelError: for anything but an encoder from transformers; for a class derived from one, unless `architecture`
            names the base class; and for modules, settings, hooks or weights that the class does not have.
    """
    if not isinstance(hf_model, PreTrainedModel):
        raise ModelError(
            f"{_kind(hf_model)} is not a model of transformers. {_advice(hf_model) or 'Give one, or a model folder.'}"
        )
    hf_class = _class_of(hf_model, architecture)
    check_supported(hf_model.config, hf_class.__name__)
    head_of(hf_class.__name__)
    raw = hf_model.config.to_dict()
    if isinstance(raw.get("id2label"), dict):
        raw["id2label"] = {str(index): label for index, label in raw["id2label"].items()}
    config = config_of(raw, hf_class, name)
    # On the meta device no weights are allocated.
    with torch.device("meta"):
        plain = hf_class(config)
    _check_modules(hf_model, plain)
    _check_weights(hf_model, plain)
    return config, hf_class.__name__


def _class_of(hf_model: PreTrainedModel, architecture: str | None) -> type[PreTrainedModel]:
    """The class of transformers that a model is read as."""
    own = type(hf_model)
    if architecture is not None:
        asked = getattr(transformers, architecture, None)
        if not isinstance(asked, type) or asked not in own.__mro__:
            raise ModelError(
                f"The model is a {own.__name__}, so it cannot be read as {architecture!r}. Choose its own class or "
                "the class of transformers that it is derived from."
            )
        return asked
    if getattr(transformers, own.__name__, None) is own:
        return own
    readable = {hf_class for classes in CLASSES.values() for hf_class in classes}
    bases = [base.__name__ for base in own.__mro__ if getattr(transformers, base.__name__, None) is base]
    base = next((base for base in bases if base in readable), None)
    if base is None:
        raise ModelError(
            f"{_kind(hf_model)} is not a class of transformers that negprobe reads. Give a …ForMaskedLM, "
            "…ForSequenceClassification or …Model of a supported type."
        )
    raise ModelError(
        f"{_kind(hf_model)} is not {base} of transformers but a class derived from it, so its outputs may differ. "
        f"If it computes the same, pass architecture={base!r} to read it as that class."
    )


def _check_modules(hf_model: PreTrainedModel, plain: PreTrainedModel) -> None:
    """Refuse a model whose modules differ from those of `plain` in class or settings."""
    given, expected = (_parts(dict(model.named_modules(remove_duplicate=False)), plain) for model in (hf_model, plain))
    for path in given | expected:
        where = path or "the model"
        if path not in expected:
            # Parts that a derived class adds are left out when it is read as its base class.
            if type(hf_model) is not type(plain) and path.split(".")[0] not in dict(plain.named_children()):
                continue
            raise _otherwise(where, f"has {_kind(given[path])}, which its class and configuration do not", given[path])
        if path not in given:
            raise _otherwise(where, "is missing", None)
        module, wanted = given[path], expected[path]
        # An Identity in place of a dropout changes nothing in evaluation mode.
        replaced = path and type(module) is not type(wanted)
        if replaced and not (isinstance(wanted, nn.Dropout) and type(module) is nn.Identity):
            raise _otherwise(where, f"is {_kind(module)}, not {type(wanted).__name__}", module)
        _check_module(where, module, wanted)


def _check_module(where: str, module: nn.Module, wanted: nn.Module) -> None:
    for attribute in vars(module).keys() - vars(wanted).keys():
        if callable(getattr(type(module), attribute, None)):
            raise _otherwise(where, f"has another {attribute}, set on the module itself", None)
    for attribute, expected in vars(wanted).items():
        value = getattr(module, attribute, None)
        compared = attribute not in _HARMLESS and not attribute.startswith("_")
        if compared and (_is_setting(expected) or _is_setting(value)) and value != expected:
            raise _otherwise(where, f"has {attribute} = {value!r}, not {expected!r}", None)
    for hook in (*module._forward_pre_hooks.values(), *module._forward_hooks.values()):
        made_by = getattr(hook, "__module__", None) or type(hook).__module__
        if made_by.startswith("torch.nn.utils.prune"):
            raise _otherwise(where, "is pruned", None, "Make it permanent first: prune.remove(module, 'weight').")
        # transformers itself adds hooks to collect hidden states and attention, and to request gradients of inputs.
        if not made_by.startswith("transformers."):
            raise _otherwise(where, "has a forward hook, which may change its output", None, "Remove the hook first.")


def _check_weights(hf_model: PreTrainedModel, plain: PreTrainedModel) -> None:
    """Refuse weights that are missing, of another shape, or anything but plain floats."""
    given = dict(_tensors(hf_model))
    expected = dict(_tensors(plain))
    for path, wanted in _parts(expected, plain).items():
        if path not in given:
            raise _otherwise(path, "is missing", None)
        tensor = given[path]
        if type(tensor) is not type(wanted):
            raise _otherwise(path, f"is {_kind(tensor)}, not a {type(wanted).__name__}", tensor)
        if tensor.is_meta:
            advice = "Load the whole model into memory, without device_map."
            raise _otherwise(path, "is on the meta device, without values", None, advice)
        if tensor.dtype not in FLOAT_DTYPES:
            dtype = str(tensor.dtype).removeprefix("torch.")
            raise _otherwise(path, f"is {dtype}; only floating-point weights are read", None, _UNQUANTIZED)
        if tensor.shape != wanted.shape:
            raise _otherwise(path, f"has shape {list(tensor.shape)}, not {list(wanted.shape)}", None)
    for path in _parts(given, plain):
        if path not in expected and path.rpartition(".")[0] in dict(plain.named_modules()):
            raise _otherwise(path, "is a weight that its class and configuration do not have", None)


def _tensors(model: PreTrainedModel) -> Iterator[tuple[str, Tensor]]:
    """All parameters and saved buffers; tied ones appear under each of their names."""
    saved = model.state_dict().keys()
    for path, module in model.named_modules(remove_duplicate=False):
        for own, tensor in (*module._parameters.items(), *module._buffers.items()):
            full = f"{path}.{own}" if path else own
            if tensor is not None and (full in saved or isinstance(tensor, nn.Parameter)):
                yield full, tensor


def _parts(named: dict[str, Any], plain: PreTrainedModel) -> dict[str, Any]:
    """The entries of `named` that belong to parts negprobe reads."""
    reads_pooler = head_of(type(plain).__name__) == "classification"
    unused = [part for part in _UNUSED if not (part == "pooler" and reads_pooler)]
    prefix = f"{plain.base_model_prefix}."
    return {
        path: value
        for path, value in named.items()
        if not any(f"{path.removeprefix(prefix)}.".startswith(f"{part}.") for part in unused)
    }


def _is_setting(value: object) -> bool:
    return isinstance(value, (bool, int, float, FunctionType, BuiltinFunctionType))


def _kind(thing: object) -> str:
    """The full name of a thing's class."""
    return f"{type(thing).__module__}.{type(thing).__qualname__}"


def _advice(thing: object) -> str:
    package = "torch.nn.utils.parametrize" if _is_parametrized(thing) else type(thing).__module__
    return next((advice for prefix, advice in _ADVICE.items() if f"{package}.".startswith(f"{prefix}.")), "")


def _is_parametrized(thing: object) -> bool:
    return isinstance(thing, nn.Module) and parametrize.is_parametrized(thing)


def _otherwise(where: str, what: str, culprit: object, advice: str = "") -> ModelError:
    advice = advice or _advice(culprit) or "Give the model as transformers makes it from its configuration."
    return ModelError(f"In the Hugging Face model, {where} {what}. {advice}")
