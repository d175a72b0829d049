"""MMagic's BigGAN, small, for the training of banks; the averaged generator is a bank of ``GLEANBigGAN``.

Three things differ from BigGAN's own (Brock et al., ICLR 2019): there is no self-attention, which on a CPU would double
the time of a step, no spectral norm in the generator, and the discriminator judges AlexNet's features (Sauer et al.,
"Projected GANs Converge Faster", NeurIPS 2021). In 11,000 images BigGAN's own discriminator had learned nothing, and
StyleGAN2's little; this one tells real images from drawn ones after 800, in a sixth of the time. It does not see the
class, which the drawn half of each batch teaches.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

import glean_ext.plugin  # noqa: F401  (makes MMagic importable)
from experiments import weights
from glean_ext.engine.bank_samples import image_sheet, to_uint8
from glean_ext.networks.banks.biggan_spec import BigGANSpec
from glean_ext.networks.lpips_network import load_lpips

COLUMNS = 16  # samples of a class on a sheet
STANDING_BATCHES, BATCH = 32, 16  # of random codes, from which the final statistics of batch norm are taken
LPIPS_WEIGHT = 0.5


class BigGANPair:
    """BigGAN's generator and the discriminator that trains it.

    Args:
        sizes: Those of the bank, without attention.
        discriminator: Makes that of images without their classes.
    """

    def __init__(self, sizes: BigGANSpec, discriminator: Callable[[], nn.Module]):
        from mmagic.models.editors.biggan import BigGANGenerator

        assert not sizes.deep and not sizes.attention
        layers = sizes.layers
        blocks = {
            "in_channels": [layer.in_channels for layer in layers],
            "out_channels": [layer.out_channels for layer in layers],
            "upsample": [True] * len(layers),
            "attention": [False] * len(layers),
        }
        self.sizes = sizes
        self.generator: nn.Module = BigGANGenerator(
            sizes.out_size,
            sizes.noise_size,
            sizes.num_classes,
            base_channels=sizes.base_channels,
            shared_dim=sizes.shared_dim,
            with_spectral_norm=False,
            auto_sync_bn=False,
            arch_cfg=blocks,
        )
        self.generator.init_weights()
        self.discriminator = discriminator()
        self.latent_channels = sizes.num_codes * sizes.code_channels

    def codes(self, latents: Tensor) -> Tensor:
        """Latent codes as they are: (N, S)"""
        return latents

    def random_codes(self, n: int, mixing_prob: float, rng: torch.Generator) -> Tensor:
        """(n, S); BigGAN has no style mixing."""
        return torch.randn(n, self.latent_channels, generator=rng)

    def images(self, codes: Tensor, labels: Tensor | None) -> Tensor:
        return self.generator(codes, labels)

    def logits(self, images: Tensor, labels: Tensor | None) -> Tensor:
        return self.discriminator(images)

    @torch.no_grad()
    def sheet(self, ema: nn.Module) -> Image.Image:
        """A row of samples for each class."""
        take_statistics(ema, self.sizes)
        rng = torch.Generator().manual_seed(0)
        rows = [
            ema(torch.randn(COLUMNS, self.latent_channels, generator=rng), torch.full((COLUMNS,), label))
            for label in range(self.sizes.num_classes)
        ]
        return image_sheet(to_uint8(torch.cat(rows)), COLUMNS)


@torch.no_grad()
def take_statistics(net: nn.Module, sizes: BigGANSpec) -> None:
    """Give averaged weights statistics of batch norm of their own, and leave the network in evaluation mode.

    Those that were collected in training are of weights that have changed since. The statistics are those over many
    batches of random codes and classes ("standing statistics"; Brock et al., section 3 of the paper and its code).
    """
    norms = [module for module in net.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the plain mean over all batches
    net.train()
    rng = torch.Generator().manual_seed(1)
    for _ in range(STANDING_BATCHES):
        labels = torch.randint(sizes.num_classes, (BATCH,), generator=rng)
        net(torch.randn(BATCH, sizes.num_codes * sizes.code_channels, generator=rng), labels)
    net.eval()


def l1_and_lpips() -> Callable[[Tensor, Tensor], Tensor]:
    """The L1 loss alone makes various pictures blurred; LPIPS asks for their edges and textures."""
    lpips = cast(nn.Module, load_lpips("alex", weights.ALEXNET)).requires_grad_(False)
    return lambda drawn, gt: F.l1_loss(drawn, gt) + LPIPS_WEIGHT * lpips(drawn, gt).mean()
