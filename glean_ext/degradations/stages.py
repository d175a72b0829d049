"""The stages of a degradation: each is data, checked when it is made, and a function of an image and a generator.

Images are (h, w, 3) float32, RGB in [0, 255]; results may leave that range, and the recipe clips them at its end. A
range is (lowest, highest); values are drawn uniformly from it.
"""

from __future__ import annotations

import io
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import cv2
import numpy as np
from numpy.random import Generator
from PIL import Image

from glean_ext.degradations import kernels
from glean_ext.errors import InputError
from glean_ext.utils.imresize import imresize

Array = np.ndarray
Size = tuple[int, int]  # height, width
Range = tuple[float, float]

INTERPOLATIONS = {"bilinear": cv2.INTER_LINEAR, "area": cv2.INTER_AREA, "bicubic": cv2.INTER_CUBIC}
KERNELS = (
    *("iso", "aniso", "generalized_iso", "generalized_aniso", "plateau_iso", "plateau_aniso"),
    "sinc",
)
MODES = ("up", "down", "keep")


class Sizes(NamedTuple):
    """Height and width of the sharp image that a recipe starts from, and of its result."""

    gt: Size
    out: Size


@dataclass(frozen=True, kw_only=True)
class Stage(ABC):
    """A step that is taken with probability ``prob``."""

    prob: float = 1.0

    def __post_init__(self) -> None:
        self.check()

    def check(self) -> None:
        """Raise InputError for an argument that is out of range."""
        self.require_range("prob", (self.prob, self.prob), 0, 1)

    def require(self, name: str, holds: bool, rule: str) -> None:
        if not holds:
            raise InputError(f"{type(self).__name__}.{name} is {getattr(self, name)!r}, but it must be {rule}.")

    def require_range(self, name: str, values: Range, least: float, most: float) -> None:
        """``values`` is a (lowest, highest) within [least, most]."""
        holds = len(values) == 2 and least <= values[0] <= values[1] <= most
        self.require(name, holds, f"between {least:g} and {most:g}, the lowest first")

    def require_shares(self, name: str, shares: Sequence[float], count: int) -> None:
        """``shares`` are ``count`` probabilities."""
        holds = len(shares) == count and min(shares, default=0) >= 0 and abs(sum(shares) - 1) < 1e-6
        self.require(name, holds, f"{count} probabilities with the sum 1")

    def __call__(self, image: Array, sizes: Sizes, rng: Generator) -> Array:
        return self.apply(image, sizes, rng) if rng.random() < self.prob else image

    @abstractmethod
    def apply(self, image: Array, sizes: Sizes, rng: Generator) -> Array:
        """The image, degraded. (h, w, 3) -> (h', w', 3)"""


