"""Alignment: the square that an aligned face is cut from, and resampling between it and the photograph.

Points are (x, y) in pixels, and the pixel in row i and column j covers [j, j + 1) x [i, i + 1). Affine maps are (2, 3)
matrices of such points.
"""

from __future__ import annotations

import cv2
import numpy as np

from glean_ext.utils.imresize import imresize

MARGIN = 4  # pixels read around a point: bicubic interpolation needs 2 of them


def ffhq_quad(landmarks: np.ndarray) -> np.ndarray:
    """The square that becomes an aligned face, as in the FFHQ data set.

    Source: Karras et al., "A Style-Based Generator Architecture for Generative Adversarial Networks", CVPR 2019,
    appendix C. Half of its horizontal side has the direction of the eye-to-eye vector minus the eye-to-mouth vector
    rotated by 90 degrees. Its length is the larger of 2 times the distance between the eyes and 1.8 times the distance
    from eyes to mouth. The centre lies a tenth of the eye-to-mouth vector below the middle of the eyes.

    Args:
        landmarks: (5, 2), as :attr:`Face.landmarks`; the nose is not used.

    Returns:
        (4, 2): top left, bottom left, bottom right and top right corner of the upright face.
    """
    right_eye, left_eye, _, *mouth = np.asarray(landmarks, dtype=np.float64)
    eye_to_eye = left_eye - right_eye
    eyes = (left_eye + right_eye) / 2
    eye_to_mouth = np.mean(mouth, axis=0) - eyes
    x = eye_to_eye - turned(eye_to_mouth)
    x *= max(2.0 * np.hypot(*eye_to_eye), 1.8 * np.hypot(*eye_to_mouth)) / np.hypot(*x)
    y = turned(x)
    centre = eyes + 0.1 * eye_to_mouth
    return np.stack([centre - x - y, centre - x + y, centre + x + y, centre + x - y])


def turned(vector: np.ndarray) -> np.ndarray:
    """Rotate by 90 degrees, clockwise in an image (whose y axis points down): right becomes down."""
    return np.array([-vector[1], vector[0]])


def side(quad: np.ndarray) -> float:
    """The side of a square in pixels."""
    return float(np.hypot(*(quad[3] - quad[0])))


def from_crop(quad: np.ndarray, size: float) -> np.ndarray:
    """(2, 3): the affine map from points of a ``size`` x ``size`` crop of ``quad`` to points of the photograph."""
    top_left, bottom_left, _, top_right = quad
    return np.stack([(top_right - top_left) / size, (bottom_left - top_left) / size, top_left], axis=1)


def inverse(matrix: np.ndarray) -> np.ndarray:
    """(2, 3) -> (2, 3): the inverse of an affine map."""
    linear = np.linalg.inv(matrix[:, :2])
    return np.column_stack([linear, -linear @ matrix[:, 2]])


def transform(matrix: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Apply a (2, 3) affine map to (N, 2) points."""
    return points @ matrix[:, :2].T + matrix[:, 2]


def warp(
    image: np.ndarray, matrix: np.ndarray, size: tuple[int, int], border: int = cv2.BORDER_REFLECT_101
) -> np.ndarray:
    """Resample an image by a similarity without aliasing.

    Where the image gets smaller, a whole multiple of the requested size is sampled bicubically and then reduced by
    MATLAB's antialiased bicubic: aligned crops are reduced in the same way as the models' training images.

    Args:
        image: (H, W, C), uint8, uint16 or float32.
        matrix: (2, 3), from points of the result to points of ``image``.
        size: Height and width of the result.
        border: OpenCV's border type for points beyond the image; by default it is mirrored, as in the FFHQ data set.

    Returns:
        (h, w, C), of the image's dtype.
    """
    multiple = max(1, int(np.ceil(np.sqrt(abs(np.linalg.det(matrix[:, :2]))) - 1e-6)))
    height, width = size[0] * multiple, size[1] * multiple
    corners = transform(matrix, np.array([[0, 0], [0, size[0]], [size[1], 0], size[::-1]], dtype=np.float64))
    mirrored = border == cv2.BORDER_REFLECT_101
    part, top = _part(image, 0, corners[:, 1], mirrored)
    part, left = _part(part, 1, corners[:, 0], mirrored)
    part = np.ascontiguousarray(part)
    pixel_indices = matrix.copy()  # as ``matrix``, from and to the indices of pixels instead of points
    pixel_indices[:, :2] /= multiple
    pixel_indices[:, 2] += pixel_indices[:, :2] @ [0.5, 0.5] - 0.5 - [left, top]
    flags = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
    out = cv2.warpAffine(part, pixel_indices, (width, height), flags=flags, borderMode=border)
    out = out.reshape(height, width, image.shape[2])
    return imresize(out, size=size) if multiple > 1 else out


def _part(image: np.ndarray, axis: int, coordinates: np.ndarray, mirrored: bool) -> tuple[np.ndarray, int]:
    """What resampling reads along an axis, and the index of its first pixel."""
    length = image.shape[axis]
    first, last = int(np.floor(coordinates.min())) - MARGIN, int(np.ceil(coordinates.max())) + MARGIN
    if mirrored and (first <= -length or last >= 2 * length):  # OpenCV 5 mirrors once only
        period = max(1, 2 * length - 2)
        indices = np.arange(first, last) % period
        return image.take(np.minimum(indices, period - indices), axis), first
    start, stop = _span(first, last, length)
    return image[(slice(None),) * axis + (slice(start, stop),)], start


def _span(first: int, last: int, length: int) -> tuple[int, int]:
    """First and last index of an axis from which ``first`` to ``last`` are made, the pixels mirrored at its ends."""
    before, after = max(0, -first), max(0, last - length)
    start, stop = max(0, min(first, length - after - 1)), min(length, max(last, before + 1))
    return start, stop


def align(photo: np.ndarray, quad: np.ndarray, size: int) -> np.ndarray:
    """Cut a square out of a photograph: (H, W, 3) -> (size, size, 3) of the same dtype, upright."""
    return warp(photo, from_crop(quad, size), (size, size))
