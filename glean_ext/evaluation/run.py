"""Measure folders of restored images that have the same names, and write what was found."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from glean_ext.errors import InputError, Notice, require_at_least
from glean_ext.evaluation.names import chosen_metrics, default_metrics, require_given
from glean_ext.evaluation.pairs import Group, Pairing, pair_files
from glean_ext.evaluation.results import Results, Row, stamp
from glean_ext.utils.files import expand_homes, require_suffix
from glean_ext.utils.image_io import MAX_PIXELS, ImageTooLargeError, pixel_limit, read_rgb
from glean_ext.utils.messages import log_notice
from glean_ext.utils.processes import count_cores

if TYPE_CHECKING:  # torch and MMagic
    from glean_ext.evaluation.measures import Measure, Sample

MAX_THREADS = 8  # each holds some images


@dataclass(frozen=True)
class EvaluationOptions:
    """What is measured, and how.

    Attributes:
        outputs: Folders of restored images, one for each restorer. Images of the same name are compared.
        reference: The folder of ground truths, as large as the results.
        inputs: The folder of what was restored.
        metrics: Names, see :data:`~glean_ext.evaluation.names.METRICS`; empty: all that what is given allows.
        lpips: Weights of LPIPS: ``'torchvision://alexnet'`` (downloaded), or the path or URL of a file.
        suffix: What the results' names have at their end more than the other names, such as ``_restored``.
        sort_by: The metric that decides which cases are the worst; None: LPIPS, else the first one.
        cases: How many of the worst and of the best cases the report shows for each restorer.
        report: The ``.html`` file to write; ``.json`` and ``.csv`` are written beside it. Values that the ``.json`` of
            an earlier run has of the same files are not measured again.
        device: Where networks run, in torch's words.
        max_pixels: Images with more pixels are not read: small files may hold huge images.
    """

    outputs: tuple[Path, ...]
    reference: Path | None = None
    inputs: Path | None = None
    metrics: tuple[str, ...] = ()
    lpips: str | None = None
    suffix: str = ""
    sort_by: str | None = None
    cases: int = 8
    report: Path = Path("evaluation.html")
    device: str = "cpu"
    max_pixels: int = MAX_PIXELS

    def __post_init__(self) -> None:
        expand_homes(self, "outputs", "reference", "inputs", "lpips", "report")
        require_at_least("cases", self.cases, 1)
        require_at_least("max_pixels", self.max_pixels, 1)
        require_suffix(self.report, ".html")


@dataclass(frozen=True)
class Evaluation:
    """What was found.

    Attributes:
        labels: The names of the restorers: those of their folders, with as much of the path as tells them apart.
        measures: The metrics.
        rows: The images that could be measured.
        failures: Why others could not, by name.
        unmeasured: Metric -> why it has no value for some results, and for how many.
    """

    labels: list[str]
    measures: list[Measure]
    rows: list[Row]
    failures: dict[str, InputError] = field(default_factory=dict)
    unmeasured: dict[str, tuple[InputError, int]] = field(default_factory=dict)

    def values(self, metric: str, restorer: int) -> np.ndarray:
        """The values of a restorer's results that could be measured: (n,) float64."""
        values = [row.values[restorer].get(metric) for row in self.rows]
        return np.array([value for value in values if value is not None], dtype=np.float64)


Progress = Callable[[int, int], None]


