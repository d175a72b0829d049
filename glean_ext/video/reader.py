"""Reading videos: frames as a player shows them, with their exact time stamps."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.container import InputContainer
from av.packet import Packet
from av.stream import Disposition, Stream
from av.video.frame import VideoFrame
from av.video.reformatter import ColorRange, VideoReformatter
from av.video.stream import VideoStream
from PIL import Image

from glean_ext.errors import InputError

# FFmpeg's names of what is read. Playlists are out, as they open other files; so are images and "formats" that accept
# anything, as text.
FORMATS = (
    *("apng", "asf", "avi", "dv", "flv", "gif", "ivf", "matroska", "mov", "mpeg", "mpegts", "mxf", "nut", "ogg", "rm"),
    *("webm", "yuv4mpegpipe"),
)
# FFmpeg's numbers of YCbCr matrices -> swscale's, and its scale filter's name.
MATRICES = {
    1: (1, "bt709"),
    4: (4, "fcc"),
    5: (5, "bt601"),
    6: (5, "bt601"),
    7: (7, "smpte240m"),
    9: (9, "bt2020"),
}
UNSAID = 0, 2, 3  # RGB, unspecified, reserved
BT709, BT601 = 1, 6
HDR = {16: "PQ", 18: "HLG"}
# swscale's bicubic, accurate rounding and full chroma; PyAV 17 has no names for them.
SCALING = 0x4 | 0x40000 | 0x2000 | 0x4000
TIME_JUMPS = 0x200  # FFmpeg's flag of formats whose time stamps start anywhere
FALLBACK_RATE = Fraction(25)
EARLY = 1.0  # a container's duration may be its audio's: seconds a video may end before it without a notice


class VideoError(InputError):
    """The video itself is at fault: another run would fail as well."""


@dataclass(frozen=True)
class Colour:
    """How RGB becomes YCbCr: FFmpeg's numbers of matrix, primaries and transfer; ``full`` is the range 0 to 255."""

    matrix: int
    full: bool
    primaries: int
    transfer: int

    @classmethod
    def of(cls, frame: VideoFrame) -> Colour:
        """What a frame says of itself; what it does not say is guessed as players do, the matrix by the size."""
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
        return MATRICES[self.matrix][0]

    @property
    def name(self) -> str:
        return MATRICES[self.matrix][1]


@dataclass(frozen=True)
class Shown:
    """One frame.

    Attributes:
        pts: When it is shown, in ticks of :attr:`VideoSource.time_base`.
        duration: In the same ticks, as far as the file says; else that of the nominal rate.
        rgb: (h, w, 3) uint8 RGB; None for a frame that was skipped.
    """

    pts: int
    duration: int
    rgb: np.ndarray | None


