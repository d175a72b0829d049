"""What a decoded frame says about its colours, its orientation and its transparency."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from av.stream import Disposition, Stream
from av.video.frame import VideoFrame
from av.video.reformatter import ColorRange

# FFmpeg's numbers of YCbCr matrices -> swscale's numbers, and the names of its scale filter.
MATRICES = {
    1: (1, "bt709"),
    4: (4, "fcc"),
    5: (5, "bt601"),
    6: (5, "bt601"),
    7: (7, "smpte240m"),
    9: (9, "bt2020"),
}
UNSPECIFIED = 0, 2, 3  # RGB, unspecified, reserved
BT709, BT601 = 1, 6
HDR_TRANSFERS = {16: "PQ", 18: "HLG"}


@dataclass(frozen=True)
class Colour:
    """How RGB becomes YCbCr: FFmpeg's numbers of matrix, primaries and transfer; ``full`` is the range 0 to 255."""

    matrix: int
    full: bool
    primaries: int
    transfer: int

    @classmethod
    def of(cls, frame: VideoFrame) -> Colour:
        """The colour tags of a frame; missing ones are guessed as players do, the matrix by the size."""
        full = frame.color_range == ColorRange.JPEG
        if frame.color_range == ColorRange.UNSPECIFIED:
            full = frame.format.name.startswith(("yuvj", "gray"))
        matrix = frame.colorspace
        if frame.format.is_rgb or frame.format.has_palette:
            matrix, full = BT709, False
        elif matrix not in MATRICES:
            matrix = BT709 if frame.width >= 1280 or frame.height > 576 else BT601
        return cls(matrix, full, frame.color_primaries, frame.color_trc)

    @property
    def range(self) -> ColorRange:
        return ColorRange.JPEG if self.full else ColorRange.MPEG

    @property
    def swscale(self) -> int:
        """swscale's number of the matrix."""
        return MATRICES[self.matrix][0]

    @property
    def name(self) -> str:
        """The matrix's name for FFmpeg's scale filter."""
        return MATRICES[self.matrix][1]


def is_transparent(frame: VideoFrame) -> bool:
    """Whether any pixel is not opaque."""
    may_be = frame.format.has_palette or any(component.is_alpha for component in frame.format.components)
    return may_be and bool(frame.to_ndarray(format="rgba")[..., 3].min() < 255)


def is_cover(stream: Stream) -> bool:
    """Whether a stream is a cover: a picture that players show beside the audio."""
    return bool(stream.disposition & Disposition.attached_pic)


def display_orientation(frame: VideoFrame) -> tuple[bool, int, int] | None:
    """How to turn the stored picture: (swap its axes, then step through rows, step through columns).

    Source: the display matrix of ISO/IEC 14496-12, 8.3.2.

    Returns:
        None when it is not a multiple of a quarter turn, mirrored or not.
    """
    side_data: Any = frame.side_data  # a mapping; PyAV's types say less
    found = side_data.get("DISPLAYMATRIX")
    if found is None:
        return False, 1, 1
    matrix = np.frombuffer(bytes(found), np.int32) / 65536
    # (x, y) is displayed at (a x + c y, b x + d y); values near 0 are rounding errors.
    a, b, _, c, d, *_ = (int(sign) for sign in np.sign(np.where(np.abs(matrix) < 0.01, 0, matrix)))
    if a and d and not (b or c):
        return False, d, a
    if b and c and not (a or d):
        return True, b, c
    return None


def reorient(rgb: np.ndarray, orientation: tuple[bool, int, int] | None) -> np.ndarray:
    """``rgb`` (h, w, 3) turned as :func:`display_orientation` says, contiguous; None leaves it as it is."""
    swap, rows, columns = orientation or (False, 1, 1)
    picture: Any = rgb.swapaxes(0, 1) if swap else rgb
    return np.ascontiguousarray(picture[::rows, ::columns])
