"""What the tests of checkpoints share."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from support.networks import TINY, randomize
from torch import Tensor, nn

from glean_ext.errors import InputError
from glean_ext.networks import GLEANStyleGANv2, StyleGAN2Discriminator, StyleGAN2Generator

BANK = {"style_channels": 16, "num_mlps": 2, "channel_multiplier": 0.125, "max_channels": 16}


ROOT = Path(__file__).parents[2]


def fault(call, *args) -> str:
    """The message of the InputError that ``call`` raises: one line."""
    with pytest.raises(InputError) as error:
        call(*args)
    message = str(error.value)
    assert "\n" not in message
    return message


def snapshot(net: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in net.state_dict().items()}


def assert_same(state: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert state.keys() == expected.keys()
    for name in expected:
        assert torch.equal(state[name], expected[name]), name


def prefixed(**parts: nn.Module | dict[str, Tensor]) -> dict[str, Tensor]:
    """``generator_ema=net`` -> ``generator_ema.<key>`` for each of its keys."""
    states = {name: part.state_dict() if isinstance(part, nn.Module) else part for name, part in parts.items()}
    return {f"{name}.{key}": value for name, state in states.items() for key, value in state.items()}


def tiny(**changes) -> GLEANStyleGANv2:
    return GLEANStyleGANv2(**{k: v for k, v in TINY.items() if k != "type"} | changes)


def pretrained(path: object, prefix: str | None = "generator_ema", **more) -> dict:
    return {"type": "Pretrained", "checkpoint": str(path), "prefix": prefix, **more}


# ---------------------------------------------------------------- fixtures


@pytest.fixture
def bank() -> StyleGAN2Generator:
    return randomize(StyleGAN2Generator(16, **BANK), seed=1)


@pytest.fixture
def bank_file(bank, tmp_path) -> Path:
    """A file as MMagic writes it, with a bank and a discriminator that fit TINY."""
    ema = randomize(StyleGAN2Generator(16, **BANK), seed=2)
    discriminator = randomize(StyleGAN2Discriminator(16, max_channels=16), seed=3)
    state = prefixed(generator=bank, generator_ema=ema, discriminator=discriminator)
    torch.save({"meta": {"iter": 7}, "state_dict": state}, tmp_path / "bank.pth")
    return tmp_path / "bank.pth"
