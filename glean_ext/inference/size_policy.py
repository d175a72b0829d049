"""What happens to images of other sizes than a network takes: one policy for GLEAN and LightGLEAN."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image

from glean_ext.errors import InputError, Notice, require_at_least, require_one_of
from glean_ext.inference.memory_budget import Memory
from glean_ext.inference.tiling import Tiling
from glean_ext.size_requirements import MIN_INPUT, Size, SizeRequirements, _pair, format_size
from glean_ext.utils.imresize import imresize

POLICIES = ("auto", "error", "resize", "tile")
FITS = {"pad": "padded", "crop": "cropped"}
DEFAULT_FIT = "pad"
# LightGLEAN's tiles, in pixels of the input: the smallest overlap from which on no pixel of the demo model's tiled
# results is off by 1/255 from the whole ones (benchmarks/tile_seams.py). Of 96x160 pixels of faces in three sizes and a
# photograph in two, the worst is off by 3.9/255 at 16, 1.1 at 20 and 0.5 at 22; of squares and pixels in random colours
# by 7.3 at 16, 2.7 at 22, 1.4 at 26, 0.98 at 27 and 0.2 at 32. Its trunk has 3 RRDBs. What a tile's border gets wrong
# about halves with each pixel further in; so the fade keeps to the middle of the overlap.
LIGHT_OVERLAP = 27
LIGHT_FEATHER = 0.25
# GLEAN's tiles, as a share of their shorter side. Each is invented from all that is in it, so neighbours differ
# everywhere, and the fade takes all of the overlap. With a quarter a grid is still seen in the demo model's results.
GLEAN_OVERLAP = 0.5
GLEAN_FEATHER = 1.0


@dataclass(frozen=True)
class Resize:
    """Images get a network's size by MATLAB's antialiased bicubic, and keep their aspect.

    With ``fit='pad'`` the border is repeated to get the aspect of ``size``, and that padding is cut off the result:
    it has the aspect of the image. With ``fit='crop'`` the middle of the image is used; the result is the network's.
    """

    size: Size
    fit: str

    def frame(self, size: Size) -> Size:
        """What an image is padded or cropped to: the smallest around, or the largest within, of the right aspect."""
        chosen, (height, width) = max if self.fit == "pad" else min, self.size
        return (
            max(1, chosen(size[0], round(size[1] * height / width))),
            max(1, chosen(size[1], round(size[0] * width / height))),
        )

    def notice(self, size: Size, name: str) -> Notice:
        """What it does to an image of ``size``."""
        first = "" if self.frame(size) == size else f"{FITS[self.fit]} and "
        return Notice(
            f"{name} has {format_size(size)} pixels; it was {first}resized to the model's {format_size(self.size)}.",
            parameter=("size_policy", "fit"),
            hint="See {size_policy} and {fit}.",
        )

    def prepare(self, image: np.ndarray) -> np.ndarray:
        """(h, w, 3) -> the network's input, ``size`` and 3"""
        if self.fit == "crop":
            return imresize(self.crop_to_result(image), size=self.size)
        height, width = image.shape[:2]
        rows, columns = self.frame((height, width))
        top, left = (rows - height) // 2, (columns - width) // 2
        # The axis without padding first: so the frame, which may be huge for a narrow image, is never made.
        first = (self.size[0] if rows == height else height, self.size[1] if columns == width else width)
        across = (top, rows - height - top), (left, columns - width - left), (0, 0)
        return imresize(np.pad(imresize(image, size=first), across, mode="edge"), size=self.size)

    def crop_to_result(self, image: np.ndarray) -> np.ndarray:
        """(h, w, ...): the part of the image, or of anything of its size, that the result shows."""
        if self.fit == "pad":
            return image
        height, width = image.shape[:2]
        rows, columns = self.frame((height, width))
        top, left = (height - rows) // 2, (width - columns) // 2
        return image[top : top + rows, left : left + columns]

    def finish(self, result: np.ndarray, size: Size) -> np.ndarray:
        """Cut the padding of an image of ``size`` off the network's output; at least one pixel is left."""
        if self.fit == "pad":
            for axis, (length, whole) in enumerate(zip(size, self.frame(size), strict=True)):
                side = result.shape[axis]
                kept = max(1, round(length / whole * side))
                start = min(round((whole - length) // 2 / whole * side), side - kept)
                result = result.take(range(start, start + kept), axis)
        return result


def size_of(image: np.ndarray) -> Size:
    """Height and width of (h, w, ...)."""
    return image.shape[0], image.shape[1]


def scaled(size: Size, scale: float, name: str) -> Size:
    """``scale`` times ``size``, rounded.

    Raises:
        InputError: It would be empty, or have more pixels than :func:`~glean_ext.utils.image_io.pixel_limit` allows.
    """
    height, width = (round(length * scale) for length in size)
    limit = Image.MAX_IMAGE_PIXELS or math.inf
    if not 0 < height * width <= limit:
        raise InputError(
            f"{name}: with outscale {scale:g} the result would have {width}x{height} pixels, but between 1 and "
            f"{limit / 1e6:g} million are written.",
            parameter=("outscale", "max_pixels"),
            hint="Give another {outscale}, or a larger {max_pixels}.",
        )
    return height, width


@dataclass(frozen=True)
class SizePolicy:
    """What happens to images of other sizes than a network takes.

    Args:
        name: ``'resize'``: they are resized to the size the network was trained with. ``'tile'``: they are restored in
            overlapping tiles, GLEAN's of its ``in_size``; LightGLEAN takes an image whole where the memory at hand
            suffices and no ``tile_size`` is given. ``'error'``: they are refused, and so are images too large for the
            memory. ``'auto'``: ``'resize'`` for GLEAN, ``'tile'`` for LightGLEAN.
        fit: How ``'resize'`` keeps the aspect, see :class:`Resize`; None is ``'pad'``.
        tile_size: Height and width of LightGLEAN's tiles, in pixels of the input. None: what the memory allows.
        tile_overlap: Pixels of the input that neighbouring tiles share at least. None: :data:`LIGHT_OVERLAP`, or
            :data:`GLEAN_OVERLAP` of a tile.

    Raises:
        InputError: An unknown name or fit, or a number out of range.
    """

    name: str = "auto"
    fit: str | None = None
    tile_size: int | None = None
    tile_overlap: int | None = None

    def __post_init__(self) -> None:
        require_one_of("size_policy", self.name, POLICIES)
        require_one_of("fit", self.fit or DEFAULT_FIT, FITS)
        for key, number, least in ("tile_size", self.tile_size, 1), ("tile_overlap", self.tile_overlap, 0):
            require_at_least(key, least if number is None else number, least)

    def require_whole(self) -> None:
        """Raise InputError where images are cropped, for those who put results back into them."""
        if self.fit == "crop":
            raise InputError(
                "{fit=crop} has no use for faces, which are put back into whole photographs.", "fit", "Leave {fit} out."
            )

    def for_network(self, takes: SizeRequirements) -> SizePolicy:
        """The same policy with ``'auto'`` decided.

        Raises:
            InputError: Options without effect on this network, or tiles too small for their overlap.
        """
        name = self.name if self.name != "auto" else "tile" if takes.any_size else "resize"
        for key, owner in ("fit", "resize"), ("tile_size", "tile"), ("tile_overlap", "tile"):
            if getattr(self, key) is not None and name != owner:
                raise InputError(
                    f"{{{key}}} has no effect with {{size_policy={name}}}.",
                    parameter=(key, "size_policy"),
                    hint=f"Leave it out, or give {{size_policy={owner}}}.",
                )
        if self.tile_size is not None and not takes.any_size:
            raise InputError(
                f"{{tile_size}} has no effect: this model takes {takes}, so its tiles are that.",
                parameter="tile_size",
                hint="Leave {tile_size} out.",
            )
        tiling = self.tiling(takes, _pair(self.tile_size or takes.nominal))
        if not takes.any_size and tiling.overlap >= min(tiling.tile):
            raise InputError(
                f"{{tile_overlap}} is {tiling.overlap}, but tiles are {format_size(tiling.tile)}. Take less.",
                parameter="tile_overlap",
            )
        if self.tile_size is not None and self.tile_size < tiling.smallest_tile:
            raise InputError(
                f"{{tile_size}} is {self.tile_size}, but it must be at least {tiling.smallest_tile}: tiles start at "
                f"multiples of {tiling.period} and share {tiling.overlap} pixels ({{tile_overlap}}).",
                parameter=("tile_size", "tile_overlap"),
            )
        return replace(self, name=name)

    def tiling(self, takes: SizeRequirements, tile: Size) -> Tiling:
        """How images are cut; ``tile`` is for LightGLEAN only."""
        overlap = self.tile_overlap
        if takes.any_size:
            overlap = LIGHT_OVERLAP if overlap is None else overlap
            # The bank's noise repeats with the nominal size: from there a tile gets the noise that it has in the whole.
            return Tiling(tile, overlap, takes.scale, max(takes.nominal), (MIN_INPUT, MIN_INPUT), LIGHT_FEATHER)
        overlap = int(GLEAN_OVERLAP * min(takes.nominal)) if overlap is None else overlap
        return Tiling(takes.nominal, overlap, takes.scale, 1, takes.nominal, GLEAN_FEATHER)

    def plan(
        self, size: Size, takes: SizeRequirements, memory: Callable[[], Memory], name: str
    ) -> tuple[Resize | Tiling, Notice | None]:
        """What to do with an image of ``size`` (height, width), and a notice where it is not restored as it is.

        ``memory`` is asked only where it matters; ``name`` is what messages call the image.

        Raises:
            InputError: An image that the policy, the network or the memory refuses.
        """
        policy, has = self.for_network(takes).name, f"{name} has {format_size(size)} pixels"
        if min(size) < 1:
            raise InputError(f"{has}: it is empty. Give another image.")
        if policy == "resize" and size != takes.nominal:
            resize = Resize(takes.nominal, self.fit or DEFAULT_FIT)
            return resize, resize.notice(size, name)
        if not takes.accept(size) and (takes.any_size or policy == "error"):
            raise InputError(
                f"{has}, but the model takes {takes}. Resize it (MATLAB's antialiased bicubic is what models are "
                "trained with).",
                parameter="size_policy",
                hint="{size_policy=resize} does that.",
            )
        if takes.any_size and self.tile_size is None:
            return self._within_memory(size, takes, memory, has)
        return self.tiling(takes, _pair(self.tile_size or takes.nominal)), None

    def _within_memory(
        self, size: Size, takes: SizeRequirements, memory: Callable[[], Memory], has: str
    ) -> tuple[Tiling, Notice | None]:
        """The image as a whole if the memory at hand suffices, else in the largest tiles for which it does."""
        whole = self.tiling(takes, size)
        if math.prod(size) <= math.prod(takes.nominal):
            return whole, None
        there = memory()
        if there.suffices(size, size, takes.scale):
            return whole, None
        short = f"{has}, which takes about {there.describe(size, size, takes.scale)}"
        if self.name == "error":
            raise InputError(f"{short}.", "size_policy", "{size_policy=tile} cuts it into tiles.")
        sides = whole.sides(size)
        side = max((side for side in sides if there.suffices((side, side), size, takes.scale)), default=None)
        if side is None:
            first = sides[0]
            raise InputError(
                f"{short}; tiles of {first}x{first}, the smallest, take "
                f"{there.describe((first, first), size, takes.scale)}. Free memory, or scale the image down."
            )
        tiling = self.tiling(takes, (side, side))
        tiles = f"{tiling.count(size)} tiles of {format_size(tiling.tile)}"
        return tiling, Notice(f"{short}; it is restored in {tiles}.")
