"""The networks; they need torch and nothing else of weight."""

from torch import nn

from glean_ext.errors import InputError

from .discriminator import StyleGAN2Discriminator
from .glean import GLEANStyleGANv2
from .inference import prepare_for_inference
from .lightglean import LightGLEANStyleGANv2
from .precision import channels_last
from .stylegan2 import StyleGAN2Generator

RESTORERS: dict[str, type[nn.Module]] = {
    "GLEANStyleGANv2": GLEANStyleGANv2,
    "LightGLEANStyleGANv2": LightGLEANStyleGANv2,
}

__all__ = [
    "RESTORERS",
    "GLEANStyleGANv2",
    "LightGLEANStyleGANv2",
    "StyleGAN2Discriminator",
    "StyleGAN2Generator",
    "build_restorer",
    "channels_last",
    "prepare_for_inference",
]


def build_restorer(cfg: dict) -> nn.Module:
    """The network of a config's ``model.generator``, e.g. ``dict(type='GLEANStyleGANv2', in_size=64, ...)``.

    Raises:
        InputError: An unknown type or argument, or a value the network refuses.
    """
    cfg = dict(cfg)
    kind = cfg.pop("type", None)
    if kind not in RESTORERS:
        raise InputError(f"model.generator.type is {kind!r}, but it must be one of {sorted(RESTORERS)}.")
    try:
        return RESTORERS[kind](**cfg)
    except (TypeError, ValueError) as error:
        reason = str(error).replace(f"{kind}.__init__() ", "")
        raise InputError(f"model.generator ({kind}): {reason}") from error
