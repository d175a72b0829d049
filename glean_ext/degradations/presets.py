"""The recipes by name, as data. Sizes of blur are in pixels of the sharp image; they suit aligned faces of 512 to 1024.

Recipes of others are what their releases train with: GLEAN's blind config in MMagic 1.2; GFPGAN (CVPR 2021), option
file of version 1; CodeFormer (NeurIPS 2022), option file of stage 3; Real-ESRGAN (ICCVW 2021), option file of x4plus,
whose sharpening of the ground truth belongs to its losses. Where they differ from the papers, the files count.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

ROUND_OR_LONG = {"iso": 0.5, "aniso": 0.5}
SECOND_ORDER = {
    "iso": 0.9 * 0.45,
    "aniso": 0.9 * 0.25,
    "generalized_iso": 0.9 * 0.12,
    "generalized_aniso": 0.9 * 0.03,
    "plateau_iso": 0.9 * 0.12,
    "plateau_aniso": 0.9 * 0.03,
    "sinc": 0.1,
}
ODD_TO_21 = tuple(range(7, 22, 2))
THIRD_OF_PI = (math.pi / 3, math.pi)

Range = tuple[float, float]
Stages = Sequence[Mapping[str, Any]]


def _faces(sigma: Range, divisor: Range, noise: Range, quality: Range) -> Stages:
    """GFPGAN's and CodeFormer's order: blur, smaller, noise, JPEG, back to the size of the ground truth."""
    return (
        {"type": "Blur", "kinds": ROUND_OR_LONG, "sigma": sigma},
        {"type": "Resize", "scale": divisor, "divide": True, "interpolations": ["bilinear"]},
        {"type": "Noise", "sigma": noise},
        {"type": "JPEG", "quality": quality},
        {"type": "Resize", "of": "gt", "interpolations": ["bilinear"]},
    )


_RESIZED_AND_RINGING = (
    {"type": "Resize", "of": "out"},
    {"type": "Blur", "kinds": {"sinc": 1.0}, "size": ODD_TO_21, "cutoff": THIRD_OF_PI, "prob": 0.8},
)
_LAST_JPEG = {"type": "JPEG", "quality": (30, 95)}

PRESETS: dict[str, Stages] = {
    "bicubic": ({"type": "Bicubic"},),
    "gray": ({"type": "Gray"},),
    "glean": (
        {"type": "Blur", "kinds": ROUND_OR_LONG, "sigma": (0.2, 10)},
        {"type": "Resize", "scale": (1 / 32, 1)},
        {"type": "Noise", "sigma": (0, 50)},
        {"type": "JPEG", "quality": (5, 50)},
        {"type": "Resize", "of": "gt"},
    ),
    "gfpgan": (
        *_faces(sigma=(0.1, 10), divisor=(0.8, 8), noise=(0, 20), quality=(60, 100)),
        {"type": "ColourShift", "prob": 0.3, "shift": 20},
        {"type": "Gray", "prob": 0.01},
        {"type": "ColourJitter", "prob": 0.3},
    ),
    "codeformer": _faces(sigma=(0.1, 10), divisor=(1, 12), noise=(0, 15), quality=(60, 100)),
    "codeformer_large": _faces(sigma=(1, 15), divisor=(4, 30), noise=(0, 20), quality=(30, 80)),
    "realesrgan": (
        {"type": "Blur", "kinds": SECOND_ORDER, "size": ODD_TO_21, "sigma": (0.2, 3)},
        {"type": "Resize", "scale": (0.15, 1.5), "modes": (0.2, 0.7, 0.1)},
        {"type": "Noise", "sigma": (1, 30), "poisson": (0.05, 3), "poisson_prob": 0.5, "gray_prob": 0.4},
        {"type": "JPEG", "quality": (30, 95)},
        {"type": "Blur", "kinds": SECOND_ORDER, "size": ODD_TO_21, "sigma": (0.2, 1.5), "prob": 0.8},
        {"type": "Resize", "of": "out", "scale": (0.3, 1.2), "modes": (0.3, 0.4, 0.3)},
        {"type": "Noise", "sigma": (1, 25), "poisson": (0.05, 2.5), "poisson_prob": 0.5, "gray_prob": 0.4},
        {"type": "OneOf", "choices": [[*_RESIZED_AND_RINGING, _LAST_JPEG], [_LAST_JPEG, *_RESIZED_AND_RINGING]]},
    ),
    # Ours: a small print that faded, was scratched, scanned and compressed.
    "old_photo": (
        {"type": "Blur", "kinds": ROUND_OR_LONG, "sigma": (0.2, 4)},
        {
            "type": "ColourJitter",
            "prob": 0.5,
            "brightness": (0.7, 1.3),
            "contrast": (0.6, 1.2),
            "saturation": (0.2, 1.2),
        },
        {"type": "Gray", "prob": 0.7},
        {"type": "Noise", "sigma": (2, 25), "gray_prob": 0.7},
        {"type": "Fade", "prob": 0.8},
        {"type": "Scratches", "prob": 0.8},
        {"type": "Resize", "scale": (1, 6), "divide": True},
        {"type": "JPEG", "quality": (50, 95)},
        {"type": "Resize", "of": "gt"},
    ),
}
