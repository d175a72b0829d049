"""Recipes: stages in a row, from a preset or a config, and applied by a seed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from glean_ext.degradations.colours import ColourJitter, ColourShift, Fade, Scratches
from glean_ext.degradations.presets import PRESETS
from glean_ext.degradations.stages import (
    JPEG,
    Array,
    Bicubic,
    Blur,
    Gray,
    Noise,
    OneOf,
    Resize,
    Size,
    Sizes,
    Stage,
    resized,
    to_uint8,
)
from glean_ext.errors import InputError, did_you_mean

STAGES: dict[str, type[Stage]] = {
    stage.__name__: stage
    for stage in (Bicubic, Blur, ColourJitter, ColourShift, Fade, Gray, JPEG, Noise, OneOf, Resize, Scratches)
}


class Recipe:
    """What makes a degraded image from a sharp one: stages in a row.

    Each stage draws from a generator of its own, so that another stage before it, or left out, changes nothing in it.

    Args:
        stages: As data, e.g. ``[dict(type='Blur', kinds=dict(iso=1.0), sigma=(0.2, 10)), dict(type='JPEG')]``; types
            are :data:`STAGES`, and arguments those of the classes. ``OneOf`` has ``choices``, lists of stages.

    Raises:
        InputError: An unknown stage or argument, or a value out of range.
    """

    def __init__(self, stages: Sequence[Mapping[str, Any]]):
        self.stages = [make_stage(stage) for stage in stages]

    @classmethod
    def preset(cls, name: str) -> Recipe:
        """One of :data:`~glean_ext.degradations.presets.PRESETS`.

        Raises:
            InputError: There is no such preset.
        """
        if name not in PRESETS:
            raise InputError(f"There is no preset {name!r} of degradations. {nearest(name, list(PRESETS))}")
        return cls(PRESETS[name])

    def degrade(self, gt: Array, size: Size, seed: int) -> Array:
        """(H, W, 3) uint8 RGB -> (*size, 3) uint8 RGB; the same for the same seed, in any process.

        What the stages leave in another size is resized by averaging (``area``).
        """
        sizes, image = Sizes((gt.shape[0], gt.shape[1]), size), gt.astype(np.float32)
        for index, stage in enumerate(self.stages):
            rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(index,)))
            image = stage(image, sizes, rng)
        if image.shape[:2] != size:
            image = resized(image, size, "area")
        return to_uint8(image)


def make_stage(config: Mapping[str, Any]) -> Stage:
    """The stage that ``dict(type=..., ...)`` describes.

    Raises:
        InputError: An unknown type or argument, or a value out of range.
    """
    arguments = dict(config)
    name = arguments.pop("type", None)
    if name not in STAGES:
        raise InputError(f"{name!r} is no stage of a degradation. {nearest(name or '', list(STAGES))}")
    known = list(STAGES[name].__dataclass_fields__)
    if unknown := sorted(set(arguments) - set(known)):
        raise InputError(f"{name} has no argument {unknown[0]!r}. {nearest(unknown[0], known)}")
    if "choices" in arguments:
        arguments["choices"] = [[make_stage(stage) for stage in choice] for choice in arguments["choices"]]
    try:
        return STAGES[name](**arguments)
    except TypeError as error:  # an argument that is missing, or of another type
        raise InputError(f"{name}: its arguments do not fit ({error}). They are {', '.join(known)}.") from error


def nearest(name: str, known: Sequence[str]) -> str:
    """A hint that names the nearest of the known names, or all of them."""
    return did_you_mean(name, known, cutoff=0.5).rstrip() or f"Give one of {', '.join(known)}."
