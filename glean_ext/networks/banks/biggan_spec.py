"""What determines a BigGAN bank, as data.

Source: Brock et al., "Large Scale GAN Training for High Fidelity Natural Image Synthesis", ICLR 2019, appendix B.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

# Side of the images -> widths at 4, 8, ... that side, in units of base_channels (appendix B, tables 4 to 9).
WIDTHS = {
    32: (4, 4, 4, 4),
    64: (16, 16, 8, 4, 2),
    128: (16, 16, 8, 4, 2, 1),
    256: (16, 16, 8, 8, 4, 2, 1),
    512: (16, 16, 8, 8, 4, 2, 1, 1),
}
DEEP_BLOCKS = 2  # residual blocks a resolution of BigGAN-deep; its hidden layers are narrower by DEEP_RATIO
DEEP_RATIO = 4


class Layer(NamedTuple):
    """An entry of ``conv_blocks``: a residual block, or self-attention."""

    res: int  # resolution of its result
    in_channels: int
    out_channels: int
    upsample: bool
    attention: bool = False


@dataclass(frozen=True)
class BigGANSpec:
    """The sizes of a BigGAN or BigGAN-deep generator; the names are those of ``GLEANBigGAN``'s arguments.

    Raises:
        ValueError: ``out_size`` is none of :data:`WIDTHS`, attention at another resolution, or fewer than two classes.
    """

    out_size: int  # pixels: side of its images
    num_classes: int
    base_channels: int = 96  # width of the last layers; 96 in BigGAN, 128 in BigGAN-deep
    noise_size: int = 120  # of the latent code; BigGAN leaves out what its blocks cannot share evenly
    shared_dim: int = 128  # channels of the embedding of a class
    deep: bool = False  # BigGAN-deep
    attention_at: Sequence[int] | None = None  # where there is self-attention after the blocks; None: at 64, if any

    def __post_init__(self) -> None:
        if self.out_size not in WIDTHS:
            known = ", ".join(map(str, WIDTHS))
            raise ValueError(f"BigGAN makes images of {known} pixels, but out_size is {self.out_size!r}.")
        if self.num_classes < 2:
            raise ValueError(f"num_classes must be 2 or more, but it is {self.num_classes!r}.")
        if wrong := [res for res in self.attention_at or () if res not in list(self.widths)[1:]]:
            known = ", ".join(map(str, list(self.widths)[1:]))
            raise ValueError(f"attention_at may hold {known}, but it holds {wrong[0]!r}.")

    @property
    def widths(self) -> dict[int, int]:
        """Resolution -> channels of the feature map."""
        return {4 << i: factor * self.base_channels for i, factor in enumerate(WIDTHS[self.out_size])}

    @property
    def attention(self) -> tuple[int, ...]:
        """The resolutions with self-attention."""
        return (
            tuple(res for res in (64,) if res in self.widths) if self.attention_at is None else tuple(self.attention_at)
        )

    @property
    def layers(self) -> list[Layer]:
        """The entries of ``conv_blocks``, in their order."""
        layers = []
        for res in list(self.widths)[1:]:
            below, here = self.widths[res // 2], self.widths[res]
            if self.deep:
                layers += [Layer(res, below, below, upsample=False)] * (DEEP_BLOCKS - 1)
            layers.append(Layer(res, below, here, upsample=True))
            if res in self.attention:
                layers.append(Layer(res, here, here, upsample=False, attention=True))
        return layers

    @property
    def num_codes(self) -> int:
        """K: one for the start, one for each residual block."""
        return 1 + sum(not layer.attention for layer in self.layers)

    @property
    def code_channels(self) -> int:
        """S: BigGAN shares the latent code out among its layers; in BigGAN-deep each layer gets all of it."""
        return self.noise_size if self.deep else self.noise_size // self.num_codes

    @property
    def condition_channels(self) -> int:
        """D: channels of what the batch norm of a block depends on, a class embedding and a code."""
        return self.shared_dim + self.code_channels

    @property
    def start_channels(self) -> int:
        """Channels of what the features at 4x4 are made from."""
        return self.condition_channels if self.deep else self.code_channels
