"""The two domains at 64x64: training, validation and test images as tensors, with what is known about them.

Cartoon faces: the demo's training and test images (same seeds, same pictures), and a validation part of its own that
no bank has seen; the renderer says which eyes, mouth and hair each face has. Emoji: the folder that
``python -m experiments.emoji_data`` writes.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from experiments.emoji_data import CLASS_NAMES
from glean_ext.errors import InputError
from glean_ext.utils.files import atomic_path
from glean_ext.utils.imresize import imresize

CACHE = Path("data/evidence")
EMOJI = Path("data/emoji")
COUNTS = {"test": 200, "val": 100, "train": 5000}  # cartoon faces; those rendered first win over equal ones
ATTRIBUTES = ("eyes", "eyebrows", "mouth", "hair", "rearHair", "beard")
NO_ATTRIBUTE = "none"
THUMBNAIL = 16  # pixels of a side, for the search for near duplicates
# Mean absolute difference in levels of 255, up to which two pictures count as one. Cartoon faces have few free
# parameters: those that differ in one attribute are further apart.
NEAR_DUPLICATE = 1.0


@dataclass(frozen=True)
class Part:
    """Images of one side of the split."""

    images: Tensor  # (M, 3, 64, 64) uint8 RGB
    labels: Tensor  # (M, A) int64: index of each attribute's value; A = 0 where none are known
    classes: Tensor | None = None  # (M,) int64: index of the kind of picture; None where all are of one kind


@dataclass(frozen=True)
class Domain:
    name: str
    parts: dict[str, Part]  # by "train", "val", "test"
    attributes: dict[str, tuple[str, ...]]  # attribute -> its values
    removed: int  # near duplicates of training images, removed from the other parts


@cache
def load(name: str) -> Domain:
    """A domain by name: ``"cartoons"``, ``"emoji"``, or ``"people"`` (:mod:`experiments.people`).

    Raises:
        InputError: The emoji are not there.
    """
    if name == "people":
        from experiments import people

        return people.load()
    return {"cartoons": _cartoons, "emoji": _emoji}[name]()


def rendered(name: str, draw: Callable[[], dict]) -> Domain:
    """A domain of cartoon faces, which are drawn once: ``draw`` is as :func:`render`, and may add ``removed``."""
    file = CACHE / f"{name}.pt"
    if not file.exists():
        faces = draw()
        with atomic_path(file) as partial:
            torch.save(faces, partial)
    faces = torch.load(file, weights_only=True)
    values = [sorted({row[i] for rows in faces["names"].values() for row in rows}) for i in range(len(ATTRIBUTES))]
    attributes = {name: tuple(found) for name, found in zip(ATTRIBUTES, values, strict=True)}
    parts = {
        part: Part(images, torch.tensor([[v.index(x) for x, v in zip(row, values, strict=True)] for row in rows]))
        for (part, images), rows in zip(faces["images"].items(), faces["names"].values(), strict=True)
    }
    return Domain(name, parts, attributes, faces.get("removed", 0))


def _cartoons() -> Domain:
    domain = rendered("cartoons", lambda: render(COUNTS))
    parts, removed = without_near_duplicates(domain.parts)
    return replace(domain, parts=parts, removed=removed)


def _emoji() -> Domain:
    if not (EMOJI / "train").is_dir():
        raise InputError(f"{EMOJI} is not there. Make it with python -m experiments.emoji_data.")
    parts = {}
    names = json.loads((EMOJI / "classes.json").read_text())
    for name in COUNTS:
        paths = sorted((EMOJI / name / "GT").glob("*.png"))
        images = torch.from_numpy(np.stack([np.asarray(Image.open(path)) for path in paths])).permute(0, 3, 1, 2)
        classes = torch.tensor([CLASS_NAMES.index(names[path.stem]) for path in paths])
        parts[name] = Part(images.contiguous(), torch.zeros(len(images), 0, dtype=torch.long), classes)
    parts, removed = without_near_duplicates(parts)
    return Domain("emoji", parts, {}, removed)


def render(counts: dict[str, int]) -> dict:
    """Cartoon faces of every part, no two equal: ``{"images": {part: uint8}, "names": {part: [values]}}``."""
    images: dict[str, Tensor] = {}
    names: dict[str, list[list[str]]] = {}
    seen: set[bytes] = set()
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        for part, count in counts.items():
            kept: list[np.ndarray] = []
            names[part] = []
            for pixels, values in pool.map(_face, _seeds(part, count + count // 10), chunksize=32):
                if len(kept) < count and pixels.tobytes() not in seen:
                    seen.add(pixels.tobytes())
                    kept.append(pixels)
                    names[part].append(values)
            images[part] = torch.from_numpy(np.stack(kept)).permute(0, 3, 1, 2).contiguous()
    return {"images": images, "names": names}


def seeds_of(part: str, images: Tensor, source: Path = CACHE) -> list[str]:
    """The seeds of cartoon faces of a part, which are from ``source``: (M, 3, 64, 64) uint8

    Raises:
        InputError: The renderer draws other faces.
    """
    from demo.render_faces import render_face

    wanted = [pixels.tobytes() for pixels in images.permute(0, 2, 3, 1).contiguous().numpy()]
    missing, found = set(wanted), {}
    for seed in _seeds(part, COUNTS[part] + COUNTS[part] // 10):
        if (pixels := np.asarray(render_face(seed)).tobytes()) in missing:
            missing.remove(pixels)
            found[pixels] = seed
        if not missing:
            return [found[pixels] for pixels in wanted]
    raise InputError(f"{source} holds faces that this renderer does not draw: delete it.")


def _seeds(part: str, count: int) -> Iterable[str]:
    return (f"{part}-{i}" for i in range(count))


def _face(seed: str) -> tuple[np.ndarray, list[str]]:
    from demo.render_faces import avatar, render_face

    options = avatar(seed).to_json()["options"]
    return np.asarray(render_face(seed)), [options.get(f"{name}Variant", NO_ATTRIBUTE) for name in ATTRIBUTES]


def without_near_duplicates(parts: dict[str, Part]) -> tuple[dict[str, Part], int]:
    """Parts whose validation and test images resemble no training image, nor its mirror image; the number left out."""
    train = thumbnails(parts["train"].images)
    kept, removed = {"train": parts["train"]}, 0
    for name in "val", "test":
        part = parts[name]
        keep = nearest(thumbnails(part.images), torch.cat([train, train.flip(3)])) > NEAR_DUPLICATE
        removed += int((~keep).sum())
        classes = None if part.classes is None else part.classes[keep]
        kept[name] = Part(part.images[keep], part.labels[keep], classes)
    return kept, removed


def thumbnails(images: Tensor) -> Tensor:
    """(M, 3, H, W) uint8 -> (M, 3, 16, 16) float"""
    return torch.nn.functional.adaptive_avg_pool2d(images.float(), THUMBNAIL)


def nearest(images: Tensor, others: Tensor) -> Tensor:
    """The smallest mean absolute difference of each image to the others: (M, ...), (K, ...) -> (M,)"""
    flat = others.flatten(1)
    return torch.stack([(flat - image.flatten()).abs().mean(1).min() for image in images])


def reduced(images: Tensor, scale: int) -> Tensor:
    """The low-resolution images by MATLAB's bicubic ``imresize`` in 8 bits: (M, 3, H, W) -> (M, 3, H/s, W/s) uint8"""
    return _resized(images, 1 / scale)


def enlarged(images: Tensor, scale: int) -> Tensor:
    """Bicubic enlargement in 8 bits: (M, 3, h, w) -> (M, 3, s h, s w) uint8"""
    return _resized(images, scale)


def _resized(images: Tensor, scale: float) -> Tensor:
    """All images at once, as the channels of one."""
    together = images.flatten(0, 1).permute(1, 2, 0)  # (H, W, 3M)
    result = torch.from_numpy(imresize(np.ascontiguousarray(together.numpy()), scale))  # (h, w, 3M)
    return result.permute(2, 0, 1).unflatten(0, images.shape[:2]).contiguous()
