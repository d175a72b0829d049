"""Files appear whole or not at all: written to a temporary name in the same folder, then renamed."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from glean_ext.errors import InputError

NAMED = 40  # characters


@contextmanager
def atomic_path(target: str | os.PathLike) -> Iterator[Path]:
    """A temporary path to write to; it becomes ``target`` when the block ends well and vanishes when it fails.

    Raises:
        InputError: The file cannot be written: no rights, no space, a file where a folder should be.
    """
    target = Path(target)
    # Part of the name is enough to know it by, and all of it might be too much for the file system with what is added.
    partial = target.with_name(f".{target.stem[:NAMED]}-{secrets.token_hex(4)}{target.suffix}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        yield partial
        partial.replace(target)
    except OSError as error:
        raise InputError(f"{target} cannot be written ({error.strerror or error}). Choose another output.") from error
    finally:
        with suppress(OSError):  # it became the target, or was never made
            partial.unlink()


def write_json(content: object, path: str | os.PathLike) -> None:
    """Write ``content`` as indented JSON, atomically."""
    with atomic_path(path) as partial:
        partial.write_text(json.dumps(content, indent=2) + "\n")
