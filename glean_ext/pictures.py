"""Pictures to look at: the same images by several methods side by side, samples of a bank."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

if TYPE_CHECKING:
    from glean_ext.networks import StyleGAN2Generator


@dataclass(frozen=True)
class Row:
    """One line of a comparison: a method and its picture of every image."""

    name: str
    images: list[np.ndarray]  # (H, W, 3) uint8 RGB; sizes may differ


def comparison(rows: list[Row], side: int, columns: int, label_width: int = 130, gap: int = 4) -> Image.Image:
    """A grid with one row a method and one column an image, of which the first ``columns`` are shown.

    Pictures are enlarged without smoothing, or reduced, until the longer side is ``side`` pixels.
    """
    columns = min(columns, len(rows[0].images))
    sheet = Image.new("RGB", (label_width + columns * (side + gap), len(rows) * (side + gap) + gap), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(14)
    for y, row in enumerate(rows):
        top = gap + y * (side + gap)
        draw.text((8, top + side // 2 - 8), row.name, fill="black", font=font)
        for x, image in enumerate(row.images[:columns]):
            sheet.paste(_fitted(image, side), (label_width + x * (side + gap), top))
    return sheet


def _fitted(image: np.ndarray, side: int) -> Image.Image:
    zoom = side / max(image.shape[:2])
    size = max(1, round(zoom * image.shape[1])), max(1, round(zoom * image.shape[0]))
    resampling = Image.Resampling.NEAREST if zoom >= 1 else Image.Resampling.LANCZOS
    return Image.fromarray(image).resize(size, resampling)


@torch.no_grad()
def sample_sheet(bank: StyleGAN2Generator, rows: int = 8, columns: int = 16, seed: int = 0) -> Image.Image:
    """``rows * columns`` images of ``bank`` from seeded latents, without truncation."""
    z = torch.randn(rows * columns, bank.style_channels, generator=torch.Generator().manual_seed(seed))
    images = torch.cat([bank(latents) for latents in z.to(bank.constant_input.input.device).split(8)])
    images = (images.float().clamp(-1, 1) * 127.5 + 127.5).round().to(torch.uint8).cpu()  # (N, 3, H, W)
    _, c, h, w = images.shape
    sheet = images.reshape(rows, columns, c, h, w).permute(0, 3, 1, 4, 2).reshape(rows * h, columns * w, c)
    return Image.fromarray(sheet.numpy())
