"""Faces in photographs, found at any size and rotation, with the landmarks that alignment needs.

The networks are those of :mod:`glean_ext.faces.face_networks`. BlazeFace takes 128x128 pixels and finds faces that are
about upright. So it gets the photograph in overlapping tiles of several sizes, each rotated by quarter turns; the face
mesh then confirms or rejects what it found.

Points are (x, y) in pixels of the photograph, as in :mod:`glean_ext.faces.alignment`.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import product
from typing import NamedTuple

import cv2
import numpy as np

from glean_ext.faces.alignment import ffhq_quad, from_crop, side, transform, turned, warp
from glean_ext.faces.face_networks import EYE_KEYPOINTS, FaceNetworks, RawDetection, load_face_networks

# Indices into the mesh. Right and left are the person's. Each eye has the six points of the 68-point
# annotation, whose mean is the eye's landmark in FFHQ's alignment script.
RIGHT_EYE = (33, 160, 158, 133, 153, 144)
LEFT_EYE = (362, 385, 387, 263, 373, 380)
NOSE_TIP = 4
RIGHT_MOUTH_CORNER, LEFT_MOUTH_CORNER = 61, 291
# The outline of the face from the middle of the forehead clockwise in the picture.
OVAL = (
    *(10, 338, 297, 332, 284, 251, 389, 356, 454, 323, 361, 288, 397, 365, 379, 378, 400, 377, 152),
    *(148, 176, 149, 150, 136, 172, 58, 132, 93, 234, 127, 162, 21, 54, 103, 67, 109),
)

MIN_FACE_IN_TILE = 0.25  # size in sides of a tile from which on faces are found at any rotation (measured)
TILE_OVERLAP = 0.3  # in sides of a tile; every face up to this size is whole in one of the tiles
MIN_TILE = 64  # pixels; faces of less than a quarter of it have too little detail
CROP_SIZE = 256  # pixels; side of the crops that confirm a detection. The mesh network takes 192x192
CROP_TO_BOX = 2.0  # side of these crops in sides of the face's box
EXPECTED_BOX = CROP_SIZE / 2 + np.array([-1, -1, 1, 1]) * CROP_SIZE / CROP_TO_BOX / 2  # the box within a crop
NMS_IOU = 0.3  # boxes with a larger intersection over union belong to the same face
SECOND_LOOK_ANGLE = np.radians(20)  # rotation between the two crops that the mesh is fitted to
MAX_LANDMARK_SHIFT = 0.025  # mean distance of the landmarks in the two crops, in sides of the aligned crop


@dataclass(frozen=True, eq=False)
class Face:
    """A face in a photograph.

    Attributes:
        mesh: (478, 2) or (468, 2) points, see :mod:`glean_ext.faces.face_networks`.
        score: The detector's, in [0, 1].
    """

    mesh: np.ndarray
    score: float

    @property
    def landmarks(self) -> np.ndarray:
        """(5, 2): right eye, left eye, nose tip, right and left corner of the mouth, of the person."""
        eyes = self.mesh[list(RIGHT_EYE)].mean(axis=0), self.mesh[list(LEFT_EYE)].mean(axis=0)
        return np.stack([*eyes, *self.mesh[[NOSE_TIP, RIGHT_MOUTH_CORNER, LEFT_MOUTH_CORNER]]])

    @property
    def oval(self) -> np.ndarray:
        """(36, 2): the outline of the face, a polygon."""
        return self.mesh[list(OVAL)]

    @property
    def quad(self) -> np.ndarray:
        """(4, 2): the square that :func:`ffhq_quad` cuts out."""
        return ffhq_quad(self.landmarks)

    @property
    def box(self) -> np.ndarray:
        """(4,): left, top, right, bottom of the mesh."""
        return _box(self.mesh)

    @property
    def size(self) -> float:
        """Side in pixels of a square with the area of :attr:`box`."""
        left, top, right, bottom = self.box
        return float(np.sqrt((right - left) * (bottom - top)))


def _look_at(photo: np.ndarray, quad: np.ndarray) -> np.ndarray:
    """(256, 256, 3): a square of the photograph for the networks, with the border pixels repeated beyond it.

    A mirrored border would mislead the networks where it cuts a face. With up to 30% of a face cut off, its landmarks
    are exact to 1% of the aligned crop's side.
    """
    return warp(photo, from_crop(quad, CROP_SIZE), (CROP_SIZE, CROP_SIZE), cv2.BORDER_REPLICATE)


class Detection(NamedTuple):
    """A face as the detector returns it, in pixels of the photograph."""

    score: float
    box: np.ndarray  # (4,): left, top, right, bottom; the detector's boxes are square, from the eyebrows to the chin
    right: np.ndarray  # (2,): from the person's right eye to the left, a unit vector


class FaceFinder:
    """Finds faces and their meshes on the CPU.

    Any number of threads may share one.

    Args:
        networks: What runs the networks; None: what is installed, see ``face_networks.load_face_networks``.

    Raises:
        InputError: Nothing that runs them is installed.
    """

    def __init__(self, networks: FaceNetworks | None = None) -> None:
        self.networks = networks or load_face_networks()
        self._lock = threading.Lock()  # the networks take one image at a time

    @property
    def about(self) -> str:
        """A line that says which networks find the faces."""
        return f"Faces are found by {self.networks.name}, with {self.networks.landmarks} landmarks each."

    def find(self, photo: np.ndarray, min_face: float | None = None) -> list[Face]:
        """The faces of a photograph, from left to right.

        Args:
            photo: (H, W, 3) uint8 RGB.
            min_face: Smaller faces (:attr:`Face.size`, in pixels) are not searched for. None: 32, or a 64th of the
                photograph's longer side where that is more. Half the size takes up to four times as long.
        """
        if min_face is None:
            min_face = max(32, max(photo.shape[:2]) / 64)
        faces: list[Face] = []
        with self._lock:
            for detection in suppress(self._scan(photo, min_face)):
                face = self._confirm(photo, detection)
                if face is not None and not any(overlap(face.box, other.box) > NMS_IOU for other in faces):
                    faces.append(face)
        return sorted((face for face in faces if face.size >= min_face), key=lambda face: face.box[0])

    def _scan(self, photo: np.ndarray, min_face: float) -> Iterator[Detection]:
        """Candidates for faces."""
        height, width = photo.shape[:2]
        for top, left, bottom, right, turns in views((height, width), max(min_face / MIN_FACE_IN_TILE, MIN_TILE)):
            offset = np.array([left, top, left, top])
            for detection in self._detect(photo[top:bottom, left:right], turns):
                yield detection._replace(box=detection.box + offset)

    def _detect(self, image: np.ndarray, all_turns: Iterable[int]) -> Iterator[Detection]:
        """Detections in an image rotated by each of ``all_turns`` quarter turns, in pixels of the image."""
        height, width = image.shape[:2]
        zoom = CROP_SIZE / max(height, width)
        if zoom < 1:
            size = max(1, round(zoom * width)), max(1, round(zoom * height))
            image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
        for turns in all_turns:
            found = self.networks.detect(np.ascontiguousarray(np.rot90(image, turns)))
            for detection in found:
                yield _detection(detection, unturned(turns, height, width))

    def _confirm(self, photo: np.ndarray, detection: Detection) -> Face | None:
        """Find the rotation of a detected face and fit the mesh; None where it is no face.

        BlazeFace also detects other round objects (headlights, cells, galaxies), and the mesh network fits a mesh to
        them. So the mesh is fitted to two crops, the second one rotated: a face's mesh stays where it is, but the mesh
        of another object rotates with the crop.
        """
        quad = _square(detection.box, np.array([1.0, 0.0]))
        crop = _look_at(photo, quad)
        found = [d for d in self._detect(crop, range(4)) if overlap(d.box, EXPECTED_BOX) > NMS_IOU]
        if not found:
            return None
        best = max(found, key=lambda detection: detection.score)
        box = _box(transform(from_crop(quad, CROP_SIZE), best.box.reshape(2, 2)))
        first = self._mesh(photo, _square(box, best.right))
        if first is None:
            return None
        face = Face(first, best.score)
        right = (face.quad[3] - face.quad[0]) / side(face.quad)
        second = self._mesh(
            photo, _square(face.box, np.cos(SECOND_LOOK_ANGLE) * right + np.sin(SECOND_LOOK_ANGLE) * turned(right))
        )
        if second is None:
            return None
        difference = face.landmarks - Face(second, 0).landmarks
        if np.hypot(*difference.T).mean() > MAX_LANDMARK_SHIFT * side(face.quad):
            return None
        return Face((first + second) / 2, best.score)

    def _mesh(self, photo: np.ndarray, quad: np.ndarray) -> np.ndarray | None:
        """(M, 2) points of the face in the middle of ``quad``, or None without a face there."""
        meshes = [mesh * CROP_SIZE for mesh in self.networks.meshes(_look_at(photo, quad))]
        meshes = [mesh for mesh in meshes if overlap(_box(mesh), EXPECTED_BOX) > NMS_IOU]
        if not meshes:
            return None
        best = max(meshes, key=lambda mesh: overlap(_box(mesh), EXPECTED_BOX))
        return transform(from_crop(quad, CROP_SIZE), best)


def _square(box: np.ndarray, right: np.ndarray) -> np.ndarray:
    """The quad around a box, ``CROP_TO_BOX`` times as wide, whose upper side has the direction ``right``."""
    centre = (box[:2] + box[2:]) / 2
    x = right * CROP_TO_BOX * np.sqrt(np.prod(box[2:] - box[:2])) / 2
    y = turned(x)
    return np.stack([centre - x - y, centre - x + y, centre + x + y, centre + x - y])


def _box(points: np.ndarray) -> np.ndarray:
    return np.concatenate([points.min(axis=0), points.max(axis=0)])


def _detection(found: RawDetection, to_image: np.ndarray) -> Detection:
    """From a network's detection, whose coordinates are fractions of the image that it was given."""
    right_eye, left_eye = transform(to_image, found.keypoints[EYE_KEYPOINTS])
    right = left_eye - right_eye
    return Detection(found.score, _box(transform(to_image, found.box)), right / max(np.hypot(*right), 1e-6))


