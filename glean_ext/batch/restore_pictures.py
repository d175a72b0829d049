"""Pictures through a network: prepared, restored, and finished with their size, transparency and colour profile.

Images, frames of videos, the page and MMagic's inferencer all come through here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from glean_ext.batch.options import require_alpha, require_outscale
from glean_ext.inference.image_restorer import ImageRestorer, Prepared
from glean_ext.inference.size_policy import scaled, size_of
from glean_ext.utils.image_io import Picture
from glean_ext.utils.imresize import imresize
from glean_ext.utils.outcome import Outcome

Array = np.ndarray


@dataclass(frozen=True, eq=False)
class PreparedPicture:
    """A picture, and what of it goes through the network: its colours, and perhaps its transparency."""

    picture: Picture
    name: str
    parts: tuple[Prepared, ...]

    @property
    def before(self) -> Array:
        """(h, w, 3): the part of the picture that the result shows."""
        return self.parts[0].crop_to_result(self.picture.filled)


class PictureRestorer:
    """Restores pictures as a whole, or in tiles, in three steps for those who run them in several threads.

    Args:
        restorer: The network.
        alpha: ``'upsample'``: transparency gets the result's size by MATLAB's bicubic. ``'restore'``: it goes through
            the network, as a gray picture.
        outscale: Size of results in sizes of the inputs; None: what the network makes.

    Raises:
        InputError: An argument that cannot be used.
    """

    def __init__(self, restorer: ImageRestorer, alpha: str = "upsample", outscale: float | None = None):
        require_alpha(alpha)
        require_outscale(outscale)
        self.restorer, self.alpha, self.outscale = restorer, alpha, outscale

    def prepare(self, picture: Picture, name: str) -> PreparedPicture:
        """Do what comes before the network; any thread may.

        Raises:
            InputError: The size policy refuses the picture, or its result would be too large.
        """
        if self.outscale is not None:
            scaled(size_of(picture.pixels), self.outscale, name)
        parts = [self.restorer.prepare(picture.filled, name)]
        if picture.alpha is not None and self.alpha == "restore":
            gray = np.repeat(picture.alpha[..., None], 3, 2)
            parts.append(self.restorer.prepare(gray, f"{name}'s transparency"))
        return PreparedPicture(picture, name, tuple(parts))

    def restore(self, batch: Sequence[PreparedPicture]) -> list[Outcome[list[Array]]]:
        """Run the network: for each picture the results of its parts, or why there are none."""
        outcomes = iter(self.restorer.try_batch([part for item in batch for part in item.parts]))
        return [_all_of([next(outcomes) for _ in item.parts]) for item in batch]

    def finish(self, prepared: PreparedPicture, restored: Sequence[Array]) -> Picture:
        """The result from what :meth:`restore` made of the picture; any thread may."""
        picture, pixels = prepared.picture, restored[0]
        size = size_of(pixels)
        if self.outscale is not None:
            size = scaled(size_of(prepared.before), self.outscale, prepared.name)
            pixels = imresize(pixels, size=size)
        alpha = None
        if len(restored) > 1:
            alpha = imresize(np.rint(restored[1].mean(axis=2)).astype(restored[1].dtype), size=size)
        else:
            alpha = prepared.parts[0].enlarge_alpha(picture.alpha, size)
        return picture.with_pixels(pixels, alpha)


def _all_of(outcomes: Sequence[Outcome[Array]]) -> Outcome[list[Array]]:
    return Outcome.of(lambda: [outcome.unwrap() for outcome in outcomes])


def restore_pictures(
    restorer: ImageRestorer,
    pictures: Sequence[Picture],
    names: Sequence[str],
    alpha: str = "upsample",
    outscale: float | None = None,
) -> list[Outcome[Picture]]:
    """Restore pictures, those that get the network's nominal size together; one that fails does not stop the others.

    Args:
        restorer: The network.
        pictures: What is restored.
        names: What errors and notices call them.
        alpha: As in :class:`PictureRestorer`.
        outscale: As in :class:`PictureRestorer`.

    Raises:
        InputError: ``alpha`` or ``outscale`` cannot be used.
    """
    steps = PictureRestorer(restorer, alpha, outscale)
    prepared = [
        Outcome.of(lambda picture=picture, name=name: steps.prepare(picture, name))  # type: ignore[misc]
        for picture, name in zip(pictures, names, strict=True)
    ]
    restored = iter(steps.restore([outcome.unwrap() for outcome in prepared if outcome.error is None]))

    def finished(item: PreparedPicture) -> Picture:
        return steps.finish(item, next(restored).unwrap())

    return [outcome.then(finished) for outcome in prepared]
