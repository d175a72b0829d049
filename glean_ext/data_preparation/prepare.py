"""From raw images to a data set: read, check, crop, resize, drop duplicates, split, write, report.

An output folder holds

- ``train/GT`` and ``test/GT``, PNG files, and ``train/LQ``, ``test/LQ`` if low-resolution images were requested; or
  ``train_GT.lmdb`` and so on;
- ``meta_info_train.txt`` and ``meta_info_test.txt``: the file names, for ``ann_file``;
- ``report.json``, ``images.csv`` and ``contact_sheet.png``: what became of every image;
- ``records.jsonl``: what an interrupted run, or one after the source has changed, continues from; for a moment also
  ``records.1-of-4.jsonl`` and so on, of shards.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from glean_ext.data_preparation.crop_resize import FaceCrop, RejectedImageError, crop_and_resize
from glean_ext.data_preparation.image_processor import ImageProcessor, Task, Workforce, process_all
from glean_ext.data_preparation.options import PreparationOptions
from glean_ext.data_preparation.readers import Entry, open_source
from glean_ext.data_preparation.record_log import ImageRecord, RecordLog
from glean_ext.data_preparation.report import write_report
from glean_ext.data_preparation.selection import REST, assign_names, choose_images
from glean_ext.data_preparation.train_test_split import assign_splits
from glean_ext.data_preparation.writers import PreparedOutput
from glean_ext.errors import InputError, Notice
from glean_ext.utils.downloads import without_secrets
from glean_ext.utils.files import expand_home
from glean_ext.utils.image_io import EXTENSIONS, decode_rgb
from glean_ext.utils.messages import log_notice
from glean_ext.utils.progress import ProgressBar
from glean_ext.utils.shard import Shard
from glean_ext.utils.url_files import IN_A_ROW, answers, is_file_url, local_part
from glean_ext.workers.ray_pool import require_cluster

Notify = Callable[[Notice], None]


def prepare(
    source: str | os.PathLike,
    out: str | os.PathLike,
    options: PreparationOptions,
    lists: Mapping[str, str] | None = None,
    workers: int | None = None,
    face_crop: FaceCrop | None = None,
    bar: ProgressBar | None = None,
    notify: Notify = log_notice,
    shard: Shard | None = None,
    cluster: str | None = None,
) -> dict:
    """Prepare a data set, or continue with one.

    The images do not depend on the number of processes or interruptions; the split depends on their pixels and
    ``options.seed`` alone. Files that were added to, changed in or removed from the source since the last run are
    followed.

    Args:
        source: Folder, zip or LMDB of raw images, or the URL of a folder.
        out: Output folder, on this machine.
        options: How.
        lists: Only these files, in this split: ``{'train': path, 'test': path}``, where ``train`` may be ``'rest'``; or
            ``{'all': path}``, split as the options say.
        workers: Number of processes (default: one for each core, of this machine or of the cluster).
        face_crop: Finds the face, for ``crop='face'``; has to be picklable.
        bar: Shows the progress.
        notify: Called with what the user should know.
        shard: Make only this part of the images, beside processes that make the others. A run without it completes
            the data set.
        cluster: Address of a Ray cluster, which makes the images then. All nodes have ``source`` and ``out`` under the
            same paths.

    Returns:
        The content of ``report.json``; of a shard the number of its ``images``, and how many it made ``now``.

    Raises:
        InputError: No image of the source can be used, its store fails, the output folder belongs to something else,
            files cannot be written, or the cluster cannot be used.
    """
    start = time.perf_counter()
    source, out = local_part(expand_home(source)), local_part(expand_home(out))
    lists = {split: expand_home(path) for split, path in (lists or {}).items()}
    folder = _check_paths(source, out)
    if cluster is not None:
        require_cluster(cluster)
    opened = open_source(source)
    entries, left_out = opened.find()
    if not entries:
        raise InputError(f"{source} has no images ({' '.join(EXTENSIONS)}). Give a folder or zip of images.")
    wanted = choose_images(entries, lists, source)
    chosen = {entry.key: entry for entry in entries if entry.key in wanted}
    place = str(source.resolve()) if isinstance(source, Path) else without_secrets(source)
    described = {"source": place, **options.describe(), **_describe_lists(lists)}
    facts = {"options": described, "images": len(entries), "other files": len(left_out)}
    facts |= {"not listed": len(entries) - len(chosen), "left out": left_out}
    output = PreparedOutput(folder, options)
    processor = ImageProcessor(opened, output.staging, options, face_crop)
    with closing(RecordLog(folder, described, shard)) as log, closing(output), bar or ProgressBar(disable=True) as bar:
        preparation = Preparation(processor, output, log, Workforce(workers or None, cluster, notify), bar)
        if shard is not None:
            return preparation.run_shard(chosen, shard)
        return preparation.run(chosen, wanted, facts, start)


@dataclass(frozen=True)
class Preparation:
    """One run on an output folder."""

    processor: ImageProcessor
    output: PreparedOutput
    log: RecordLog
    workforce: Workforce
    bar: ProgressBar

    def run(self, entries: dict[str, Entry], wanted: dict[str, str], facts: dict, start: float) -> dict:
        """Do what is not done yet. Returns the report."""
        records, report_file = self.log.records, self.output.folder / "report.json"
        waiting = self._find_waiting(entries)
        report = _read_report(report_file)
        kept = [record for record in records.values() if record.split]
        same = not waiting and records.keys() == entries.keys() and report.items() >= facts.items()
        if same and not self.output.find_missing(kept):
            self.workforce.notify(Notice(f"{self.output.folder} is complete, there is nothing to do."))
            return report
        report_file.unlink(missing_ok=True)  # written last: with it, the data set is complete
        names = self._assign_names(entries)
        what = "reading"
        while True:
            self._process([Task(entries[key], names[key]) for key in sorted(waiting)], what)
            usable = [records[key] for key in entries if not records[key].kind]
            if not usable:
                raise _explain_nothing_usable(self.processor.source.path, [records[key] for key in entries])
            track = partial(self.bar.track, description="comparing")
            splits, duplicates = assign_splits(usable, wanted, self.processor.options, track)
            placed = [record._replace(split=splits.get(key, "")) for key, record in records.items()]
            waiting = self.output.find_missing(record for record in placed if record.split)
            if not waiting:
                break
            what = "writing again"
        placed.sort(key=lambda record: record.name)
        self.output.place(placed, self.bar)
        final = {record.key: record for record in placed if record.key in entries}
        self.log.replace(final.values())
        facts |= {"seconds": round(time.perf_counter() - start, 1)}
        return write_report(
            self.output.folder,
            facts,
            list(final.values()),
            duplicates,
            lambda key: self._show(entries[key], final[key]),
        )

    def run_shard(self, entries: dict[str, Entry], shard: Shard) -> dict:
        """Make the images of a shard. Returns numbers of images."""
        own = {key: entry for key, entry in entries.items() if shard.has(key)}
        waiting, names = self._find_waiting(own), self._assign_names(entries)
        self._process([Task(entries[key], names[key]) for key in sorted(waiting)], f"shard {shard}")
        return {"images": len(own), "now": len(waiting)}

    def _find_waiting(self, entries: Mapping[str, Entry]) -> set[str]:
        """Keys of images that are not made, or were changed since."""
        records = self.log.records
        return {key for key, entry in entries.items() if key not in records or records[key].stamp != entry.stamp}

    def _assign_names(self, entries: Iterable[str]) -> dict[str, str]:
        return assign_names(entries, {record.key: record.name for record in self.log.records.values()})

    def _process(self, tasks: Sequence[Task], what: str) -> None:
        if not tasks:
            return
        progress = self.bar.add_task(what, total=len(tasks))
        source, unread = self.processor.source.path, 0

        def keep(record: ImageRecord) -> None:
            nonlocal unread
            if not record.stamp and is_file_url(source):
                if unread % IN_A_ROW == 0 and not answers(str(source)):
                    raise InputError(f"{record.reason} The same command continues from here.")
                unread += 1
            self.log.append(record)
            self.bar.advance(progress)

        try:
            process_all(self.processor, tasks, self.workforce, keep)
        except KeyboardInterrupt:
            self.workforce.notify(Notice("Interrupted. The next run continues from here."))
            raise

    def _show(self, entry: Entry, record: ImageRecord) -> np.ndarray:
        """What an image became, or would have become; a rejected image as it is."""
        if record.split:
            return decode_rgb(self.output.store(record.split, "GT").read(record.name), record.name)
        image = self.processor.read(entry).flattened
        try:
            return crop_and_resize(image, self.processor.options, self.processor.face_crop)
        except RejectedImageError:
            return image


def _read_report(path: Path) -> dict:
    """The content of ``report.json``; empty where there is none, or a damaged one."""
    try:
        return dict(json.loads(path.read_text()))
    except (OSError, ValueError, TypeError):
        return {}


def _check_paths(source: Path | str, out: Path | str) -> Path:
    if isinstance(out, str):
        raise InputError(f"{out} is a URL. Give a folder of this machine as {{out}}.", "out")
    if out.exists() and not out.is_dir():
        raise InputError(f"{out} is a file. Give a new folder as {{out}}.", "out")
    if isinstance(source, str):
        return out
    inner, outer = out.resolve(), source.resolve()
    if inner.is_relative_to(outer) or outer.is_relative_to(inner):
        raise InputError(
            f"{out} and {source} lie within each other. Give a folder beside {{source}} as {{out}}.", ("out", "source")
        )
    return out


def _describe_lists(lists: Mapping[str, str]) -> dict[str, str]:
    described = {}
    for split, path in lists.items():
        content = b"" if path == REST else Path(path).read_bytes()
        described[f"list of {split}"] = f"{path} {hashlib.sha256(content).hexdigest()[:12]}"
    return described


def _explain_nothing_usable(source: Path | str, records: list[ImageRecord]) -> InputError:
    kinds = [record.kind for record in records]
    counts = ", ".join(f"{kinds.count(kind)} {kind}" for kind in sorted(set(kinds)))
    message = f"{source}: none of {len(records)} images can be used: {counts}. The first: {records[0].reason}"
    if "too small" in kinds:
        return InputError(message, ("size", "enlarge"), "Give a smaller {size}, or set {enlarge=True}.")
    return InputError(f"{message} Give other images.")
