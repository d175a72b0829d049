"""What can be measured on a restored image, by name."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from glean_ext import compat
from glean_ext.errors import InputError
from glean_ext.evaluation.names import PYIQA, MetricName, parse_metric
from glean_ext.networks.lpips_network import load_lpips, lpips_distance
from glean_ext.utils.pixel_errors import WINDOW, lr_errors, psnr, ssim

if TYPE_CHECKING:
    from glean_ext.evaluation.iqa import IQAMetric

LPIPS_NET = "alex"


@dataclass(frozen=True)
class Sample:
    """An image to measure, each array (H, W, 3) uint8 RGB.

    Attributes:
        output: The restored image.
        reference: The ground truth, of the same size; None where there is none.
        input: What was restored; None where it is not given.
    """

    output: np.ndarray
    reference: np.ndarray | None = None
    input: np.ndarray | None = None


Compute = Callable[[Sample], float]


@dataclass(frozen=True)
class Measure:
    """A metric, ready to use.

    Attributes:
        name: What it was asked for by.
        needs: As in :class:`~glean_ext.evaluation.names.MetricName`.
        lower_is_better: Of its values.
        settings: What its values depend on besides the images, such as its weights.
        compute: Sample -> value. It raises InputError for an image that it cannot measure. Several threads may call it.
    """

    name: str
    needs: str
    lower_is_better: bool
    settings: str
    compute: Compute


def create_measures(names: tuple[str, ...], lpips: str | None = None, device: str = "cpu") -> list[Measure]:
    """Metrics by their names, see :data:`~glean_ext.evaluation.names.METRICS`.

    Args:
        names: Such as ``'psnr'`` or ``'pyiqa:musiq'``.
        lpips: The weights of LPIPS's AlexNet, see :class:`~glean_ext.metrics.LPIPS`.
        device: Where networks run.

    Raises:
        InputError: A name is unknown, a package is missing, or weights are.
    """
    return [_create(parse_metric(name), lpips, device) for name in names]


def _create(metric: MetricName, lpips: str | None, device: str) -> Measure:
    if metric.name.startswith(PYIQA):
        from glean_ext.evaluation.iqa import create_iqa

        iqa = create_iqa(metric.name, device)
        needs = "reference" if iqa.needs_reference else ""
        return Measure(metric.name, needs, iqa.lower_is_better, iqa.version, _one_at_a_time(_of_pyiqa(iqa)))
    make: dict[str, Callable[[], Compute]] = {
        "psnr": lambda: _psnr,
        "ssim": lambda: _ssim,
        "lpips": lambda: _one_at_a_time(_lpips(lpips, device)),
        "identity": lambda: _one_at_a_time(_identity()),
        "lr_psnr": lambda: _lr_psnr,
        "niqe": _niqe,
    }
    settings = str(lpips) if metric.name == "lpips" else ""
    return Measure(metric.name, metric.needs, metric.lower_is_better, settings, make[metric.name]())


def _psnr(sample: Sample) -> float:
    assert sample.reference is not None
    return psnr(sample.output, sample.reference)


def _ssim(sample: Sample) -> float:
    assert sample.reference is not None
    height, width = sample.output.shape[:2]
    if min(height, width) < WINDOW:
        raise InputError(f"SSIM needs images of at least {WINDOW} pixels a side, but the output has {width}x{height}.")
    return ssim(sample.output, sample.reference)


def _lr_psnr(sample: Sample) -> float:
    assert sample.input is not None
    (height, width), (h, w) = sample.output.shape[:2], sample.input.shape[:2]
    if height * w != width * h or height < h:
        raise InputError(
            f"LR consistency needs outputs of the input's shape, enlarged, but the output has {width}x{height} and "
            f"the input {w}x{h}."
        )
    return lr_errors(sample.output, sample.input)[0]


def _niqe() -> Compute:
    compat.apply()
    from glean_ext.metrics import NIQE

    metric = NIQE(prefix="evaluate")
    # It does not look at the ground truth, or at a mask.
    return lambda sample: metric.process_image(*(_bgr(sample.output),) * 3)


def _lpips(weights: str | None, device: str) -> Compute:
    network = load_lpips(LPIPS_NET, weights).to(device)

    def compute(sample: Sample) -> float:
        images = (torch.from_numpy(image).permute(2, 0, 1).to(device) for image in (sample.output, sample.reference))
        return lpips_distance(network, LPIPS_NET, *images)

    return compute


def _identity() -> Compute:
    compat.apply()
    from glean_ext.metrics import IdentitySimilarity

    metric = IdentitySimilarity(prefix="evaluate")

    def compute(sample: Sample) -> float:
        assert sample.reference is not None
        similarity, _ = metric.measure(_chw(sample.output), {"gt_img": _bgr(sample.reference)})
        if np.isnan(similarity):
            raise InputError("no face was found in the reference.")
        return similarity

    return compute


def _of_pyiqa(metric: IQAMetric) -> Compute:
    if metric.needs_reference:
        return lambda sample: metric.compute(sample.output, sample.reference)
    return lambda sample: metric.compute(sample.output)


def _one_at_a_time(compute: Compute) -> Compute:
    """Networks use all cores by themselves, and not all allow several threads."""
    lock = threading.Lock()

    def locked(sample: Sample) -> float:
        with lock, torch.no_grad():
            return compute(sample)

    return locked


def _chw(rgb: np.ndarray) -> Tensor:
    """(H, W, 3) uint8 -> (3, H, W)"""
    return torch.from_numpy(np.ascontiguousarray(rgb.transpose(2, 0, 1)))


def _bgr(rgb: np.ndarray) -> Tensor:
    """As MMagic hands images to metrics: (H, W, 3) uint8 RGB -> (3, H, W) BGR in [0, 255]."""
    return _chw(rgb[..., ::-1])
