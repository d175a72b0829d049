"""What is made of raw images: the options of data preparation, and presets for published data sets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from glean_ext.errors import InputError, require_at_least, require_one_of
from glean_ext.utils.image_io import MAX_PIXELS

CROPS = ("center", "face", "none")
DUPLICATES = ("drop", "exact", "keep")
PADDINGS: dict[str, dict[str, Any]] = {  # arguments of numpy.pad
    "black": {"mode": "constant", "constant_values": 0},
    "white": {"mode": "constant", "constant_values": 255},
    "edge": {"mode": "edge"},
    "reflect": {"mode": "symmetric"},
}
FITS = ("stretch", *PADDINGS)

# Options of published data sets. What a preset leaves out has its usual default.
PRESETS: dict[str, dict[str, Any]] = {
    # Karras et al., CVPR 2019: 70,000 aligned PNG of 1024x1024. GLEAN trains on all of them as they are.
    "ffhq": {"size": (1024, 1024), "crop": "none", "split": 1.0, "duplicates": "keep"},
    # Karras et al., ICLR 2018: 1024x1024. GLEAN tests on 100 of them, which meta_info_CelebAHQ_val100_GT.txt names.
    "celebahq": {"size": (1024, 1024), "crop": "none", "split": 0.0, "duplicates": "keep"},
    # Yu et al., 2015. NVIDIA's data set tools crop LSUN cat to the middle square before the StyleGAN2 bank is trained.
    # MMagic's preprocess_cat_train_dataset.py stretches the whole image instead: crop none, fit stretch.
    "lsun-cat": {"size": (256, 256), "crop": "center", "split": 1.0},
    # The same tools crop LSUN car to 512x384 and pad it to a black square, which is what the 512x512 bank generates.
    "lsun-car": {"size": (512, 384), "crop": "center", "letterbox": True, "split": 1.0},
    # Zhang et al., ECCV 2008: photographs of cats. GLEAN tests on 100 of them, which meta_info_Cat100_GT.txt names;
    # MMagic's preprocess_cat_test_dataset.py stretches the whole image to 256x256.
    "cat": {"size": (256, 256), "crop": "none", "fit": "stretch", "split": 0.0, "duplicates": "keep"},
}


@dataclass(frozen=True)
class PreparationOptions:
    """How a data set is made.

    Attributes:
        size: Width and height in pixels.
        crop: ``'center'``: the largest central part with the aspect ratio of ``size``; ``'face'``: the largest face,
            aligned as in FFHQ; ``'none'``: the whole image.
        fit: How whole images of another aspect ratio get the size: ``'stretch'``, or what the border is filled with:
            ``'black'``, ``'white'``, ``'edge'``, ``'reflect'``. None: they are rejected.
        letterbox: Pad images that are not square to a black square.
        enlarge: Enlarge images that are too small. Otherwise they are rejected.
        split: Share of the training images, 0 to 1.
        seed: Selects the training images; another seed gives another split.
        duplicates: ``'drop'``: of images that show the same, one is kept; ``'exact'``: only copies with equal pixels
            are dropped, similar images get into the same split; ``'keep'``: copies with equal pixels are kept, too.
        lr_scale: Also write low-resolution images, smaller by this factor.
        lmdb: Write LMDB databases instead of folders.
        max_pixels: Images with more pixels are rejected: small files may hold huge images.

    Raises:
        InputError: A value is out of range, or two values contradict each other.
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
    max_pixels: int = MAX_PIXELS

    def __post_init__(self) -> None:
        require_one_of("crop", self.crop, CROPS)
        require_one_of("fit", self.fit or FITS[0], FITS)
        require_one_of("duplicates", self.duplicates, DUPLICATES)
        require_at_least("max_pixels", self.max_pixels, 1)
        if min(self.size) < 1:
            raise InputError(f"{{size}} is {_format(self.size)}, but both sides must be positive.", "size")
        if not 0 <= self.split <= 1:
            raise InputError(
                f"{{split}} is {self.split}, but it is the share of training images, 0 to 1. Give 0.99, for example.",
                "split",
            )
        if self.fit and self.crop != "none":
            raise InputError(
                f"{{fit}} is for whole images, but {{crop}} is {self.crop}.",
                parameter=("fit", "crop"),
                hint="Leave {fit} out, or set {crop=none}.",
            )
        if self.crop == "face" and self.size[0] != self.size[1]:
            raise InputError(
                f"Aligned faces are square, but {{size}} is {_format(self.size)}. Give one number.", "size"
            )
        if self.lr_scale is not None and (self.lr_scale < 2 or any(side % self.lr_scale for side in self.shape)):
            raise InputError(
                f"{{lr_scale}} is {self.lr_scale}, which does not divide {_format(self.shape)} into smaller whole "
                "pixels. Give a divisor of both sides.",
                "lr_scale",
            )

    @property
    def shape(self) -> tuple[int, int]:
        """Width and height of the images that are written."""
        return (max(self.size), max(self.size)) if self.letterbox else self.size

    @property
    def shapes(self) -> dict[str, tuple[int, int]]:
        """Width and height of the images in ``GT`` and, where they are written, of those in ``LQ``."""
        width, height = self.shape
        scale = self.lr_scale
        return {"GT": self.shape} | ({"LQ": (width // scale, height // scale)} if scale else {})

    def describe(self) -> dict[str, str]:
        """Each option that the images depend on, as text; what had too many pixels before is tried again."""
        options = {name: str(value) for name, value in vars(self).items() if name != "max_pixels"}
        return options | {"size": _format(self.size)}


def _format(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"
