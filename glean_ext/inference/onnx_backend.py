"""Running networks that ``tools/export.py`` wrote as ONNX: numpy and an engine, without torch and without MMagic.

The interface of such a file, whatever its network and dtype:

    input   ``lq``      (N, 3, h, w) float32, RGB in [-1, 1]
    output  ``output``  (N, 3, H, W) float32, RGB, about [-1, 1]

N is free. h and w are free from 8 on for LightGLEAN and fixed for GLEAN. The file's metadata says what else is known of
it, see :class:`ModelMetadata`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from glean_ext.errors import InputError, first_line
from glean_ext.inference.engines import INPUT, OUTPUT, open_session
from glean_ext.inference.memory_budget import Memory, at_hand
from glean_ext.network_settings import require_number_of_references
from glean_ext.size_requirements import SizeRequirements, format_size
from glean_ext.utils.array_conversion import from_floats, to_floats
from glean_ext.utils.files import expand_home

VALUE_RANGE, CHANNEL_ORDER = "[-1, 1]", "RGB"
FORMAT = "2"  # of the metadata and the interface above
FORMAT_KEY = "glean_ext_format"
COLORIZER = "GLEANColorization"  # the network that gives gray images colours


@dataclass(frozen=True)
class ModelMetadata:
    """The properties of an exported file, which are in its metadata (ONNX) or ``metadata.json`` (torch.export)."""

    network: str  # its class
    dtype: str  # of weights and computation: float32 or float16
    nominal: tuple[int, int]  # (height, width) it was trained with
    scale: int
    any_size: bool  # False: ``nominal`` only; True: all from 8x8 on
    bytes_per_pixel: float  # memory of a forward, per pixel of the input; 0 for one of a single size
    max_difference: float  # from the network in PyTorch and fp32, measured at the export; a share of the value range
    others: dict[str, str]  # the checkpoint's name and the versions of what wrote the file

    def to_metadata(self) -> dict[str, str]:
        """All of it as strings."""
        height, width = self.nominal
        return {
            FORMAT_KEY: FORMAT,
            "network": self.network,
            "dtype": self.dtype,
            "nominal_size": f"{height},{width}",
            "in_size": "any" if self.any_size else f"{height},{width}",
            "scale": str(self.scale),
            "bytes_per_pixel": f"{self.bytes_per_pixel:g}",
            "value_range": VALUE_RANGE,
            "channel_order": CHANNEL_ORDER,
            "max_difference": f"{self.max_difference:.3g}",
            **self.others,
        }

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, str], path: object) -> ModelMetadata:
        """The inverse of :meth:`to_metadata`.

        Raises:
            InputError: The metadata is of another program or of another version of this one.
        """
        if metadata.get(FORMAT_KEY) != FORMAT:
            what = "another version of glean_ext" if FORMAT_KEY in metadata else "another program"
            raise InputError(f"{path} was exported by {what}. Export the network again with tools/export.py.")
        try:
            height, width = map(int, metadata["nominal_size"].split(","))
            return cls(
                network=metadata["network"],
                dtype=metadata["dtype"],
                nominal=(height, width),
                scale=int(metadata["scale"]),
                any_size=metadata["in_size"] == "any",
                bytes_per_pixel=float(metadata["bytes_per_pixel"]),
                max_difference=float(metadata["max_difference"]),
                others={key: value for key, value in metadata.items() if key not in _KNOWN},
            )
        except (KeyError, ValueError) as error:
            raise InputError(
                f"{path} has damaged metadata ({error}). Export the network again with tools/export.py."
            ) from error


_KNOWN = ModelMetadata("", "", (0, 0), 0, False, 0.0, 0.0, {}).to_metadata().keys()


class OnnxBackend:
    """A network in an ONNX file, run by an engine.

    Args:
        path: What ``tools/export.py`` wrote.
        threads: Of the computation; None: one for each core, or as ``OMP_NUM_THREADS`` says.
        engine: Of :data:`~glean_ext.inference.engines.ENGINES`.
        dtype: What an fp32 model is computed in, see :func:`~glean_ext.inference.engines.open_session`.
        weights: The name of the file of weights; None: what the file says that it was exported from.
        compiled: As in :func:`~glean_ext.inference.engines.open_session`.

    Attributes:
        takes: The sizes that the network takes.
        dtype: What it computes in.

    Raises:
        InputError: The engine cannot be used; the file is missing, damaged, no ONNX, or not by this package.
    """

    def __init__(
        self,
        path: str | os.PathLike,
        threads: int | None = None,
        engine: str = "onnxruntime",
        dtype: str | None = None,
        weights: str | None = None,
        compiled: Path | None = None,
    ):
        self.path, self.engine = Path(expand_home(path)), engine
        self.keep_alive: object = None  # what may not end before: the folder of the file
        self._session = open_session(self.path, engine, threads, dtype, compiled)
        self.metadata = ModelMetadata.from_metadata(self._session.metadata, self.path)
        if (names := self._session.names) != [INPUT, OUTPUT]:
            raise InputError(
                f"{self.path} has the inputs and outputs {', '.join(names)} in place of {INPUT}, {OUTPUT}. "
                "Export the network again with tools/export.py."
            )
        self.dtype = self._session.dtype or self.metadata.dtype
        self.colorizes = self.metadata.network == COLORIZER
        self.gated = False  # w became part of the weights
        self.max_references = 0
        self.weights = weights or self.metadata.others.get("checkpoint", "")
        self.takes = SizeRequirements(self.metadata.nominal, self.metadata.scale, self.metadata.any_size)

    def __call__(self, lq: np.ndarray) -> np.ndarray:
        """(N, 3, h, w) float32, RGB in [-1, 1] -> (N, 3, H, W) float32, about [-1, 1].

        Raises:
            InputError: Images of a size that the network does not take, or too large for the memory; an output that
                is not finite.
            TypeError: No (N, 3, h, w) float32 array.
        """
        if lq.dtype != np.float32 or lq.ndim != 4 or lq.shape[1] != 3:
            raise TypeError(f"the network takes (N, 3, h, w) float32, but got {lq.shape} {lq.dtype}.")
        self._require_size(*lq.shape[2:])
        try:
            output = self._session.run(lq)
        except Exception as error:  # those of engines have no common base
            size = format_size((lq.shape[2], lq.shape[3]))
            raise InputError(
                f"{self.path}: {self.engine} failed on {len(lq)} image(s) of {size} pixels ({first_line(error)}). "
                "Is the memory too small? Then take smaller images or tiles."
            ) from error
        if not np.isfinite(output).all():
            half = self.dtype == "float16"
            raise InputError(
                f"{self.path}: the network's output is not finite.",
                parameter="dtype",
                hint="Export it with {dtype=float32}." if half else "Export another checkpoint.",
            )
        return output

    def run(self, image: np.ndarray) -> np.ndarray:
        """(h, w, 3) RGB -> (H, W, 3) RGB, both uint8 or both uint16.

        Raises:
            InputError: See :meth:`__call__`.
            TypeError: No (h, w, 3) uint8 or uint16 array.
        """
        return self.restore([image])[0]

    def restore(self, images: Sequence[np.ndarray]) -> list[np.ndarray]:
        """As :meth:`run`, for images of one size together."""
        output = self(np.concatenate([to_floats(image) for image in images]))  # (N, 3, H, W)
        return [from_floats(one, image.dtype) for one, image in zip(output, images, strict=True)]

    def memory(self) -> Memory:
        """What a forward takes and what there is."""
        return Memory(self.metadata.bytes_per_pixel, *at_hand())

    def with_references(self, references: Sequence[np.ndarray]) -> OnnxBackend:
        """Raise InputError where there are any: exported models take none."""
        require_number_of_references(len(references), self.max_references)
        return self

    def _require_size(self, height: int, width: int) -> None:
        if not self.takes.accept((height, width)):
            raise InputError(
                f"{self.path} takes {self.takes}, but the image has {format_size((height, width))} pixels. Resize it, "
                "or export a model of that size."
            )
