"""JSON files that say something of each image of a folder."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from glean_ext.errors import InputError, first_line

FOLDERS = "folders"  # in place of a file: the subfolders say it


def read_json_by_image(
    path: Path, parameter: str, value: str, fits: Callable[[Any], bool], content: str = ""
) -> Mapping[str, Any]:
    """A file with an object that has a value for each image.

    Args:
        path: The file.
        parameter: The argument that names it.
        value: What the value of an image is called.
        fits: Whether something is such a value.
        content: What is in the file for an image; empty: ``value``.

    Raises:
        InputError: The file cannot be read, or holds something else.
    """
    try:
        found = json.loads(path.read_bytes())  # which recognizes UTF-16, and byte order marks
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(
            f"{path} cannot be read as JSON ({first_line(error)}). Set {parameter} to a file with {value} for each "
            f"image, or to '{FOLDERS}'."
        ) from error
    if not isinstance(found, Mapping) or not all(map(fits, found.values())):
        raise InputError(f"{path} must hold an object with {content or value} for each image. Correct it.")
    return found
