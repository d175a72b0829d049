"""LPIPS as the perceptual loss (Zhang et al., CVPR 2018)."""

from __future__ import annotations

from torch import Tensor, nn

from glean_ext.models.frozen_judge import FrozenJudge
from glean_ext.networks.lpips_network import load_lpips


class LPIPSLoss(FrozenJudge):
    """LPIPS in place of :class:`~glean_ext.models.perceptual_loss.PerceptualLoss`, as a config's ``perceptual_loss``.

    Needs the package lpips.

    Args:
        loss_weight: Factor of the distance; CodeFormer and VQGAN use 1.
        net: ``'alex'`` or ``'vgg'``.
        pretrained: The backbone's weights: ``'torchvision://alexnet'`` (downloaded once), ``'torchvision://vgg16'``, or
            the path or URL of a torchvision checkpoint.

    Raises:
        InputError: When the network is loaded: an unknown ``net``, or a file that does not fit.
    """

    def __init__(self, loss_weight: float = 1.0, net: str = "alex", pretrained: str = "torchvision://alexnet"):
        super().__init__()
        self.loss_weight, self.net, self.pretrained = loss_weight, net, pretrained

    def load(self) -> nn.Module:
        return load_lpips(self.net, self.pretrained)

    def forward(self, image: Tensor, gt: Tensor) -> tuple[Tensor, None]:
        """Images (N, 3, H, W), RGB in [-1, 1] -> the loss, a scalar, and no style loss."""
        return self.loss_weight * self.network(image.device)(image, gt).mean(), None
