"""Restoring videos: every frame goes through a function, the rest is kept, and interrupted runs are resumed."""

from __future__ import annotations

import os
import time
from array import array
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.stream import Stream

from glean_ext.errors import InputError, Notice, require_at_least
from glean_ext.utils.files import expand_home
from glean_ext.utils.messages import log_notice
from glean_ext.video.encoder import EncodingOptions, check_frame_size
from glean_ext.video.formats import VIDEO_OUTPUTS
from glean_ext.video.muxer import MuxResult, mux, streams_to_copy
from glean_ext.video.reader import DisplayedFrame, VideoError, VideoSource
from glean_ext.video.segment_writer import Segments
from glean_ext.video.smooth_frames import SequenceRestorer, SmoothFrames

MAX_PENDING_BATCHES = 2  # that are decoded, and that wait to be encoded, while one is restored
SEGMENTS_VERSION = 2  # of the folder of segments
DEFAULTS = EncodingOptions()


@dataclass(frozen=True)
class VideoResult:
    """What :func:`restore_video` did.

    Attributes:
        frames: Of the result.
        size: Width and height of the result.
        seconds: The whole time.
        restoring: Seconds of it that were spent in ``restore``.
        resumed: Frames that an earlier, interrupted run had restored.
        audio: Number of audio streams that were copied.
    """

    frames: int
    size: tuple[int, int]
    seconds: float
    restoring: float
    resumed: int
    audio: int


def restore_video(
    source: str | os.PathLike,
    target: str | os.PathLike,
    restore: Callable[[Sequence[np.ndarray]], Sequence[np.ndarray]],
    *,
    fingerprint: str = "",
    batch: int = 4,
    scale: float | None = None,
    crf: float = DEFAULTS.crf,
    preset: str = DEFAULTS.preset,
    segment: int = DEFAULTS.segment,
    temporal: bool = False,
    progress: Callable[[int, int | None], None] | None = None,
    notify: Callable[[Notice], None] = log_notice,
) -> VideoResult:
    """Restore each frame of a video; audio and subtitles are copied, time stamps and colours kept.

    >>> restorer = glean_ext.ImageRestorer("demo_lightglean_x8")
    >>> result = glean_ext.restore_video("film.mp4", "large.mp4", restorer.restore_batch, fingerprint="lightglean")
    >>> result.frames, result.size
    (3, (256, 192))

    Frames are upright and have square pixels: what a player shows. The result is H.264 (8 bits, 4:2:0) with the
    source's YCbCr matrix and range. Decoding and encoding run beside ``restore``, which is called in this thread.

    Restored frames are kept in segments in a hidden folder beside the target, ``.NAME.segments``, until the target is
    complete; they need as much room as the target. After an interruption, kill -9 included, a call with the same
    source, settings and ``fingerprint`` continues after the last complete segment (decoding, which is fast, starts at
    the beginning), any other call with that target starts again; both remove the folder when they are done. Memory
    depends on ``batch`` and the frames' size, and grows with the length by only 8 bytes per frame.

    Args:
        source: A video of one of :data:`glean_ext.video.formats.DEMUXERS`.
        target: An .mp4, .mkv or .mov; it appears when it is complete, and replaces an existing file.
        restore: Takes up to ``batch`` frames, (h, w, 3) uint8 RGB, and returns as many, all of one size. The state of
            a :class:`~glean_ext.video.smooth_frames.SequenceRestorer` is kept with the segments, so that a resumed run
            gives the same frames.
        fingerprint: Identifies the network and the settings of ``restore``.
        batch: Frames in one call of ``restore``.
        scale: What ``restore`` multiplies height and width by, if known: too large results are refused at once.
        crf: As in :class:`glean_ext.video.encoder.EncodingOptions`; so are ``preset`` and ``segment``.
        temporal: Blend each result with the one before along the optical flow, against flicker. A
            :class:`~glean_ext.video.smooth_frames.SequenceRestorer`, such as
            :class:`~glean_ext.faces.smooth_photos.SmoothPhotos` for photographs, does so itself, with or without it.
        progress: Gets how many frames are done, and how many there are (None if unknown; some formats give an
            estimate).
        notify: Gets a notice of each thing that the user should know, perhaps in another thread.

    Raises:
        InputError: The source is no video, cannot be decoded, or changes its size; the target is of another kind, is
            the source itself, or cannot be written; frames are too large. The target is then as it was before.
    """
    started = time.monotonic()
    source, target = Path(expand_home(source)), Path(expand_home(target))
    encoding = EncodingOptions(crf, preset, segment)
    _check(source, target, batch)
    if temporal and not isinstance(restore, SequenceRestorer):
        restore = SmoothFrames(restore)
    memory = restore if isinstance(restore, SequenceRestorer) else None
    with VideoSource(source, notify) as video:
        if scale is not None:
            width, height = video.display_size
            check_frame_size(round(scale * width), round(scale * height), target)
        copied = streams_to_copy(video, target)
        job = _describe_job(source, fingerprint, encoding, memory is not None)
        with Segments(target, job, video.rate, encoding, notify, memory is not None) as segments:
            resumed = segments.frames
            if resumed:
                if memory is not None:
                    memory.load(segments.read_state())
                message = f"{target}: {resumed} frames are kept from the interrupted run; it continues after them."
                notify(Notice(message))
            restoration = _Restoration(video, segments, restore, memory, batch, progress)
            result = restoration.write_target(copied)
    seconds = time.monotonic() - started
    return VideoResult(len(restoration.pts), result.size, seconds, restoration.restoring, resumed, result.audio)


