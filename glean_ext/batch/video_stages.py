"""From video to video: what is done with each frame, as a picture or as a photograph."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

import glean_ext
from glean_ext.batch.options import ModelSource, RestoreOptions
from glean_ext.batch.restore_pictures import restore_pictures
from glean_ext.errors import Notice
from glean_ext.inference.image_restorer import ImageRestorer, TileSizes
from glean_ext.inference.references import list_references
from glean_ext.utils.files import write_json
from glean_ext.utils.image_io import Picture
from glean_ext.utils.messages import log_notice
from glean_ext.video.restore_video import VideoResult, restore_video
from glean_ext.video.segment_writer import TILE_SIZES_FILE, segments_folder
from glean_ext.video.smooth_frames import SmoothFrames

if TYPE_CHECKING:  # OpenCV and mediapipe take a second to load
    from glean_ext.faces.detection import FaceFinder
    from glean_ext.faces.references import FaceReferences
    from glean_ext.faces.smooth_photos import SmoothPhotos

Array = np.ndarray


@dataclass(frozen=True)
class RestoredVideo:
    """What was done with a video.

    Attributes:
        result: Frames, size and times.
        faces: That were found and restored, in the new frames; None: none were searched for.
        network_seconds: Time spent in the network.
    """

    result: VideoResult
    faces: int | None
    network_seconds: float


class VideoRestorer:
    """Restores video files, frame by frame.

    Args:
        options: Of the run; an interrupted video continues if those that frames depend on are the same.
        restorer: The network. All frames of a video have the same name, so equal notices are reported once.
        background: What enlarges all but the faces of photographs; None is bicubic.
        finder: Finds the faces of photographs; None makes one.
        references: Of the faces of photographs; None: there are none, or ``restorer`` has them.
        notify: Gets a notice for each thing that is not as one would expect, perhaps in another thread.
    """

    def __init__(
        self,
        options: RestoreOptions,
        restorer: ImageRestorer,
        background: ImageRestorer | None = None,
        finder: FaceFinder | None = None,
        references: FaceReferences | None = None,
        notify: Callable[[Notice], None] = log_notice,
    ):
        self.options, self.restorer, self.background = options, restorer, background
        self.finder, self.references, self.notify = finder, references, notify
        models = [options.model]
        if options.background is not None:
            models.append(options.background)
        # What None and 'auto' in the options stand for.
        runs = {name: getattr(restorer.network, name, None) for name in ("dtype", "engine")}
        if options.references:
            runs["references"] = [_identity(str(file)) for file in list_references(options.references)]
        if options.photo is not None and options.photo.embedder is not None:
            runs["embedder"] = _identity(options.photo.embedder)
        self.fingerprint = fingerprint(models, options.cfg_options, {**options.of_frames(), **runs})

    def restore(self, source: Path, target: Path, progress: Callable[[int, int | None], None]) -> RestoredVideo:
        """Restore a video.

        Raises:
            InputError: As :func:`restore_video`, :func:`restore_pictures` and :meth:`PhotoRestorer.restore`.
        """
        sequence = _Sequence(self, str(source), segments_folder(target) / TILE_SIZES_FILE)
        result = restore_video(
            source,
            target,
            sequence if self.options.temporal else sequence.__call__,  # only the former's state is kept
            fingerprint=self.fingerprint,
            batch=self.options.batch,
            scale=self._scale(),
            crf=self.options.crf,
            progress=progress,
            notify=self.notify,
        )
        frames = sequence.made
        faces = 0 if frames is None else frames.faces
        seconds = 0.0 if frames is None else frames.restorer.network_seconds
        return RestoredVideo(result, faces if self.options.finds_faces else None, seconds)

    def _scale(self) -> float | None:
        """Of the result's size to the source's; None where that depends on the source."""
        policy, scale, photo = self.restorer.size_policy, self.restorer.takes.scale, self.options.photo
        if self.options.finds_faces:
            return 1 if self.options.outscale is None else self.options.outscale
        outscale = self.options.outscale if photo is None else None
        if policy.name == "resize":
            return outscale if policy.fit != "crop" else None
        return scale if outscale is None else outscale


class _Sequence:
    """All frames of a video; makes their :class:`FrameRestorer` when the notes of another job are gone.

    Attributes:
        made: It; None before the first frame.
    """

    def __init__(self, video: VideoRestorer, name: str, note: Path):
        self.video, self.name, self.note = video, name, note
        self.made: FrameRestorer | None = None

    @property
    def frames(self) -> FrameRestorer:
        self.made = self.made or FrameRestorer(self.video, self.name, self.note)
        return self.made

    def __call__(self, frames: Sequence[Array]) -> list[Array]:
        return self.frames.restore(frames)

    @property
    def smooth(self) -> SmoothFrames | SmoothPhotos:
        assert self.frames.smooth is not None  # only sequences that are smoothed have a state
        return self.frames.smooth

    def state(self) -> dict[str, Array]:
        return self.smooth.state()

    def load(self, state: Mapping[str, Array]) -> None:
        self.smooth.load(state)


class FrameRestorer:
    """Restores the frames of one video, which are all cut into tiles alike.

    Args:
        video: What restores videos.
        name: What errors and notices call the frames.
        note: The file in which tile sizes are kept for a run that continues this one; it is read first.

    Attributes:
        restorer: The network, with the tile sizes of this video.
        smooth: What restores the frames and smooths them; None: they are independent of each other.
    """

    def __init__(self, video: VideoRestorer, name: str, note: Path):
        self.name, self.note, self.outscale = name, note, video.options.outscale
        networks = [video.restorer] if video.background is None else [video.restorer, video.background]
        known = json.loads(note.read_text()) if note.exists() else [[]] * len(networks)
        self.tile_sizes = [TileSizes(sizes) for sizes in known]
        self.restorer, *backgrounds = (
            network.with_tile_sizes(sizes) for network, sizes in zip(networks, self.tile_sizes, strict=True)
        )
        self._faces = 0
        self.photos = None
        if video.options.photo is not None:
            from glean_ext.batch.photo_stages import make_photo_restorer

            self.photos = make_photo_restorer(
                video.options.photo,
                self.restorer,
                backgrounds[0] if backgrounds else None,
                1 if video.options.outscale is None else video.options.outscale,
                video.options.batch,
                video.finder,
                video.references,
            )
        self.smooth = self._smooth() if video.options.temporal else None

    def _smooth(self) -> SmoothFrames | SmoothPhotos:
        if self.photos is not None and not self.photos.aligned:
            from glean_ext.faces.smooth_photos import SmoothPhotos

            return SmoothPhotos(self.photos, self.name)
        adjust = None
        if self.restorer.network.colorizes:  # the luminance stays that of the frame
            from glean_ext.faces.colour_matching import with_luminance

            adjust = with_luminance
        return SmoothFrames(self._independently, self._shown, adjust)

    def _shown(self, frame: Array) -> Array:
        """The part of a frame that its result shows."""
        policy = self.restorer.size_policy
        cropped = self.photos is None and policy.fit == "crop"
        return self.restorer.prepare(frame, self.name).crop_to_result(frame) if cropped else frame

    @property
    def faces(self) -> int:
        """How many were restored so far."""
        return getattr(self.smooth, "faces", self._faces)

    def restore(self, frames: Sequence[Array]) -> list[Array]:
        """Frames, (h, w, 3) uint8 RGB, together.

        Raises:
            InputError: One of them cannot be restored.
        """
        before = self._tiles()
        restored = self._independently(frames) if self.smooth is None else self.smooth(frames)
        if self._tiles() != before:
            write_json(self._tiles(), self.note)
        return restored

    def _independently(self, frames: Sequence[Array]) -> list[Array]:
        return self._pictures(frames) if self.photos is None else self._photographs(frames)

    def _tiles(self) -> list[list[list[list[int]]]]:
        return [sizes.as_list() for sizes in self.tile_sizes]

    def _pictures(self, frames: Sequence[Array]) -> list[Array]:
        pictures, names = [Picture(frame) for frame in frames], [self.name] * len(frames)
        outcomes = restore_pictures(self.restorer, pictures, names, outscale=self.outscale)
        return [outcome.unwrap().pixels for outcome in outcomes]

    def _photographs(self, frames: Sequence[Array]) -> list[Array]:
        assert self.photos is not None
        results = [self.photos.restore(frame, self.name) for frame in frames]
        self._faces += sum(len(result.faces) for result in results)
        return [result.image for result in results]


def fingerprint(models: Sequence[ModelSource], cfg_options: Sequence[str], options: Mapping[str, object]) -> str:
    """Text that is the same where frames come out the same.

    Args:
        models: The networks. They are compared as their configs describe them, files by path, size and time, URLs and
            names as they are.
        cfg_options: Changes to the first one's config.
        options: All others.

    Raises:
        InputError: A config that cannot be read.
    """
    networks = []
    for number, model in enumerate(models):
        if model.checkpoint is None:
            networks.append(_identity(model.config))
        else:
            from glean_ext.config import generator_config, load_config  # mmengine, which ONNX does without

            loaded = load_config(model.config, () if number else cfg_options)
            checkpoint = None if model.checkpoint is None else _identity(model.checkpoint)
            networks.append([generator_config(loaded, model.config), checkpoint])
    return json.dumps([glean_ext.__version__, networks, options], default=str)


def _identity(file: str) -> list[object]:
    try:
        status = Path(file).stat()
    except OSError:
        return [file]
    return [str(Path(file).resolve()), status.st_size, status.st_mtime_ns]
