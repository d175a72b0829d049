"""Fixtures that tests of several parts use."""

from __future__ import annotations

import gc
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.networks import TINY, quick_config_dump

if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # as in a shell's background jobs; processes inherit that
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory) -> Iterator[None]:
    """Downloads and engines' models of this run alone: what a user has cached changes how images are restored."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TORCH_HOME", str(tmp_path_factory.mktemp("torch_home")))
        yield


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
    from support.metric_references import save_backbones

    folder = tmp_path_factory.mktemp("weights")
    save_backbones(folder)
    return folder


@pytest.fixture(scope="session")
def inception_file(tmp_path_factory) -> Path:
    """FID's Inception, as torch-fidelity publishes it but with other values."""
    from support.metric_references import save_inception

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
