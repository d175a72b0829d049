"""CrossNet (Zheng et al., ECCV 2018): features of one reference, warped by an estimated flow at several resolutions.

What differs from the paper: the input is enlarged bicubically, not by MDSR; a small flow network, in which each
resolution corrects the flow of the one below, instead of FlowNetS with more resolutions; three resolutions of features;
a decoder of residual blocks, whose output is added to the enlarged input; the training is that of all systems, not the
Charbonnier loss.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from experiments.relatives.parts import FusionDecoder, Pyramid, conv, enlarge, only_reference
from glean_ext.networks.encoder import start_at_zero

FLOW_WIDTHS = (24, 32, 48, 64)  # at H, H/2, H/4, H/8


class CrossNet(nn.Module):
    """Encoders and flow -> warped features -> fusion."""

    max_references = 1

    def __init__(self, scale: int):
        super().__init__()
        self.scale = scale
        self.flow = FlowNet()
        self.own, self.other = Pyramid(), Pyramid()
        self.decoder = FusionDecoder()

    def forward(self, lq: Tensor, references: Tensor | None = None) -> Tensor:
        """(N, 3, h, w), RGB in [-1, 1]; references (N, 1, 3, s h, s w) -> (N, 3, s h, s w)"""
        large = enlarge(lq, self.scale)
        reference = only_reference(references, lq, large)
        flows = self.flow(large, reference)
        warped = [warp(x, flow) for x, flow in zip(self.other(reference), flows, strict=True)]
        return large + self.decoder(self.own(large), warped)


class FlowNet(nn.Module):
    """Where in the reference each pixel of the image is found. The flow starts at zero.

    Two (N, 3, H, W) -> (N, 2, ...) at H, H/2, H/4, in pixels of that resolution.
    """

    def __init__(self) -> None:
        super().__init__()
        first, *others = FLOW_WIDTHS
        self.first = nn.Sequential(conv(6, first), nn.ReLU())
        self.down = nn.ModuleList()
        self.up = nn.ModuleList()
        self.heads = nn.ModuleList()
        for fine, coarse in zip(FLOW_WIDTHS[:-1], others, strict=True):
            self.down.append(nn.Sequential(conv(fine, coarse, 2), nn.ReLU(), conv(coarse, coarse), nn.ReLU()))
            self.up.append(nn.Sequential(conv(fine + coarse, fine), nn.ReLU()))
            self.heads.append(start_at_zero(conv(fine, 2)))

    def forward(self, image: Tensor, reference: Tensor) -> list[Tensor]:
        x = self.first(torch.cat([image, reference], 1))
        features = [x]
        for down in self.down:
            x = down(x)
            features.append(x)
        flows: list[Tensor] = []
        for i in reversed(range(len(self.up))):
            x = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
            x = self.up[i](torch.cat([features[i], x], 1))
            flow = self.heads[i](x).float()
            if flows:  # a pixel there is two pixels here
                flow = flow + 2 * F.interpolate(flows[0], scale_factor=2, mode="bilinear", align_corners=False)
            flows.insert(0, flow)
        return flows


def warp(x: Tensor, flow: Tensor) -> Tensor:
    """``x`` at ``p + flow(p)`` for each pixel p, bilinear; beyond the border the border's value.

    Args:
        x: (N, C, H, W).
        flow: (N, 2, H, W) in pixels: to the right, down.
    """
    height, width = x.shape[-2:]
    ys, xs = torch.meshgrid(
        torch.arange(height, device=x.device, dtype=torch.float32),
        torch.arange(width, device=x.device, dtype=torch.float32),
        indexing="ij",
    )
    across = 2 * (xs + flow[:, 0]) / (width - 1) - 1
    down = 2 * (ys + flow[:, 1]) / (height - 1) - 1
    grid = torch.stack([across, down], 3)  # (N, H, W, 2)
    return F.grid_sample(x.float(), grid, padding_mode="border", align_corners=True)
