"""The latent bank of many classes: the generator of BigGAN or BigGAN-deep, for inference.

Source: Brock et al., "Large Scale GAN Training for High Fidelity Natural Image Synthesis", ICLR 2019, appendix B;
self-attention: Zhang et al., ICML 2019, section 3. The bank is frozen, so batch norm has its running statistics, and
both these and spectral norm are part of the weights (:mod:`.biggan_file`). Keys are MMagic's as far as layers remain.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from glean_ext import checkpoints
from glean_ext.networks.banks.bank import Bank, BankSpec
from glean_ext.networks.banks.biggan_file import expected, folded
from glean_ext.networks.banks.biggan_spec import DEEP_RATIO, BigGANSpec, Layer
from glean_ext.networks.conv2d_gradfix import Conv2d
from glean_ext.networks.labels import label_shares
from glean_ext.networks.shapes import MIN_SIZE, assert_shape

MEASURED_IMAGES = 8  # of the deviations of the features


def upsample(x: Tensor) -> Tensor:
    """Each pixel four times: (N, C, H, W) -> (N, C, 2H, 2W)"""
    return F.interpolate(x, scale_factor=2, mode="nearest")


class UpConv(Conv2d):
    """A convolution of the upsampled features. (N, C, H, W) -> (N, O, 2H, 2W)"""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(upsample(x))


class ConditionalNorm(nn.Linear):
    """Batch norm whose gain and bias depend on a condition, and ReLU. (N, C, H, W), (N, D) -> (N, C, H, W)

    With fixed statistics it is one affine function of the condition. It is small, and computed in fp32.
    """

    def __init__(self, channels: int, condition: int):
        super().__init__(condition, 2 * channels)
        nn.init.normal_(self.weight, std=0.02)
        nn.init.zeros_(self.bias)
        nn.init.ones_(self.bias[:channels])  # the factors

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:  # type: ignore[override]
        with torch.autocast(x.device.type, enabled=False):
            both = F.linear(condition.to(self.weight.dtype), self.weight, self.bias)  # (N, 2C)
        scale, shift = both.to(x.dtype)[:, :, None, None].chunk(2, 1)
        return F.relu(torch.addcmul(shift, x, scale), inplace=True)


class Block(nn.Module):
    """BigGAN's residual block. (N, C, H, W), (N, D) -> (N, O, 2H, 2W)"""

    def __init__(self, layer: Layer, condition: int):
        super().__init__()
        below, here = layer.in_channels, layer.out_channels
        self.bn1 = ConditionalNorm(below, condition)
        self.conv1 = UpConv(below, here, 3, padding=1)
        self.bn2 = ConditionalNorm(here, condition)
        self.conv2 = Conv2d(here, here, 3, padding=1)
        self.shortcut = Conv2d(below, here, 1)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        y = self.conv1(self.bn1(x, condition))  # (N, O, 2H, 2W)
        y = self.conv2(self.bn2(y, condition))
        # A 1x1 convolution and upsampling can change places: on fewer pixels it takes a quarter of the time.
        return y + upsample(self.shortcut(x))


class DeepBlock(nn.Module):
    """BigGAN-deep's residual block. (N, C, H, W), (N, D) -> (N, O, H, W), or (N, O, 2H, 2W) when upsampling"""

    def __init__(self, layer: Layer, condition: int):
        super().__init__()
        below, here, hidden = layer.in_channels, layer.out_channels, layer.in_channels // DEEP_RATIO
        self.channels, self.upsample = here, layer.upsample
        self.bn1 = ConditionalNorm(below, condition)
        self.conv1 = Conv2d(below, hidden, 1)
        self.bn2 = ConditionalNorm(hidden, condition)
        self.conv2 = (UpConv if layer.upsample else Conv2d)(hidden, hidden, 3, padding=1)
        self.bn3 = ConditionalNorm(hidden, condition)
        self.conv3 = Conv2d(hidden, hidden, 3, padding=1)
        self.bn4 = ConditionalNorm(hidden, condition)
        self.conv4 = Conv2d(hidden, here, 1)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        y = self.conv1(self.bn1(x, condition))  # (N, hidden, H, W)
        y = self.conv2(self.bn2(y, condition))  # (N, hidden, H, W) or (N, hidden, 2H, 2W)
        y = self.conv3(self.bn3(y, condition))
        y = self.conv4(self.bn4(y, condition))  # (N, O, ...)
        x = x[:, : self.channels]  # the surplus channels are dropped
        return y + (upsample(x) if self.upsample else x)


