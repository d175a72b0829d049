"""What losses by a pre-trained network have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import nn

from glean_ext.networks.precision import channels_last


class FrozenJudge(nn.Module, ABC):
    """A loss that a frozen network computes, which is read when training starts and is no part of checkpoints."""

    def __init__(self) -> None:
        super().__init__()
        self._loaded: list[nn.Module] = []  # a list, which torch does not look into

    @abstractmethod
    def load(self) -> nn.Module:
        """The network with its weights."""

    def init_weights(self) -> None:
        """Load the network. mmengine's runner calls this; otherwise the first forward does."""
        self._loaded = [self.load().requires_grad_(False).eval()]
        channels_last(self._loaded[0])  # as the images are

    def network(self, device: torch.device) -> nn.Module:
        """The network, on a device."""
        if not self._loaded:
            self.init_weights()
        return self._loaded[0].to(device)
