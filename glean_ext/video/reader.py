"""Reading videos: frames as a player shows them, with their exact time stamps."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.container import InputContainer
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.reformatter import ColorRange, VideoReformatter
from av.video.stream import VideoStream
from PIL import Image

from glean_ext.errors import InputError, Notice
from glean_ext.video.formats import DEMUXERS
from glean_ext.video.frame_properties import (
    HDR_TRANSFERS,
    MATRICES,
    UNSPECIFIED,
    Colour,
    display_orientation,
    is_cover,
    is_transparent,
    reorient,
)

# swscale's flags of bicubic, accurate rounding and full chroma; PyAV has no names for them.
SCALING = 0x4 | 0x40000 | 0x2000 | 0x4000
TIME_JUMPS = 0x200  # FFmpeg's flag of formats whose time stamps start anywhere
FALLBACK_RATE = Fraction(25)
CONTAINER_TOLERANCE = Fraction(1)  # seconds; a container's duration may be that of its audio, which may be longer


class VideoError(InputError):
    """The video itself is at fault: another run would fail as well."""


@dataclass(frozen=True)
class DisplayedFrame:
    """One frame as a player shows it.

    Attributes:
        pts: When it is displayed, in ticks of :attr:`VideoSource.time_base`.
        duration: In the same ticks, as far as the file gives it; else that of the nominal rate.
        rgb: (h, w, 3) uint8 RGB; None for a frame that was skipped.
    """

    pts: int
    duration: int
    rgb: np.ndarray | None


class VideoSource:
    """A video file that is open for reading; a context manager.

    Args:
        path: A file of one of :data:`glean_ext.video.formats.DEMUXERS`.
        notify: Gets a notice of each thing about the video that its user should know.

    Attributes:
        container: PyAV's, at its beginning.
        stream: The video stream that is read: the one a player takes.
        time_base: Seconds of a tick.
        offset: Seconds that are subtracted from all time stamps: transport streams start anywhere.
        rate: Frames per second, on average.
        display_size: Width and height with square pixels, before turning.
        colour: Of the first frame; None before it is read.
        first_damage: Number of the first frame that could not be decoded, None when all could.
        cut_off: The file ends in the middle of a frame, which is left out.

    Raises:
        VideoError: The file is missing, no video, only audio, or its frames are too large.
    """

    def __init__(self, path: str | os.PathLike, notify: Callable[[Notice], None]):
        self.path = Path(path)
        self.notify = notify
        self.colour: Colour | None = None
        self.first_damage: int | None = None
        self.cut_off = False
        self._reformatter = VideoReformatter()
        self.container = open_container(self.path)
        try:
            self.stream = self._select_stream()
            self.time_base: Fraction = self.stream.time_base or Fraction(1, 1000)
            self.offset = self._find_offset()
            self.rate = frame_rate(self.stream, self.time_base)
            self.pixel_aspect = self.stream.sample_aspect_ratio or Fraction(1)
            self.display_size = self._with_square_pixels(self.stream.width, self.stream.height)
            self._check_size(*self.display_size)
        except BaseException:
            self.container.close()
            raise

    def __enter__(self) -> VideoSource:
        return self

    def __exit__(self, *error: object) -> None:
        self.container.close()

    @property
    def total(self) -> int | None:
        """The number of frames: as the file gives it, or estimated from its duration."""
        if self.stream.frames:
            return self.stream.frames
        end = self._expected_end()
        return round(end * self.rate) or None if end else None

    def frames(self, skip: int = 0) -> Iterator[DisplayedFrame]:
        """All frames in the order in which they are displayed; the first ``skip`` without their pixels.

        Damage is reported and passed over; where nothing more can be read, the frames end.

        Raises:
            VideoError: No frame at all, or one whose size differs from the first one's.
        """
        step = max(1, round(1 / (self.rate * self.time_base)))
        start = round(self.offset / self.time_base)
        number, last, uneven = 0, None, False
        for frame in self._decoded():
            if number == 0:
                self._read_properties(frame)
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
            yield DisplayedFrame(pts, frame.duration or step, None if number < skip else self._rgb(frame))
            number += 1
        if last is None:
            raise VideoError(f"{self.path} has no frame that can be decoded. Get the file again.")
        if uneven:
            self._report(": time stamps that did not grow from frame to frame were corrected.")
        self._report_damage(number, (last + (frame.duration or step)) * self.time_base)

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
        """The stream's packets; None, which makes the decoder give out the rest, where the file is unreadable.

        FFmpeg marks a packet as corrupt that the end of the file cuts off. How much of it a decoder can use depends on
        where the cut is, so it is not decoded; corrupt packets before the end are.
        """
        corrupt: Packet | None = None  # held until the next one comes
        try:
            for packet in self.container.demux(self.stream):
                if corrupt is not None and packet.size:
                    yield corrupt
                    corrupt = None
                if packet.is_corrupt and packet.size:
                    corrupt = packet
                    continue
                self.cut_off = corrupt is not None
                yield packet
        except av.FFmpegError:
            yield None

    def _damaged(self, number: int) -> None:
        if self.first_damage is None:
            self.first_damage = number

    def _report(self, message: str) -> None:
        self.notify(Notice(f"{self.path}{message}"))

    def _report_damage(self, frames: int, end: Fraction) -> None:
        expected = self._expected_end()
        tolerance = CONTAINER_TOLERANCE if self._stream_end() is None else Fraction(3, 2) / self.rate
        early = expected is not None and end + tolerance < expected
        if self.first_damage is not None:
            self._report(f" is damaged at frame {self.first_damage}; what can be decoded was restored.")
        elif early or self.cut_off:
            whole = f" of {float(expected):.2f}" if expected is not None and expected > end else ""
            self._report(
                f" breaks off after frame {frames - 1}, at {float(end):.2f}{whole} seconds; the frames up to there "
                "were restored."
            )

    def _stream_end(self) -> Fraction | None:
        """Seconds at which this stream ends, according to the file's header."""
        if self.stream.duration:
            return ((self.stream.start_time or 0) + self.stream.duration) * self.time_base - self.offset
        clock = self.stream.metadata.get("DURATION", "").split(":")  # Matroska's
        try:
            hours, minutes, seconds = (Fraction(part) for part in clock)
        except ValueError:
            return None
        return 3600 * hours + 60 * minutes + seconds

    def _expected_end(self) -> Fraction | None:
        end = self._stream_end()
        if end is not None or self.container.duration is None:
            return end
        return Fraction(self.container.duration, av.time_base)

    def _select_stream(self) -> VideoStream:
        videos = [stream for stream in self.container.streams.video if not is_cover(stream)]
        if not videos:
            has = "audio only" if self.container.streams.audio else "no video stream"
            raise VideoError(f"{self.path} has {has}. Give a video.")
        best = self.container.streams.best("video")
        stream = best if best in videos else videos[0]
        assert isinstance(stream, VideoStream)
        if stream.codec_context is None:
            raise VideoError(f"{self.path}: FFmpeg has no decoder for its video. Convert it to H.264.")
        return stream

    def _find_offset(self) -> Fraction:
        if not self.container.format.flags & TIME_JUMPS:
            return Fraction(0)
        streams = [self.stream, *self.container.streams.audio]
        starts = [s.start_time * s.time_base for s in streams if s.start_time is not None and s.time_base]
        return min(starts, default=Fraction(0))

    def _with_square_pixels(self, width: int, height: int) -> tuple[int, int]:
        """The size with square pixels: the side that is too short becomes longer, so nothing is lost."""
        aspect = self.pixel_aspect
        return (round(width * aspect), height) if aspect > 1 else (width, round(height / aspect))

    def _check_size(self, width: int, height: int) -> None:
        if not width * height:
            raise VideoError(f"{self.path} does not give the size of its frames. Get the file again.")
        limit = Image.MAX_IMAGE_PIXELS or np.inf
        if width * height > limit:
            raise VideoError(
                f"{self.path}: its frames have {width}x{height} pixels, but up to {limit / 1e6:.0f} million are "
                "restored. Scale the video down."
            )

    def _read_properties(self, frame: VideoFrame) -> None:
        """Take colour, size and orientation from the first frame, and report what is not kept."""
        self.size = frame.width, frame.height
        self.display_size = self._with_square_pixels(*self.size)
        self._check_size(*self.display_size)
        self.colour = Colour.of(frame)
        self.orientation = display_orientation(frame)
        if self.display_size != self.size:
            width, height = self.display_size
            self._report(f": its pixels are not square; frames are shown, and restored, as {width}x{height}.")
        if frame.colorspace not in (*MATRICES, *UNSPECIFIED):
            self._report(f" has colours of a rare kind ({frame.colorspace}), which may come out wrong.")
        if self.colour.transfer in HDR_TRANSFERS:
            self._report(f" is HDR ({HDR_TRANSFERS[self.colour.transfer]}); the result has 8 bits, so tones may band.")
        if frame.interlaced_frame:
            self._report(" is interlaced; frames are restored as they are, comb lines and all.")
        if is_transparent(frame):
            self._report(" has transparency, which is not kept.")
        if self.orientation is None:
            self._report(" is rotated by an angle other than quarter turns; it is restored as it is stored.")

    def _rgb(self, frame: VideoFrame) -> np.ndarray:
        """(h, w, 3) uint8 RGB, upright, with square pixels."""
        colour = Colour.of(frame)
        try:
            converted = self._reformatter.reformat(
                frame,
                *self.display_size,
                format="rgb24",
                src_colorspace=None if frame.format.is_rgb else colour.swscale,
                src_color_range=None if frame.format.is_rgb else colour.range,
                dst_color_range=ColorRange.JPEG,
                interpolation=SCALING,
                threads=1,
            )
        except av.FFmpegError as error:
            raise VideoError(f"{self.path}: its pixels ({frame.format.name}) cannot be read. Convert it.") from error
        return reorient(converted.to_ndarray(), self.orientation)


