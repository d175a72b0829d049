"""Reference images of the cartoon faces: the same person with other expressions, of which the renderer is certain.

Networks take them as ``glean_ext.networks.references`` says. In training they are left out of a batch with probability
DROPPED. Restored are the test images with the right references, with none, and with those of the next image (wrong).
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from experiments import domains
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
