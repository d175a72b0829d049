"""Faces that hide each other: the mask of each face covers only what is visible of it.

Where the faces themselves overlap, the nearer one is visible: the larger one, unless the colours show the opposite. The
mesh does not contain the hair around a nearer face: there the colours decide whether a pixel belongs to the face behind
or to the hair in front of it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import cv2
import numpy as np

from glean_ext.faces.alignment import align
from glean_ext.faces.detection import Face
from glean_ext.faces.face_mask import (
    FEATHER,
    MASK_SIZE,
    cover,
    face_mask,
    scaled_oval,
    signed_distance,
    smoothstep,
)
from glean_ext.utils.array_conversion import to_8_bits

# The head with hair and neck, in sizes of the face: half of its width, and its extent above and below the centre.
HEAD_SIDE, HEAD_TOP, HEAD_BOTTOM = 1.6, 1.8, 1.5
SAME_SIZE = 1.1  # ratio of sizes up to which the detector's score decides which face is nearer
MIN_PIXELS = 200  # of the mask's pixels, to know the colours of a face or of hair
HAIR_PRIOR = 2.0  # log-odds; in gray photographs, whose hair and skin overlap, fewer than that leaves spills
COLOUR_NOISE = 5.0  # levels; added to the deviation of colours
SEEN, HIDDEN = 0.3, 0.8  # shares of a face that are hair: most of it is seen, or hidden
SMOOTHING = 5.0  # pixels of the mask; deviation of the Gaussian that averages decisions of single pixels

Array = np.ndarray


def by_depth(faces: Sequence[Face]) -> list[int]:
    """Indices of faces, the farthest first: smaller faces lie behind larger ones."""
    return sorted(range(len(faces)), key=lambda index: faces[index].size)


def is_nearer(face: Face, other: Face) -> bool:
    """Whether ``face`` is in front of ``other``. Of faces of one size the detector sees a hidden one less clearly."""
    if max(face.size, other.size) > SAME_SIZE * min(face.size, other.size):
        return face.size > other.size
    return (face.score, face.size) > (other.score, other.size)


def visible_mask(face: Face, faces: Sequence[Face], photo: Array) -> Array:
    """As :func:`face_mask`, without what other faces and their hair hide.

    Args:
        face: In pixels of the photograph.
        faces: All faces of the photograph.
        photo: (h, w, 3) uint8 or uint16 RGB.
    """
    mask, hidden = face_mask(face), np.zeros((MASK_SIZE, MASK_SIZE), bool)
    for other in faces:
        if other is not face and _may_reach(other, face) and _is_in_front(other, face, photo):
            oval, _, hair = _covered(face, other, photo, mask)
            hidden |= oval | hair
    if not (hidden & (mask > 0)).any():
        return mask
    return np.minimum(mask, smoothstep(-signed_distance(hidden.astype(np.uint8)) / (FEATHER * MASK_SIZE)))


def head_outline(face: Face) -> Array:
    """(36, 2): the face's oval, extended to the hair."""
    return scaled_oval(face, HEAD_SIDE, HEAD_TOP, HEAD_BOTTOM)


def _may_reach(other: Face, face: Face) -> bool:
    """Whether the head of ``other`` may lie over the face."""
    outline = head_outline(other)
    return bool((outline.max(axis=0) > face.box[:2]).all() and (outline.min(axis=0) < face.box[2:]).all())


def _is_in_front(face: Face, other: Face, photo: Array) -> bool:
    """As :func:`is_nearer`, but a smaller face is in front where the photograph shows it: a child before an adult.

    Then the part of the smaller face that the larger head would hide has the colours of that face, and the part of
    the larger one has not. In gray photographs, and where colours are alike, that does not show.
    """
    smaller, larger = sorted((face, other), key=lambda one: one.size)
    if larger.size <= SAME_SIZE * smaller.size:
        return is_nearer(face, other)
    shown = _hair_share(smaller, larger, photo) < SEEN and _hair_share(larger, smaller, photo) > HIDDEN
    return face is (smaller if shown else larger)


def _hair_share(face: Face, other: Face, photo: Array) -> float:
    """How much of the face within the other's head is no face; nan where too little is within it."""
    mask = face_mask(face)
    _, around, hair = _covered(face, other, photo, mask)
    within = around & (mask > 0.5)
    return float((hair & within).sum() / within.sum()) if within.sum() >= MIN_PIXELS else math.nan


def _covered(face: Face, other: Face, photo: Array, mask: Array) -> tuple[Array, Array, Array]:
    """(M, M) bool each, in the face's crop: the other's face, its head without that, and what of this is its hair."""
    head, oval = cover(face, head_outline(other)) > 0, cover(face, other.oval) > 0
    around = head & ~oval
    if not (head & (mask > 0)).any():
        return oval & head, around, np.zeros_like(oval)
    return oval, around, _hair(align(to_8_bits(photo), face.quad, MASK_SIZE), around, mask)


def _hair(crop: Array, around: Array, mask: Array) -> Array:
    """(M, M) bool: which pixels around a nearer face are its hair, or anything else but the face behind.

    The colours of both are described by normal distributions (quadratic discriminant analysis): the face's from what
    lies outside ``around``, those of hair from what lies outside the face's mask.

    Args:
        crop: (M, M, 3) uint8, the aligned crop of the face behind.
        around: (M, M) bool, the nearer head without its face.
        mask: (M, M) float32, the mask of the face behind.
    """
    known_face, known_hair = (mask > 0.9) & ~around, around & (mask == 0)
    if min(known_face.sum(), known_hair.sum()) < MIN_PIXELS:
        return around
    is_hair = log_likelihood(crop, known_hair) + HAIR_PRIOR > log_likelihood(crop, known_face)
    return connected(around & (averaged(is_hair) > 0.5), known_hair)  # not the eyes of the face behind


def averaged(where: Array) -> Array:
    """(M, M) bool -> float in [0, 1]: decisions of single pixels, averaged over their surroundings."""
    return cv2.GaussianBlur(where.astype(np.float32), (0, 0), SMOOTHING)


def connected(where: Array, known: Array) -> Array:
    """(M, M) bool: the components of ``where`` that have pixels of ``known``."""
    _, labels = cv2.connectedComponents(where.astype(np.uint8))
    return where & np.isin(labels, labels[known])


def log_likelihood(crop: Array, where: Array) -> Array:
    """(M, M): of each pixel's colour, up to a constant, in the normal distribution of the pixels ``where``."""
    colours = crop[where].astype(np.float64)
    covariance = np.cov(colours.T) + COLOUR_NOISE**2 * np.eye(3)
    difference = crop - colours.mean(axis=0)
    distance = np.einsum("hwi,ij,hwj->hw", difference, np.linalg.inv(covariance), difference)
    return -(distance + np.linalg.slogdet(covariance)[1]) / 2
