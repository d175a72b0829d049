"""The restoration networks by the name that a config gives them."""

from __future__ import annotations

from inspect import signature

from glean_ext.errors import InputError
from glean_ext.networks.colorization import GLEANColorization
from glean_ext.networks.glean import GLEANStyleGANv2
from glean_ext.networks.glean_biggan import GLEANBigGAN
from glean_ext.networks.glean_diffusion import GLEANDiffusion
from glean_ext.networks.labels import find_label
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
    cfg = dict(cfg)
    kind = cfg.pop("type", None)
    if kind not in NETWORKS:
        raise InputError(f"model.generator.type is {kind!r}, but it must be one of {sorted(NETWORKS)}.")
    if cfg.get("label") is not None and "label" not in signature(NETWORKS[kind]).parameters:
        find_label(cfg["label"], num_classes=0)  # says that there are none
    try:
        return NETWORKS[kind](**cfg)
    except InputError:  # of the label, which front ends have an option for
        raise
    except (TypeError, ValueError) as error:
        reason = str(error).replace(f"{kind}.__init__() ", "")
        raise InputError(f"model.generator ({kind}): {reason}") from error
