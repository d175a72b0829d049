"""Inversion of image files with the bank of a config."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from glean_ext.config import generator_config, load_config
from glean_ext.errors import InputError
from glean_ext.inversion.pulse import Inversion, InversionOptions, Progress, invert
from glean_ext.networks import StyleGAN2Generator, channels_last
from glean_ext.networks.registry import build_network
from glean_ext.utils.array_conversion import from_floats, to_tensor
from glean_ext.utils.image_io import read_rgb
from glean_ext.utils.image_types import write_image


def load_config_bank(
    config: str | os.PathLike, cfg_options: Sequence[str] = (), device: str | None = None
) -> StyleGAN2Generator:
    """The pre-trained generator that a config's GLEAN starts with, frozen.

    Args:
        config: Config file.
        cfg_options: ``key=value`` changes to it.
        device: ``'cpu'``, ``'cuda'``, ...; None takes the GPU when there is one.

    Raises:
        InputError: The config's network has no whole StyleGAN2, or no file for it.
    """
    network = build_network(generator_config(load_config(config, list(cfg_options)), config))
    bank = getattr(network, "generator", None)
    if not isinstance(bank, StyleGAN2Generator) or network.init_cfg is None:
        raise InputError(f"{config} has no pre-trained StyleGAN2 generator. Take a config of GLEAN with a bank file.")
    network.init_weights()
    channels_last(bank)
    return bank.requires_grad_(False).eval().to(device or ("cuda" if torch.cuda.is_available() else "cpu"))


def invert_images(
    generator: StyleGAN2Generator,
    jobs: Sequence[tuple[Path, Path]],  # input and output file of each
    options: InversionOptions,
    on_start: Callable[[Path], Progress | None],
    on_done: Callable[[Path, Inversion], None],
) -> None:
    """Invert images one after the other; each result is written when it is found.

    Raises:
        InputError: An image cannot be read, or is not square and smaller than the generator's images.
    """
    for source, target in jobs:
        found = invert(generator, to_tensor(read_rgb(source))[0], options, on_start(source))
        write_image(from_floats(found.image.cpu().numpy()), target)
        on_done(target, found)


def plan(inputs: Sequence[Path], folder: Path, overwrite: bool) -> list[tuple[Path, Path]]:
    """Each input with its output, ``folder/<name>.png``.

    Raises:
        InputError: Two inputs have the same name, or an output exists and must not be overwritten.
    """
    jobs: dict[Path, Path] = {}
    for source in inputs:
        target = folder / f"{source.stem}.png"
        if target in jobs:
            raise InputError(f"{jobs[target]} and {source} would both be written to {target}. Invert them separately.")
        if target.exists() and (not overwrite or target.resolve() == source.resolve()):
            raise InputError(f"{target} exists. Choose another {{output}}.", "output")
        jobs[target] = source
    return [(source, target) for target, source in jobs.items()]
