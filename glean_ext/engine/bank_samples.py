"""Images that a latent bank draws from seeded latent codes."""

from __future__ import annotations

from typing import cast

import torch
from mmengine.runner import Runner
from PIL import Image
from torch import Tensor

from glean_ext.engine.unwrap import unwrap
from glean_ext.networks import StyleGAN2Generator

BATCH = 8  # images drawn at a time


def averaged_bank(runner: Runner) -> StyleGAN2Generator:
    """The moving average of the weights of the bank that MMagic's StyleGAN2 trains."""
    return cast(StyleGAN2Generator, unwrap(runner.model).get_submodule("generator_ema.module"))


@torch.no_grad()
def draw(bank: StyleGAN2Generator, latents: Tensor) -> Tensor:
    """(N, S) latent codes on any device -> (N, 3, H, W) uint8 RGB on the bank's device, without truncation."""
    device = bank.constant_input.input.device
    images = torch.cat([bank(part) for part in latents.to(device).split(BATCH)])
    return to_uint8(images)


def to_uint8(images: Tensor) -> Tensor:
    """About [-1, 1] -> uint8"""
    return (images.float().clamp(-1, 1) * 127.5 + 127.5).round().to(torch.uint8)


def sample_sheet(bank: StyleGAN2Generator, rows: int = 8, columns: int = 16, seed: int = 0) -> Image.Image:
    """A grid of ``rows * columns`` images of ``bank`` from seeded latent codes."""
    latents = torch.randn(rows * columns, bank.style_channels, generator=torch.Generator().manual_seed(seed))
    return image_sheet(draw(bank, latents).cpu(), columns)


def image_sheet(images: Tensor, columns: int) -> Image.Image:
    """A grid of images (N, 3, H, W), uint8; N is a multiple of ``columns``."""
    n, c, h, w = images.shape
    sheet = images.reshape(n // columns, columns, c, h, w).permute(0, 3, 1, 4, 2).reshape(-1, columns * w, c)
    return Image.fromarray(sheet.numpy())
