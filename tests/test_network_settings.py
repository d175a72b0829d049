"""What is known of networks without torch is what they are."""

from __future__ import annotations

import inspect

import pytest

from glean_ext.errors import InputError
from glean_ext.network_settings import MODULES, arguments, require_arguments, require_network, sizes_of
from glean_ext.networks import NETWORKS


@pytest.mark.parametrize("kind", MODULES)
def test_arguments_are_those_of_the_constructor(kind):
    assert set(MODULES) == set(NETWORKS)
    assert arguments(kind) == tuple(inspect.signature(NETWORKS[kind]).parameters)


def test_names_that_are_no_settings():
    require_arguments({"type": "GLEANStyleGANv2", "_scope_": "mmagic", "in_size": 8})
    require_arguments({"type": "SRCNN", "anything": 1})  # another library's
    with pytest.raises(InputError, match=r"'In_Sizes'\. Did you mean in_size or out_size"):
        require_arguments({"type": "GLEANStyleGANv2", "In_Sizes": 8})
    with pytest.raises(InputError, match=r"must be one of GLEANBigGAN, .*\. Did you mean GLEANBigGAN"):
        require_network({"type": "GleanBigGan"})


def test_sizes_that_are_not_known_without_the_network():
    assert sizes_of({"type": "LightGLEANStyleGANv2", "in_size": 8, "out_size": 64}) is None
    for size in [8, 4], "8", 0, None:
        assert sizes_of({"type": "GLEANStyleGANv2", "in_size": size, "out_size": 64}) is None
