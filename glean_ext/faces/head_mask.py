"""Hair and ears around a face, which are restored with it, and the colours where they end.

The mesh does not contain them. They lie within the outline of the head, and have the colours of the skin or of what is
above the forehead, rather than those of the background. (GFPGAN and CodeFormer take skin and ears from a parsing
network, and leave the hair as it is; no package has the weights of such a network with it.)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import cv2
import numpy as np

from glean_ext.faces.alignment import align
from glean_ext.faces.detection import Face
from glean_ext.faces.face_mask import MASK_SIZE, cover, scaled_oval, signed_distance, smoothstep
from glean_ext.faces.occlusion import MIN_PIXELS, averaged, connected, head_outline, log_likelihood
from glean_ext.inference.size_policy import size_of
from glean_ext.utils.array_conversion import to_8_bits
from glean_ext.utils.imresize import imresize

# Sizes in those of the face's oval: sideways, upwards and downwards from its centre.
HEAD = 1.6, 1.8, 1.0
ABOVE_FOREHEAD = 0.8, 1.3, 0.0  # hair, or skin where there is none
AROUND = 1.9, 2.1, 1.5  # outside of it is the background
FADE = 0.1  # width of the soft edge at the outline of the head, in sides of the mask
HEAD_PRIOR = 1.0  # log-odds
COLOUR_SIDE, COLOUR_BLUR = 64, 2.5  # pixels of the crop and deviation of the Gaussian that local colours are taken from

Array = np.ndarray


def with_hair_and_ears(
    mask: Array, face: Face, faces: Sequence[Face], photo: Array, smooth: Callable[[Array], Array] | None = None
) -> Array:
    """(256, 256) float32 in [0, 1] over the aligned crop: the mask of a face with the hair and the ears around it.

    Args:
        mask: Of the face, (256, 256); what others hide of it is 0 already.
        face: In pixels of the photograph.
        faces: All faces of the photograph; hair is not looked for where the head of another one may be.
        photo: (h, w, 3) uint8 or uint16 RGB.
        smooth: Gets what has the colours of the head, (256, 256) in [0, 1], and returns what is used instead.
    """
    free = cover(face, scaled_oval(face, *HEAD))
    for other in faces:
        if other is not face:
            free &= 1 - cover(face, head_outline(other))
    free[[0, -1]] = free[:, [0, -1]] = 0  # the crop has no pixels to paste beyond its border
    fading = smoothstep(signed_distance(free) / (FADE * MASK_SIZE))
    crop = align(to_8_bits(photo), face.quad, MASK_SIZE)
    head = _head(crop, face, mask)
    return np.maximum(mask, fading * (head if smooth is None else smooth(head)))


def _head(crop: Array, face: Face, mask: Array) -> Array:
    """(256, 256) in [0, 1]: which pixels have the colours of the head, as far as that can be said; softly.

    Args:
        crop: (256, 256, 3) uint8, the aligned crop.
    """
    oval = cover(face, face.oval) > 0
    hair = (cover(face, scaled_oval(face, *ABOVE_FOREHEAD)) > 0) & ~oval
    around = cover(face, scaled_oval(face, *AROUND)) == 0
    around[np.nonzero(oval.any(axis=1))[0].max(initial=0) :] = False  # shoulders
    skin = mask > 0.9
    if min(area.sum() for area in (skin, hair, around)) < MIN_PIXELS:
        return np.ones_like(mask)
    likely = np.maximum(log_likelihood(crop, skin), log_likelihood(crop, hair)) + HEAD_PRIOR
    is_head = oval | (likely > log_likelihood(crop, around))
    return averaged(connected(averaged(is_head) > 0.5, oval))


def with_local_colours(restored: Array, crop: Array, mask: Array) -> Array:
    """Give ``restored`` the local colours of ``crop`` where the mask is less than 1: no seam is seen where it ends.

    Args:
        restored: (S, S, 3) RGB, uint8 or uint16.
        crop: (s, s, 3) RGB, of the same dtype.
        mask: (M, M) float in [0, 1], of what keeps its colours.
    """
    size = (COLOUR_SIDE, COLOUR_SIDE)
    difference = imresize(crop, size=size).astype(np.float32) - imresize(restored, size=size)
    difference = (
        cv2.GaussianBlur(difference, (0, 0), COLOUR_BLUR) * (1 - imresize(mask, size=size).clip(0, 1))[..., None]
    )
    out = restored + cv2.resize(difference, size_of(restored)[::-1], interpolation=cv2.INTER_CUBIC)
    return np.clip(np.round(out), 0, np.iinfo(restored.dtype).max).astype(restored.dtype)
