"""Stands in for mmcv's compiled ops, which mmcv-lite does not have; ``glean_ext.compat`` puts it in their place."""

from __future__ import annotations

import functools
import importlib.machinery
from collections.abc import Callable
from types import ModuleType
from typing import TYPE_CHECKING, NoReturn

from glean_ext.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

MMCV_OPS = "mmcv._ext"  # the module of compiled ops, absent from mmcv-lite


def upfirdn2d(
    input: Tensor,
    filter: Tensor,
    upx: int,
    upy: int,
    downx: int,
    downy: int,
    padx0: int,
    padx1: int,
    pady0: int,
    pady1: int,
    flip: bool,
    gain: float,
) -> Tensor:
    """Insert zeros, pad, filter and decimate, as mmcv's kernel of that name.

    Args:
        input: (N, C, H, W)
        filter: (kh, kw), applied to every channel.
        upx, upy: Zero-insertion factors: ``up - 1`` zeros after each pixel.
        downx, downy: Of the filtered image every ``down``-th pixel is kept.
        padx0, padx1, pady0, pady1: Zeros left, right, above and below; a negative value crops.
        flip: False for a convolution, True for a correlation.
        gain: Multiplies the result.

    Returns:
        (N, C, H', W') of the dtype of ``input``, with ``H' = (H * upy + pady0 + pady1 - kh) // downy + 1``.
    """
    import torch
    import torch.nn.functional as F

    n, c, h, w = input.shape
    x = input
    if upx > 1 or upy > 1:
        x = F.pad(x.reshape(n, c, h, 1, w, 1), (0, upx - 1, 0, 0, 0, upy - 1)).reshape(n, c, h * upy, w * upx)
    x = F.pad(x, (padx0, padx1, pady0, pady1))
    weight = gain * (filter if flip else filter.flip(0, 1))
    weight = weight.to(x.dtype).expand(c, 1, -1, -1)  # one group a channel: never TF32
    with torch.autocast(x.device.type, enabled=False):  # autocast does not touch the compiled op either
        return F.conv2d(x, weight, stride=(downy, downx), groups=c)


def fused_bias_leakyrelu(
    input: Tensor, bias: Tensor, refer: Tensor, act: int, grad: int, alpha: float, scale: float
) -> Tensor:
    """``scale * leaky_relu(input + bias)`` or its derivative, as mmcv's kernel of that name.

    Args:
        input: (N, C, ...): the features, or what is multiplied with the derivative.
        bias: (C,), or empty for none.
        refer: Shape of ``input``: the output of the forward call, which says where the slope applies. Empty for
            ``grad=0``.
        act: 3, leaky ReLU.
        grad: 0 for the function, 1 for its derivative. The second derivative is zero, and no wrapper needs it.
        alpha: Slope below zero.
        scale: Multiplies the result.

    Returns:
        Shape of ``input``.
    """
    import torch

    if act != 3 or grad not in (0, 1):
        raise ValueError(f"fused_bias_leakyrelu has act=3 with grad=0 or 1, not act={act} with grad={grad}")
    x = input + bias.reshape(1, -1, *[1] * (input.ndim - 2)) if bias.numel() else input
    sign = refer if grad else x
    return torch.where(sign > 0, x, x * alpha) * scale


class MMCVOps(ModuleType):
    """Stands in for ``mmcv._ext``: the ops of MMagic's StyleGAN networks in PyTorch, for any device.

    mmcv's wrappers use them for CUDA tensors and build the first and second derivatives out of them. ``hasattr`` is
    true for every other op, as mmcv asserts that at import; calling one raises InputError.

    Its ``__spec__`` has no loader, so that mmengine's ``mmcv_full_available()`` answers False, which is the truth.
    """

    upfirdn2d = staticmethod(upfirdn2d)
    fused_bias_leakyrelu = staticmethod(fused_bias_leakyrelu)

    def __init__(self) -> None:
        super().__init__(MMCV_OPS, "Stand-in for mmcv's compiled ops, made by glean_ext.")
        self.__spec__ = importlib.machinery.ModuleSpec(MMCV_OPS, loader=None)
        self.__package__ = "mmcv"

    @staticmethod
    def get_compiler_version() -> str:
        """What mmcv's ``collect_env`` prints where nothing was compiled."""
        return "n/a"

    get_compiling_cuda_version = get_compiler_version

    def __getattr__(self, name: str) -> Callable[..., NoReturn]:
        if name.startswith("_"):
            raise AttributeError(f"module {MMCV_OPS!r} has no attribute {name!r}")
        return functools.partial(_refuse, name)


def _refuse(op: str, *args: object, **kwargs: object) -> NoReturn:
    raise InputError(
        f"The op {op!r} needs mmcv's compiled ops, which mmcv-lite does not have. Put the full mmcv in its place: "
        "pip uninstall mmcv-lite, then pip install --no-build-isolation 'mmcv>=2.0,<2.2'."
    )
