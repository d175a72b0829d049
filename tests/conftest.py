"""Shared by the tests: randomised weights and the smallest GLEAN there is."""

from __future__ import annotations

import gc
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import nn

if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # as in a shell's background jobs; processes inherit that
    signal.signal(signal.SIGINT, signal.default_int_handler)

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


@pytest.fixture(scope="session")
def mmagic_models():
    """MMagic's own ``mmagic.models``, made importable by the plug-in."""
    import glean_ext.plugin  # noqa: F401, I001  (has to come first)
    import mmagic.models

    return mmagic.models


@pytest.fixture
def tiny_cfg() -> dict:
    return dict(TINY)


@pytest.fixture(scope="session")
def weights(tmp_path_factory) -> Path:
    """A folder with ``alexnet.pth`` and ``vgg16.pth``, as torchvision publishes them but with other values."""
    from metric_references import save_backbones

    folder = tmp_path_factory.mktemp("weights")
    save_backbones(folder)
    return folder


@pytest.fixture(scope="session")
def inception_file(tmp_path_factory) -> Path:
    """FID's Inception, as torch-fidelity publishes it but with other values."""
    from metric_references import save_inception

    path = tmp_path_factory.mktemp("inception") / "inception.pth"
    save_inception(path)
    return path


@pytest.fixture(scope="module")
def fast() -> Iterator[None]:
    """Spare what takes most of a short run's time: yapf on the logged config, ``gc.collect`` over all of MMagic."""
    gc.freeze()
    with pytest.MonkeyPatch.context() as patch:
        quick_config_dump(patch)
        yield
    gc.unfreeze()


def quick_config_dump(patch: pytest.MonkeyPatch) -> None:
    """The config in the log is not made pretty."""
    patch.setattr("mmengine.config.config.FormatCode", lambda text, **_: (text, True))
