"""The soft mask of a face, and pasting a restored face into a photograph with it.

Masks lie over the aligned crop, so they do not depend on the size of the photograph or the model.
"""

from __future__ import annotations

import cv2
import numpy as np

from glean_ext.faces.alignment import from_crop, inverse, transform, warp
from glean_ext.faces.detection import Face
from glean_ext.inference.size_policy import size_of
from glean_ext.utils.array_conversion import blend

MASK_SIZE = 256  # pixels; side of the mask
FEATHER = 0.06  # width of the mask's soft edge in sides of the mask; half of it lies outside the face's outline

Array = np.ndarray


def face_mask(face: Face) -> Array:
    """(256, 256) float32 in [0, 1] over the aligned crop: 1 in the face, 0 outside, soft at its outline.

    Where a face reaches the border of the crop, beyond which there is nothing to paste, it is 0 there, and soft, too.
    """
    mask = smoothstep(signed_distance(cover(face, face.oval)) / (FEATHER * MASK_SIZE) + 0.5)
    column = np.arange(MASK_SIZE, dtype=np.float32)
    ramp = smoothstep(np.minimum(column, column[::-1]) / (FEATHER * MASK_SIZE))
    return np.minimum(mask, np.minimum(ramp, ramp[:, None]))


def cover(face: Face, polygon: Array) -> Array:
    """(256, 256) uint8: 1 where a polygon of the photograph, (N, 2), covers the face's aligned crop."""
    points = transform(inverse(from_crop(face.quad, MASK_SIZE)), polygon)
    inside = np.zeros((MASK_SIZE, MASK_SIZE), np.uint8)
    cv2.fillPoly(inside, [np.round(points - 0.5).astype(np.int32)], (1,))
    return inside


def scaled_oval(face: Face, side: float, top: float, bottom: float) -> Array:
    """(36, 2): the face's outline, stretched about its centre sideways, upwards and downwards, as the face lies."""
    x, y = (edge / np.hypot(*edge) for edge in (face.quad[3] - face.quad[0], face.quad[1] - face.quad[0]))
    centre = face.oval.mean(axis=0)
    across, down = (face.oval - centre) @ x, (face.oval - centre) @ y
    down = np.where(down < 0, top, bottom) * down
    return centre + side * across[:, None] * x + down[:, None] * y


def signed_distance(inside: Array) -> Array:
    """Distance to the outline in pixels, positive inside and negative outside."""
    distance = cv2.distanceTransform(inside, cv2.DIST_L2, 5) - cv2.distanceTransform(1 - inside, cv2.DIST_L2, 5)
    return distance - np.sign(distance) / 2  # OpenCV gives 1 and -1 to the pixels on either side of the outline


def smoothstep(ramp: Array) -> Array:
    """A smooth rise from 0 at 0 to 1 at 1."""
    ramp = np.clip(ramp, 0, 1)
    return ramp * ramp * (3 - 2 * ramp)


def paste(image: Array, restored: Array, face: Face, mask: Array, scale: float, opacity: float = 1) -> None:
    """Put a restored face back into ``image``, in place; only the box around the face is computed.

    Args:
        image: (H, W, 3) uint8 or uint16.
        restored: (S, S, 3) of the same dtype, the aligned face.
        face: In pixels of the photograph.
        mask: (M, M) float32 in [0, 1], over the aligned face.
        scale: Size of ``image`` in sizes of the photograph.
        opacity: Weight of ``restored`` where the mask is 1; ``image`` has the rest.
    """
    quad = face.quad * scale
    rows, columns = np.nonzero(mask)
    if not rows.size:  # another face hides it
        return
    used = np.array([(x, y) for x in (columns.min(), columns.max() + 1) for y in (rows.min(), rows.max() + 1)])
    corners = transform(from_crop(quad, len(mask)), used)
    left, top = np.floor(corners.min(axis=0)).astype(int).clip(0)
    right, bottom = np.ceil(corners.max(axis=0)).astype(int).clip(0)
    region = image[top:bottom, left:right]
    if not region.size:
        return
    quad = quad - [left, top]
    restored_there = warp(restored, inverse(from_crop(quad, len(restored))), size_of(region))
    mask_there = _warp_mask(mask, inverse(from_crop(quad, len(mask))), size_of(region))
    region[:] = blend(region, restored_there, opacity * mask_there[..., None])


def _warp_mask(mask: Array, matrix: Array, size: tuple[int, int]) -> Array:
    """The mask where the face is: bilinear, since it is smooth, and 0 beyond its borders."""
    pixel_indices = matrix.copy()
    pixel_indices[:, 2] += pixel_indices[:, :2] @ [0.5, 0.5] - 0.5
    return cv2.warpAffine(mask, pixel_indices, size[::-1], flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)
