"""The arithmetic of two published StyleGAN2 implementations, on plain dicts of tensors with their key names.

Written from their definitions, in the slow and literal order, so that it shares nothing with ``glean_ext.networks``:
every image has its own modulated weights, up-sampling inserts zeros, and NVIDIA's filters and convolutions come in the
order of its reference path. Sources: rosinality/stylegan2-pytorch ``model.py``; NVlabs/stylegan2-ada-pytorch
``training/networks.py``, ``torch_utils/ops/conv2d_resample.py`` and ``upfirdn2d.py``.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

State = dict[str, Tensor]
TAPS = torch.tensor([1.0, 3.0, 3.0, 1.0])
FILTER = torch.outer(TAPS, TAPS) / TAPS.sum() ** 2  # sums to 1


def resolutions(widths: dict[int, int]) -> list[int]:
    return sorted(widths)


class Draw:
    """Random tensors for every kind of weight, none of them at its initial value."""

    def __init__(self, seed: int):
        self.generator = torch.Generator().manual_seed(seed)

    def normal(self, *shape: int) -> Tensor:
        return torch.randn(shape, generator=self.generator)

    def bias(self, *shape: int, around: float = 0.0) -> Tensor:
        return around + 0.3 * self.normal(*shape)


def lrelu(x: Tensor) -> Tensor:
    return torch.where(x < 0, 0.2 * x, x) * 2**0.5


def unit(z: Tensor) -> Tensor:
    return z / (z.pow(2).mean(1, keepdim=True) + 1e-8).sqrt()


def fir(x: Tensor, kernel: Tensor, pad: tuple[int, int], up: int = 1, down: int = 1) -> Tensor:
    """Zeros between the pixels, zeros around, a true convolution with ``kernel``, every ``down``-th pixel."""
    n, c, h, w = x.shape
    spread = x.new_zeros(n, c, h * up, w * up)
    spread[:, :, ::up, ::up] = x
    padded = F.pad(spread, (*pad, *pad)).reshape(n * c, 1, h * up + sum(pad), w * up + sum(pad))
    y = F.conv2d(padded, kernel.flip(0).flip(1)[None, None])
    return y.reshape(n, c, *y.shape[2:])[:, :, ::down, ::down]


def each(x: Tensor, weights: Tensor, convolve) -> Tensor:
    """Every image with its own weights."""
    return torch.cat([convolve(image[None], weight) for image, weight in zip(x, weights, strict=True)])


def stddev_channel(x: Tensor, group: int) -> Tensor:
    n = min(group, len(x))
    groups = x.reshape(n, len(x) // n, -1)  # image k is in group k mod (N / n)
    deviation = (groups.var(0, unbiased=False) + 1e-8).sqrt().mean(1)  # (N / n,)
    return torch.cat([x, deviation.repeat(n)[:, None, None, None].expand(-1, 1, *x.shape[2:])], 1)


# ---------------------------------------------------------------- rosinality


def rosinality_generator(widths: dict[int, int], style: int, layers: int, seed: int = 0) -> State:
    draw, state = Draw(seed), {}

    def modulated(name: str, inside: int, outside: int, k: int) -> None:
        state[f"{name}.weight"] = draw.normal(1, outside, inside, k, k)
        state[f"{name}.modulation.weight"] = draw.normal(inside, style)
        state[f"{name}.modulation.bias"] = draw.bias(inside, around=1)

    def styled(name: str, inside: int, outside: int) -> None:
        modulated(f"{name}.conv", inside, outside, 3)
        state[f"{name}.noise.weight"] = draw.bias(1)
        state[f"{name}.activate.bias"] = draw.bias(outside)

    def to_rgb(name: str, inside: int) -> None:
        modulated(f"{name}.conv", inside, 3, 1)
        state[f"{name}.bias"] = draw.bias(1, 3, 1, 1)

    for i in range(1, layers + 1):
        state[f"style.{i}.weight"] = draw.normal(style, style) / 0.01
        state[f"style.{i}.bias"] = draw.bias(style) / 0.01
    state["input.input"] = draw.normal(1, widths[4], 4, 4)
    styled("conv1", widths[4], widths[4])
    to_rgb("to_rgb1", widths[4])
    for i, res in enumerate(resolutions(widths)[1:]):
        styled(f"convs.{2 * i}", widths[res // 2], widths[res])
        state[f"convs.{2 * i}.conv.blur.kernel"] = 4 * FILTER
        styled(f"convs.{2 * i + 1}", widths[res], widths[res])
        to_rgb(f"to_rgbs.{i}", widths[res])
        state[f"to_rgbs.{i}.upsample.kernel"] = 4 * FILTER
    for i in range(2 * len(widths) - 1):
        res = 2 ** ((i + 5) // 2)
        state[f"noises.noise_{i}"] = draw.normal(1, 1, res, res)
    return state


def rosinality_mapping(p: State, z: Tensor) -> Tensor:
    x, i = unit(z), 1
    while f"style.{i}.weight" in p:
        weight = p[f"style.{i}.weight"] * (0.01 / math.sqrt(z.shape[1]))
        x, i = lrelu(F.linear(x, weight, p[f"style.{i}.bias"] * 0.01)), i + 1
    return x


def rosinality_image(p: State, w: Tensor) -> Tensor:
    """(N, K, S) -> (N, 3, H, W), with the stored noise."""

    def modulated(name: str, x: Tensor, code: Tensor, up: bool = False, demodulate: bool = True) -> Tensor:
        kernel = p[f"{name}.weight"]
        scale = 1 / math.sqrt(kernel[0, 0].numel())
        modulation = p[f"{name}.modulation.weight"]
        style = F.linear(code, modulation / math.sqrt(modulation.shape[1]), p[f"{name}.modulation.bias"])
        weights = scale * kernel * style[:, None, :, None, None]  # (N, O, C, k, k)
        if demodulate:
            weights = weights * torch.rsqrt(weights.pow(2).sum([2, 3, 4], keepdim=True) + 1e-8)
        if not up:
            return each(x, weights, lambda a, b: F.conv2d(a, b, padding=b.shape[-1] // 2))
        x = each(x, weights, lambda a, b: F.conv_transpose2d(a, b.transpose(0, 1), stride=2))
        return fir(x, p[f"{name}.blur.kernel"], (1, 1))

    def styled(name: str, x: Tensor, code: Tensor, noise: Tensor, up: bool = False) -> Tensor:
        x = modulated(f"{name}.conv", x, code, up) + p[f"{name}.noise.weight"] * noise
        return lrelu(x + p[f"{name}.activate.bias"][:, None, None])

    x = styled("conv1", p["input.input"].repeat(len(w), 1, 1, 1), w[:, 0], p["noises.noise_0"])
    image = modulated("to_rgb1.conv", x, w[:, 1], demodulate=False) + p["to_rgb1.bias"]
    for i in range(w.shape[1] // 2 - 1):
        x = styled(f"convs.{2 * i}", x, w[:, 2 * i + 1], p[f"noises.noise_{2 * i + 1}"], up=True)
        x = styled(f"convs.{2 * i + 1}", x, w[:, 2 * i + 2], p[f"noises.noise_{2 * i + 2}"])
        image = fir(image, p[f"to_rgbs.{i}.upsample.kernel"], (2, 1), up=2)
        image = image + modulated(f"to_rgbs.{i}.conv", x, w[:, 2 * i + 3], demodulate=False) + p[f"to_rgbs.{i}.bias"]
    return image


def rosinality_discriminator(widths: dict[int, int], seed: int = 1) -> State:
    draw, state = Draw(seed), {}
    from_high = resolutions(widths)[::-1]
    last, top = widths[4], widths[from_high[0]]
    state |= {"convs.0.0.weight": draw.normal(top, 3, 1, 1), "convs.0.1.bias": draw.bias(top)}
    for i, res in enumerate(from_high[:-1], 1):
        inside, outside = widths[res], widths[res // 2]
        state[f"convs.{i}.conv1.0.weight"] = draw.normal(inside, inside, 3, 3)
        state[f"convs.{i}.conv1.1.bias"] = draw.bias(inside)
        state[f"convs.{i}.conv2.0.kernel"] = FILTER
        state[f"convs.{i}.conv2.1.weight"] = draw.normal(outside, inside, 3, 3)
        state[f"convs.{i}.conv2.2.bias"] = draw.bias(outside)
        state[f"convs.{i}.skip.0.kernel"] = FILTER
        state[f"convs.{i}.skip.1.weight"] = draw.normal(outside, inside, 1, 1)
    state |= {"final_conv.0.weight": draw.normal(last, last + 1, 3, 3), "final_conv.1.bias": draw.bias(last)}
    state |= {"final_linear.0.weight": draw.normal(last, 16 * last), "final_linear.0.bias": draw.bias(last)}
    return state | {"final_linear.1.weight": draw.normal(1, last), "final_linear.1.bias": draw.bias(1)}


def rosinality_logits(p: State, image: Tensor) -> Tensor:
    def conv(name: str, x: Tensor, stride: int = 1, padding: int = 0) -> Tensor:
        weight = p[f"{name}.weight"]
        return F.conv2d(x, weight / math.sqrt(weight[0].numel()), stride=stride, padding=padding)

    def biased(x: Tensor, name: str) -> Tensor:
        return lrelu(x + p[f"{name}.bias"][:, None, None])

    def linear(name: str, x: Tensor) -> Tensor:
        return F.linear(x, p[f"{name}.weight"] / math.sqrt(x.shape[1]), p[f"{name}.bias"])

    x, i = biased(conv("convs.0.0", image), "convs.0.1"), 1
    while f"convs.{i}.conv1.0.weight" in p:
        y = biased(conv(f"convs.{i}.conv1.0", x, padding=1), f"convs.{i}.conv1.1")
        y = fir(y, p[f"convs.{i}.conv2.0.kernel"], (2, 2))
        y = biased(conv(f"convs.{i}.conv2.1", y, stride=2), f"convs.{i}.conv2.2")
        skip = conv(f"convs.{i}.skip.1", fir(x, p[f"convs.{i}.skip.0.kernel"], (1, 1)), stride=2)
        x, i = (y + skip) / 2**0.5, i + 1
    x = biased(conv("final_conv.0", stddev_channel(x, 4), padding=1), "final_conv.1")
    return linear("final_linear.1", lrelu(linear("final_linear.0", x.flatten(1))))


# ---------------------------------------------------------------- NVIDIA


def nvidia_generator(widths: dict[int, int], style: int, layers: int, seed: int = 0) -> State:
    draw, state = Draw(seed), {}

    def affine(name: str, outside: int) -> None:
        state[f"{name}.affine.weight"] = draw.normal(outside, style)
        state[f"{name}.affine.bias"] = draw.bias(outside, around=1)

    def layer(name: str, inside: int, outside: int, res: int) -> None:
        affine(name, inside)
        state[f"{name}.weight"] = draw.normal(outside, inside, 3, 3)
        state[f"{name}.noise_strength"] = draw.bias()
        state[f"{name}.bias"] = draw.bias(outside)
        state[f"{name}.resample_filter"] = FILTER
        state[f"{name}.noise_const"] = draw.normal(res, res)

    for res in resolutions(widths):
        name, width = f"synthesis.b{res}", widths[res]
        state[f"{name}.resample_filter"] = FILTER
        if res == 4:
            state[f"{name}.const"] = draw.normal(width, 4, 4)
        else:
            layer(f"{name}.conv0", widths[res // 2], width, res)
        layer(f"{name}.conv1", width, width, res)
        affine(f"{name}.torgb", width)
        state[f"{name}.torgb.weight"] = draw.normal(3, width, 1, 1)
        state[f"{name}.torgb.bias"] = draw.bias(3)
    for i in range(layers):
        state[f"mapping.fc{i}.weight"] = draw.normal(style, style) / 0.01
        state[f"mapping.fc{i}.bias"] = draw.bias(style) / 0.01
    return state | {"mapping.w_avg": draw.normal(style)}


def nvidia_mapping(p: State, z: Tensor) -> Tensor:
    x, i = unit(z), 0
    while f"mapping.fc{i}.weight" in p:
        gain = 0.01 / math.sqrt(x.shape[1])
        x, i = lrelu(x @ (p[f"mapping.fc{i}.weight"] * gain).t() + p[f"mapping.fc{i}.bias"] * 0.01), i + 1
    return x


def nvidia_resampled_conv(x: Tensor, weight: Tensor, kernel: Tensor, up: bool = False, down: bool = False) -> Tensor:
    """The reference path: the filter before the convolution when up-sampling, after it when down-sampling.

    Up-sampling goes with a true convolution, so ``conv2d``, which correlates, gets the weights flipped.
    """
    edge = weight.shape[-1] // 2
    if up:
        return F.conv2d(fir(x, 4 * kernel, (edge + 2, edge + 1), up=2), weight.flip(2, 3))
    if down:
        return fir(F.conv2d(F.pad(x, [edge + 1] * 4), weight), kernel, (0, 0), down=2)
    return F.conv2d(x, weight, padding=edge)


def nvidia_image(p: State, w: Tensor, clamp: float = 256) -> Tensor:
    """(N, K, S) -> (N, 3, H, W), with the stored noise."""

    def styles(name: str, code: Tensor) -> Tensor:
        return F.linear(code, p[f"{name}.affine.weight"] / math.sqrt(code.shape[1]), p[f"{name}.affine.bias"])

    def layer(name: str, x: Tensor, code: Tensor, up: bool = False) -> Tensor:
        weights = p[f"{name}.weight"] * styles(name, code)[:, None, :, None, None]  # not scaled by the fan-in
        weights = weights / (weights.square().sum((2, 3, 4), keepdim=True) + 1e-8).sqrt()
        x = each(x, weights, lambda a, b: nvidia_resampled_conv(a, b, p[f"{name}.resample_filter"], up))
        x = x + p[f"{name}.noise_const"] * p[f"{name}.noise_strength"]
        return lrelu(x + p[f"{name}.bias"][:, None, None]).clamp(-clamp, clamp)

    def to_rgb(name: str, x: Tensor, code: Tensor) -> Tensor:
        style = styles(name, code) / math.sqrt(x.shape[1])
        weights = p[f"{name}.weight"] * style[:, None, :, None, None]
        return (each(x, weights, F.conv2d) + p[f"{name}.bias"][:, None, None]).clamp(-clamp, clamp)

    x = p["synthesis.b4.const"][None].repeat(len(w), 1, 1, 1)
    x = layer("synthesis.b4.conv1", x, w[:, 0])
    image, k = to_rgb("synthesis.b4.torgb", x, w[:, 1]), 1
    while (name := f"synthesis.b{4 << (k + 1) // 2}") + ".conv0.weight" in p:
        x = layer(f"{name}.conv0", x, w[:, k], up=True)
        x = layer(f"{name}.conv1", x, w[:, k + 1])
        image = fir(image, 4 * p[f"{name}.resample_filter"], (2, 1), up=2)
        image, k = image + to_rgb(f"{name}.torgb", x, w[:, k + 2]), k + 2
    return image


def nvidia_discriminator(widths: dict[int, int], seed: int = 1) -> State:
    draw, state = Draw(seed), {}
    size, last = max(widths), widths[4]

    def conv(name: str, inside: int, outside: int, k: int, bias: bool = True) -> None:
        state[f"{name}.weight"] = draw.normal(outside, inside, k, k)
        state[f"{name}.resample_filter"] = FILTER
        if bias:
            state[f"{name}.bias"] = draw.bias(outside)

    for res in resolutions(widths)[:0:-1]:
        state[f"b{res}.resample_filter"] = FILTER
        if res == size:
            conv(f"b{res}.fromrgb", 3, widths[res], 1)
        conv(f"b{res}.conv0", widths[res], widths[res], 3)
        conv(f"b{res}.conv1", widths[res], widths[res // 2], 3)
        conv(f"b{res}.skip", widths[res], widths[res // 2], 1, bias=False)
    conv("b4.conv", last + 1, last, 3)
    state |= {"b4.fc.weight": draw.normal(last, 16 * last), "b4.fc.bias": draw.bias(last)}
    return state | {"b4.out.weight": draw.normal(1, last), "b4.out.bias": draw.bias(1)}


def nvidia_logits(p: State, image: Tensor, group: int = 4, clamp: float = 256) -> Tensor:
    def conv(name: str, x: Tensor, down: bool = False, gain: float = 1.0) -> Tensor:
        weight = p[f"{name}.weight"] / math.sqrt(p[f"{name}.weight"][0].numel())
        x = nvidia_resampled_conv(x, weight, p[f"{name}.resample_filter"], down=down)
        if f"{name}.bias" not in p:  # the skip path, linear
            return x * gain
        return (lrelu(x + p[f"{name}.bias"][:, None, None]) * gain).clamp(-clamp * gain, clamp * gain)

    def linear(name: str, x: Tensor) -> Tensor:
        return x @ (p[f"{name}.weight"] / math.sqrt(x.shape[1])).t() + p[f"{name}.bias"]

    x, res = conv(f"b{image.shape[-1]}.fromrgb", image), image.shape[-1]
    while res > 4:
        skip = conv(f"b{res}.skip", x, down=True, gain=0.5**0.5)
        x = conv(f"b{res}.conv1", conv(f"b{res}.conv0", x), down=True, gain=0.5**0.5)
        x, res = skip + x, res // 2
    x = conv("b4.conv", stddev_channel(x, group))
    return linear("b4.out", lrelu(linear("b4.fc", x.flatten(1))))
