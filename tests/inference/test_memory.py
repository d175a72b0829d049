"""How much memory a forward needs and how much there is."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from support.networks import TINY

from glean_ext.inference.image_restorer import ImageRestorer
from glean_ext.inference.memory_budget import RESERVE, USABLE, Memory, at_hand, bytes_per_pixel, group_limits
from glean_ext.inference.model_cost import Cost, PeakMemory
from glean_ext.networks import build_network, prepare_for_inference

DEMO = Path(__file__).parents[2] / "configs" / "demo_lightglean_x8.py"
LIGHT = {**TINY, "type": "LightGLEANStyleGANv2", "out_size": 32, "decoder_channels": 8}


def test_needs_by_hand():
    """A pixel of the result takes 3 bytes, of the rows being joined 36; an input pixel of a tile 70 / USABLE."""
    image, tile = (100, 50), (20, 30)
    result, forward = 16 * 50 * (3 * 100 + 36 * 20), 70 * 20 * 30 / USABLE + RESERVE
    assert Memory(70, 0).needs(tile, image, 4) == (result + forward, 0)
    assert Memory(70, 0, 0).needs(tile, image, 4) == (result, forward)
    assert Memory(70, 0).needs((999, 999), image, 4) == Memory(70, 0).needs(image, image, 4)
    needed = int(result + forward) + 1
    assert Memory(70, needed).suffices(tile, image, 4) and not Memory(70, needed - 2).suffices(tile, image, 4)
    assert Memory(70, int(result), int(forward) + 1).suffices(tile, image, 4)
    assert not Memory(70, int(result) - 1, 10**10).suffices(tile, image, 4)
    assert not Memory(70, 10**9, int(forward) - 1).suffices(tile, image, 4)


def test_results_of_16_bits_take_twice_as_much(monkeypatch):
    image = (100, 100)
    more = Memory(70, 0, depth=2).needs(image, image, 8)[0] - Memory(70, 0).needs(image, image, 8)[0]
    assert more == 3 * 800 * 800
    light = ImageRestorer(
        "demo_lightglean_x8", "glean-ext://demo_lightglean_x8.safetensors", "cpu", notify=lambda line: None
    )
    free = Memory(0, RESERVE + (39 + 42) * 800 * 800 // 2)  # between what 8 and 16 bits need
    monkeypatch.setattr(light.network, "memory", lambda: free)
    assert light.prepare(np.zeros((*image, 3), np.uint8)).plan.tile == image
    assert light.prepare(np.zeros((*image, 3), np.uint16)).plan.tile < image


@pytest.mark.parametrize("folded", [False, True])
def test_bytes_per_pixel_are_those_of_a_real_forward(folded):
    net = build_network(LIGHT).eval()
    net = prepare_for_inference(net) if folded else net
    cost = Cost()
    with torch.no_grad(), PeakMemory() as counter:
        counter.listeners.append(cost)
        net(torch.zeros(1, 3, 64, 64))
    assert bytes_per_pixel(net) == pytest.approx(cost.peak / 64**2, rel=1e-4) and cost.peak > 2**20
    with torch.no_grad(), PeakMemory() as counter:
        counter.listeners.append(cost)
        cost.peak = 0
        net(torch.zeros(1, 3, 30, 200))
    assert cost.peak / 6000 == pytest.approx(bytes_per_pixel(net), rel=0.05)


def test_counting_leaves_the_network_as_it_was():
    net = build_network(LIGHT)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    bytes_per_pixel(net)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert all(type(value) is torch.nn.Parameter for value in net.parameters())


def test_memory_at_hand_is_that_of_the_machine():
    ram, gpu = at_hand(torch.device("cpu"))
    assert gpu is None and 2**24 < ram < 2**50


def test_limits_of_control_groups(tmp_path):
    """Containers of both versions, by files as Linux writes them."""
    own = tmp_path / "own"
    own.write_text("4:cpu,memory:/docker/abc\n1:cpu:/\n0::/user.slice\n")
    assert group_limits(tmp_path, own) == []
    new, old = tmp_path / "user.slice", tmp_path / "memory"
    new.mkdir(), old.mkdir()
    (new / "memory.max").write_text("max\n")
    (new / "memory.current").write_text("1000\n")
    (new / "memory.stat").write_text("anon 1\ninactive_file 50\n")
    assert group_limits(tmp_path, own) == []
    (new / "memory.max").write_text("1500\n")
    assert group_limits(tmp_path, own) == [550]
    (old / "memory.limit_in_bytes").write_text("400\n")
    (old / "memory.usage_in_bytes").write_text("600\n")
    (old / "memory.stat").write_text("total_inactive_file 20\n")
    assert group_limits(tmp_path, own) == [550, 0]
    assert group_limits(tmp_path, tmp_path / "no") == [0]


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="reads the peak of a process from Linux")
@pytest.mark.parametrize("side", [64, 128])
def test_a_real_process_stays_within_the_estimate(side):
    code = f"""
import torch
from glean_ext.inference.memory_budget import USABLE, bytes_per_pixel
from glean_ext.inference.model_cost import peak_rss
from glean_ext.config import load_config
from glean_ext.networks import build_network
net = build_network(load_config({str(DEMO)!r}).model.generator).eval()
estimate = bytes_per_pixel(net) * {side}**2
before = peak_rss()
with torch.inference_mode():
    net(torch.zeros(1, 3, {side}, {side}))
print(peak_rss() - before, estimate)
"""
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    growth, alive = map(float, output.split())
    assert 0.9 * alive < growth < alive / USABLE + RESERVE
