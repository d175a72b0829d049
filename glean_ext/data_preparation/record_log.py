"""The log of a data set in preparation: what is known of every image, one JSON object a line, in the output folder.

Records are appended while images are processed, so that a run that was killed at any moment continues from them. One
process at a time writes, or one for each shard: these have logs of their own, which a run of the whole takes over.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from glean_ext.errors import InputError
from glean_ext.utils.files import TEMPORARY, atomic_path
from glean_ext.utils.shard import Shard

NAME = "records.jsonl"
SHARDS = "records.*-of-*.jsonl"
VERSION = "3"  # of the rules by which images are made; a folder of another version is not continued


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
        shard: Open the log of this shard.

    Attributes:
        records: Key -> the last record of the image, of the whole and of all shards.

    Raises:
        InputError: The folder holds something else, was begun with other options, is being written by another process,
            or cannot be written.
    """

    def __init__(self, folder: Path, options: dict[str, str], shard: Shard | None = None):
        self.path, self.options = folder / NAME, options | {"version": VERSION}
        if shard is not None:
            self.path = folder / f"records.{shard.number}-of-{shard.count}.jsonl"
        self.records: dict[str, ImageRecord] = {}
        shards = sorted(folder.glob(SHARDS))
        logs = [path for path in (folder / NAME, *shards) if path.is_file()]  # shards have what is newer
        foreign = folder.is_dir() and any(not TEMPORARY.fullmatch(path.stem) for path in folder.iterdir())
        if foreign and not logs:
            raise InputError(
                f"{folder} is not empty, and this tool did not make it. Give a new folder as {{out}}.", "out"
            )
        with write_errors_as_input_errors(self.path):
            folder.mkdir(parents=True, exist_ok=True)
        self._lock = _lock(folder, shared=shard is not None)
        try:
            read = {path: self._read(path) for path in logs}
            for records, _ in read.values():
                self.records |= records
            own, torn = read.get(self.path, ({}, b"missing"))
            if shard is not None and torn:
                self._write(own.values())
            elif shard is None and (torn or shards):
                self.replace(self.records.values())
                for path in shards:
                    path.unlink()
        except BaseException:
            self.close()
            raise

    def _read(self, path: Path) -> tuple[dict[str, ImageRecord], bytes]:
        """The records of a log, and the beginning of a line which a killed run was writing."""
        records: dict[str, ImageRecord] = {}
        *lines, torn = path.read_bytes().split(b"\n")
        begun: dict[str, str] = {}
        for number, line in enumerate(lines or [b""], start=1):
            try:
                content = json.loads(line)
                if number == 1:
                    begun = content["options"]
                else:
                    records[content["key"]] = ImageRecord(**content)
            except (ValueError, TypeError, KeyError) as error:
                raise InputError(
                    f"{path} is damaged (line {number} is not one of its own). Give a new folder as {{out}}.",
                    "out",
                ) from error
            if number == 1:
                self._check_options(begun)
        return records, torn

    def _check_options(self, begun: dict[str, str]) -> None:
        for name in begun | self.options:
            if begun.get(name) != self.options.get(name):
                raise InputError(
                    f"{self.path.parent} was begun with {name} = {begun.get(name)}, but now it is "
                    f"{self.options.get(name)}. Give the same options, or a new folder as {{out}}.",
                    "out",
                )

    def append(self, record: ImageRecord) -> None:
        """Add a record; the system has it when this returns."""
        self.records[record.key] = record
        with write_errors_as_input_errors(self.path), open(self.path, "ab") as file:
            file.write(_to_line(record._asdict()))

    def replace(self, records: Iterable[ImageRecord]) -> None:
        """Write these records in place of all others."""
        self.records = {record.key: record for record in records}
        self._write(self.records.values())

    def _write(self, records: Iterable[ImageRecord]) -> None:
        with atomic_path(self.path) as partial, open(partial, "wb") as file:
            file.write(_to_line({"options": self.options}))
            file.writelines(_to_line(record._asdict()) for record in records)

    def close(self) -> None:
        """Let another process write."""
        os.close(self._lock)


def _to_line(content: dict) -> bytes:
    return json.dumps(content).encode() + b"\n"


def _lock(folder: Path, shared: bool) -> int:
    """Keep other processes from writing to a folder until the descriptor is closed, or this process ends.

    Shards share it.
    """
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
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