def evaluate(
    options: EvaluationOptions,
    notify: Callable[[Notice], None] = log_notice,
    on_image: Progress = lambda done, total: None,
) -> Evaluation:
    """Measure, and write the report, its JSON and its CSV.

    An image that cannot be read, or whose size is not that of its reference, is left out for all restorers. A run that
    is interrupted keeps what it has measured.

    Args:
        options: What is measured.
        notify: Called with what is left out.
        on_image: Called after each image with (done, all).

    Raises:
        InputError: A folder, name or file of weights is missing, or no image could be measured.
        ModuleNotFoundError: The package of a metric is not installed.
    """
    given = {name for name in ("reference", "inputs") if getattr(options, name) is not None}
    names = chosen_metrics(options.metrics, given, options.lpips is not None)
    if options.sort_by is not None and options.sort_by not in names:
        raise InputError(
            f"{{sort_by}} is {options.sort_by!r}, which is not measured. Give one of {', '.join(names)}.", "sort_by"
        )
    for metric in () if options.metrics else default_metrics(given):
        if not metric.installed:
            notify(Notice(f"{metric.name} is not measured: it needs {metric.package}, which is not installed."))
    pairing = pair_files(list(options.outputs), options.reference, options.inputs, options.suffix)
    for notice in pairing.notices:
        notify(notice)
    from glean_ext.evaluation.measures import create_measures

    measures = create_measures(names, options.lpips, options.device)
    require_given(measures, given)
    evaluation = Evaluation(_labels(options.outputs), measures, [])
    with pixel_limit(options.max_pixels):
        with closing(Results(options.report.with_suffix(".json"))) as results:
            _measure_all(pairing, evaluation, results, on_image)
        if not evaluation.rows:
            reason = next(iter(evaluation.failures.values()))
            raise InputError(f"no image could be measured: {reason.message}", reason.parameter, reason.hint)
        from glean_ext.evaluation.report import write_report

        results.write(evaluation)
        write_report(evaluation, options)
    return evaluation


def _measure_all(pairing: Pairing, evaluation: Evaluation, results: Results, on_image: Progress) -> None:
    """Fill ``evaluation``: images in several threads, which decoding and most metrics do not block."""

    def work(group: Group) -> Row | InputError:
        try:
            return _measure(group, evaluation.measures, results)
        except ImageTooLargeError as error:
            return InputError(error.message, "max_pixels", "Or give a larger {max_pixels}.")
        except InputError as error:
            return error

    with _threads() as pool:
        for done, (group, outcome) in enumerate(zip(pairing.groups, pool.map(work, pairing.groups), strict=True), 1):
            if isinstance(outcome, InputError):
                evaluation.failures[group.name] = outcome
            else:
                evaluation.rows.append(outcome)
                for metric, error in outcome.errors:
                    first, count = evaluation.unmeasured.get(metric, (error, 0))
                    evaluation.unmeasured[metric] = first, count + 1
            on_image(done, len(pairing.groups))


@contextmanager
def _threads() -> Iterator[ThreadPoolExecutor]:
    """Threads that begin nothing new when the block fails or is interrupted."""
    pool = ThreadPoolExecutor(min(MAX_THREADS, count_cores()))
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


def _measure(group: Group, measures: list[Measure], results: Results) -> Row:
    """Measure the results of one image; values that are known already are not measured again.

    Raises:
        InputError: A file cannot be read, or sizes differ.
    """
    row = Row(group, [{} for _ in group.outputs])
    read_partner = cache(read_rgb)  # once for all restorers
    for i, output in enumerate(group.outputs):
        key = stamp(output, group.reference, group.input)
        known = results.known(key)
        missing = [measure for measure in measures if (measure.name, measure.settings) not in known]
        sample = _read(output, group, read_partner) if missing else None
        for measure in measures:
            value = known.get((measure.name, measure.settings))
            if value is None and sample is not None:
                try:
                    value = measure.compute(sample)
                except InputError as error:  # without its hint, which is for evaluators of configs
                    row.errors.append((measure.name, InputError(error.message, error.parameter)))
                else:
                    results.add(key, measure.name, measure.settings, value)
            row.values[i][measure.name] = value
    return row


def _read(output: Path, group: Group, read_partner: Callable[[Path], np.ndarray]) -> Sample:
    from glean_ext.evaluation.measures import Sample

    image = read_rgb(output)
    reference, lq = (None if path is None else read_partner(path) for path in (group.reference, group.input))
    if reference is not None and reference.shape != image.shape:
        (height, width), (h, w) = image.shape[:2], reference.shape[:2]
        raise InputError(
            f"{output} has {width}x{height} pixels, but its reference {group.reference} {w}x{h}. Restore to that size."
        )
    return Sample(image, reference, lq)


def _labels(folders: tuple[Path, ...]) -> list[str]:
    """The shortest ends of the folders' paths that tell them apart.

    >>> _labels((Path("a/out"), Path("b/out")))
    ['a/out', 'b/out']
    """
    parts = [folder.absolute().parts for folder in folders]
    length = 1
    while len({part[-length:] for part in parts}) < len(set(parts)):
        length += 1
    return [Path(*part[-length:]).as_posix() for part in parts]
