"""A bank's state dict is found under any name, in any nesting, and in every format that torch and pickle write."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from support import nvidia_pickles as nvidia
from support import stylegan2_references as ref
from support.checkpoint_files import assert_same, fault, prefixed, pretrained, snapshot, tiny
from support.conversion_sources import ARGUMENTS, LAYERS, STYLE, WIDTHS, nvidia_content
from support.hostile_files import HOW, write
from support.networks import randomize
from torch import Tensor

from glean_ext import checkpoints
from glean_ext.bank_conversion import convert_bank
from glean_ext.networks import StyleGAN2Generator

pytest_plugins = ["support.checkpoint_files"]

GENERATORS: dict[str, dict[str, Tensor]] = {
    "rosinality": ref.rosinality_generator(WIDTHS, STYLE, LAYERS),
    "nvidia": ref.nvidia_generator(WIDTHS, STYLE, LAYERS),
    "mmagic": randomize(StyleGAN2Generator(**ARGUMENTS), seed=4).state_dict(),
}
WRAPPERS: dict[str, Callable[[dict], dict]] = {
    "G_ema": lambda state: {"G_ema": state},
    "g_ema": lambda state: {"g_ema": state},
    "generator_ema": lambda state: {"generator_ema": state},
    "params_ema": lambda state: {"params_ema": state, "params": {key: tensor + 1 for key, tensor in state.items()}},
    "ema": lambda state: {"model": {key: tensor + 1 for key, tensor in state.items()}, "ema": state},
    "state_dict": lambda state: {"state_dict": state, "meta": {"iter": 1}},
    "state_dict of generator_ema": lambda state: {"state_dict": {"generator_ema": state}},
    "dotted": lambda state: {"state_dict": prefixed(generator_ema=state)},
    "nested": lambda state: {"models": {"G_ema": state}, "cur_nimg": 7},
    "DDP": lambda state: {"g_ema": {f"module.{key}": tensor for key, tensor in state.items()}},
    "bare": lambda state: state,
}


@pytest.mark.parametrize("kind", GENERATORS)
@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_a_generator_under_any_name(tmp_path, kind, wrapper):
    content = WRAPPERS[wrapper](dict(GENERATORS[kind]))
    how = HOW[list(WRAPPERS).index(wrapper) % len(HOW)]
    bank = convert_bank(write(content, tmp_path / "bank.pth", how), tmp_path / "o.safetensors")
    assert (bank.format, bank.generator, bank.discriminator) == (kind, ARGUMENTS, {})
    assert_same(bank.tensors, expected(kind, tmp_path).tensors)
    assert_same(checkpoints.read(tmp_path / "o.safetensors"), bank.tensors)


def expected(kind: str, tmp_path):
    """The same network, as its implementation saves it."""
    if kind == "nvidia":
        source = nvidia.write({"G_ema": nvidia.generator(GENERATORS[kind])}, tmp_path / "network.pkl")
    else:
        source = tmp_path / "network.pt"
        state = GENERATORS[kind]
        torch.save({"g_ema": state} if kind == "rosinality" else prefixed(generator_ema=state), source)
    return convert_bank(source, tmp_path / "expected.safetensors")


@pytest.mark.parametrize("how", HOW)
def test_every_format_of_torch_and_pickle(tmp_path, how):
    content = {"G_ema": GENERATORS["nvidia"], "D": ref.nvidia_discriminator(WIDTHS)}
    bank = convert_bank(write(content, tmp_path / "bank.pth", how), tmp_path / "o.safetensors")
    source = nvidia.write(nvidia_content(), tmp_path / "network.pkl", 4)
    assert_same(bank.tensors, convert_bank(source, tmp_path / "expected.safetensors").tensors)
    assert bank.taken == ["G_ema", "D"]
    taken = "is a state dict, which says nothing of its activations and learning rates: those of the published "
    assert bank.notes == [f"{name} {taken}StyleGAN2 are taken" for name in ("G_ema", "D")]


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_every_protocol_of_nvidias_pickles(tmp_path, protocol):
    source = nvidia.write(nvidia_content(), tmp_path / "network.pkl", protocol)
    assert convert_bank(source, tmp_path / "o.safetensors").taken == ["G_ema", "D"]


def test_the_plain_generator_of_a_state_dict(tmp_path):
    torch.save({"G": GENERATORS["nvidia"]}, tmp_path / "bank.pth")
    bank = convert_bank(tmp_path / "bank.pth", tmp_path / "o.safetensors")
    assert bank.taken == ["G"]
    assert bank.notes[1:] == ["it has no averaged generator (G_ema), so G is taken"]


@pytest.mark.parametrize("content", [5, {}, {"x": 1}, None, []])
@pytest.mark.parametrize("how", ["zip", "pickle 2"])
def test_an_entry_that_is_no_network(tmp_path, content, how):
    path = write({"G_ema": content}, tmp_path / "bank.pth", how)
    assert fault(convert_bank, path, tmp_path / "o.safetensors") == (
        f"{path}: G_ema is neither a network nor the state dict of one. Take another checkpoint."
    )


def test_an_entry_of_a_known_name_with_another_network(tmp_path):
    torch.save({"G_ema": {"conv.weight": torch.zeros(1)}}, tmp_path / "bank.pth")
    assert fault(convert_bank, tmp_path / "bank.pth", tmp_path / "o.safetensors") == (
        f"{tmp_path / 'bank.pth'}: G_ema lacks synthesis.b4.const, synthesis.b4.conv1.weight, "
        "synthesis.b4.conv1.affine.bias and 7 more, so it is not the StyleGAN2 expected."
    )


# ---------------------------------------------------------------- this package's own names, for init_cfg


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("prefix", ["G_ema", "generator_ema", "params_ema", "a.b.c"])
def test_a_bank_in_a_dict_is_read_by_its_prefix(bank, tmp_path, prefix, how):
    content: dict = bank.state_dict()
    for name in reversed(prefix.split(".")):
        content = {name: content}
    net = tiny(init_cfg=pretrained(write(content, tmp_path / "bank.pth", how), prefix))
    net.init_weights()
    assert_same(net.generator.state_dict(), bank.state_dict())


@pytest.mark.parametrize("wrapper", ["params_ema", "params", "state_dict", "generator", "generator_ema", "net_g"])
@pytest.mark.parametrize("how", HOW)
def test_a_restorer_in_a_dict(tmp_path, wrapper, how):
    net, own = tiny(), randomize(tiny())
    content = {wrapper: own.state_dict()} | ({"params": tiny().state_dict()} if wrapper == "params_ema" else {})
    checkpoints.load_network_weights(net, write(content, tmp_path / "net.pth", how))
    assert_same(net.state_dict(), snapshot(own))


def test_the_generator_of_a_training_goes_before_its_average(tmp_path):
    net, generator, average = tiny(), randomize(tiny(), seed=1), randomize(tiny(), seed=2)
    torch.save({"state_dict": prefixed(generator_ema=average, generator=generator)}, tmp_path / "iter_1.pth")
    checkpoints.load_network_weights(net, tmp_path / "iter_1.pth")
    assert_same(net.state_dict(), snapshot(generator))


@pytest.mark.parametrize("map_location", [None, "cpu", torch.device("cpu")])
def test_map_location_may_be_the_cpu(bank, bank_file, map_location):
    net = tiny(init_cfg=pretrained(bank_file, "generator", map_location=map_location))
    net.init_weights()
    assert_same(net.generator.state_dict(), bank.state_dict())


@pytest.mark.parametrize("map_location", ["cuda", "cuda:1", torch.device("meta")])
def test_another_map_location_is_refused(bank, bank_file, map_location):
    before = snapshot(bank)
    init_cfg = pretrained(bank_file, "generator", map_location=map_location)
    assert fault(checkpoints.load_pretrained, bank, init_cfg) == (
        f"init_cfg.map_location is {str(map_location)!r}, but weights are read on the CPU and copied to the device of "
        "the network. Remove it."
    )
    assert_same(bank.state_dict(), before)
