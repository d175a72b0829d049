"""Converts a StyleGAN2 or BigGAN of another implementation to a bank for GLEAN; every tensor is accounted for."""

from __future__ import annotations

import itertools
import json
import os
import pickle
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

import glean_ext
from glean_ext import checkpoints
from glean_ext.bank_conversion.biggan import convert_biggan
from glean_ext.bank_conversion.key_maps import FOREIGN, FORMATS, IMAGE_AXES, KeyMap, Row
from glean_ext.bank_conversion.sources import Network, Source, read_source
from glean_ext.errors import InputError, first_line
from glean_ext.networks import StyleGAN2Discriminator, StyleGAN2Generator
from glean_ext.networks.banks.biggan_file import bank_sizes
from glean_ext.networks.banks.stylegan2 import StyleConv
from glean_ext.networks.shapes import MIN_SIZE, channels_by_resolution
from glean_ext.utils.downloads import file_hash
from glean_ext.utils.files import expand_home, require_suffix
from glean_ext.utils.messages import summarize_names
from glean_ext.utils.safe_unpickler import Budget
from glean_ext.utils.weight_files import local_path

CONVERTER = "1"  # increased when the same source would give other tensors
AUTO = "auto"
MAX_SIZE = 4096  # pixels of a side; the noise of a larger network could take more memory than its file promises

Net = TypeVar("Net", bound=nn.Module)


@dataclass
class Bank:
    """The result of a conversion, with the arguments of the networks for a config."""

    format: str
    taken: list[str]  # the networks, as the source names them
    generator: dict[str, Any]
    discriminator: dict[str, Any]  # empty when there is none
    tensors: dict[str, Tensor]
    notes: list[str] = field(default_factory=list)


def convert_bank(
    source: str | os.PathLike, out: str | os.PathLike, kind: str = AUTO, discriminator: bool = True, bgr: bool = False
) -> Bank:
    """Write the generator, and the discriminator if there is one, as ``generator_ema`` and ``discriminator``.

    >>> bank = glean_ext.convert_bank("stylegan2.pt", "bank.safetensors")
    >>> bank.format, bank.generator["out_size"]
    ('rosinality', 32)

    The averaged generator is taken where the file has one. The images are those of the source for the same latent
    codes and noise, in fp32, up to rounding and to the half precision that the source may compute in. From latent codes
    z they differ by a further relative 5e-7: the mapping network adds 1e-6 to the mean square of z, as MMagic does, and
    the source 1e-8.

    Args:
        source: Path or URL of the checkpoint.
        out: A ``.safetensors`` file.
        kind: ``'mmagic'``, ``'rosinality'``, ``'nvidia'``, ``'biggan'`` (its authors' PyTorch release) or ``'auto'``.
        discriminator: Take the discriminator too.
        bgr: The source's images are BGR; the converted networks' are RGB.

    Raises:
        InputError: The file is not of that kind, is damaged, wants to run code, or holds a network that is neither an
            unconditional StyleGAN2 of this package's arithmetic nor a class-conditional BigGAN.
    """
    out = expand_home(out)
    require_suffix(out, ".safetensors")
    path = local_path(str(source))
    content = read_source(path)
    if kind not in (AUTO, content.format):
        raise InputError(
            f"{path} is a {content.format} checkpoint, not {kind}.",
            parameter="kind",
            hint=f"Set {{kind={content.format}}}.",
        )
    bank = _bank(content, path, discriminator)
    if bgr:
        _reverse_channels(bank.tensors)
    checkpoints.save(bank.tensors, out, _metadata(bank, path, bgr))
    return bank


