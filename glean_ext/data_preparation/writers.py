"""Where prepared images are kept: a folder of PNG files, or an LMDB that MMagic reads. Both by file name."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Protocol

from glean_ext.data_preparation.manifest import Record
from glean_ext.errors import InputError
from glean_ext.utils.files import atomic_path

SPLITS = ("train", "test")
LMDB_BATCH = 200  # images committed at a time
PNG_LEVEL = 4  # of zlib; 6, Pillow's default, saves 2 % of the space in more than twice the time
PAGE = 4096  # bytes; LMDB gives whole pages to a value
SPARE = 1 << 24  # bytes of an LMDB for its own needs


class Store(Protocol):
    def sizes(self) -> dict[str, int]:
        """File name -> bytes, of all that is there."""

    def read(self, name: str) -> bytes:
        """An image file's content."""

    def put(self, files: Sequence[Path], advance: Callable[[int], None]) -> None:
        """Move files in."""

    def take(self, name: str, file: Path) -> None:
        """Move an image out to ``file``."""

    def remove(self, names: Iterable[str]) -> None:
        """Delete images."""

    def finish(self, lines: Sequence[str]) -> None:
        """Write what belongs to a complete store; ``lines`` names its images."""

    def close(self) -> None:
        """Release the files."""


@contextmanager
def write_errors_as_input_errors(target: Path) -> Iterator[None]:
    """Turns failed writes into one line."""
    try:
        yield
    except OSError as error:
        raise InputError(
            f"{target} cannot be written ({error.strerror or error}). Free some space or correct its rights, and run "
            "the same command again: it goes on."
        ) from error


class FolderStore:
    """PNG files in a folder."""

    def __init__(self, folder: Path):
        self.folder = folder
        with write_errors_as_input_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)

    def sizes(self) -> dict[str, int]:
        with os.scandir(self.folder) as files:
            return {file.name: file.stat().st_size for file in files if file.name.endswith(".png")}

    def read(self, name: str) -> bytes:
        return (self.folder / name).read_bytes()

    def put(self, files: Sequence[Path], advance: Callable[[int], None] = lambda count: None) -> None:
        with write_errors_as_input_errors(self.folder):
            for file in files:
                file.replace(self.folder / file.name)
                advance(1)

    def take(self, name: str, file: Path) -> None:
        with write_errors_as_input_errors(file):
            (self.folder / name).replace(file)

    def remove(self, names: Iterable[str]) -> None:
        with write_errors_as_input_errors(self.folder):
            for name in names:
                (self.folder / name).unlink(missing_ok=True)

    def finish(self, lines: Sequence[str]) -> None:
        if not lines:  # folders that are not needed do not stay
            with suppress(OSError):
                self.folder.rmdir()

    def close(self) -> None:
        pass


