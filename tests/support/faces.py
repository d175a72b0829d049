"""Photographs of heads whose places are known, and what stands for a network that restores faces."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from itertools import pairwise

import cv2
import numpy as np
from skimage import data

from glean_ext.faces.alignment import transform
from glean_ext.faces.occlusion import head_outline
from glean_ext.faces.photo_restorer import PhotoResult
from glean_ext.size_requirements import SizeRequirements
from glean_ext.utils.imresize import imresize

DEMO = "configs/demo_glean_x8.py", "glean-ext://demo_glean_x8.safetensors"
HEAD = (223.0, 125.0)  # centre of the head in the photograph of the astronaut
# Centre, scale and degrees counterclockwise of six copies of that head; two lie across the picture's border.
GROUP = [
    (110, 130, 1.0, 0),
    (400, 190, 1.3, 30),
    (760, 90, 1.6, -50),
    (40, 560, 1.2, 90),
    (560, 640, 1.5, 170),
    (1010, 480, 1.8, -20),
]


def head_map(x: float, y: float, scale: float, degrees: float) -> np.ndarray:
    """(2, 3): from points of the astronaut's photograph to where a copy of the head lies."""
    matrix = cv2.getRotationMatrix2D(HEAD, degrees, scale)
    matrix[:, 2] += np.array([x, y]) - HEAD
    return matrix


def paste_head(
    picture: np.ndarray, spot: tuple[float, float, float, float], blur: float
) -> tuple[np.ndarray, np.ndarray]:
    """The picture, (h, w, 3) float32, with the astronaut's head at a spot, and the mask of the head, (h, w) in [0, 1].

    Args:
        spot: Centre, scale and degrees, as in :data:`GROUP`.
        blur: Deviation of the mask's edge, in pixels of the head.
    """
    size = picture.shape[1], picture.shape[0]
    head = np.zeros((512, 512), np.float32)
    cv2.ellipse(head, (223, 118), (72, 90), 0, 0, 360, (1,), -1)
    head = cv2.GaussianBlur(head, (0, 0), blur)
    centres = head_map(*spot)
    centres[:, 2] += centres[:, :2] @ [0.5, 0.5] - 0.5
    mask = cv2.warpAffine(head, centres, size)
    face = cv2.warpAffine(data.astronaut(), centres, size, flags=cv2.INTER_CUBIC)
    return picture * (1 - mask[..., None]) + face * mask[..., None], mask


def group_photo() -> np.ndarray:
    """(800, 1060, 3): the six heads of ``GROUP`` over a cup of coffee."""
    picture = cv2.resize(data.coffee(), (1060, 800), interpolation=cv2.INTER_CUBIC).astype(np.float32)
    for spot in GROUP:
        picture, _ = paste_head(picture, spot, blur=4)
    return np.clip(np.round(picture), 0, 255).astype(np.uint8)


class Identity:
    """Takes ``size`` x ``size`` and returns its input, enlarged; any other size, too."""

    def __init__(self, size: int, scale: int, any_size: bool = False):
        self.takes = SizeRequirements((size, size), scale, any_size)
        self.inputs: list[np.ndarray] = []

    def restore(self, rgb: np.ndarray) -> np.ndarray:
        self.inputs.append(rgb)
        return imresize(rgb, scale=self.takes.scale)


def inside(result: PhotoResult, shape: tuple[int, ...], grow: float = 0) -> np.ndarray:
    """(h, w) bool: in a face's outline; with ``grow`` in the head's, or within that (in sides of the crop) of it."""
    mask = np.zeros(shape[:2], np.uint8)
    for one in result.faces:
        points = head_outline(one.face) if grow else one.face.oval
        outline = [np.round(points - 0.5).astype(np.int32)]
        cv2.fillPoly(mask, outline, (1,))
        if grow:
            width = np.hypot(*(one.face.quad[3] - one.face.quad[0])) * grow
            cv2.polylines(mask, outline, True, (1,), 2 * round(width))
    return mask > 0


MOVING_SIZE = 380, 300  # width and height


def moving_spot(number: int) -> tuple[float, float, float, float]:
    """Where the head of :func:`moving_head` is in that frame: it moves, turns and comes nearer."""
    return 150 + 3.3 * number, 130 + 1.7 * number, 1 + 0.004 * number, 1.5 * number - 10


def moving_head(number: int, noise: float = 0) -> np.ndarray:
    """(300, 380, 3): a frame of a head that moves over a cup of coffee, with seeded noise of a deviation in levels."""
    picture = _moving_head(number).copy()
    picture += np.random.default_rng(number).normal(0, noise, picture.shape)
    return np.clip(np.round(picture), 0, 255).astype(np.uint8)


@cache
def _moving_head(number: int) -> np.ndarray:
    ground = cv2.resize(data.coffee(), MOVING_SIZE, interpolation=cv2.INTER_AREA).astype(np.float32)
    return paste_head(ground, moving_spot(number), blur=3)[0]


def head_motion(number: int, other: int) -> np.ndarray:
    """(2, 3): from points of the head in one frame of :func:`moving_head` to those in another."""
    here, there = (np.vstack([head_map(*moving_spot(each)), [0, 0, 1]]) for each in (number, other))
    return (there @ np.linalg.inv(here))[:2]


def warping_error(frames: Sequence[np.ndarray], oval: np.ndarray) -> float:
    """Levels (RMS) between the face of each frame, moved by the known motion, and that of the next one.

    Args:
        frames: Of :func:`moving_head`, restored, from the first on.
        oval: (N, 2), the outline of the face in the first frame.
    """
    errors = []
    for number, (frame, following) in enumerate(pairwise(frames)):
        centres = head_motion(number, number + 1)
        centres[:, 2] += centres[:, :2] @ [0.5, 0.5] - 0.5
        moved = cv2.warpAffine(frame, centres, MOVING_SIZE, flags=cv2.INTER_CUBIC)
        where = face_region(oval, number + 1)
        errors.append(np.sqrt(((moved.astype(float) - following)[where] ** 2).mean()))
    return float(np.mean(errors))


def face_region(oval: np.ndarray, number: int) -> np.ndarray:
    """(300, 380) bool: within the face in a frame of :func:`moving_head`, without a margin of 4 pixels."""
    region = np.zeros(MOVING_SIZE[::-1], np.uint8)
    cv2.fillPoly(region, [np.round(transform(head_motion(0, number), oval) - 0.5).astype(np.int32)], (1,))
    return cv2.erode(region, np.ones((9, 9), np.uint8)) > 0
