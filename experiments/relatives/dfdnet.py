"""DFDNet (Li et al., ECCV 2020): features of eyes and mouth from a dictionary, transferred by feature attention.

A frozen VGG makes features of the enlarged input. For each component and each resolution the entry of the dictionary
that resembles them most is added, by a confidence that is computed from the difference. The decoder takes the result as
scale and shift of its own features. What is no component (hair, skin) gets nothing from the dictionary.

What differs from the paper: VGG16 instead of a VGG for faces; three resolutions instead of four; no nose, which the
cartoons do not have; boxes at fixed places instead of landmarks; 32 entries (256 in the paper) of 400 images; the
decoder's output is added to the enlarged input; the training is that of all systems.
"""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from experiments.relatives.dictionary import BOXES, LAYERS, Dictionary, region
from experiments.relatives.parts import WIDTHS, Block, conv, enlarge
from glean_ext.networks.encoder import start_at_zero

EPSILON = 1e-5


class DFDNet(nn.Module):
    """Frozen features -> components from the dictionary -> decoder. It takes no references.

    Args:
        scale: s.
        extractor: Images -> features of LAYERS, fine to coarse; frozen.
        dictionary: Its entries; None: nothing is transferred, everything else is the same.
    """

    def __init__(self, scale: int, extractor: nn.Module, dictionary: Dictionary | None):
        super().__init__()
        self.scale = scale
        self.extractor = extractor.requires_grad_(False)
        transfers = {key.replace(".", "_"): Transfer(entries) for key, entries in (dictionary or {}).items()}
        self.transfers = nn.ModuleDict(transfers)
        channels = tuple(LAYERS.values())
        self.first = nn.Sequential(conv(channels[-1], WIDTHS[-1]), nn.ReLU(), Block(WIDTHS[-1]))
        self.ups = nn.ModuleList(conv(coarse, 4 * fine) for fine, coarse in pairwise(WIDTHS))
        self.levels = nn.ModuleList(Modulation(width, c) for width, c in zip(WIDTHS, channels, strict=True))
        self.last = start_at_zero(conv(WIDTHS[0], 3))

    def forward(self, lq: Tensor) -> Tensor:
        """(N, 3, h, w), RGB in [-1, 1] -> (N, 3, s h, s w)"""
        large = enlarge(lq, self.scale)
        with torch.no_grad():
            features = self.extractor(large)
        features = [self._with_components(level, x) for level, x in enumerate(features)]
        x = self.levels[-1](self.first(features[-1]), features[-1])
        for i in reversed(range(len(self.ups))):
            x = F.pixel_shuffle(self.ups[i](x), 2)
            x = self.levels[i](x, features[i])
        return large + self.last(x)

    def _with_components(self, level: int, features: Tensor) -> Tensor:
        """(N, C, H, W) -> the same, its components changed"""
        changed = features.clone()
        for name, box in BOXES.items():
            if (key := f"{name}_{level}") in self.transfers:
                rows, columns = region(box, features.shape[-1])
                changed[..., rows, columns] = self.transfers[key](features[..., rows, columns]).to(features.dtype)
        return changed


class Transfer(nn.Module):
    """The entry that fits a component is added to it: (N, C, h, w) -> the same.

    Args:
        entries: (K, C, h, w).
    """

    entries: Tensor

    def __init__(self, entries: Tensor):
        super().__init__()
        channels = entries.shape[1]
        self.register_buffer("entries", entries)
        narrow = channels // 4
        self.confidence = nn.Sequential(
            conv(channels, narrow), nn.LeakyReLU(0.2), start_at_zero(conv(narrow, channels))
        )

    def forward(self, component: Tensor) -> Tensor:
        entry = nearest(component.float(), self.entries)
        return component + entry * self.confidence(entry - component)


def nearest(component: Tensor, entries: Tensor) -> Tensor:
    """For each component the entry with the largest inner product, with the component's mean and spread (CAdaIN).

    Args:
        component: (N, C, h, w).
        entries: (K, C, h, w).

    Returns:
        (N, C, h, w)
    """
    means, spreads = moments(component)  # (N, C, 1, 1)
    own_means, own_spreads = moments(entries)
    plain = (entries - own_means) / (own_spreads + EPSILON)  # (K, C, h, w)
    adapted = plain[None] * spreads[:, None] + means[:, None]  # (N, K, C, h, w)
    best = torch.einsum("nkchw,nchw->nk", adapted, component).argmax(1)
    return adapted[torch.arange(len(component), device=component.device), best]


def moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation over the pixels of each channel: (N, C, h, w) -> two (N, C, 1, 1)"""
    return x.mean((2, 3), keepdim=True), x.std((2, 3), keepdim=True, correction=0)


class Modulation(nn.Module):
    """Scale and shift from other features, then a residual block (SFT): (N, W, H, W), (N, C, H, W) -> (N, W, H, W)"""

    def __init__(self, width: int, channels: int):
        super().__init__()
        self.shared = nn.Sequential(conv(channels, width), nn.LeakyReLU(0.2))
        self.scale, self.shift = conv(width, width), conv(width, width)
        self.block = Block(width)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        condition = self.shared(condition)
        return self.block(x * (1 + self.scale(condition)) + self.shift(condition))
