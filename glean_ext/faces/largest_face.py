"""Cuts faces out of photographs for a data set, aligned as FFHQ's."""

from __future__ import annotations

import numpy as np

from glean_ext.faces.alignment import align, side
from glean_ext.faces.detection import FaceFinder

SHARE = 5  # the aligned square is about three times as wide as the face in it, and never five times


class LargestFace:
    """The ``face_crop`` of :func:`~glean_ext.data_preparation.prepare.prepare`; each process loads its networks.

    Args:
        small: Whether to look for faces, too, that are smaller than the pictures to be made, which takes long.
    """

    def __init__(self, small: bool):
        self.small = small
        self._finder: FaceFinder | None = None

    def __getstate__(self) -> dict:
        return {"small": self.small, "_finder": None}

    def __call__(self, photo: np.ndarray, size: int) -> tuple[np.ndarray, float] | None:
        """(H, W, 3) uint8 -> the aligned (size, size, 3) and the side it has in the photograph; None without a face."""
        if self._finder is None:
            self._finder = FaceFinder()
        faces = self._finder.find(photo, None if self.small else size / SHARE)
        if not faces:
            return None
        quad = max(faces, key=lambda face: face.size).quad
        return align(photo, quad, size), side(quad)
