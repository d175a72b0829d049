"""Which images are kept, and which of them train: images that show the same never get into different splits."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from glean_ext.data_preparation.duplicate_search import THUMB, Track, find
from glean_ext.data_preparation.options import PreparationOptions
from glean_ext.data_preparation.record_log import ImageRecord


@dataclass(frozen=True)
class Duplicate:
    """An image that shows what another one shows.

    Attributes:
        file: The image.
        of: The other one.
        kind: ``'equal'``: the same pixels; ``'similar'``; ``'mirrored'``.
        difference: See :func:`~glean_ext.data_preparation.duplicate_search.differences`.
        dropped: Whether it was left out.
    """

    file: str
    of: str
    kind: str
    difference: float
    dropped: bool


def assign_splits(
    records: Iterable[ImageRecord],
    wanted: dict[str, str],
    options: PreparationOptions,
    track: Track = iter,
) -> tuple[dict[str, str], list[Duplicate]]:
    """Drop duplicates and split.

    Of images that show the same the largest one is kept. Images of a list of test images are always kept; training
    images that show the same as one of them never are.

    Args:
        records: Usable images.
        wanted: Key -> the split that a list wants it in, or empty.
        options: ``duplicates``, ``split`` and ``seed`` decide.
        track: See :func:`~glean_ext.data_preparation.duplicate_search.find`.

    Returns:
        Key -> split, of the images that are kept; and the duplicates.
    """
    order = sorted(records, key=lambda record: (wanted[record.key] != "test", -record.pixels, record.key))
    tests = sum(wanted[record.key] == "test" for record in order)
    leaders, found = _group(order, tests, options.duplicates, track)
    groups: dict[int, list[int]] = {}
    for image, leader in enumerate(leaders):
        groups.setdefault(leader, []).append(image)
    members: list[list[ImageRecord]] = []
    for leader, images in groups.items():
        if leader < tests:  # only other listed test images may show the same as a listed test image
            images = [image for image in images if image < tests]
        elif options.duplicates == "drop":
            images = [leader]
        elif options.duplicates == "exact":
            images = [image for image in images if image not in found or found[image][1] != "equal"]
        members.append([order[image] for image in images])
    splits = _split(members, wanted, options)
    duplicates = [
        Duplicate(order[copy].key, order[of].key, kind, round(difference, 4), order[copy].key not in splits)
        for copy, (of, kind, difference) in found.items()
    ]
    return splits, sorted(duplicates, key=lambda duplicate: duplicate.file)


def _group(
    order: list[ImageRecord], tests: int, mode: str, track: Track
) -> tuple[list[int], dict[int, tuple[int, str, float]]]:
    """The first of each image's group; and for copies the image they show, how, and how much they differ."""
    found: dict[int, tuple[int, str, float]] = {}
    unique: dict[str, int] = {}
    for image, record in enumerate(order):
        same = unique.setdefault(record.digest, image)
        if same != image:
            found[image] = (same, "equal", 0.0)
    singles = [image for image in range(len(order)) if image not in found or image < tests]
    buffer = b"".join(base64.b64decode(order[image].thumbnail) for image in singles)
    thumbnails = np.frombuffer(buffer, np.uint8).reshape(-1, THUMB, THUMB, 3)
    first, matches = find(thumbnails, mode != "drop", tests, track)
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


def _split(groups: list[list[ImageRecord]], wanted: dict[str, str], options: PreparationOptions) -> dict[str, str]:
    """Groups stay together. They are ordered by a hash of their pixels, so that names and places do not count."""
    splits: dict[str, str] = {}
    free = []
    for group in groups:
        if any(wanted[record.key] for record in group):
            splits.update({record.key: wanted[record.key] for record in group})
        else:
            free.append(group)
    salt = f"{options.seed} ".encode()
    free.sort(key=lambda group: hashlib.sha256(salt + bytes.fromhex(group[0].digest)).digest())
    total = sum(len(group) for group in free)
    tests = round(total * (1 - options.split))
    if 0 < options.split < 1 and len(free) > 1:
        tests = min(max(tests, 1), total - 1)  # neither is empty
    for group in free:
        split = "test" if len(group) <= tests else "train"
        tests -= len(group) if split == "test" else 0
        splits.update({record.key: split for record in group})
    return splits
