"""TTSR (Yang et al., CVPR 2020) with MMagic's networks; it stands for SRNTT (Zhang et al., CVPR 2019), too.

Both match features of the enlarged input with those of the reduced and enlarged reference, all positions with all, and
take the reference's features in high resolution from the best place. TTSR trains these features, SRNTT does not.

What differs from the paper: 32 channels and 4, 4, 2, 2 blocks (64 and 16, 16, 8, 4); the texture extractor starts from
the VGG16 of ``experiments.weights`` (ImageNet's VGG19, whose first five convolutions have the same shapes); beyond x4
the input is enlarged first; the training is that of all systems, without transferal perceptual loss.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

import glean_ext.plugin  # noqa: F401  (makes MMagic importable)
from experiments import weights
from experiments.relatives.parts import degrade, enlarge, only_reference
from glean_ext import checkpoints

FACTOR = 4  # that MMagic's network enlarges by
LAYERS = ("slice1.0", "slice2.2", "slice2.5", "slice3.7", "slice3.10")  # of the extractor, numbered as in VGG


class TTSR(nn.Module):
    """Texture transformer: extractor -> matching -> fusion.

    Args:
        scale: A multiple of 4.
    """

    max_references = 1

    def __init__(self, scale: int):
        from mmagic.models.editors.ttsr.search_transformer import SearchTransformer
        from mmagic.models.editors.ttsr.ttsr_net import TTSRNet

        super().__init__()
        self.scale = scale
        self.extractor = texture_extractor()
        self.transformer = SearchTransformer()
        self.net = TTSRNet(3, 3, mid_channels=32, texture_channels=64, num_blocks=(4, 4, 2, 2))

    def forward(self, lq: Tensor, references: Tensor | None = None) -> Tensor:
        """(N, 3, h, w), RGB in [-1, 1]; references (N, 1, 3, s h, s w) -> (N, 3, s h, s w)"""
        large = enlarge(lq, self.scale)
        reference = only_reference(references, lq, large)
        # Features, coarse to fine: (N, 256, H/4, W/4), (N, 128, H/2, W/2), (N, 64, H, W).
        query, *_ = self.extractor((large + 1) / 2)
        key, *_ = self.extractor((degrade(reference, self.scale) + 1) / 2)
        values = self.extractor((reference + 1) / 2)
        with torch.autocast(lq.device.type, enabled=False):
            soft_attention, textures = self.transformer(query.float(), key.float(), [v.float() for v in values])
        return self.net(enlarge(lq, self.scale // FACTOR), soft_attention, textures)


def texture_extractor() -> nn.Module:
    """MMagic's LTE with the weights of VGG16."""
    from mmagic.models.editors.ttsr.lte import LTE

    extractor = LTE(load_pretrained_vgg=False)
    state = checkpoints.read(weights.vgg16())
    with torch.no_grad():
        for name in LAYERS:
            layer = extractor.get_submodule(name)
            for kind in "weight", "bias":
                getattr(layer, kind).copy_(state[f"features.{name.rpartition('.')[2]}.{kind}"])
    return extractor