def _bank(content: Source, path: Path, with_discriminator: bool) -> Bank:
    if content.format == "biggan":
        return _biggan(content, path)
    known = FORMATS[content.format]
    discriminators = content.discriminators if with_discriminator else []
    if not content.generators:
        held = ", ".join(network.name for network in content.discriminators)
        raise InputError(
            f"{path} has no generator: of {' and '.join(known.generators)} it holds neither, only {held}. Take a "
            "checkpoint with the generator."
        )
    network = content.generators[0]
    where = f"{path}: {network.name}"
    if bank_sizes(network.tensors):
        raise InputError(
            f"{where} is a BigGAN with MMagic's names, which configs take as it is: checkpoint={str(path)!r}, "
            f"prefix={network.entry!r}."
        )
    state, names = _rename(network, known.generator, path)
    arguments = _generator_arguments(state, names, where)
    notes = _draw_missing_noise(state)
    generator = _fill(StyleGAN2Generator, arguments, state, names, where)
    tensors = {f"generator_ema.{key}": tensor for key, tensor in state.items()}
    bank = Bank(content.format, [network.name], arguments, {}, tensors, notes + network.notes)
    bank.notes += _precision_notes(network, generator)
    if network.entry and not network.is_averaged:
        bank.notes.append(f"it has no averaged generator ({known.generators[0]}), so {network.entry} is taken")
    for discriminator in discriminators[:1]:
        _add_discriminator(bank, discriminator, path)
    networks = [other.entry for other in (*content.generators, *content.discriminators)]
    if left := [*(entry for entry in networks if entry and entry not in bank.taken), *content.others]:
        bank.notes.append(f"not taken: {', '.join(left)}")
    return bank


def _biggan(content: Source, path: Path) -> Bank:
    network, *others = content.generators
    arguments, state = convert_biggan(network, path)
    bank = Bank("biggan", [network.name], arguments, {}, {f"generator_ema.{k}": tensor for k, tensor in state.items()})
    if left := [*(other.name for other in others), *content.others]:
        bank.notes.append(f"not taken: {', '.join(left)}")
    return bank


def _add_discriminator(bank: Bank, network: Network, path: Path) -> None:
    where = f"{path}: {network.name}"
    try:
        keys = FORMATS[network.format].discriminator
        assert keys is not None
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
            bank.notes.append(f"{network.name} compares all images of a batch: set mbstd_cfg's group_size to it")
        _fill(StyleGAN2Discriminator, arguments, state, names, where)
    except InputError as error:
        hint = "{discriminator=False} converts the generator alone."
        raise InputError(error.message, parameter="discriminator", hint=hint) from error
    bank.discriminator = arguments
    bank.taken.append(network.name)
    bank.notes += network.notes
    bank.tensors |= {f"discriminator.{key}": tensor for key, tensor in state.items()}


# ---------------------------------------------------------------- names