class VideoSource:
    """A video file that is open for reading; a context manager.

    Args:
        path: A file of one of :data:`FORMATS`.
        notify: Gets one line for each thing about the video that its user should know.

    Attributes:
        container: PyAV's, at its beginning.
        stream: The video stream that is read: the one a player takes.
        time_base: Seconds a tick.
        offset: Seconds that are subtracted from all time stamps: transport streams start anywhere.
        rate: Frames a second, on average.
        shown_size: Width and height with square pixels, before turning.
        colour: Of the first frame; None before it is read.
        first_damage: Number of the first frame that could not be decoded, None when all could.

    Raises:
        VideoError: No file, no video, only audio, too large frames.
    """

    def __init__(self, path: str | os.PathLike, notify: Callable[[str], None]):
        self.path = Path(path)
        self.notify = notify
        self.colour: Colour | None = None
        self.first_damage: int | None = None
        self._reformatter = VideoReformatter()
        self.container = open_container(self.path)
        try:
            self.stream = self._pick()
            self.time_base: Fraction = self.stream.time_base or Fraction(1, 1000)
            self.offset = self._offset()
            rate = self.stream.average_rate or self.stream.guessed_rate or FALLBACK_RATE
            self.rate = rate if 0 < rate <= 1000 else FALLBACK_RATE
            self.pixel_aspect = self.stream.sample_aspect_ratio or Fraction(1)
            self.shown_size = self._square(self.stream.width, self.stream.height)
            self._check_size(*self.shown_size)
        except BaseException:
            self.container.close()
            raise

    def __enter__(self) -> VideoSource:
        return self

    def __exit__(self, *error: object) -> None:
        self.container.close()

    @property
    def total(self) -> int | None:
        """How many frames there are: as the file says, or estimated from its duration."""
        if self.stream.frames:
            return self.stream.frames
        end = self._end()
        return round(end * self.rate) or None if end else None

    def frames(self, skip: int = 0) -> Iterator[Shown]:
        """All frames in the order they are shown; the first ``skip`` without their pixels.

        Damage is noticed and passed over; where nothing can be read any more, the frames end.

        Raises:
            VideoError: No frame at all, or one whose size differs from the first one's.
        """
        step = max(1, round(1 / (self.rate * self.time_base)))
        start = round(self.offset / self.time_base)
        number, last, uneven = 0, None, False
        for frame in self._decoded():
            if number == 0:
                self._look_at(frame)
            elif (frame.width, frame.height) != self.size:
                raise VideoError(
                    f"{self.path}: frame {number} has {frame.width}x{frame.height} pixels, but those before have "
                    f"{self.size[0]}x{self.size[1]}. Split the video where its size changes."
                )
            pts = frame.pts if frame.pts is not None else frame.dts
            pts = (0 if last is None else last + step) if pts is None else pts - start
            if last is not None and pts <= last:
                pts, uneven = last + 1, True
            last = pts
            yield Shown(pts, frame.duration or step, None if number < skip else self._rgb(frame))
            number += 1
        if last is None:
            raise VideoError(f"{self.path} has no frame that can be decoded. Get the file anew.")
        if uneven:
            self.notify(f"{self.path}: time stamps that did not grow from frame to frame were mended.")
        self._tell_damage(number, (last + (frame.duration or step)) * self.time_base)

    def _decoded(self) -> Iterator[VideoFrame]:
        number = 0
        for packet in self._packets():
            try:
                decoded = self.stream.decode(packet)
            except av.FFmpegError:
                decoded = []
                self._damaged(number)
            for frame in decoded:
                if frame.is_corrupt:
                    self._damaged(number)
                number += 1
                yield frame
            if packet is None:
                self._damaged(number)

    def _packets(self) -> Iterator[Packet | None]:
        """Those of the stream, and None, which makes the decoder give out the rest, where the file is unreadable."""
        try:
            yield from self.container.demux(self.stream)
        except av.FFmpegError:
            yield None

    def _damaged(self, number: int) -> None:
        self.first_damage = number if self.first_damage is None else self.first_damage

    def _tell_damage(self, frames: int, end: Fraction) -> None:
        promised = self._end()
        early = promised is not None and end + self._tolerance() < promised
        if self.first_damage is not None:
            self.notify(f"{self.path} is damaged at frame {self.first_damage}; what can be decoded was restored.")
        elif promised is not None and early:
            self.notify(
                f"{self.path} breaks off after frame {frames - 1}, at {float(end):.2f} of {float(promised):.2f} "
                "seconds; the frames up to there were restored."
            )

    def _own_end(self) -> Fraction | None:
        """Seconds at which this stream ends, by the file's header."""
        if self.stream.duration:
            return ((self.stream.start_time or 0) + self.stream.duration) * self.time_base - self.offset
        clock = self.stream.metadata.get("DURATION", "").split(":")  # Matroska's
        try:
            hours, minutes, seconds = (Fraction(part) for part in clock)
        except ValueError:
            return None
        return 3600 * hours + 60 * minutes + seconds

    def _end(self) -> Fraction | None:
        own = self._own_end()
        if own is not None or self.container.duration is None:
            return own
        return Fraction(self.container.duration, av.time_base)

    def _tolerance(self) -> Fraction:
        return Fraction(3, 2) / self.rate if self._own_end() is not None else Fraction(EARLY)

    def _pick(self) -> VideoStream:
        videos = [stream for stream in self.container.streams.video if not is_cover(stream)]
        if not videos:
            has = "audio only" if self.container.streams.audio else "no video stream"
            raise VideoError(f"{self.path} has {has}. Give a video.")
        best = self.container.streams.best("video")
        stream = best if best in videos else videos[0]
        assert isinstance(stream, VideoStream)
        if stream.codec_context is None:
            raise VideoError(f"{self.path}: there is no decoder for its video. Convert it to H.264.")
        return stream

    def _offset(self) -> Fraction:
        if not self.container.format.flags & TIME_JUMPS:
            return Fraction(0)
        kept = [self.stream, *self.container.streams.audio]
        starts = [s.start_time * s.time_base for s in kept if s.start_time is not None and s.time_base]
        return min(starts, default=Fraction(0))

    def _square(self, width: int, height: int) -> tuple[int, int]:
        """The size with square pixels: the side that is too short becomes longer, so nothing is lost."""
        aspect = self.pixel_aspect
        return (round(width * aspect), height) if aspect > 1 else (width, round(height / aspect))

    def _check_size(self, width: int, height: int) -> None:
        if not width * height:
            raise VideoError(f"{self.path} does not say what size its frames have. Get the file anew.")
        limit = Image.MAX_IMAGE_PIXELS or np.inf
        if width * height > limit:
            raise VideoError(
                f"{self.path}: its frames have {width}x{height} pixels, but up to {limit / 1e6:.0f} million are "
                "restored. Scale the video down."
            )

    def _look_at(self, frame: VideoFrame) -> None:
        """Take colour, size and orientation from the first frame."""
        self.size = frame.width, frame.height
        self.shown_size = self._square(*self.size)
        self._check_size(*self.shown_size)
        self.colour = Colour.of(frame)
        if self.shown_size != self.size:
            width, height = self.shown_size
            self.notify(f"{self.path}: its pixels are not square; frames are shown, and restored, as {width}x{height}.")
        if frame.colorspace not in (*MATRICES, *UNSAID):
            self.notify(f"{self.path} has colours of a rare kind ({frame.colorspace}), which may come out wrong.")
        if self.colour.transfer in HDR:
            self.notify(f"{self.path} is HDR ({HDR[self.colour.transfer]}); the result has 8 bits, so tones may band.")
        if frame.interlaced_frame:
            self.notify(f"{self.path} is interlaced; frames are restored as they are, comb lines and all.")
        if is_transparent(frame):
            self.notify(f"{self.path} has transparency, which is not kept.")
        self.turns = display_turns(frame)
        if self.turns is None:
            self.notify(f"{self.path} is to be shown at a slant; it is restored as it is stored.")

    def _rgb(self, frame: VideoFrame) -> np.ndarray:
        """(h, w, 3) uint8 RGB, upright, with square pixels."""
        colour = Colour.of(frame)
        try:
            converted = self._reformatter.reformat(
                frame,
                *self.shown_size,
                format="rgb24",
                src_colorspace=None if frame.format.is_rgb else colour.swscale,
                src_color_range=None if frame.format.is_rgb else colour.range,
                dst_color_range=ColorRange.JPEG,
                interpolation=SCALING,
                threads=1,
            )
        except av.FFmpegError as error:
            raise VideoError(f"{self.path}: its pixels ({frame.format.name}) cannot be read. Convert it.") from error
        return turned(converted.to_ndarray(), self.turns)


