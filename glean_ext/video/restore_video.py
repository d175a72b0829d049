"""Restoring videos: every frame through a function, all else kept, interrupted runs resumed."""

from __future__ import annotations

import os
import time
from array import array
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np

from glean_ext.errors import InputError
from glean_ext.video.formats import VIDEO_OUTPUTS
from glean_ext.video.muxer import join, streams_to_copy
from glean_ext.video.reader import Shown, VideoError, VideoSource
from glean_ext.video.segment_writer import Segments, check_size

AHEAD = 2  # batches that are decoded, and that wait to be encoded, while one is restored
PRESETS = "ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow", "slower", "veryslow"
VERSION = 2  # of what lies in the folder of segments


@dataclass(frozen=True)
class VideoResult:
    """What was done.

    Attributes:
        frames: Of the result.
        size: Its width and height.
        seconds: What it took.
        restoring: Of them, those in ``restore``.
        resumed: Frames that an earlier, interrupted run had restored.
        audio: Audio streams, which were copied.
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
    crf: float = 10,
    preset: str = "veryfast",
    segment: int = 60,
    progress: Callable[[int, int | None], None] | None = None,
    notify: Callable[[str], None] = print,
) -> VideoResult:
    """Restore each frame of a video; audio and subtitles are copied, time stamps and colours kept.

    Frames are upright and have square pixels: what a player shows. The result is H.264 (8 bits, 4:2:0) with the
    source's YCbCr matrix and range. Decoding and encoding run beside ``restore``, which is called in this thread.

    Restored frames are kept in segments in a hidden folder beside the target until it is whole; they need as much room.
    Called again with the same source, settings and ``fingerprint``, an interrupted run goes on after the last whole
    segment (decoding, which is fast, starts at the beginning). Memory depends on ``batch`` and the frames' size, not on
    the length, but for 8 bytes a frame.

    Args:
        source: A video of one of :data:`glean_ext.video.reader.FORMATS`.
        target: An .mp4, .mkv or .mov; it appears when it is whole, and replaces what was there.
        restore: Takes up to ``batch`` frames, (h, w, 3) uint8 RGB, and returns as many, all of one size.
        fingerprint: Says which network and settings ``restore`` stands for.
        batch: Frames in one call of ``restore``.
        scale: What ``restore`` multiplies height and width by, if known: too large results are refused at once.
        crf: x264's constant rate factor, 0 to 51: less is better and larger.
        preset: x264's preset, ultrafast to veryslow; slower ones make smaller files.
        segment: Frames in a segment, so also between two key frames at most.
        progress: Is told how many frames are done, of how many (None when unknown; estimated for some formats).
        notify: Gets one line for each thing that is not as one would expect, perhaps in another thread.

    Raises:
        InputError: No video, none that can be decoded, one whose size changes; a target of another kind, the source
            itself, or one that cannot be written; too large frames. The target is then as it was before.
    """
    started = time.monotonic()
    source, target = Path(source), Path(target)
    _check(source, target, batch, crf, preset, segment)
    with VideoSource(source, notify) as video:
        if scale is not None:
            width, height = video.shown_size
            check_size(round(scale * width), round(scale * height), target)
        copied = streams_to_copy(video, target)
        job = _job(source, fingerprint, crf=crf, preset=preset, segment=segment)
        with Segments(target, job, video.rate, segment, crf, preset, notify) as segments:
            resumed = segments.frames
            if resumed:
                notify(f"{target}: {resumed} frames are there from the interrupted run; it goes on after them.")
            run = _Run(video, segments, restore, batch, progress)
            try:
                try:
                    run.go()
                except VideoError:  # it would fail again
                    segments.remove()
                    raise
                joined = join(segments, video, run.pts, run.last_duration, copied)
            except BaseException:
                if segments.frames:
                    notify(f"{target}: {segments.frames} frames are kept; the same call goes on after them.")
                raise
            segments.remove()
    return VideoResult(len(run.pts), joined.size, time.monotonic() - started, run.restoring, resumed, joined.audio)


def _check(source: Path, target: Path, batch: int, crf: float, preset: str, segment: int) -> None:
    if target.suffix.lower() not in VIDEO_OUTPUTS:
        raise InputError(f"{target}: videos are written as {', '.join(VIDEO_OUTPUTS)}. Name it {target.stem}.mp4.")
    if target.is_dir():
        raise InputError(f"{target} is a folder. Give another output.")
    if target.exists() and source.exists() and target.samefile(source):
        raise InputError(f"{target} is the input and would be overwritten. Give another output.")
    if not 0 <= crf <= 51:
        raise InputError(f"crf is {crf:g}, but it must be between 0 (lossless) and 51. 10 is the default.")
    if preset not in PRESETS:
        raise InputError(f"preset is {preset!r}, but it must be one of {', '.join(PRESETS)}.")
    for name, value in (("batch", batch), ("segment", segment)):
        if value < 1:
            raise InputError(f"{name} is {value}, but it must be at least 1.")


def _job(source: Path, fingerprint: str, **settings: Any) -> dict[str, Any]:
    """All that the encoded frames depend on, as JSON has it."""
    file = source.stat()
    libraries = {name: list(version) for name, version in av.library_versions.items()}
    return {
        "source": [str(source.resolve()), file.st_size, file.st_mtime_ns],
        "restore": fingerprint,
        "settings": settings,
        "libraries": libraries,
        "version": VERSION,
    }


class _Run:
    """Decoding, restoring and encoding, side by side."""

    def __init__(
        self,
        video: VideoSource,
        segments: Segments,
        restore: Callable[[Sequence[np.ndarray]], Sequence[np.ndarray]],
        batch: int,
        progress: Callable[[int, int | None], None] | None,
    ):
        self.video, self.segments, self.restore, self.batch = video, segments, restore, batch
        self.progress = progress or (lambda done, total: None)
        self.pts = array("q")
        self.last_duration = 1
        self.restoring = 0.0
        self.size = (0, 0)

    def go(self) -> None:
        done, total = self.segments.frames, self.video.total
        batches = self._batches(done)
        self.progress(done, total)
        with ThreadPoolExecutor(1, "decode") as reader, ThreadPoolExecutor(1, "encode") as writer:
            ahead: deque[Future] = deque(reader.submit(next, batches, None) for _ in range(AHEAD))
            behind: deque[Future] = deque()
            try:
                while (frames := ahead.popleft().result()) is not None:
                    ahead.append(reader.submit(next, batches, None))
                    restored = self._restored(frames)
                    assert self.video.colour is not None  # known since the first frame
                    behind.append(writer.submit(self.segments.write, restored, self.video.colour))
                    if len(behind) > AHEAD:
                        behind.popleft().result()
                    done += len(frames)
                    self.progress(done, None if total is None else max(done, total))
                behind.append(writer.submit(self.segments.finish))
                while behind:
                    behind.popleft().result()
            finally:  # after an interruption, too, what is restored is still written
                for waiting in ahead:
                    waiting.cancel()
        self.progress(done, done)

    def _batches(self, skip: int) -> Iterator[list[np.ndarray]]:
        """Frames to restore. No batch spans two segments, so a resumed run makes the same ones."""
        frames: list[np.ndarray] = []
        shown: Shown | None = None
        for shown in self.video.frames(skip):
            self.pts.append(shown.pts)
            if shown.rgb is not None:
                frames.append(shown.rgb)
            if len(frames) == self.batch or (frames and len(self.pts) % self.segments.length == 0):
                yield frames
                frames = []
        assert shown is not None
        self.last_duration = shown.duration
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
