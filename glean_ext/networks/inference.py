"""The fast form of a trained network, for inference only."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from glean_ext.errors import InputError

from .lightglean import LightGLEANStyleGANv2, require_input

DTYPES = (torch.float32, torch.bfloat16, torch.float16)


class FoldedLightGLEAN(nn.Module):
    """:class:`LightGLEANStyleGANv2` with its style codes folded into the weights: a plain convolutional network."""

    in_size = None  # any

    def __init__(self, net: LightGLEANStyleGANv2):
        super().__init__()
        self.nominal_size = net.nominal_size
        self.out_size = net.out_size
        self.img_channels = net.img_channels
        self.encoder = copy.deepcopy(net.encoder)
        self.bank = net.generator.folded(net.style_codes[None])
        self.decoder = copy.deepcopy(net.decoder)

    def forward(self, lq: Tensor) -> Tensor:
        """(N, 3, h, w), RGB in [-1, 1] -> (N, 3, H, W), fp32, about [-1, 1]; h and w from 8 on.

        Raises:
            InputError: The input is smaller than 8x8, or has other channels.
        """
        require_input(lq, self.img_channels)
        f_0 = self.encoder(lq.to(next(self.parameters()).dtype))  # (N, C, h, w)
        return self.decoder(f_0, self.bank(f_0)).float()


def prepare_for_inference(net: nn.Module, dtype: torch.dtype = torch.float32) -> nn.Module:
    """A copy of ``net`` that computes the same faster: nothing is left in it that only training needs.

    Args:
        net: The trained network; it is left as it is. LightGLEAN only, so far.
        dtype: What the copy stores and computes in; its inputs and outputs are fp32 all the same.

    Returns:
        A frozen module in evaluation mode. In fp32 its output equals that of ``net`` within 1e-5 of the range.

    Raises:
        InputError: Another network or dtype.
    """
    if not isinstance(net, LightGLEANStyleGANv2):
        raise InputError(
            f"prepare_for_inference folds constant style codes, which LightGLEANStyleGANv2 has, but got a "
            f"{type(net).__name__}. Use that network as it is."
        )
    if dtype not in DTYPES:
        raise InputError(f"dtype must be one of {', '.join(map(str, DTYPES))}, but it is {dtype}.")
    return FoldedLightGLEAN(net).to(dtype).requires_grad_(False).eval()
