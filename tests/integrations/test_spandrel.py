"""GLEAN and LightGLEAN by spandrel: recognized by their keys, with the outputs of this package's own networks."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from glean_ext.errors import InputError
from glean_ext.networks import GLEANColorization, GLEANStyleGANv2, LightGLEANStyleGANv2

spandrel = pytest.importorskip("spandrel")
sys.path.insert(0, str(Path(__file__).parents[2] / "integrations" / "spandrel_glean"))
import spandrel_glean  # noqa: E402

SMALL = {"num_rrdbs": 2, "rrdb_channels": 4, "style_channels": 16, "num_mlps": 3, "bank_init": "random"}
NARROW = {"channel_multiplier": 0.125, "max_channels": 24}
EQUALLY_WIDE = {"channel_multiplier": 2, "max_channels": 8}
WIDE_AT_64 = {"channel_multiplier": 4, "max_channels": 8}
NETWORKS = {
    "GLEAN": lambda: GLEANStyleGANv2(8, 64, **SMALL, **NARROW),
    "GLEAN from 4x4": lambda: GLEANStyleGANv2(4, 32, **SMALL, **EQUALLY_WIDE),
    "GLEAN of wide layers": lambda: GLEANStyleGANv2(16, 128, **SMALL, **WIDE_AT_64),
    "LightGLEAN": lambda: LightGLEANStyleGANv2(8, 64, decoder_channels=6, **SMALL, **NARROW),
    "GLEAN on the enlarged input": lambda: GLEANStyleGANv2(
        8, 32, **SMALL, **NARROW, global_skip=True, trunk="residual"
    ),
    "LightGLEAN, width falling": lambda: LightGLEANStyleGANv2(
        32, 128, decoder_channels=6, **SMALL, channel_multiplier=0.0625
    ),
    "GLEAN with all options": lambda: GLEANStyleGANv2(
        8, 32, **SMALL, **NARROW, fidelity_gate=True, pyramid=True, references=True
    ),
    "LightGLEAN with the gate": lambda: LightGLEANStyleGANv2(8, 32, **SMALL, **NARROW, fidelity_gate=True),
    "LightGLEAN of wide layers": lambda: LightGLEANStyleGANv2(16, 128, decoder_channels=6, **SMALL, **WIDE_AT_64),
}


@pytest.fixture(scope="module")
def loader():
    spandrel_glean.install()
    assert spandrel_glean.install() == []  # a second time it changes nothing
    return spandrel.ModelLoader()


@pytest.fixture(params=NETWORKS)
def network(request):
    torch.manual_seed(0)
    return NETWORKS[request.param]().eval()


def test_it_is_recognized_and_computes_the_same(loader, network):
    model = loader.load_from_state_dict(network.state_dict())
    side = network.size_requirements.nominal[0]
    image = torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(1))
    assert type(model.model) is type(network)
    assert model.architecture.name == ("LightGLEAN" if isinstance(network, LightGLEANStyleGANv2) else "GLEAN")
    assert (model.scale, model.purpose) == (network.size_requirements.scale, "SR")
    with torch.inference_mode():
        expected = ((network(image * 2 - 1) + 1) / 2).clamp(0, 1)
    torch.testing.assert_close(model(image), expected)


def test_a_training_checkpoint_is_recognized(loader, network, tmp_path):
    weights = {f"generator.{key}": value for key, value in network.state_dict().items()}
    torch.save({"state_dict": {**weights, "discriminator.convs.0.1.bias": torch.zeros(3)}}, tmp_path / "iter_1.pth")
    model = loader.load_from_file(tmp_path / "iter_1.pth")
    for key, value in network.state_dict().items():
        assert torch.equal(model.model.state_dict()[key], value), key


def test_a_small_image_is_padded_and_a_large_one_refused(loader):
    model = loader.load_from_state_dict(NETWORKS["GLEAN"]().state_dict())
    assert model(torch.rand(1, 3, 6, 5)).shape == (1, 3, 48, 40)
    with pytest.raises(InputError, match="8x8"):
        model(torch.rand(1, 3, 16, 16))


def test_lightglean_takes_any_size(loader):
    model = loader.load_from_state_dict(NETWORKS["LightGLEAN"]().state_dict())
    assert model(torch.rand(1, 3, 12, 21)).shape == (1, 3, 96, 168)


def test_it_computes_in_fp32(loader):
    model = loader.load_from_state_dict(NETWORKS["LightGLEAN"]().state_dict())
    with pytest.raises(spandrel.UnsupportedDtypeError):
        model.half()
    with pytest.raises(spandrel.UnsupportedDtypeError):
        model.bfloat16()


def test_other_networks_stay_other_networks(loader):
    with pytest.raises(spandrel.UnsupportedModelError):
        loader.load_from_state_dict({"style_codes": torch.zeros(2, 2), "encoder.0.weight": torch.zeros(2)})


@pytest.mark.parametrize(
    ("variant", "key"),
    [
        (lambda: GLEANColorization(32, 32, 8, **SMALL, **NARROW), "variation"),
        (lambda: GLEANStyleGANv2(8, 32, **SMALL, **NARROW, inject_at=(4,)), "fusion_out.1.bias"),
    ],
)
def test_variants_that_only_a_config_describes_are_refused(loader, variant, key):
    with pytest.raises(InputError, match=rf"variant of GLEAN that only its config describes \({key}.*glean restore"):
        loader.load_from_state_dict(variant().state_dict())


def test_widths_of_no_stylegan2(loader):
    state = NETWORKS["GLEAN"]().state_dict()
    state["generator.convs.4.conv.weight_orig"] = torch.zeros(1, 23, 24, 3, 3)
    with pytest.raises(InputError, match="which no StyleGAN2 has"):
        loader.load_from_state_dict(state)