def open_container(path: Path) -> InputContainer:
    """Open a file of one of :data:`FORMATS`.

    Raises:
        VideoError: There is no such file, it cannot be read, or it is no video.
    """
    if not path.is_file():
        what = "is a folder, not a video" if path.is_dir() else "there is no such file"
        raise VideoError(f"{path}: {what}. Give the path of a video.")
    if not path.stat().st_size:
        raise VideoError(f"{path} is empty (0 bytes). Get the file anew.")
    only = {"format_whitelist": ",".join(FORMATS), "protocol_whitelist": "file"}
    try:
        return av.open(str(path.resolve()), "r", container_options=only, metadata_errors="replace")
    except PermissionError as error:
        raise VideoError(f"{path} cannot be read ({error.strerror}). Change its rights.") from error
    except av.FFmpegError as error:
        raise VideoError(f"{path} is no video, or truncated or damaged. Get the file anew.") from error


def is_transparent(frame: VideoFrame) -> bool:
    """Whether something shows through."""
    may_be = frame.format.has_palette or any(component.is_alpha for component in frame.format.components)
    return may_be and bool(frame.to_ndarray(format="rgba")[..., 3].min() < 255)


def is_cover(stream: Stream) -> bool:
    """Whether it is a picture that players show beside the audio."""
    return bool(stream.disposition & Disposition.attached_pic)


def display_turns(frame: VideoFrame) -> tuple[bool, int, int] | None:
    """How to turn the stored picture: (swap its axes, then step through rows, step through columns).

    Source: the display matrix of ISO/IEC 14496-12, 8.3.2.

    Returns:
        None when it is no multiple of a quarter turn, mirrored or not.
    """
    side_data: Any = frame.side_data  # a mapping; PyAV's types say less
    found = side_data.get("DISPLAYMATRIX")
    if found is None:
        return False, 1, 1
    matrix = np.frombuffer(bytes(found), np.int32) / 65536
    # (x, y) is shown at (a x + c y, b x + d y); rounding may have left traces
    a, b, _, c, d, *_ = (int(sign) for sign in np.sign(np.where(np.abs(matrix) < 0.01, 0, matrix)))
    if a and d and not (b or c):
        return False, d, a
    if b and c and not (a or d):
        return True, b, c
    return None


def turned(rgb: np.ndarray, turns: tuple[bool, int, int] | None) -> np.ndarray:
    """``rgb`` as :func:`display_turns` says, contiguous."""
    swap, rows, columns = turns or (False, 1, 1)
    picture: Any = rgb.swapaxes(0, 1) if swap else rgb
    return np.ascontiguousarray(picture[::rows, ::columns])
