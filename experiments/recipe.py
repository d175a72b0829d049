"""What judges the images of a training: GLEAN's losses, or one part of another method's recipe in their place.

The table ``recipe`` adds one part at a time to the same GLEAN: LPIPS as the perceptual loss (CodeFormer, VQGAN), a
U-Net discriminator with spectral norm (Real-ESRGAN), one on the features of a frozen network (Projected GAN), an
intermediate loss (GFPGAN), the fidelity gate (CodeFormer). An identity loss needs the weights of a face embedder, which
no package brings, and photographs of people.
"""

from __future__ import annotations

from torch import nn

from experiments import weights
from experiments.experiment import Experiment
from experiments.systems import discriminator_bank, trained_discriminator
from glean_ext.models.lpips_loss import LPIPSLoss
from glean_ext.models.perceptual_loss import PerceptualLoss

WITH_LPIPS = "glean-lpips"
OTHER_DISCRIMINATORS = WITH_UNET, WITH_FEATURES = "glean-unet", "glean-features"
# Sizes of the losses after bicubic enlargement, where the MSE is 0.056:
LPIPS_WEIGHT = 0.04  # 0.023, as that of the loss that it replaces
PYRAMID_WEIGHT = 0.1  # 0.024; in the first stage only
UNET_CHANNELS = 16


def perceptual_loss(experiment: Experiment) -> nn.Module:
    """Images (N, 3, H, W) and originals in [-1, 1] -> the loss, and None"""
    if experiment.system == WITH_LPIPS:
        return LPIPSLoss(LPIPS_WEIGHT, "alex", weights.ALEXNET)
    budget = experiment.budget
    return PerceptualLoss(
        {budget.perceptual_layer: 1.0},
        vgg_type="vgg16",
        perceptual_weight=budget.perceptual_weight,
        style_weight=0,
        pretrained=str(weights.vgg16()),
        criterion="mse",
        input_range=(-1, 1),
    )


def discriminator(experiment: Experiment) -> nn.Module:
    """(N, 3, H, W) in [-1, 1] -> logits, of the image or of its places; random weights but for the bank's own."""
    if experiment.system == WITH_UNET:
        from mmagic.models.editors.real_esrgan import UNetDiscriminatorWithSpectralNorm

        return UNetDiscriminatorWithSpectralNorm(3, UNET_CHANNELS)
    if experiment.system == WITH_FEATURES:
        return weights.alexnet_discriminator()
    return trained_discriminator(discriminator_bank(experiment))
