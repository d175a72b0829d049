"""What became of every image: ``report.json``, ``images.csv`` and a contact sheet to look at."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict
from itertools import islice
from pathlib import Path

import numpy as np

from glean_ext.data_preparation.crop_resize import RejectedImageError
from glean_ext.data_preparation.record_log import ImageRecord
from glean_ext.data_preparation.train_test_split import Duplicate
from glean_ext.data_preparation.writers import SPLITS
from glean_ext.errors import InputError
from glean_ext.utils.files import atomic_path, write_json
from glean_ext.utils.image_grid import Row, comparison

SHEET_COLUMNS = 12
SHEET_SIDE = 96  # pixels of an image
SHEET_ROWS = 4  # of training images

Show = Callable[[str], np.ndarray]  # key -> what the image looks like, (H, W, 3) uint8


def write_report(
    out: Path, facts: dict, records: Sequence[ImageRecord], duplicates: Sequence[Duplicate], show: Show
) -> dict:
    """Write all three files.

    Args:
        out: Output folder.
        facts: What the report begins with.
        records: Of all images, with their splits.
        duplicates: Images that show what others show.
        show: Loads an image; raises InputError or RejectedImageError for one that cannot be shown.

    Returns:
        The content of ``report.json``.
    """
    used = [record for record in records if record.split]
    rejects = [record for record in records if record.kind]
    report = facts | {
        "train": sum(record.split == "train" for record in used),
        "test": sum(record.split == "test" for record in used),
        "rejected": _count(record.kind for record in rejects),
        "duplicates dropped": _count(duplicate.kind for duplicate in duplicates if duplicate.dropped),
        "duplicates kept": _count(duplicate.kind for duplicate in duplicates if not duplicate.dropped),
        "rejects": [{"file": record.key, "kind": record.kind, "reason": record.reason} for record in rejects],
        "first frame only": [{"file": record.key, "not used": record.further} for record in used if record.further],
        "duplicates": [asdict(duplicate) for duplicate in duplicates],
    }
    with atomic_path(out / "images.csv") as partial, open(partial, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["name", "split", "file", "sha256 of pixels"])
        writer.writerows((record.name, record.split, record.key, record.digest) for record in used)
    _write_sheet(out / "contact_sheet.png", used, rejects, duplicates, show)
    write_json(report, out / "report.json")
    return report


def _count(kinds: Iterable[str]) -> dict[str, int]:
    """The most frequent first."""
    return dict(Counter(kinds).most_common())


def _write_sheet(
    path: Path,
    used: Sequence[ImageRecord],
    rejects: Sequence[ImageRecord],
    duplicates: Sequence[Duplicate],
    show: Show,
) -> None:
    """Some images of each split, some duplicates above what they show, and some rejected images."""
    rows: list[Row] = []
    for split in SPLITS:
        some = _sample([record.key for record in used if record.split == split], SHEET_COLUMNS * SHEET_ROWS)
        for start in range(0, len(some), SHEET_COLUMNS):
            rows.append(Row("" if start else split, [show(key) for key in some[start : start + SHEET_COLUMNS]]))
    for kind in ("equal", "similar", "mirrored"):
        pairs = _sample([duplicate for duplicate in duplicates if duplicate.kind == kind], SHEET_COLUMNS)
        if pairs:
            rows.append(Row(kind, [show(pair.file) for pair in pairs]))
            rows.append(Row("  and this", [show(pair.of) for pair in pairs]))
    readable = (record.key for record in rejects if record.kind != "unreadable")
    rejected = list(islice(_show_if_possible(readable, show), SHEET_COLUMNS))
    if rejected:
        rows.append(Row("rejected", rejected))
    columns = max(len(row.images) for row in rows)
    blank = np.full((1, 1, 3), 255, np.uint8)
    rows = [Row(row.name, row.images + [blank] * (columns - len(row.images))) for row in rows]
    with atomic_path(path) as partial:
        comparison(rows, SHEET_SIDE, columns, label_width=90).save(partial)


def _sample(items: list, count: int) -> list:
    """At most ``count``, spread over all."""
    if len(items) <= count:
        return items
    return [items[i] for i in np.linspace(0, len(items) - 1, count).astype(int)]


def _show_if_possible(keys: Iterable[str], show: Show) -> Iterator[np.ndarray]:
    for key in keys:
        try:
            yield show(key)
        except (InputError, RejectedImageError):
            continue
