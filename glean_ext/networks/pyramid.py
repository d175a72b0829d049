"""Images of the decoder's smaller resolutions, which only training looks at.

Source: the intermediate losses of GFPGAN (Wang et al., CVPR 2021, section 3.2), there on its U-Net.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from glean_ext.networks.conv2d_gradfix import Conv2d


class PyramidHeads(nn.ModuleList):
    """A 1x1 convolution for each of the decoder's inner features: (N, C_i, 2^i h, 2^i w) -> (N, 3, 2^i h, 2^i w)"""

    def __init__(
        self,
        widths: Sequence[int],  # C_i, from the smallest resolution on
        img_channels: int,
    ):
        super().__init__(Conv2d(width, img_channels, 1) for width in widths)

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        return [head(x) for head, x in zip(self, features, strict=True)]


def decode(net: Any, f_0: Tensor, bank_features: list[Tensor], fidelity: Tensor | None) -> Tensor:
    """The decoder's image (N, 3, H, W), behind the fidelity gate; training keeps the smaller images in ``net``.

    Args:
        net: A restorer with ``decoder``, ``fidelity_gate`` and ``pyramid``, of which the last two may be None.
        f_0: (N, C, h, w)
        bank_features: (N, C_i, 2^i h, 2^i w) for i = 1, 2, ...
        fidelity: w of each image, (N,) in [0, 1]; None: 0.
    """
    if net.fidelity_gate is not None and fidelity is not None:
        bank_features = net.fidelity_gate(bank_features, fidelity)
    if net.pyramid is None or not net.training:
        image: Tensor = net.decoder(f_0, bank_features)
        return image
    inner: list[Tensor] = []
    image = net.decoder(f_0, bank_features, inner)
    net.pyramid_images = net.pyramid(inner)
    return image
