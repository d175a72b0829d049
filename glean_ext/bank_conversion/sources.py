"""Which implementation wrote a checkpoint, and the tensors of its networks, read without running code."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from glean_ext import checkpoints
from glean_ext.bank_conversion.key_maps import FORMATS, NVIDIA_DEMANDS
from glean_ext.bank_conversion.unpickle import Module, read_pickle
from glean_ext.errors import InputError


@dataclass
class Network:
    """A generator or discriminator as its file has it."""

    entry: str  # what the file calls it
    tensors: dict[str, Tensor]
    minibatch_stddev: dict[str, Any] = field(default_factory=dict)  # of a discriminator, where the file says it
    clamps: list[float] = field(default_factory=list)  # the limits its activations are clamped to
    fp16: list[int] = field(default_factory=list)  # the resolutions that it computes in half precision
    misfit: str = ""  # what of it this package does not compute, in words


@dataclass
class Source:
    """The networks of a file, by its own names for them."""

    format: str
    networks: dict[str, Network]
    others: list[str]  # the file's other entries


def read_source(path: Path) -> Source:
    """Read a checkpoint of any format of :data:`~glean_ext.bank_conversion.key_maps.FORMATS`.

    Raises:
        InputError: The file is none of them, is damaged, or wants to run code.
    """
    with path.open("rb") as file:
        head = file.read(9)
    if not head:
        raise InputError(f"{path} is empty. Get it anew.")
    if path.suffix == ".safetensors" or head[8:] == b"{":
        raise InputError(
            f"{path} is a safetensors file, which configs take as it is when it has this package's names: "
            "checkpoint='<the file>', prefix='generator_ema'. Convert what MMagic, rosinality or NVIDIA wrote."
        )
    if checkpoints.written_by_torch(path):
        return _torch_source(checkpoints.read_torch(path), path)
    if head[:1] == b"\x80":
        return _nvidia_source(read_pickle(path), path)
    raise InputError(f"{path} is no checkpoint: neither torch.save nor pickle wrote it. Get it anew.")


def _torch_source(content: Mapping[str, Any], path: Path) -> Source:
    rosinality = FORMATS["rosinality"]
    names = rosinality.generators + rosinality.discriminators
    found = {name: content[name] for name in names if isinstance(content.get(name), Mapping)}
    if found:
        networks = {name: Network(name, _only_tensors(state)) for name, state in found.items()}
        if isinstance(mean := content.get("latent_avg"), Tensor):
            for name in set(networks) & set(rosinality.generators):
                networks[name].tensors["latent_avg"] = mean
        return Source("rosinality", networks, _others(content, [*found, "latent_avg"]))

    inner = content.get("state_dict", content)
    state = checkpoints.plain_keys(_only_tensors(inner if isinstance(inner, Mapping) else content))
    mmagic = FORMATS["mmagic"]
    networks = {
        name: Network(name, checkpoints.with_prefix(state, name, path))
        for name in mmagic.generators + mmagic.discriminators
        if any(key.startswith(f"{name}.") for key in state)
    }
    if not networks:
        entries = {str(key).split(".")[0] for key in (state or content)}
        raise InputError(
            f"{path} holds no StyleGAN2 that is known: its entries are {_names(entries)}. MMagic's has generator_ema "
            "or generator, rosinality's g_ema or g, NVIDIA's G_ema or G."
        )
    others = sorted({key.split(".")[0] for key in state} - set(networks))
    return Source("mmagic", networks, others)


def _only_tensors(state: Mapping[str, Any]) -> dict[str, Tensor]:
    return {key: value for key, value in state.items() if isinstance(key, str) and isinstance(value, Tensor)}


def _others(content: Mapping[str, Any], taken: Iterable[str]) -> list[str]:
    return sorted(set(map(str, content)) - set(taken))


def _names(entries: Iterable[str], shown: int = 8) -> str:
    return ", ".join(sorted(map(str, entries))[:shown])


def _nvidia_source(content: Any, path: Path) -> Source:
    nvidia = FORMATS["nvidia"]
    entries = content if isinstance(content, dict) else {}
    found = {
        name: entries[name]
        for name in nvidia.generators + nvidia.discriminators
        if isinstance(entries.get(name), Module)
    }
    if not found:
        held = _names(entries) if entries else f"a {type(content).__name__}"
        raise InputError(f"{path} holds no StyleGAN2 of NVIDIA's: G_ema, G or D, but {held}. Take a network pickle.")
    networks = {name: _nvidia_network(name, module) for name, module in found.items()}
    return Source("nvidia", networks, _others(entries, found))


def _nvidia_network(name: str, module: Module) -> Network:
    layers = dict(module.modules())
    clamps = {layer.attributes.get("conv_clamp") for layer in layers.values()}
    network = Network(
        name,
        module.tensors(),
        misfit=_misfit(module),
        clamps=sorted(float(clamp) for clamp in clamps if isinstance(clamp, int | float)),
        fp16=sorted(
            layer.attributes["resolution"] for layer in layers.values() if layer.attributes.get("use_fp16") is True
        ),
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
            if re.fullmatch(demand.modules, path) and value != demand.value:
                return f"{path or 'it'} has {demand.attribute}={value!r} ({demand.meaning})"
    return ""
