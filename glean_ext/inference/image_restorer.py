"""Restoring images, as arrays, with a config and a checkpoint or an exported model.

Imports nothing heavy itself: PyTorch comes with :mod:`.torch_network`, onnxruntime with :mod:`.onnx_runtime`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count
from typing import TYPE_CHECKING, Protocol

import numpy as np

from glean_ext.errors import InputError
from glean_ext.inference.memory_budget import Memory
from glean_ext.inference.size_policy import Resize, Size, SizePolicy
from glean_ext.inference.tiling import Tiling
from glean_ext.size_requirements import SizeRequirements
from glean_ext.utils.array_conversion import PIXEL_TYPES, from_floats, to_floats

if TYPE_CHECKING:  # takes seconds to load
    import torch

Array = np.ndarray
ONNX = ".onnx"


class Network(Protocol):
    """What restores images of sizes it takes: a ``TorchNetwork`` or an ``OnnxNetwork``.

    What it raises as InputError does not name the image.
    """

    takes: SizeRequirements

    def __call__(self, lq: Array) -> Array:
        """(N, 3, h, w) float32, RGB in [-1, 1] -> (N, 3, H, W) float32, about [-1, 1]."""

    def restore(self, images: Sequence[Array]) -> list[Array]:
        """Images of one size, (h, w, 3) uint8 or uint16 RGB, together: each as (H, W, 3) of its dtype."""

    def memory(self) -> Memory:
        """What a forward takes, and what there is. Any thread may ask."""


@dataclass(frozen=True, eq=False)
class Prepared:
    """An image ready for the network.

    Attributes:
        pixels: (h, w, 3) uint8 or uint16 RGB, resized where the plan says so.
        size: Height and width it came with.
        plan: What was or will be done with it.
        name: What errors call it.
    """

    pixels: Array
    size: Size
    plan: Resize | Tiling
    name: str

    @property
    def in_tiles(self) -> bool:
        """Whether it does not go through the network as it is."""
        if isinstance(self.plan, Resize):
            return False
        padded = any(length < least for length, least in zip(self.size, self.plan.least, strict=True))
        return padded or self.plan.count(self.size) > 1

    def shown(self, image: Array) -> Array:
        """(h, w, ...): the part of the image, or of anything of its size, that the result shows."""
        return self.plan.shown(image) if isinstance(self.plan, Resize) else image


class ImageRestorer:
    """A network ready to restore images.

    Args:
        config: A config file, a dict with ``model.generator``, or an ``.onnx`` file that ``tools/export.py`` wrote.
        checkpoint: The network's state dict or a training checkpoint, as path or URL; None for an ``.onnx`` file.
        device: ``'cpu'``, ``'cuda'``, ``'cuda:1'``, ...; None takes the GPU when there is one.
        size_policy: What happens to images of other sizes than the network takes: a :class:`SizePolicy` or its name.
        cfg_options: ``key=value`` changes to a config file.
        notify: Gets one line when an image is not restored as it is.
        on_tile: Is called with (done, all) after each tile of an image.
        dtype: What the network computes in: ``'float32'``, ``'bfloat16'`` or ``'float16'``. None: bfloat16 where the
            hardware has instructions for it, else float32. With the demo models bfloat16 is off by up to 2.4 of
            255 levels, float16 by up to 0.3.
        compile: A mode of ``torch.compile``, ``'default'`` say; None leaves that out.

    Raises:
        InputError: A config, checkpoint, device, policy, dtype or mode that cannot be used.
    """

    def __init__(
        self,
        config: str | os.PathLike | Mapping,
        checkpoint: str | os.PathLike | None = None,
        device: str | torch.device | None = None,
        size_policy: SizePolicy | str = "auto",
        cfg_options: Sequence[str] = (),
        notify: Callable[[str], None] = print,
        on_tile: Callable[[int, int], None] | None = None,
        dtype: str | None = None,
        compile: str | None = None,
    ):
        policy = SizePolicy(size_policy) if isinstance(size_policy, str) else size_policy
        self.network = load_network(config, checkpoint, device, cfg_options, dtype, compile)
        self.takes = self.network.takes
        self.size_policy = policy.for_network(self.takes)
        self.notify = notify
        self.on_tile = on_tile
        # The frames of a video are all cut alike, whatever memory is free: sizes of images, and of their tiles.
        self.tiles: dict[Size, Size] | None = None

    def restore(self, rgb: Array, name: str = "the image") -> Array:
        """(h, w, 3) RGB -> (H, W, 3) RGB, both uint8 or both uint16.

        H and W are the network's scale times h and w, unless the image had to be resized.

        Args:
            rgb: The low-resolution image.
            name: What errors and notices call it.

        Raises:
            InputError: An image the size policy refuses, too little GPU memory, or an output that is not finite.
            TypeError: No (h, w, 3) uint8 or uint16 array.
        """
        return self._one(self.prepare(rgb, name))

    def restore_batch(self, images: Sequence[Array], names: Sequence[str] | None = None) -> list[Array]:
        """As :meth:`restore` for each. Those that get the network's nominal size go through it together.

        Raises:
            InputError, TypeError: As :meth:`restore`, for the first image that fails.
        """
        names = names or [f"image {index}" for index in range(len(images))]
        results = self.try_batch([self.prepare(rgb, name) for rgb, name in zip(images, names, strict=True)])
        for result in results:
            if isinstance(result, InputError):
                raise result
        return [result for result in results if not isinstance(result, InputError)]

    def prepare(self, rgb: Array, name: str = "the image") -> Prepared:
        """Do what comes before the network; any thread may. :meth:`try_batch` does the rest.

        Raises:
            InputError: The size policy refuses the image.
            TypeError: No (h, w, 3) uint8 or uint16 array.
        """
        if rgb.dtype not in PIXEL_TYPES or rgb.ndim != 3 or rgb.shape[2] != 3:
            raise TypeError(f"restore takes (h, w, 3) uint8 or uint16 RGB, but got {rgb.shape} {rgb.dtype}.")
        size = rgb.shape[0], rgb.shape[1]
        if self.tiles and size in self.tiles:
            return Prepared(rgb, size, self.size_policy.tiling(self.takes, self.tiles[size]), name)

        def memory() -> Memory:
            return replace(self.network.memory(), depth=rgb.itemsize)

        plan, notice = self.size_policy.plan(size, self.takes, memory, name)
        if self.tiles is not None and isinstance(plan, Tiling):
            self.tiles[size] = plan.tile
        if notice:
            self.notify(notice)
        return Prepared(plan.prepare(rgb) if isinstance(plan, Resize) else rgb, size, plan, name)

    def try_batch(self, batch: Sequence[Prepared]) -> list[Array | InputError]:
        """For each image its result, or why there is none: those of nominal size together, others one by one."""
        results: dict[int, Array | InputError] = {}
        together = [i for i, one in enumerate(batch) if one.pixels.shape[:2] == self.takes.nominal and not one.in_tiles]
        if len(together) > 1:
            try:
                restored = self.network.restore([batch[i].pixels for i in together])
                results |= {i: self._finish(batch[i], pixels) for i, pixels in zip(together, restored, strict=True)}
            except InputError:  # by themselves the others go through, and it is told which one does not
                self.notify(f"{len(together)} images did not go through the network together; they go one by one.")
        for i, one in enumerate(batch):
            if i not in results:
                try:
                    results[i] = self._one(one)
                except InputError as error:
                    results[i] = error
        return [results[i] for i in range(len(batch))]

    def _one(self, image: Prepared) -> Array:
        try:
            if image.in_tiles:
                return self._tiled(image)
            result = self._finish(image, self.network.restore([image.pixels])[0])
        except InputError as error:
            raise InputError(f"{image.name}: {error}") from error
        if self.on_tile is not None:
            self.on_tile(1, 1)
        return result

    def _finish(self, image: Prepared, result: Array) -> Array:
        return image.plan.finish(result, image.size) if isinstance(image.plan, Resize) else result

    def _tiled(self, image: Prepared) -> Array:
        tiling, (height, width) = image.plan, image.size
        assert isinstance(tiling, Tiling)
        total, done = tiling.count(image.size), count(1)

        def forward(tile: Array) -> Array:
            result = self.network(tile)
            if self.on_tile is not None:
                self.on_tile(next(done), total)
            return result

        result = np.empty((tiling.scale * height, tiling.scale * width, 3), image.pixels.dtype)
        top = 0
        for band in tiling.bands(forward, to_floats(image.pixels)):
            result[top : top + band.shape[2]] = from_floats(band, image.pixels.dtype)
            top += band.shape[2]
        return result


def load_network(
    config: str | os.PathLike | Mapping,
    checkpoint: str | os.PathLike | None,
    device: str | torch.device | None,
    cfg_options: Sequence[str],
    dtype: str | None,
    compile: str | None,
) -> Network:
    """What the arguments of :class:`ImageRestorer` name.

    Raises:
        InputError: It cannot be used.
    """
    if not isinstance(config, Mapping) and str(config).lower().endswith(ONNX):
        from glean_ext.inference.onnx_backend import OnnxNetwork

        onnx = OnnxNetwork(config)
        given: dict[str, object] = {"checkpoint": checkpoint, "cfg_options": cfg_options, "compile": compile}
        given |= {"device": str(device or "cpu") != "cpu", "dtype": dtype not in (None, onnx.facts.dtype)}
        if useless := [name for name, value in given.items() if value]:
            raise InputError(
                f"{config} is an ONNX model, in {onnx.facts.dtype} on the CPU: {', '.join(useless)} cannot be chosen. "
                "Leave it out, or give a config and a checkpoint."
            )
        return onnx
    if checkpoint is None:
        raise InputError(
            f"{config} is no ONNX model: it needs a checkpoint, too. Give CONFIG CHECKPOINT or MODEL.onnx."
        )
    from glean_ext.inference.torch_backend import TorchNetwork

    return TorchNetwork(config, checkpoint, device, cfg_options, dtype, compile)