@dataclass(frozen=True, kw_only=True)
class Blur(Stage):
    """Filtering by a random kernel (:mod:`.kernels`); beyond its border the image is mirrored.

    ``..._iso`` kernels are round. ``beta`` of the generalised ones is below 1 for a half of the images.
    """

    kinds: Mapping[str, float]  # of KERNELS -> probability
    size: Sequence[int] = (41,)  # pixels, odd; one of them is taken
    sigma: Range = (0.2, 10.0)  # pixels
    beta_gaussian: Range = (0.5, 4.0)  # of generalised kernels
    beta_plateau: Range = (1.0, 2.0)  # of plateau kernels
    cutoff: Range | None = None  # of sinc kernels, radians; None: from pi / 3 on, for 13 pixels or more from pi / 5 on

    def check(self) -> None:
        super().check()
        self.require("kinds", set(self.kinds) <= set(KERNELS), f"of {', '.join(KERNELS)}")
        self.require_shares("kinds", list(self.kinds.values()), len(self.kinds))
        self.require("size", len(self.size) > 0 and all(n % 2 and n > 0 for n in self.size), "odd numbers")
        self.require_range("sigma", self.sigma, 1e-3, 1000)
        self.require_range("beta_gaussian", self.beta_gaussian, 0.01, 100)
        self.require_range("beta_plateau", self.beta_plateau, 0.01, 100)
        if self.cutoff is not None:
            self.require_range("cutoff", self.cutoff, 1e-3, float(np.pi))

    def kernel(self, rng: Generator) -> Array:
        """A random kernel: (size, size), float64, its sum is 1."""
        kind = rng.choice(list(self.kinds), p=list(self.kinds.values()))
        size = int(rng.choice(self.size))
        if kind == "sinc":
            default = (np.pi / (3 if size < 13 else 5), np.pi)
            return kernels.sinc(size, rng.uniform(*(self.cutoff or default)))
        sigma_x, sigma_y, angle = rng.uniform(*self.sigma), rng.uniform(*self.sigma), rng.uniform(-np.pi, np.pi)
        if kind.endswith("_iso") or kind == "iso":
            sigma_y = sigma_x
        if kind.startswith("plateau"):
            return kernels.plateau(size, sigma_x, sigma_y, angle, _around_one(self.beta_plateau, rng))
        beta = _around_one(self.beta_gaussian, rng) if kind.startswith("generalized") else 1.0
        return kernels.gaussian(size, sigma_x, sigma_y, angle, beta)

    def apply(self, image: Array, sizes: Sizes, rng: Generator) -> Array:
        return cv2.filter2D(image, -1, kernels.trimmed(self.kernel(rng)), borderType=cv2.BORDER_REFLECT_101)


@dataclass(frozen=True, kw_only=True)
class Resize(Stage):
    """Resizing by OpenCV, whose bilinear and bicubic interpolation alias: unknown software did that, too."""

    scale: Range = (1.0, 1.0)  # new size in sizes of ``of``
    divide: bool = False  # ``scale`` divides instead: small images are rarer
    modes: Sequence[float] | None = None  # probabilities of up (1 to the highest), down and keep; None: of all scales
    of: str = "image"  # 'image' as it is now, 'gt' or 'out'
    interpolations: Sequence[str] = tuple(INTERPOLATIONS)  # one of them is taken

    def check(self) -> None:
        super().check()
        self.require_range("scale", self.scale, 1e-3, 1000)
        self.require("of", self.of in ("image", "gt", "out"), "'image', 'gt' or 'out'")
        known = bool(self.interpolations) and set(self.interpolations) <= set(INTERPOLATIONS)
        self.require("interpolations", known, f"of {', '.join(INTERPOLATIONS)}")
        if self.modes is not None:
            self.require_shares("modes", self.modes, len(MODES))
            self.require("scale", self.scale[0] <= 1 <= self.scale[1], "around 1 where there are modes")

    def draw_scale(self, rng: Generator) -> float:
        low, high = self.scale
        if self.modes is not None:
            mode = rng.choice(MODES, p=self.modes)
            low, high = {"up": (1, high), "down": (low, 1), "keep": (1, 1)}[mode]
        scale = rng.uniform(low, high)
        return 1 / scale if self.divide else scale

    def apply(self, image: Array, sizes: Sizes, rng: Generator) -> Array:
        scale, interpolation = self.draw_scale(rng), rng.choice(self.interpolations)
        base = image.shape[:2] if self.of == "image" else getattr(sizes, self.of)
        return resized(image, (max(1, int(base[0] * scale)), max(1, int(base[1] * scale))), str(interpolation))


@dataclass(frozen=True, kw_only=True)
class Bicubic(Stage):
    """MATLAB's antialiased bicubic to the size of the result, in 8 bits; what published GLEANs were trained on."""

    def apply(self, image: Array, sizes: Sizes, rng: Generator) -> Array:
        return imresize(to_uint8(image), size=sizes.out).astype(np.float32)


