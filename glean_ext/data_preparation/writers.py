"""Where prepared images are kept: a folder of PNG files, or an LMDB that MMagic reads. Both by file name."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from glean_ext.data_preparation.options import PreparationOptions
from glean_ext.data_preparation.record_log import ImageRecord, write_errors_as_input_errors
from glean_ext.utils.files import atomic_path
from glean_ext.utils.optional_packages import import_optional
from glean_ext.utils.progress import ProgressBar

SPLITS = ("train", "test")
STAGING = ".staging"  # folder of images whose split is not known yet
BATCH = 200  # images moved, and committed to an LMDB, at a time
PNG_LEVEL = 4  # of zlib; 6, Pillow's default, saves 2 % of the space in more than twice the time
MAP_SIZE = 1 << 40  # bytes that an LMDB may grow to; addresses only, neither memory nor space on the disk


class FolderStore:
    """PNG files in a folder, which is made when it is missing."""

    def __init__(self, folder: Path):
        self.folder = folder
        with write_errors_as_input_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)

    def sizes(self) -> dict[str, int]:
        """File name -> bytes, of all images in it."""
        with os.scandir(self.folder) as files:
            return {file.name: file.stat().st_size for file in files if file.name.endswith(".png")}

    def read(self, name: str) -> bytes:
        return (self.folder / name).read_bytes()

    def add(self, files: Sequence[Path]) -> None:
        """Move files in."""
        with write_errors_as_input_errors(self.folder):
            for file in files:
                file.replace(self.folder / file.name)

    def remove(self, names: Iterable[str]) -> None:
        with write_errors_as_input_errors(self.folder):
            for name in names:
                (self.folder / name).unlink(missing_ok=True)

    def finish(self, lines: Sequence[str]) -> None:
        """Write what belongs to a complete store, of which ``lines`` names the images; an empty folder is removed."""
        if not lines:
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
        lmdb = import_optional("lmdb", "{lmdb}", "pip install lmdb", "lmdb")
        self.folder, self.error = folder, lmdb.Error
        with self._write_errors_as_input_errors():
            folder.mkdir(parents=True, exist_ok=True)
            self.database = lmdb.open(str(folder), map_size=MAP_SIZE)

    @contextmanager
    def _write_errors_as_input_errors(self) -> Iterator[None]:
        with write_errors_as_input_errors(self.folder):
            try:
                yield
            except self.error as error:
                raise OSError(str(error)) from error

    def sizes(self) -> dict[str, int]:
        with self.database.begin(buffers=True) as reader:
            return {f"{bytes(key).decode()}.png": len(value) for key, value in reader.cursor()}

    def read(self, name: str) -> bytes:
        with self.database.begin() as reader:
            return bytes(reader.get(_to_key(name), b""))

    def add(self, files: Sequence[Path]) -> None:
        with self._write_errors_as_input_errors():
            with self.database.begin(write=True) as writer:
                for file in files:
                    writer.put(_to_key(file.name), file.read_bytes())
            for file in files:  # committed, so a crash loses nothing
                file.unlink()

    def remove(self, names: Iterable[str]) -> None:
        with self._write_errors_as_input_errors(), self.database.begin(write=True) as writer:
            for name in names:
                writer.delete(_to_key(name))

    def finish(self, lines: Sequence[str]) -> None:
        with atomic_path(self.folder / "meta_info.txt") as partial:
            partial.write_text("".join(f"{line.rstrip()} {PNG_LEVEL}\n" for line in lines))

    def close(self) -> None:
        self.database.close()


Store = FolderStore | LMDBStore


def _to_key(name: str) -> bytes:
    return name.removesuffix(".png").encode("ascii")


class PreparedOutput:
    """All stores of a data set: for each split the images (``GT``) and, if requested, low-resolution ones (``LQ``).

    Images are written to a staging folder, and moved into the stores once their splits are known.
    """

    def __init__(self, folder: Path, options: PreparationOptions):
        self.folder, self.shapes, self.lmdb = folder, options.shapes, options.lmdb
        self.staging = folder / STAGING
        self._stores: dict[Path, Store] = {}

    def path(self, split: str, kind: str) -> Path:
        """Where the images of a split are; of the split ``''``, where they wait."""
        if not split:
            return self.staging / kind
        return self.folder / f"{split}_{kind}.lmdb" if self.lmdb else self.folder / split / kind

    def store(self, split: str, kind: str) -> Store:
        """Opened once; made when it is missing."""
        path = self.path(split, kind)
        if path not in self._stores:
            self._stores[path] = LMDBStore(path) if self.lmdb and split else FolderStore(path)
        return self._stores[path]

    def _sizes(self, kind: str) -> dict[str, dict[str, int]]:
        """Bytes of all images, by their split and file name."""
        places = ("", *SPLITS)
        return {split: self.store(split, kind).sizes() if self.path(split, kind).is_dir() else {} for split in places}

    def find_missing(self, records: Iterable[ImageRecord]) -> set[str]:
        """Keys of images of which a file is nowhere, or has another size."""
        sizes = {kind: self._sizes(kind).values() for kind in self.shapes}
        return {
            record.key
            for record in records
            for kind in self.shapes
            if all(place.get(record.name) != record.sizes[kind] for place in sizes[kind])
        }

    def place(self, records: Sequence[ImageRecord], bar: ProgressBar) -> None:
        """Move the files of all images to where they belong, delete those of images without a split, write the lists.

        Args:
            records: All images, with their splits.
            bar: Shows the progress.
        """
        for kind in self.shapes:
            sizes = self._sizes(kind)
            for record in records:
                places = [place for place in sizes if sizes[place].get(record.name) == record.sizes.get(kind)]
                if record.split and "" not in places and record.split not in places:
                    with atomic_path(self.staging / kind / record.name) as partial:
                        partial.write_bytes(self.store(places[0], kind).read(record.name))
                    sizes[""][record.name] = record.sizes[kind]
            for split in SPLITS:
                belong = {record.name: record.sizes[kind] for record in records if record.split == split}
                if not belong and not sizes[split]:
                    continue
                store = self.store(split, kind)
                files = [self.staging / kind / name for name in belong if sizes[""].get(name) == belong[name]]
                batches = [files[start : start + BATCH] for start in range(0, len(files), BATCH)]
                for batch in bar.track(batches, description="moving"):
                    store.add(batch)
                store.remove({record.name for record in records} & sizes[split].keys() - belong.keys())
                store.finish(self._format_lines(records, split, kind))
        with suppress(FileNotFoundError):
            shutil.rmtree(self.staging)
        for split in SPLITS:
            path = self.folder / f"meta_info_{split}.txt"
            if lines := self._format_lines(records, split, "GT"):
                with atomic_path(path) as partial:
                    partial.write_text("".join(lines))
            else:
                path.unlink(missing_ok=True)

    def _format_lines(self, records: Iterable[ImageRecord], split: str, kind: str) -> list[str]:
        width, height = self.shapes[kind]
        return [f"{record.name} ({height},{width},3)\n" for record in records if record.split == split]

    def close(self) -> None:
        for store in self._stores.values():
            store.close()
