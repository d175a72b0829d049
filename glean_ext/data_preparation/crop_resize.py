"""How a raw image becomes one of a given size: crop, resize, pad."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from glean_ext.data_preparation.options import PADDINGS, PreparationOptions
from glean_ext.size_requirements import Size, format_size
from glean_ext.utils.imresize import imresize

# Finds the largest face: (H, W, 3) uint8 and a size -> the aligned (size, size, 3) and its side in pixels of the image.
FaceCrop = Callable[[np.ndarray, int], "tuple[np.ndarray, float] | None"]


class RejectedImageError(Exception):
    """An image that cannot be used: the kind of reason, by which rejected images are counted, and a sentence."""

    def __init__(self, kind: str, reason: str):
        super().__init__(kind, reason)
        self.kind, self.reason = kind, reason


def crop_and_resize(image: np.ndarray, options: PreparationOptions, face_crop: FaceCrop | None = None) -> np.ndarray:
    """Crop, resize as MATLAB does and pad: (H, W, 3) uint8 -> (h, w, 3) uint8 of ``options.shape``.

    Raises:
        RejectedImageError: The image is too small, has another aspect ratio, one colour or no face.
    """
    width, height = options.size
    if options.crop == "face":
        assert face_crop is not None, "crop='face' needs a face_crop"
        found = face_crop(image, width)
        if found is None:
            raise RejectedImageError("no face", "no face was found")
        image, side = found
        _check_size((round(side), round(side)), options, "the face with its surroundings")
    elif options.crop == "center":
        image = _crop_center(image, options)
    else:
        _check_whole((image.shape[0], image.shape[1]), options)
    if (image == image[0, 0]).all():
        raise RejectedImageError("one colour", "all pixels have one colour")
    image = np.ascontiguousarray(image)
    if image.shape[:2] != (height, width):
        image = imresize(image, size=_inner_size(image, options) if options.fit in PADDINGS else (height, width))
        image = _pad(image, options.size, options.fit or "black")
    return _pad(image, options.shape, "black")


def _crop_center(image: np.ndarray, options: PreparationOptions) -> np.ndarray:
    h, w = image.shape[:2]
    width, height = options.size
    crop_h, crop_w = min(h, round(w * height / width)), min(w, round(h * width / height))
    _check_size((crop_h, crop_w), options, "it" if (crop_h, crop_w) == (h, w) else "the middle")
    top, left = (h - crop_h) // 2, (w - crop_w) // 2
    return image[top : top + crop_h, left : left + crop_w]


def _check_whole(size: Size, options: PreparationOptions) -> None:
    h, w = size
    width, height = options.size
    same_ratio = round(h * width / height) == w or round(w * height / width) == h
    if not same_ratio and options.fit is None:
        raise RejectedImageError(
            "other shape",
            f"it is {format_size(size)}, not of the shape {width}x{height}; crop='center' crops it, and fit pads it",
        )
    if options.fit in PADDINGS and (w >= width or h >= height):  # the longer side decides
        return
    _check_size(size, options, "it")


def _check_size(size: Size, options: PreparationOptions, what: str) -> None:
    width, height = options.size
    if (size[0] < height or size[1] < width) and not options.enlarge:
        raise RejectedImageError("too small", f"{what} is {format_size(size)}, smaller than {width}x{height}")


def _inner_size(image: np.ndarray, options: PreparationOptions) -> Size:
    """Height and width of the whole image when it just fits into ``options.size``."""
    h, w = image.shape[:2]
    zoom = min(options.size[0] / w, options.size[1] / h)
    return max(1, round(zoom * h)), max(1, round(zoom * w))


def _pad(image: np.ndarray, size: tuple[int, int], padding: str) -> np.ndarray:
    """Pad to (width, height), half on each side."""
    rows, columns = size[1] - image.shape[0], size[0] - image.shape[1]
    if not rows and not columns:
        return image
    around = (rows // 2, rows - rows // 2), (columns // 2, columns - columns // 2), (0, 0)
    return np.pad(image, around, **PADDINGS[padding])
