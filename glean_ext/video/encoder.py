"""Encoding restored frames as H.264: settings, sizes, and the conversion to YCbCr."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
from av.container import OutputContainer
from av.filter import Graph
from av.video.format import VideoFormat
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from glean_ext.errors import InputError, require_at_least, require_one_of
from glean_ext.video.frame_properties import Colour

MAX_SIDE = 16384  # rows and columns that x264 takes
THREADS = 8  # of x264: its result depends on them, and a resumed run may have other cores
PRESETS = "ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow", "slower", "veryslow"


@dataclass(frozen=True)
class EncodingOptions:
    """How restored frames are encoded.

    Attributes:
        crf: x264's constant rate factor, 0 to 51: less is better and larger; 0 is lossless.
        preset: x264's preset, one of :data:`PRESETS`; slower ones make smaller files.
        segment: Frames in a segment, so also between two key frames at most.

    Raises:
        InputError: A value outside its range.
    """

    crf: float = 10
    preset: str = "veryfast"
    segment: int = 60

    def __post_init__(self) -> None:
        if not 0 <= self.crf <= 51:
            raise InputError(
                f"{{crf}} is {self.crf:g}, but it must be between 0 (lossless) and 51. 10 is the default.",
                parameter="crf",
            )
        require_one_of("preset", self.preset, PRESETS)
        require_at_least("segment", self.segment, 1)

    @property
    def x264(self) -> dict[str, str]:
        # Macroblock-tree rate control is off: with AVX-512, x264's result of it differs from run to run.
        return {"crf": f"{self.crf:g}", "preset": self.preset, "mbtree": "0"}


def check_frame_size(width: int, height: int, target: Path) -> None:
    """Check that H.264 takes frames of that size.

    Raises:
        InputError: They are too large.
    """
    if max(width, height) > MAX_SIDE:
        raise InputError(
            f"{target}: restored frames would have {width}x{height} pixels, but H.264 has up to {MAX_SIDE}x{MAX_SIDE}. "
            "Scale the source down."
        )


class Encoder:
    """An x264 stream in a container, and what frames go through before it.

    Args:
        container: Open for writing.
        width: Of the frames.
        height: Of the frames.
        colour: Matrix, range and tags of the result.
        rate: Frames per second.
        options: x264's settings.
    """

    def __init__(
        self,
        container: OutputContainer,
        width: int,
        height: int,
        colour: Colour,
        rate: Fraction,
        options: EncodingOptions,
    ):
        self.container = container
        self.stream: VideoStream = container.add_stream("libx264", rate=rate, options=options.x264)
        self.stream.pix_fmt = "yuv420p"
        self._to_yuv = YuvConverter(width, height, colour, rate)
        self.stream.width, self.stream.height = self._to_yuv.width, self._to_yuv.height
        context = self.stream.codec_context
        context.thread_count = THREADS
        context.color_range, context.colorspace = colour.range, colour.matrix
        context.color_primaries, context.color_trc = colour.primaries, colour.transfer

    def write(self, rgb: np.ndarray, number: int) -> None:
        """Append a frame, (h, w, 3) uint8 RGB, with its number in the container."""
        self.container.mux(self.stream.encode(self._to_yuv(rgb, number)))

    def finish(self) -> None:
        """Write the frames that x264 still holds, and close the container."""
        self.container.mux(self.stream.encode(None))
        self.container.close()


class YuvConverter:
    """RGB frames to 4:2:0, with chroma sited left, as H.264 players take it; PyAV's own ``reformat`` centres it.

    Args:
        width: Of the frames; the last column is repeated when it is odd, and the last row as well.
        height: Of the frames.
        colour: Matrix and range of the result.
        rate: Frames per second.

    Attributes:
        width: Of the result: even.
        height: Of the result: even.
    """

    def __init__(self, width: int, height: int, colour: Colour, rate: Fraction):
        self.width, self.height, self.tick = width + width % 2, height + height % 2, 1 / rate
        self.graph = Graph()
        self.graph.threads = 1
        source = self.graph.add_buffer(
            width=self.width, height=self.height, format=VideoFormat("rgb24"), time_base=self.tick
        )
        out = f"out_color_matrix={colour.name}:out_range={colour.range.name.lower()}:out_chroma_loc=left"
        scale = self.graph.add("scale", f"{out}:flags=bicubic+accurate_rnd+full_chroma_int+full_chroma_inp")
        self.graph.link_nodes(
            source, scale, self.graph.add("format", "yuv420p"), self.graph.add("buffersink")
        ).configure()

    def __call__(self, rgb: np.ndarray, number: int) -> VideoFrame:
        """(h, w, 3) uint8 RGB -> the frame with that number."""
        height, width = rgb.shape[:2]
        if (width, height) != (self.width, self.height):
            rgb = np.pad(rgb, ((0, self.height - height), (0, self.width - width), (0, 0)), mode="edge")
        frame = VideoFrame.from_ndarray(np.ascontiguousarray(rgb), "rgb24")
        frame.pts, frame.time_base = number, self.tick
        self.graph.vpush(frame)
        return self.graph.vpull()
