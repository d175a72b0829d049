"""What MMagic's StyleGAN2 trainer needs to train a latent bank with this package's generator."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from glean_ext.networks import StyleGAN2Generator
from glean_ext.networks.precision import mixed_precision


def mixed_codes(
    bank: StyleGAN2Generator, first: Tensor, second: Tensor, mix_prob: float, rng: torch.Generator | None = None
) -> Tensor:
    """Style codes of ``first``; with a chance of ``mix_prob`` those of ``second`` from some layer on (style mixing).

    Args:
        bank: Maps the latents.
        first: (N, S), standard normal; so is ``second``.
        second: See ``first``.
        mix_prob: Share of the images that are mixed (CVPR 2019, section 3.1).
        rng: Draws which, and from which layer on; None: PyTorch's own generator.

    Returns:
        (N, K, S)
    """
    n, device = len(first), first.device
    w = bank.style_mapping(torch.cat([first, second])).reshape(2, n, 1, -1)
    cut = torch.randint(1, bank.num_latents, (n, 1, 1), generator=rng).to(device)
    unmixed = (torch.rand(n, 1, 1, generator=rng) >= mix_prob).to(device)
    below_cut = (torch.arange(bank.num_latents, device=device)[None, :, None] < cut) | unmixed  # (N, K, 1)
    return torch.where(below_cut, w[0], w[1])


class TrainableBank(StyleGAN2Generator):
    """The latent bank as MMagic's ``StyleGAN2`` trains it: fresh noise, style mixing, and codes for path lengths.

    Its parameters have the bank's names: the ``generator_ema`` of a training checkpoint is a bank file.

    Args:
        out_size: See :class:`~glean_ext.networks.StyleGAN2Generator`; so are ``style_channels`` to ``lr_mlp``.
        style_channels: See there.
        num_mlps: See there.
        channel_multiplier: See there.
        max_channels: See there.
        blur_kernel: See there.
        lr_mlp: See there.
        mix_prob: Share of the training images that mix the styles of two latents.
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
        """Images (N, 3, H, W), about [-1, 1], of latent codes ``noise`` (N, S) or of ``num_batches`` random ones.

        In evaluation mode the stored noise is used and no styles are mixed.

        Returns:
            The images, or with ``return_latents`` or ``return_noise`` a dict: ``fake_img``, ``latent`` (N, K, S) and
            ``noise_batch``.
        """
        if noise is None:
            noise = torch.randn(num_batches, self.style_channels, device=self.constant_input.input.device)
        with mixed_precision(noise.device, self.fp16_enabled):
            if self.training:
                codes = mixed_codes(self, noise, torch.randn_like(noise), self.mix_prob)  # (N, K, S)
            else:  # draws no random numbers, so looking at images changes no training
                codes = self.style_mapping(noise)[:, None].expand(-1, self.num_latents, -1)
            images = self.synthesis(codes, fresh_noise=self.training)
        if return_latents or return_noise:
            return {"fake_img": images, "latent": codes, "noise_batch": noise}
        return images
