"""The values of an evaluation on disk: kept while it runs, so that an interrupted one continues, and as tables."""

from __future__ import annotations

import csv
import json
import math
import os
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from glean_ext.errors import InputError
from glean_ext.evaluation.pairs import Group
from glean_ext.utils.files import atomic_path, write_json

if TYPE_CHECKING:
    from glean_ext.evaluation.run import Evaluation

FORMAT = "glean-ext evaluation 1"
SECONDS_BETWEEN_WRITES = 30


@dataclass(frozen=True)
class Row:
    """What was measured of one image.

    Attributes:
        group: Its files.
        values: Metric -> value, for each restorer; None: it could not be measured.
        errors: Metric and reason, for each value that could not be measured.
    """

    group: Group
    values: list[dict[str, float | None]]
    errors: list[tuple[str, InputError]] = field(default_factory=list)


def stamp(output: Path, reference: Path | None, lq: Path | None) -> str:
    """A text that changes when one of the files does: their paths, lengths and times.

    Raises:
        InputError: A file cannot be reached.
    """
    parts = []
    for path in output, reference, lq:
        if path is not None:
            try:
                status = path.stat()
            except OSError as error:
                raise InputError(
                    f"{path} cannot be read ({error.strerror}). Correct its name or its rights."
                ) from error
            parts.append(f"{os.path.abspath(path)} {status.st_size} {status.st_mtime_ns}")
    return "\n".join(parts)


class Results:
    """The JSON file of an evaluation. Several threads may use it.

    Args:
        path: The file; an earlier run's is read.

    Raises:
        InputError: There is a file that is none of this command.
    """

    def __init__(self, path: Path):
        self.path = path
        self._lock = threading.Lock()
        self._values: dict[str, dict[tuple[str, str], float]] = {}
        self._changed, self._written = False, time.monotonic()
        if path.exists():
            self._read()

    def _read(self) -> None:
        try:
            content = json.loads(self.path.read_text())
            if content["format"] != FORMAT:
                raise ValueError("of another version")
            for key, values in content["measured"].items():
                self._values[key] = {(metric, settings): float(value) for metric, settings, value in values}
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            raise InputError(
                f"{self.path} exists and is no result of an evaluation. Choose another name as {{report}}, or remove "
                "it.",
                "report",
            ) from error

    def known(self, key: str) -> dict[tuple[str, str], float]:
        """(metric, settings) -> value, of the files that ``key`` stands for."""
        with self._lock:
            return dict(self._values.get(key, {}))

    def add(self, key: str, metric: str, settings: str, value: float) -> None:
        """Keep a value; from time to time all are written."""
        with self._lock:
            self._values.setdefault(key, {})[metric, settings] = value
            self._changed = True
            if time.monotonic() - self._written > SECONDS_BETWEEN_WRITES:
                self._save({})

    def close(self) -> None:
        """Write what was measured, if there is something new."""
        with self._lock:
            if self._changed:
                self._save({})

    def _save(self, summary: dict) -> None:
        measured = {
            key: [[metric, settings, _plain(value)] for (metric, settings), value in values.items()]
            for key, values in self._values.items()
        }
        write_json({"format": FORMAT, **summary, "measured": measured}, self.path)
        self._changed, self._written = False, time.monotonic()

    def write(self, evaluation: Evaluation) -> None:
        """Write the JSON with means and images, and the CSV beside it, with a line for each result."""
        names = [measure.name for measure in evaluation.measures]
        restorers = {}
        for i, label in enumerate(evaluation.labels):
            found = {name: evaluation.values(name, i) for name in names}
            restorers[label] = {
                name: {"mean": _plain(float(values.mean())), "images": len(values)}
                for name, values in found.items()
                if len(values)
            }
        lines = [
            {"image": row.group.name, "restorer": label, **{name: _plain(values[name]) for name in names}}
            for row in evaluation.rows
            for label, values in zip(evaluation.labels, row.values, strict=True)
        ]
        failures = {name: error.message for name, error in evaluation.failures.items()}
        with self._lock:
            self._save({"restorers": restorers, "failures": failures, "images": lines})
        with (
            atomic_path(self.path.with_suffix(".csv")) as partial,
            open(partial, "w", newline="", encoding="utf-8", errors="surrogateescape") as file,
        ):
            writer = csv.DictWriter(file, ["image", "restorer", *names])
            writer.writeheader()
            writer.writerows(lines)


def _plain(value: float | None) -> float | str | None:
    """As JSON knows it: it has no infinity, which is the PSNR of equal images."""
    return value if value is None or math.isfinite(value) else str(value)
