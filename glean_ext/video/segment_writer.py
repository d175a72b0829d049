"""Segments of a restored video that survive an interruption: each is whole or not there."""

from __future__ import annotations

import errno
import fcntl
import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from fractions import Fraction
from pathlib import Path
from typing import Any, TypeAlias

import av
import numpy as np
from av.container import OutputContainer
from av.filter import Graph
from av.video.format import VideoFormat
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from glean_ext.errors import InputError
from glean_ext.utils.files import atomic_path, write_json
from glean_ext.video.reader import Colour

LARGEST = 16384  # rows and columns that x264 takes
THREADS = 8  # of x264: its result depends on them, and a resumed run may have other cores

NOTE = "note.json"  # in the folder of segments: what ``restore`` has to know of an interrupted run's first frames

Opened: TypeAlias = "tuple[ExitStack, OutputContainer, VideoStream, ToYuv]"


def folder_for(target: Path) -> Path:
    """Where the segments of a video are."""
    return target.with_name(f".{target.name}.segments")


class Segments:
    """The restored frames, as H.264 files of ``length`` frames in a hidden folder beside the target; a context manager.

    What is whole stays there when a run is interrupted, and a run with an equal ``job`` goes on after it.

    Args:
        target: The video that is to be.
        job: All that the frames depend on: source, settings, network. Any other job in the folder is thrown away.
        rate: Frames a second, for the encoder.
        length: Frames in a segment.
        crf: x264's constant rate factor: 0 is lossless, 51 worst.
        preset: x264's preset.
        notify: Gets a line when an earlier, other job is thrown away.

    Attributes:
        folder: Where they are.
        frames: How many are in whole segments.

    Raises:
        InputError: The folder cannot be written, or another process is at work there.
    """

    def __init__(
        self,
        target: Path,
        job: dict[str, Any],
        rate: Fraction,
        length: int,
        crf: float,
        preset: str,
        notify: Callable[[str], None],
    ):
        self.target, self.job, self.rate, self.length = target, job, rate, length
        # Macroblock-tree rate control is off: with AVX-512, x264's result of it differs from run to run.
        self.options = {"crf": f"{crf:g}", "preset": preset, "mbtree": "0"}
        self.notify = notify
        self.folder = folder_for(target)
        self.frames = 0
        self._whole = 0
        self._headers: set[bytes | None] = set()
        self._open: Opened | None = None
        self._written = 0
        self._failed = False

    def __enter__(self) -> Segments:
        with writing(self.target), ExitStack() as stack:
            self.folder.mkdir(parents=True, exist_ok=True)
            lock = stack.enter_context((self.folder / "lock").open("w"))
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise InputError(f"{self.target}: another process is writing it. Wait for its end.") from error
            self._take_over()
            self._unlock = stack.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if self._open is not None:
            stack, container, *_ = self._open
            self._open = None
            with suppress(av.FFmpegError):  # writing its end fails as what was before
                container.close()
            with suppress(BaseException):
                stack.__exit__(kind, error, None)
        if not self._whole:
            self.remove()
        self._unlock.close()

    def _take_over(self) -> None:
        """Find the whole segments of an interrupted run with the same job, and remove all else."""
        record = self.folder / "job.json"
        known = None
        with suppress(OSError, ValueError):
            known = json.loads(record.read_text())
        if known == self.job:
            while self._holds(self._path(self._whole), self.length):
                self._whole += 1
        elif known is not None:
            self.notify(
                f"{self.target}: source, settings or network differ from the interrupted run's; it starts anew."
            )
        self.frames = self._whole * self.length
        kept = {self.folder / "lock", *self.paths()} | ({self.folder / NOTE} if self._whole else set())
        for path in self.folder.iterdir():
            if path not in kept:
                path.unlink()
        write_json(self.job, record)

    def _holds(self, path: Path, frames: int) -> bool:
        """Whether a segment is whole and has so many frames; its header is remembered."""
        with suppress(av.FFmpegError):
            if count_frames(path) == frames:
                with av.open(str(path.absolute())) as segment:
                    self._headers.add(segment.streams.video[0].codec_context.extradata)
                return True
        return False

    def remove(self) -> None:
        """Remove the folder and all segments."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self._whole = self.frames = 0

    def write(self, frames: Sequence[np.ndarray], colour: Colour) -> None:
        """Append restored frames, (h, w, 3) uint8 RGB, all of one size; nothing more once that has failed.

        Raises:
            InputError: The disk is full, or the size is none that H.264 has.
        """
        if self._failed:  # no segment may have a gap
            return
        self._failed = True
        with writing(self.target):
            for rgb in frames:
                _, container, stream, to_yuv = self._open or self._begin(rgb, colour)
                container.mux(stream.encode(to_yuv(rgb, self._written)))
                self._written += 1
                if self._written == self.length:
                    self._complete()
        self._failed = False

    def finish(self) -> None:
        """Complete the segment begun, if one is.

        Raises:
            InputError: The disk is full, or the frames are not like those of the interrupted run.
        """
        if self._open is not None and not self._failed:
            with writing(self.target):
                self._complete()

    def _complete(self) -> None:
        assert self._open is not None
        stack, container, stream, _ = self._open
        container.mux(stream.encode(None))
        container.close()
        if not self._holds(Path(container.name), self._written):
            raise OSError(errno.EIO, "what was written cannot be read back")
        if len(self._headers) > 1:
            raise InputError(
                f"{self.target}: the frames have another size than those of the interrupted run. "
                f"Remove {self.folder}, or give another fingerprint."
            )
        self._open = None
        stack.close()
        self._whole += 1
        self.frames += self._written

    def paths(self) -> list[Path]:
        """The segments, in order."""
        return [self._path(number) for number in range(self._whole)]

    def _path(self, number: int) -> Path:
        return self.folder / f"{number:06d}.mp4"

    def _begin(self, rgb: np.ndarray, colour: Colour) -> Opened:
        height, width = rgb.shape[:2]
        if not self._headers:
            check_size(width, height, self.target)
            if width % 2 or height % 2:
                self.notify(
                    f"{self.target}: frames of {width}x{height} pixels get a copy of their last column or row, as "
                    "H.264 needs even sizes."
                )
        stack = ExitStack()
        partial = stack.enter_context(atomic_path(self._path(self._whole)))
        container = av.open(str(partial.absolute()), "w")  # FFmpeg takes a:b for a URL
        stream = container.add_stream("libx264", rate=self.rate, options=dict(self.options))
        stream.pix_fmt = "yuv420p"
        to_yuv = ToYuv(width, height, colour, self.rate)
        stream.width, stream.height = to_yuv.width, to_yuv.height
        context = stream.codec_context
        context.thread_count = THREADS
        context.color_range, context.colorspace = colour.range, colour.matrix
        context.color_primaries, context.color_trc = colour.primaries, colour.transfer
        self._open, self._written = (stack, container, stream, to_yuv), 0
        return self._open


@contextmanager
def writing(target: Path) -> Iterator[None]:
    """What goes wrong in the block is told as the target's fault.

    Raises:
        InputError: No rights, no space, something that FFmpeg cannot encode or write.
    """
    try:
        yield
    except (OSError, av.FFmpegError) as error:
        raise InputError(f"{target} cannot be written ({error.strerror or error}). Choose another output.") from error


def check_size(width: int, height: int, target: Path) -> None:
    """See that H.264 takes frames of that size.

    Raises:
        InputError: They are too large.
    """
    if max(width, height) > LARGEST:
        raise InputError(
            f"{target}: restored frames would have {width}x{height} pixels, but H.264 has up to {LARGEST}x{LARGEST}. "
            "Scale the source down."
        )


def count_frames(path: Path) -> int:
    """How many encoded frames a file has."""
    with av.open(str(path.absolute())) as file:
        return sum(packet.size > 0 for packet in file.demux(video=0))


class ToYuv:
    """RGB frames to 4:2:0, chroma sited as H.264 players take it: left. PyAV's own ``reformat`` centres it.

    Args:
        width: Of the frames; the last column is repeated when it is odd, and the last row as well.
        height: Of the frames.
        colour: Matrix and range of the result.
        rate: Frames a second.

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
