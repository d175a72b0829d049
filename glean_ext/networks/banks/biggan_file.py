"""Files of BigGAN generators, with the keys of MMagic's ``BigGANGenerator`` and ``BigGANDeepGenerator``.

A frozen bank needs neither spectral norm nor batch norm: the largest singular values and the running statistics of a
file are folded into weights when it is loaded. The files know three ways of spectral norm, by their keys:

    weight, u0, sv0                    of BigGAN's authors: one step of power iteration from ``u0`` at each use
    weight_orig, weight_u, weight_v    of PyTorch: the singular vectors as they are
    weight                             none
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from glean_ext.networks.banks.biggan_spec import DEEP_BLOCKS, DEEP_RATIO, WIDTHS, BigGANSpec, Layer
from glean_ext.networks.shapes import MIN_SIZE

BN_EPS = 1e-5
Take = Callable[..., Tensor]  # (key, *shape) -> the tensor of that name


def expected(spec: BigGANSpec, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What a file of such a generator holds, as tensors without content; ``state`` shows its way of spectral norm."""
    found: dict[str, Tensor] = {}

    def take(key: str, *shape: int) -> Tensor:
        dtype = torch.int64 if key.endswith("num_batches_tracked") else torch.float32
        found[key] = torch.empty(shape, dtype=dtype, device="meta")
        return found[key]

    Folding(take, state).generator(spec)
    return found


