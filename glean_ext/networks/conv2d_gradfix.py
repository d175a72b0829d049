"""Convolutions whose gradients take no more memory and time than they must; values and derivatives are PyTorch's.

PyTorch's keeps its input for the weight's gradient even if nobody asks for that: in training GLEAN the bank, every FIR
filter and, while the generator learns, the discriminator are frozen. And on a CPU with AVX2 at best, oneDNN takes two
to five times as long for the gradient of a weight when the images lie channels-last, though all else is faster so.
"""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Conv2d(nn.Conv2d):
    """``nn.Conv2d``, computed by :func:`convolution`; with one stride and one zero padding, without dilation."""

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return convolution(input, weight, bias, self.stride[0], int(self.padding[0]), self.groups)


class _How(NamedTuple):
    stride: int
    padding: int
    groups: int
    transposed: bool
    scale: float


def convolution(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int = 1,
    padding: int = 0,
    groups: int = 1,
    transposed: bool = False,
    scale: float = 1.0,
) -> Tensor:
    """``F.conv2d`` or, with ``transposed``, ``F.conv_transpose2d``; derivatives of any order exist.

    Args:
        x: (N, C, H, W)
        weight: As those functions have it.
        bias: (O,)
        stride: On both axes.
        padding: On both axes.
        groups: Groups of channels.
        transposed: Take the transposed convolution.
        scale: Factor of the weight.
    """
    how = _How(stride, padding, groups, transposed, scale)
    frozen = x.requires_grad and not weight.requires_grad
    if torch.is_grad_enabled() and (frozen or (weight.requires_grad and _weight_gradient_is_slow(x))):
        return _Convolution.apply(x, weight, bias, how)
    return _convolution(x, weight, bias, how)


def _weight_gradient_is_slow(x: Tensor) -> bool:
    half = x.dtype.itemsize < 4 or torch.is_autocast_enabled(x.device.type)
    return x.device.type == "cpu" and not half and not x.is_contiguous() and _no_avx512()


@cache
def _no_avx512() -> bool:
    return torch.backends.cpu.get_cpu_capability() in ("DEFAULT", "AVX2")


def _convolution(x: Tensor, weight: Tensor, bias: Tensor | None, how: _How) -> Tensor:
    function = F.conv_transpose2d if how.transposed else F.conv2d
    weight = weight if how.scale == 1 else weight * how.scale
    return function(x, weight, bias, stride=how.stride, padding=how.padding, groups=how.groups)


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, how: _How) -> Tensor:
        # the weight without its scale, so that this is no copy
        ctx.save_for_backward(weight, x if ctx.needs_input_grad[1] else None)
        ctx.how, ctx.size, ctx.dtype = how, x.shape[2:], x.dtype
        return _convolution(x, weight, bias, how)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (weight, x), (grad,) = ctx.saved_tensors, grads
        weight = weight.to(grad.dtype)  # the forward pass may have run under autocast
        of_x, of_weight, of_bias, _ = ctx.needs_input_grad
        return (
            _input_gradient(grad, weight, ctx.size, ctx.how).to(ctx.dtype) if of_x else None,
            _weight_gradient(grad, weight, x, ctx.how) if of_weight else None,
            grad.sum((0, 2, 3)) if of_bias else None,
            None,
        )


def _input_gradient(grad: Tensor, weight: Tensor, size: torch.Size, how: _How) -> Tensor:
    if how.transposed:
        return convolution(grad, weight, None, how.stride, how.padding, how.groups, scale=how.scale)
    # what the stride leaves over at the end, so that the gradient has the size of the input
    sides = zip(size, weight.shape[2:], strict=True)
    left = [(side + 2 * how.padding - kernel) % how.stride for side, kernel in sides]
    return F.conv_transpose2d(grad, weight * how.scale, None, how.stride, how.padding, left, how.groups)


def _weight_gradient(grad: Tensor, weight: Tensor, x: Tensor, how: _How) -> Tensor:
    grad, x, weight = (t.contiguous() for t in (grad, x, weight))
    pairs = [[value, value] for value in (how.stride, how.padding, 1)]  # the last is the dilation
    _, gradient, _ = torch.ops.aten.convolution_backward(
        grad, x, weight, None, *pairs, how.transposed, [0, 0], how.groups, [False, True, False]
    )
    return gradient * how.scale
