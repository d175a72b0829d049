"""Stand-ins for GLEAN's own parts in the ablation study of its paper (CVPR 2021, section 4).

The study removes what the encoder, the bank and the decoder each contribute:

    encoder   its features f_i enter the bank at all, some, one or none of the resolutions (``inject_at``). With none,
              the bank depends on the input through the style codes only, as in GAN inversion.
    bank      pre-trained and frozen; pre-trained and trained with the rest; random and frozen (``bank``,
              ``bank_init``); absent, which leaves a super-resolution network trained from scratch.
    decoder   full; slim (LightGLEAN's, not in the study); none: the bank's own image is the result (``decoder``).

Each module has the interface of the part it replaces. Only :mod:`glean_ext.networks.builder` uses them.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from glean_ext.networks.banks.bank import Bank, BankSpec
from glean_ext.networks.encoder import feature_extractor
from glean_ext.networks.shapes import MIN_SIZE, resolutions

# ---------------------------------------------------------------- encoder


class NoFusion(nn.Module):
    """In place of the convolution that fuses the encoder's features into the bank's: it drops the encoder's."""

    def __init__(
        self,
        channels: int,  # C: of the bank's features
    ):
        super().__init__()
        self.channels = channels

    def forward(self, x: Tensor) -> Tensor:
        """The bank's C channels, then the encoder's: (N, C + C', H, W) -> (N, C, H, W)"""
        return x[:, : self.channels]


class TrunkAlone(nn.ModuleList):
    """The encoder of a restorer without bank: f_0, and neither features below it nor style codes."""

    def __init__(
        self,
        in_size: int,  # pixels: side of the input
        channels: Mapping[int, int],  # resolution -> width of f_0
        img_channels: int,  # of the input
        rrdb_channels: int,  # width of the trunk
        num_rrdbs: int,  # blocks of the trunk
        trunk: str,
    ):
        super().__init__([feature_extractor(img_channels, rrdb_channels, num_rrdbs, channels[in_size], trunk)])
        self.in_size = in_size

    def forward(self, lq: Tensor) -> tuple[dict[int, Tensor], Tensor]:
        """(N, 3, h, h) -> {..., h: f_0 (N, C, h, h)}, where the others have no channels; codes (N, 0, 0)"""
        f_0 = self[0](lq)
        features = {res: f_0[:, :0, :res, :res] for res in resolutions(MIN_SIZE, self.in_size // 2)}
        return {**features, self.in_size: f_0}, f_0.new_empty(len(lq), 0, 0)


# ---------------------------------------------------------------- bank


class NoBank(nn.Module, Bank):
    """In place of the whole bank: its features have no channels, and it takes no codes."""

    def __init__(
        self,
        out_size: int,  # pixels: side of the image
    ):
        super().__init__()
        self.spec = BankSpec(dict.fromkeys(resolutions(MIN_SIZE, out_size), 0), 0, 0)

    def start(self, codes: Tensor, label: Tensor | None = None) -> Tensor:
        return codes.new_empty(len(codes), 0, MIN_SIZE, MIN_SIZE)

    def block(self, x: Tensor, res: int, codes: Tensor, label: Tensor | None = None) -> Tensor:
        return x.new_empty(len(x), 0, res, res)


class NoBlocks(nn.Module):
    """In place of LightGLEAN's part of the bank."""

    def __init__(
        self,
        in_size: int,  # resolution that the blocks would start from
        out_size: int,  # of the last one
    ):
        super().__init__()
        self.spec = BankSpec(dict.fromkeys(resolutions(MIN_SIZE, out_size), 0), 0, 0)
        self.doublings = len(resolutions(2 * in_size, out_size))

    def forward(self, x: Tensor, codes: Tensor) -> list[Tensor]:
        """(N, C, h, w) -> (N, 0, 2^i h, 2^i w) for i = 1, 2, ..."""
        n, _, h, w = x.shape
        return [x.new_empty(n, 0, h << i, w << i) for i in range(1, self.doublings + 1)]
