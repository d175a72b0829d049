"""Models without the wrappers of distributed training."""

from __future__ import annotations

import copy

from mmengine.model import is_model_wrapper
from torch import nn


def unwrap(model: nn.Module) -> nn.Module:
    """What a wrapper for distributed training holds; the model itself when there is no wrapper."""
    return model.get_submodule("module") if is_model_wrapper(model) else model


def view_without_wrappers(model: nn.Module) -> nn.Module:
    """``model`` with its networks unwrapped: another module with the same parameters and buffers.

    MMSeparateDistributedDataParallel gives each network of a model its own wrapper.
    """
    view = copy.copy(model)
    view._modules = {name: part if part is None else unwrap(part) for name, part in model._modules.items()}
    return view
