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
from glean_ext.video.segment_writer import RESTORER_STATE, segments_folder

if TYPE_CHECKING:  # OpenCV and mediapipe take a second to load
    from glean_ext.faces.detection import FaceFinder
    from glean_ext.faces.references import FaceReferences

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
        self.fingerprint = fingerprint(models, options.cfg_options, {**options.of_frames(), **runs})

    def restore(self, source: Path, target: Path, progress: Callable[[int, int | None], None]) -> RestoredVideo:
        """Restore a video.

        Raises:
            InputError: As :func:`restore_video`, :func:`restore_pictures` and :meth:`PhotoRestorer.restore`.
        """
        note = segments_folder(target) / RESTORER_STATE
        frames: FrameRestorer | None = None

        def restore(batch: Sequence[Array]) -> Sequence[Array]:
            nonlocal frames
            if frames is None:  # now the notes of another job are gone
                frames = FrameRestorer(self, str(source), note)
            return frames.restore(batch)

        result = restore_video(
            source,
            target,
            restore,
            fingerprint=self.fingerprint,
            batch=self.options.batch,
            scale=self._scale(),
            crf=self.options.crf,
            progress=progress,
            notify=self.notify,
        )
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


class FrameRestorer:
    """Restores the frames of one video, which are all cut into tiles alike.

    Args:
        video: What restores videos.
        name: What errors and notices call the frames.
        note: The file in which tile sizes are kept for a run that continues this one; it is read first.

    Attributes:
        restorer: The network, with the tile sizes of this video.
        faces: That were restored so far.
    """

    def __init__(self, video: VideoRestorer, name: str, note: Path):
        self.name, self.note, self.outscale = name, note, video.options.outscale
        networks = [video.restorer] if video.background is None else [video.restorer, video.background]
        known = json.loads(note.read_text()) if note.exists() else [[]] * len(networks)
        self.tile_sizes = [TileSizes(sizes) for sizes in known]
        self.restorer, *backgrounds = (
            network.with_tile_sizes(sizes) for network, sizes in zip(networks, self.tile_sizes, strict=True)
        )
        self.faces = 0
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

    def restore(self, frames: Sequence[Array]) -> list[Array]:
        """Frames, (h, w, 3) uint8 RGB, together.

        Raises:
            InputError: One of them cannot be restored.
        """
        before = self._tiles()
        restored = self._pictures(frames) if self.photos is None else self._photographs(frames)
        if self._tiles() != before:
            write_json(self._tiles(), self.note)
        return restored

    def _tiles(self) -> list[list[list[list[int]]]]:
        return [sizes.as_list() for sizes in self.tile_sizes]

    def _pictures(self, frames: Sequence[Array]) -> list[Array]:
        pictures, names = [Picture(frame) for frame in frames], [self.name] * len(frames)
        outcomes = restore_pictures(self.restorer, pictures, names, outscale=self.outscale)
        return [outcome.unwrap().pixels for outcome in outcomes]

    def _photographs(self, frames: Sequence[Array]) -> list[Array]:
        assert self.photos is not None
        results = [self.photos.restore(frame, self.name) for frame in frames]
        self.faces += sum(len(result.faces) for result in results)
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