def _check(source: Path, target: Path, batch: int) -> None:
    if target.suffix.lower() not in VIDEO_OUTPUTS:
        raise InputError(f"{target}: videos are written as {', '.join(VIDEO_OUTPUTS)}. Name it {target.stem}.mp4.")
    if target.is_dir():
        raise InputError(f"{target} is a folder. Give another output.")
    if target.exists() and source.exists() and target.samefile(source):
        raise InputError(f"{target} is the input and would be overwritten. Give another output.")
    require_at_least("batch", batch, 1)


def _describe_job(source: Path, fingerprint: str, encoding: EncodingOptions, memory: bool) -> dict[str, Any]:
    """All that the encoded frames depend on, as JSON has it."""
    file = source.stat()
    libraries = {name: list(version) for name, version in av.library_versions.items()}
    return {
        "source": [str(source.resolve()), file.st_size, file.st_mtime_ns],
        "restore": fingerprint,
        "memory": memory,
        "settings": asdict(encoding),
        "libraries": libraries,
        "version": SEGMENTS_VERSION,
    }


class _Restoration:
    """Decoding, restoring and encoding, each in its own thread."""

    def __init__(
        self,
        video: VideoSource,
        segments: Segments,
        restore: Callable[[Sequence[np.ndarray]], Sequence[np.ndarray]],
        memory: SequenceRestorer | None,
        batch: int,
        progress: Callable[[int, int | None], None] | None,
    ):
        self.video, self.segments, self.restore, self.batch = video, segments, restore, batch
        self.memory = memory
        self.progress = progress or (lambda done, total: None)
        self.pts = array("q")
        self.last_duration = 1
        self.restoring = 0.0
        self.size = (0, 0)

    def write_target(self, copied: Sequence[Stream]) -> MuxResult:
        """Restore all frames and write the target. Segments stay for another run, unless the video is at fault."""
        segments = self.segments
        try:
            try:
                self._write_segments()
            except VideoError:  # another run would fail, too
                segments.remove()
                raise
            result = mux(segments, self.video, self.pts, self.last_duration, copied)
        except BaseException:
            if segments.frames:
                message = f"{segments.target}: {segments.frames} frames are kept; the same call continues after them."
                self.video.notify(Notice(message))
            raise
        segments.remove()
        return result

    def _write_segments(self) -> None:
        done, total = self.segments.frames, self.video.total
        batches = self._batches(done)
        self.progress(done, total)
        with ThreadPoolExecutor(1, "decode") as reader, ThreadPoolExecutor(1, "encode") as writer:
            decoding: deque[Future] = deque(reader.submit(next, batches, None) for _ in range(MAX_PENDING_BATCHES))
            encoding: deque[Future] = deque()
            try:
                while (frames := decoding.popleft().result()) is not None:
                    decoding.append(reader.submit(next, batches, None))
                    restored = self._restored(frames)
                    done += len(frames)
                    if self.memory is not None and done % self.segments.length == 0:
                        encoding.append(writer.submit(self.segments.keep_state, done, self.memory.state()))
                    assert self.video.colour is not None  # known since the first frame
                    encoding.append(writer.submit(self.segments.write, restored, self.video.colour))
                    while len(encoding) > MAX_PENDING_BATCHES:
                        encoding.popleft().result()
                    self.progress(done, None if total is None else max(done, total))
                encoding.append(writer.submit(self.segments.finish))
                while encoding:
                    encoding.popleft().result()
            finally:  # what is restored is written also after an interruption
                for waiting in decoding:
                    waiting.cancel()
        self.progress(done, done)

    def _batches(self, skip: int) -> Iterator[list[np.ndarray]]:
        """Frames to restore. No batch spans two segments, so a resumed run has the same batches."""
        frames: list[np.ndarray] = []
        frame: DisplayedFrame | None = None
        for frame in self.video.frames(skip):
            self.pts.append(frame.pts)
            if frame.rgb is not None:
                frames.append(frame.rgb)
            if len(frames) == self.batch or (frames and len(self.pts) % self.segments.length == 0):
                yield frames
                frames = []
        assert frame is not None
        self.last_duration = frame.duration
        if frames:
            yield frames

    def _restored(self, frames: list[np.ndarray]) -> list[np.ndarray]:
        before = time.monotonic()
        restored = list(self.restore(frames))
        self.restoring += time.monotonic() - before
        if len(restored) != len(frames):
            raise ValueError(f"restore got {len(frames)} frames, but returned {len(restored)}.")
        for rgb in restored:
            if rgb.dtype != np.uint8 or rgb.ndim != 3 or rgb.shape[2] != 3:
                raise TypeError(f"restore must return (H, W, 3) uint8 RGB, but made {rgb.shape} {rgb.dtype}.")
            size = rgb.shape[1], rgb.shape[0]
            if self.size not in ((0, 0), size):
                raise ValueError(f"restore returned frames of {size} and {self.size} pixels, but one size is needed.")
            self.size = size
        return restored
