"""The report: one HTML file with the table, the worst cases and, as large, the best ones."""

from __future__ import annotations

import base64
import io
import os
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

import numpy as np
from PIL import Image

from glean_ext.evaluation.results import Row
from glean_ext.evaluation.table import direction, format_value, summary
from glean_ext.utils.files import atomic_path
from glean_ext.utils.image_io import read_rgb

if TYPE_CHECKING:
    from glean_ext.evaluation.measures import Measure
    from glean_ext.evaluation.run import Evaluation, EvaluationOptions

SIDE = 384  # pixels of the longer side of a picture in the report, at most
SMALL = 160  # pixels up to which a picture is embedded without loss, and shown enlarged
BREAK = "<br>"
STYLE = """
:root { color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif; }
body { max-width: 90rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; } .scroll { overflow-x: auto; }
th, td { padding: .25rem .75rem; text-align: right; border-bottom: 1px solid #8884; }
td { font-variant-numeric: tabular-nums; }
th:first-child, td:first-child { text-align: left; }
.case { margin: 1.5rem 0; } .row { display: flex; gap: .75rem; overflow-x: auto; }
figure { margin: 0; } figcaption { font-size: .85rem; max-width: 16rem; }
.row img { width: 16rem; height: 16rem; object-fit: contain; background: #8882; display: block; }
.row img.small { image-rendering: pixelated; }
"""


def write_report(evaluation: Evaluation, options: EvaluationOptions) -> None:
    """Write the HTML file, which has all pictures within it and needs no other file.

    Raises:
        InputError: It cannot be written, or a picture can no longer be read.
    """
    measure = sorting_measure(evaluation.measures, options.sort_by)
    parts = [
        "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>",
        f"<title>Evaluation of {escape(', '.join(evaluation.labels))}</title><style>{STYLE}</style>",
        f"<h1>{len(evaluation.rows)} restored images</h1>",
        _summary(evaluation),
        *_notes(evaluation, options),
    ]
    for i, label in enumerate(evaluation.labels):
        ranked = worst_first(evaluation.rows, measure, i)
        count = min(options.cases, len(ranked))
        for title, rows in ("Worst", ranked[:count]), ("Best", ranked[::-1][:count]):
            parts.append(f"<h2>{title} of {escape(label)}, by {escape(measure.name)}</h2>")
            parts += [_case(row, evaluation, measure, options.report.parent) for row in rows]
    parts.append(_all_images(evaluation))
    with atomic_path(options.report) as partial:
        partial.write_text("\n".join(parts), encoding="utf-8", errors="backslashreplace")


def sorting_measure(measures: Sequence[Measure], name: str | None) -> Measure:
    """The metric by which cases are sorted: the one asked for, else LPIPS, the nearest to people's eyes, else any."""
    return next((measure for measure in measures if measure.name == (name or "lpips")), measures[0])


def worst_first(rows: Iterable[Row], measure: Measure, restorer: int) -> list[Row]:
    """The rows that have a value of the metric, sorted by it."""
    known = [(value, row) for row in rows if (value := row.values[restorer][measure.name]) is not None]
    return [row for _, row in sorted(known, key=lambda pair: pair[0], reverse=measure.lower_is_better)]


def _summary(evaluation: Evaluation) -> str:
    head, *lines = summary(evaluation)
    return _table(head, lines)


def _notes(evaluation: Evaluation, options: EvaluationOptions) -> list[str]:
    """What the numbers do not cover, and where they come from."""
    notes = [f"Means over {len(evaluation.rows)} images that all folders have."]
    notes += [f"failed: {error}" for error in evaluation.failures.values()]
    notes += [
        f"{metric}: no value for {count} results. {error}" for metric, (error, count) in evaluation.unmeasured.items()
    ]
    places = {f"results of {label}": path for label, path in zip(evaluation.labels, options.outputs, strict=True)}
    places |= {"reference": options.reference} if options.reference else {}
    places |= {"inputs": options.inputs} if options.inputs else {}
    notes += [f"{what}: {path}" for what, path in places.items()]
    return ["<ul>", *(f"<li>{escape(note)}</li>" for note in notes), "</ul>"]


def _case(row: Row, evaluation: Evaluation, measure: Measure, folder: Path) -> str:
    figures = [_figure(row.group.input, "input", folder)] if row.group.input else []
    for label, path, values in zip(evaluation.labels, row.group.outputs, row.values, strict=True):
        texts = [f"{name} {format_value(name, value)}" for name, value in values.items() if value is not None]
        figures.append(_figure(path, f"{label}: {', '.join(texts)}", folder))
    figures += [_figure(row.group.reference, "reference", folder)] if row.group.reference else []
    return f"<div class=case><h3>{escape(row.group.name)}</h3><div class=row>{''.join(figures)}</div></div>"


def _figure(path: Path, caption: str, folder: Path) -> str:
    rgb = read_rgb(path)
    small = " class=small" if max(rgb.shape[:2]) <= SMALL else ""
    link = quote(os.path.relpath(path, folder), errors="surrogateescape")
    return (
        f"<figure><a href='{link}'><img{small} alt='{escape(caption)}' src='{_embedded(rgb)}'></a>"
        f"<figcaption>{escape(caption)}</figcaption></figure>"
    )


def _embedded(rgb: np.ndarray) -> str:
    """A picture as a ``data:`` URL: small ones without loss, large ones reduced."""
    image, file = Image.fromarray(rgb), io.BytesIO()
    kind = "png" if max(image.size) <= SMALL else "jpeg"
    image.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    image.save(file, kind, **({"quality": 90} if kind == "jpeg" else {}))
    return f"data:image/{kind};base64,{base64.b64encode(file.getvalue()).decode()}"


def _all_images(evaluation: Evaluation) -> str:
    head = ["image", "restorer", *(f"{measure.name} {direction(measure)}" for measure in evaluation.measures)]
    lines = [
        [row.group.name, label, *(format_value(m.name, values[m.name]) for m in evaluation.measures)]
        for row in evaluation.rows
        for label, values in zip(evaluation.labels, row.values, strict=True)
    ]
    return f"<details><summary>All images</summary>{_table(head, lines)}</details>"


def _table(head: list[str], lines: list[list[str]]) -> str:
    rows = ["".join(f"<td>{BREAK.join(map(escape, cell.splitlines()))}</td>" for cell in line) for line in lines]
    return (
        f"<div class=scroll><table><tr>{''.join(f'<th>{escape(cell)}</th>' for cell in head)}</tr>"
        f"{''.join(f'<tr>{row}</tr>' for row in rows)}</table></div>"
    )
