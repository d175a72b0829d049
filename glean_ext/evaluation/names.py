"""The names of metrics, known without loading a library."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING

from glean_ext.errors import InputError, did_you_mean

if TYPE_CHECKING:  # torch and MMagic
    from glean_ext.evaluation.measures import Measure

PYIQA = "pyiqa:"
PYIQA_EXAMPLES = ("musiq", "clipiqa", "maniqa", "niqe", "topiq_nr", "topiq_nr-face")


@dataclass(frozen=True)
class MetricName:
    """What is known of a metric by its name.

    Attributes:
        name: As in a command.
        needs: ``'reference'``, ``'inputs'``, or empty: the parameter that has the images it compares with.
        purpose: In some words.
        lower_is_better: Of its values.
        by_default: Measured when nothing is chosen and what it needs is given.
        package: That it needs besides this package's own requirements; empty: none.
    """

    name: str
    needs: str = ""
    purpose: str = ""
    lower_is_better: bool = False
    by_default: bool = True
    package: str = ""

    @property
    def installed(self) -> bool:
        """Whether its package is."""
        return not self.package or find_spec(self.package) is not None


METRICS = {
    metric.name: metric
    for metric in (
        MetricName("psnr", "reference", "peak signal-to-noise ratio, dB"),
        MetricName("ssim", "reference", "structural similarity"),
        MetricName("lpips", "reference", "perceptual distance", lower_is_better=True, package="lpips"),
        MetricName(
            "identity", "reference", "similarity of the faces (extra: identity)", by_default=False, package="mmagic"
        ),
        MetricName("lr_psnr", "inputs", "PSNR of the reduced result and the input, dB"),
        MetricName("niqe", "", "naturalness, without a reference", lower_is_better=True, package="mmagic"),
    )
}


def parse_metric(name: str) -> MetricName:
    """The metric of a name; those of pyiqa begin with ``pyiqa:``, and pyiqa decides what they need.

    >>> parse_metric("psnr").needs, parse_metric("pyiqa:musiq").needs
    ('reference', '')

    Raises:
        InputError: There is no such metric.
    """
    if name.startswith(PYIQA) and name != PYIQA:
        return MetricName(name)
    if name in METRICS:
        return METRICS[name]
    known = [*METRICS, *(PYIQA + example for example in PYIQA_EXAMPLES)]
    nearest = did_you_mean(PYIQA + name if name in PYIQA_EXAMPLES else name, known)
    raise InputError(
        f"{{metrics}}: there is no metric {name!r}. {nearest}There are {', '.join(METRICS)}, and pyiqa's: {PYIQA}NAME.",
        "metrics",
    )


def require_given(metrics: Iterable[MetricName | Measure], given: set[str]) -> None:
    """Raise InputError for a metric that needs a reference or inputs where there are none."""
    for metric in metrics:
        if metric.needs and metric.needs not in given:
            raise InputError(f"{{metrics={metric.name}}} needs {{{metric.needs}}}.", ("metrics", metric.needs))


def chosen_metrics(names: tuple[str, ...], given: set[str], lpips: bool) -> tuple[str, ...]:
    """The metrics to measure: those that were asked for, else all that is installed and that what is given allows.

    Args:
        names: Asked for; empty for the default.
        given: Of ``'reference'`` and ``'inputs'``.
        lpips: Whether weights of LPIPS are given.

    Raises:
        InputError: A name is unknown, or what its metric needs is not given.
        ModuleNotFoundError: The package of a metric is not installed.
    """
    asked = [parse_metric(name) for name in names]
    require_given(asked, given)
    if not names and lpips and "reference" in given:
        asked.append(METRICS["lpips"])
    for metric in asked:
        if not metric.installed:
            raise ModuleNotFoundError(f"No module named {metric.package!r}", name=metric.package)
    if names:
        return tuple(dict.fromkeys(names))
    chosen = (metric for metric in default_metrics(given) if (lpips if metric.name == "lpips" else metric.installed))
    return tuple(metric.name for metric in chosen)


def default_metrics(given: set[str]) -> list[MetricName]:
    """What is measured where no names are given, of what fits ``given``."""
    return [metric for metric in METRICS.values() if metric.by_default and metric.needs in {"", *given}]
