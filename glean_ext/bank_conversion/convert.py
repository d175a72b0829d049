"""A StyleGAN2 checkpoint of another implementation, made into a bank for GLEAN: every tensor accounted for."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import glean_ext
from glean_ext import checkpoints
from glean_ext.bank_conversion.key_maps import FOREIGN, FORMATS, IMAGE_AXES, KeyMap, Row
from glean_ext.bank_conversion.sources import Network, Source, read_source
from glean_ext.errors import InputError
from glean_ext.networks import StyleGAN2Discriminator, StyleGAN2Generator
from glean_ext.networks.banks.stylegan2 import StyleConv
from glean_ext.networks.shapes import MIN_SIZE, channels_by_resolution

CONVERTER = "1"  # raised when the same source would give other tensors
AUTO = "auto"
NO_DISCRIMINATOR = "--no-discriminator converts the generator alone."


@dataclass
class Bank:
    """What was converted. The arguments are those of the networks, for a config."""

    format: str
    taken: list[str]  # the source's names of the networks
    generator: dict[str, Any]
    discriminator: dict[str, Any]  # empty when there is none
    tensors: dict[str, Tensor]
    notes: list[str] = field(default_factory=list)


def convert_bank(
    source: str | os.PathLike, out: str | os.PathLike, kind: str = AUTO, discriminator: bool = True, bgr: bool = False
) -> Bank:
    """Write the generator, and the discriminator if there is one, as ``generator_ema`` and ``discriminator``.

    The averaged generator is taken where the file has one. The images are those of the source for the same latent
    codes and noise, in fp32; where the source computes in half precision, up to that. From latent codes z they differ
    by another relative 5e-7, for the mapping network adds 1e-6 and not 1e-8 to the mean square of z, as MMagic does.

    Args:
        source: Path or URL of the checkpoint.
        out: A ``.safetensors`` file.
        kind: ``'mmagic'``, ``'rosinality'``, ``'nvidia'`` or ``'auto'``.
        discriminator: Take the discriminator too.
        bgr: The source's images are BGR; the converted networks' are RGB.

    Raises:
        InputError: The file is not of that kind, is damaged, wants to run code, or holds a network that is no
            unconditional StyleGAN2 of this package's arithmetic.
    """
    if Path(out).suffix != ".safetensors":
        raise InputError(f"{out} must end in .safetensors. Choose another output.")
    path = checkpoints.local_path(str(source))
    content = read_source(path)
    if kind not in (AUTO, content.format):
        raise InputError(f"{path} is a {content.format} checkpoint, not {kind}. Take --from {content.format}.")
    bank = _bank(content, path, discriminator)
    if bgr:
        _reverse_channels(bank.tensors)
    checkpoints.save(bank.tensors, out, _metadata(bank, path, bgr))
    return bank


def _bank(content: Source, path: Path, with_discriminator: bool) -> Bank:
    known = FORMATS[content.format]
    generators = [name for name in known.generators if name in content.networks]
    discriminators = [name for name in known.discriminators if name in content.networks and with_discriminator]
    if not generators:
        raise InputError(
            f"{path} has no generator: of {' and '.join(known.generators)} it holds neither, only "
            f"{', '.join(content.networks)}. Take a checkpoint with the generator."
        )
    taken = [generators[0], *discriminators]
    network = content.networks[generators[0]]
    state, names = _rename(network, known.generator, path)
    notes = _draw_missing_noise(state)
    arguments = _generator_arguments(state, names, f"{path}: {network.entry}")
    generator = StyleGAN2Generator(**arguments)
    _fill(generator, state, names, f"{path}: {network.entry}")
    bank = Bank(content.format, taken, arguments, {}, {f"generator_ema.{k}": v for k, v in state.items()}, notes)
    notes += _precision_notes(network, generator)
    if generators[0] != known.generators[0]:
        notes.append(f"it has no averaged generator ({known.generators[0]}), so {generators[0]} is taken")
    for name in discriminators:
        _add_discriminator(bank, content.networks[name], known.discriminator, path)
    if left := [*(name for name in content.networks if name not in taken), *content.others]:
        notes.append(f"not taken: {', '.join(left)}")
    return bank


def _add_discriminator(bank: Bank, network: Network, keys: KeyMap, path: Path) -> None:
    where = f"{path}: {network.entry}"
    try:
        state, names = _rename(network, keys, path)
        arguments = _discriminator_arguments(state, names, where)
        if arguments["in_size"] != bank.generator["out_size"]:
            sizes = f"{arguments['in_size']}x{arguments['in_size']} images, but the generator makes"
            raise InputError(f"{where} takes {sizes} {bank.generator['out_size']}x{bank.generator['out_size']}.")
        usual = {"group_size": 4, "channel_groups": 1}
        stddev = usual | {name: value for name, value in network.minibatch_stddev.items() if isinstance(value, int)}
        if stddev != usual:
            arguments["mbstd_cfg"] = stddev
        if network.minibatch_stddev.get("group_size", 4) is None:
            bank.notes.append(f"{network.entry} compares all images of a batch: set mbstd_cfg's group_size to it")
        _fill(StyleGAN2Discriminator(**arguments), state, names, where)
    except InputError as error:
        raise InputError(f"{error} {NO_DISCRIMINATOR}") from error
    bank.discriminator = arguments
    bank.tensors |= {f"discriminator.{key}": tensor for key, tensor in state.items()}


# ---------------------------------------------------------------- names


def _rename(network: Network, keys: KeyMap, path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors by our names, in fp32, and the source's name of each.

    Raises:
        InputError: A source key that nothing needs, or a missing one.
    """
    where = f"{path}: {network.entry}"
    source = network.tensors
    rows = list(_expand(keys, source))
    needed = {row.source for row in rows}
    surplus = [key for key in source if key not in needed and not any(re.fullmatch(p, key) for p in keys.unused)]
    for pattern, meaning in FOREIGN:
        for key in surplus:
            if re.fullmatch(pattern, key):
                raise InputError(f"{where} is {meaning} ({key}). Only unconditional StyleGAN2 can be converted.")
    if network.misfit:
        raise InputError(f"{where} cannot be converted: {network.misfit}.")
    missing = [row.source for row in rows if row.source not in source and not _may_miss(row, source, rows)]
    for count, problem, those in ((len(missing), "lacks", missing), (len(surplus), "has the unknown", surplus)):
        if count:
            more = f" and {count - 3} more" if count > 3 else ""
            raise InputError(f"{where} {problem} {', '.join(those[:3])}{more}, so it is not the StyleGAN2 expected.")
    present = [row for row in rows if row.source in source]
    plain = torch.contiguous_format
    state = {row.target: row.change(source[row.source].float()).clone(memory_format=plain) for row in present}
    return state, {row.target: row.source for row in present}


