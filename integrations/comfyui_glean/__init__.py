"""ComfyUI nodes that restore images and the faces of photographs. ComfyUI reads the two mappings at the end."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor

import glean_ext

LEVELS = 65535  # of the 16-bit images that this package takes


class LoadGLEAN:
    """A model by name, or by its config and checkpoint."""

    CATEGORY = "loaders"
    FUNCTION = "load"
    RETURN_TYPES = ("GLEAN_MODEL",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        text = ("STRING", {"default": ""})
        return {
            "required": {"model": (glean_ext.list_models(),)},
            "optional": {"config": text, "checkpoint": text},
        }

    def load(self, model: str, config: str = "", checkpoint: str = "") -> tuple[glean_ext.ImageRestorer]:
        return (glean_ext.ImageRestorer(config or model, checkpoint or None),)


class _Restoring:
    """What both nodes that give images tell ComfyUI."""

    CATEGORY = "image/upscaling"
    FUNCTION = "restore"
    RETURN_TYPES = ("IMAGE",)


class RestoreImage(_Restoring):
    """Each image through the network as a whole, or in tiles."""

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {"model": ("GLEAN_MODEL",), "image": ("IMAGE",)},
            "optional": {"references": ("IMAGE",)},
        }

    def restore(self, model: glean_ext.ImageRestorer, image: Tensor, references: Tensor | None = None) -> tuple[Tensor]:
        if references is not None:
            model = glean_ext.ImageRestorer(model.network, references=_to_arrays(references))
        return (_to_images(model.restore_batch(_to_arrays(image))),)


class RestoreFaces(_Restoring):
    """The faces of photographs; what is around them is enlarged."""

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "model": ("GLEAN_MODEL",),
                "image": ("IMAGE",),
                "outscale": ("FLOAT", {"default": 2.0, "min": 0.1, "max": 16.0, "step": 0.1}),
                "fidelity": ("FLOAT", {"default": 0.0, "min": 0.0, "max": 1.0, "step": 0.05}),
            },
            "optional": {"references": ("IMAGE",)},
        }

    def restore(
        self,
        model: glean_ext.ImageRestorer,
        image: Tensor,
        outscale: float,
        fidelity: float,
        references: Tensor | None = None,
    ) -> tuple[Tensor]:
        others = [] if references is None else _to_arrays(references)
        photographs = glean_ext.PhotoRestorer(model, outscale, fidelity=fidelity, references=others)
        return (_to_images(photographs.restore(pixels).image for pixels in _to_arrays(image)),)


def _to_arrays(image: Tensor) -> list[np.ndarray]:
    """(N, h, w, 3) in [0, 1], as ComfyUI has images -> N arrays (h, w, 3), uint16 RGB."""
    return list((image[..., :3].clamp(0, 1) * LEVELS).round().cpu().numpy().astype(np.uint16))


def _to_images(pixels: Iterable[np.ndarray]) -> Tensor:
    """N arrays (H, W, 3), uint16 RGB -> (N, H, W, 3) in [0, 1]."""
    return torch.stack([torch.from_numpy(array.astype(np.float32) / LEVELS) for array in pixels])


NODE_CLASS_MAPPINGS = {"LoadGLEAN": LoadGLEAN, "RestoreWithGLEAN": RestoreImage, "RestoreFacesWithGLEAN": RestoreFaces}
NODE_DISPLAY_NAME_MAPPINGS = {
    "LoadGLEAN": "Load GLEAN",
    "RestoreWithGLEAN": "Restore with GLEAN",
    "RestoreFacesWithGLEAN": "Restore faces with GLEAN",
}