def unturned(turns: int, height: int, width: int) -> np.ndarray:
    """(2, 3): from points of ``np.rot90(image, turns)``, in fractions of its size, to pixels of the image."""
    return np.array(
        [
            [[width, 0, 0], [0, height, 0]],
            [[0, -width, width], [height, 0, 0]],
            [[-width, 0, width], [0, -height, height]],
            [[0, width, 0], [-height, 0, height]],
        ][turns],
        dtype=np.float64,
    )


def views(size: tuple[int, int], smallest: float) -> Iterator[tuple[int, int, int, int, range]]:
    """Top, left, bottom, right and the quarter turns of each tile for the detector.

    The whole image, then overlapping squares of half the side, and so on, down to squares of ``smallest``. Squares of
    less than a quarter of the image's side are rotated by 0 and 180 degrees only, which still finds 97 of 100 faces
    that lie on their side.
    """
    length = float(max(size))
    tile = length
    while True:
        turns = range(0, 4, 1 if tile >= length / 4 else 2)
        for top, left in product(_starts(size[0], tile), _starts(size[1], tile)):
            yield top, left, min(size[0], top + round(tile)), min(size[1], left + round(tile)), turns
        if tile <= smallest:
            return
        tile = max(tile / 2, smallest)


def _starts(length: int, tile: float) -> list[int]:
    if length <= tile:
        return [0]
    count = int(np.ceil((length - tile) / (tile * (1 - TILE_OVERLAP)))) + 1
    return [int(start) for start in np.linspace(0, length - round(tile), count)]


def suppress(detections: Iterable[Detection]) -> list[Detection]:
    """Non-maximum suppression: the best of the detections that overlap, in descending order of their scores."""
    kept: list[Detection] = []
    for detection in sorted(detections, key=lambda detection: -detection.score):
        if not any(overlap(detection.box, other.box) > NMS_IOU for other in kept):
            kept.append(detection)
    return kept


def overlap(a: np.ndarray, b: np.ndarray) -> float:
    """Intersection over union of two boxes (left, top, right, bottom)."""
    sides = np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2])
    if (sides <= 0).any():
        return 0.0
    common = float(np.prod(sides))
    return common / (float(np.prod(a[2:] - a[:2]) + np.prod(b[2:] - b[:2])) - common)
