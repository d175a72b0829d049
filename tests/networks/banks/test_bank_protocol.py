"""A bank that GLEAN has never seen: ten lines, and no change elsewhere."""

from __future__ import annotations

import pytest
import torch
from support.checkpoint_files import fault, pretrained, snapshot
from torch import Tensor, nn

from glean_ext import checkpoints
from glean_ext.networks import StyleGAN2Generator, prepare_for_inference
from glean_ext.networks.banks.bank import Bank, BankSpec
from glean_ext.networks.glean import GLEANNetwork


class ToyBank(nn.Module, Bank):
    spec = BankSpec({4: 6, 8: 6, 16: 5, 32: 4}, num_codes=4, code_channels=3)

    def __init__(self) -> None:
        super().__init__()
        self.convs = nn.ModuleDict({str(res): nn.Conv2d(self.spec.channels[res // 2], c, 1) for res, c in LAYERS})

    def start(self, codes: Tensor, label: Tensor | None = None) -> Tensor:
        return codes[:, 0].repeat(1, 2)[:, :, None, None].expand(-1, -1, 4, 4)

    def block(self, x: Tensor, res: int, codes: Tensor, label: Tensor | None = None) -> Tensor:
        x = self.convs[str(res)](x) + codes[:, res.bit_length() - 3].mean(1)[:, None, None, None]
        return nn.functional.interpolate(x, scale_factor=2)


LAYERS = list(ToyBank.spec.channels.items())[1:]
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
        torch.testing.assert_close(prepare_for_inference(net)(lq), changed, rtol=0, atol=1e-5)
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
    assert fault(toy(), torch.zeros(1, 3, 8, 8), torch.tensor([0])) == (
        "This network has a bank without classes, but got labels. Leave them out."
    )
