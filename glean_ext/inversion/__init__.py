"""GAN inversion: an image by searching a bank's latents, the comparison for GLEAN's one forward pass."""

from glean_ext.inversion.pulse import Inversion, InversionOptions, Progress, invert

__all__ = ["Inversion", "InversionOptions", "Progress", "invert"]