@dataclass(frozen=True, kw_only=True)
class Noise(Stage):
    """Gaussian or Poisson noise, of each channel or of all alike.

    The Poisson noise is Real-ESRGAN's: of as many photons, at white, as the image has levels, rounded up to a power of
    two. MMagic's ``RandomNoise`` counts them per level, so its noise is a sixteenth of that.
    """

    sigma: Range = (0.0, 50.0)  # of Gaussian noise, in levels of 255
    poisson: Range = (0.05, 3.0)  # factors of Poisson noise
    poisson_prob: float = 0.0  # probability of Poisson noise
    gray_prob: float = 0.0  # probability that all channels have the same noise

    def check(self) -> None:
        super().check()
        self.require_range("sigma", self.sigma, 0, 255)
        self.require_range("poisson", self.poisson, 0, 100)
        for name in "poisson_prob", "gray_prob":
            self.require_range(name, (getattr(self, name),) * 2, 0, 1)

    def apply(self, image: Array, sizes: Sizes, rng: Generator) -> Array:
        gray = rng.random() < self.gray_prob
        if rng.random() < self.poisson_prob:
            noise = _poisson(luminance(image) if gray else image, rng) * np.float32(rng.uniform(*self.poisson))
        else:
            shape = (*image.shape[:2], 1) if gray else image.shape
            noise = rng.standard_normal(shape, dtype=np.float32) * np.float32(rng.uniform(*self.sigma))
        return np.clip(image + noise, 0, 255)


@dataclass(frozen=True, kw_only=True)
class JPEG(Stage):
    """Compression by libjpeg with 4:2:0 chroma; the image is rounded to 8 bits."""

    quality: Range = (5, 50)  # 1 to 100

    def check(self) -> None:
        super().check()
        self.require_range("quality", self.quality, 1, 100)

    def apply(self, image: Array, sizes: Sizes, rng: Generator) -> Array:
        file = io.BytesIO()
        Image.fromarray(to_uint8(image)).save(
            file, "JPEG", quality=round(rng.uniform(*self.quality)), subsampling="4:2:0"
        )
        return np.asarray(Image.open(file), dtype=np.float32)


@dataclass(frozen=True, kw_only=True)
class Gray(Stage):
    """Luminance (BT.601) in all three channels."""

    def apply(self, image: Array, sizes: Sizes, rng: Generator) -> Array:
        return np.repeat(luminance(image), 3, 2)


@dataclass(frozen=True, kw_only=True)
class OneOf(Stage):
    """One of several orders of stages, all as likely."""

    choices: Sequence[Sequence[Stage]] = field(default_factory=tuple)

    def check(self) -> None:
        super().check()
        self.require("choices", len(self.choices) > 0, "one or more lists of stages")

    def apply(self, image: Array, sizes: Sizes, rng: Generator) -> Array:
        for stage in self.choices[int(rng.integers(len(self.choices)))]:
            image = stage(image, sizes, rng)
        return image


def luminance(image: Array) -> Array:
    """ITU-R BT.601's, of gamma-encoded RGB, as JPEG's Y: (h, w, 3) -> (h, w, 1)"""
    return cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)[..., None]


def to_uint8(image: Array) -> Array:
    """Rounded to whole levels in [0, 255]."""
    return np.rint(np.clip(image, 0, 255)).astype(np.uint8)


def resized(image: Array, size: Size, interpolation: str) -> Array:
    """(h, w, 3) -> (*size, 3) by one of :data:`INTERPOLATIONS`."""
    return cv2.resize(image, size[::-1], interpolation=INTERPOLATIONS[interpolation])


def _around_one(values: Range, rng: Generator) -> float:
    """Below 1 for a half, above for the other."""
    low, high = values
    if not low < 1 < high:
        return rng.uniform(low, high)
    return rng.uniform(low, 1) if rng.random() < 0.5 else rng.uniform(1, high)


def _poisson(image: Array, rng: Generator) -> Array:
    """Poisson noise of (h, w, C) in [0, 255], in the same unit."""
    levels = to_uint8(image)
    photons = 2 ** np.ceil(np.log2(np.count_nonzero(np.bincount(levels.ravel(), minlength=256)))) / 255
    return ((rng.poisson(levels * photons) / photons) - levels).astype(np.float32)
