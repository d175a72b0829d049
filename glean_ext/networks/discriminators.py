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
from glean_ext.errors import InputError
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
        stride, padding = (2, 0) if downsample else (1, kernel_size // 2)
        if downsample:
            surplus = len(blur_kernel) - 2 + kernel_size - 1
            # A convolution of single pixels skips what the filter need not compute.
            down, stride = (2, 1) if kernel_size == 1 else (1, stride)
            layers.append(Blur(blur_kernel, pad=((surplus + 1) // 2, surplus // 2), down=down))
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

    Args:
        x: (N, C, H, W), C a multiple of ``channel_groups``.
        group_size: Images that are compared; a smaller batch is one group.
        channel_groups: F, the channels that are appended.
        eps: Added to variances.

    Raises:
        InputError: N is larger than ``group_size`` and not a multiple of it.
    """
    n, c, h, w = x.shape
    require_groups(n, group_size)
    y = x.float().reshape(min(n, group_size), -1, channel_groups, c // channel_groups, h, w)  # (G, M, F, C/F, H, W)
    y = (y.var(0, unbiased=False) + eps).sqrt().mean((2, 3, 4))  # (M, F)
    y = y.repeat(min(n, group_size), 1)[:, :, None, None].expand(-1, -1, h, w)  # (N, F, H, W)
    return torch.cat([x, y.to(x.dtype)], dim=1)


def require_groups(batch_size: int, group_size: int) -> None:
    """Raise InputError unless a batch is one group of at most ``group_size`` images, or whole groups of that size.

    For other batches StyleGAN2 does not define the minibatch standard deviation.
    """
    if batch_size > group_size and batch_size % group_size:
        raise InputError(
            f"The discriminator compares images in groups of {group_size}, so a batch of {batch_size} does not fit: "
            f"take at most {group_size} images or a multiple of {group_size} (train_dataloader.batch_size, which is "
            "per GPU), or set model.discriminator.mbstd_cfg.group_size."
        )


def require_batch(discriminator: nn.Module, batch_size: int) -> None:
    """Check, before training starts, that a discriminator takes batches of this size. MMagic's classes are known, too.

    Args:
        discriminator: It may be wrapped for distributed training, or be one without minibatch standard deviation.
        batch_size: Images in a batch of one process.

    Raises:
        InputError: The batch cannot be divided into the groups that the discriminator compares.
    """
    for module in discriminator.modules():
        if isinstance(group_size := getattr(module, "group_size", None), int):
            require_groups(batch_size, group_size)


class MinibatchStddev(nn.Module):
    """:func:`minibatch_stddev` as a layer; MMagic's has the same name and attribute ``group_size``."""

    def __init__(
        self,
        group_size: int = 4,  # images that are compared
        channel_groups: int = 1,  # channels that are appended
        eps: float = 1e-8,  # added to variances
    ):
        super().__init__()
        self.group_size, self.channel_groups, self.eps = group_size, channel_groups, eps

    def forward(self, x: Tensor) -> Tensor:
        return minibatch_stddev(x, self.group_size, self.channel_groups, self.eps)


class StyleGAN2Discriminator(nn.Module):
    """Images to realness logits: (N, 3, H, W) in [-1, 1] -> (N, 1), fp32.

    Args:
        in_size: Images of other proportions, (height, width), lie in the middle of a square
            (:class:`~glean_ext.networks.shapes.SquarePadding`); its side is a power of two.
        mbstd_cfg: Arguments of :class:`MinibatchStddev`.
        augment: Arguments of :class:`~glean_ext.networks.augment.Augmentation`, which changes the images in the
            training of banks.
        init_cfg: ``dict(type='Pretrained', checkpoint=..., prefix='discriminator')``; :meth:`init_weights` loads
            it strictly.

    Raises:
        ValueError: ``in_size`` is no power of two, or ``channel_groups`` does not divide the last layer's channels.
    """

    def __init__(
        self,
        in_size: Size,  # pixels: side of the image, a power of two from 4 on; or (height, width)
        img_channels: int = 3,  # of the image
        channel_multiplier: float = 2,  # width from 64x64 on: 2 is configuration f
        max_channels: int = 512,  # limit of the width
        blur_kernel: Sequence[float] = (1, 3, 3, 1),  # taps of the downsampling filter
        mbstd_cfg: dict | None = None,  # None: groups of 4 images, 1 channel is appended
        input_bgr2rgb: bool = False,  # reverse the image's channels first
        augment: dict | None = None,  # None: no augmentation
        fp16_enabled: bool = False,  # mixed precision where no autocast is active: fp16 on a GPU, bf16 on a CPU
        init_cfg: dict | None = None,  # the weights' file; None: random weights
    ):
        super().__init__()
        self.padding = SquarePadding("in_size", in_size)
        side = self.padding.side
        channels = channels_by_resolution(side, channel_multiplier, max_channels)
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
        self.mbstd_layer = MinibatchStddev(**(mbstd_cfg or {}))
        if last % self.mbstd_layer.channel_groups:
            raise ValueError(
                f"mbstd_cfg.channel_groups must divide {last}, but it is {self.mbstd_layer.channel_groups}."
            )
        self.final_conv = ConvLayer(last + self.mbstd_layer.channel_groups, last, 3)
        self.final_linear = nn.Sequential(
            EqualizedLinear(last * MIN_SIZE**2, last, activation=True), EqualizedLinear(last, 1)
        )

    def forward(self, image: Tensor) -> Tensor:
        if self.training and self.augmentation is not None:
            image = self.augmentation(image)
        x = self.padding.pad(image.flip(1) if self.input_bgr2rgb else image)
        with mixed_precision(image.device, self.fp16_enabled):
            x = self.convs(x)  # (N, C, 4, 4)
            x = self.mbstd_layer(x)  # (N, C + F, 4, 4)
            x = self.final_conv(x)  # (N, C, 4, 4)
            return self.final_linear(x.flatten(1))  # (N, 1)

    def init_weights(self) -> None:
        """Fill the network from ``init_cfg`` before training; mmengine's runner calls this.

        Raises:
            InputError: The file does not hold the whole discriminator.
        """
        if self.init_cfg is not None:
            checkpoints.load_pretrained(self, self.init_cfg)
