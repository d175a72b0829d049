"""Videos of photographs without flicker: frames whose faces are followed and smoothed."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence

import numpy as np

from glean_ext.errors import InputError
from glean_ext.faces.photo_restorer import PhotoRestorer
from glean_ext.faces.tracking import FaceTracks
from glean_ext.video.smooth_frames import SmoothFrames

Array = np.ndarray


class SmoothPhotos:
    """Restores the frames of a video in their order; a :class:`~glean_ext.video.smooth_frames.SequenceRestorer`.

    The landmarks of faces, and so their crops, their colours and their restorations are smoothed. What a network makes
    of the background is smoothed, too. Bicubic backgrounds stay as they are, and so do frames without faces that are
    restored as a whole (``when_no_face='whole'``).

    >>> smooth = SmoothPhotos(glean_ext.PhotoRestorer(restorer))
    >>> glean_ext.restore_video("film.mp4", "restored.mp4", smooth)

    Args:
        photos: Restores single frames.
        name: What errors call the frames.

    Attributes:
        faces: That were restored so far, in all frames.

    Raises:
        InputError: ``photos`` takes aligned faces, whose frames are smoothed as a whole.
    """

    def __init__(self, photos: PhotoRestorer, name: str = "the video"):
        if photos.aligned:
            raise InputError(
                "SmoothPhotos is for whole photographs. Use restore_video(..., temporal=True) for aligned faces."
            )
        self.photos, self.name, self.faces = copy.copy(photos), name, 0
        self._tracks = FaceTracks(1 if photos.only_center_face else None)
        self._background: SmoothFrames | None = None
        if (background := photos.background) is not None:
            smooth = self._background = SmoothFrames(lambda frames: [background(frame) for frame in frames])
            self.photos.background = lambda frame: smooth([frame])[0]

    def __call__(self, frames: Sequence[Array]) -> list[Array]:
        """(h, w, 3) uint8 RGB each.

        Raises:
            InputError: As :meth:`PhotoRestorer.restore`.
        """
        return [self._next(frame) for frame in frames]

    def _next(self, frame: Array) -> Array:
        faces = self._tracks.follow(frame, self.photos.find(frame, self.name))
        result = self.photos.restore(frame, self.name, faces=faces, tracks=self._tracks)
        self.faces += len(result.faces)
        return result.image

    def state(self) -> dict[str, Array]:
        background = {} if self._background is None else self._background.state()
        return self._tracks.state() | {f"background.{name}": array for name, array in background.items()}

    def load(self, state: Mapping[str, Array]) -> None:
        prefix = "background."
        self._tracks.load(state)
        if self._background is not None:
            known = {name.removeprefix(prefix): state[name] for name in state if name.startswith(prefix)}
            self._background.load(known)
