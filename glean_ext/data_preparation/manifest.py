"""What is known of every image of a data set in preparation, in one SQLite file of the output folder.

One process at a time writes; what it has committed survives a crash at any moment.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from glean_ext.errors import InputError

NAME = "manifest.sqlite"
VERSION = 1  # of the rules by which images are made; another one asks for a new folder


class Record(NamedTuple):
    """An image of the source.

    Attributes:
        key: Its path in the source.
        stamp: What :class:`~glean_ext.data_preparation.readers.Entry` says; a change of the file changes it.
        name: File name in the output.
        kind: Why it was rejected, in a word; empty for a usable one.
        reason: The same in a sentence.
        pixels: Of the image in the source.
        digest: SHA-256 of the pixels of the output.
        thumbnail: (16, 16, 3) uint8 of the output.
        sizes: Bytes of the PNG files, by the folder they belong to: ``GT``, ``LQ``.
        split: Where its output was put: ``train``, ``test`` or, when it has none, empty.
    """

    key: str
    stamp: str
    name: str
    kind: str = ""
    reason: str = ""
    pixels: int = 0
    digest: bytes = b""
    thumbnail: bytes = b""
    sizes: str = "{}"
    split: str = ""


class Manifest:
    """Opens the manifest of a folder, or begins one.

    Args:
        folder: The output folder; made when it is not there.
        options: What the images depend on, printable.

    Raises:
        InputError: The folder holds something else, was begun with other options, is being written by another process,
            or cannot be written.
    """

    def __init__(self, folder: Path, options: dict[str, str]):
        self.path = folder / NAME
        if folder.is_dir() and not self.path.is_file() and any(folder.iterdir()):
            raise InputError(f"{folder} is not empty, and this tool did not make it. Give a new folder as OUT.")
        with self._speaking():
            folder.mkdir(parents=True, exist_ok=True)
            self.database = sqlite3.connect(self.path, timeout=0, isolation_level=None)
        try:
            self._begin()
            self._check(folder, options | {"version": str(VERSION)})
        except BaseException:
            self.close()
            raise

    def _begin(self) -> None:
        columns = ", ".join(Record._fields).replace("key", "key PRIMARY KEY", 1)
        with self._speaking():
            self.database.execute("PRAGMA locking_mode = EXCLUSIVE")
            self.database.execute("BEGIN EXCLUSIVE")
            self.database.execute(f"CREATE TABLE IF NOT EXISTS images ({columns})")
            self.database.execute("CREATE TABLE IF NOT EXISTS facts (name PRIMARY KEY, value)")
            self.database.execute("COMMIT")

    def _check(self, folder: Path, options: dict[str, str]) -> None:
        begun = json.loads(self.fact("options") or "{}")
        if not begun:
            self.set_fact("options", json.dumps(options))
            return
        changed = [name for name in begun | options if begun.get(name) != options.get(name)]
        if changed:
            name = changed[0]
            raise InputError(
                f"{folder} was begun with {name} = {begun.get(name)}, but now it is {options.get(name)}. "
                "Give the same options, or a new folder as OUT."
            )

    @contextmanager
    def _speaking(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            if "locked" in str(error):
                raise InputError(f"{self.path.parent} is being written by another run. Wait for it to end.") from error
            if isinstance(error, sqlite3.OperationalError):
                raise InputError(
                    f"{self.path} cannot be written ({error}). Free some space or correct its rights, and run the same "
                    "command again: it goes on."
                ) from error
            raise InputError(f"{self.path} is damaged ({error}). Give a new folder as OUT.") from error
        except OSError as error:
            raise InputError(f"{self.path} cannot be written ({error.strerror}). Give another OUT.") from error

    def fact(self, name: str) -> str | None:
        row = self.database.execute("SELECT value FROM facts WHERE name = ?", (name,)).fetchone()
        return row[0] if row else None

    def set_fact(self, name: str, value: str) -> None:
        with self._speaking():
            self.database.execute("INSERT OR REPLACE INTO facts VALUES (?, ?)", (name, value))

    def records(self) -> dict[str, Record]:
        with self._speaking():
            return {row[0]: Record(*row) for row in self.database.execute("SELECT * FROM images")}

    def save(self, records: Iterable[Record]) -> None:
        marks = ", ".join("?" * len(Record._fields))
        self._write(f"INSERT OR REPLACE INTO images VALUES ({marks})", records)

    def forget(self, keys: Iterable[str]) -> None:
        self._write("DELETE FROM images WHERE key = ?", ((key,) for key in keys))

    def set_splits(self, splits: dict[str, str]) -> None:
        """Note for every key where its output was put."""
        self._write("UPDATE images SET split = ? WHERE key = ?", ((split, key) for key, split in splits.items()))

    def _write(self, statement: str, rows: Iterable[tuple]) -> None:
        """All or nothing, on the disk when it returns."""
        with self._speaking():
            self.database.execute("BEGIN")
            try:
                self.database.executemany(statement, rows)
                self.database.execute("COMMIT")
            except BaseException:
                if self.database.in_transaction:
                    self.database.execute("ROLLBACK")
                raise

    def close(self) -> None:
        self.database.close()
