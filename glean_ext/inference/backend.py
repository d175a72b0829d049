"""What runs a network behind an :class:`~glean_ext.inference.image_restorer.ImageRestorer`, and how it is chosen."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np

from glean_ext.errors import InputError
from glean_ext.inference.memory_budget import Memory
from glean_ext.size_requirements import SizeRequirements
from glean_ext.zoo import find_model, has_model

if TYPE_CHECKING:  # takes seconds to load
    import torch

Array = np.ndarray
ONNX = ".onnx"
REALESRGAN = "realesrgan"  # a model without config and checkpoint: Real-ESRGAN x4plus, from the extra [background]


class OutOfMemory(InputError):
    """The device has too little memory for images of this size."""


@runtime_checkable
class Backend(Protocol):
    """What restores images of sizes it takes: a ``TorchBackend`` or an ``OnnxBackend``.

    What it raises as InputError does not name the image.
    """

    takes: SizeRequirements
    colorizes: bool  # it gives gray images colours; of colour images only the luminance counts
    gated: bool  # it was trained with the fidelity gate

    def __call__(self, lq: Array) -> Array:
        """(N, 3, h, w) float32, RGB in [-1, 1] -> (N, 3, H, W) float32, about [-1, 1]."""

    def restore(self, images: Sequence[Array]) -> list[Array]:
        """Images of one size, (h, w, 3) uint8 or uint16 RGB, together: each as (H, W, 3) of its dtype."""

    def memory(self) -> Memory:
        """What a forward takes, and what there is. Any thread may ask."""


def resolve_model(
    config: str | os.PathLike | Mapping, checkpoint: str | os.PathLike | None
) -> tuple[str | os.PathLike | Mapping, str | os.PathLike]:
    """Config and checkpoint of a model: its weights are those of the zoo where it is named without a checkpoint.

    Raises:
        InputError: There is no checkpoint, and ``config`` is no model's name.
    """
    if checkpoint is not None:
        return config, checkpoint
    if isinstance(config, str) and (has_model(config) or not (Path(config).suffix or Path(config).exists())):
        card = find_model(config)
        return card.config, card.weights
    source = "The config" if isinstance(config, Mapping) else config
    raise InputError(
        f"{source} is no ONNX model: it needs a checkpoint, too.",
        parameter=("checkpoint", "config"),
        hint="Give {config} and {checkpoint}, or an .onnx file.",
    )


def load_backend(
    config: str | os.PathLike | Mapping | Backend,
    checkpoint: str | os.PathLike | None = None,
    device: str | torch.device | None = None,
    cfg_options: Sequence[str] = (),
    dtype: str | None = None,
    compile: str | None = None,
    seed: int | None = None,
    fidelity: float | None = None,
) -> Backend:
    """What these arguments of :class:`~glean_ext.inference.image_restorer.ImageRestorer` name.

    Raises:
        InputError: It cannot be used.
    """
    given = {"checkpoint": checkpoint, "device": device, "cfg_options": cfg_options, "dtype": dtype, "compile": compile}
    given |= {name: None if value is None else str(value) for name, value in (("seed", seed), ("fidelity", fidelity))}
    if isinstance(config, Backend):
        if useless := [name for name, value in given.items() if value]:
            raise InputError(f"The network is loaded already, so {', '.join(useless)} cannot be chosen. Leave it out.")
        return config
    if not isinstance(config, Mapping) and str(config).lower().endswith(ONNX):
        from glean_ext.inference.onnx_backend import OnnxBackend

        onnx = OnnxBackend(config)
        on_cpu, same = str(device or "cpu") == "cpu", dtype in (None, onnx.metadata.dtype)
        given |= {"device": None if on_cpu else device, "dtype": None if same else dtype}
        if useless := [name for name, value in given.items() if value]:
            raise InputError(
                f"{config} is an ONNX model, in {onnx.metadata.dtype} on the CPU: "
                f"{', '.join(f'{{{name}}}' for name in useless)} cannot be chosen.",
                parameter=useless,
                hint="Leave it out, or give a config and a checkpoint.",
            )
        return onnx
    from glean_ext.inference.torch_backend import TorchBackend

    if config == REALESRGAN and checkpoint is None:
        from glean_ext.inference.ncnn_weights import load_realesrgan

        return TorchBackend(load_realesrgan(), None, device, (), dtype, compile, seed, fidelity)
    return TorchBackend(config, checkpoint, device, cfg_options, dtype, compile, seed, fidelity)
