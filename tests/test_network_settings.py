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
    parameters = inspect.signature(NETWORKS[kind]).parameters
    takes = arguments(kind)
    assert {name: value.annotation for name, value in parameters.items()} == takes.annotations
    assert takes.required == {name for name, value in parameters.items() if value.default is value.empty}
    assert not takes.further


def test_names_that_are_no_settings():
    require_arguments({"type": "GLEANStyleGANv2", "_scope_": "mmagic", "in_size": 8, "out_size": 64})
    require_arguments({"type": "SRCNN", "anything": 1})  # another library's
    with pytest.raises(InputError, match=r"'In_Sizes'\. Did you mean in_size or out_size"):
        require_arguments({"type": "GLEANStyleGANv2", "In_Sizes": 8})
    with pytest.raises(InputError, match=r"must be one of GLEANBigGAN, .*\. Did you mean GLEANBigGAN"):
        require_network({"type": "GleanBigGan"})


SIZES = {"in_size": 8, "out_size": 64}
VALUES = {
    "out_size is missing. Add it.": {"in_size": 8},
    "in_size and out_size are missing. Add it.": {},
    "in_size must be a power of two of at least 4, but it is 10.": SIZES | {"in_size": 10},
    "in_size must be smaller than out_size, but they are 64 and 64.": SIZES | {"in_size": 64},
    "rrdb_channels is 'many', but it must be a whole number. Correct it.": SIZES | {"rrdb_channels": "many"},
    "rrdb_channels is True, but it must be a whole number. Correct it.": SIZES | {"rrdb_channels": True},
    "num_rrdbs is -1, but it must be at least 0. Correct it.": SIZES | {"num_rrdbs": -1},
    "channel_multiplier is '2', but it must be a number. Correct it.": SIZES | {"channel_multiplier": "2"},
    "bank must be one of ('frozen', 'tuned', 'absent'), but it is 'tunned'.": SIZES | {"bank": "tunned"},
    "pyramid is 1, but it must be True or False. Correct it.": SIZES | {"pyramid": 1},
    "inject_at is 8, but it must be a list or None. Correct it.": SIZES | {"inject_at": 8},
    "init_cfg is 'a.pth', but it must be a dict or None. Correct it.": SIZES | {"init_cfg": "a.pth"},
}


@pytest.mark.parametrize("message", VALUES)
def test_values_that_no_network_takes(message):
    with pytest.raises(InputError) as error:
        require_arguments({"type": "GLEANStyleGANv2", **VALUES[message]})
    assert str(error.value) == f"model.generator (GLEANStyleGANv2): {message}"


def test_values_that_networks_take():
    for values in {"inject_at": (4, 8)}, {"inject_at": None}, {"channel_multiplier": 1}, {"in_size": (4, 8)}:
        size = {"out_size": (32, 64)} if "in_size" in values else {}
        require_arguments({"type": "GLEANStyleGANv2", **SIZES, **values, **size})
    color = {"type": "GLEANColorization", "in_size": 64, "out_size": 64, "encoder_size": 16}
    require_arguments(color)
    for wrong, message in ({"in_size": 32}, "must be equal"), ({"encoder_size": 64}, "must be smaller"):
        with pytest.raises(InputError, match=message):
            require_arguments(color | wrong)
    with pytest.raises(InputError, match="in_size must be a power of two of at least 8, but it is 4"):
        require_arguments({"type": "LightGLEANStyleGANv2", "in_size": 4, "out_size": 64})


def test_sizes_that_are_not_known_without_the_network():
    assert sizes_of({"type": "LightGLEANStyleGANv2", "in_size": 8, "out_size": 64}) is None
    for size in [8, 4], "8", 0, None:
        assert sizes_of({"type": "GLEANStyleGANv2", "in_size": size, "out_size": 64}) is None
