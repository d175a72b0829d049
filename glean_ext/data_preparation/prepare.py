"""From raw images to a data set: read, check, cut, resize, drop duplicates, split, write, report.

An output folder holds

- ``train/GT`` and ``test/GT``, PNG files, and ``train/LQ``, ``test/LQ`` where low-resolution images were asked for; or
  ``train_GT.lmdb`` and so on;
- ``meta_info_train.txt`` and ``meta_info_test.txt``: the file names, for ``ann_file``;
- ``report.json``, ``images.csv`` and ``contact_sheet.png``: what became of every image;
- ``manifest.sqlite``: what an interrupted run goes on from.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import time
from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import asdict
from pathlib import Path, PurePosixPath

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from glean_ext.data_preparation.crop_resize import FaceCrop, Options, Unusable, frame, show
from glean_ext.data_preparation.manifest import Manifest, Record
from glean_ext.data_preparation.readers import Entry, Source, listed, open_source
from glean_ext.data_preparation.report import write_report
from glean_ext.data_preparation.train_test_split import decide
from glean_ext.data_preparation.worker_pool import ImageProcessor, make_all
from glean_ext.data_preparation.writers import Output
from glean_ext.errors import InputError
from glean_ext.utils.image_io import EXTENSIONS, decode_rgb

REST = "rest"  # in place of a list of training images: all that the list of test images does not name
NAME_LENGTH = 100
SAVE_EVERY = 2.0  # seconds


def prepare(
    source_path: Path,
    out: Path,
    options: Options,
    lists: dict[str, str] | None = None,
    workers: int | None = None,
    face_crop: FaceCrop | None = None,
) -> dict:
    """Prepare a data set, or go on with one.

    Images are the same on however many processes and in however many runs they are made; the split depends on their
    pixels and ``options.seed`` alone. What was added to, changed in or taken from the source since is followed.

    Args:
        source_path: Folder, zip or LMDB of raw images.
        out: Output folder.
        options: How.
        lists: Only these files, in this split: ``{'train': path, 'test': path}``, where ``train`` may be ``'rest'``; or
            ``{'all': path}``, split as the options say.
        workers: Processes (default: one for each core).
        face_crop: Finds the face, for ``crop='face'``; has to be picklable.

    Returns:
        What ``report.json`` says.

    Raises:
        InputError: Nothing can be made of the source, the output folder is another's, files cannot be written.
    """
    start = time.perf_counter()
    _check_places(source_path, out)
    source = open_source(source_path)
    entries, others = source.find()
    if not entries:
        raise InputError(f"{source_path} has no images ({' '.join(EXTENSIONS)}). Give a folder or zip of images.")
    wanted = _choose(entries, lists or {})
    chosen = {entry.key: entry for entry in entries if entry.key in wanted}
    recorded = {"source": str(source_path.resolve()), **_printable(options, lists or {})}
    with closing(Manifest(out, recorded)) as manifest, _progress() as progress:
        preparation = Preparation(source, source_path, out, options, manifest, workers or cores(), face_crop, progress)
        with closing(preparation.output):
            counts = {"images": len(entries), "other files": others, "not listed": len(entries) - len(chosen)}
            return preparation.run(chosen, wanted, {"options": recorded, **counts}, start)


class Preparation:
    """One run on an output folder."""

    def __init__(
        self,
        source: Source,
        source_path: Path,
        out: Path,
        options: Options,
        manifest: Manifest,
        workers: int,
        face_crop: FaceCrop | None,
        progress: Progress,
    ):
        self.source, self.out, self.options, self.manifest = source, out, options, manifest
        self.workers, self.progress = workers, progress
        width, height = options.shape
        shapes = {"GT": (width, height)}
        if options.lr_scale is not None:
            shapes["LQ"] = (width // options.lr_scale, height // options.lr_scale)
        self.output = Output(out, shapes, options.lmdb)
        self.maker = ImageProcessor(source_path, self.output.staging, options, face_crop)

    def run(self, entries: dict[str, Entry], wanted: dict[str, str], facts: dict, start: float) -> dict:
        """Do what is not done yet. Returns the report."""
        records = self.manifest.records()
        stamps = "\n".join(f"{key}\t{entry.stamp}" for key, entry in entries.items())
        state = hashlib.sha256(stamps.encode()).hexdigest()
        if self.manifest.fact("complete") == state and self._is_complete(records.values()):
            self.progress.console.print(f"{self.out} is complete, there is nothing to do.")
            return json.loads((self.out / "report.json").read_text())
        self.manifest.set_fact("complete", "")
        names = assign_names(entries, {record.key: record.name for record in records.values()})
        new = [key for key, entry in entries.items() if key not in records or records[key].stamp != entry.stamp]
        self._make([(entries[key], names[key]) for key in new], "reading")
        records = self.manifest.records()
        usable = [records[key] for key in entries if not records[key].kind]
        if not usable:
            raise InputError(_nothing_left(self.maker.source, [records[key] for key in entries]))
        splits, matches = self._decide(usable, wanted)
        self.manifest.set_splits({key: splits.get(key, "") for key in records})
        placed = sorted(
            (record._replace(split=splits.get(key, "")) for key, record in records.items()), key=lambda one: one.name
        )
        lost = self.output.lost((record for record in placed if record.split), placed=False)
        self._make([(entries[key], names[key]) for key in sorted(lost)], "making again")
        task = self.progress.add_task("moving", total=self.output.waiting(placed))
        self.output.place(placed, lambda count: self.progress.advance(task, count))
        self.output.write_lists(placed)
        self.manifest.forget(records.keys() - entries.keys())
        facts |= {"seconds": round(time.perf_counter() - start, 1)}
        ends = {record.key: record for record in placed if record.key in entries}
        report = write_report(
            self.out, facts, list(ends.values()), matches, lambda key: self._picture(entries[key], ends[key])
        )
        self.manifest.set_fact("complete", state)
        return report

    def _is_complete(self, records: Iterable[Record]) -> bool:
        placed = [record for record in records if record.split]
        return (self.out / "report.json").is_file() and not self.output.lost(placed, placed=True)

    def _make(self, tasks: Sequence[tuple[Entry, str]], what: str) -> None:
        """Make images and note what became of them every few seconds."""
        if not tasks:
            return
        task = self.progress.add_task(what, total=len(tasks))
        fresh: list[Record] = []
        saved = time.monotonic()

        def done(records: list[Record]) -> None:
            nonlocal saved
            fresh.extend(records)
            self.progress.advance(task, len(records))
            if time.monotonic() - saved > SAVE_EVERY:
                self.manifest.save(fresh)
                fresh.clear()
                saved = time.monotonic()

        try:
            make_all(self.maker, self.source, tasks, self.workers, done)
        except KeyboardInterrupt:
            self.progress.console.print("Interrupted. The same command goes on from here.")
            raise
        finally:
            self.manifest.save(fresh)

    def _decide(self, records: list[Record], wanted: dict[str, str]) -> tuple[dict, list]:
        options = self.options
        task = self.progress.add_task("comparing", total=len(records))

        def advance(images: int) -> None:
            self.progress.advance(task, images)

        result = decide(records, wanted, options.duplicates, options.split, options.seed, advance)
        self.progress.update(task, completed=len(records))
        return result

    def _picture(self, entry: Entry, record: Record) -> np.ndarray:
        """What an image became, or would have become; what it is when it was rejected."""
        if record.split:
            return decode_rgb(self.output.store(record.split, "GT").read(record.name), record.name)
        image = decode_rgb(self.source.read(entry), entry.key)
        try:
            return frame(image, self.options, self.maker.face_crop)
        except Unusable:
            return image


def cores() -> int:
    """Those that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def assign_names(keys: Iterable[str], names: dict[str, str]) -> dict[str, str]:
    """File names for the output: the image's own, with its folders where that is taken, and else with a hash.

    Args:
        keys: Paths of images in the source.
        names: Names that some have already.

    Returns:
        Key -> name, for all. Names differ in more than upper and lower case, and have ASCII letters, digits and
        ``.-_`` only: MMagic cuts the lines of lists at spaces, and keys of LMDB databases are ASCII.
    """
    names = dict(names)
    taken = {name.lower() for name in names.values()}
    for key in keys:
        if key in names:
            continue
        path = PurePosixPath(key)
        digest = hashlib.sha256(key.encode()).hexdigest()[:12]
        plain, long = _plain(path.stem), _plain("_".join((*path.parent.parts, path.stem)))
        for stem in plain, long, f"{plain}_{digest}".lstrip("_"):
            if stem and f"{stem}.png".lower() not in taken:
                names[key] = f"{stem}.png"
                taken.add(names[key].lower())
                break
    return names


