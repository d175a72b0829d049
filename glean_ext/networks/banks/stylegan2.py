"""The latent bank: a StyleGAN2 generator with MMagic's parameter names.

Source: Karras et al., "Analyzing and Improving the Image Quality of StyleGAN", CVPR 2020, figures 2 and 7 (skip
generator). The key names are those of MMagic's ``StyleGANv2Generator``, so that its checkpoints load.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar, cast

import torch
from torch import Tensor, nn

from glean_ext.networks import ops
from glean_ext.networks.banks.bank import Bank, BankSpec
from glean_ext.networks.banks.stylegan2_spec import StyleGAN2Spec
from glean_ext.networks.layers import BiasLeakyReLU, Blur, EqualizedLinear, EqualizedWeight
from glean_ext.networks.shapes import MIN_SIZE, assert_shape, resolutions


class PixelNorm(nn.Module):
    """Scale each vector to unit mean square. (N, C) -> (N, C)"""

    def __init__(self, eps: float = 1e-6):
        super().__init__()
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        return x / (x.square().mean(1, keepdim=True) + self.eps).sqrt()


class ModulatedConv(EqualizedWeight):
    """A convolution that a style code modulates. (N, C, H, W), (N, S) -> (N, O, H, W) or (N, O, 2H, 2W)"""

    def __init__(
        self,
        in_channels: int,  # C
        out_channels: int,  # O
        kernel_size: int,  # odd
        style_channels: int,  # S
        demodulate: bool = True,  # bring the output back to unit variance: all layers but those that make RGB
        upsample: bool = False,  # double the height and width, then blur
        blur_kernel: Sequence[float] = (1, 3, 3, 1),  # taps of that blur
    ):
        super().__init__((1, out_channels, in_channels, kernel_size, kernel_size))
        self.demodulate = demodulate
        self.upsample = upsample
        self.style_modulation = EqualizedLinear(style_channels, in_channels, bias_init=1.0)
        if upsample:
            surplus = len(blur_kernel) - 2 - (kernel_size - 1)
            self.blur = Blur(blur_kernel, pad=((surplus + 1) // 2 + 1, surplus // 2 + 1), gain=4)

    def style(self, code: Tensor) -> Tensor:
        """The factors of the input channels: (N, S) -> (N, C), fp32. They include the equalised weight's scale."""
        return self.style_modulation(code) * self.scale

    def forward(self, x: Tensor, code: Tensor) -> Tensor:
        style = self.style(code)  # (N, C)
        x = ops.modulated_conv2d(x, self.weight_orig[0], style, self.demodulate, self.upsample)
        return self.blur(x) if self.upsample else x


