"""Files appear whole or not at all: written to a temporary name in the same folder, then renamed."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from glean_ext.errors import InputError

MAX_STEM = 40  # characters of a name that its temporary name keeps


@contextmanager
def atomic_path(target: str | os.PathLike) -> Iterator[Path]:
    """A temporary path to write to; it becomes ``target`` when the block ends well and vanishes when it fails.

    Raises:
        InputError: The file cannot be written: no rights, no space, a file where a folder should be.
    """
    target = Path(target)
    # The whole name and what is added to it could be longer than the file system allows.
    partial = target.with_name(f".{target.stem[:MAX_STEM]}-{secrets.token_hex(4)}{target.suffix}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        yield partial
        partial.replace(target)
    except OSError as error:
        raise InputError(f"{target} cannot be written ({error.strerror or error}). Choose another output.") from error
    finally:
        with suppress(OSError):  # it became the target, or was never written
            partial.unlink()


def write_json(content: object, path: str | os.PathLike) -> None:
    """Write ``content`` as indented JSON, atomically."""
    with atomic_path(path) as partial:
        partial.write_text(json.dumps(content, indent=2) + "\n")
