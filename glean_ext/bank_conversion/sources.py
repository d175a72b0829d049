"""Which implementation wrote a checkpoint, and the tensors of its networks, read without running code."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from glean_ext import checkpoints
from glean_ext.bank_conversion import biggan_key_maps
from glean_ext.bank_conversion.key_maps import FORMATS, NVIDIA_DEMANDS
from glean_ext.bank_conversion.unpickle import NVIDIA_NAMES, Module, read_pickle
from glean_ext.errors import InputError
from glean_ext.utils.messages import summarize_names
from glean_ext.utils.weight_files import require_convertible, written_by_torch

NO_SETTINGS = "says nothing of its activations and learning rates: those of the published StyleGAN2 are taken"
ALL_FORMATS = {**FORMATS, "biggan": biggan_key_maps.FORMAT}
ENTRY_NAMES = "MMagic's has generator_ema or generator, rosinality's g_ema or g, NVIDIA's G_ema or G."


@dataclass
class Network:
    """A generator or discriminator as its file has it."""

    entry: str  # what the file calls it; empty for a file that holds it alone
    format: str  # of ALL_FORMATS
    tensors: dict[str, Tensor]
    minibatch_stddev: dict[str, Any] = field(default_factory=dict)  # of a discriminator, where the file says it
    clamps: list[float] = field(default_factory=list)  # the limits its activations are clamped to
    fp16: list[int] = field(default_factory=list)  # the resolutions that it computes in half precision
    misfit: str = ""  # what of it this package does not compute, in words
    notes: list[str] = field(default_factory=list)  # what the user should know

    @property
    def name(self) -> str:
        """For messages."""
        return self.entry or "the network"

    @property
    def is_averaged(self) -> bool:
        """Whether its weights are an average over the training, by its name."""
        return self.entry.lower().endswith("ema")


@dataclass
class Source:
    """The networks of a file, the preferred one first."""

    generators: list[Network]
    discriminators: list[Network]
    others: list[str]  # the file's other entries

    @property
    def format(self) -> str:
        return (self.generators or self.discriminators)[0].format


def read_source(path: Path) -> Source:
    """Read a checkpoint of any format of :data:`ALL_FORMATS`.

    Raises:
        InputError: The file is none of them, is damaged, or wants to run code.
    """
    require_convertible(path)
    plain_pickle = not written_by_torch(path)
    content = read_pickle(path) if plain_pickle else checkpoints.read_torch(path, NVIDIA_NAMES)
    entries = content if isinstance(content, dict) else {}
    if any(isinstance(entry, Module) for entry in entries.values()):
        return _pickled_networks(entries, path)
    source = _state_dicts(entries, path)
    if source.generators or source.discriminators:
        return source
    for name in [name for format in ALL_FORMATS.values() for name in format.generators if name in entries]:
        raise InputError(f"{path}: {name} is neither a network nor the state dict of one. Take another checkpoint.")
    held = summarize_names(sorted(map(str, entries))) if entries else f"a {type(content).__name__}"
    if plain_pickle:
        raise InputError(f"{path} holds no StyleGAN2 of NVIDIA's: G_ema, G or D, but {held}. Take a network pickle.")
    names = source.others or sorted(map(str, entries))
    held = f"its entries are {summarize_names(names)}" if names else "it is empty"
    raise InputError(f"{path} holds no StyleGAN2 or BigGAN that is known: {held}. {ENTRY_NAMES}")


# ---------------------------------------------------------------- state dicts


def _state_dicts(content: Mapping[Any, Any], path: Path) -> Source:
    """The networks among the state dicts of a file, known by the names of their entries or by their keys."""
    state = checkpoints.plain_keys(checkpoints.tensors(content, path))
    named = {
        name: default for name, default in _default_formats().items() if any(k.startswith(f"{name}.") for k in state)
    }
    source = Source([], [], [])
    for entry in [*named, *_entries_by_keys(state, set(named))]:
        below = checkpoints.with_prefix(state, entry, path)
        format, role = _recognize(below) or named[entry]
        if entry in named:
            role = named[entry][1]
        network = Network(entry, format, below)
        if format == "rosinality" and role == "generator" and "latent_avg" in state:
            network.tensors["latent_avg"] = state["latent_avg"]
        if format == "nvidia":
            network.notes.append(f"{network.name} is a state dict, which {NO_SETTINGS}")
        (source.generators if role == "generator" else source.discriminators).append(network)
    source.generators.sort(key=lambda network: not network.is_averaged)
    inner = content.get("state_dict", content)
    taken = {network.entry.split(".")[0] for network in (*source.generators, *source.discriminators)} | {"latent_avg"}
    if "" not in taken:
        source.others = sorted({str(key).split(".")[0] for key in (state if inner is not content else content)} - taken)
    return source


def _default_formats() -> dict[str, tuple[str, str]]:
    """The format and role that the name of an entry stands for, unless its keys say otherwise."""
    return {
        entry: (name, role)
        for name, format in ALL_FORMATS.items()
        for role, entries in (("generator", format.generators), ("discriminator", format.discriminators))
        for entry in entries
    }


def _probes() -> Iterable[tuple[str, str, str]]:
    for name, format in ALL_FORMATS.items():
        yield format.generator.probe, name, "generator"
        if format.discriminator:
            yield format.discriminator.probe, name, "discriminator"


def _recognize(state: Mapping[str, Tensor]) -> tuple[str, str] | None:
    """The format and role of a network by a key that each such network has."""
    return next(((name, role) for probe, name, role in _probes() if probe in state), None)


def _entries_by_keys(state: Mapping[str, Tensor], named: set[str]) -> list[str]:
    """The prefixes of ``state``, or the empty one, below which there is a network; not those that are known by name."""
    found: dict[str, None] = {}
    for probe, _name, _role in _probes():
        for key in state:
            if key == probe or key.endswith(f".{probe}"):
                found[key.removesuffix(probe).rstrip(".")] = None
    return [prefix for prefix in found if prefix.split(".")[0] not in named]


# ---------------------------------------------------------------- NVIDIA's pickled networks


def _pickled_networks(entries: Mapping[Any, Any], path: Path) -> Source:
    nvidia = ALL_FORMATS["nvidia"]
    networks = {name: entries.get(name) for name in (*nvidia.generators, *nvidia.discriminators)}
    found = {name: _pickled_network(name, module) for name, module in networks.items() if isinstance(module, Module)}
    if not found:
        held = summarize_names(sorted(map(str, entries)))
        raise InputError(f"{path} holds no StyleGAN2 of NVIDIA's: G_ema, G or D, but {held}. Take a network pickle.")
    return Source(
        [found[name] for name in nvidia.generators if name in found],
        [found[name] for name in nvidia.discriminators if name in found],
        sorted(set(map(str, entries)) - set(found)),
    )


def _pickled_network(name: str, module: Module) -> Network:
    layers = dict(module.modules())
    clamps = [layer.attributes.get("conv_clamp") for layer in layers.values()]
    fp16 = [layer.attributes.get("resolution") for layer in layers.values() if layer.attributes.get("use_fp16") is True]
    network = Network(
        name,
        "nvidia",
        module.tensors(),
        misfit=_misfit(module),
        clamps=sorted({float(clamp) for clamp in clamps if isinstance(clamp, int | float)}),
        fp16=sorted(resolution for resolution in fp16 if isinstance(resolution, int)),
    )
    if stddev := layers.get("b4.mbstd"):
        network.minibatch_stddev = {
            "group_size": stddev.attributes.get("group_size"),
            "channel_groups": stddev.attributes.get("num_channels"),
        }
    return network


def _misfit(module: Module) -> str:
    """What of an NVIDIA network is not StyleGAN2's published default, in words; empty when nothing."""
    if module.class_name not in NVIDIA_DEMANDS:
        return f"it is a {module.class_name}"
    for demand in NVIDIA_DEMANDS[module.class_name]:
        for path, layer in module.modules():
            value = layer.attributes.get(demand.attribute)
            equal = isinstance(value, int | float | str) and value == demand.value
            if re.fullmatch(demand.modules, path) and not equal:
                return f"{path or 'it'} has {demand.attribute}={_short(value)} ({demand.meaning})"
    return ""


def _short(value: object) -> str:
    """A setting of a file for a message; a file can hold values of any length."""
    if isinstance(value, str):
        return repr(value[:40])
    if value is None or isinstance(value, bool | float) or (isinstance(value, int) and value.bit_length() < 64):
        return repr(value)
    return f"a {type(value).__name__}"
