"""GLEAN's relatives that take references or a dictionary, as baselines of the experiments.

Small re-implementations from the papers' descriptions, for images of 64x64 pixels. Each module says what differs.

- ``ttsr``: TTSR, the successor of SRNTT: MMagic's own networks, one reference, global matching.
- ``crossnet``: CrossNet: one reference, warped by an estimated flow.
- ``cimr``: CIMR-SR: patches of several references and of a pool that is the same for all images.
- ``dfdnet``: DFDNet: no reference, but a dictionary of eyes and mouths (``dictionary``).

They take references as ``glean_ext.networks.references`` says. Without any, TTSR and CrossNet take the enlarged input
as the reference, which adds nothing to it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn  # the report needs names alone

WITH_REFERENCES = ("ttsr", "crossnet", "cimr")
RELATIVES = (*WITH_REFERENCES, "dfdnet", "dfdnet-no-dictionary")


def build(name: str, scale: int, domain: str) -> nn.Module:
    """A network before training: (N, 3, h, w) in [-1, 1] -> (N, 3, s h, s w)

    Args:
        name: One of RELATIVES; ``dfdnet-no-dictionary`` is DFDNet that takes nothing from a dictionary.
        scale: s, a multiple of 4.
        domain: Of ``experiments.domains``: where CIMR-SR's pool and DFDNet's dictionary are from.

    Raises:
        InputError: DFDNet, and the domain is not the cartoon faces.
    """
    from experiments.relatives import cimr, crossnet, dfdnet, dictionary, ttsr

    if name == "ttsr":
        return ttsr.TTSR(scale)
    if name == "crossnet":
        return crossnet.CrossNet(scale)
    if name == "cimr":
        return cimr.CIMR(scale, cimr.pool(domain))
    entries = dictionary.load(domain) if name == "dfdnet" else None
    return dfdnet.DFDNet(scale, dictionary.Extractor(), entries)