def frame_rate(stream: VideoStream, tick: Fraction) -> Fraction:
    """Frames per second, on average.

    Where a file gives no rate, FFmpeg adds up durations of frames that are rounded to ticks: 1000 / 33 for 29.97 in
    milliseconds. The rate that fits the time stamps counts then, if rounding explains the difference.

    Args:
        stream: Of a file that is open for reading.
        tick: Seconds of a tick.
    """
    average, guessed = stream.average_rate, stream.guessed_rate
    if average and guessed and abs(1 / average - 1 / guessed) < tick:
        average = guessed
    rate = average or guessed or FALLBACK_RATE
    return rate if 0 < rate <= 1000 else FALLBACK_RATE


def open_container(path: Path) -> InputContainer:
    """Open a file of one of :data:`glean_ext.video.formats.DEMUXERS`.

    Raises:
        VideoError: The file is missing, cannot be read, or is no video.
    """
    if not path.is_file():
        what = "is a folder, not a video" if path.is_dir() else "there is no such file"
        raise VideoError(f"{path}: {what}. Give the path of a video.")
    if not path.stat().st_size:
        raise VideoError(f"{path} is empty (0 bytes). Get the file again.")
    only = {"format_whitelist": ",".join(DEMUXERS), "protocol_whitelist": "file"}
    try:
        return av.open(str(path.resolve()), "r", container_options=only, metadata_errors="replace")
    except PermissionError as error:
        raise VideoError(f"{path} cannot be read ({error.strerror}). Change its rights.") from error
    except av.FFmpegError as error:
        raise VideoError(f"{path} is no video, or truncated or damaged. Get the file again.") from error
