"""Which images stay, and which of them train: no two that show the same get into different splits."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from glean_ext.data_preparation.duplicate_search import THUMB, find
from glean_ext.data_preparation.manifest import Record


@dataclass(frozen=True)
class Duplicate:
    """An image that shows what another one shows.

    Attributes:
        key: The image.
        of: The other one.
        kind: ``'equal'``: the same pixels; ``'similar'``; ``'mirrored'``.
        difference: As :func:`~glean_ext.data_preparation.duplicate_search.differences` says.
        dropped: Whether it was left out.
    """

    key: str
    of: str
    kind: str
    difference: float
    dropped: bool


def decide(
    records: Iterable[Record],
    wanted: dict[str, str],
    mode: str,
    split: float,
    seed: int,
    advance: Callable[[int], None] = lambda images: None,
) -> tuple[dict[str, str], list[Duplicate]]:
    """Drop duplicates and split.

    Of images that show the same the largest one stays. Images of a list of test images always stay; images to train on
    that show the same as one of them never do.

    Args:
        records: Usable images.
        wanted: Key -> the split that a list wants it in, or empty.
        mode: As ``Options.duplicates``.
        split: Share of training images among those that no list puts anywhere.
        seed: Of the split.
        advance: Called with how many images more have been compared.

    Returns:
        Key -> split, of the images that stay; and the duplicates.
    """
    order = sorted(records, key=lambda record: (wanted[record.key] != "test", -record.pixels, record.key))
    tests = sum(wanted[record.key] == "test" for record in order)
    leaders, found = _groups(order, tests, mode, advance)
    groups: dict[int, list[int]] = {}
    for image, leader in enumerate(leaders):
        groups.setdefault(leader, []).append(image)
    members: list[list[Record]] = []
    for leader, images in groups.items():
        if leader < tests:  # what shows a listed test image can only be another one
            images = [image for image in images if image < tests]
        elif mode == "drop":
            images = [leader]
        elif mode == "exact":
            images = [image for image in images if image not in found or found[image][1] != "equal"]
        members.append([order[image] for image in images])
    splits = _split(members, wanted, split, seed)
    matches = [
        Duplicate(order[copy].key, order[of].key, kind, round(difference, 4), order[copy].key not in splits)
        for copy, (of, kind, difference) in found.items()
    ]
    return splits, sorted(matches, key=lambda match: match.key)


def _groups(
    order: list[Record], tests: int, mode: str, advance: Callable[[int], None]
) -> tuple[list[int], dict[int, tuple[int, str, float]]]:
    """The first of each image's group; and for copies the image they show, how, and how much they differ."""
    found: dict[int, tuple[int, str, float]] = {}
    unique: dict[bytes, int] = {}
    for image, record in enumerate(order):
        same = unique.setdefault(record.digest, image)
        if same != image:
            found[image] = (same, "equal", 0.0)
    singles = [image for image in range(len(order)) if image not in found or image < tests]
    buffer = b"".join(order[image].thumbnail for image in singles)
    thumbnails = np.frombuffer(buffer, np.uint8).reshape(-1, THUMB, THUMB, 3)
    first, matches = find(thumbnails, mode != "drop", tests, advance)
    for match in matches:
        kind = "mirrored" if match.mirrored else "similar"
        found[singles[match.copy]] = (singles[match.original], kind, match.difference)
    leaders = list(range(len(order)))
    for image, position in zip(singles, first, strict=True):
        leaders[image] = singles[position]
    for image, (of, kind, _) in found.items():
        if kind == "equal":
            leaders[image] = leaders[of]
    return leaders, found


def _split(groups: list[list[Record]], wanted: dict[str, str], share: float, seed: int) -> dict[str, str]:
    """Groups stay together. The order is that of a hash of the pixels: names and places do not count."""
    splits = {}
    free = []
    for group in groups:
        listed = {wanted[record.key] for record in group} - {""}
        if listed:
            splits.update({record.key: wanted[record.key] for record in group})
        else:
            free.append(group)
    free.sort(key=lambda group: hashlib.sha256(f"{seed} ".encode() + group[0].digest).digest())
    total = sum(len(group) for group in free)
    tests = round(total * (1 - share))
    if 0 < share < 1 and len(free) > 1:
        tests = min(max(tests, 1), total - 1)  # neither is empty
    for group in free:
        name = "test" if len(group) <= tests else "train"
        tests -= len(group) if name == "test" else 0
        splits.update({record.key: name for record in group})
    return splits
