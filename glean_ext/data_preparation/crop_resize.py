"""How a raw image becomes one of a given size, and what the published data sets want."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from glean_ext.errors import InputError
from glean_ext.utils.imresize import imresize

CROPS = ("center", "face", "none")
DUPLICATES = ("drop", "exact", "keep")
PADDINGS: dict[str, dict[str, Any]] = {
    "black": {"mode": "constant", "constant_values": 0},
    "white": {"mode": "constant", "constant_values": 255},
    "edge": {"mode": "edge"},
    "reflect": {"mode": "symmetric"},
}
FITS = ("stretch", *PADDINGS)

# Finds the largest face: (H, W, 3) uint8 and a size -> the aligned (size, size, 3) and its side in pixels of the image.
FaceCrop = Callable[[np.ndarray, int], "tuple[np.ndarray, float] | None"]

# Options of the published data sets. What a preset does not say has its usual default.
PRESETS: dict[str, dict[str, Any]] = {
    # Karras et al., CVPR 2019: 70,000 aligned PNG of 1024x1024. GLEAN trains on all of them as they are.
    "ffhq": {"size": (1024, 1024), "crop": "none", "split": 1.0, "duplicates": "keep"},
    # Karras et al., ICLR 2018: 1024x1024. GLEAN tests on 100 of them, which meta_info_CelebAHQ_val100_GT.txt names.
    "celebahq": {"size": (1024, 1024), "crop": "none", "split": 0.0, "duplicates": "keep"},
    # Yu et al., 2015. NVIDIA's data set tools cut the middle square out of LSUN cat before the StyleGAN2 bank is
    # trained. MMagic's preprocess_cat_train_dataset.py squeezes the whole image instead: crop none, fit stretch.
    "lsun-cat": {"size": (256, 256), "crop": "center", "split": 1.0},
    # The same tools cut LSUN car to 512x384 and lay it on a black square, which is what the 512x512 bank draws.
    "lsun-car": {"size": (512, 384), "crop": "center", "letterbox": True, "split": 1.0},
    # Zhang et al., ECCV 2008: photographs of cats. GLEAN tests on 100 of them, which meta_info_Cat100_GT.txt names;
    # MMagic's preprocess_cat_test_dataset.py squeezes the whole image to 256x256.
    "cat": {"size": (256, 256), "crop": "none", "fit": "stretch", "split": 0.0, "duplicates": "keep"},
}


class Unusable(Exception):
    """Why an image is rejected: in a word, by which rejects are counted, and in a sentence."""

    def __init__(self, kind: str, reason: str):
        super().__init__(kind, reason)
        self.kind, self.reason = kind, reason


@dataclass(frozen=True)
class Options:
    """What is made of the images. The manifest of an output folder holds them.

    Attributes:
        size: Width and height.
        crop: ``'center'``: the largest part of the middle that has the shape of ``size``; ``'face'``: the largest face,
            aligned as in FFHQ; ``'none'``: the whole image.
        fit: What becomes of whole images of another shape than ``size``: ``'stretch'``, or how the rest is filled:
            ``'black'``, ``'white'``, ``'edge'``, ``'reflect'``. None: they are rejected.
        letterbox: Lay images that are not square on a black square.
        enlarge: Enlarge images that are too small. Without, they are rejected.
        split: Share of the training images.
        seed: Another one splits differently.
        duplicates: ``'drop'``: one image of those that show the same stays; ``'exact'``: copies with equal pixels go,
            similar ones get into the same split; ``'keep'``: equal ones, too.
        lr_scale: Make low-resolution images, so many times smaller.
        lmdb: Write LMDB databases instead of folders.

    Raises:
        InputError: A value is out of range, or values do not go together.
    """

    size: tuple[int, int]
    crop: str = "center"
    fit: str | None = None
    letterbox: bool = False
    enlarge: bool = False
    split: float = 0.99
    seed: int = 0
    duplicates: str = "drop"
    lr_scale: int | None = None
    lmdb: bool = False

    def __post_init__(self) -> None:
        for name, allowed in ("crop", CROPS), ("fit", (None, *FITS)), ("duplicates", DUPLICATES):
            if getattr(self, name) not in allowed:
                choices = ", ".join(str(choice) for choice in allowed if choice)
                raise InputError(f"{name} is {getattr(self, name)!r}, but it must be one of {choices}.")
        if min(self.size) < 1:
            raise InputError(f"size is {show(self.size)}, but both sides must be positive.")
        if not 0 <= self.split <= 1:
            raise InputError(f"split is {self.split}, but it is the share of training images, 0 to 1. Give 0.99, say.")
        if self.fit and self.crop != "none":
            raise InputError(f"fit is for whole images, but crop is {self.crop}. Leave fit out, or give --crop none.")
        if self.crop == "face" and self.size[0] != self.size[1]:
            raise InputError(f"aligned faces are square, but size is {show(self.size)}. Give one number.")
        width, height = self.shape
        if self.lr_scale is not None and (self.lr_scale < 2 or width % self.lr_scale or height % self.lr_scale):
            raise InputError(
                f"lr_scale is {self.lr_scale}, which does not divide {width}x{height} into smaller whole pixels. "
                "Give a divisor of both sides."
            )

    @property
    def shape(self) -> tuple[int, int]:
        """Width and height of the images that are written."""
        return (max(self.size), max(self.size)) if self.letterbox else self.size


def show(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"


def frame(image: np.ndarray, options: Options, face_crop: FaceCrop | None = None) -> np.ndarray:
    """Cut, resize as MATLAB does and pad: (H, W, 3) uint8 -> (h, w, 3) uint8 of ``options.shape``.

    Raises:
        Unusable: The image is too small, has another shape, one colour or no face.
    """
    width, height = options.size
    if options.crop == "face":
        assert face_crop is not None, "frame needs a face_crop for crop='face'"
        found = face_crop(image, width)
        if found is None:
            raise Unusable("no face", "no face was found")
        image, side = found
        _check_size((round(side), round(side)), options, "the face with its surroundings")
    elif options.crop == "center":
        image = _middle(image, options)
    else:
        image = _whole(image, options)
    if (image == image[0, 0]).all():
        raise Unusable("one colour", "all pixels have one colour")
    image = np.ascontiguousarray(image)
    if image.shape[:2] != (height, width):
        image = imresize(image, size=_inside(image, options) if options.fit in PADDINGS else (height, width))
        image = _pad(image, options.size, options.fit or "black")
    return _pad(image, options.shape, "black")


def _middle(image: np.ndarray, options: Options) -> np.ndarray:
    h, w = image.shape[:2]
    width, height = options.size
    part_w = min(w, round(h * width / height))
    part_h = min(h, round(w * height / width))
    _check_size((part_w, part_h), options, "the middle" if (part_w, part_h) != (w, h) else "it")
    top, left = (h - part_h) // 2, (w - part_w) // 2
    return image[top : top + part_h, left : left + part_w]


def _whole(image: np.ndarray, options: Options) -> np.ndarray:
    h, w = image.shape[:2]
    width, height = options.size
    same_shape = round(h * width / height) == w or round(w * height / width) == h
    if not same_shape and options.fit is None:
        raise Unusable(
            "other shape", f"it is {w}x{h}, not of the shape {show(options.size)}: --crop center cuts, --fit fills up"
        )
    if options.fit in PADDINGS and (w >= width or h >= height):  # the longer side decides
        return image
    _check_size((w, h), options, "it")
    return image


def _check_size(size: tuple[int, int], options: Options, what: str) -> None:
    if (size[0] < options.size[0] or size[1] < options.size[1]) and not options.enlarge:
        raise Unusable("too small", f"{what} is {show(size)}, smaller than {show(options.size)}")


def _inside(image: np.ndarray, options: Options) -> tuple[int, int]:
    """Height and width of the image when it just fits into the size."""
    h, w = image.shape[:2]
    zoom = min(options.size[0] / w, options.size[1] / h)
    return max(1, round(zoom * h)), max(1, round(zoom * w))


def _pad(image: np.ndarray, size: tuple[int, int], padding: str) -> np.ndarray:
    rows, columns = size[1] - image.shape[0], size[0] - image.shape[1]
    if not rows and not columns:
        return image
    around = (rows // 2, rows - rows // 2), (columns // 2, columns - columns // 2), (0, 0)
    return np.pad(image, around, **PADDINGS[padding])
