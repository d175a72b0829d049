"""The arithmetic of StyleGAN2 as pure functions of tensors.

Every function consists of differentiable PyTorch operations, so derivatives of any order exist (R1 regularisation needs
the second), and each works under ``torch.autocast``. Source of the definitions: Karras et al., "Analyzing and Improving
the Image Quality of StyleGAN", CVPR 2020 (section 2.2 and appendix B).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from glean_ext.networks.conv2d_gradfix import convolution
from glean_ext.networks.shapes import assert_shape


def fir_kernel(taps: Sequence[float] | Sequence[Sequence[float]], gain: float = 1.0) -> Tensor:
    """A filter (T, T) that sums to ``gain``: the outer product of ``taps`` (T,) with themselves, or ``taps`` (T, T)."""
    kernel = torch.as_tensor(taps, dtype=torch.float32)
    if kernel.ndim == 1:
        kernel = kernel[:, None] * kernel[None, :]
    assert_shape(kernel, (len(taps), len(taps)))
    return kernel * (gain / kernel.sum())


def upfirdn2d(x: Tensor, kernel: Tensor, up: int = 1, down: int = 1, pad: tuple[int, int] = (0, 0)) -> Tensor:
    """Insert ``up - 1`` zeros after each pixel, pad, convolve with an FIR kernel, keep every ``down``-th pixel.

    Args:
        x: (N, C, H, W)
        kernel: (kh, kw), applied to every channel. It is flipped (true convolution).
        up: Zero-insertion factor.
        down: Decimation factor.
        pad: Zeros before and after, on both axes; a negative value crops.

    Returns:
        (N, C, H', W') with ``H' = (H * up + pad[0] + pad[1] - kh) // down + 1``.
    """
    n, c, h, w = x.shape
    if up > 1:
        x = F.pad(x.reshape(n, c, h, 1, w, 1), (0, up - 1, 0, 0, 0, up - 1)).reshape(n, c, h * up, w * up)
    weight = kernel.to(x.dtype).flip(0, 1).expand(c, 1, -1, -1)
    before, after = pad
    if before == after >= 0:
        return convolution(x, weight, None, down, before, groups=c)
    return convolution(F.pad(x, (before, after, before, after)), weight, None, down, groups=c)


def repeat_to(x: Tensor, height: int, width: int) -> Tensor:
    """Repeat ``x`` (N, C, H, W) periodically downwards and to the right, and crop: (N, C, height, width)."""
    # An index, because a number of repeats would tie an exported graph to the sizes it was traced with.
    rows = torch.arange(height, device=x.device) % x.shape[2]
    columns = torch.arange(width, device=x.device) % x.shape[3]
    return x.index_select(2, rows).index_select(3, columns)


def bias_leaky_relu(x: Tensor, bias: Tensor, slope: float = 0.2, gain: float = math.sqrt(2)) -> Tensor:
    """``gain * leaky_relu(x + bias)``; ``bias`` (C,) belongs to dimension 1 of ``x`` (N, C, ...).

    The gain is multiplied first, which leaky ReLU allows: so training keeps one tensor for the backward pass, not two.
    """
    assert_shape(bias, (x.shape[1],))
    bias = (gain * bias).to(x.dtype).reshape(1, -1, *[1] * (x.ndim - 2))
    return F.leaky_relu(torch.add(bias, x, alpha=gain), slope, inplace=True)


EPS = 1e-8  # of demodulation


def normalized_style(style: Tensor) -> tuple[Tensor, Tensor]:
    """A style divided by its largest factor, and the ``eps`` by which :func:`demodulation` cancels that division.

    fp16 overflows past 65504, which a style times features may exceed. (N, C) -> (N, C) within [-1, 1], (N, 1)
    """
    largest = style.abs().amax(1, keepdim=True).clamp_min(1e-8)  # (N, 1)
    return style / largest, EPS / largest.square()


def demodulation(weight: Tensor, style: Tensor, eps: float | Tensor = EPS) -> Tensor:
    """The factors that bring the output of a modulated convolution back to unit variance (CVPR 2020, eq. 3).

    ``d[n, o] = 1 / sqrt(sum_i (style[n, i] * |weight[o, i]|)^2 + eps)``. They depend only on the squared sum of each
    kernel, so no weights are built image by image. They are computed in fp32, also under autocast.

    Args:
        weight: (O, C, k, k)
        style: (N, C)
        eps: Added to the squared sums; a number or (N, 1).

    Returns:
        (N, O), fp32.
    """
    with torch.autocast(style.device.type, enabled=False):
        energy = weight.float().square().sum((2, 3))  # (O, C)
        return torch.rsqrt(style.float().square() @ energy.t() + eps)


def conv2d(x: Tensor, weight: Tensor, upsample: bool = False) -> Tensor:
    """The convolution that :func:`modulated_conv2d` modulates; shapes as there."""
    if upsample:
        return convolution(x, weight.transpose(0, 1), stride=2, transposed=True)
    return convolution(x, weight, padding=weight.shape[-1] // 2)


def modulated_conv2d(
    x: Tensor, weight: Tensor, style: Tensor, demodulate: bool = True, upsample: bool = False
) -> Tensor:
    """A convolution whose input channels are scaled by a style, image by image.

    Scaling the activations before and after equals scaling the weights, and leaves one ordinary convolution
    for the whole batch.

    Args:
        x: (N, C, H, W)
        weight: (O, C, k, k), k odd.
        style: (N, C)
        demodulate: Bring the output back to unit variance (all layers but those that make RGB).
        upsample: Compute a transposed convolution of stride 2 without padding; an FIR filter has to follow.

    Returns:
        (N, O, H, W), or (N, O, 2H + k - 2, 2W + k - 2) when upsampling.
    """
    assert_shape(style, x.shape[:2])
    eps: float | Tensor = EPS
    if demodulate and x.dtype == torch.float16:
        style, eps = normalized_style(style)
    x = conv2d(x * style.to(x.dtype)[:, :, None, None], weight, upsample)
    if demodulate:
        x = x * demodulation(weight, style, eps).to(x.dtype)[:, :, None, None]
    return x
