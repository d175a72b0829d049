"""Restoring images with a config and a checkpoint: one array, one file, or a folder of files."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from itertools import count
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor

from glean_ext.apis.memory import Memory, at_hand, bytes_per_pixel
from glean_ext.apis.sizes import Resize, SizePolicy, SizeRequirements
from glean_ext.apis.tiles import Tiling
from glean_ext.checkpoints import load_restorer
from glean_ext.configs_io import generator_config, load_config
from glean_ext.errors import InputError
from glean_ext.images import image_files, read_rgb, to_tensor, to_uint8, write_png
from glean_ext.networks import build_restorer

SHOWN = 8  # failed files that the last error names before it counts the rest


class Restorer:
    """A network ready to restore images.

    Args:
        config: A config file, or a dict with ``model.generator``.
        checkpoint: The network's state dict or a training checkpoint, as path or URL.
        device: ``'cpu'``, ``'cuda'``, ``'cuda:1'``, ...; None takes the GPU when there is one.
        size_policy: What happens to images of other sizes than the network takes: a :class:`SizePolicy` or its name.
        cfg_options: ``key=value`` changes to a config file.
        notify: Gets one line when an image is not restored as it is.
        on_tile: Is called with (done, all) after each tile of an image.

    Raises:
        InputError: A config, checkpoint, device or policy that cannot be used.
    """

    def __init__(
        self,
        config: str | os.PathLike | Mapping,
        checkpoint: str | os.PathLike,
        device: str | torch.device | None = None,
        size_policy: SizePolicy | str = "auto",
        cfg_options: Sequence[str] = (),
        notify: Callable[[str], None] = print,
        on_tile: Callable[[int, int], None] | None = None,
    ):
        policy = SizePolicy(size_policy) if isinstance(size_policy, str) else size_policy
        self.device = pick_device(device)
        if isinstance(config, Mapping):
            generator = generator_config(config, "config")
        else:
            generator = generator_config(load_config(config, cfg_options), config)
        net = build_restorer(generator)
        self.takes = SizeRequirements.of(net)
        self.size_policy = policy.for_network(self.takes)
        load_restorer(net, checkpoint)
        self.net = net.to(self.device).eval()
        self.notify = notify
        self.on_tile = on_tile

    def restore(self, rgb: np.ndarray, name: str = "the image") -> np.ndarray:
        """(h, w, 3) uint8 RGB -> (H, W, 3) uint8 RGB.

        H and W are the network's scale times h and w, unless the image had to be resized.

        Args:
            rgb: The low-resolution image.
            name: What errors and notices call it.

        Raises:
            InputError: An image the size policy refuses, too little GPU memory, or an output that is not finite.
            TypeError: No (h, w, 3) uint8 array.
        """
        if rgb.dtype != np.uint8 or rgb.ndim != 3 or rgb.shape[2] != 3:
            raise TypeError(f"restore takes (h, w, 3) uint8 RGB, but got {rgb.shape} {rgb.dtype}.")
        size = rgb.shape[0], rgb.shape[1]
        plan, notice = self.size_policy.plan(size, self.takes, self._memory, name)
        if notice:
            self.notify(notice)
        if isinstance(plan, Resize):
            return plan.finish(to_uint8(self._forward(to_tensor(plan.prepare(rgb)), name)), size)
        return self._tiled(rgb, plan, name)

    def _tiled(self, rgb: np.ndarray, tiling: Tiling, name: str) -> np.ndarray:
        """Restore in tiles, of which there may be one."""
        height, width = rgb.shape[:2]
        total, done = tiling.count((height, width)), count(1)

        def forward(tile: Tensor) -> Tensor:
            result = self._forward(tile, name)
            if self.on_tile is not None:
                self.on_tile(next(done), total)
            return result

        result = np.empty((tiling.scale * height, tiling.scale * width, 3), np.uint8)
        top = 0
        for band in tiling.bands(forward, to_tensor(rgb)):
            result[top : top + band.shape[2]] = to_uint8(band)
            top += band.shape[2]
        return result

    @torch.inference_mode()
    def _forward(self, lq: Tensor, name: str) -> Tensor:
        """(1, 3, h, w) -> (1, 3, H, W), in [-1, 1]"""
        try:
            output = self.net(lq.to(self.device))
        except torch.cuda.OutOfMemoryError as error:
            mend = "Give a (smaller) --tile-size, or use" if self.takes.any_size else "Use"
            raise InputError(f"{name}: the GPU has too little memory for it. {mend} --device cpu.") from error
        if not torch.isfinite(output).all():
            raise InputError(f"{name}: the network's output is not finite. The checkpoint is of a failed training.")
        return output

    def _memory(self) -> Memory:
        return Memory(self._bytes_per_pixel, *at_hand(self.device))

    @cached_property
    def _bytes_per_pixel(self) -> float:
        return bytes_per_pixel(self.net)


def pick_device(name: str | torch.device | None) -> torch.device:
    """A device that works; for None the GPU when there is one.

    Raises:
        InputError: There is no such device here.
    """
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).item()
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0].rstrip(".")
        raise InputError(f"--device {name} cannot be used here ({reason}). Use --device cpu.") from error
    return device


def restore_path(
    config: str | os.PathLike,
    checkpoint: str | os.PathLike,
    source: str | os.PathLike,
    output: str | os.PathLike,
    device: str | None = None,
    size_policy: SizePolicy | str = "auto",
    cfg_options: Sequence[str] = (),
) -> None:
    """Restore a file or each image of a folder, and write PNG.

    A bad file in a folder does not stop the others. What was left out, changed or failed is printed.

    Args:
        config: See :class:`Restorer`; so are ``checkpoint``, ``device``, ``size_policy`` and ``cfg_options``.
        source: An image or a folder of images.
        output: A .png for an image, or a folder, which is made when it is not there.

    Raises:
        InputError: Something given cannot be used, or images failed.
    """
    source, output = Path(source), Path(output)
    pairs, others = plan_outputs(source, output)
    console = Console(soft_wrap=True, markup=False, highlight=False, emoji=False)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    failures: dict[Path, InputError] = {}
    alone = not source.is_dir()
    with Progress(*columns, console=console, transient=alone, disable=alone and not console.is_terminal) as progress:
        images = progress.add_task("restoring", total=len(pairs), visible=not alone)
        tiles = progress.add_task("tiles", visible=False)

        def on_tile(done: int, total: int) -> None:
            if done == 1:
                progress.reset(tiles, total=total)
            progress.update(tiles, completed=done, visible=1 < total != done)

        restorer = Restorer(config, checkpoint, device, size_policy, cfg_options, console.print, on_tile)
        if others:
            console.print(f"left out, no images: {', '.join(path.name for path in others)}")
        for image, target in pairs:
            try:
                write_png(restorer.restore(read_rgb(image), str(image)), target)
            except InputError as error:
                if alone:
                    raise
                failures[image] = error
            progress.advance(images)
    if failures:
        for reason in failures.values():
            console.print(f"failed: {reason}")
        names = [path.name for path in failures]
        rest = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
        raise InputError(
            f"{len(failures)} of {len(pairs)} images in {source} failed ({', '.join(names[:SHOWN])}{rest}); why is "
            f"said above. The others are in {output}."
        )


def plan_outputs(source: Path, output: Path) -> tuple[list[tuple[Path, Path]], list[Path]]:
    """Which file is written for which image, and what of a folder is left out. Names are kept, with .png.

    Where two images of a folder differ in their extension only, all outputs keep theirs: ``a.jpg.png``.

    Raises:
        InputError: There is no such source, the output is of the wrong kind, or an input would be overwritten.
    """
    if not source.exists():
        raise InputError(f"{source}: there is no such file or folder. Give an image or a folder of images.")
    if not source.is_dir():
        target = output / f"{source.stem}.png" if output.is_dir() or not output.suffix else output
        if target.suffix.lower() != ".png":
            raise InputError(f"{output}: images are written as PNG. Name it {output.with_suffix('.png')}.")
        if target.exists() and target.samefile(source):
            raise InputError(f"{target} is the input and would be overwritten. Give another output.")
        return [(source, target)], []
    if output.is_file() or (output.suffix.lower() == ".png" and not output.exists()):
        raise InputError(f"{output} is a file, but {source} is a folder. Give a folder as output.")
    if output.exists() and output.samefile(source):
        raise InputError(f"{output} is the input folder. Give another folder as output.")
    images, others = image_files(source)
    unique = len({path.stem.lower() for path in images}) == len(images)
    return [(path, output / f"{path.stem if unique else path.name}.png") for path in images], others
