"""Restorers of videos that remember earlier frames, and the one that blends results along the optical flow."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol, runtime_checkable

import numpy as np

from glean_ext.video.optical_flow import Moment, blend_along_flow, make_guide

SAME_SCENE = 0.3  # share of the frame that must be found in the frame before; else it is another scene

Array = np.ndarray


@runtime_checkable
class SequenceRestorer(Protocol):
    """Restores frames in their order, and remembers what it needs of earlier ones."""

    def __call__(self, frames: Sequence[Array], /) -> Sequence[Array]:
        """The next frames, (h, w, 3) uint8 RGB, restored."""

    def state(self) -> dict[str, Array]:
        """What it remembers; :meth:`load` of another one takes it. No array of it is changed later."""

    def load(self, state: Mapping[str, Array], /) -> None:
        """Continue after the frames that ``state`` is from."""


class SmoothFrames:
    """Blends each restored frame with the one before, which is moved along the optical flow of the frames.

    What was hidden, has changed or is new is not blended, and a cut begins a new scene.

    Args:
        restore: Restores frames independently of each other; all results have one size.
        shown: The part of a frame that its result shows; None: the whole.
        adjust: Is called with the blended and the unblended result, and returns the final one.
    """

    def __init__(
        self,
        restore: Callable[[Sequence[Array]], Sequence[Array]],
        shown: Callable[[Array], Array] | None = None,
        adjust: Callable[[Array, Array], Array] | None = None,
    ):
        self.restore, self.shown, self.adjust = restore, shown, adjust
        self._before: Moment | None = None

    def __call__(self, frames: Sequence[Array]) -> list[Array]:
        return [self._next(frame, result) for frame, result in zip(frames, self.restore(frames), strict=True)]

    def _next(self, frame: Array, restored: Array) -> Array:
        guide = make_guide(frame if self.shown is None else self.shown(frame))
        result = restored
        if self._before is not None:
            result = blend_along_flow(self._before, guide, restored, SAME_SCENE)
            if self.adjust is not None:
                result = self.adjust(result, restored)
        self._before = Moment(guide, result)
        return result

    def state(self) -> dict[str, Array]:
        return {} if self._before is None else dict(vars(self._before))

    def load(self, state: Mapping[str, Array]) -> None:
        self._before = Moment(**state) if state else None
