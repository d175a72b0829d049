"""The classes of images in tar shards: from small files beside them, as webdataset has them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from glean_ext.datasets.image_labels import class_numbers
from glean_ext.errors import InputError
from glean_ext.utils.tar_shards import Member, read_members

JSON = "json"
KEY = "label"  # of the class, in a JSON file
MAX_BYTES = 1 << 16  # of a file with a class


def ending_of(labels: str) -> str:
    """What follows the first dot in the names of the files with classes.

    >>> ending_of("cls"), ending_of("JSON:category")
    ('cls', 'json')
    """
    return labels.partition(":")[0].lower()


def shard_labels(
    images: Mapping[Member, Member | None], labels: str, classes: Sequence[str] | int | None = None
) -> dict[Member, int]:
    """The class of each image as a number; images of other classes than those that are named are left out.

    Args:
        images: Each with the file of its class.
        labels: ``'cls'`` or another ending: the file has the number or the name of the class, as text. ``'json'``: it
            has an object, whose ``label`` is that, or with ``'json:KEY'`` the value of another key.
        classes: The names of the classes in the order of their numbers. A number: how many there are. None: all.
            Without names, classes that are numbers in all files keep them; others are numbered in their sorted order.
            Names are compared as they are written: 007 is not 7.

    Raises:
        InputError: An image has no class, or none that can be used, or there are no images of a class.
    """
    ending, key = ending_of(labels), labels.partition(":")[2]
    if key and ending != JSON:
        raise InputError(f"SRShardDataset.labels is {labels!r}, but only 'json' has keys. Set it to {ending!r}.")
    if missing := [image for image, member in images.items() if member is None]:
        raise InputError(
            f"{missing[0]} has no class: there is no .{ending} of its name after it, as of {len(missing)} of "
            f"{len(images)} images. Add it, or correct labels={labels!r}."
        )
    if huge := [member for member in images.values() if member is not None and member.size > MAX_BYTES]:
        raise InputError(f"{huge[0]} has {huge[0].size} bytes, too many for a class. Correct it or labels={labels!r}.")
    contents = read_members(member for member in images.values() if member is not None)
    found = {}
    for image, member in images.items():
        assert member is not None
        found[image] = _class_in(contents[member], member, (key or KEY) if ending == JSON else "")
    numbers = {image: int(name) for image, name in found.items() if _is_number(name)}
    if len(numbers) < len(found) or not isinstance(classes, int | None):
        return class_numbers({image: str(name) for image, name in found.items()}, classes)
    for image, number in numbers.items():
        if number < 0 or (classes is not None and number >= classes):
            most = "on" if classes is None else f"to {classes - 1}"
            raise InputError(
                f"{images[image]} has the class {number}; they count from 0 {most}. Correct it or classes."
            )
    return numbers


def _class_in(content: bytes, member: Member, key: str) -> int | str:
    """The number or name of a class in a file; with a key, that in an object of JSON."""
    try:
        if key:
            return _require_name(json.loads(content)[key])
        return _require_name(content.decode("utf-8-sig").strip())
    except (ValueError, KeyError, TypeError, IndexError, RecursionError) as error:
        what = (
            f"a JSON object with the number or name of a class as {key!r}" if key else "the number or name of a class"
        )
        raise InputError(f"{member} has no class: it must hold {what}. Correct it.") from error


def _is_number(name: int | str) -> bool:
    return isinstance(name, int) or name.removeprefix("-").isdecimal()


def _require_name(value: object) -> int | str:
    if isinstance(value, bool) or not isinstance(value, int | str) or value == "" or not str(value).isprintable():
        raise ValueError(value)
    return value
