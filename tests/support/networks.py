"""The smallest GLEAN there is, randomised weights, and a quicker start of mmengine's runner."""

from __future__ import annotations

import pytest
import torch
from torch import nn

TINY = {
    "type": "GLEANStyleGANv2",
    "in_size": 8,
    "out_size": 16,
    "rrdb_channels": 8,
    "num_rrdbs": 1,
    "style_channels": 16,
    "num_mlps": 2,
    "channel_multiplier": 0.125,
    "max_channels": 16,
}


def randomize(net: nn.Module, seed: int = 0) -> nn.Module:
    """Move everything off its initial value: biases, noise strengths and modulations too, not only weights."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, param in net.named_parameters():
            if name.endswith("bias") or "noise_injector" in name:
                param.add_(0.3 * torch.randn(param.shape, generator=generator))
            else:
                param.mul_(1 + 0.1 * torch.randn(param.shape, generator=generator))
    return net


def largest_error(ours: torch.Tensor, reference: torch.Tensor) -> float:
    """The largest difference as a share of the reference's range."""
    return ((ours - reference).abs().max() / (reference.max() - reference.min())).item()


def quick_config_dump(patch: pytest.MonkeyPatch) -> None:
    """The config in the log is not made pretty."""
    patch.setattr("mmengine.config.config.FormatCode", lambda text, **_: (text, True))