def _expand(keys: KeyMap, source: dict[str, Tensor]) -> Iterator[Row]:
    """The rows for as many layers and blocks as the source has."""
    blocks = _count(keys.blocks, source)
    layers = _count(keys.layers, source)
    numbered = [(keys.once, {"size": MIN_SIZE << blocks})]
    numbered += [(keys.layers, _numbers(i, layers)) for i in range(layers)]
    numbered += [(keys.blocks, _numbers(i, blocks)) for i in range(blocks)]
    for rows, numbers in numbered:
        for row in rows:
            yield Row(row.target.format(**numbers), row.source.format(**numbers), row.change)
    yield from (row for row in keys.optional if row.source in source)


def _count(rows: tuple[Row, ...], source: dict[str, Tensor]) -> int:
    if not rows:
        return 0
    probe = rows[0].source
    return next(i for i in itertools.count() if probe.format(**_numbers(i, 2 * i + 1)) not in source)


def _numbers(i: int, count: int) -> dict[str, int]:
    """What the placeholders of :mod:`~glean_ext.bank_conversion.key_maps` stand for."""
    block = {"i": i, "res": 2 * MIN_SIZE << i, "up": 2 * i, "same": 2 * i + 1, "next": 2 * i + 2, "down": count - i}
    return block | {"fc": i, "layer": i + 1}


def _is_noise(row: Row) -> bool:
    return row.target.startswith("injected_noise_")


def _may_miss(row: Row, source: dict[str, Tensor], rows: list[Row]) -> bool:
    """The first checkpoints of rosinality's have no stored noise; a file that has some must have all."""
    return _is_noise(row) and not any(_is_noise(other) and other.source in source for other in rows)


