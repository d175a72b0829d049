"""The dictionary of DFDNet: typical features of eyes and mouths, from original training images.

    python -m experiments.relatives.dictionary

The components lie where the renderer puts them, at the same place in each face. Of each component and each resolution
the features are clustered by k-means; the centres are the entries.
"""

from __future__ import annotations

import argparse
import logging

import torch
from scipy.cluster.vq import kmeans2
from torch import Tensor, nn

import glean_ext.plugin  # noqa: F401  (makes MMagic importable)
from experiments import domains, weights
from experiments.experiment import WORK
from glean_ext import checkpoints, cli
from glean_ext.errors import InputError
from glean_ext.models.perceptual_loss import VGGFeatures

FILE = WORK / "cartoons_dictionary.safetensors"
SIZE = 64  # pixels of a side, that the boxes are measured in
BOXES = {  # component -> left, top, right, bottom
    "left_eye": (12, 32, 28, 48),
    "right_eye": (36, 32, 52, 48),
    "mouth": (24, 48, 40, 64),
}
LAYERS = {"3": 64, "8": 128, "11": 256}  # of VGG16 -> channels, at H, H/2, H/4
ENTRIES, IMAGES, BATCH = 32, 400, 50
logger = logging.getLogger(__name__)

Dictionary = dict[str, Tensor]  # "mouth.1" -> (K, C, h, w): the entries for the mouth in features at H/2


class Extractor(nn.Module):
    """VGG16, frozen: (N, 3, H, W) in [-1, 1] -> (N, 64, H, W), (N, 128, H/2, W/2), (N, 256, H/4, W/4)"""

    def __init__(self) -> None:
        super().__init__()
        self.vgg = VGGFeatures(list(LAYERS), "vgg16", use_input_norm=True)
        self.vgg.load(str(weights.vgg16()))

    def forward(self, images: Tensor) -> list[Tensor]:
        return list(self.vgg((images + 1) / 2).values())


def region(box: tuple[int, int, int, int], side: int) -> tuple[slice, slice]:
    """Rows and columns of a box in features with ``side`` pixels.

    >>> region((24, 48, 40, 64), 32)
    (slice(24, 32, None), slice(12, 20, None))
    """
    left, top, right, bottom = (edge * side // SIZE for edge in box)
    return slice(top, bottom), slice(left, right)


@torch.no_grad()
def build(extractor: nn.Module, images: Tensor, entries: int = ENTRIES) -> Dictionary:
    """Cluster the components of images and of their mirror images.

    Args:
        extractor: Images -> features by level.
        images: (M, 3, 64, 64) uint8.
        entries: K, at most 2 M.
    """
    parts: dict[str, list[Tensor]] = {}
    for batch in torch.cat([images, images.flip(3)]).split(BATCH):
        for level, features in enumerate(extractor(batch.float() / 127.5 - 1)):
            for name, box in BOXES.items():
                rows, columns = region(box, features.shape[-1])
                parts.setdefault(f"{name}.{level}", []).append(features[..., rows, columns].clone())
    return {key: centres(torch.cat(found), entries) for key, found in parts.items()}


def centres(samples: Tensor, number: int) -> Tensor:
    """Of k-means: (M, ...) -> (number, ...)"""
    found, _ = kmeans2(samples.flatten(1).numpy(), number, iter=10, minit="++", seed=0)
    return torch.from_numpy(found).float().unflatten(1, samples.shape[1:])


def load(domain: str) -> Dictionary:
    """The dictionary of a domain; it is built when there is none yet.

    Raises:
        InputError: The domain is not the cartoon faces.
    """
    if domain != "cartoons":
        raise InputError(
            f"DFDNet has a dictionary of the cartoon faces, but none of {domain}: it needs eyes and mouths."
        )
    if not FILE.exists():
        logger.info("%s is built", FILE)
        save(build(Extractor(), domains.load(domain).parts["train"].images[:IMAGES]))
    return checkpoints.read(FILE)


def save(dictionary: Dictionary) -> None:
    checkpoints.save(dictionary, FILE)


def main() -> None:
    parser = cli.Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=IMAGES, help="training images (default: %(default)s)")
    parser.add_argument("--entries", type=int, default=ENTRIES, help="of each component (default: %(default)s)")
    args = parser.parse_args()
    images = domains.load("cartoons").parts["train"].images[: args.images]
    if not 1 <= args.entries <= len(images):
        raise InputError(f"There are {len(images)} images for {args.entries} entries of each component.")
    save(build(Extractor(), images, args.entries))


if __name__ == "__main__":
    cli.run(main)
