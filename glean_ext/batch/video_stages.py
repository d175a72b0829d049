"""From video to video: what is done with each frame, as a picture or as a photograph."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

import glean_ext
from glean_ext.errors import InputError
from glean_ext.inference.image_restorer import ONNX, ImageRestorer
from glean_ext.inference.size_policy import scaled, size_of
from glean_ext.utils.files import write_json
from glean_ext.utils.imresize import imresize
from glean_ext.video.restore_video import VideoResult, restore_video
from glean_ext.video.segment_writer import RESTORER_STATE, segments_folder

if TYPE_CHECKING:  # OpenCV and mediapipe take a second to load
    from glean_ext.faces.photo_restorer import PhotoRestorer

Array = np.ndarray


class VideoFiles:
    """Restores video files, frame by frame.

    Args:
        restorer: The network. All frames of a video have the same name, so that what it says of them can be told once.
        photos: Frames are photographs, whose faces it restores; None: they are restored as a whole, or in tiles.
        outscale: Size of the result in sizes of the source, None for what the network makes; ``photos`` has its own.
        batch: Frames at once.
        crf: x264's constant rate factor.
        fingerprint: Of :func:`fingerprint`: an interrupted video goes on if it is the same.
        notify: Gets one line for each thing that is not as one would expect.
        background: The network behind the ``background`` of ``photos``, where there is one.

    Attributes:
        faces: That were restored, in all frames of all videos.
    """

    def __init__(
        self,
        restorer: ImageRestorer,
        photos: PhotoRestorer | None,
        outscale: float | None,
        batch: int,
        crf: float,
        fingerprint: str,
        notify: Callable[[str], None],
        background: ImageRestorer | None = None,
    ):
        self.restorer, self.photos, self.outscale, self.batch = restorer, photos, outscale, batch
        self.crf, self.fingerprint, self.notify = crf, fingerprint, notify
        self.networks = [restorer] if background is None else [restorer, background]
        self.faces = 0

    def restore(self, source: Path, target: Path, progress: Callable[[int, int | None], None]) -> VideoResult:
        """Restore a video.

        Raises:
            InputError: As :func:`restore_video`, :meth:`ImageRestorer.restore` and :meth:`PhotoRestorer.restore`.
        """
        name, note = str(source), segments_folder(target) / RESTORER_STATE

        def restore(frames: Sequence[Array]) -> list[Array]:
            with self._same_tiles(note):
                return self._photographs(frames, name) if self.photos else self._pictures(frames, name)

        try:
            return restore_video(
                source,
                target,
                restore,
                fingerprint=self.fingerprint,
                batch=self.batch,
                scale=self._scale(),
                crf=self.crf,
                progress=progress,
                notify=lambda notice: self.notify(str(notice)),
            )
        finally:
            for network in self.networks:
                network.tiles = None

    @contextmanager
    def _same_tiles(self, note: Path) -> Iterator[None]:
        """All frames are cut as the first one, those of a resumed run as those before."""
        if self.restorer.tiles is None:
            known = json.loads(note.read_text()) if note.exists() else [[]] * len(self.networks)
            for network, tiles in zip(self.networks, known, strict=True):
                network.tiles = {tuple(size): tuple(tile) for size, tile in tiles}
        before = self._tiles()
        yield
        if self._tiles() != before:
            write_json(self._tiles(), note)

    def _tiles(self) -> list[list[object]]:
        """Of each network: sizes of images, and of their tiles."""
        return [list((network.tiles or {}).items()) for network in self.networks]

    def _scale(self) -> float | None:
        """Of the result's size to the source's; None where that depends on the source."""
        policy, scale = self.restorer.size_policy, self.restorer.takes.scale
        if self.photos is not None and not self.photos.aligned:
            return scale if self.photos.outscale == "model" else self.photos.outscale
        outscale = self.outscale if self.photos is None else None
        if policy.name == "resize":
            return outscale if policy.fit != "crop" else None
        return scale if outscale is None else outscale

    def _pictures(self, frames: Sequence[Array], name: str) -> list[Array]:
        prepared = [self.restorer.prepare(frame, name) for frame in frames]
        restored = []
        for frame, one, result in zip(frames, prepared, self.restorer.try_batch(prepared), strict=True):
            if isinstance(result, InputError):
                raise result
            if self.outscale is not None:
                shown = one.shown(frame)
                result = imresize(result, size=scaled(size_of(shown), self.outscale, name))
            restored.append(result)
        return restored

    def _photographs(self, frames: Sequence[Array], name: str) -> list[Array]:
        assert self.photos is not None
        results = [self.photos.restore(frame, name) for frame in frames]
        self.faces += sum(len(result.faces) for result in results)
        return [result.image for result in results]


def fingerprint(
    models: Sequence[tuple[str, str | None]], cfg_options: Sequence[str], options: Mapping[str, object]
) -> str:
    """What says whether frames would come out the same.

    Args:
        models: Config and checkpoint, or an ONNX file and None. Networks are compared as their configs describe them,
            files by path, size and time, URLs and names as they are.
        cfg_options: Changes to the first one's config.
        options: All others.

    Raises:
        InputError: A config that cannot be read.
    """
    networks = []
    for number, (config, checkpoint) in enumerate(models):
        if config.lower().endswith(ONNX):
            networks.append(_identity(config))
        else:
            from glean_ext.config import generator_config, load_config  # mmengine, which ONNX does without

            loaded = load_config(config, () if number else cfg_options)
            networks.append([generator_config(loaded, config), checkpoint and _identity(checkpoint)])
    return json.dumps([glean_ext.__version__, networks, options], default=str)


def _identity(file: str) -> list[object]:
    try:
        facts = Path(file).stat()
    except OSError:
        return [file]
    return [str(Path(file).resolve()), facts.st_size, facts.st_mtime_ns]