def _plain(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "_", text).strip("._-")[:NAME_LENGTH]


def _check_places(source: Path, out: Path) -> None:
    if not source.exists():
        raise InputError(f"{source}: there is no such folder or zip file. Give where the images are.")
    if out.exists() and not out.is_dir():
        raise InputError(f"{out} is a file. Give a new folder as OUT.")
    inner, outer = out.resolve(), source.resolve()
    if inner.is_relative_to(outer) or outer.is_relative_to(inner):
        raise InputError(f"{out} and {source} lie within each other. Give an OUT beside SOURCE.")


def _choose(entries: list[Entry], lists: dict[str, str]) -> dict[str, str]:
    """Key -> split that a list wants it in, or empty; what no list names is not there."""
    if not lists:
        return {entry.key: "" for entry in entries}
    if "all" in lists:
        return dict.fromkeys(listed(entries, lists["all"]), "")
    wanted = dict.fromkeys(listed(entries, lists["test"]), "test") if "test" in lists else {}
    if lists.get("train") == REST:
        return {entry.key: wanted.get(entry.key, "train") for entry in entries}
    if "train" in lists:
        for key in sorted(listed(entries, lists["train"])):
            if key in wanted:
                raise InputError(f"{key} is in both {lists['train']} and {lists['test']}. Take it out of one.")
            wanted[key] = "train"
    return wanted


def _printable(options: Options, lists: dict[str, str]) -> dict[str, str]:
    values = asdict(options) | {"size": show(options.size)}
    for split, path in lists.items():
        content = b"" if path == REST else Path(path).read_bytes()
        values[f"list of {split}"] = f"{path} {hashlib.sha256(content).hexdigest()[:12]}"
    return {name: str(value) for name, value in values.items()}


def _nothing_left(source: Path, records: list[Record]) -> str:
    kinds = [record.kind for record in records]
    counts = ", ".join(f"{kinds.count(kind)} {kind}" for kind in sorted(set(kinds)))
    mend = "Give a smaller --size, or --enlarge." if "too small" in kinds else "Give other images."
    return f"{source}: none of {len(records)} images can be used: {counts}. The first: {records[0].reason} {mend}"


def _progress() -> Progress:
    return Progress(
        TextColumn("{task.description:12}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
    )
