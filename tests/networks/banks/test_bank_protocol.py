"""A bank that GLEAN has never seen, that of ``docs/add_a_bank.md``: ten lines, and no change elsewhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from support.checkpoint_files import fault, pretrained, snapshot

from glean_ext import checkpoints
from glean_ext.networks import StyleGAN2Generator
from glean_ext.networks.glean import GLEANNetwork

ROOT = Path(__file__).parents[3]


def documented_bank() -> type:
    """The bank of the documentation, which is its first block of code."""
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "add_a_bank.md").read_text(), re.S)
    names: dict = {}
    exec(code, names)
    return names["ToyBank"]


ToyBank = documented_bank()
WIDTHS = {4: 8, 8: 8, 16: 7, 32: 6}


def toy(**changes) -> GLEANNetwork:
    arguments = {"in_size": 8, "out_size": 32, "widths": WIDTHS, "rrdb_channels": 8, "num_rrdbs": 1}
    return GLEANNetwork(ToyBank(), **arguments | {"bank_init": "random"} | changes)


def test_a_toy_bank_runs_through_glean():
    net, lq = toy(), torch.rand(2, 3, 8, 8) * 2 - 1
    frozen = snapshot(net.generator)
    output = net(lq)
    assert output.shape == (2, 3, 32, 32)
    output.square().mean().backward()
    for name, param in net.named_parameters():
        assert (param.grad is not None and bool(param.grad.any())) != name.startswith("generator."), name
    torch.optim.SGD([param for param in net.parameters() if param.requires_grad], 0.1).step()
    assert all(torch.equal(tensor, frozen[name]) for name, tensor in net.generator.state_dict().items())
    with torch.no_grad():
        changed = net(lq)
        assert not torch.allclose(changed, output)
        net.generator.convs["32"].weight.add_(1)  # the result depends on the bank
        assert not torch.allclose(net(lq), changed)


def test_a_toy_bank_is_loaded_strictly_and_can_be_tuned(tmp_path):
    path = tmp_path / "toy.safetensors"
    checkpoints.save({f"net.{key}": tensor + 1 for key, tensor in ToyBank().state_dict().items()}, path)
    net = toy(bank="tuned", bank_init="pretrained", init_cfg=pretrained(path, "net"))
    net.init_weights()
    state = checkpoints.with_prefix(checkpoints.read(path), "net", path)
    assert all(torch.equal(tensor, state[name]) for name, tensor in net.generator.state_dict().items())
    assert all(param.requires_grad for param in net.generator.parameters())
    stylegan = tmp_path / "stylegan2.safetensors"
    checkpoints.save(StyleGAN2Generator(16, 8, 1, 0.125, 8).state_dict(), stylegan)
    assert fault(toy(bank_init="pretrained", init_cfg=pretrained(stylegan, "")).init_weights) == (
        f"{stylegan} holds a StyleGAN2, but the network takes a ToyBank. Take another file, or another network."
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"out_size": 64},
            "ToyBank has features at 4, 8, 16, 32, but out_size=64 needs all powers of two from 4 to 64.",
        ),
        ({"decoder": "none"}, "ToyBank makes no image: take another decoder than 'none'."),
        ({"class_names": ["a"]}, "class_names has 1 names, but num_classes is 0."),
    ],
)
def test_what_a_bank_does_not_have_is_named(changes, message):
    with pytest.raises(ValueError) as error:
        toy(**changes)
    assert str(error.value) == message


def test_labels_for_a_bank_without_classes():
    assert fault(lambda: toy(label="dog")) == (
        "label has no effect: this network has a bank without classes. Leave it out."
    )
    assert fault(toy(), torch.zeros(1, 3, 8, 8), torch.tensor([0])) == (
        "This network has a bank without classes, but got labels. Leave them out."
    )
