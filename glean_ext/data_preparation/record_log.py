"""The log of a data set in preparation: what is known of every image, one JSON object a line, in the output folder.

Records are appended while images are processed, so that a run that was killed at any moment continues from them. One
process at a time writes.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from glean_ext.errors import InputError
from glean_ext.utils.files import TEMPORARY, atomic_path

NAME = "records.jsonl"
VERSION = "2"  # of the rules by which images are made; a folder of another version is not continued


class ImageRecord(NamedTuple):
    """An image of the source.

    Attributes:
        key: Its path in the source.
        stamp: Changes when the file does, see :class:`~glean_ext.data_preparation.readers.Entry`; empty: the next run
            reads the file again.
        name: File name in the output.
        kind: Why it was rejected, in a word; empty for a usable image.
        reason: The same in a sentence.
        pixels: Number of pixels of the image in the source.
        digest: SHA-256 of the pixels of the output, hexadecimal.
        thumbnail: (16, 16, 3) uint8 of the output, in base64.
        sizes: Bytes of the PNG files, by the folder they belong to: ``GT``, ``LQ``.
        further: Frames or pages of its file that are not used, in words.
        split: Where its output is: ``train``, ``test`` or, when it is not used, empty. Known once a run is complete.
    """

    key: str
    stamp: str
    name: str
    kind: str = ""
    reason: str = ""
    pixels: int = 0
    digest: str = ""
    thumbnail: str = ""
    sizes: dict[str, int] = {}  # noqa: RUF012  (never changed)
    split: str = ""
    further: str = ""


class RecordLog:
    """Opens the log of an output folder, or begins one.

    Args:
        folder: The output folder; made when it is missing.
        options: Everything that the images depend on, as text.

    Attributes:
        records: Key -> the last record of the image.
        complete: State of the source that the data set was completed for; empty while it is not complete.

    Raises:
        InputError: The folder holds something else, was begun with other options, is being written by another process,
            or cannot be written.
    """

    def __init__(self, folder: Path, options: dict[str, str]):
        self.path, self.options = folder / NAME, options | {"version": VERSION}
        self.records: dict[str, ImageRecord] = {}
        self.complete = ""
        foreign = folder.is_dir() and any(not TEMPORARY.fullmatch(path.stem) for path in folder.iterdir())
        if foreign and not self.path.is_file():
            raise InputError(
                f"{folder} is not empty, and this tool did not make it. Give a new folder as {{out}}.", "out"
            )
        with write_errors_as_input_errors(self.path):
            folder.mkdir(parents=True, exist_ok=True)
        self._lock = _lock(folder)
        try:
            if self.path.is_file():
                self._read()
            else:
                self._rewrite("")
        except BaseException:
            self.close()
            raise

    def _read(self) -> None:
        *lines, torn = self.path.read_bytes().split(b"\n")
        begun: dict[str, str] = {}
        for number, line in enumerate(lines or [b""], start=1):
            try:
                content = json.loads(line)
                if number == 1:
                    begun = content["options"]
                elif "complete" in content:
                    self.complete = content["complete"]
                else:
                    self.records[content["key"]] = ImageRecord(**content)
            except (ValueError, TypeError, KeyError) as error:
                raise InputError(
                    f"{self.path} is damaged (line {number} is not one of its own). Give a new folder as {{out}}.",
                    "out",
                ) from error
        for name in begun | self.options:
            if begun.get(name) != self.options.get(name):
                raise InputError(
                    f"{self.path.parent} was begun with {name} = {begun.get(name)}, but now it is "
                    f"{self.options.get(name)}. Give the same options, or a new folder as {{out}}.",
                    "out",
                )
        if torn:  # the last line of a run that was killed while it wrote
            with write_errors_as_input_errors(self.path):
                os.truncate(self.path, self.path.stat().st_size - len(torn))

    def append(self, records: Iterable[ImageRecord]) -> None:
        """Add records; they are on the disk when it returns. The data set is not complete any more."""
        records = list(records)
        self.complete = ""
        self.records.update((record.key, record) for record in records)
        size = self.path.stat().st_size
        with write_errors_as_input_errors(self.path):
            try:
                with open(self.path, "ab") as file:
                    file.write(b'{"complete": ""}\n' + b"".join(map(_to_line, records)))
                    file.flush()
                    os.fsync(file.fileno())
            except BaseException:
                with suppress(OSError):
                    os.truncate(self.path, size)  # no line stays that is not whole
                raise

    def finish(self, records: Iterable[ImageRecord], state: str) -> None:
        """Replace all records; the data set is complete for the ``state`` of its source."""
        self.records = {record.key: record for record in records}
        self._rewrite(state)

    def _rewrite(self, state: str) -> None:
        with atomic_path(self.path) as partial, open(partial, "wb") as file:
            file.write(_to_line({"options": self.options}))
            file.writelines(map(_to_line, self.records.values()))
            file.write(_to_line({"complete": state}))
            file.flush()
            os.fsync(file.fileno())

    def close(self) -> None:
        """Let another process write."""
        os.close(self._lock)


def _to_line(content: ImageRecord | dict) -> bytes:
    return json.dumps(content._asdict() if isinstance(content, ImageRecord) else content).encode() + b"\n"


def _lock(folder: Path) -> int:
    """Keep other processes from writing to a folder until the descriptor is closed, or this process ends."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(descriptor)
        raise InputError(f"{folder} is being written by another run. Wait for it to end.") from error
    except OSError:
        pass  # a file system without locks
    return descriptor


@contextmanager
def write_errors_as_input_errors(target: Path) -> Iterator[None]:
    """Report a failed write in one line."""
    try:
        yield
    except OSError as error:
        raise InputError(
            f"{target} cannot be written ({error.strerror or error}). Free some space or correct the permissions; the "
            "next run continues from here."
        ) from error
