"""StyleGAN2's residual discriminator with MMagic's parameter names.

Source: Karras et al., CVPR 2020, figure 7 (residual discriminator); minibatch standard deviation from Karras et al.,
ICLR 2018, section 3. Unlike MMagic's it can be narrow, and it runs in the precision of the autocast around it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from glean_ext import checkpoints
from glean_ext.networks.augment import Augmentation
from glean_ext.networks.layers import BiasLeakyReLU, Blur, EqualizedConv2d, EqualizedLinear
from glean_ext.networks.precision import mixed_precision
from glean_ext.networks.shapes import MIN_SIZE, Size, SquarePadding, channels_by_resolution, resolutions


class ConvLayer(nn.Sequential):
    """[Blur +] convolution [+ bias and leaky ReLU]. (N, C, H, W) -> (N, O, H, W), half the size when downsampling."""

    def __init__(
        self,
        in_channels: int,  # C
        out_channels: int,  # O
        kernel_size: int,  # odd
        downsample: bool = False,  # blur, then convolve with stride 2
        activation: bool = True,  # bias and leaky ReLU at the end
        blur_kernel: Sequence[float] = (1, 3, 3, 1),  # taps of the blur
    ):
        layers: list[nn.Module] = []
        if downsample:
            surplus = len(blur_kernel) - 2 + kernel_size - 1
            layers.append(Blur(blur_kernel, pad=((surplus + 1) // 2, surplus // 2)))
        stride, padding = (2, 0) if downsample else (1, kernel_size // 2)
        layers.append(_Wrapped(EqualizedConv2d(in_channels, out_channels, kernel_size, stride, padding)))
        if activation:
            layers.append(BiasLeakyReLU(out_channels))
        super().__init__(*layers)


class _Wrapped(nn.Module):
    """One level of nesting, so that a weight is called ``conv.weight_orig`` as in MMagic."""

    def __init__(self, conv: nn.Module):
        super().__init__()
        self.conv = conv

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)


class ResidualBlock(nn.Module):
    """(N, C, H, W) -> (N, O, H/2, W/2)"""

    def __init__(self, in_channels: int, out_channels: int, blur_kernel: Sequence[float]):
        super().__init__()
        self.conv1 = ConvLayer(in_channels, in_channels, 3)
        self.conv2 = ConvLayer(in_channels, out_channels, 3, downsample=True, blur_kernel=blur_kernel)
        self.skip = ConvLayer(in_channels, out_channels, 1, downsample=True, activation=False, blur_kernel=blur_kernel)

    def forward(self, x: Tensor) -> Tensor:
        return (self.conv2(self.conv1(x)) + self.skip(x)) * math.sqrt(0.5)


def minibatch_stddev(x: Tensor, group_size: int = 4, channel_groups: int = 1, eps: float = 1e-8) -> Tensor:
    """Append the mean standard deviation over groups of images as channels: (N, C, H, W) -> (N, C + F, H, W).

    Raises:
        ValueError: N is larger than ``group_size`` and not a multiple of it.
    """
    n, c, h, w = x.shape
    group = min(n, group_size)
    if n % group:
        raise ValueError(
            f"The discriminator compares groups of {group_size} images, so a batch of {n} does not fit: "
            f"take at most {group_size} images or a multiple of {group_size} (or change mbstd_cfg)."
        )
    y = x.float().reshape(group, -1, channel_groups, c // channel_groups, h, w)  # (G, M, F, C/F, H, W)
    y = (y.var(0, unbiased=False) + eps).sqrt().mean((2, 3, 4))  # (M, F)
    y = y.repeat(group, 1)[:, :, None, None].expand(-1, -1, h, w)  # (N, F, H, W)
    return torch.cat([x, y.to(x.dtype)], dim=1)


class StyleGAN2Discriminator(nn.Module):
    """Images to realness logits: (N, 3, H, W) in [-1, 1] -> (N, 1), fp32.

    Args:
        in_size: Images of other proportions, (height, width), lie in the middle of a square
            (:class:`~glean_ext.networks.shapes.SquarePadding`); its side is a power of two.
        mbstd_cfg: ``group_size`` (images that are compared, 4) and ``channel_groups`` (statistics, 1) of the minibatch
            standard deviation.
        augment: Arguments of :class:`~glean_ext.networks.augment.Augmentation`, which changes the images in the
            training of banks.
        init_cfg: ``dict(type='Pretrained', checkpoint=..., prefix='discriminator')``; :meth:`init_weights` loads
            it strictly.

    Raises:
        ValueError: ``in_size`` is no power of two.
    """

    def __init__(
        self,
        in_size: Size,  # pixels: side of the image, a power of two from 4 on; or (height, width)
        img_channels: int = 3,  # of the image
        channel_multiplier: float = 2,  # width from 64x64 on: 2 is configuration f
        max_channels: int = 512,  # limit of the width
        blur_kernel: Sequence[float] = (1, 3, 3, 1),  # taps of the downsampling filter
        mbstd_cfg: dict
        | None = None,  # of the minibatch standard deviation; None: dict(group_size=4, channel_groups=1)
        input_bgr2rgb: bool = False,  # reverse the image's channels first
        augment: dict | None = None,  # None: no augmentation
        fp16_enabled: bool = False,  # mixed precision where no autocast is active: fp16 on a GPU, bf16 on a CPU
        init_cfg: dict | None = None,  # the weights' file; None: random weights
    ):
        super().__init__()
        self.padding = SquarePadding("in_size", in_size)
        side = self.padding.side
        channels = channels_by_resolution(side, channel_multiplier, max_channels)
        self.mbstd_cfg = {"group_size": 4, "channel_groups": 1, **(mbstd_cfg or {})}
        self.input_bgr2rgb = input_bgr2rgb
        self.augmentation = None if augment is None else Augmentation(**augment)
        self.fp16_enabled = fp16_enabled
        self.init_cfg = init_cfg

        self.convs = nn.Sequential(
            ConvLayer(img_channels, channels[side], 1),
            *(
                ResidualBlock(channels[res], channels[res // 2], blur_kernel)
                for res in reversed(resolutions(2 * MIN_SIZE, side))
            ),
        )
        last = channels[MIN_SIZE]
        self.final_conv = ConvLayer(last + self.mbstd_cfg["channel_groups"], last, 3)
        self.final_linear = nn.Sequential(
            EqualizedLinear(last * MIN_SIZE**2, last, activation=True), EqualizedLinear(last, 1)
        )

    def forward(self, image: Tensor) -> Tensor:
        if self.training and self.augmentation is not None:
            image = self.augmentation(image)
        x = self.padding.pad(image.flip(1) if self.input_bgr2rgb else image)
        with mixed_precision(image.device, self.fp16_enabled):
            x = self.convs(x)  # (N, C, 4, 4)
            x = minibatch_stddev(x, **self.mbstd_cfg)  # (N, C + F, 4, 4)
            x = self.final_conv(x)  # (N, C, 4, 4)
            return self.final_linear(x.flatten(1))  # (N, 1)

    def init_weights(self) -> None:
        """Fill the network from ``init_cfg`` before training; mmengine's runner calls this.

        Raises:
            InputError: The file does not hold the whole discriminator.
        """
        if self.init_cfg is not None:
            checkpoints.load_pretrained(self, self.init_cfg)
