"""Restoring images with a config and a checkpoint or an exported model.

Imports nothing heavy itself: PyTorch comes with :mod:`.torch_backend`, an engine with :mod:`.onnx_backend`.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, replace
from itertools import count
from typing import TYPE_CHECKING, Any, overload

import numpy as np
from PIL import Image

from glean_ext.errors import InputError, Notice
from glean_ext.inference.backend import Backend, NetworkOptions, OutOfMemory, load_backend
from glean_ext.inference.memory_budget import Memory
from glean_ext.inference.references import read_references, resized
from glean_ext.inference.size_policy import Resize, Size, SizePolicy, size_of
from glean_ext.inference.tiling import Tiling
from glean_ext.network_settings import LABEL
from glean_ext.size_requirements import format_size
from glean_ext.utils.array_conversion import PIXEL_TYPES, from_floats, to_floats
from glean_ext.utils.image_types import ImageLike, as_picture, like, name_of
from glean_ext.utils.imresize import imresize
from glean_ext.utils.messages import log_notice
from glean_ext.utils.outcome import Outcome
from glean_ext.utils.picture import Picture
from glean_ext.zoo import card_of

if TYPE_CHECKING:  # takes seconds to load
    import torch

Array = np.ndarray


class TileSizes:
    """Sizes of images and of their tiles, so that all frames of a video are cut alike, whatever memory is free.

    Args:
        known: Of frames before, as :meth:`as_list` returned it.
    """

    def __init__(self, known: Sequence[Sequence[Sequence[int]]] = ()):
        self._tiles: dict[Size, Size] = {(size[0], size[1]): (tile[0], tile[1]) for size, tile in known}

    def get(self, size: Size) -> Size | None:
        return self._tiles.get(size)

    def add(self, size: Size, tile: Size) -> None:
        self._tiles[size] = tile

    def as_list(self) -> list[list[list[int]]]:
        """Pairs of the size of an image and that of its tiles, as JSON has them."""
        return [[list(size), list(tile)] for size, tile in self._tiles.items()]


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

    def crop_to_result(self, image: Array) -> Array:
        """(h, w, ...): the part of the image, or of anything of its size, that the result shows."""
        return self.plan.crop_to_result(image) if isinstance(self.plan, Resize) else image

    def enlarge_alpha(self, alpha: Array | None, size: Size) -> Array | None:
        """(h, w) transparency of the image -> (H, W), that of a result of this size, by MATLAB's bicubic."""
        return None if alpha is None else imresize(self.crop_to_result(alpha), size=size)


