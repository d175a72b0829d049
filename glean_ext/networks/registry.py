"""The restoration networks by the name that a config gives them."""

from __future__ import annotations

from glean_ext.errors import InputError
from glean_ext.network_settings import require_arguments, require_network
from glean_ext.networks.colorization import GLEANColorization
from glean_ext.networks.glean import GLEANStyleGANv2
from glean_ext.networks.glean_biggan import GLEANBigGAN
from glean_ext.networks.glean_diffusion import GLEANDiffusion
from glean_ext.networks.lightglean import LightGLEANStyleGANv2

Restorer = GLEANStyleGANv2 | GLEANBigGAN | GLEANDiffusion | LightGLEANStyleGANv2
NETWORKS: dict[str, type[Restorer]] = {
    "GLEANColorization": GLEANColorization,
    "GLEANStyleGANv2": GLEANStyleGANv2,
    "GLEANBigGAN": GLEANBigGAN,
    "GLEANDiffusion": GLEANDiffusion,
    "LightGLEANStyleGANv2": LightGLEANStyleGANv2,
}


def build_network(cfg: dict) -> Restorer:
    """The network of a config's ``model.generator``, e.g. ``dict(type='GLEANStyleGANv2', in_size=64, ...)``.

    Raises:
        InputError: An unknown type or argument, or a value the network refuses.
    """
    kind = require_network(cfg)
    require_arguments(cfg)
    try:
        return NETWORKS[kind](**{name: value for name, value in cfg.items() if name != "type"})
    except InputError:  # of the label, which front ends have an option for
        raise
    except (TypeError, ValueError) as error:
        reason = str(error).replace(f"{kind}.__init__() ", "")
        raise InputError(f"model.generator ({kind}): {reason}") from error