def _draw_missing_noise(state: dict[str, Tensor]) -> list[str]:
    """The stored noise was drawn too, when the source's network was built."""
    if "injected_noise_0" in state:
        return []
    blocks = _how_many(r"to_rgbs\.\d+\.bias", state)
    generator = torch.Generator().manual_seed(0)
    for layer in range(2 * blocks + 1):
        res = 2 ** ((layer + 5) // 2)
        state[f"injected_noise_{layer}"] = torch.randn(1, 1, res, res, generator=generator)
    return ["it has no stored noise: drawn anew, standard normal, seed 0"]


def _reverse_channels(tensors: dict[str, Tensor]) -> None:
    for key, tensor in tensors.items():
        for pattern, axis in IMAGE_AXES:
            if re.fullmatch(pattern, key.partition(".")[2]):
                tensors[key] = tensor.flip(axis)


# ---------------------------------------------------------------- sizes


def _generator_arguments(state: dict[str, Tensor], names: dict[str, str], where: str) -> dict[str, Any]:
    """The arguments that give a generator of these shapes."""
    blocks = _how_many(r"to_rgbs\.\d+\.bias", state)
    layers = {MIN_SIZE: "constant_input.input"}
    layers |= {2 * MIN_SIZE << i: f"convs.{2 * i + 1}.conv.weight_orig" for i in range(blocks)}
    style = "conv1.conv.style_modulation.linear.weight_orig"
    return {
        "out_size": MIN_SIZE << blocks,
        "style_channels": _width(state, style, names, where),
        "num_mlps": _how_many(r"style_mapping\.\d+\.bias", state),
        **_channels({res: (key, _width(state, key, names, where)) for res, key in layers.items()}, names, where),
    }


def _discriminator_arguments(state: dict[str, Tensor], names: dict[str, str], where: str) -> dict[str, Any]:
    """The arguments that give a discriminator of these shapes."""
    blocks = _how_many(r"convs\.\d+\.skip\.0\.kernel", state)
    layers = {MIN_SIZE: "final_linear.1.linear.weight_orig"}
    layers |= {MIN_SIZE << (blocks - i + 1): f"convs.{i}.conv1.0.conv.weight_orig" for i in range(blocks, 0, -1)}
    widths = {res: (key, _width(state, key, names, where)) for res, key in layers.items()}
    return {"in_size": MIN_SIZE << blocks, **_channels(widths, names, where)}


def _how_many(pattern: str, state: dict[str, Tensor]) -> int:
    return sum(bool(re.fullmatch(pattern, key)) for key in state)


def _width(state: dict[str, Tensor], key: str, names: dict[str, str], where: str) -> int:
    """The input channels of a layer; of a modulated convolution the output channels."""
    shape = state[key].shape
    if len(shape) < 2 or not shape[1]:
        raise InputError(f"{where} has {names[key]} {tuple(shape)}, which is no layer's weight.")
    return shape[1]


def _channels(layers: dict[int, tuple[str, int]], names: dict[str, str], where: str) -> dict[str, Any]:
    """``channel_multiplier`` and ``max_channels`` for these widths by resolution; the usual values where they do.

    Raises:
        InputError: No such values give the widths.
    """
    size = max(layers)
    if size < 2 * MIN_SIZE:
        raise InputError(f"{where} makes or takes images of {size}x{size}; StyleGAN2's are 8x8 at least.")
    most = max(width for _, width in layers.values())
    for multiplier in (2, 1, layers[size][1] * size / 16384):
        table = channels_by_resolution(size, multiplier, most)
        wrong = [res for res, (_, width) in layers.items() if table[res] != width]
        if not wrong:
            return {"channel_multiplier": multiplier, "max_channels": most}
    key, width = layers[wrong[0]]
    raise InputError(
        f"{where} has {width} channels at {wrong[0]}x{wrong[0]} ({names[key]}), where no channel_multiplier and "
        f"max_channels give that: with {layers[size][1]} at {size}x{size} it should be {table[wrong[0]]}."
    )


# ---------------------------------------------------------------- checks


def _fill(net: nn.Module, state: dict[str, Tensor], names: dict[str, str], where: str) -> None:
    """Fill the network of our own: the proof that every tensor has its place.

    Raises:
        InputError: A shape or a resampling filter that is another, or a value that is not finite.
    """
    for key, own in net.state_dict().items():
        value, name = state[key], names.get(key, key)
        if value.shape != own.shape:
            expected = f"where a StyleGAN2 of its sizes has {tuple(own.shape)}"
            raise InputError(f"{where} has {name} {tuple(value.shape)}, {expected}.")
        if not value.isfinite().all():
            raise InputError(f"{where} has {name} with values that are not finite. Take a checkpoint before that.")
        if key.endswith("kernel") and not torch.allclose(value, own, atol=1e-6):
            raise InputError(f"{where} has {name} with other taps than 1, 3, 3, 1, which are the ones known.")
    checkpoints.load_strict(net, state, where, checkpoints.UNUSED_BANK_KEYS)


def _precision_notes(network: Network, generator: StyleGAN2Generator) -> list[str]:
    """What the source does for the sake of half precision, and this package does not."""
    notes = []
    if network.fp16:
        notes.append(f"{network.entry} computes {', '.join(map(str, network.fp16))} in fp16; the bank is fp32")
    if network.clamps:
        reached = _largest_activation(generator)
        limit = min(network.clamps)
        verdict = "so nothing changes" if reached < limit else "so such images differ"
        notes.append(
            f"{network.entry} clamps activations to {limit:g}, the bank does not; two random images reach "
            f"{reached:.3g}, {verdict}"
        )
    return notes


@torch.no_grad()
def _largest_activation(generator: StyleGAN2Generator, images: int = 2) -> float:
    """The largest magnitude that any layer gives for random latent codes, seed 0."""
    reached: list[Tensor] = []
    for module in generator.modules():
        if isinstance(module, StyleConv):
            module.register_forward_hook(lambda _module, _args, features: reached.append(features.abs().max()))
    random = torch.Generator().manual_seed(0)
    for _ in range(images):  # one by one: a large bank takes a few GB an image
        generator(torch.randn(1, generator.style_channels, generator=random))
    return torch.stack(reached).max().item()


# ---------------------------------------------------------------- provenance


def _metadata(bank: Bank, path: Path, bgr: bool) -> dict[str, str]:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return {
        **{key: str(value) for key, value in bank.generator.items()},
        "discriminator": json.dumps(bank.discriminator),
        "source": path.name,
        "source_sha256": digest.hexdigest(),
        "source_format": bank.format,
        "source_networks": ", ".join(bank.taken),
        "source_channels": "BGR, reversed" if bgr else "as they are",
        "converter": f"glean-ext {glean_ext.__version__}, converter {CONVERTER}",
    }