class NoiseStrength(nn.Module):
    """One learned factor for the noise that a layer adds to its features."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))


@dataclass(frozen=True)
class StyleConvTerms:
    """What a style convolution computes with, for forms that fold it.

    ``leaky_relu(blur(conv(weight * style * demodulation)) + noise + bias)``, where ``style = affine @ code + shift``.
    """

    weight: Tensor  # (O, C, k, k), to be multiplied by the style
    affine: Tensor  # (C, S), with the equalised scales of the linear layer and of the weight
    shift: Tensor  # (C,), as affine
    bias: Tensor  # (O,)
    noise_strength: Tensor  # (1,)
    blur: Blur | None  # after a transposed convolution of stride 2; None: no upsampling


class StyleConv(nn.Module):
    """Modulated convolution, injected noise, bias and leaky ReLU."""

    def __init__(
        self,
        in_channels: int,  # C
        out_channels: int,  # O
        style_channels: int,  # S
        upsample: bool = False,  # double the height and width
        blur_kernel: Sequence[float] = (1, 3, 3, 1),  # taps of the blur after upsampling
    ):
        super().__init__()
        self.conv = ModulatedConv(
            in_channels, out_channels, 3, style_channels, upsample=upsample, blur_kernel=blur_kernel
        )
        self.noise_injector = NoiseStrength()
        self.activate = BiasLeakyReLU(out_channels)

    def forward(self, x: Tensor, code: Tensor, noise: Tensor | None = None) -> Tensor:
        """(N, C, H, W), (N, S), (1 or N, 1, H', W') or None for new noise -> (N, O, H', W')"""
        x = self.conv(x, code)  # (N, O, H', W')
        if noise is None:
            noise = x.new_empty(x.shape[0], 1, *x.shape[2:]).normal_()
        assert_shape(noise, (None, 1, *x.shape[2:]))
        x = x + (self.noise_injector.weight * noise).to(x.dtype)
        return self.activate(x)

    def terms(self) -> StyleConvTerms:
        conv, linear = self.conv, self.conv.style_modulation
        return StyleConvTerms(
            weight=conv.weight_orig[0],
            affine=linear.linear.weight_orig * (linear.linear.scale * conv.scale),
            shift=linear.bias * (linear.lr_mul * conv.scale),
            bias=self.activate.bias,
            noise_strength=self.noise_injector.weight,
            blur=conv.blur if conv.upsample else None,
        )


class ToRGB(nn.Module):
    """Features to an image, added to the upsampled image of the resolution below."""

    def __init__(
        self,
        in_channels: int,  # C
        style_channels: int,  # S
        out_channels: int = 3,  # of the image
        upsample: bool = True,  # False at 4x4, where no image lies below
    ):
        super().__init__()
        if upsample:  # always by these taps, as in MMagic; blur_kernel is for the features
            self.upsample = Blur((1, 3, 3, 1), pad=(2, 1), gain=4, up=2)
        self.conv = ModulatedConv(in_channels, out_channels, 1, style_channels, demodulate=False)
        self.bias = nn.Parameter(torch.zeros(1, out_channels, 1, 1))

    def forward(self, x: Tensor, code: Tensor, skip: Tensor | None = None) -> Tensor:
        """(N, C, H, W), (N, S), (N, 3, H/2, W/2) -> (N, 3, H, W), fp32"""
        image = self.conv(x, code).float() + self.bias
        if skip is None:
            return image
        skip = self.upsample(skip)
        assert_shape(skip, image.shape)
        return image + skip


class ConstantInput(nn.Module):
    """The learned 4x4 constant the synthesis starts from: (1, C, 4, 4)."""

    def __init__(self, channels: int):
        super().__init__()
        self.input = nn.Parameter(torch.randn(1, channels, MIN_SIZE, MIN_SIZE))


def style_layers(res: int) -> tuple[int, int]:
    """The style convolutions of synthesis block ``res``.

    >>> style_layers(8), style_layers(16)  # 0 is the one at 4x4
    ((1, 2), (3, 4))
    """
    first = 2 * res.bit_length() - 7
    return first, first + 1


class Synthesis(nn.Module):
    """Synthesis blocks with their stored noise: what the whole generator and its upper part have in common.

    Style convolution ``l`` has the key ``convs.{l - 1}`` and the noise ``injected_noise_{l}``.
    """

    convs: nn.ModuleDict
    first_layer = 0  # the style convolution that codes[:, 0] belongs to

    def __init__(self, sizes: StyleGAN2Spec):
        super().__init__()
        self.blur_kernel = sizes.blur_kernel
        self.out_size = sizes.out_size
        self.style_channels = sizes.style_channels
        self.channels = sizes.channels

    def style_convs(self, res: int) -> dict[str, StyleConv]:
        """New style convolutions for block ``res``, by their keys in ``convs``."""
        below, here, style_channels = self.channels[res // 2], self.channels[res], self.style_channels
        first, second = style_layers(res)
        return {
            str(first - 1): StyleConv(below, here, style_channels, upsample=True, blur_kernel=self.blur_kernel),
            str(second - 1): StyleConv(here, here, style_channels),
        }

    def store_noise(self, layer: int, res: int) -> None:
        self.register_buffer(f"injected_noise_{layer}", torch.randn(1, 1, res, res))

    def style_conv(self, layer: int) -> StyleConv:
        """Style convolution ``layer``, 1 or above."""
        return cast(StyleConv, self.convs[str(layer - 1)])

    def noise(self, layer: int) -> Tensor:
        """The stored noise of style convolution ``layer`` (0 is the one at 4x4): (1, 1, H, W)."""
        return self.get_buffer(f"injected_noise_{layer}")

    def block(
        self, x: Tensor, res: int, codes: Tensor, label: Tensor | None = None, fresh_noise: bool = False
    ) -> Tensor:
        """Synthesis block ``res``: (N, C, h, w), (N, K, S) -> (N, C', 2h, 2w); it takes no label.

        The bank was trained with h = w = ``res / 2``; for another size its stored noise is repeated or cropped.
        """
        assert_shape(codes, (x.shape[0], None, self.style_channels))
        height, width = 2 * x.shape[2], 2 * x.shape[3]
        for layer in style_layers(res):
            noise = None if fresh_noise else ops.repeat_to(self.noise(layer), height, width)
            x = self.style_conv(layer)(x, codes[:, layer - self.first_layer], noise)
        return x

    def tune(self, image: bool = False) -> None:
        """Make trainable what the features depend on; everything else stays as it is."""
        self.convs.requires_grad_(True)


class StyleGAN2Blocks(Synthesis):
    """The blocks above ``in_size`` alone, under the keys of the whole generator; they start from given features."""

    def __init__(
        self,
        in_size: int,  # resolution of the features that the first block takes
        sizes: StyleGAN2Spec,  # of the whole generator
    ):
        super().__init__(sizes)
        self.resolutions = resolutions(2 * in_size, sizes.out_size)
        self.num_latents = 2 * len(self.resolutions)
        self.spec = BankSpec(self.channels, self.num_latents, self.style_channels)
        self.first_layer = style_layers(self.resolutions[0])[0]
        self.convs = nn.ModuleDict()
        for res in self.resolutions:
            self.convs.update(self.style_convs(res))
            for layer in style_layers(res):
                self.store_noise(layer, res)

    def forward(self, x: Tensor, codes: Tensor) -> list[Tensor]:
        """(N, C, h, w), (N, K, S) -> the features after each block, (N, C_i, 2^i h, 2^i w) for i = 1, 2, ..."""
        features = []
        for res in self.resolutions:
            x = self.block(x, res, codes)
            features.append(x)
        return features


GeneratorT = TypeVar("GeneratorT", bound="StyleGAN2Generator")


class StyleGAN2Generator(Synthesis, Bank):
    """StyleGAN2's generator: mapping network, synthesis blocks and the RGB skip path.

    A restorer uses it block by block (:meth:`start` and :meth:`block`), without the mapping network and the RGB path;
    :meth:`forward` makes images from latent codes.
    """

    kind = "StyleGAN2"

    def __init__(
        self,
        out_size: int,  # pixels: side of the image, a power of two from 4 on
        style_channels: int = 512,  # S: channels of a latent and of a style code
        num_mlps: int = 8,  # layers of the mapping network
        channel_multiplier: float = 2,  # width from 64x64 on: 2 is configuration f, 1 configuration e
        max_channels: int = 512,  # limit of the width; 512 in the published networks
        blur_kernel: Sequence[float] = (1, 3, 3, 1),  # taps of the resampling filter
        lr_mlp: float = 0.01,  # learning-rate multiplier of the mapping network
        out_channels: int = 3,  # of the image
        bgr2rgb: bool = False,  # reverse the channels of the image that forward makes
    ):
        sizes = StyleGAN2Spec(out_size, style_channels, num_mlps, channel_multiplier, max_channels, blur_kernel, lr_mlp)
        super().__init__(sizes)
        self.bgr2rgb = bgr2rgb
        self.num_latents = sizes.num_latents
        # The last code only makes RGB.
        self.spec = BankSpec(self.channels, self.num_latents, style_channels, unused_codes=1, makes_image=True)

        self.style_mapping = nn.Sequential(
            PixelNorm(),
            *(EqualizedLinear(style_channels, style_channels, lr_mul=lr_mlp, activation=True) for _ in range(num_mlps)),
        )
        first = self.channels[MIN_SIZE]
        self.constant_input = ConstantInput(first)
        self.conv1 = StyleConv(first, first, style_channels)
        self.to_rgb1 = ToRGB(first, style_channels, out_channels, upsample=False)
        self.convs = nn.ModuleDict()
        self.to_rgbs = nn.ModuleList()
        for res in resolutions(2 * MIN_SIZE, out_size):
            self.convs.update(self.style_convs(res))
            self.to_rgbs.append(ToRGB(self.channels[res], style_channels, out_channels))

        self.store_noise(0, MIN_SIZE)
        for res in resolutions(2 * MIN_SIZE, out_size):
            for layer in style_layers(res):
                self.store_noise(layer, res)

    @classmethod
    def from_spec(cls: type[GeneratorT], sizes: StyleGAN2Spec) -> GeneratorT:
        return cls(**vars(sizes))

    def style_conv(self, layer: int) -> StyleConv:
        """Style convolution ``layer``; 0 is the one at 4x4."""
        return self.conv1 if layer == 0 else super().style_conv(layer)

    def constant(self) -> Tensor:
        """The learned constant that the synthesis starts from: (1, C, 4, 4)."""
        return self.constant_input.input

    def start(self, codes: Tensor, label: Tensor | None = None, fresh_noise: bool = False) -> Tensor:
        """The features at 4x4: (N, K, S) -> (N, C, 4, 4); it takes no label."""
        assert_shape(codes, (None, None, self.style_channels))
        x = self.constant().expand(codes.shape[0], -1, -1, -1)
        return self.conv1(x, codes[:, 0], None if fresh_noise else self.noise(0))

    def synthesis(self, codes: Tensor, fresh_noise: bool = False) -> Tensor:
        """Style codes to images: (N, K, S) -> (N, 3, H, W), about [-1, 1].

        ``fresh_noise`` draws new injected noise (training); otherwise the stored noise is used.
        """
        x = self.start(codes, fresh_noise=fresh_noise)  # (N, C, 4, 4)
        image = self.rgb(x, MIN_SIZE, codes)  # (N, 3, 4, 4)
        for res in resolutions(2 * MIN_SIZE, self.out_size):
            x = self.block(x, res, codes, fresh_noise=fresh_noise)  # (N, C, res, res)
            image = self.rgb(x, res, codes, image)  # (N, 3, res, res)
        return image.flip(1) if self.bgr2rgb else image

    def rgb(self, x: Tensor, res: int, codes: Tensor, image: Tensor | None = None) -> Tensor:
        """The image at ``res`` from its features and the image below.

        (N, C, res, res), (N, K, S), (N, 3, res / 2, res / 2) -> (N, 3, res, res), fp32
        """
        layer = self.to_rgb1 if res == MIN_SIZE else self.to_rgbs[res.bit_length() - 4]
        return layer(x, codes[:, 2 * res.bit_length() - 5], image)

    def image(self, features: Mapping[int, Tensor], codes: Tensor, label: Tensor | None = None) -> Tensor:
        """The image that the RGB path makes of the features: {res: (N, C, res, res)}, (N, K, S) -> (N, 3, H, H)"""
        image = None
        for res in resolutions(MIN_SIZE, self.out_size):
            image = self.rgb(features[res], res, codes, image)  # (N, 3, res, res)
        assert image is not None
        return image

    def tune(self, image: bool = False) -> None:
        super().tune()
        self.constant_input.requires_grad_(True)
        self.conv1.requires_grad_(True)
        if image:
            self.to_rgb1.requires_grad_(True)
            self.to_rgbs.requires_grad_(True)

    @property
    def sizes(self) -> dict[str, int]:
        return bank_sizes(self.state_dict())

    def forward(self, z: Tensor, truncation: float = 1.0, fresh_noise: bool = False) -> Tensor:
        """Latent codes to images: (N, S), standard normal -> (N, 3, H, W), about [-1, 1].

        ``truncation`` below 1 draws the styles towards their mean (CVPR 2019, appendix B): fewer artefacts,
        less variety.
        """
        w = self.style_mapping(z)  # (N, S)
        if truncation < 1:
            w = torch.lerp(self.mean_style(), w, truncation)
        return self.synthesis(w[:, None].expand(-1, self.num_latents, -1), fresh_noise)

    @torch.no_grad()
    def mean_style(self, samples: int = 4096, seed: int = 0) -> Tensor:
        """The mean of ``samples`` mapped latents: (1, S). The same for the same seed."""
        z = torch.randn(samples, self.style_channels, generator=torch.Generator().manual_seed(seed))
        return self.style_mapping(z.to(self.constant().device)).mean(0, keepdim=True)


def bank_sizes(state: Mapping[str, Tensor]) -> dict[str, int]:
    """The sizes of the StyleGAN2 generator that this state dict belongs to, by the arguments that set them.

    ``channels at 4x4`` and so on follow from ``channel_multiplier`` and ``max_channels``. Empty for the state dict of
    another network.
    """
    first = "conv1.conv.weight_orig"
    style = "conv1.conv.style_modulation.linear.weight_orig"
    if first not in state or style not in state:
        return {}
    channels, res = {MIN_SIZE: state[first].shape[1]}, MIN_SIZE
    while (weight := state.get(f"convs.{style_layers(2 * res)[0] - 1}.conv.weight_orig")) is not None:
        res *= 2
        channels[res] = weight.shape[1]
    mapping = sum(key.startswith("style_mapping.") and key.endswith(".bias") for key in state)
    sizes = {"out_size": res, "style_channels": state[style].shape[1], "num_mlps": mapping}
    return sizes | {f"channels at {res}x{res}": number for res, number in channels.items()}
