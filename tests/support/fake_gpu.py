"""Tensors that behave as if they lay on a GPU, for machines without one."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from mmengine.runner import runner
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_map

CPU_ONLY = ("numpy", "__array__")
MOVES = ("cpu", "to", "copy_", "__set__", "clone", "detach")  # what may join tensors of two devices, or moves them


class FakeGPUTensor(Tensor):
    """Has no ``numpy()``, and does not meet tensors of the CPU in one operation, until ``cpu()`` is called.

    The values are on the CPU, as is the model, so ``to(<device of the model>)`` gives an ordinary tensor, too.
    0-dimensional tensors of the CPU may take part in operations, as with a GPU.
    """

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = getattr(func, "__name__", "")
        tensors = [x for x in tree_flatten((args, kwargs or {}))[0] if isinstance(x, Tensor)]
        if name in CPU_ONLY:
            raise TypeError("can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu() first.")
        if name not in MOVES and any(type(x) is Tensor and x.ndim for x in tensors):
            raise RuntimeError(f"Expected all tensors to be on the same device, but found cuda:0 and cpu in {name}.")
        result = super().__torch_function__(func, types, args, kwargs or {})
        if name == "cpu" or (name == "to" and "cpu" in map(str, [*args[1:], *(kwargs or {}).values()])):
            return tree_map(lambda x: x.as_subclass(Tensor) if isinstance(x, Tensor) else x, result)
        return result


def on_fake_gpu(content: Any) -> Any:
    """``content`` with every tensor in it on the fake GPU, as ``torch.load(..., map_location='cuda')`` would give."""
    if isinstance(content, Tensor):
        return content.as_subclass(FakeGPUTensor)
    if isinstance(content, dict):
        return type(content)((key, on_fake_gpu(value)) for key, value in content.items())
    if isinstance(content, (list, tuple)):
        return type(content)(map(on_fake_gpu, content))
    return content


def load_to_fake_gpu(patch: pytest.MonkeyPatch) -> None:
    """Let mmengine's runner load checkpoints to the fake GPU."""
    load, set_state = runner._load_checkpoint, torch.set_rng_state

    def set_rng_state(state: Tensor) -> None:
        if isinstance(state, FakeGPUTensor):
            raise TypeError("RNG state must be a torch.ByteTensor")
        set_state(state)

    patch.setattr(torch, "set_rng_state", set_rng_state)
    patch.setattr(runner, "_load_checkpoint", lambda *args, **kwargs: on_fake_gpu(load(*args, **kwargs)))
