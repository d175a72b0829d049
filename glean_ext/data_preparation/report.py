"""What became of every image: ``report.json``, ``images.csv`` and a contact sheet to look at."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np

from glean_ext.data_preparation.crop_resize import Unusable
from glean_ext.data_preparation.manifest import Record
from glean_ext.data_preparation.train_test_split import Duplicate
from glean_ext.data_preparation.writers import SPLITS
from glean_ext.errors import InputError
from glean_ext.utils.files import atomic_path, write_json

SHEET_COLUMNS = 12
SHEET_SIDE = 96  # pixels of a picture
SHEET_ROWS = 4  # of training images


def write_report(
    out: Path,
    facts: dict,
    records: Sequence[Record],
    matches: Sequence[Duplicate],
    picture: Callable[[str], np.ndarray],
) -> dict:
    """Write all three files.

    Args:
        out: Output folder.
        facts: What the report begins with.
        records: Of all images, with their splits.
        matches: Duplicates.
        picture: Key -> what the image looks like, (H, W, 3) uint8; raises what is wrong with one that cannot be shown.

    Returns:
        The content of ``report.json``.
    """
    used = [record for record in records if record.split]
    rejects = [record for record in records if record.kind]
    report = facts | {
        "train": sum(record.split == "train" for record in used),
        "test": sum(record.split == "test" for record in used),
        "rejected": dict(Counter(record.kind for record in rejects).most_common()),
        "duplicates dropped": dict(Counter(match.kind for match in matches if match.dropped).most_common()),
        "duplicates kept": dict(Counter(match.kind for match in matches if not match.dropped).most_common()),
        "rejects": [{"file": record.key, "kind": record.kind, "reason": record.reason} for record in rejects],
        "duplicates": [{"file": match.key} | asdict(match) for match in matches],
    }
    for entry in report["duplicates"]:
        del entry["key"]
    with atomic_path(out / "images.csv") as partial, open(partial, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["name", "split", "file", "sha256 of pixels"])
        writer.writerows((record.name, record.split, record.key, record.digest.hex()) for record in used)
    write_sheet(out / "contact_sheet.png", used, rejects, matches, picture)
    write_json(report, out / "report.json")
    return report


def write_sheet(
    path: Path,
    used: Sequence[Record],
    rejects: Sequence[Record],
    matches: Sequence[Duplicate],
    picture: Callable[[str], np.ndarray],
) -> None:
    """Some images of each split, dropped duplicates above those that stayed, and what can be shown of the rejects."""
    from glean_ext.utils.image_grid import Row, comparison  # loads torch

    rows: list[Row] = []
    for split in SPLITS:
        some = _some([record.key for record in used if record.split == split], SHEET_COLUMNS * SHEET_ROWS)
        for start in range(0, len(some), SHEET_COLUMNS):
            rows.append(Row("" if start else split, [picture(key) for key in some[start : start + SHEET_COLUMNS]]))
    for kind in ("equal", "similar", "mirrored"):
        pairs = _some([match for match in matches if match.kind == kind], SHEET_COLUMNS)
        if pairs:
            rows.append(Row(kind, [picture(match.key) for match in pairs]))
            rows.append(Row("  and this", [picture(match.of) for match in pairs]))
    shown = list(_shown((record.key for record in rejects if record.kind != "unreadable"), picture))
    if shown:
        rows.append(Row("rejected", shown))
    columns = max(len(row.images) for row in rows)
    blank = np.full((1, 1, 3), 255, np.uint8)
    rows = [Row(row.name, row.images + [blank] * (columns - len(row.images))) for row in rows]
    with atomic_path(path) as partial:
        comparison(rows, SHEET_SIDE, columns, label_width=90).save(partial)


def _some(items: list, count: int) -> list:
    """At most so many, spread over all."""
    if len(items) <= count:
        return items
    return [items[i] for i in np.linspace(0, len(items) - 1, count).astype(int)]


def _shown(keys: Iterable[str], picture: Callable[[str], np.ndarray]) -> Iterable[np.ndarray]:
    shown = 0
    for key in keys:
        if shown == SHEET_COLUMNS:
            return
        try:
            yield picture(key)
        except (InputError, Unusable):
            continue
        shown += 1
