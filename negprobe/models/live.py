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
from negprobe.models.convert import check_supported, head_of
from negprobe.models.families import FAMILIES
from negprobe.models.folder import config_of

_OF_CLASSIFIERS = ("pooler", "pooler_activation", "cls.seq_relationship")
_UNUSED = (*_OF_CLASSIFIERS, "sop_classifier", "discriminator_predictions")
"""Modules that no supported head uses, but that a classifier uses if they are among the first, and it has them."""

_HARMLESS = {
    "training",
    "gradient_checkpointing",
    "chunk_size_feed_forward",
    "layer_idx",
    "padding_idx",
    "p",
    "inplace",
    "attention_dropout",
    "deterministic_flash_attn",
    "sparse_prediction",
    "sparse_pred_ignore_index",
}
"""Module attributes that affect training, memory or bookkeeping, but no value in evaluation mode."""

FLOAT_DTYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16)

_MERGE = "Merge the adapter first: model = peft_model.merge_and_unload()."
_UNQUANTIZED = "Load the model without quantization_config, or load the original, unquantized model."
_ADVICE = {
    "peft": _MERGE,
    "adapters": "Merge the adapter first: model.merge_adapter().",
    "sentence_transformers": "Save it with save_pretrained() and give the folder.",
    "torch.nn.parallel": "Give the wrapped model: model.module.",
    "torch._dynamo": "Give the original model: model._orig_mod.",
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
    """The configuration of a loaded model, and the transformers class that it is read as.

    The model is compared with one that transformers creates from its class and configuration: both must have the same
    modules of the same classes, the same settings, and weights of the same shapes. Dropout, gradient checkpointing and
    the implementation of attention may differ.

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
            f"{_class_name(hf_model)} is not a transformers model. "
            f"{_advice(hf_model) or 'Give a transformers model or a model folder.'}"
        )
    hf_class = _class_of(hf_model, architecture)
    check_supported(hf_model.config, hf_class.__name__)
    head_of(hf_class.__name__)
    raw = hf_model.config.to_dict()
    if isinstance(raw.get("id2label"), dict):
        raw["id2label"] = {str(index): label for index, label in raw["id2label"].items()}
    config = config_of(raw, hf_class, name)
    # The meta device allocates no weights.
    with torch.device("meta"):
        plain = hf_class(config)
    _check_modules(hf_model, plain)
    _check_weights(hf_model, plain)
    _check_rotations(hf_model, config)
    return config, hf_class.__name__


def _class_of(hf_model: PreTrainedModel, architecture: str | None) -> type[PreTrainedModel]:
    """The transformers class that a model is read as."""
    own = type(hf_model)
    if architecture is not None:
        requested = getattr(transformers, architecture, None)
        if not isinstance(requested, type) or requested not in own.__mro__:
            raise ModelError(
                f"The model is a {own.__name__}, so it cannot be read as {architecture!r}. Choose its own class or "
                "the transformers class that it is derived from."
            )
        return requested
    if getattr(transformers, own.__name__, None) is own:
        return own
    readable = {hf_class for family in FAMILIES.values() for hf_class in family.classes}
    bases = [base.__name__ for base in own.__mro__ if getattr(transformers, base.__name__, None) is base]
    base = next((base for base in bases if base in readable), None)
    if base is None:
        raise ModelError(
            f"{_class_name(hf_model)} is not a transformers class that negprobe supports. Give a …ForMaskedLM, "
            "…ForSequenceClassification or …Model of a supported model type."
        )
    raise ModelError(
        f"{_class_name(hf_model)} is derived from transformers' {base}, so its outputs may differ. If they do not, "
        f"pass architecture={base!r} to read it as that class."
    )


def _check_modules(hf_model: PreTrainedModel, plain: PreTrainedModel) -> None:
    """Check that a model has the same modules as `plain`, with the same classes and settings."""
    given, expected = (
        _used_parts(dict(model.named_modules(remove_duplicate=False)), plain) for model in (hf_model, plain)
    )
    for path in given | expected:
        where = path or "the model"
        if path not in expected:
            # Modules that a derived class adds are ignored when it is read as its base class.
            if type(hf_model) is not type(plain) and path.split(".")[0] not in dict(plain.named_children()):
                continue
            added = f"has a {_class_name(given[path])}, which its class and configuration do not define"
            raise _mismatch(where, added, given[path])
        if path not in given:
            raise _mismatch(where, "is missing", None)
        module, wanted = given[path], expected[path]
        # An Identity in place of a dropout, or the reverse, changes nothing in evaluation mode.
        is_replaced = path and type(module) is not type(wanted)
        is_idle = isinstance(wanted, (nn.Dropout, nn.Identity)) and type(module) in (nn.Dropout, nn.Identity)
        if is_replaced and not is_idle:
            raise _mismatch(where, f"is {_class_name(module)}, not {type(wanted).__name__}", module)
        _check_module(where, module, wanted)


def _check_module(where: str, module: nn.Module, wanted: nn.Module) -> None:
    for attribute in vars(module).keys() - vars(wanted).keys():
        if callable(getattr(type(module), attribute, None)):
            raise _mismatch(where, f"has its own {attribute}, which replaces that of its class", None)
    for attribute, expected in vars(wanted).items():
        value = getattr(module, attribute, None)
        compared = attribute not in _HARMLESS and not attribute.startswith("_")
        if compared and (_is_setting(expected) or _is_setting(value)) and value != expected:
            raise _mismatch(where, f"has {attribute} = {value!r}, not {expected!r}", None)
    for hook in (*module._forward_pre_hooks.values(), *module._forward_hooks.values()):
        made_by = getattr(hook, "__module__", None) or type(hook).__module__
        if made_by.startswith("torch.nn.utils.prune"):
            raise _mismatch(
                where, "is pruned", None, "Make the pruning permanent first: prune.remove(module, 'weight')."
            )
        # transformers itself adds harmless hooks, which collect hidden states or request gradients of inputs.
        if not made_by.startswith("transformers."):
            raise _mismatch(where, "has a forward hook, which may change its output", None, "Remove the hook.")


def _check_weights(hf_model: PreTrainedModel, plain: PreTrainedModel) -> None:
    """Check that all weights exist, have the expected shapes and are plain floating-point tensors."""
    given = dict(_tensors(hf_model))
    expected = dict(_tensors(plain))
    for path, wanted in _used_parts(expected, plain).items():
        if path not in given:
            raise _mismatch(path, "is missing", None)
        tensor = given[path]
        if type(tensor) is not type(wanted):
            raise _mismatch(path, f"is {_class_name(tensor)}, not a {type(wanted).__name__}", tensor)
        if tensor.is_meta:
            advice = "Load the whole model into memory, without device_map."
            raise _mismatch(path, "is on the meta device and has no values", None, advice)
        if tensor.dtype not in FLOAT_DTYPES:
            dtype = str(tensor.dtype).removeprefix("torch.")
            raise _mismatch(path, f"is {dtype}, but only floating-point weights are supported", None, _UNQUANTIZED)
        if tensor.shape != wanted.shape:
            raise _mismatch(path, f"has shape {list(tensor.shape)}, not {list(wanted.shape)}", None)
    for path in _used_parts(given, plain):
        if path not in expected and path.rpartition(".")[0] in dict(plain.named_modules()):
            raise _mismatch(path, "is a weight that its class and configuration do not define", None)


def _check_rotations(hf_model: PreTrainedModel, config: PreTrainedConfig) -> None:
    """Check that the frequencies of rotary positions, which are not saved, are those of the configuration."""
    for path, module in hf_model.named_modules():
        given = {name: value for name, value in module.named_buffers(recurse=False) if name.endswith("inv_freq")}
        # The class has been compared with that of transformers' own model.
        expected = dict(type(module)(config).named_buffers()) if given else {}
        for name, value in given.items():
            if not torch.equal(value.cpu(), expected[name].to(value.dtype)):
                advice = "Load the model again; its frequencies must not be rounded, or changed after it is made."
                raise _mismatch(f"{path}.{name}", "is not what its configuration gives", None, advice)


def _tensors(model: PreTrainedModel) -> Iterator[tuple[str, Tensor]]:
    """All parameters and saved buffers by name; tied ones appear under each of their names."""
    saved = model.state_dict().keys()
    for path, module in model.named_modules(remove_duplicate=False):
        for own, tensor in (*module._parameters.items(), *module._buffers.items()):
            full = f"{path}.{own}" if path else own
            if tensor is not None and (full in saved or isinstance(tensor, nn.Parameter)):
                yield full, tensor


def _used_parts(named: dict[str, Any], plain: PreTrainedModel) -> dict[str, Any]:
    """The entries of `named` that belong to modules which negprobe uses."""
    reads_first = head_of(type(plain).__name__) == "classification"
    unused = [part for part in _UNUSED if not (part in _OF_CLASSIFIERS and reads_first)]
    prefix = f"{plain.base_model_prefix}."
    return {
        path: value
        for path, value in named.items()
        if not any(f"{path.removeprefix(prefix)}.".startswith(f"{part}.") for part in unused)
    }


def _is_setting(value: object) -> bool:
    return isinstance(value, (bool, int, float, FunctionType, BuiltinFunctionType))


def _class_name(instance: object) -> str:
    """The full name of an object's class."""
    return f"{type(instance).__module__}.{type(instance).__qualname__}"


def _advice(instance: object) -> str:
    package = "torch.nn.utils.parametrize" if _is_parametrized(instance) else type(instance).__module__
    return next((advice for prefix, advice in _ADVICE.items() if f"{package}.".startswith(f"{prefix}.")), "")


def _is_parametrized(instance: object) -> bool:
    return isinstance(instance, nn.Module) and parametrize.is_parametrized(instance)


def _mismatch(where: str, difference: str, culprit: object, advice: str = "") -> ModelError:
    advice = advice or _advice(culprit) or "Give an unmodified model, as transformers loads it."
    return ModelError(f"In the Hugging Face model, {where} {difference}. {advice}")
