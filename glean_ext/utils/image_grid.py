"""Grids of images for people to look at: the results of several methods, or samples of a bank."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFont


@dataclass(frozen=True)
class Row:
    """One line of a comparison: a method and its result for every image."""

    name: str
    images: list[np.ndarray]  # (H, W, 3) uint8 RGB; sizes may differ


def comparison(rows: list[Row], side: int, columns: int, label_width: int = 130, gap: int = 4) -> Image.Image:
    """A grid with one row for each method and one column for each of the first ``columns`` images.

    Images are enlarged without smoothing, or reduced, until the longer side has ``side`` pixels.
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
