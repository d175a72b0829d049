"""This package's latent bank as a generator for MMagic's StyleGAN2 trainer."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from glean_ext.networks import StyleGAN2Generator
from glean_ext.networks.precision import mixed_precision


def mixed_codes(
    bank: StyleGAN2Generator, first: Tensor, second: Tensor, mix_prob: float, rng: torch.Generator | None = None
) -> Tensor:
    """Style mixing: the style codes of ``first``, which some images replace by those of ``second`` from a layer on.

    Source: Karras et al., CVPR 2019, section 3.1.

    Args:
        bank: Its mapping network turns latent codes into style codes.
        first: (N, S) latent codes, standard normal.
        second: (N, S), like ``first``.
        mix_prob: Probability that the styles of an image are mixed.
        rng: Draws which images are mixed, and from which layer on; None for PyTorch's own generator, on the device.

    Returns:
        (N, K, S)
    """
    n, device = len(first), first.device
    drawn_on = device if rng is None else rng.device
    w = bank.style_mapping(torch.cat([first, second])).reshape(2, n, 1, -1)
    cut = torch.randint(1, bank.num_latents, (n, 1, 1), generator=rng, device=drawn_on).to(device)
    unmixed = (torch.rand(n, 1, 1, generator=rng, device=drawn_on) >= mix_prob).to(device)
    below_cut = (torch.arange(bank.num_latents, device=device)[None, :, None] < cut) | unmixed  # (N, K, 1)
    return torch.where(below_cut, w[0], w[1])


class TrainableBank(StyleGAN2Generator):
    """The latent bank as MMagic's ``StyleGAN2`` trains it: fresh noise, style mixing, and codes for path lengths.

    Its parameters have the bank's names: the ``generator_ema`` of a training checkpoint is a bank file.

    Args:
        out_size: As in :class:`~glean_ext.networks.StyleGAN2Generator`.
        style_channels: As there.
        num_mlps: As there.
        channel_multiplier: As there.
        max_channels: As there.
        blur_kernel: As there.
        lr_mlp: As there.
        mix_prob: Probability that a training image mixes the styles of two latent codes.
        fp16_enabled: Run in mixed precision: fp16 on a GPU, bf16 on a CPU that has it.
    """

    def __init__(
        self,
        out_size: int,
        style_channels: int = 512,
        num_mlps: int = 8,
        channel_multiplier: float = 2,
        max_channels: int = 512,
        blur_kernel: Sequence[float] = (1, 3, 3, 1),
        lr_mlp: float = 0.01,
        mix_prob: float = 0.9,
        fp16_enabled: bool = False,
    ):
        super().__init__(out_size, style_channels, num_mlps, channel_multiplier, max_channels, blur_kernel, lr_mlp)
        self.mix_prob = mix_prob
        self.fp16_enabled = fp16_enabled

    def forward(  # type: ignore[override]
        self,
        noise: Tensor | None = None,
        num_batches: int = 0,
        return_noise: bool = False,
        return_latents: bool = False,
    ) -> Tensor | dict[str, Tensor]:
        """Draw images of latent codes ``noise`` (N, S), or of ``num_batches`` random ones.

        In evaluation mode the stored noise is injected and no styles are mixed.

        Returns:
            The images (N, 3, H, W), about [-1, 1]; with ``return_latents`` or ``return_noise`` a dict with
            MMagic's names: ``fake_img``, ``latent`` (N, K, S) and ``noise_batch`` (N, S).
        """
        if noise is None:
            noise = torch.randn(num_batches, self.style_channels, device=self.constant_input.input.device)
        with mixed_precision(noise.device, self.fp16_enabled):
            if self.training:
                codes = mixed_codes(self, noise, torch.randn_like(noise), self.mix_prob)  # (N, K, S)
            else:  # draws no random numbers, so that sample images do not change the course of the training
                codes = self.style_mapping(noise)[:, None].expand(-1, self.num_latents, -1)
            images = self.synthesis(codes, fresh_noise=self.training)
        if return_latents or return_noise:
            return {"fake_img": images, "latent": codes, "noise_batch": noise}
        return images
