"""Images of the decoder's smaller resolutions, which only training looks at.

Source: the intermediate losses of GFPGAN (Wang et al., CVPR 2021, section 3.2), there on its U-Net.
"""

from __future__ import annotations

from collections.abc import Sequence

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
