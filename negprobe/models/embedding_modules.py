"""The modules of a sentence-transformers folder that make an embedding from the last hidden states."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

from torch import Tensor, nn

from negprobe.base.errors import ModelError
from negprobe.base.texts import quoted
from negprobe.models.config import ACTIVATIONS, DenseStep, EmbeddingStep, LayerNormStep, NormalizeStep, Pooling
from negprobe.models.folder import read_json, read_tensors
from negprobe.models.sentence_settings import HARMLESS, LENGTH, SWITCH, Values, check, one_of

_CONFIG, _WEIGHTS = "config.json", "model.safetensors"

# In the order in which sentence-transformers concatenates the poolings of older folders.
_SWITCHES: dict[str, Pooling] = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
_POOLING_KEYS = {
    "embedding_dimension": LENGTH,
    "word_embedding_dimension": LENGTH,
    "pooling_mode": HARMLESS,  # checked together with the switches of older folders
    **dict.fromkeys(_SWITCHES, SWITCH),
    "include_prompt": SWITCH,
}

# Folders name the class by its full path, such as torch.nn.modules.activation.Tanh.
_ACTIVATIONS = {f"{place}.{name}": name for name in ACTIVATIONS for place in ("torch.nn", getattr(nn, name).__module__)}

_SENTENCE_EMBEDDING = {
    "module_input_name": one_of("sentence_embedding"),
    "module_output_name": one_of("sentence_embedding", None),
}
_KEYS: dict[str, dict[str, Values]] = {
    "Dense": {
        "in_features": LENGTH,
        "out_features": LENGTH,
        "bias": SWITCH,
        "activation_function": Values(
            lambda value: isinstance(value, str) and value in _ACTIVATIONS,
            f"these of torch.nn: {', '.join(ACTIVATIONS)}",
        ),
        "use_residual": SWITCH,
        **_SENTENCE_EMBEDDING,
    },
    "LayerNorm": {"dimension": LENGTH},
    "Normalize": _SENTENCE_EMBEDDING,
    # It does nothing outside training.
    "Dropout": {"dropout": HARMLESS},
}
_REQUIRED = {"Dense": ("in_features", "out_features"), "LayerNorm": ("dimension",)}

MODULES_AFTER_POOLING = tuple(_KEYS)
"""The kinds of modules that may follow the Pooling, in any order."""


@dataclass(frozen=True)
class EmbeddingModules:
    """How the last hidden states become one embedding.

    Attributes:
        pooling: The pooling, or several whose embeddings are concatenated.
        width: The width of the pooled states, if the folder specifies it.
        include_prompt: Whether the tokens of a prompt are pooled.
        steps: What is applied to the pooled embedding, in order.
        normalize: Whether the embedding is then scaled to length 1.
        weights: The parameters of the steps, by their names in a `HookedEncoder`.
    """

    pooling: Pooling | tuple[Pooling, ...] = "mean"
    width: int | None = None
    include_prompt: bool = True
    steps: tuple[EmbeddingStep, ...] = ()
    normalize: bool = False
    weights: Mapping[str, Tensor] = field(default_factory=dict)


def read_embedding_modules(folder: Path, modules: Sequence[tuple[str, str]], name: str) -> EmbeddingModules:
    """The Pooling module of a folder and the modules after it.

    Args:
        folder: The model's folder.
        modules: The kind and the subfolder of each module, the Pooling first; the others are in
            `MODULES_AFTER_POOLING`.
        name: The model's name, for messages.

    Raises:
        ModelError: for broken files, for settings that negprobe does not support, and for weights that are missing, not
            in safetensors, or do not fit their module's settings.
    """
    pooling, width, include_prompt = _read_pooling(folder, modules[0][1], name)
    read = [step for kind, path in modules[1:] if (step := _read_step(folder, kind, path, name)) is not None]
    normalize = bool(read) and isinstance(read[-1][0], NormalizeStep)
    if normalize:
        read.pop()
    weights = {
        f"embedding_head.steps.{index}.{key}": tensor
        for index, (_, tensors) in enumerate(read)
        for key, tensor in tensors.items()
    }
    return EmbeddingModules(pooling, width, include_prompt, tuple(step for step, _ in read), normalize, weights)


def _read_pooling(folder: Path, path: str, name: str) -> tuple[Pooling | tuple[Pooling, ...], int | None, bool]:
    """The poolings of a Pooling module, the width of what it pools, if given, and whether it pools a prompt."""
    file = str(Path(path, _CONFIG))
    settings = read_json(folder, file, dict, name)
    check(settings, _POOLING_KEYS, file, name)
    # Older folders have a switch for each mode; newer ones list the names of the modes. Without any, it is the mean.
    switched = [mode for switch, mode in _SWITCHES.items() if settings.get(switch, False)]
    given = settings.get("pooling_mode", switched or ("mean" if settings else None))
    modes = given if isinstance(given, list) else [given]
    if not modes or not all(isinstance(mode, str) and mode in get_args(Pooling) for mode in modes):
        raise ModelError(
            f"{file} of {name!r} has pooling_mode = {quoted(given)}; negprobe supports one or several of "
            f"{', '.join(get_args(Pooling))}. Choose a model with one of them."
        )
    widths = {settings[key] for key in ("embedding_dimension", "word_embedding_dimension") if key in settings}
    if len(widths) > 1:
        raise ModelError(
            f"{file} of {name!r} has different values for embedding_dimension and word_embedding_dimension."
        )
    pooling = modes[0] if len(modes) == 1 else tuple(modes)
    return pooling, next(iter(widths), None), settings.get("include_prompt", True)


def _settings(folder: Path, kind: str, path: str, name: str) -> dict[str, Any]:
    """The settings of a module after the Pooling; older versions wrote none for some kinds."""
    file = str(Path(path, _CONFIG))
    required = _REQUIRED.get(kind, ())
    settings = read_json(folder, file, dict, name) if required or os.path.lexists(folder / file) else {}
    check(settings, _KEYS[kind], file, name)
    missing = [key for key in required if key not in settings]
    if missing:
        raise ModelError(f"{file} of {name!r} has no {missing[0]}, which a {kind} module needs. Download it again.")
    return settings


def _read_step(folder: Path, kind: str, path: str, name: str) -> tuple[EmbeddingStep, dict[str, Tensor]] | None:
    """A module after the Pooling, and its parameters by the names that they have in `heads`; None for a Dropout."""
    settings = _settings(folder, kind, path, name)
    if kind == "Dropout":
        return None
    if kind == "Normalize":
        return NormalizeStep(), {}
    if kind == "LayerNorm":
        width = settings["dimension"]
        stored = _read_weights(folder, path, {"norm.weight": (width,), "norm.bias": (width,)}, name)
        return LayerNormStep(width), {"w": stored["norm.weight"], "b": stored["norm.bias"]}
    step = DenseStep(
        d_in=settings["in_features"],
        d_out=settings["out_features"],
        bias=settings.get("bias", True),
        act_fn=_ACTIVATIONS[settings.get("activation_function", "torch.nn.Tanh")],
        residual=settings.get("use_residual", False),
    )
    shapes: dict[str, tuple[int, ...]] = {"linear.weight": (step.d_out, step.d_in)}
    if step.bias:
        shapes["linear.bias"] = (step.d_out,)
    if step.residual and step.d_in != step.d_out:
        shapes["residual.weight"] = (step.d_out, step.d_in)
    stored = _read_weights(folder, path, shapes, name)
    weights = {"W": stored["linear.weight"].T}
    if "linear.bias" in stored:
        weights["b"] = stored["linear.bias"]
    if "residual.weight" in stored:
        weights["W_residual"] = stored["residual.weight"].T
    return step, weights


def _read_weights(folder: Path, path: str, shapes: Mapping[str, tuple[int, ...]], name: str) -> dict[str, Tensor]:
    """The weights of a module, which must have exactly these names and shapes."""
    file = Path(path, _WEIGHTS)
    if not os.path.lexists(folder / file):
        raise ModelError(
            f"{name!r} has no {file}, and negprobe reads safetensors only, because loading other formats can run code. "
            "Load the model once with sentence-transformers and call save_pretrained() to convert it."
        )
    _, stored, others = read_tensors(folder / file, folder, name)
    found = {key: tuple(tensor.shape) for key, tensor in stored.items()} | others
    if found != shapes:
        raise ModelError(
            f"{file} of {name!r} has the weights {_shown(found)}, but its {_CONFIG} (in_features, out_features, bias, "
            f"use_residual, dimension) needs {_shown(shapes)}. Download both files again."
        )
    return stored


def _shown(weights: Mapping[str, object]) -> str:
    return ", ".join(f"{key} {value}" for key, value in sorted(weights.items())) or "none"
