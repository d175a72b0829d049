"""What the tests of the conversion share: sources in each format."""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from support import nvidia_pickles as nvidia
from support import stylegan2_references as ref
from torch import Tensor, nn

from glean_ext import checkpoints
from glean_ext.networks import StyleGAN2Discriminator, StyleGAN2Generator

TOOL = Path(__file__).parents[2] / "tools" / "convert_bank.py"


WIDTHS = {4: 24, 8: 24, 16: 16, 32: 8}  # what the two arguments below give


CHANNELS = {"channel_multiplier": 0.015625, "max_channels": 24}


STYLE, LAYERS, SIZE = 16, 3, 32


ARGUMENTS = {"out_size": SIZE, "style_channels": STYLE, "num_mlps": LAYERS, **CHANNELS}


def rosinality_content(**changes) -> dict:
    """A training checkpoint, with the options that are an ``argparse.Namespace``."""
    return {
        "g": ref.rosinality_generator(WIDTHS, STYLE, LAYERS, seed=5),
        "d": ref.rosinality_discriminator(WIDTHS),
        "g_ema": ref.rosinality_generator(WIDTHS, STYLE, LAYERS),
        "g_optim": {"state": {}, "param_groups": [{"lr": 0.002}]},
        "args": argparse.Namespace(size=SIZE, ckpt=None),
        "ada_aug_p": 0.1,
        **changes,
    }


def nvidia_content(**changes) -> dict:
    networks = {
        "G": nvidia.generator(ref.nvidia_generator(WIDTHS, STYLE, LAYERS, seed=5)),
        "D": nvidia.discriminator(ref.nvidia_discriminator(WIDTHS)),
        "G_ema": nvidia.generator(ref.nvidia_generator(WIDTHS, STYLE, LAYERS)),
    }
    return nvidia.snapshot(**{**networks, **changes})


def mmagic_content(generator: nn.Module, discriminator: nn.Module) -> dict:
    """A training checkpoint of MMagic 1.x, where mmengine keeps the average under ``module``."""
    state = {f"generator.{k}": v + 1 for k, v in generator.state_dict().items()}
    state |= {f"generator_ema.module.{k}": v for k, v in generator.state_dict().items()}
    state |= {f"discriminator.{k}": v for k, v in discriminator.state_dict().items()}
    state |= {"generator_ema.steps": torch.tensor(7), "mean_path_length": torch.tensor(0.5)}
    state |= {
        "generator_ema.truncation_latent": torch.zeros(1, STYLE),
        "discriminator.ada_aug.log_buffer": torch.zeros(2),
    }
    return {"meta": {"iter": 7}, "state_dict": state}


def pretrained(path: Path, prefix: str) -> dict:
    return {"type": "Pretrained", "checkpoint": str(path), "prefix": prefix}


def load_generator(path: Path, **arguments) -> StyleGAN2Generator:
    net = StyleGAN2Generator(**arguments)
    checkpoints.load_pretrained(net, pretrained(path, "generator_ema"))
    return net


def load_discriminator(path: Path, **arguments) -> StyleGAN2Discriminator:
    net = StyleGAN2Discriminator(**arguments, init_cfg=pretrained(path, "discriminator"))
    net.init_weights()
    return net


def noise(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def error(ours: Tensor, theirs: Tensor) -> float:
    """The largest difference as a share of the reference's range."""
    assert ours.shape == theirs.shape
    assert theirs.std() > 0.03
    return ((ours - theirs).abs().max() / (theirs.max() - theirs.min())).item()


class Command:
    def __init__(self, function, *args: object):
        self.call = function, args

    def __reduce__(self) -> tuple:
        return self.call
