"""A warm start: before the first step, the network's bank draws its own mean image."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F

from glean_ext.networks import GLEANStyleGANv2

SIZES: dict[str, Any] = {"in_size": 8, "out_size": 32, "rrdb_channels": 8, "num_rrdbs": 1, "style_channels": 16}
BANK: dict[str, Any] = {"num_mlps": 2, "max_channels": 16, "bank_init": "random"}


def network(**changes: Any) -> GLEANStyleGANv2:
    net = GLEANStyleGANv2(**SIZES, **BANK, **changes)
    net.init_weights()
    return net


@pytest.mark.parametrize("inject_at", [None, (4,), ()])
def test_the_first_image_is_the_banks_mean_image(inject_at: tuple[int, ...] | None) -> None:
    net = network(decoder="none", warm_start=True, inject_at=inject_at)
    bank = net.generator
    mean = bank.synthesis(bank.mean_style().expand(2, bank.num_latents, -1))
    assert torch.allclose(net(torch.rand(2, 3, 8, 8) * 2 - 1), mean, atol=1e-6)


def test_without_it_the_first_image_is_another_one() -> None:
    net = network(decoder="none")
    bank = net.generator
    mean = bank.synthesis(bank.mean_style().expand(1, bank.num_latents, -1))
    assert (net(torch.rand(1, 3, 8, 8)) - mean).abs().max() > 1e-2


@pytest.mark.parametrize("decoder", ["none", "slim", "full"])
def test_all_of_the_encoder_learns_from_it(decoder: str) -> None:
    """Zero weights hold back the gradient of what lies below them for one step only."""
    net = network(decoder=decoder, warm_start=True)
    optim = torch.optim.SGD([p for p in net.parameters() if p.requires_grad], 1e-3)
    lq, gt = torch.rand(2, 3, 8, 8), torch.rand(2, 3, 32, 32)
    for _ in range(2):
        optim.zero_grad()
        F.mse_loss(net(lq), gt).backward()
        optim.step()
    for name, parameter in net.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None and parameter.grad.abs().max() > 0, name


def test_it_changes_neither_the_state_nor_the_bank() -> None:
    torch.manual_seed(1)
    cold = network()
    torch.manual_seed(1)
    warm = network(warm_start=True)
    states = cold.state_dict(), warm.state_dict()
    assert list(states[0]) == list(states[1])
    changed = {name for name, value in states[0].items() if not torch.equal(value, states[1][name])}
    codes = f"encoder.{len(cold.encoder) - 1}.3"
    layers = codes, "fusion_out.0", "fusion_out.1"
    assert changed == {f"{layer}.{kind}" for layer in layers for kind in ("weight", "bias")}


def test_it_needs_a_bank() -> None:
    with pytest.raises(ValueError, match="bank='absent' leaves nothing to start from"):
        GLEANStyleGANv2(**SIZES, bank="absent", warm_start=True)