class ImageRestorer:
    """A network ready to restore images.

    >>> restorer = glean_ext.ImageRestorer("demo_glean_x8")
    >>> picture = restorer.restore("face.png")
    >>> picture.pixels.shape
    (64, 64, 3)
    >>> glean_ext.write_image(picture, "restored.png")

    Args:
        config: The name of a model, see :func:`glean_ext.list_models`, whose weights are found by it; a config file, a
            dict with ``model.generator``, an ``.onnx`` file that ``tools/export.py`` wrote, or a :class:`Backend`,
            which several restorers may share.
        checkpoint: The network's state dict or a training checkpoint, as path or URL; None for a model's name or an
            ``.onnx`` file.
        device: ``'cpu'``, ``'cuda'``, ``'cuda:1'``, ...; None takes the GPU when there is one.
        size_policy: What happens to images of other sizes than the network takes: a :class:`SizePolicy` or its name.
        cfg_options: ``key=value`` changes to the config.
        notify: Gets a notice when an image is not restored as it is; any thread may call it.
        on_tile: Is called with (done, all) after each tile of an image.
        dtype: What the network computes in: ``'float32'``, ``'bfloat16'`` or ``'float16'``. None: bfloat16 where the
            hardware has instructions for it, else float32. With the demo models bfloat16 is off by up to 2.4 of
            255 levels, float16 by up to 0.3.
        compile: A mode of ``torch.compile``, ``'default'`` say; None leaves that out.
        tile_sizes: Images of a size it has are cut into its tiles; others are added to it as they come.
        seed: Of a colorizer: which of its possible answers is given; None: the one in the middle.
        fidelity: Of a network that was trained with the fidelity gate: 0 (restores) to 1 (is faithful to the input);
            None: 0.
        backend: What runs the network: ``'torch'``, ``'onnxruntime'``, ``'openvino'``, ``'tensorrt'``, or ``'auto'``,
            which takes what was measured to be fastest, see :mod:`~glean_ext.inference.backend_choice`. For the last
            three an ONNX model is made, which takes a minute or more, and cached.
        cache: Use and keep cached models of engines; without it one is made for this restorer alone.
        images: How many are going to be restored, as far as is known: ``'auto'`` makes a model only where that pays.
        label: Of a network for many classes: the class of all images, by name or number; None: each is estimated.
        references: One or several other images of what all images show, or folders of them, in high resolution: for
            networks that take references, as many as those take. Others than of the network's output size are resized.

    Attributes:
        network: What runs the network.
        takes: The sizes that the network takes.
        size_policy: With ``'auto'`` decided.
        card: What the zoo knows of the network; None for others.

    Raises:
        InputError: A config, checkpoint, device, policy, dtype, mode, seed, fidelity, backend, references or label that
            cannot be used.
    """

    def __init__(
        self,
        config: str | os.PathLike | Mapping | Backend,
        checkpoint: str | os.PathLike | None = None,
        device: str | torch.device | None = None,
        size_policy: SizePolicy | str = "auto",
        cfg_options: Sequence[str] = (),
        notify: Callable[[Notice], None] = log_notice,
        on_tile: Callable[[int, int], None] | None = None,
        dtype: str | None = None,
        compile: str | None = None,
        tile_sizes: TileSizes | None = None,
        seed: int | None = None,
        fidelity: float | None = None,
        backend: str = "auto",
        cache: bool = True,
        images: int = 1,
        references: ImageLike | Sequence[ImageLike] = (),
        label: int | str | None = None,
    ):
        if label is not None:
            cfg_options = (*cfg_options, f"{LABEL}={label}")
        read = read_references(references)  # before the network, which may take long
        policy = SizePolicy(size_policy) if isinstance(size_policy, str) else size_policy
        self.network = load_backend(
            config,
            checkpoint,
            NetworkOptions(device, cfg_options, dtype, compile, seed, fidelity, backend, cache, images, len(read)),
            notify,
        )
        self.takes = self.network.takes
        if read:
            self.network = self.network.with_references(resized(read, self.output_size, notify))
        self.size_policy = policy.for_network(self.takes)
        self.card = card_of(getattr(self.network, "weights", ""))
        self.notify = notify
        self.on_tile = on_tile
        self.tile_sizes = tile_sizes
        self.writing = 0  # bytes a pixel of a result that writing it takes in addition; who writes files sets it
        self._spent = [0.0]  # seconds in the network, shared with those that have other references

    @property
    def network_seconds(self) -> float:
        """Seconds spent in the network so far."""
        return self._spent[0]

    @property
    def output_size(self) -> Size:
        """Height and width of what the network makes of an image of the size it was trained with."""
        height, width = self.takes.nominal
        return height * self.takes.scale, width * self.takes.scale

    def warn_of_photographs(self) -> None:
        """Give a notice where the network is a demonstration that makes cartoons or emoji of photographs."""
        if self.card is not None and (warning := self.card.warning):
            self.notify(Notice(f"{self.card.name}: {warning}", "model", "{model=list} shows others.", logging.WARNING))

    def with_tile_sizes(self, tile_sizes: TileSizes) -> ImageRestorer:
        """Another restorer of the same network, whose images are cut as ``tile_sizes`` says."""
        other = copy(self)
        other.tile_sizes = tile_sizes
        other._spent = [0.0]
        return other

    def with_references(self, references: Sequence[Array]) -> ImageRestorer:
        """Another restorer of the same network, with these references: (H, W, 3) uint8 RGB of :attr:`output_size`.

        Raises:
            InputError: The network takes fewer, or none.
        """
        other = copy(self)
        other.network = self.network.with_references(references)
        return other

    @overload
    def restore(self, image: Array, name: str = ...) -> Array: ...
    @overload
    def restore(self, image: Image.Image, name: str = ...) -> Image.Image: ...
    @overload
    def restore(self, image: str | os.PathLike | Picture, name: str = ...) -> Picture: ...
    def restore(self, image: ImageLike, name: str = "the image") -> Any:
        """Restore an image.

        The result is the network's scale times as high and wide, unless the image had to be resized.

        Args:
            image: The path of a file, a picture of :func:`glean_ext.read_image`, an image of Pillow, or an array,
                (h, w, 3) uint8 or uint16 RGB.
            name: What errors and notices call it where it has no path.

        Returns:
            For an array (H, W, 3) RGB of its dtype, for an image of Pillow such one, of 8 bits. For others a picture
            with the transparency, the colour profile and the metadata of the file, as :func:`glean_ext.write_image`
            takes it.

        Raises:
            InputError: A file that cannot be read, an image that the size policy refuses, too little GPU memory, or an
                output that is not finite.
            TypeError: Something else, or an array of another shape or dtype.
        """
        return self.restore_batch([image], [name])[0]

    @overload
    def restore_batch(self, images: Sequence[Array], names: Sequence[str] | None = ...) -> list[Array]: ...
    @overload
    def restore_batch(self, images: Sequence[ImageLike], names: Sequence[str] | None = ...) -> list[Any]: ...
    def restore_batch(self, images: Sequence[ImageLike], names: Sequence[str] | None = None) -> list[Any]:
        """As :meth:`restore` for each. Those that get the network's nominal size go through it together.

        Raises:
            InputError, TypeError: As :meth:`restore`, for the first image that fails.
        """
        known = names or [f"image {index}" for index in range(len(images))]
        names = [name_of(image, name) for image, name in zip(images, known, strict=True)]
        pictures = [as_picture(image, name) for image, name in zip(images, names, strict=True)]
        prepared = [self.prepare(picture.filled, name) for picture, name in zip(pictures, names, strict=True)]
        restored = [outcome.unwrap() for outcome in self.try_batch(prepared)]
        results = [
            picture.with_pixels(pixels, item.enlarge_alpha(picture.alpha, size_of(pixels)))
            for picture, item, pixels in zip(pictures, prepared, restored, strict=True)
        ]
        return [like(image, result) for image, result in zip(images, results, strict=True)]

    def prepare(self, rgb: Array, name: str = "the image") -> Prepared:
        """Do what comes before the network; any thread may. :meth:`try_batch` does the rest.

        Raises:
            InputError: The size policy refuses the image.
            TypeError: No (h, w, 3) uint8 or uint16 array.
        """
        if rgb.dtype not in PIXEL_TYPES or rgb.ndim != 3 or rgb.shape[2] != 3:
            raise TypeError(f"restore takes (h, w, 3) uint8 or uint16 RGB, but got {rgb.shape} {rgb.dtype}.")
        if self.network.colorizes and (rgb != rgb[..., :1]).any():
            self.notify(Notice(f"{name} is in colour; the model takes its luminance only."))
        size = rgb.shape[0], rgb.shape[1]
        if max(size) > max(self.takes.nominal) * self.takes.scale:  # larger than all results of its training
            self.warn_of_photographs()
        if self.tile_sizes is not None and (tile := self.tile_sizes.get(size)):
            return Prepared(rgb, size, self.size_policy.tiling(self.takes, tile), name)

        def memory() -> Memory:
            return replace(self.network.memory(), depth=rgb.itemsize, writing=self.writing)

        plan, notice = self.size_policy.plan(size, self.takes, memory, name)
        if self.tile_sizes is not None and isinstance(plan, Tiling):
            self.tile_sizes.add(size, plan.tile)
        if notice is not None:
            self.notify(notice)
        return Prepared(plan.prepare(rgb) if isinstance(plan, Resize) else rgb, size, plan, name)

    def try_batch(self, batch: Sequence[Prepared]) -> list[Outcome[Array]]:
        """For each image its result, or why there is none: those of nominal size together, others one by one."""
        outcomes: dict[int, Outcome[Array]] = {}
        together = [i for i, item in enumerate(batch) if self._is_nominal(item)]
        if len(together) > 1:
            try:
                restored = self._run([batch[i].pixels for i in together])
                outcomes |= {
                    i: Outcome(self._finish(batch[i], pixels)) for i, pixels in zip(together, restored, strict=True)
                }
            except InputError:  # one by one the others go through, and the error names the image at fault
                self.notify(
                    Notice(f"{len(together)} images did not go through the network together; they go one by one.")
                )
        for i, item in enumerate(batch):
            if i not in outcomes:
                outcomes[i] = Outcome.of(lambda item=item: self._restore_alone(item))  # type: ignore[misc]
        return [outcomes[i] for i in range(len(batch))]

    def _is_nominal(self, item: Prepared) -> bool:
        return item.pixels.shape[:2] == self.takes.nominal and not item.in_tiles

    def _run(self, images: Sequence[Array]) -> list[Array]:
        return self._timed(lambda: self.network.restore(images))

    def _timed(self, work: Callable) -> Any:
        started = time.perf_counter()
        try:
            return work()
        finally:
            self._spent[0] += time.perf_counter() - started

    def _restore_alone(self, image: Prepared) -> Array:
        try:
            return self._in_memory(image)
        except InputError as error:
            raise error.about(image.name) from error

    def _in_memory(self, image: Prepared) -> Array:
        """Restore an image, in smaller and smaller tiles where the memory of the GPU turns out not to suffice."""
        while True:
            try:
                if image.in_tiles:
                    return self._tiled(image)
                result = self._finish(image, self._run([image.pixels])[0])
                if self.on_tile is not None:
                    self.on_tile(1, 1)
                return result
            except OutOfMemory as error:
                image = self._with_smaller_tiles(image, error)

    def _with_smaller_tiles(self, image: Prepared, error: OutOfMemory) -> Prepared:
        """The image in tiles of about half the side; raises ``error`` where that cannot be."""
        policy = self.size_policy
        tile = None
        if isinstance(image.plan, Tiling) and self.takes.any_size and policy.name == "tile":
            tile = image.plan.smaller_tile(image.size)
        if tile is None:
            raise error
        plan = policy.tiling(self.takes, tile)
        self.notify(
            Notice(
                f"{image.name}: the GPU has too little memory for it as planned; it is restored in "
                f"{plan.count(image.size)} tiles of {format_size(tile)}."
            )
        )
        if self.tile_sizes is not None:
            self.tile_sizes.add(image.size, tile)
        return replace(image, plan=plan)

    def _finish(self, image: Prepared, result: Array) -> Array:
        return image.plan.finish(result, image.size) if isinstance(image.plan, Resize) else result

    def _tiled(self, image: Prepared) -> Array:
        tiling, (height, width) = image.plan, image.size
        assert isinstance(tiling, Tiling)
        total, done = tiling.count(image.size), count(1)

        def forward(tile: Array) -> Array:
            result = self._timed(lambda: self.network(tile))
            if self.on_tile is not None:
                self.on_tile(next(done), total)
            return result

        result = np.empty((tiling.scale * height, tiling.scale * width, 3), image.pixels.dtype)
        top = 0
        for band in tiling.bands(forward, to_floats(image.pixels)):
            result[top : top + band.shape[2]] = from_floats(band, image.pixels.dtype)
            top += band.shape[2]
        return result
