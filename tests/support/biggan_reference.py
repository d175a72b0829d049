"""BigGAN as its authors' PyTorch release lays it out: a state dict with random values, and what it computes.

Written down from their ``BigGAN.py``, ``BigGANdeep.py`` and ``layers.py``: one step of power iteration from ``u0``,
batch norm by stored statistics, the class embedding before the latent code.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

WIDTHS = {32: (4, 4, 4, 4), 64: (16, 16, 8, 4, 2)}


class Release:
    """A network of the release; ``state`` is what its ``G_ema.pth`` holds."""

    def __init__(self, size: int, deep: bool, classes: int = 5, ch: int = 4, dim_z: int = 20, shared: int = 6):
        self.deep, self.generator = deep, torch.Generator().manual_seed(3)
        self.widths = [ch * factor for factor in WIDTHS[size]]
        self.slots, self.dim_z, self.attention = len(self.widths), dim_z, size >= 64
        self.chunk = dim_z // self.slots
        self.state: dict[str, Tensor] = {"shared.weight": 0.3 * self.random(classes, shared)}
        condition = shared + (dim_z if deep else self.chunk)
        self.sn("linear", 16 * self.widths[0], condition if deep else self.chunk)
        for i in range((self.slots - 1) * (2 if deep else 1)):
            below, here, last = self.block_widths(i)
            if deep:
                hidden = below // 4
                for j, (inputs, outputs, side) in enumerate(
                    [(below, hidden, 1), (hidden, hidden, 3), (hidden, hidden, 3), (hidden, here, 1)], 1
                ):
                    self.sn(f"blocks.{i}.0.conv{j}", outputs, inputs, side, side)
                    self.norm(f"blocks.{i}.0.bn{j}", inputs, condition)
            else:
                self.sn(f"blocks.{i}.0.conv1", here, below, 3, 3)
                self.sn(f"blocks.{i}.0.conv2", here, here, 3, 3)
                self.sn(f"blocks.{i}.0.conv_sc", here, below, 1, 1)
                self.norm(f"blocks.{i}.0.bn1", below, condition)
                self.norm(f"blocks.{i}.0.bn2", here, condition)
            if last and self.attention:
                for part, shape in {"theta": (8, 1), "phi": (8, 1), "g": (2, 1), "o": (1, 2)}.items():
                    self.sn(f"blocks.{i}.1.{part}", here // shape[0], here // shape[1], 1, 1, bias=False)
                self.state[f"blocks.{i}.1.gamma"] = torch.tensor(0.8)
        self.state |= {
            "output_layer.0.gain": self.random(self.widths[-1]),
            "output_layer.0.bias": self.random(self.widths[-1]),
        }
        self.statistics("output_layer.0", self.widths[-1])
        self.sn("output_layer.2", 3, self.widths[-1], 3, 3)

    def block_widths(self, i: int) -> tuple[int, int, bool]:
        """Of block ``i``: widths below and here, and whether it is the last one of the last resolution."""
        stage = i // 2 if self.deep else i
        below, here = self.widths[stage], self.widths[stage + 1]
        upsampling = not self.deep or i % 2 == 1
        return below, here if upsampling else below, upsampling and stage == self.slots - 2

    # ------------------------------------------------------------ values

    def random(self, *shape: int) -> Tensor:
        return torch.randn(shape, generator=self.generator)

    def sn(self, name: str, *shape: int, bias: bool = True) -> None:
        self.state[f"{name}.weight"] = self.random(*shape)
        self.state |= {f"{name}.u0": self.random(1, shape[0]), f"{name}.sv0": torch.ones(1)}
        if bias:
            self.state[f"{name}.bias"] = 0.3 * self.random(shape[0])

    def statistics(self, name: str, channels: int) -> None:
        self.state[f"{name}.stored_mean"] = 0.2 * self.random(channels)
        self.state[f"{name}.stored_var"] = self.random(channels).square() + 1

    def norm(self, name: str, channels: int, condition: int) -> None:
        self.sn(f"{name}.gain", channels, condition, bias=False)
        self.sn(f"{name}.bias", channels, condition, bias=False)
        self.statistics(name, channels)

    # ------------------------------------------------------------ the forward pass

    def weight(self, name: str) -> Tensor:
        weight, u = self.state[f"{name}.weight"], self.state[f"{name}.u0"]
        matrix = weight.flatten(1)
        v = F.normalize(u @ matrix, eps=1e-12)
        u = F.normalize(v @ matrix.t(), eps=1e-12)
        return weight / (v @ matrix.t() @ u.t()).squeeze()

    def conv(self, name: str, x: Tensor) -> Tensor:
        weight = self.weight(name)
        return F.conv2d(x, weight, self.state.get(f"{name}.bias"), padding=weight.shape[-1] // 2)

    def bn(self, name: str, x: Tensor, y: Tensor) -> Tensor:
        gain, bias = (F.linear(y, self.weight(f"{name}.{part}"))[:, :, None, None] for part in ("gain", "bias"))
        x = F.batch_norm(x, self.state[f"{name}.stored_mean"], self.state[f"{name}.stored_var"], eps=1e-5)
        return F.relu(x * (1 + gain) + bias)

    def block(self, name: str, x: Tensor, y: Tensor) -> Tensor:
        h = F.interpolate(self.bn(f"{name}.bn1", x, y), scale_factor=2)
        h = self.conv(f"{name}.conv2", self.bn(f"{name}.bn2", self.conv(f"{name}.conv1", h), y))
        return h + self.conv(f"{name}.conv_sc", F.interpolate(x, scale_factor=2))

    def deep_block(self, name: str, x: Tensor, y: Tensor, upsample: bool) -> Tensor:
        h = self.bn(f"{name}.bn2", self.conv(f"{name}.conv1", self.bn(f"{name}.bn1", x, y)), y)
        x = x[:, : self.state[f"{name}.conv4.weight"].shape[0]]
        if upsample:
            h, x = F.interpolate(h, scale_factor=2), F.interpolate(x, scale_factor=2)
        h = self.conv(f"{name}.conv3", self.bn(f"{name}.bn3", self.conv(f"{name}.conv2", h), y))
        return x + self.conv(f"{name}.conv4", self.bn(f"{name}.bn4", h, y))

    def attend(self, name: str, x: Tensor) -> Tensor:
        theta = self.conv(f"{name}.theta", x).flatten(2)
        phi, g = (F.max_pool2d(self.conv(f"{name}.{part}", x), 2).flatten(2) for part in ("phi", "g"))
        beta = F.softmax(theta.transpose(1, 2) @ phi, -1)
        mixed = (g @ beta.transpose(1, 2)).view(len(x), -1, *x.shape[2:])
        return self.state[f"{name}.gamma"] * self.conv(f"{name}.o", mixed) + x

    def __call__(self, z: Tensor, label: Tensor) -> Tensor:
        y = self.state["shared.weight"][label]
        if self.deep:
            z = torch.cat([y, z], 1)
            conditions = [z] * len(self.state)
        else:
            z, *chunks = z.split(self.chunk, 1)
            conditions = [torch.cat([y, chunk], 1) for chunk in chunks]
        x = F.linear(z, self.weight("linear"), self.state["linear.bias"]).view(len(z), -1, 4, 4)
        i = 0
        while f"blocks.{i}.0.conv1.weight" in self.state:
            name = f"blocks.{i}.0"
            x = self.deep_block(name, x, conditions[i], i % 2 == 1) if self.deep else self.block(name, x, conditions[i])
            if f"blocks.{i}.1.gamma" in self.state:
                x = self.attend(f"blocks.{i}.1", x)
            i += 1
        state = {key.removeprefix("output_layer.0."): v for key, v in self.state.items()}
        x = F.batch_norm(x, state["stored_mean"], state["stored_var"], state["gain"], state["bias"], eps=1e-5)
        return torch.tanh(self.conv("output_layer.2", F.relu(x)))
