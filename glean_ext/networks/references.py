"""Reference images: how a restoration network takes them. A network that does is written against this page.

- ``net.max_references``: how many it takes for an image at most, 1 or more. A network without it takes none.
- ``net(lq, references=None)``: ``lq`` (N, 3, h, w), as without references. ``references`` (N, R, 3, H, W): for each
  image R others of the same thing, RGB in [-1, 1], of the size of the output, R from 1 to ``max_references`` and the
  same for all images of a call. What has another size or aspect was resized by whoever calls. Their order has no
  effect. None: there are no references; a network that cannot do without refuses that.
- :func:`require_references` checks them.

In a data pipeline, a sample has ``ref_paths``, the files, and after ``LoadReferences`` ``ref``, a list of R arrays
(H, W, 3), uint8 RGB, of the ground truth's size. ``PackInputs`` makes ``data_samples.ref_img`` of it, (R, 3, H, W), and
a batch is (N, R, 3, H, W) in [0, 255]; the restorer scales it to [-1, 1].
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from glean_ext.errors import InputError


def max_references(net: nn.Module) -> int:
    """How many references a network takes for an image at most; 0: none."""
    return int(getattr(net, "max_references", 0))


def enlarged(lq: Tensor, side: int) -> Tensor:
    """(N, 3, h, h) in [-1, 1] -> (N, 3, side, side), bicubic"""
    return F.interpolate(lq, size=side, mode="bicubic", align_corners=False).clamp(-1, 1)


def reduced(references: Tensor, side: int) -> Tensor:
    """(M, 3, H, H) -> (M, 3, side, side), the mean of each area: what an encoder of small images takes"""
    return F.interpolate(references, size=side, mode="area")


def distinct(references: Tensor) -> tuple[Tensor, int]:
    """References without repetition, and how often they are to be repeated.

    Those of all images that were expanded from those of one, (N, R, 3, H, W), are (1, R, 3, H, W), N times.
    """
    shared = references.stride(0) == 0
    return (references[:1], len(references)) if shared else (references, 1)


def require_references(references: Tensor, lq: Tensor, size: tuple[int, int], at_most: int) -> None:
    """Refuse references that do not fit.

    Args:
        references: (N, R, 3, H, W).
        lq: (N, 3, h, w).
        size: H and W.
        at_most: The largest R.

    Raises:
        InputError: They are of another shape, none, or too many; the network takes none.
    """
    if not at_most:
        raise InputError("This network takes no references.")
    expected = (len(lq), lq.shape[1], *size)
    if references.ndim != 5 or (len(references), *references.shape[2:]) != expected:
        raise InputError(
            f"References have the shape (images, references, {lq.shape[1]}, {size[0]}, {size[1]}), but it is "
            f"{tuple(references.shape)} for {len(lq)} images."
        )
    if not 1 <= references.shape[1] <= at_most:
        raise InputError(f"An image takes 1 to {at_most} references, but got {references.shape[1]}.")