@torch.no_grad()
def folded(spec: BigGANSpec, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of :class:`~glean_ext.networks.banks.biggan.BigGANGenerator` from those of a file, in fp32."""
    return Folding(lambda key, *shape: state[key].float(), state).generator(spec)


class Folding:
    """Makes this package's tensors of a file's, layer by layer.

    Args:
        take: Gives a file's tensor.
        state: The file's tensors, of which only the names matter.
    """

    def __init__(self, take: Take, state: Mapping[str, Tensor]):
        self.take = take
        self.style = next((name for name in ("u0", "weight_orig") if f"noise2feat.{name}" in state), "")

    def generator(self, spec: BigGANSpec) -> dict[str, Tensor]:
        """All tensors, by their keys."""
        first, last = spec.widths[MIN_SIZE], spec.widths[spec.out_size]
        tensors = {"shared_embedding.weight": self.take("shared_embedding.weight", spec.num_classes, spec.shared_dim)}
        tensors |= self.layer("noise2feat", "noise2feat", first * MIN_SIZE**2, spec.start_channels)
        if spec.deep:  # its features at 4x4 have the channels last
            tensors = {k: channels_first(v) if k.startswith("noise2feat") else v for k, v in tensors.items()}
        for i, layer in enumerate(spec.layers):
            parts = self.attention if layer.attention else self.deep_block if spec.deep else self.block
            made = parts(f"conv_blocks.{i}", layer, spec.condition_channels)
            tensors |= {f"conv_blocks.{i}.{key}": tensor for key, tensor in made.items()}
        scale, shift = self.norm("output_layer.bn", last)
        gain, bias = self.take("output_layer.bn.weight", last), self.take("output_layer.bn.bias", last)
        tensors |= {"output_norm.weight": scale * gain, "output_norm.bias": shift * gain + bias}
        return tensors | self.layer("output_conv", "output_layer.conv", 3, last, 3, 3)

    def block(self, name: str, layer: Layer, condition: int) -> dict[str, Tensor]:
        below, here = layer.in_channels, layer.out_channels
        return (
            self.conditional_norm("bn1", f"{name}.bn1", below, condition)
            | self.layer("conv1", f"{name}.conv1.conv", here, below, 3, 3)
            | self.conditional_norm("bn2", f"{name}.bn2", here, condition)
            | self.layer("conv2", f"{name}.conv2.conv", here, here, 3, 3)
            | self.layer("shortcut", f"{name}.shortcut.conv", here, below, 1, 1)
        )

    def deep_block(self, name: str, layer: Layer, condition: int) -> dict[str, Tensor]:
        below, here, hidden = layer.in_channels, layer.out_channels, layer.in_channels // DEEP_RATIO
        shapes = (hidden, below, 1, 1), (hidden, hidden, 3, 3), (hidden, hidden, 3, 3), (here, hidden, 1, 1)
        made: dict[str, Tensor] = {}
        for i, shape in enumerate(shapes, 1):
            made |= self.conditional_norm(f"bn{i}", f"{name}.bn{i}", shape[1], condition)
            made |= self.layer(f"conv{i}", f"{name}.conv{i}.conv", *shape)
        return made

    def attention(self, name: str, layer: Layer, _condition: int) -> dict[str, Tensor]:
        channels = layer.out_channels
        shapes = {"theta": (channels // 8, channels), "phi": (channels // 8, channels)}
        shapes |= {"g": (channels // 2, channels), "o": (channels, channels // 2)}
        made: dict[str, Tensor] = {}
        for part, shape in shapes.items():
            made |= self.layer(part, f"{name}.{part}.conv", *shape, 1, 1, bias=False)
        return made | {"o.weight": made["o.weight"] * self.take(f"{name}.gamma")}

    def layer(self, own: str, file: str, *shape: int, bias: bool = True) -> dict[str, Tensor]:
        """A linear layer or convolution, its weight divided by its largest singular value."""
        made = {f"{own}.weight": self.weight(file, *shape)}
        return made | ({f"{own}.bias": self.take(f"{file}.bias", shape[0])} if bias else {})

    def weight(self, file: str, *shape: int) -> Tensor:
        if self.style == "u0":
            weight, u = self.take(f"{file}.weight", *shape), self.take(f"{file}.u0", 1, shape[0])
            self.take(f"{file}.sv0", 1)  # a record only
            v = F.normalize(u @ weight.flatten(1))
            return weight / torch.linalg.vector_norm(v @ weight.flatten(1).t())
        if self.style == "weight_orig":
            weight = self.take(f"{file}.weight_orig", *shape)
            u, v = self.take(f"{file}.weight_u", shape[0]), self.take(f"{file}.weight_v", weight[0].numel())
            return weight / torch.dot(u, weight.flatten(1) @ v)
        return self.take(f"{file}.weight", *shape)

    def norm(self, file: str, channels: int) -> tuple[Tensor, Tensor]:
        """Batch norm by running statistics, as factor and summand: (C,), (C,)"""
        mean, variance = (self.take(f"{file}.running_{name}", channels) for name in ("mean", "var"))
        self.take(f"{file}.num_batches_tracked")
        scale = torch.rsqrt(variance + BN_EPS)
        return scale, -mean * scale

    def conditional_norm(self, own: str, file: str, channels: int, condition: int) -> dict[str, Tensor]:
        """Factor and summand of the channels as one affine function of the condition: weight (2C, D), bias (2C,)"""
        scale, shift = self.norm(f"{file}.bn", channels)
        gain, bias = (self.weight(f"{file}.{name}", channels, condition) for name in ("gain", "bias"))
        weight = torch.cat([scale[:, None] * gain, shift[:, None] * gain + bias])
        return {f"{own}.weight": weight, f"{own}.bias": torch.cat([scale, shift])}


def channels_first(x: Tensor) -> Tensor:
    """Rows of a linear layer that stand for (4, 4, C), reordered for (C, 4, 4)."""
    return x.unflatten(0, (MIN_SIZE**2, -1)).transpose(0, 1).flatten(0, 1)


def bank_sizes(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """The sizes of the BigGAN generator that a file holds, by the arguments that set them; empty for other files.

    ``num_classes`` is 0 for an unconditional one, and missing for one whose layers have embeddings of their own.
    """
    blocks = [i for i in range(len(state)) if f"conv_blocks.{i}.bn1.bn.running_mean" in state]
    start = state.get("noise2feat.weight", state.get("noise2feat.weight_orig"))
    if not blocks or start is None or start.ndim != 2:
        return {}
    deep = "conv_blocks.0.conv3.conv.bias" in state
    per_stage = DEEP_BLOCKS if deep else 1
    out_size = MIN_SIZE << len(blocks) // per_stage
    if out_size not in WIDTHS:
        return {}
    embedding = state.get("shared_embedding.weight")
    shared_dim = 0 if embedding is None else embedding.shape[-1]
    before = [
        sum(block < int(match[1]) for block in blocks)
        for key in state
        if (match := re.fullmatch(r"conv_blocks\.(\d+)\.gamma", key))
    ]
    sizes = {
        "out_size": out_size,
        "base_channels": start.shape[0] // MIN_SIZE**2 // WIDTHS[out_size][0],
        "noise_size": start.shape[1] - shared_dim if deep else start.shape[1] * (len(blocks) + 1),
        "shared_dim": shared_dim,
        "deep": deep,
        "attention_at": tuple(MIN_SIZE << count // per_stage for count in before),
    }
    if embedding is not None:
        return {"num_classes": embedding.shape[0], **sizes}
    own_embeddings = "noise2feat.u0" in state and "conv_blocks.0.bn1.gain.u0" not in state
    return sizes if own_embeddings else {"num_classes": 0, **sizes}
