"""Models without the wrappers of distributed training."""

from __future__ import annotations

from mmengine.model import is_model_wrapper
from torch import nn


def unwrap(model: nn.Module) -> nn.Module:
    """What a wrapper for distributed training holds; the model itself when there is no wrapper."""
    return model.get_submodule("module") if is_model_wrapper(model) else model
