"""The recipes by name, as data. Sizes of blur are in pixels of the sharp image; they suit aligned faces of 512 to 1024.

Recipes of others are what their releases train with: GLEAN's blind config in MMagic 1.2; GFPGAN (CVPR 2021), option file
of version 1; CodeFormer (NeurIPS 2022), option file of stage 3; Real-ESRGAN (ICCVW 2021), option file of x4plus, whose
sharpening of the ground truth belongs to its losses. Where they differ from the papers, the files count.
"""

from __future__ import annotations

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
THIRD_OF_PI = (3.14159265 / 3, 3.14159265)

Stages = Sequence[Mapping[str, Any]]


def _faces(sigma: tuple, divisor: tuple, noise: tuple, quality: tuple) -> Stages:
    """GFPGAN's and CodeFormer's order: blur, smaller, noise, JPEG, back to the size of the ground truth."""
    return (
        dict(type="Blur", kinds=ROUND_OR_LONG, sigma=sigma),
        dict(type="Resize", scale=divisor, divide=True, interpolations=["bilinear"]),
        dict(type="Noise", sigma=noise),
        dict(type="JPEG", quality=quality),
        dict(type="Resize", of="gt", interpolations=["bilinear"]),
    )


_RESIZED_AND_RINGING = (
    dict(type="Resize", of="out"),
    dict(type="Blur", kinds={"sinc": 1.0}, size=ODD_TO_21, cutoff=THIRD_OF_PI, prob=0.8),
)
_LAST_JPEG = dict(type="JPEG", quality=(30, 95))

PRESETS: dict[str, Stages] = {
    "bicubic": (dict(type="Bicubic"),),
    "gray": (dict(type="Gray"),),
    "glean": (
        dict(type="Blur", kinds=ROUND_OR_LONG, sigma=(0.2, 10)),
        dict(type="Resize", scale=(1 / 32, 1)),
        dict(type="Noise", sigma=(0, 50)),
        dict(type="JPEG", quality=(5, 50)),
        dict(type="Resize", of="gt"),
    ),
    "gfpgan": (
        *_faces(sigma=(0.1, 10), divisor=(0.8, 8), noise=(0, 20), quality=(60, 100)),
        dict(type="ColourShift", prob=0.3, shift=20),
        dict(type="Gray", prob=0.01),
        dict(type="ColourJitter", prob=0.3),
    ),
    "codeformer": _faces(sigma=(0.1, 10), divisor=(1, 12), noise=(0, 15), quality=(60, 100)),
    "codeformer_large": _faces(sigma=(1, 15), divisor=(4, 30), noise=(0, 20), quality=(30, 80)),
    "realesrgan": (
        dict(type="Blur", kinds=SECOND_ORDER, size=ODD_TO_21, sigma=(0.2, 3)),
        dict(type="Resize", scale=(0.15, 1.5), modes=(0.2, 0.7, 0.1)),
        dict(type="Noise", sigma=(1, 30), poisson=(0.05, 3), poisson_prob=0.5, gray_prob=0.4),
        dict(type="JPEG", quality=(30, 95)),
        dict(type="Blur", kinds=SECOND_ORDER, size=ODD_TO_21, sigma=(0.2, 1.5), prob=0.8),
        dict(type="Resize", of="out", scale=(0.3, 1.2), modes=(0.3, 0.4, 0.3)),
        dict(type="Noise", sigma=(1, 25), poisson=(0.05, 2.5), poisson_prob=0.5, gray_prob=0.4),
        dict(type="OneOf", choices=[[*_RESIZED_AND_RINGING, _LAST_JPEG], [_LAST_JPEG, *_RESIZED_AND_RINGING]]),
    ),
    # Ours: a small print that faded, was scratched, scanned and compressed.
    "old_photo": (
        dict(type="Blur", kinds=ROUND_OR_LONG, sigma=(0.2, 4)),
        dict(type="ColourJitter", prob=0.5, brightness=(0.7, 1.3), contrast=(0.6, 1.2), saturation=(0.2, 1.2)),
        dict(type="Gray", prob=0.7),
        dict(type="Noise", sigma=(2, 25), gray_prob=0.7),
        dict(type="Fade", prob=0.8),
        dict(type="Scratches", prob=0.8),
        dict(type="Resize", scale=(1, 6), divide=True),
        dict(type="JPEG", quality=(50, 95)),
        dict(type="Resize", of="gt"),
    ),
}
