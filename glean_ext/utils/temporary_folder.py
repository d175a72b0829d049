"""The folder for temporary files (TMPDIR), which libraries use in ways of their own."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

from glean_ext.errors import InputError, first_line

NEEDED = 2**16  # bytes of a config or another small file


@contextmanager
def temporary_folder_errors() -> Iterator[None]:
    """Any error in the block becomes an InputError that names the folder for temporary files if that is the cause.

    Raises:
        InputError: The folder is missing, full, or cannot be written to.
    """
    try:
        yield
    except Exception as error:
        if _has_system_error(error) and (reason := temporary_folder_fault()):
            raise InputError(reason) from error
        raise


def temporary_folder_fault() -> str:
    """What is wrong with the folder for temporary files, and how to correct it; '' if it can be written to."""
    try:
        folder = tempfile.gettempdir()
    except OSError as error:
        return f"{first_line(error)}. Set TMPDIR to a folder that can be written to."
    try:
        with tempfile.TemporaryFile() as file:
            file.write(bytes(NEEDED))
    except OSError as error:
        return (
            f"{folder}, the folder for temporary files, cannot be written to ({error.strerror or first_line(error)}). "
            "Free space in it, or set TMPDIR to another folder."
        )
    return ""


def _has_system_error(error: BaseException | None) -> bool:
    """Whether an error, or one that it was raised in the handling of, is of the system."""
    while error is not None:
        if isinstance(error, OSError):
            return True
        error = error.__cause__ or error.__context__
    return False
