"""MMagic's BigGAN generators with random weights and statistics, small, and their counterparts here."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

CLASSES = 7
SIZES = {"num_classes": CLASSES, "base_channels": 4, "shared_dim": 12}
# The arguments of a GLEAN around such a bank, and of its small other parts.
NET = {"type": "GLEANBigGAN", "in_size": 8, "out_size": 32, "rrdb_channels": 8, "num_rrdbs": 1, "max_channels": 16}


def noise_size(out_size: int, deep: bool) -> int:
    """A number that BigGAN's layers can share evenly."""
    return 10 if deep else 4 * (out_size.bit_length() - 2)


def sizes(out_size: int, deep: bool = False) -> dict[str, Any]:
    """Arguments of ``BigGANSpec`` and ``GLEANBigGAN``."""
    return {"out_size": out_size, "deep": deep, "noise_size": noise_size(out_size, deep), **SIZES}


def mmagic_generator(out_size: int, deep: bool = False, sn_style: str = "ajbrock", **changes: Any) -> nn.Module:
    """MMagic's generator after a few steps in training mode, which move its statistics and singular vectors."""
    from mmagic.models.editors.biggan import BigGANDeepGenerator, BigGANGenerator

    arguments = {"noise_size": noise_size(out_size, deep), **SIZES, "sn_style": sn_style, "auto_sync_bn": False}
    net = (BigGANDeepGenerator if deep else BigGANGenerator)(out_size, **arguments | changes)
    if not deep:
        net.init_weights()
    with torch.no_grad():
        for name, param in net.named_parameters():
            if name.endswith("gamma"):
                param.fill_(0.7)
            elif name.endswith("bias"):
                param.add_(0.1 * torch.randn(param.shape))
        for _ in range(3):
            net(torch.randn(8, net.noise_size), torch.arange(8) % CLASSES)
    return net.eval()


def prefixed(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {f"generator_ema.{key}": tensor for key, tensor in state.items()}