class LMDBStore:
    """PNG files as values of an LMDB, under their names without ``.png``, and ``meta_info.txt`` beside it.

    This is the layout of MMagic's data set tools, which its ``LoadImageFromFile`` reads with
    ``backend_args=dict(backend='lmdb', db_path=...)``.
    """

    def __init__(self, folder: Path):
        import lmdb

        self.folder, self.error = folder, lmdb.Error
        with write_errors_as_input_errors(folder), self._speaking():
            folder.mkdir(parents=True, exist_ok=True)
            self.database = lmdb.open(str(folder), map_size=self._bytes() + SPARE)

    def _bytes(self) -> int:
        data = self.folder / "data.mdb"
        return data.stat().st_size if data.exists() else 0

    @contextmanager
    def _speaking(self) -> Iterator[None]:
        try:
            yield
        except self.error as error:
            raise InputError(
                f"{self.folder} cannot be written ({error}). Free some space, and run the same command again: it goes "
                "on."
            ) from error

    def sizes(self) -> dict[str, int]:
        with self.database.begin(buffers=True) as reader:
            return {f"{bytes(key).decode()}.png": len(value) for key, value in reader.cursor()}

    def read(self, name: str) -> bytes:
        with self.database.begin() as reader:
            return bytes(reader.get(_key(name), b""))

    def put(self, files: Sequence[Path], advance: Callable[[int], None] = lambda count: None) -> None:
        with write_errors_as_input_errors(self.folder), self._speaking():
            needed = sum(file.stat().st_size // PAGE + 2 for file in files) * PAGE
            self.database.set_mapsize(self._bytes() + needed + SPARE)
            for start in range(0, len(files), LMDB_BATCH):
                batch = files[start : start + LMDB_BATCH]
                with self.database.begin(write=True) as writer:
                    for file in batch:
                        writer.put(_key(file.name), file.read_bytes())
                for file in batch:  # committed, so a crash loses nothing
                    file.unlink()
                advance(len(batch))

    def take(self, name: str, file: Path) -> None:
        with write_errors_as_input_errors(file), atomic_path(file) as partial:
            partial.write_bytes(self.read(name))
        self.remove([name])

    def remove(self, names: Iterable[str]) -> None:
        with self._speaking(), self.database.begin(write=True) as writer:
            for name in names:
                writer.delete(_key(name))

    def finish(self, lines: Sequence[str]) -> None:
        with atomic_path(self.folder / "meta_info.txt") as partial:
            partial.write_text("".join(f"{line.rstrip()} {PNG_LEVEL}\n" for line in lines))

    def close(self) -> None:
        self.database.close()


def _key(name: str) -> bytes:
    return name.removesuffix(".png").encode("ascii")


class Output:
    """All stores of a data set: for each split the images (``GT``) and, where asked for, the small ones (``LQ``).

    Images are made in a folder ``.staging`` beside the stores, and moved into them once it is known where they belong.

    Args:
        folder: Of the data set.
        shapes: Width and height of the images in ``GT``, and of those in ``LQ`` where there are any.
        lmdb: Whether the stores are databases.
    """

    def __init__(self, folder: Path, shapes: dict[str, tuple[int, int]], lmdb: bool):
        self.folder, self.shapes, self.lmdb = folder, shapes, lmdb
        self.staging = folder / ".staging"
        self._stores: dict[Path, Store] = {}

    def path(self, split: str, kind: str) -> Path:
        return self.folder / f"{split}_{kind}.lmdb" if self.lmdb else self.folder / split / kind

    def store(self, split: str, kind: str) -> Store:
        """Opened once; made when it is not there."""
        path = self.path(split, kind)
        if path not in self._stores:
            self._stores[path] = LMDBStore(path) if self.lmdb else FolderStore(path)
        return self._stores[path]

    def sizes(self, split: str, kind: str) -> dict[str, int]:
        return self.store(split, kind).sizes() if self.path(split, kind).is_dir() else {}

    def _staged(self, kind: str) -> dict[str, int]:
        folder = self.staging / kind
        return FolderStore(folder).sizes() if folder.is_dir() else {}

    def lost(self, records: Iterable[Record], placed: bool) -> set[str]:
        """Keys of images of which a file is not there, or has another size.

        Args:
            records: Images that have a split.
            placed: Whether files have to be in the stores of their splits, not just anywhere.
        """
        records = list(records)
        lost = set()
        for kind in self.shapes:
            places = {split: self.sizes(split, kind) for split in SPLITS}
            staged = self._staged(kind)
            for record in records:
                size = json.loads(record.sizes)[kind]
                here = [places[record.split]] if placed else [staged, *places.values()]
                if all(place.get(record.name) != size for place in here):
                    lost.add(record.key)
        return lost

    def waiting(self, records: Iterable[Record]) -> int:
        """How many files :meth:`place` will move out of the staging folder."""
        names = {record.name for record in records if record.split}
        return sum(len(names & self._staged(kind).keys()) for kind in self.shapes)

    def place(self, records: Sequence[Record], advance: Callable[[int], None]) -> None:
        """Move the files of all images to where they belong, and delete those of images without a split."""
        for kind in self.shapes:
            staged = set(self._staged(kind))
            places = {split: set(self.sizes(split, kind)) for split in SPLITS}
            for split, other in zip(SPLITS, reversed(SPLITS), strict=True):
                for record in records:
                    if record.split == split and record.name in places[other] and record.name not in staged:
                        self.store(other, kind).take(record.name, self.staging / kind / record.name)
                        staged.add(record.name)
            for split in SPLITS:
                mine = {record.name for record in records if record.split == split}
                files = [self.staging / kind / name for name in sorted(mine & staged)]
                if mine or places[split]:
                    store = self.store(split, kind)
                    store.put(files, advance)
                    store.remove({record.name for record in records} & places[split] - mine)
                    store.finish(self._lines(records, split, kind))
        with suppress(FileNotFoundError):
            shutil.rmtree(self.staging)

    def write_lists(self, records: Sequence[Record]) -> None:
        """Write ``meta_info_train.txt`` and ``meta_info_test.txt``: MMagic's datasets take them as ``ann_file``."""
        for split in SPLITS:
            path = self.folder / f"meta_info_{split}.txt"
            if lines := self._lines(records, split, "GT"):
                with atomic_path(path) as partial:
                    partial.write_text("".join(lines))
            else:
                path.unlink(missing_ok=True)

    def _lines(self, records: Iterable[Record], split: str, kind: str) -> list[str]:
        width, height = self.shapes[kind]
        return [f"{record.name} ({height},{width},3)\n" for record in records if record.split == split]

    def close(self) -> None:
        for store in self._stores.values():
            store.close()