class SelfAttention(nn.Module):
    """Each pixel gets a mixture of features from all of the image. (N, C, H, W) -> (N, C, H, W)"""

    def __init__(self, channels: int):
        super().__init__()
        self.theta = Conv2d(channels, channels // 8, 1, bias=False)
        self.phi = Conv2d(channels, channels // 8, 1, bias=False)
        self.g = Conv2d(channels, channels // 2, 1, bias=False)
        self.o = Conv2d(channels // 2, channels, 1, bias=False)  # with the learned factor of the whole branch

    def forward(self, x: Tensor) -> Tensor:
        query = self.theta(x).flatten(2).transpose(1, 2)  # (N, HW, C/8)
        key = F.max_pool2d(self.phi(x), 2).flatten(2)  # (N, C/8, HW/4)
        value = F.max_pool2d(self.g(x), 2).flatten(2)  # (N, C/2, HW/4)
        weights = torch.bmm(query, key).softmax(2)  # (N, HW, HW/4)
        mixed = torch.bmm(value, weights.transpose(1, 2)).unflatten(2, x.shape[2:])  # (N, C/2, H, W)
        return x + self.o(mixed)


class ChannelAffine(nn.Module):
    """A factor and a summand for each channel. (N, C, H, W) -> (N, C, H, W)"""

    def __init__(self, channels: int):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        weight, bias = (value.to(x.dtype)[:, None, None] for value in (self.weight, self.bias))
        return torch.addcmul(bias, x, weight)


class BigGANGenerator(nn.Module, Bank):
    """BigGAN's or BigGAN-deep's generator, class-conditional, with folded norms.

    Its codes are parts of the latent code: the first one makes the features at 4x4, each further one goes to a block.
    BigGAN cuts the latent code into them; in BigGAN-deep every one is the whole latent code.
    """

    kind = "BigGAN"

    def __init__(self, arguments: BigGANSpec):
        super().__init__()
        self.arguments = arguments
        widths, condition = arguments.widths, arguments.condition_channels
        self.spec = BankSpec(
            widths,
            arguments.num_codes,
            arguments.code_channels,
            num_classes=arguments.num_classes,
            makes_image=True,
        )
        self.shared_embedding = nn.Embedding(arguments.num_classes, arguments.shared_dim)
        self.noise2feat = nn.Linear(arguments.start_channels, widths[MIN_SIZE] * MIN_SIZE**2)
        kind = DeepBlock if arguments.deep else Block
        self.conv_blocks = nn.ModuleList(
            SelfAttention(layer.out_channels) if layer.attention else kind(layer, condition)
            for layer in arguments.layers
        )
        self.output_norm = ChannelAffine(widths[arguments.out_size])
        self.output_conv = Conv2d(widths[arguments.out_size], 3, 3, padding=1)

    def start(self, codes: Tensor, label: Tensor | None = None) -> Tensor:
        assert_shape(codes, (None, self.spec.num_codes, self.spec.code_channels))
        first = codes[:, 0] if not self.arguments.deep else self._condition(codes[:, 0], label)
        return self.noise2feat(first).unflatten(1, (-1, MIN_SIZE, MIN_SIZE))  # (N, C, 4, 4)

    def block(self, x: Tensor, res: int, codes: Tensor, label: Tensor | None = None) -> Tensor:
        assert_shape(codes, (x.shape[0], self.spec.num_codes, self.spec.code_channels))
        used = 1  # codes
        for layer, module in zip(self.arguments.layers, self.conv_blocks, strict=True):
            if layer.res == res:
                condition = () if layer.attention else (self._condition(codes[:, used], label),)
                x = module(x, *condition)
            used += not layer.attention
        return x

    def _condition(self, code: Tensor, label: Tensor | None) -> Tensor:
        """What a layer depends on: (N, S), (N, classes) -> (N, D)"""
        assert label is not None
        embedding = label.to(self.shared_embedding.weight.dtype) @ self.shared_embedding.weight  # (N, shared_dim)
        parts = (code, embedding) if self.arguments.deep else (embedding, code)
        return torch.cat([part.to(code.dtype) for part in parts], 1)

    def image(self, features: Mapping[int, Tensor], codes: Tensor, label: Tensor | None = None) -> Tensor:
        """The image of the last features: {H: (N, C, H, H)} -> (N, 3, H, H), fp32 in [-1, 1]"""
        x = F.relu(self.output_norm(features[self.arguments.out_size]))
        return self.output_conv(x).float().tanh()

    def tune(self, image: bool = False) -> None:
        self.requires_grad_(True)
        for part in self.output_norm, self.output_conv:
            part.requires_grad_(image)

    def load(self, state: Mapping[str, Tensor], source: object, prefix: str) -> None:
        """Fold and take the tensors of MMagic's ``BigGANGenerator`` or ``BigGANDeepGenerator``."""
        needed = expected(self.arguments, state)
        name = f"a BigGAN{'-deep' if self.arguments.deep else ''} generator"
        checkpoints.require_fit(needed, state, name, source, checkpoints.UNUSED_BANK_KEYS, prefix)
        self.load_state_dict(folded(self.arguments, state), strict=True)

    @property
    def sizes(self) -> dict[str, Any]:
        return vars(self.arguments) | {"noise_size": self._noise_size, "attention_at": self.arguments.attention}

    @property
    def _noise_size(self) -> int:
        """Channels of the latent code that are used."""
        return self.spec.code_channels * (1 if self.arguments.deep else self.spec.num_codes)

    def codes(self, z: Tensor) -> Tensor:
        """The codes of latent codes: (N, noise_size), standard normal -> (N, K, S)"""
        shape = self.spec.num_codes, self.spec.code_channels
        return z[:, None].expand(-1, *shape) if self.arguments.deep else z.unflatten(1, shape)

    def forward(self, z: Tensor, label: Tensor) -> Tensor:
        """Latent codes (N, noise_size) and classes, whole numbers (N,) -> images (N, 3, H, H) in [-1, 1]"""
        codes, shares = self.codes(z), label_shares(label, self.spec.num_classes)
        return self.image(dict(self._features(codes, shares)), codes, shares)

    def _features(self, codes: Tensor, label: Tensor) -> Iterator[tuple[int, Tensor]]:
        """Those at every resolution: (res, (N, C, res, res))"""
        x = self.start(codes, label)
        yield MIN_SIZE, x
        for res in list(self.spec.channels)[1:]:
            x = self.block(x, res, codes, label)
            yield res, x

    @torch.no_grad()
    def deviations(self) -> Tensor:
        """The standard deviation of the features at every resolution, over random codes and classes: (resolutions,)"""
        rng = torch.Generator().manual_seed(0)
        z = torch.randn(MEASURED_IMAGES, self._noise_size, generator=rng)
        label = torch.randint(self.spec.num_classes, (MEASURED_IMAGES,), generator=rng)
        weight = self.noise2feat.weight
        codes = self.codes(z.to(weight))
        shares = label_shares(label.to(weight.device), self.spec.num_classes)
        return torch.stack([x.float().std() for _, x in self._features(codes, shares)])
