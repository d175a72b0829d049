"""Stages that change colours, and what time does to a photograph on paper."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.random import Generator

from glean_ext.degradations.stages import Array, Range, Size, Sizes, Stage, luminance

HUES = 360.0  # degrees of OpenCV's hue of float images
PAPER_BLUE, PAPER_GREEN = 0.45, 0.12  # how much darker fully yellowed paper is in these channels


@dataclass(frozen=True, kw_only=True)
class ColourShift(Stage):
    """Adds a value to each channel: a wrong white balance (GFPGAN, CVPR 2021)."""

    shift: float = 20.0  # the largest, in levels of 255

    def check(self) -> None:
        super().check()
        self.require_range("shift", (0, self.shift), 0, 255)

    def apply(self, image: Array, sizes: Sizes, rng: Generator) -> Array:
        return np.clip(image + rng.uniform(-self.shift, self.shift, 3).astype(np.float32), 0, 255)


@dataclass(frozen=True, kw_only=True)
class ColourJitter(Stage):
    """Factors of brightness, contrast and saturation, and a rotation of the hue, in a random order.

    Each is what torchvision's ``adjust_…`` function of that name does.
    """

    brightness: Range = (0.5, 1.5)
    contrast: Range = (0.5, 1.5)
    saturation: Range = (0.0, 1.5)
    hue: Range = (-0.1, 0.1)  # in turns

    def check(self) -> None:
        super().check()
        for name in "brightness", "contrast", "saturation":
            self.require_range(name, getattr(self, name), 0, 10)
        self.require_range("hue", self.hue, -0.5, 0.5)

    def apply(self, image: Array, sizes: Sizes, rng: Generator) -> Array:
        steps = (
            (adjust_brightness, self.brightness),
            (adjust_contrast, self.contrast),
            (adjust_saturation, self.saturation),
            (adjust_hue, self.hue),
        )
        for index in rng.permutation(len(steps)):
            adjust, values = steps[index]
            image = adjust(image, rng.uniform(*values))
        return image


def adjust_brightness(image: Array, factor: float) -> Array:
    return _blended(image, np.float32(0), factor)


def adjust_contrast(image: Array, factor: float) -> Array:
    return _blended(image, luminance(image).mean(), factor)


def adjust_saturation(image: Array, factor: float) -> Array:
    return _blended(image, luminance(image), factor)


def adjust_hue(image: Array, turns: float) -> Array:
    hsv = cv2.cvtColor(np.clip(image, 0, 255) / np.float32(255), cv2.COLOR_RGB2HSV)
    hsv[..., 0] = (hsv[..., 0] + np.float32(turns * HUES)) % np.float32(HUES)
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB) * np.float32(255)


def _blended(image: Array, other: Array | np.floating, factor: float) -> Array:
    """``factor`` of the image and the rest of ``other``."""
    return np.clip(np.float32(factor) * image + np.float32(1 - factor) * other, 0, 255)


@dataclass(frozen=True, kw_only=True)
class Fade(Stage):
    """A faded print: black gets lighter, white darker, and both yellow."""

    black: Range = (0.0, 60.0)  # what 0 becomes, in levels of 255
    white: Range = (180.0, 255.0)  # what 255 becomes
    yellow: Range = (0.0, 1.0)  # 0: neutral paper, 1: brown

    def check(self) -> None:
        super().check()
        for name in "black", "white":
            self.require_range(name, getattr(self, name), 0, 255)
        self.require_range("yellow", self.yellow, 0, 1)

    def apply(self, image: Array, sizes: Sizes, rng: Generator) -> Array:
        black, white, yellow = rng.uniform(*self.black), rng.uniform(*self.white), rng.uniform(*self.yellow)
        paper = np.array([1, 1 - PAPER_GREEN * yellow, 1 - PAPER_BLUE * yellow], np.float32)
        return paper * (np.float32(black) + image * np.float32((white - black) / 255))


@dataclass(frozen=True, kw_only=True)
class Scratches(Stage):
    """Bright or dark scratches and specks of dust, with soft edges."""

    scratches: tuple[int, int] = (0, 6)  # number
    specks: tuple[int, int] = (0, 25)  # number
    length: Range = (0.1, 1.2)  # of scratches, in longer sides of the image
    width: Range = (0.001, 0.006)  # of scratches, and the radius of specks, in longer sides; at least a pixel
    opacity: Range = (0.3, 1.0)

    def check(self) -> None:
        super().check()
        for name in "scratches", "specks":
            self.require_range(name, getattr(self, name), 0, 10_000)
        self.require_range("length", self.length, 0, 10)
        self.require_range("width", self.width, 0, 1)
        self.require_range("opacity", self.opacity, 0, 1)

    def apply(self, image: Array, sizes: Sizes, rng: Generator) -> Array:
        for value in 0.0, 255.0:  # dark ones, then bright ones on top
            mask = self._mask((image.shape[0], image.shape[1]), rng)
            image = image + mask[..., None] * (np.float32(value) - image)
        return image

    def _mask(self, size: Size, rng: Generator) -> Array:
        """Opacity of the defects of one colour: (h, w) in [0, 1]; each of the two gets about half of them."""
        canvas: Array = np.zeros(size, np.uint8)
        longer = max(size)
        for _ in range(rng.binomial(rng.integers(*self.scratches, endpoint=True), 0.5)):
            thickness = max(1, round(longer * rng.uniform(*self.width)))
            opacity = [round(255 * rng.uniform(*self.opacity))]
            cv2.polylines(canvas, [self._curve(size, rng)], False, opacity, thickness, cv2.LINE_AA)
        for _ in range(rng.binomial(rng.integers(*self.specks, endpoint=True), 0.5)):
            centre = int(rng.integers(size[1])), int(rng.integers(size[0]))
            radius = max(1, round(longer * rng.uniform(*self.width)))
            opacity = [round(255 * rng.uniform(*self.opacity))]
            cv2.circle(canvas, centre, radius, opacity, cv2.FILLED, cv2.LINE_AA)
        return cv2.GaussianBlur(canvas, (3, 3), 0).astype(np.float32) / np.float32(255)

    def _curve(self, size: Size, rng: Generator, points: int = 8) -> Array:
        """A nearly straight line anywhere: (points, 1, 2) int32, x and y."""
        length = max(size) * rng.uniform(*self.length)
        headings = rng.uniform(0, np.pi) + np.cumsum(rng.normal(0, 0.1, points))
        steps = np.stack([np.cos(headings), np.sin(headings)], 1) * length / points
        path = rng.uniform(0, size[::-1]) + np.cumsum(steps, 0) - steps.sum(0) / 2
        return np.rint(path).astype(np.int32)[:, None]
