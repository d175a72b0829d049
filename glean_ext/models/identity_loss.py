"""The identity loss (GFPGAN, CVPR 2021, section 3.4)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from glean_ext.models.frozen_judge import FrozenJudge
from glean_ext.networks.arcface import gray_faces, load_arcface


class IdentityLoss(FrozenJudge):
    """Mean absolute difference of the ArcFace embeddings of aligned faces, output and ground truth.

    Args:
        pretrained: The embedder's weights, path or URL: GFPGAN's ``arcface_resnet18.pth``, or another file with its
            keys.
        loss_weight: Factor of the loss; GFPGAN uses 10.

    Raises:
        InputError: When the network is loaded: a file that does not fit.
    """

    def __init__(self, pretrained: str, loss_weight: float = 10.0):
        super().__init__()
        self.pretrained, self.loss_weight = pretrained, loss_weight

    def load(self) -> nn.Module:
        return load_arcface(self.pretrained)

    def forward(self, image: Tensor, gt: Tensor) -> Tensor:
        """Images (N, 3, H, W), RGB in [-1, 1] -> a scalar, whose gradient goes through the embedder."""
        embed = self.network(image.device)
        with torch.no_grad():
            target = embed(gray_faces(gt))
        return self.loss_weight * F.l1_loss(embed(gray_faces(image)), target)
