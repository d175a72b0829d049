"""The fidelity gate: what w does, and that it folds into the decoder's weights."""

from __future__ import annotations

import copy

import pytest
import torch
from support.networks import TINY, largest_error, randomize

from glean_ext import checkpoints
from glean_ext.errors import InputError
from glean_ext.networks import build_network, prepare_for_inference
from glean_ext.networks.fidelity import draw_fidelity, fix_fidelity
from glean_ext.networks.inference import with_fidelity

KINDS = {
    "full": TINY,
    "slim": {**TINY, "decoder": "slim"},
    "light": {**TINY, "type": "LightGLEANStyleGANv2"},
}


def gated(kind: str) -> torch.nn.Module:
    torch.manual_seed(0)
    return randomize(build_network({**KINDS[kind], "fidelity_gate": True})).eval().requires_grad_(False)


@pytest.fixture
def lq() -> torch.Tensor:
    return torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1


@pytest.mark.parametrize("kind", KINDS)
def test_a_fixed_weight_is_that_of_the_gate(kind, lq):
    net = gated(kind)
    for w in 0.0, 0.3, 1.0:
        expected = net(lq, fidelity=torch.full((2,), w))
        fixed = copy.deepcopy(net)
        fix_fidelity(fixed, w)
        assert largest_error(fixed(lq), expected) < 1e-6
        assert largest_error(prepare_for_inference(fixed)(lq), expected) < 1e-5
    assert torch.equal(net(lq), net(lq, fidelity=torch.zeros(2)))


@pytest.mark.parametrize("kind", KINDS)
def test_other_weights_of_a_loaded_network(kind, lq):
    """Only the decoder is copied, and the network stays as it was."""
    net = gated(kind)
    for loaded, tolerance in (net, 1e-6), (prepare_for_inference(net), 1e-5):
        for w in 0.3, 1.0, 0.0:
            other = with_fidelity(loaded, w)
            assert largest_error(other(lq), net(lq, fidelity=torch.full((2,), w))) < tolerance
            own = {weight.data_ptr() for weight in other.parameters()} - {x.data_ptr() for x in loaded.parameters()}
            assert 0 < len(own) < len(list(other.parameters())) / 2
        assert largest_error(loaded(lq), net(lq)) < tolerance
    with pytest.raises(InputError, match=r"^fidelity is 2, but it must be between 0"):
        with_fidelity(net, 2)


@pytest.mark.parametrize("kind", KINDS)
def test_at_1_nothing_comes_from_the_bank(kind, lq):
    """Each image of a batch has a weight of its own."""
    net, other = gated(kind), gated(kind)
    for parameter in other.generator.parameters():
        parameter.mul_(1.5)
    w = torch.tensor([0.0, 1.0])
    restored, changed = net(lq, fidelity=w), other(lq, fidelity=w)
    assert torch.equal(restored[1], changed[1]) and largest_error(changed[0], restored[0]) > 1e-3


def test_weights_of_training():
    torch.manual_seed(0)
    w = draw_fidelity(4000, torch.device("cpu"))
    between = w[(w > 0) & (w < 1)]
    assert (w == 0).float().mean().item() == pytest.approx(0.5, abs=0.03)
    assert (w == 1).float().mean().item() == pytest.approx(0.25, abs=0.03)
    assert between.mean().item() == pytest.approx(0.5, abs=0.03)


def test_what_cannot_be_used(tmp_path):
    with pytest.raises(InputError, match=r"^This model was trained without the gate that fidelity sets"):
        fix_fidelity(build_network(TINY), 0.5)
    for w in -0.1, 1.1, float("nan"):
        with pytest.raises(InputError, match=r"must be between 0"):
            fix_fidelity(gated("full"), w)
    with pytest.raises(InputError, match=r"fidelity_gate=True needs a bank and a decoder"):
        build_network({**TINY, "decoder": "none", "fidelity_gate": True})
    checkpoints.save(build_network(TINY).state_dict(), tmp_path / "ungated.safetensors")
    with pytest.raises(InputError, match=r"fidelity_gate\.trained"):
        checkpoints.load_network_weights(gated("full"), tmp_path / "ungated.safetensors")
