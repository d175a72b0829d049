"""Where a cartoon face has its eyes, mouth, hair and skin, and how well each of these regions is restored.

The renderer says it: the parts of the drawing that belong to a region are painted white and everything else black, in
the order of the drawing, so that hair over an eye is hair.

    python -m experiments.regions

measures the finished runs whose restored images are on this machine, and adds the values to their results. Later runs
measure themselves.
"""

from __future__ import annotations

import json
import math
import re
from functools import cache

import numpy as np
import torch
from torch import Tensor

from experiments import domains
from experiments.experiment import RESULTS, WORK
from experiments.metric_names import REGIONS
from glean_ext import cli
from glean_ext.utils.files import atomic_path, write_json

FILE = domains.CACHE / "regions.pt"
DOMAIN = "cartoons"

# The groups of the drawing that each region has. Eyebrows, clothes and background belong to none.
GROUPS = dict(zip(REGIONS, (("eyes",), ("mouth",), ("hair", "rearHair", "beard"), ("head", "body")), strict=True))
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
    layers = [np.asarray(rasterize(painted(drawing, groups)).convert("L")) for groups in GROUPS.values()]
    return torch.from_numpy(np.stack(layers))


@cache
def of_test_images() -> Tensor:
    """The coverage of the test images, kept in a file: (M, 4, 64, 64) uint8"""
    images = domains.load(DOMAIN).parts["test"].images
    if FILE.exists() and torch.equal((found := torch.load(FILE, weights_only=True))["images"], images):
        return found["regions"]
    regions = torch.stack([coverage(seed) for seed in domains.seeds_of("test", images)])
    with atomic_path(FILE) as partial:
        torch.save({"images": images, "regions": regions}, partial)
    return regions


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


def measured(images: Tensor) -> dict[str, float]:
    """PSNR (dB) by region of the restored test images, or of the first ones: (M, 3, H, W) uint8"""
    gt = domains.load(DOMAIN).parts["test"].images[: len(images)]
    return {name: round(value, 5) for name, value in psnr(images, gt, of_test_images()[: len(images)]).items()}


def main() -> None:
    parser = cli.Parser(description=__doc__)
    parser.parse_args()
    for file in sorted(RESULTS.glob(f"{DOMAIN}-*.json")):
        result, outputs = json.loads(file.read_text()), WORK / file.stem / "outputs.pt"
        if "regions" not in result and outputs.exists():
            write_json({**result, "regions": measured(torch.load(outputs, weights_only=True))}, file)


if __name__ == "__main__":
    cli.run(main)
