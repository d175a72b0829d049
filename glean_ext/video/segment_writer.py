"""Segments of a restored video, which survive an interruption: each one is complete or does not exist."""

from __future__ import annotations

import errno
import fcntl
import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

from glean_ext.errors import InputError, Notice
from glean_ext.utils.files import atomic_path, write_json
from glean_ext.video.encoder import Encoder, EncodingOptions, check_frame_size
from glean_ext.video.frame_properties import Colour

TILE_SIZES_FILE = "restorer_state.json"  # in the folder of segments; ``restore`` keeps there what a resumed run needs


def segments_folder(target: Path) -> Path:
    """The hidden folder with the segments of a video, beside it."""
    return target.with_name(f".{target.name}.segments")


@dataclass
class _OpenSegment:
    """The segment that is being written."""

    stack: ExitStack  # makes the file appear under its name, or removes it
    path: Path
    encoder: Encoder
    frames: int = 0


class Segments:
    """The restored frames, as H.264 files in a hidden folder beside the target; a context manager.

    Complete segments stay there when a run is interrupted, and a run with an equal ``job`` continues after them.

    Args:
        target: The video to be made.
        job: All that the frames depend on: source, settings, network. Segments of any other job are removed.
        rate: Frames per second, for the encoder.
        options: x264's settings, and how many frames a segment has.
        notify: Gets a notice when segments of another job are removed.
        keeps_state: The restorer remembers earlier frames: runs continue only after segments with :meth:`keep_state`.

    Attributes:
        folder: Where they are.
        frames: How many are in complete segments.

    Raises:
        InputError: The folder cannot be written, or another process uses it.
    """

    def __init__(
        self,
        target: Path,
        job: dict[str, Any],
        rate: Fraction,
        options: EncodingOptions,
        notify: Callable[[Notice], None],
        keeps_state: bool = False,
    ):
        self.target, self.job, self.rate, self.options = target, job, rate, options
        self.notify, self.keeps_state = notify, keeps_state
        self.folder = segments_folder(target)
        self.frames = 0
        self._complete_segments = 0
        self._headers: set[bytes | None] = set()
        self._open: _OpenSegment | None = None
        self._failed = False

    @property
    def length(self) -> int:
        """Frames in a segment."""
        return self.options.segment

    def __enter__(self) -> Segments:
        with report_write_errors(self.target), ExitStack() as stack:
            self.folder.mkdir(parents=True, exist_ok=True)
            lock = stack.enter_context((self.folder / "lock").open("w"))
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise InputError(f"{self.target}: another process is writing it. Wait for its end.") from error
            self._recover()
            self._unlock = stack.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if self._open is not None:
            segment, self._open = self._open, None
            with suppress(av.FFmpegError):  # writing its end fails for the same reason as the frames before
                segment.encoder.container.close()
            with suppress(BaseException):
                segment.stack.__exit__(kind, error, None)
        if not self._complete_segments:
            self.remove()
        self._unlock.close()

    def _recover(self) -> None:
        """Find the complete segments of an interrupted run with the same job, and remove everything else."""
        record = self.folder / "job.json"
        known = None
        with suppress(OSError, ValueError):
            known = json.loads(record.read_text())
        if known == self.job:
            while self._is_complete(self._path(self._complete_segments), self.length):
                self._complete_segments += 1
            if self.keeps_state:
                while self._complete_segments and not self._state_path(self._complete_segments).exists():
                    self._complete_segments -= 1
        elif known is not None:
            self.notify(
                Notice(
                    f"{self.target}: source, settings or network differ from the interrupted run's; it starts again."
                )
            )
        self.frames = self._complete_segments * self.length
        kept = {self.folder / "lock", *self.paths()}
        if self._complete_segments:
            kept |= {self.folder / TILE_SIZES_FILE, self._state_path(self._complete_segments)}
        for path in self.folder.iterdir():
            if path not in kept:
                path.unlink()
        write_json(self.job, record)

    def _is_complete(self, path: Path, frames: int) -> bool:
        """Whether a segment can be read and has exactly that many frames; its header is remembered."""
        with suppress(av.FFmpegError):
            if count_frames(path) == frames:
                with av.open(str(path.absolute())) as segment:
                    self._headers.add(segment.streams.video[0].codec_context.extradata)
                return True
        return False

    def remove(self) -> None:
        """Remove the folder and all segments."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self._complete_segments = self.frames = 0

    def write(self, frames: Sequence[np.ndarray], colour: Colour) -> None:
        """Append restored frames, (h, w, 3) uint8 RGB, all of one size. After a failure nothing more is written.

        Raises:
            InputError: The disk is full, or H.264 does not take that size.
        """
        if self._failed:  # no segment may have a gap
            return
        self._failed = True
        with report_write_errors(self.target):
            for rgb in frames:
                segment = self._open or self._begin(rgb, colour)
                segment.encoder.write(rgb, segment.frames)
                segment.frames += 1
                if segment.frames == self.length:
                    self._complete(segment)
        self._failed = False

    def finish(self) -> None:
        """Complete the segment that is being written, if any.

        Raises:
            InputError: The disk is full, or the frames are not like those of the interrupted run.
        """
        if self._open is not None and not self._failed:
            with report_write_errors(self.target):
                self._complete(self._open)

    def _complete(self, segment: _OpenSegment) -> None:
        segment.encoder.finish()
        if not self._is_complete(segment.path, segment.frames):
            raise OSError(errno.EIO, "what was written cannot be read back")
        if len(self._headers) > 1:
            raise InputError(
                f"{self.target}: the frames have another size than those of the interrupted run. Remove {self.folder} "
                "to restore all of them again."
            )
        self._open = None
        segment.stack.close()
        if self._state_path(self._complete_segments + 1).exists():  # not after the last, shorter segment
            self._state_path(self._complete_segments).unlink(missing_ok=True)
        self._complete_segments += 1
        self.frames += segment.frames

    def keep_state(self, frames: int, state: Mapping[str, np.ndarray]) -> None:
        """Keep what the restorer remembers after that many frames, a multiple of :attr:`length`, before it is written.

        Raises:
            InputError: The disk is full.
        """
        arrays: Any = state  # numpy's types say that these are options
        if not self._failed:
            with report_write_errors(self.target), atomic_path(self._state_path(frames // self.length)) as partial:
                np.savez(partial, **arrays)

    def read_state(self) -> dict[str, np.ndarray]:
        """What the restorer remembered after :attr:`frames`; nothing where there are none."""
        if not self._complete_segments:
            return {}
        with np.load(self._state_path(self._complete_segments)) as state:
            return dict(state)

    def paths(self) -> list[Path]:
        """The complete segments, in order."""
        return [self._path(number) for number in range(self._complete_segments)]

    def _path(self, number: int) -> Path:
        return self.folder / f"{number:06d}.mp4"

    def _state_path(self, segments: int) -> Path:
        """Where the restorer's state after so many segments is."""
        return self.folder / f"{segments:06d}.npz"

    def _begin(self, rgb: np.ndarray, colour: Colour) -> _OpenSegment:
        height, width = rgb.shape[:2]
        if not self._headers:
            check_frame_size(width, height, self.target)
            if width % 2 or height % 2:
                self.notify(
                    Notice(
                        f"{self.target}: frames of {width}x{height} pixels get a copy of their last column or row, as "
                        "H.264 needs even sizes."
                    )
                )
        stack = ExitStack()
        partial = stack.enter_context(atomic_path(self._path(self._complete_segments)))
        container = av.open(str(partial.absolute()), "w")  # FFmpeg takes a relative a:b for a URL
        encoder = Encoder(container, width, height, colour, self.rate, self.options)
        self._open = _OpenSegment(stack, partial, encoder)
        return self._open


@contextmanager
def report_write_errors(target: Path) -> Iterator[None]:
    """Report errors of the file system and of FFmpeg in the block as errors about ``target``.

    Raises:
        InputError: No rights, no space, something that FFmpeg cannot encode or write.
    """
    try:
        yield
    except (OSError, av.FFmpegError) as error:
        raise InputError(f"{target} cannot be written ({error.strerror or error}). Choose another output.") from error


def count_frames(path: Path) -> int:
    """The number of encoded frames in a file."""
    with av.open(str(path.absolute())) as file:
        return sum(packet.size > 0 for packet in file.demux(video=0))
