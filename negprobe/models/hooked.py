"""Whether external code runs inside the model's modules."""

from torch import nn
from torch.nn.modules import module as torch_module


def is_hooked(*modules: nn.Module) -> bool:
    """Whether external code runs when one of the modules, or a module inside it, is called.

    A shortcut that computes a module's output without calling the module would skip such code, so it is allowed only if
    this is False. External code is any TransformerLens or PyTorch hook, forward or backward, a global module hook of
    PyTorch, or a `forward` that replaces the module's own.
    """
    return has_global_hooks() or any(has_own_hooks(part) for module in modules for part in module.modules())


def has_global_hooks() -> bool:
    """Whether any global module hook of PyTorch is registered."""
    return bool(
        torch_module._global_forward_pre_hooks
        or torch_module._global_forward_hooks
        or torch_module._global_backward_pre_hooks
        or torch_module._global_backward_hooks
    )


def has_own_hooks(module: nn.Module) -> bool:
    """Whether the module itself has hooks or a `forward` that replaces its own."""
    return bool(
        module._forward_pre_hooks
        or module._forward_hooks
        or module._backward_pre_hooks
        or module._backward_hooks
        or "forward" in vars(module)
        or type(module).forward.__module__.split(".", 1)[0] not in _KNOWN_PACKAGES
    )


# The packages that define the modules of a `HookedEncoder`.
_KNOWN_PACKAGES = frozenset({"negprobe", "torch", "transformer_lens", "transformers"})
