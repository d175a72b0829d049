"""Optical flow between two pictures, where it can be trusted, and blending along it.

A flow is (h, w, 2) float32: the pixel (x, y) of one picture is at (x, y) + flow[y, x] in the other one, in pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from glean_ext.utils.array_conversion import blend

SHORTEST, LONGEST = 64, 1024  # pixels of the sides of a guide
TOLERANCE = 10.0  # levels by which brightness may change along the flow; from twice as many on nothing is trusted
SOFTNESS = 1.5  # pixels of the guide; deviation of the Gaussian that smooths brightness and trust
WEIGHT = 0.75  # of the earlier result, where the flow is trusted

Array = np.ndarray


@dataclass(frozen=True, eq=False)
class Moment:
    """A picture of a sequence, and what became of it.

    Attributes:
        guide: (h, w) uint8, what the flow is computed from, see :func:`make_guide`.
        result: (H, W, 3) uint8 or uint16, of the same part of the world.
    """

    guide: Array
    result: Array


def make_guide(rgb: Array) -> Array:
    """(H, W, 3) uint8 RGB -> (h, w) uint8 luminance, in a size that the flow is computed in."""
    gray = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)
    short, long = sorted(gray.shape)
    factor = min(LONGEST / long, max(1, SHORTEST / short))
    width, height = (max(SHORTEST, round(factor * side)) for side in gray.shape[::-1])
    return cv2.resize(gray, (width, height), interpolation=cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC)


def flow_between(guide: Array, other: Array) -> Array:
    """The flow from one guide to another of its size; exactly 0 where they are equal.

    Source: Kroeger et al., "Fast Optical Flow using Dense Inverse Search", ECCV 2016, as OpenCV has it. Its result does
    not depend on the number of threads.
    """
    dis: Any = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    return dis.calc(guide, other, None)


def trust(guide: Array, other: Array, flow: Array, back: Array) -> Array:
    """(h, w) float32 in [0, 1]: where ``flow`` leads to the same thing; 0 at what is hidden or outside of ``other``.

    Forward and backward flow cancel there, and the brightness is about the same.

    Source: Sundaram et al., "Dense point trajectories by GPU-accelerated large displacement optical flow", ECCV 2010,
    equation 5.

    Args:
        flow: From ``guide`` to ``other``.
        back: From ``other`` to ``guide``.
    """
    height, width = guide.shape
    x, y = _targets(flow)
    inside = (x >= -0.5) & (x <= width - 0.5) & (y >= -0.5) & (y <= height - 0.5)
    returned = _remap(back, x, y, cv2.INTER_LINEAR)
    error = ((flow + returned) ** 2).sum(axis=2)
    consistent = error < 0.01 * ((flow**2).sum(axis=2) + (returned**2).sum(axis=2)) + 0.5
    here, there = (_smooth(picture.astype(np.float32)) for picture in (guide, _remap(other, x, y, cv2.INTER_LINEAR)))
    alike = np.clip(2 - np.abs(here - there) / TOLERANCE, 0, 1)
    trusted = cv2.erode((inside & consistent) * alike, np.ones((3, 3)))
    return np.minimum(_smooth(trusted), trusted > 0)


def blend_along_flow(before: Moment, guide: Array, result: Array, least: float = 0) -> Array:
    """``result`` with a share of the earlier result, where that shows the same thing.

    Args:
        before: The picture before.
        guide: That of ``result``.
        result: (H, W, 3), of the dtype and the size of ``before.result``.
        least: Share of the guide that has to be trusted; below it ``result`` is returned: another scene.
    """
    if before.guide.shape != guide.shape or before.result.shape != result.shape:
        return result
    flow = flow_between(guide, before.guide)
    weight = trust(guide, before.guide, flow, flow_between(before.guide, guide))
    if weight.mean() < least:
        return result
    size = result.shape[1::-1]
    enlarged = cv2.resize(flow, size) * np.array(size, np.float32) / np.array(guide.shape[::-1], np.float32)
    earlier = _remap(before.result, *_targets(enlarged), cv2.INTER_CUBIC)
    return blend(result, earlier, WEIGHT * cv2.resize(weight, size)[..., None])


def _targets(flow: Array) -> tuple[Array, Array]:
    """x and y of where each pixel goes, (h, w) float32."""
    y, x = (np.arange(length, dtype=np.float32) for length in flow.shape[:2])
    return flow[..., 0] + x, flow[..., 1] + y[:, None]


def _remap(image: Array, x: Array, y: Array, interpolation: int) -> Array:
    return cv2.remap(image, x, y, interpolation, borderMode=cv2.BORDER_REPLICATE)


def _smooth(image: Array) -> Array:
    return cv2.GaussianBlur(image, (0, 0), SOFTNESS)
