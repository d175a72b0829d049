"""A BigGAN of its authors' PyTorch release, renamed to a bank for ``GLEANBigGAN`` and for MMagic's own classes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from glean_ext import checkpoints
from glean_ext.bank_conversion.biggan_key_maps import ATTENTION, BLOCK, DEEP_BLOCK, ONCE, SYNCHRONIZED
from glean_ext.bank_conversion.sources import Network
from glean_ext.errors import InputError
from glean_ext.networks.banks.biggan_file import bank_sizes, expected
from glean_ext.networks.banks.biggan_spec import BigGANSpec
from glean_ext.networks.shapes import MIN_SIZE

NOT_TAKEN = "Only a class-conditional BigGAN with shared embeddings and a latent code for every block can be converted."


def convert_biggan(network: Network, path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The arguments of ``GLEANBigGAN`` for a network of the authors', and its tensors by MMagic's names, in fp32.

    Raises:
        InputError: The tensors are not those of such a network, or not finite.
    """
    where = f"{path}: {network.name}"
    source = plain_statistics(network.tensors)
    deep = "blocks.0.0.conv3.weight" in source
    names = key_names(source, deep)
    state = {target: source[name].float() for target, name in names.items() if name in source}
    if deep:
        reorder_deep(state)
    for key in [key for key in state if key.endswith(".running_mean")]:
        state[key.replace("running_mean", "num_batches_tracked")] = torch.tensor(0)
    surplus = {f"unknown {name}": source[name] for name in source.keys() - set(names.values())}
    arguments = bank_sizes(state)
    if not arguments or not arguments.get("num_classes"):
        raise InputError(f"{where} is no BigGAN that is known. {NOT_TAKEN}")
    try:
        spec = BigGANSpec(**arguments)
    except ValueError as error:
        raise InputError(f"{where} is no BigGAN that is known: {error} {NOT_TAKEN}") from error
    checkpoints.require_fit(expected(spec, state), state | surplus, "BigGAN", where)
    for key, tensor in state.items():
        if not tensor.isfinite().all():
            name = names.get(key, key)
            raise InputError(f"{where} has {name} with values that are not finite. Take a checkpoint before that.")
    return arguments, state


def plain_statistics(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors with the statistics of batch norm where a network trained on one GPU has them."""
    plain = {}
    for name, tensor in tensors.items():
        for pattern, form in SYNCHRONIZED:
            name = re.sub(f"^{pattern}$", form, name)
        if name:
            plain[name] = tensor
    return plain


def key_names(source: Mapping[str, Tensor], deep: bool) -> dict[str, str]:
    """MMagic's key -> the authors', for as many blocks as the source has."""
    names = {row.target: row.source for row in ONCE}
    number = block = 0
    while f"blocks.{block}.0.conv1.weight" in source:
        parts = [(f"blocks.{block}.0", DEEP_BLOCK if deep else BLOCK)]
        if f"blocks.{block}.1.gamma" in source:
            parts.append((f"blocks.{block}.1", ATTENTION))
        for below, rows in parts:
            names |= {f"conv_blocks.{number}.{row.target}": f"{below}.{row.source}" for row in rows}
            number += 1
        block += 1
    return names


def reorder_deep(state: dict[str, Tensor]) -> None:
    """BigGAN-deep as MMagic computes it: the class embedding after the latent code, features at 4x4 channels last."""
    shared = state["shared_embedding.weight"].shape[-1] if "shared_embedding.weight" in state else 0
    for key, tensor in state.items():
        if re.fullmatch(r"noise2feat\.weight|.*\.bn\d\.(gain|bias)\.weight", key) and tensor.ndim == 2:
            state[key] = torch.cat([tensor[:, shared:], tensor[:, :shared]], 1)
    for key, axis in (("noise2feat.weight", 0), ("noise2feat.bias", 0), ("noise2feat.u0", 1)):
        if key in state and state[key].ndim > axis and state[key].shape[axis] % MIN_SIZE**2 == 0:
            rows = state[key].unflatten(axis, (-1, MIN_SIZE**2))  # (..., C, 16, ...)
            state[key] = rows.transpose(axis, axis + 1).flatten(axis, axis + 1).contiguous()
