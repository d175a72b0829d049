"""The networks. Importing them imports torch, and none of mmengine, mmcv, mmagic or torchvision."""

from glean_ext.networks.banks.stylegan2 import StyleGAN2Generator
from glean_ext.networks.colorization import GLEANColorization
from glean_ext.networks.discriminators import StyleGAN2Discriminator
from glean_ext.networks.glean import GLEANStyleGANv2
from glean_ext.networks.glean_biggan import GLEANBigGAN
from glean_ext.networks.glean_diffusion import GLEANDiffusion
from glean_ext.networks.inference import prepare_for_inference
from glean_ext.networks.lightglean import LightGLEANStyleGANv2
from glean_ext.networks.precision import channels_last
from glean_ext.networks.registry import NETWORKS, Restorer, build_network

__all__ = [
    "NETWORKS",
    "GLEANBigGAN",
    "GLEANColorization",
    "GLEANDiffusion",
    "GLEANStyleGANv2",
    "LightGLEANStyleGANv2",
    "Restorer",
    "StyleGAN2Discriminator",
    "StyleGAN2Generator",
    "build_network",
    "channels_last",
    "prepare_for_inference",
]