def _rename(network: Network, keys: KeyMap, path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors by our names, in fp32, and the source's name of each.

    Raises:
        InputError: A source key that nothing needs, or a missing one.
    """
    where = f"{path}: {network.name}"
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
            keys_at_fault = summarize_names(those, 3)
            raise InputError(f"{where} {problem} {keys_at_fault}, so it is not the StyleGAN2 expected.")
    present = [row for row in rows if row.source in source]
    _check_memory(present, source, path)
    plain = torch.contiguous_format
    state = {row.target: row.change(source[row.source].float()).clone(memory_format=plain) for row in present}
    return state, {row.target: row.source for row in present}


def _check_memory(rows: list[Row], source: dict[str, Tensor], path: Path) -> None:
    """Refuse a small file whose keys share one large tensor: here each of them becomes a tensor of its own."""
    budget = Budget(path.stat().st_size)
    try:
        for row in rows:
            budget.spend(source[row.source].numel() * torch.float32.itemsize)
    except pickle.UnpicklingError as error:
        raise InputError(f"{path} is no checkpoint of a network: {first_line(error)}. Take another file.") from error


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
    """The values of the placeholders of :mod:`~glean_ext.bank_conversion.key_maps`, for block or layer ``i``."""
    block = {"i": i, "res": 2 * MIN_SIZE << i, "up": 2 * i, "same": 2 * i + 1, "next": 2 * i + 2, "down": count - i}
    return block | {"fc": i, "layer": i + 1}


def _is_noise(row: Row) -> bool:
    return row.target.startswith("injected_noise_")


def _may_miss(row: Row, source: dict[str, Tensor], rows: list[Row]) -> bool:
    """The first checkpoints of rosinality's have no stored noise; a file that has some must have all."""
    return _is_noise(row) and not any(_is_noise(other) and other.source in source for other in rows)


def _draw_missing_noise(state: dict[str, Tensor]) -> list[str]:
    """Draw noise where the source stores none, as the constructor of its network did; returns what to report."""
    if "injected_noise_0" in state:
        return []
    blocks = _how_many(r"to_rgbs\.\d+\.bias", state)
    generator = torch.Generator().manual_seed(0)
    for layer in range(2 * blocks + 1):
        res = 2 ** ((layer + 5) // 2)
        state[f"injected_noise_{layer}"] = torch.randn(1, 1, res, res, generator=generator)
    return ["it has no stored noise: it is drawn now, standard normal, seed 0"]


def _reverse_channels(tensors: dict[str, Tensor]) -> None:
    for key, tensor in tensors.items():
        for pattern, axis in IMAGE_AXES:
            if re.fullmatch(pattern, key.partition(".")[2]):
                tensors[key] = tensor.flip(axis)


# ---------------------------------------------------------------- sizes


def _generator_arguments(state: dict[str, Tensor], names: dict[str, str], where: str) -> dict[str, Any]:
    """The arguments of a generator with tensors of these shapes."""
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
    """The arguments of a discriminator with tensors of these shapes."""
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
    """``channel_multiplier`` and ``max_channels`` for these widths by resolution; the published values where they fit.

    Raises:
        InputError: No such values give the widths.
    """
    size = max(layers)
    if not 2 * MIN_SIZE <= size <= MAX_SIZE:
        limit = f"{2 * MIN_SIZE}x{2 * MIN_SIZE} at least" if size < MAX_SIZE else f"{MAX_SIZE}x{MAX_SIZE} at most"
        raise InputError(f"{where} makes or takes images of {size}x{size}; StyleGAN2's are {limit}.")
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


def _fill(
    kind: type[Net], arguments: dict[str, Any], state: dict[str, Tensor], names: dict[str, str], where: str
) -> Net:
    """Build and fill the network of our own: the proof that every tensor has its place.

    Raises:
        InputError: A shape or a resampling filter that is another, or a value that is not finite.
    """
    with torch.device("meta"):  # what the file does not have the tensors for is not allocated
        shapes = {key: tensor.shape for key, tensor in kind(**arguments).state_dict().items()}
    for key, shape in shapes.items():
        if state[key].shape != shape:
            expected = f"where a StyleGAN2 of its sizes has {tuple(shape)}"
            raise InputError(f"{where} has {names.get(key, key)} {tuple(state[key].shape)}, {expected}.")
    net = kind(**arguments)
    for key, own in net.state_dict().items():
        value, name = state[key], names.get(key, key)
        if not value.isfinite().all():
            raise InputError(f"{where} has {name} with values that are not finite. Take a checkpoint before that.")
        if key.endswith("kernel") and not torch.allclose(value, own, atol=1e-6):
            raise InputError(f"{where} has {name} with other taps than 1, 3, 3, 1, which are the ones known.")
    checkpoints.load_strict(net, state, where, checkpoints.UNUSED_BANK_KEYS)
    return net


def _precision_notes(network: Network, generator: StyleGAN2Generator) -> list[str]:
    """What the source does because of half precision, and this package does not."""
    notes = []
    if network.fp16:
        notes.append(f"{network.name} computes {', '.join(map(str, network.fp16))} in fp16; the bank is fp32")
    if network.clamps:
        reached = _largest_activation(generator)
        limit = min(network.clamps)
        verdict = "so nothing changes" if reached < limit else "so such images differ"
        notes.append(
            f"{network.name} clamps activations to {limit:g}, the bank does not; two random images reach "
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
    for _ in range(images):  # one at a time: a large bank needs a few GB for an image
        generator(torch.randn(1, generator.style_channels, generator=random))
    return torch.stack(reached).max().item()


# ---------------------------------------------------------------- provenance


def _metadata(bank: Bank, path: Path, bgr: bool) -> dict[str, str]:
    return {
        **{key: str(value) for key, value in bank.generator.items()},
        "discriminator": json.dumps(bank.discriminator),
        "source": path.name,
        "source_sha256": file_hash(path),
        "source_format": bank.format,
        "source_networks": ", ".join(bank.taken),
        "source_channels": "BGR, reversed" if bgr else "as they are",
        "converter": f"glean-ext {glean_ext.__version__}, converter {CONVERTER}",
    }
