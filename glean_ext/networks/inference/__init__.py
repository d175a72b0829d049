"""The fast, folded forms of the networks."""

from glean_ext.networks.inference.fast_networks import prepare_for_inference, with_fidelity

__all__ = ["prepare_for_inference", "with_fidelity"]
