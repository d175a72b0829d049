"""Cuts the largest face out of photographs for a data set, aligned as in FFHQ."""

from __future__ import annotations

import numpy as np

from glean_ext.faces.alignment import align, side
from glean_ext.faces.detection import FaceFinder

MAX_CROP_TO_FACE = 5  # upper bound of the aligned square's side in sides of the face; it is about 3


class LargestFace:
    """The ``face_crop`` of :func:`~glean_ext.data_preparation.prepare.prepare`; each process loads its own networks.

    Args:
        small: Also look for faces that are smaller than the requested crops, which takes long.
    """

    def __init__(self, small: bool):
        self.small = small
        self._finder: FaceFinder | None = None

    def __getstate__(self) -> dict:
        return {"small": self.small, "_finder": None}

    def __call__(self, photo: np.ndarray, size: int) -> tuple[np.ndarray, float] | None:
        """(H, W, 3) uint8 -> the aligned (size, size, 3) crop and its side in the photograph; None without a face."""
        if self._finder is None:
            self._finder = FaceFinder()
        faces = self._finder.find(photo, None if self.small else size / MAX_CROP_TO_FACE)
        if not faces:
            return None
        quad = max(faces, key=lambda face: face.size).quad
        return align(photo, quad, size), side(quad)
