"""How long it takes to load a training sample: decoding, making the low-resolution image, the whole pipeline."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from rich.console import Console
from rich.table import Table

from benchmarks import measure
from benchmarks.cases import SEED, import_mmagic
from benchmarks.comparison import machine_line
from benchmarks.measure import SampleStats
from glean_ext.utils.imresize import imresize
from glean_ext.utils.progress import ProgressBar

FORMATS: dict[str, dict[str, Any]] = {"png": {}, "jpg": {"quality": 95}}
TRAINED_SIZES = {256: 8, 1024: 16}  # side of the ground truth -> scale


@dataclass(frozen=True)
class Loading:
    """Seconds for one image, in one process.

    Args:
        size: Side of the ground truth.
        scale: Side of the ground truth divided by that of the low-resolution image.
        format: Extension of the file.
        decode: ``LoadRGB``, from the file to pixels.
        resize: ``LoadOrMakeLQ``, MATLAB's bicubic.
        pipeline: All transforms of the config.
        images_per_second: From the median of ``pipeline``.
    """

    size: int
    scale: int
    format: str
    decode: SampleStats
    resize: SampleStats
    pipeline: SampleStats
    images_per_second: float


def make_test_image(size: int) -> np.ndarray:
    """Soft shapes with a little noise, about as expensive to decode as a photograph: (H, W, 3) uint8."""
    random = np.random.default_rng(SEED)
    shapes = imresize(random.uniform(0, 255, (size // 16, size // 16, 3)), size=(size, size))
    return np.clip(shapes + random.normal(0, 3, shapes.shape), 0, 255).astype(np.uint8)


def measure_loading(pipeline: Sequence[dict], size: int, scale: int, kind: str, folder: Path, repeats: int) -> Loading:
    """Time the loading of one image.

    Args:
        pipeline: ``train_dataloader.dataset.pipeline`` of a config.
        size: Side of the ground truth.
        scale: Side of the ground truth divided by that of the low-resolution image.
        kind: A key of :data:`FORMATS`.
        folder: The image is written there.
        repeats: Timed runs of each part.
    """
    import_mmagic()
    from mmagic.registry import TRANSFORMS

    from glean_ext.datasets import LoadOrMakeLQ, LoadRGB

    path = folder / f"{size}.{kind}"
    Image.fromarray(make_test_image(size)).save(path, **FORMATS[kind])
    sample = {"gt_path": str(path), "scale": scale, "key": str(path), "sample_idx": 0}
    decode, resize = LoadRGB("gt"), LoadOrMakeLQ()
    transforms = [TRANSFORMS.build(dict(transform)) for transform in pipeline]
    decoded = decode.transform(dict(sample))

    def run_pipeline() -> None:
        results: Any = dict(sample)
        for transform in transforms:
            results = transform(results)

    parts = (lambda: decode.transform(dict(sample))), (lambda: resize.transform(dict(decoded))), run_pipeline
    for part in parts:
        part()
    times = [SampleStats.of(seconds) for seconds in measure.time_alternately(parts, repeats)]
    return Loading(size, scale, kind, times[0], times[1], times[2], 1 / times[2].median)


def compare_formats(pipeline: Sequence[dict], sizes: dict[int, int], repeats: int, console: Console) -> dict[str, Any]:
    """Measure the loading of PNG and JPEG files.

    Args:
        pipeline: ``train_dataloader.dataset.pipeline`` of a config.
        sizes: Side of the ground truth -> scale.
        repeats: Timed runs of each part.
        console: For the progress bar.

    Returns:
        ``loading``: a :class:`Loading` for each size and format; ``machine`` and ``versions``.
    """
    plan = [(size, scale, kind) for size, scale in sizes.items() for kind in FORMATS]
    with tempfile.TemporaryDirectory() as folder, ProgressBar(console, transient=True) as bar:
        task = bar.add_task("loading", total=len(plan))
        loading = []
        for size, scale, kind in plan:
            loading.append(measure_loading(pipeline, size, scale, kind, Path(folder), repeats))
            bar.advance(task)
    return {"loading": loading, **measure.describe_environment("cpu")}


def print_report(report: dict[str, Any], console: Console) -> None:
    """Print what :func:`compare_formats` returned."""
    table = Table("ground truth", title="Loading a training sample, in one process")
    for column in "decode (ms)", "resize (ms)", "pipeline (ms)", "images/s":
        table.add_column(column, justify="right")
    for row in report["loading"]:
        parts = (f"{1000 * part.median:.1f}" for part in (row.decode, row.resize, row.pipeline))
        table.add_row(f"{row.size} px {row.format}, x{row.scale}", *parts, f"{row.images_per_second:.0f}")
    console.print(table)
    console.print(machine_line(report))
