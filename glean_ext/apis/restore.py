"""Restoring images with a config and a checkpoint: one array, one file, or a folder of files."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from glean_ext.checkpoints import load_restorer
from glean_ext.configs_io import generator_config, load_config
from glean_ext.errors import InputError
from glean_ext.images import image_files, read_rgb, to_tensor, to_uint8, write_png
from glean_ext.imresize import imresize
from glean_ext.networks import build_restorer

SHOWN = 8  # failed files that the last error names before it counts the rest


@dataclass(frozen=True)
class Misfit:
    """An image that is not of the size the network takes, and what a size policy needs to deal with it."""

    image: np.ndarray  # (h, w, 3) uint8
    name: str
    in_size: int
    run: Callable[[np.ndarray], np.ndarray]  # the network: (in_size, in_size, 3) -> (out_size, out_size, 3), uint8
    notify: Callable[[str], None]

    @property
    def sizes(self) -> str:
        height, width = self.image.shape[:2]
        return f"{self.name} has {width}x{height} pixels, but the model takes {self.in_size}x{self.in_size}"


def refuse(misfit: Misfit) -> np.ndarray:
    """The policy ``error``."""
    raise InputError(
        f"{misfit.sizes}. Resize it (MATLAB's antialiased bicubic is what models are trained with), or let "
        "--size-policy resize do that (in Python: size_policy='resize')."
    )


def resize(misfit: Misfit) -> np.ndarray:
    """The policy ``resize``: pad to a square by repeating the border, resize as MATLAB does, cut the padding off.

    The output has the aspect of the image; its longer side is the network's ``out_size``.
    """
    height, width = misfit.image.shape[:2]
    size, side = misfit.in_size, max(height, width)
    misfit.notify(f"{misfit.sizes}; it was resized (--size-policy error refuses such images).")
    # The long side first: so the square, which may be huge for a narrow image, is never made.
    image = imresize(misfit.image, size=(size if height == side else height, size if width == side else width))
    top, left = (side - height) // 2, (side - width) // 2
    across = (top, side - height - top), (left, side - width - left), (0, 0)
    image = np.pad(image, across, mode="edge")
    output = misfit.run(imresize(image, size=(size, size)))
    return _crop(output, top / side, left / side, height / side, width / side)


def _crop(image: np.ndarray, top: float, left: float, height: float, width: float) -> np.ndarray:
    """The part of a square image, all in fractions of its side; at least one pixel."""
    side = len(image)
    rows, columns = max(1, round(height * side)), max(1, round(width * side))
    y, x = min(round(top * side), side - rows), min(round(left * side), side - columns)
    return image[y : y + rows, x : x + columns]


SIZE_POLICIES: dict[str, Callable[[Misfit], np.ndarray]] = {"resize": resize, "error": refuse}


class Restorer:
    """A network ready to restore images.

    Args:
        config: A config file, or a dict with ``model.generator``.
        checkpoint: The network's state dict or a training checkpoint, as path or URL.
        device: ``'cpu'``, ``'cuda'``, ``'cuda:1'``, ...; None takes the GPU when there is one.
        size_policy: What to do with images that are not ``in_size`` by ``in_size``; a key of :data:`SIZE_POLICIES`.
        cfg_options: ``key=value`` changes to a config file.
        notify: Gets one line when an image had to be changed to fit.

    Raises:
        InputError: A config, checkpoint, device or policy that cannot be used.
    """

    def __init__(
        self,
        config: str | os.PathLike | Mapping,
        checkpoint: str | os.PathLike,
        device: str | torch.device | None = None,
        size_policy: str = "resize",
        cfg_options: Sequence[str] = (),
        notify: Callable[[str], None] = print,
    ):
        if size_policy not in SIZE_POLICIES:
            raise InputError(f"size_policy is {size_policy!r}, but it must be one of {', '.join(SIZE_POLICIES)}.")
        self.device = pick_device(device)
        if isinstance(config, Mapping):
            generator = generator_config(config, "config")
        else:
            generator = generator_config(load_config(config, cfg_options), config)
        net = build_restorer(generator)
        load_restorer(net, checkpoint)
        self.net = net.to(self.device).eval()
        self.in_size: int | None = getattr(net, "in_size", None)  # None: any size
        self.size_policy = SIZE_POLICIES[size_policy]
        self.notify = notify

    def restore(self, rgb: np.ndarray, name: str = "the image") -> np.ndarray:
        """(h, w, 3) uint8 RGB -> (H, W, 3) uint8 RGB.

        Args:
            rgb: The low-resolution image.
            name: What errors and notices call it.

        Raises:
            InputError: An image the size policy refuses, too little GPU memory, or an output that is not finite.
            TypeError: No (h, w, 3) uint8 array.
        """
        if rgb.dtype != np.uint8 or rgb.ndim != 3 or rgb.shape[2] != 3:
            raise TypeError(f"restore takes (h, w, 3) uint8 RGB, but got {rgb.shape} {rgb.dtype}.")

        def run(image: np.ndarray) -> np.ndarray:
            return self._forward(image, name)

        if self.in_size is None or rgb.shape[:2] == (self.in_size, self.in_size):
            return run(rgb)
        return self.size_policy(Misfit(rgb, name, self.in_size, run, self.notify))

    @torch.inference_mode()
    def _forward(self, rgb: np.ndarray, name: str) -> np.ndarray:
        try:
            output = self.net(to_tensor(rgb).to(self.device))
        except torch.cuda.OutOfMemoryError as error:
            raise InputError(f"{name}: the GPU has too little memory for it. Use --device cpu.") from error
        if not torch.isfinite(output).all():
            raise InputError(f"{name}: the network's output is not finite. The checkpoint is of a failed training.")
        return to_uint8(output)


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
    size_policy: str = "resize",
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
    restorer = Restorer(config, checkpoint, device, size_policy, cfg_options, notify=console.print)
    if others:
        console.print(f"left out, no images: {', '.join(path.name for path in others)}")
    if not source.is_dir():
        _restore_file(restorer, *pairs[0])
        return
    failures: dict[Path, InputError] = {}
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as progress:
        for image, target in progress.track(pairs, description="restoring"):
            try:
                _restore_file(restorer, image, target)
            except InputError as error:
                failures[image] = error
    if failures:
        for reason in failures.values():
            console.print(f"failed: {reason}")
        names = [path.name for path in failures]
        rest = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
        raise InputError(
            f"{len(failures)} of {len(pairs)} images in {source} failed ({', '.join(names[:SHOWN])}{rest}); why is "
            f"said above. The others are in {output}."
        )


def _restore_file(restorer: Restorer, image: Path, target: Path) -> None:
    write_png(restorer.restore(read_rgb(image), str(image)), target)


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
