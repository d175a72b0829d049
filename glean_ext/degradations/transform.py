"""The step of a data pipeline that degrades the ground truth."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from glean_ext.degradations.recipes import Recipe
from glean_ext.errors import InputError


class BlindDegradation:
    """Sets ``img``, the low-resolution image, from ``gt``: (H / scale, W / scale, 3), uint8, RGB.

    Args:
        preset: A recipe by name, see :data:`~glean_ext.degradations.presets.PRESETS`.
        recipe: Or a recipe of your own, see :class:`~glean_ext.degradations.recipes.Recipe`.
        seed: None: of NumPy's random state, as all random transforms. A number: the same result for the same image
            (by its name) in every epoch and process, as a validation needs.

    Raises:
        InputError: Not one of ``preset`` and ``recipe``, or one that cannot be used. For a sample: ``gt`` is missing,
            is BGR, or ``scale`` does not divide its sides; or it has a low-resolution file, which would not be used.
    """

    def __init__(
        self, preset: str | None = None, recipe: Sequence[Mapping[str, Any]] | None = None, seed: int | None = None
    ):
        if (preset is None) == (recipe is None):
            raise InputError("BlindDegradation takes one of preset and recipe. Give preset='glean', for example.")
        if seed is not None and (not isinstance(seed, int) or seed < 0):
            raise InputError(f"BlindDegradation.seed is {seed!r}, but it must be None or a whole number from 0 on.")
        self.recipe = Recipe(recipe) if preset is None and recipe is not None else Recipe.preset(str(preset))
        self.seed = seed

    def __call__(self, results: dict) -> dict:
        if "gt" not in results:
            raise InputError("BlindDegradation degrades gt, but there is none. Put LoadRGB(key='gt') before it.")
        gt, scale, path = results["gt"], results["scale"], results["gt_path"]
        if "img_path" in results:
            raise InputError(
                f"BlindDegradation makes the low-resolution image of {path}, but the dataset has {results['img_path']} "
                "for it. Leave data_prefix.img out, or take LoadOrMakeLQ, which reads it."
            )
        if results.get("gt_channel_order", "rgb") != "rgb":
            raise InputError("BlindDegradation works in RGB, but gt was loaded as BGR. Load it with LoadRGB.")
        h, w = gt.shape[:2]
        if h % scale or w % scale:
            raise InputError(
                f"{path} has {w}x{h} pixels, which {scale} does not divide. Crop or resize the ground truth, or change "
                "the dataset's scale."
            )
        img = self.recipe.degrade(gt, (h // scale, w // scale), self._seed(results))
        return results | {"img": img, "img_channel_order": "rgb", "img_color_type": "color"}

    def _seed(self, results: dict) -> int:
        if self.seed is None:
            return int(np.random.randint(2**31))
        return self.seed + (zlib.crc32(results["key"].encode()) << 32)
