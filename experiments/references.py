"""Reference images of the cartoon faces: the same person with other expressions, of which the renderer is certain.

Networks take them as ``glean_ext.networks.references`` says. In training they are left out of a batch with probability
DROPPED. Restored are the test images with the right references, with none, and with those of the next image (wrong).

    python -m experiments.references

draws one reference of each of the demo's images into data/demo/train/REF and data/demo/test/REF, for
configs/baselines/demo_ttsr_x4.py.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from demo.render_faces import make_demo_data
from experiments import domains
from glean_ext import cli
from glean_ext.errors import InputError
from glean_ext.utils.files import atomic_path

NUMBER = 2  # references of an image; a network that takes fewer gets the first ones
DROPPED = 0.3


def load(domain: str, part: str, images: Tensor) -> Tensor:
    """The references of images of a part, which are kept in a file.

    Args:
        domain: Of ``experiments.domains``.
        part: ``"train"``, ``"val"`` or ``"test"``.
        images: (M, 3, 64, 64) uint8.

    Returns:
        (M, NUMBER, 3, 64, 64) uint8

    Raises:
        InputError: A domain without references.
    """
    if domain != "cartoons":
        raise InputError(f"Only the cartoon faces have references, not {domain}.")
    file = domains.CACHE / f"references-{part}-{len(images)}.pt"
    if file.exists() and torch.equal((found := torch.load(file, weights_only=True))["images"], images):
        return found["references"]
    references = torch.stack([of_person(seed) for seed in domains.seeds_of(part, images)])
    with atomic_path(file) as partial:
        torch.save({"images": images, "references": references}, partial)
    return references


def of_person(seed: str) -> Tensor:
    """(NUMBER, 3, 64, 64) uint8"""
    from demo.render_faces import rasterize, same_person

    drawn = [np.asarray(rasterize(drawing.to_string())) for drawing in same_person(seed, NUMBER)]
    return torch.from_numpy(np.stack(drawn)).permute(0, 3, 1, 2).contiguous()


def others(right: Tensor) -> dict[str, Tensor | None]:
    """What a network is tested with beside the right references, by the name of the result's metrics."""
    return {"metrics_none": None, "metrics_wrong": right.roll(1, 0)}


def draw(root: Path) -> None:
    """Write ``REF`` beside the ``GT`` folders of the demo's data; what is there stays."""
    for part in "train", "test":
        files = sorted((root / part / "GT").glob("*.png"))
        missing = [file for file in files if not (root / part / "REF" / file.name).exists()]
        pixels = [torch.from_numpy(np.array(Image.open(file))).permute(2, 0, 1) for file in missing]
        seeds = domains.seeds_of(part, torch.stack(pixels)) if missing else []
        for file, seed in zip(missing, seeds, strict=True):
            with atomic_path(root / part / "REF" / file.name) as partial:
                Image.fromarray(of_person(seed)[0].permute(1, 2, 0).numpy()).save(partial, "PNG")


def main() -> None:
    cli.Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    root = Path("data/demo")
    make_demo_data(root)
    draw(root)


if __name__ == "__main__":
    cli.run(main)
