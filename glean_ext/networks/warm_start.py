"""A start of training from which a restorer can use its bank: what it draws before the first step is the bank's own.

MMagic's initialisation mixes the bank's features with the encoder's at random, and gives every layer a random style
code: all that the bank learned is gone before the first step, and a short training does not bring it back.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn


@torch.no_grad()
def start_as_identity(fusion: nn.Conv2d) -> None:
    """Let a convolution pass on its first input channels, as many as it has output channels, and no others."""
    nn.init.dirac_(fusion.weight)
    if fusion.bias is not None:
        fusion.bias.zero_()


@torch.no_grad()
def start_from_bank(to_codes: nn.Linear, fusions: Iterable[nn.Module], style: Tensor) -> None:
    """Let a GLEAN start with the image that its bank draws from one style, whatever the input is.

    Args:
        to_codes: The encoder's last layer, (N, 16 C) -> (N, K S): all codes become ``style``.
        fusions: Those that are convolutions pass the bank's features on; the encoder's get no weight yet.
        style: (1, S)
    """
    to_codes.weight.zero_()
    assert to_codes.bias is not None
    to_codes.bias.copy_(style.expand(to_codes.out_features // style.shape[1], -1).flatten())
    for fusion in fusions:
        if isinstance(fusion, nn.Conv2d):
            start_as_identity(fusion)
