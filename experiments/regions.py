"""Where a cartoon face has its eyes, mouth, hair and skin, and how well each of these regions is restored.

The renderer says it: the parts of the drawing that belong to a region are painted white and everything else black, in
the order of the drawing, so that hair over an eye is hair.
"""

from __future__ import annotations

import math
import re

import numpy as np
import torch
from torch import Tensor

REGIONS = {  # region -> groups of the drawing. Eyebrows, clothes and background belong to none.
    "eyes": ("eyes",),
    "mouth": ("mouth",),
    "hair": ("hair", "rearHair", "beard"),
    "skin": ("head", "body"),
}
GROUP = re.compile(r'<g id="([A-Za-z]+)-[^"]*-[0-9a-f]+">.*?</g>(?=<g id=|<clipPath)', re.DOTALL)
COLOUR = re.compile(r'\b(fill|stroke)="(?:#[0-9A-Fa-f]+|black)"')


def painted(drawing: str, groups: tuple[str, ...]) -> str:
    """An SVG drawing of DiceBear with these groups white and the rest black."""

    def paint(match: re.Match[str]) -> str:
        colour = "#ffffff" if match[1] in groups else "#000000"
        return COLOUR.sub(rf'\1="{colour}"', match[0])

    definitions, end, uses = drawing.partition("</defs>")
    return GROUP.sub(paint, definitions) + end + COLOUR.sub(r'\1="#000000"', uses)


def coverage(seed: str) -> Tensor:
    """How much of each pixel of the face of ``seed`` a region covers, in the order of REGIONS: (4, 64, 64) uint8"""
    from demo.render_faces import avatar, rasterize

    drawing = avatar(seed).to_string()
    layers = [np.asarray(rasterize(painted(drawing, groups)).convert("L")) for groups in REGIONS.values()]
    return torch.from_numpy(np.stack(layers))


def psnr(images: Tensor, gt: Tensor, regions: Tensor) -> dict[str, float]:
    """PSNR (dB) of each region, from its mean squared error over all images; a pixel counts by how much is covered.

    Args:
        images: (M, 3, H, W) uint8.
        gt: The same.
        regions: (M, 4, H, W) uint8, from :func:`coverage`.
    """
    error = (images.double() - gt.double()).square().mean(1)  # (M, H, W)
    weights = regions.double().unbind(1)
    mse = {name: (w * error).sum() / w.sum().clamp(min=1) for name, w in zip(REGIONS, weights, strict=True)}
    return {name: 10 * math.log10(255**2 / max(float(value), 1e-12)) for name, value in mse.items()}
