"""A convolution that keeps nothing of its input when its weight is frozen.

PyTorch's keeps the input for the weight's gradient even if nobody asks for that. In training GLEAN the bank, every FIR
filter and, while the generator learns, the discriminator are frozen.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


def convolution(
    x: Tensor,
    weight: Tensor,
    stride: int = 1,
    padding: int = 0,
    groups: int = 1,
    transposed: bool = False,
    scale: float = 1.0,
) -> Tensor:
    """``F.conv2d`` or, with ``transposed``, ``F.conv_transpose2d``, without bias; derivatives of any order exist.

    Args:
        x: (N, C, H, W)
        weight: As those functions have it.
        stride: On both axes.
        padding: On both axes.
        groups: Groups of channels.
        transposed: Take the transposed convolution.
        scale: Factor of the weight.
    """
    if torch.is_grad_enabled() and x.requires_grad and not weight.requires_grad:
        return _FrozenConvolution.apply(x, weight, stride, padding, groups, transposed, scale)
    return _convolution(x, weight, stride, padding, groups, transposed, scale)


def _convolution(
    x: Tensor, weight: Tensor, stride: int, padding: int, groups: int, transposed: bool, scale: float
) -> Tensor:
    function = F.conv_transpose2d if transposed else F.conv2d
    return function(x, weight if scale == 1 else weight * scale, stride=stride, padding=padding, groups=groups)


class _FrozenConvolution(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, *arguments: Any) -> Tensor:
        ctx.save_for_backward(weight)  # without its scale, so that this is no copy
        ctx.arguments, ctx.size, ctx.dtype = arguments, x.shape[2:], x.dtype
        return _convolution(x, weight, *arguments)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (weight,), (grad,) = ctx.saved_tensors, grads
        stride, padding, groups, transposed, scale = ctx.arguments
        weight = weight.to(grad.dtype)  # the forward pass may have run under autocast
        if transposed:
            grad = convolution(grad, weight, stride, padding, groups, scale=scale)
        else:
            # what the stride leaves over at the end, so that the gradient has the size of the input
            sides = zip(ctx.size, weight.shape[2:], strict=True)
            left = [(side + 2 * padding - kernel) % stride for side, kernel in sides]
            grad = F.conv_transpose2d(grad, weight * scale, None, stride, padding, left, groups)
        return grad.to(ctx.dtype), *[None] * 6
