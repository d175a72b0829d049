"""Cartoon people: the domain of the experiments with references, where who is who is certain.

Each part has PICTURES images of a person in a row. Who looks like a training person but for expression, pose and
clothes is in no other part.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor

import numpy as np
import torch
from torch import Tensor

from demo.render_people import EXPRESSION, PICTURES
from experiments.domains import ATTRIBUTES, NO_ATTRIBUTE, Domain, rendered
from glean_ext.errors import InputError

PEOPLE = {"train": 1250, "val": 25, "test": 50}
REFERENCES = 2  # of each image
OF_IDENTITY = ("hair", "rearHair", "beard")  # attributes that all pictures of a person share
Face = tuple[np.ndarray, list[str]]
Person = tuple[str, list[Face]]  # a look, and pictures


def load() -> Domain:
    """The domain; its images are drawn once."""
    return rendered("people", lambda: render(PEOPLE))


def render(people: dict[str, int]) -> dict:
    """Images and names of attributes by part, and how many people were left out because another part has their like.

    Raises:
        InputError: Too few people are unlike those of the other parts.
    """
    images, names, removed = {}, {}, 0
    seen: set[str] = set()
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        for part, count in people.items():
            seeds = [f"{part}-person-{i}" for i in range(2 * count)]
            # No name keeps the iterator: with it those that are not needed are cancelled.
            found, left_out = first_unlike(pool.map(_person, seeds, chunksize=8), count, seen)
            if len(found) < count:
                pool.shutdown(cancel_futures=True)
                raise InputError(
                    f"Only {len(found)} of {count} people for {part} are unlike all others. Ask for fewer."
                )
            seen |= {look for look, _ in found}
            removed += left_out
            faces = [face for _, pictures in found for face in pictures]
            images[part] = torch.from_numpy(np.stack([pixels for pixels, _ in faces])).permute(0, 3, 1, 2).contiguous()
            names[part] = [attributes for _, attributes in faces]
    return {"images": images, "names": names, "removed": removed}


def first_unlike(drawn: Iterable[Person], count: int, seen: set[str]) -> tuple[list[Person], int]:
    """The first ``count`` people whose looks were not ``seen``, and how many were left out before the last of them."""
    found: list[Person] = []
    left_out = 0
    for person in drawn:
        if person[0] in seen:
            left_out += 1
        else:
            found.append(person)
        if len(found) == count:
            break
    return found, left_out


def _person(seed: str) -> Person:
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
