"""Whole photographs: every face is found, aligned, restored and put back.

Points are (x, y) in pixels, as in :mod:`glean_ext.faces.detection`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import cv2
import numpy as np

from glean_ext.errors import InputError
from glean_ext.faces.alignment import align, from_crop, inverse, transform, warp
from glean_ext.faces.detection import Face, FaceFinder
from glean_ext.inference.size_policy import scaled, size_of
from glean_ext.size_requirements import SizeRequirements
from glean_ext.utils.array_conversion import PIXEL_TYPES
from glean_ext.utils.imresize import imresize

WHEN_NO_FACE = ("keep", "whole", "error")
MASK = 256  # pixels; side of the mask over the aligned crop
FEATHER = 0.06  # width of the mask's soft edge, half of it outside the face's outline, in sides of the crop
GAINS = (0.5, 2.0)  # bounds of the factor by which matching colours changes contrast
# RGB -> Y, Cb, Cr (ITU-R BT.601): light and colour are matched apart, and the map is linear.
YCBCR = np.array([[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]])

Array = np.ndarray


class FaceModel(Protocol):
    """What restores an aligned face; :class:`glean_ext.inference.image_restorer.ImageRestorer` is one."""

    takes: SizeRequirements

    def restore(self, rgb: Array) -> Array:
        """(h, w, 3) -> (H, W, 3) RGB of one dtype; a crop of the size it takes gets ``takes.scale`` times larger."""


@dataclass(frozen=True, eq=False)
class RestoredFace:
    """A face that was put back.

    Attributes:
        face: Where it is, in pixels of the input.
        crop: (s, s, 3) RGB, what the model was given; None unless asked for by ``save_faces``.
        restored: (S, S, 3) RGB, what it made of it, with the colours matched; None as above.
    """

    face: Face
    crop: Array | None = None
    restored: Array | None = None


@dataclass(frozen=True, eq=False)
class PhotoResult:
    """A restored photograph.

    Attributes:
        image: (H, W, 3) RGB, uint8 or uint16 as the input.
        faces: From left to right.
        notice: One line when the photograph was not treated as asked: there was no face.
    """

    image: Array
    faces: tuple[RestoredFace, ...] = ()
    notice: str | None = None


class PhotoRestorer:
    """Restores the faces of photographs. Making one is cheap when a ``finder`` is given.

    A face whose aligned square is larger in the photograph than the model's input is reduced to that, and the model
    invents anew what is lost: with a network that invents nothing, 175 pixels come back from 512 with 42 dB, from 128
    with 34 dB, from 64 with 28 dB. ``fidelity`` keeps some of the input.

    Args:
        restorer: The model of aligned faces.
        outscale: Size of the result in sizes of the photograph; ``'model'`` is the model's scale (16 for 64 -> 1024).
        fidelity: In [0, 1]: share of the input in the faces of the result. 0 is the restoration, 1 the input.
        only_center_face: Restore only the face nearest to the photograph's centre.
        aligned: Inputs are aligned faces: no face is looked for, everything is restored, and the result has the size
            the model makes.
        min_face: Smaller faces, in pixels of the input, are left alone; None as in :meth:`FaceFinder.find`.
        max_faces: Photographs with more faces are refused; None: any number is restored.
        when_no_face: ``'keep'``: only the background is treated. ``'whole'``: the photograph is given to the model as
            it is. ``'error'``: InputError.
        background: Makes a photograph larger, or just better: (h, w, 3) -> (H, W, 3) RGB of one dtype. Its result is
            resized to the output's size. None is MATLAB's bicubic.
        match_colours: Give restored faces the colours of the input: mean and deviation of Y, Cb and Cr.
        save_faces: Keep the crops in the result: about 3 MB a face at 1024x1024.
        face_size: Side of the aligned crops in pixels, for models that take any size; None: what it was trained with.
        batch: Crops that are cut and restored before they are put back.
        restore_batch: Restores several crops at once; None calls ``restorer.restore`` for each.
        finder: A :class:`FaceFinder` to share; None makes one.

    Raises:
        InputError: An argument that cannot be used, or mediapipe is not installed.
    """

    def __init__(
        self,
        restorer: FaceModel,
        outscale: float | Literal["model"] = 1,
        fidelity: float = 0,
        only_center_face: bool = False,
        aligned: bool = False,
        min_face: float | None = None,
        max_faces: int | None = None,
        when_no_face: Literal["keep", "whole", "error"] = "keep",
        background: Callable[[Array], Array] | None = None,
        match_colours: bool = True,
        save_faces: bool = False,
        face_size: int | None = None,
        batch: int = 8,
        restore_batch: Callable[[Sequence[Array]], Sequence[Array]] | None = None,
        finder: FaceFinder | None = None,
    ):
        if not 0 <= fidelity <= 1:
            raise InputError(f"fidelity is {fidelity}, but it must lie in [0, 1]: 0 restores, 1 keeps the input.")
        if outscale != "model" and not (isinstance(outscale, (int, float)) and 0 < outscale < np.inf):
            raise InputError(f"outscale is {outscale!r}, but it must be a positive number or 'model'.")
        if when_no_face not in WHEN_NO_FACE:
            raise InputError(f"when_no_face is {when_no_face!r}, but it must be one of {', '.join(WHEN_NO_FACE)}.")
        if min_face is not None and not min_face > 0:
            raise InputError(f"min_face is {min_face}, but it is the side of a face in pixels. Give a positive number.")
        if max_faces is not None and max_faces < 1:
            raise InputError(f"max_faces is {max_faces}, but it must be at least 1.")
        if batch < 1:
            raise InputError(f"batch is {batch}, but it must be at least 1.")
        if getattr(getattr(restorer, "size_policy", None), "fit", None) == "crop":
            raise InputError(
                "fit is 'crop', but faces are put back into whole photographs. Leave it out (--fit, in Python: fit)."
            )
        self.restorer = restorer
        self.size = 0 if aligned else crop_size(restorer.takes, face_size)
        self.outscale = outscale
        self.fidelity = fidelity
        self.only_center_face = only_center_face
        self.aligned = aligned
        self.min_face = min_face
        self.max_faces = max_faces
        self.when_no_face = when_no_face
        self.background = background
        self.match_colours = match_colours
        self.save_faces = save_faces
        self.batch = batch
        self.restore_batch = restore_batch or (lambda crops: [restorer.restore(crop) for crop in crops])
        self.finder = finder if finder or aligned else FaceFinder()

    def restore(
        self,
        rgb: Array,
        name: str = "the photo",
        progress: Callable[[int, int], None] | None = None,
        faces: Sequence[Face] | None = None,
    ) -> PhotoResult:
        """Restore a photograph.

        Args:
            rgb: (h, w, 3) uint8 or uint16 RGB.
            name: What errors and notices call it.
            progress: Is told after each batch how many faces of how many are done.
            faces: What :meth:`find` found in it, perhaps in another thread; None: it is called.

        Returns:
            The result. Its image has round(h * outscale) rows and round(w * outscale) columns, unless ``aligned``.

        Raises:
            InputError: No face, and ``when_no_face`` is ``'error'``; more than ``max_faces``; a result of more pixels
                than Pillow would read.
            TypeError: No (h, w, 3) uint8 or uint16 array.
        """
        if rgb.dtype not in PIXEL_TYPES or rgb.ndim != 3 or rgb.shape[2] != 3 or not rgb.size:
            raise TypeError(f"restore takes (h, w, 3) uint8 or uint16 RGB, but got {rgb.shape} {rgb.dtype}.")
        if self.aligned:
            restored = self.restorer.restore(rgb)
            return PhotoResult(blend(imresize(rgb, size=size_of(restored)), restored, 1 - self.fidelity))
        scale = self.restorer.takes.scale if self.outscale == "model" else self.outscale
        size = scaled(size_of(rgb), scale, name)
        faces = self.find(rgb, name) if faces is None else faces
        if not faces:
            return self._without_faces(rgb, size, name)
        image = self._background(rgb, size)
        done: list[RestoredFace] = []
        for start in range(0, len(faces), self.batch):
            part = faces[start : start + self.batch]
            crops = [align(rgb, face.quad, self.size) for face in part]
            for face, crop, restored in zip(part, crops, self.restore_batch(crops), strict=True):
                mask = face_mask(face)
                if self.match_colours:
                    restored = match_colours(restored, crop, mask)
                paste(image, restored, face, mask, scale, 1 - self.fidelity)
                done.append(RestoredFace(face, crop, restored) if self.save_faces else RestoredFace(face))
            if progress is not None:
                progress(len(done), len(faces))
        return PhotoResult(image, tuple(done))

    def find(self, rgb: Array, name: str = "the photo") -> list[Face]:
        """The faces to restore; any thread may ask.

        Raises:
            InputError: There are more than ``max_faces``.
        """
        if self.finder is None:
            return []
        faces = self.finder.find(rgb if rgb.dtype == np.uint8 else (rgb // 257).astype(np.uint8), self.min_face)
        if self.max_faces is not None and len(faces) > self.max_faces and not self.only_center_face:
            raise InputError(
                f"{name} has {len(faces)} faces, more than {self.max_faces}. Raise --min-face, which leaves small ones "
                "alone, or --max-faces (in Python: min_face, max_faces)."
            )
        if self.only_center_face and faces:
            centre = np.array([rgb.shape[1], rgb.shape[0]]) / 2
            faces = [min(faces, key=lambda face: np.hypot(*(face.box.reshape(2, 2).mean(axis=0) - centre)))]
        return faces

    def _without_faces(self, rgb: Array, size: tuple[int, int], name: str) -> PhotoResult:
        if self.when_no_face == "error":
            raise InputError(
                f"{name}: no face was found. Lower min_face if faces are small; an aligned face needs --aligned."
            )
        image = self._background(rgb, size)
        if self.when_no_face == "keep":
            return PhotoResult(image, notice=f"{name}: no face was found; nothing was restored.")
        restored = imresize(self.restorer.restore(rgb), size=size)
        image = blend(image, restored, 1 - self.fidelity)
        return PhotoResult(image, notice=f"{name}: no face was found; it was restored as a whole.")

    def _background(self, rgb: Array, size: tuple[int, int]) -> Array:
        image = self.background(rgb) if self.background else rgb
        if image.dtype != rgb.dtype or image.ndim != 3 or image.shape[2] != 3:
            raise TypeError(f"background must return (H, W, 3) {rgb.dtype} RGB, but made {image.shape} {image.dtype}.")
        return imresize(image, size=size)  # a copy when it has that size


def crop_size(takes: SizeRequirements, face_size: int | None) -> int:
    """Side of the aligned crops for a model.

    Raises:
        InputError: The model does not take squares of that size.
    """
    size = takes.nominal if face_size is None else (face_size, face_size)
    if size[0] != size[1]:
        raise InputError(f"Aligned faces are square, but the model takes {takes}. Use a model of faces.")
    if not takes.accept(size):
        raise InputError(f"face_size is {face_size}, but the model takes {takes}. Leave face_size out.")
    return size[0]


def face_mask(face: Face) -> Array:
    """(256, 256) float32 in [0, 1] over the aligned crop: 1 in the face, 0 outside, soft at its outline."""
    outline = transform(inverse(from_crop(face.quad, MASK)), face.oval)
    inside = np.zeros((MASK, MASK), np.uint8)
    cv2.fillPoly(inside, [np.round(outline - 0.5).astype(np.int32)], (1,))
    inside[[0, -1]] = inside[:, [0, -1]] = 0  # nothing to paste beyond the crop
    distance = cv2.distanceTransform(inside, cv2.DIST_L2, 5) - cv2.distanceTransform(1 - inside, cv2.DIST_L2, 5)
    distance -= np.sign(distance) / 2  # it is 1 and -1 at pixels on either side of the outline
    ramp = np.clip(distance / (FEATHER * MASK) + 0.5, 0, 1)
    return ramp * ramp * (3 - 2 * ramp)


def match_colours(restored: Array, crop: Array, mask: Array) -> Array:
    """Give ``restored`` the mean and deviation, in Y, Cb and Cr, that ``crop`` has under the mask.

    They are compared at the size of ``crop``: so the detail that was added does not count as contrast.

    Source: Reinhard et al., "Color Transfer between Images", IEEE CG&A 2001, in another colour space.

    Args:
        restored: (S, S, 3) RGB, uint8 or uint16.
        crop: (s, s, 3) RGB, of the same dtype.
        mask: (M, M) float.

    Returns:
        As ``restored``.
    """
    size = size_of(crop)
    weights = imresize(mask, size=size).clip(0)[..., None]
    if not weights.sum() > 0:
        return restored
    weights = weights / weights.sum()

    def statistics(image: Array) -> tuple[Array, Array]:
        pixels = image @ YCBCR.T
        mean = (pixels * weights).sum(axis=(0, 1))
        return mean, np.sqrt(((pixels - mean) ** 2 * weights).sum(axis=(0, 1)))

    mean, deviation = statistics(imresize(restored, size=size))
    target_mean, target_deviation = statistics(crop)
    step = np.iinfo(restored.dtype).max / 255
    gain = np.where(deviation > step, np.clip(target_deviation / np.maximum(deviation, step), *GAINS), 1.0)
    to_rgb = np.linalg.inv(YCBCR)
    linear = (to_rgb * gain) @ YCBCR
    shift = to_rgb @ (target_mean - gain * mean)
    return cv2.transform(restored, np.column_stack([linear, shift]))  # rounds and clips


def paste(image: Array, restored: Array, face: Face, mask: Array, scale: float, share: float = 1) -> None:
    """Put a restored face back into ``image``, in place; only the box around it is looked at.

    Args:
        image: (H, W, 3) uint8 or uint16.
        face: In pixels of the photograph.
        restored: (S, S, 3) of the same dtype, the aligned face.
        mask: (M, M) float32 in [0, 1], over the aligned face.
        scale: Of ``image`` to the photograph.
        share: Of ``restored`` where the mask is 1; the rest is ``image``.
    """
    quad = face.quad * scale
    rows, columns = np.nonzero(mask)
    used = np.array([(x, y) for x in (columns.min(), columns.max() + 1) for y in (rows.min(), rows.max() + 1)])
    corners = transform(from_crop(quad, len(mask)), used)
    left, top = np.floor(corners.min(axis=0)).astype(int).clip(0)
    right, bottom = np.ceil(corners.max(axis=0)).astype(int).clip(0)
    region = image[top:bottom, left:right]
    if not region.size:
        return
    quad = quad - [left, top]
    there = warp(restored, inverse(from_crop(quad, len(restored))), size_of(region))
    mask_there = _placed(mask, inverse(from_crop(quad, len(mask))), size_of(region))
    region[:] = blend(region, there, share * mask_there[..., None])


def _placed(mask: Array, matrix: Array, size: tuple[int, int]) -> Array:
    """The mask where the face is: bilinear, as it is smooth, and 0 beyond its borders."""
    centres = matrix.copy()
    centres[:, 2] += centres[:, :2] @ [0.5, 0.5] - 0.5
    return cv2.warpAffine(mask, centres, size[::-1], flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)


def blend(image: Array, other: Array, share: Array | float) -> Array:
    """``image`` with the share of ``other`` in it, both uint8 or uint16; where that is 0 exactly ``image``."""
    mixed = image + np.float32(share) * (other.astype(np.float32) - image)
    return np.clip(np.round(mixed), 0, np.iinfo(image.dtype).max).astype(image.dtype)
