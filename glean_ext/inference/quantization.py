"""Exported models in int8: convolutions with 8-bit weights (one scale a channel) and 8-bit activations.

The ranges of activations are those that calibration images reach. Layers that cost too much accuracy stay in fp32. They
are found by halving: the error that is allowed in all is shared out by the number of layers, and a half that keeps
within its share is accepted as a whole (:func:`layers_to_keep`).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from glean_ext.errors import InputError, Notice
from glean_ext.inference.engines import EXTRA, INPUT, Session, open_session
from glean_ext.inference.image_restorer import ImageRestorer
from glean_ext.inference.onnx_backend import OnnxBackend
from glean_ext.utils.array_conversion import to_floats
from glean_ext.utils.dataset_folders import list_images
from glean_ext.utils.files import temporary_folder_beside
from glean_ext.utils.hardware import processor
from glean_ext.utils.image_io import read_rgb
from glean_ext.utils.optional_packages import version_errors

PACKAGES = ("onnx", "onnxruntime")
LEAST_PSNR = 40.0  # dB from fp32, with the value range as peak
CALIBRATION, CHECK = 48, 16  # images at most
SPEED_RUNS = 5
Array = np.ndarray


@dataclass(frozen=True)
class Quantized:
    """What became of a quantized model.

    Attributes:
        psnr: From fp32, in dB, of images that were not calibrated with.
        kept: Layers in fp32, and the PSNR that each would lower the whole to by itself.
        layers: All convolutions.
        speed: How many times as fast as fp32 it is here, with onnxruntime.
    """

    psnr: float
    kept: dict[str, float]
    layers: int
    speed: float

    def lines(self) -> Iterator[str]:
        """For people."""
        share = f"{self.layers - len(self.kept)} of {self.layers} convolutions in int8"
        yield f"{share}: {self.psnr:.1f} dB from fp32, {self.speed:.2f}x its speed with onnxruntime"
        for name, psnr in self.kept.items():
            yield f"in fp32: {name}, which alone would cost so much that {psnr:.1f} dB remain"


@dataclass(frozen=True)
class Images:
    """Inputs of the network, (1, 3, h, w) float32 each."""

    calibration: list[Array]
    check: list[Array]


def read_images(folder: str, network: OnnxBackend) -> Images:
    """Images of a folder, at the size that the network was trained with; every fourth is for the check.

    Raises:
        InputError: There are fewer than four.
    """
    files = list_images(folder, recursive=True).files
    if len(files) < 4:
        raise InputError(
            f"{folder} has {len(files)} images, but at least four are needed: some set the ranges, others check the "
            "result.",
            "calibrate",
        )
    restorer = ImageRestorer(network, size_policy="resize", notify=lambda notice: None)
    step = max(1, len(files) // (CALIBRATION + CHECK))
    chosen = [Path(file) for file in files[::step][: CALIBRATION + CHECK]]
    inputs = [to_floats(restorer.prepare(read_rgb(path), str(path)).pixels) for path in chosen]
    return Images([lq for i, lq in enumerate(inputs) if i % 4], inputs[::4])


class Quantizer:
    """Makes int8 models of an fp32 model.

    Args:
        model: The fp32 model.
        folder: For intermediate files.
        images: What to calibrate and to check with.

    Attributes:
        layers: The names of all convolutions.
        trial: The int8 model that was made last.
    """

    def __init__(self, model: Path, folder: Path, images: Images):
        self.images, self.ranges = images, folder / "ranges.json"
        self.folded, self.trial = folder / "folded.onnx", folder / "trial.onnx"
        self.layers = fold_constants(model, self.folded)
        self.reference = [open_session(self.folded).run(lq) for lq in images.check]
        self._tried: list[str] | None = None  # the layers of the trial, and their error
        self._error = 0.0

    def _write_trial(self, layers: Sequence[str]) -> None:
        from onnxruntime.quantization import QuantType, quantize_static

        quantize_static(
            self.folded,
            self.trial,
            _Reader(self.images.calibration),
            op_types_to_quantize=["Conv"],
            nodes_to_quantize=list(layers),
            per_channel=True,
            # Two products of 8 bits may overflow the 16 that processors without VNNI add them in.
            reduce_range="vnni" not in processor(),
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            calibration_cache_path=self.ranges,
        )

    def error(self, layers: Sequence[str]) -> float:
        """The mean squared error of :attr:`trial`, now with these layers in int8; of values clipped to [-1, 1]."""
        if list(layers) != self._tried:
            self._write_trial(layers)
            session = open_session(self.trial)
            pairs = zip(self.images.check, self.reference, strict=True)
            errors = [np.mean((session.run(lq).clip(-1, 1) - y.clip(-1, 1)) ** 2) for lq, y in pairs]
            self._tried, self._error = list(layers), float(np.mean(errors))
        return self._error


def quantize(
    model: Path, out: Path, folder: str, notify: Callable[[Notice], None], least_psnr: float = LEAST_PSNR
) -> Quantized:
    """Write an int8 model that is at least ``least_psnr`` dB from fp32.

    Args:
        model: The fp32 model, which stays.
        out: The file to write.
        folder: Of images, see :func:`read_images`.
        notify: Gets a notice before each step.

    Raises:
        InputError: There are too few images, or one that cannot be read.
    """
    images = read_images(folder, OnnxBackend(model))
    notify(Notice(f"calibrating with {len(images.calibration)} images"))
    with temporary_folder_beside(out) as work, version_errors(PACKAGES, "{int8}", EXTRA, "int8"):
        quantizer = Quantizer(model, work, images)
        layers = quantizer.layers
        errors = layers_to_keep(layers, quantizer.error, to_mse(least_psnr), notify)
        mse = quantizer.error([name for name in layers if name not in errors])
        quantizer.trial.replace(out)
    kept = {name: to_psnr(error) for name, error in errors.items()}
    speed = compare_speed(open_session(model), open_session(out), images.check[0])
    return Quantized(to_psnr(mse), kept, len(layers), speed)


def layers_to_keep(
    layers: Sequence[str],
    error: Callable[[Sequence[str]], float],
    allowed: float,
    notify: Callable[[Notice], None] = lambda notice: None,
) -> dict[str, float]:
    """Layers whose errors are too large for the others to stay within ``allowed``: their names and errors.

    Args:
        layers: All of them.
        error: The mean squared error with some layers in int8.
        allowed: The mean squared error of all together.
    """
    if error(layers) <= allowed:
        return {}
    kept: dict[str, float] = {}
    waiting = [list(layers)]
    while waiting:
        part = waiting.pop(0)
        notify(Notice(f"looking for layers that cost much: {len(part)} of {len(layers)}"))
        # Half of the whole, because errors of parts add up only about.
        if (found := error(part)) <= allowed / 2 * len(part) / len(layers):
            continue
        if len(part) == 1:
            kept[part[0]] = found
        else:
            waiting += [part[: len(part) // 2], part[len(part) // 2 :]]
    return kept


def fold_constants(model: Path, out: Path) -> list[str]:
    """Write ``model`` with everything computed that does not depend on its input; the names of its convolutions."""
    import onnx
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(out)
    onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
    folded = onnx.load(out)
    folded.metadata_props.add(key="onnx.infer", value="onnxruntime.quant")  # otherwise the quantizer asks for this step
    onnx.save(folded, out)
    constants = {value.name for value in folded.graph.initializer}
    return [node.name for node in folded.graph.node if node.op_type == "Conv" and node.input[1] in constants]


def compare_speed(first: Session, second: Session, lq: Array) -> float:
    """How many times as fast the second session is: the median of pairs of runs in turn."""

    def seconds(session: Session) -> float:
        started = time.perf_counter()
        session.run(lq)
        return time.perf_counter() - started

    for session in first, second:
        session.run(lq)
    return median(seconds(first) / seconds(second) for _ in range(SPEED_RUNS))


def to_mse(psnr: float) -> float:
    """PSNR with the value range [-1, 1] as peak -> mean squared error.

    >>> to_mse(40)
    0.0004
    """
    return 4 / 10 ** (psnr / 10)


def to_psnr(mse: float) -> float:
    """The inverse of :func:`to_mse`."""
    return math.inf if mse == 0 else 10 * math.log10(4 / mse)


class _Reader:
    """A ``CalibrationDataReader``."""

    def __init__(self, images: Sequence[Array]):
        self._images = iter(images)

    def get_next(self) -> dict[str, Any] | None:
        lq = next(self._images, None)
        return None if lq is None else {INPUT: lq}
