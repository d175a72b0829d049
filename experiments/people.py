"""Cartoon people: the domain of the experiments with references, where who is who is certain.

Each part has PICTURES images of a person in a row. Who looks like a training person but for expression, pose and
clothes is in no other part.
"""

from __future__ import annotations

import os
from concurrent.futures import ProcessPoolExecutor

import numpy as np
import torch
from torch import Tensor

from demo.render_people import EXPRESSION, PICTURES
from experiments.domains import ATTRIBUTES, CACHE, NO_ATTRIBUTE, Domain, Part
from glean_ext.utils.files import atomic_path

PEOPLE = {"train": 1250, "val": 25, "test": 50}
REFERENCES = 2  # of each image
OF_IDENTITY = ("hair", "rearHair", "beard")  # attributes that all pictures of a person share
Face = tuple[np.ndarray, list[str]]


def load() -> Domain:
    """The domain; its images are drawn once."""
    file = CACHE / "people.pt"
    if not file.exists():
        with atomic_path(file) as partial:
            torch.save(render(PEOPLE), partial)
    faces = torch.load(file, weights_only=True)
    values = [sorted({row[i] for rows in faces["names"].values() for row in rows}) for i in range(len(ATTRIBUTES))]
    parts = {
        part: Part(images, torch.tensor([[v.index(x) for x, v in zip(row, values, strict=True)] for row in names]))
        for (part, images), names in zip(faces["images"].items(), faces["names"].values(), strict=True)
    }
    return Domain("people", parts, dict(zip(ATTRIBUTES, map(tuple, values), strict=True)), faces["removed"])


def render(people: dict[str, int]) -> dict:
    """Images and names of attributes by part, and how many people were left out because another part has their like."""
    images, names, seen, removed = {}, {}, set(), 0
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        for part, count in people.items():
            own: set[str] = set()
            faces: list[Face] = []
            for look, pictures in pool.map(_person, (f"{part}-person-{i}" for i in range(2 * count)), chunksize=8):
                if look in seen:
                    removed += 1
                elif len(faces) < count * PICTURES:
                    own.add(look)
                    faces += pictures
            seen |= own
            images[part] = torch.from_numpy(np.stack([pixels for pixels, _ in faces])).permute(0, 3, 1, 2).contiguous()
            names[part] = [attributes for _, attributes in faces]
    return {"images": images, "names": names, "removed": removed}


def _person(seed: str) -> tuple[str, list[Face]]:
    """What a person looks like, and the pictures with the names of their attributes."""
    from demo.render_faces import avatar, render
    from demo.render_people import person

    options = avatar(seed).to_json()["options"]
    kept = (name for name in sorted(options) if name.endswith(("Variant", "Color")) and name not in EXPRESSION)
    look = repr([(name, options[name]) for name in kept if not name.startswith("clothes")])
    drawings = [person(seed, number) for number in range(PICTURES)]
    named = [drawing.to_json()["options"] for drawing in drawings]
    attributes = [[one.get(f"{name}Variant", NO_ATTRIBUTE) for name in ATTRIBUTES] for one in named]
    return look, list(zip([np.asarray(render(drawing)) for drawing in drawings], attributes, strict=True))


def drawn(index: Tensor, rng: torch.Generator) -> Tensor:
    """Numbers of REFERENCES other pictures of the same people, at random: (N,) -> (N, R)"""
    return _others(index, torch.rand(len(index), PICTURES - 1, generator=rng).argsort(1)[:, :REFERENCES])


def right(count: int) -> Tensor:
    """Those of the first ``count`` images, always the same ones: (M, R)"""
    return _others(torch.arange(count), torch.arange(REFERENCES).expand(count, -1))


def wrong(count: int) -> Tensor:
    """Those of the next person: (M, R)"""
    return (right(count) + PICTURES) % count


def _others(index: Tensor, order: Tensor) -> Tensor:
    """Which pictures they are, where ``order`` counts those after one's own: (N,), (N, R) -> (N, R)"""
    first = index // PICTURES * PICTURES
    return first[:, None] + (index[:, None] % PICTURES + 1 + order) % PICTURES
