"""The fidelity gate: how much of the bank's features reaches the decoder.

The weight w in [0, 1] is used as CodeFormer's (Zhou et al., NeurIPS 2022, section 3.3): 0 restores, 1 is faithful to
the input. The decoder gets the bank's features times 1 - w, so at 1 all of the result comes from the encoder. Training
draws w, and has the losses that ask for invented detail count 1 - w (:class:`glean_ext.models.glean.GLEAN`).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import cast

import torch
from torch import Tensor, nn

from glean_ext.errors import InputError, require_fidelity
from glean_ext.networks.decoder import Decoder, SlimDecoder

NONE_SHARE = 0.5  # of the images of a training that get w = 0, which is what a model does without a wish
FULL_SHARE = 0.25  # that get w = 1; the others get values in between


class FidelityGate(nn.Module):
    """Scales the bank's features. Its buffer says in a checkpoint that the network was trained with the gate."""

    trained: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("trained", torch.ones(()))

    def forward(self, features: Iterable[Tensor], fidelity: Tensor) -> list[Tensor]:
        """(N, C, H, W) each, w (N,) in [0, 1] -> (N, C, H, W) each"""
        share = (1 - fidelity)[:, None, None, None]
        return [x * share.to(x.dtype) for x in features]


def draw_fidelity(images: int, device: torch.device) -> Tensor:
    """The weights w of a batch in training: (images,)"""
    kind, between = torch.rand(2, images, device=device)
    return torch.where(kind < NONE_SHARE, 0.0, torch.where(kind < NONE_SHARE + FULL_SHARE, 1.0, between))


def require_gate(fidelity_gate: bool, bank: str, decoder: str) -> FidelityGate | None:
    """The gate of a network that is to have one.

    Raises:
        ValueError: There is no bank or no decoder that it could stand between.
    """
    if not fidelity_gate:
        return None
    if bank == "absent" or decoder == "none":
        raise ValueError("fidelity_gate=True needs a bank and a decoder.")
    return FidelityGate()


def fix_fidelity(net: nn.Module, fidelity: float) -> None:
    """Give a network one weight w for all images, and take its gate away.

    The gate scales what the decoder convolves first, so w becomes part of the decoder's weights. Fast form, exports and
    tiles then need no gate.

    Raises:
        InputError: The network has no gate, or w lies outside of [0, 1].
    """
    require_fidelity(fidelity)
    if not has_gate(net):
        raise InputError(
            "This model was trained without the gate that {fidelity} sets: it has one result for an image.",
            parameter="fidelity",
            hint="Leave {fidelity} out; restoring the faces of photographs takes it with any model.",
        )
    cast(Decoder | SlimDecoder, net.decoder).scale_bank(1 - fidelity)
    net.register_module("fidelity_gate", None)


def has_gate(net: nn.Module) -> bool:
    """Whether a network was trained with the fidelity gate."""
    return getattr(net, "fidelity_gate", None) is not None
