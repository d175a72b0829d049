"""Reference images in attention: what it sees of them joins what it sees of the image.

Keys and values of the references are appended to those of the image, and the values get the mean and spread of the
image's own ones. In a diffusion bank they are those of the references' own pass, in the ascent of the U-Net. Source:
InstantRestore (Zhang et al., 2024). It is not that paper's network: there, landmarks guide the attention, and the U-Net
is adapted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

Seen = dict[str, Tensor]  # layer -> its keys or values of a pass, (N, T, C): T tokens of an image
EPSILON = 1e-5


def key_and_value_layers(unet: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """The layers of the ascent's self-attention that make keys (``*.to_k``) and values (``*.to_v``), by name."""
    for name, module in unet.named_modules():
        part: Any = module
        if name.startswith("up_blocks.") and hasattr(part, "to_k") and not part.is_cross_attention:
            yield f"{name}.to_k", part.to_k
            yield f"{name}.to_v", part.to_v


@contextmanager
def remember(unet: nn.Module) -> Iterator[Seen]:
    """Collect the keys and values of the passes of ``unet`` in this block."""
    seen: Seen = {}

    def keep(name: str) -> Callable[[nn.Module, object, Tensor], None]:
        def hook(module: nn.Module, inputs: object, output: Tensor) -> None:
            seen[name] = output

        return hook

    with ExitStack() as hooks:
        for name, layer in key_and_value_layers(unet):
            hooks.callback(layer.register_forward_hook(keep(name)).remove)
        yield seen


@contextmanager
def attend(unet: nn.Module, seen: Seen) -> Iterator[None]:
    """Let the passes of ``unet`` in this block attend to references, too.

    Args:
        unet: Its passes take N images.
        seen: Of their references, from :func:`remember`: (N R, T, C), the R references of an image in a row.
    """

    def extend(name: str) -> Callable[[nn.Module, object, Tensor], Tensor]:
        def hook(module: nn.Module, inputs: object, output: Tensor) -> Tensor:
            references = tokens_of_images(seen[name], len(output))  # (N, R T, C)
            if name.endswith("to_v"):
                references = with_statistics(references, output)
            return torch.cat([output, references], 1)

        return hook

    with ExitStack() as hooks:
        for name, layer in key_and_value_layers(unet):
            hooks.callback(layer.register_forward_hook(extend(name)).remove)
        yield


def tokens_of_images(x: Tensor, images: int) -> Tensor:
    """Tokens of the references of N images, of which R in a row belong to one: (N R, T, C) -> (N, R T, C)"""
    return x.reshape(images, -1, x.shape[-1])


def with_statistics(x: Tensor, other: Tensor) -> Tensor:
    """``x`` with the mean and spread over tokens of ``other``, by image and channel (AdaIN): (N, T', C), (N, T, C)."""
    spread = other.std(1, keepdim=True) / (x.std(1, keepdim=True) + EPSILON)
    return (x - x.mean(1, keepdim=True)) * spread + other.mean(1, keepdim=True)
