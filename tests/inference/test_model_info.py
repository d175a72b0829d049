"""tools/model_info.py: what networks cost, part by part."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from support.networks import TINY
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from glean_ext.cli.model_info_table import model_info
from glean_ext.errors import InputError
from glean_ext.inference.model_cost import measure, peak_of_a_forward
from glean_ext.networks import build_network

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("kind", ["GLEANStyleGANv2", "LightGLEANStyleGANv2"])
def test_parts_add_up(kind):
    cfg = {**TINY, "type": kind}
    with FakeTensorMode():
        *parts, total = measure(build_network(cfg), 8).values()
    net = build_network(cfg)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        net(torch.zeros(1, 3, 8, 8))
    assert total.parameters == sum(p.numel() for p in net.parameters()) == sum(part.parameters for part in parts)
    assert total.trainable == sum(part.trainable for part in parts)
    assert total.flops == counter.get_total_flops() == sum(part.flops for part in parts)
    assert total.peak >= max(part.peak for part in parts) > 0


def test_costs_by_hand():
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Conv2d(3, 4, 1)
            self.second = nn.Conv2d(4, 1, 1, bias=False).requires_grad_(False)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = self.first(x)
            return self.second(y.relu()).flatten(1)

    with FakeTensorMode():
        costs = measure(Net(), 10)
    assert list(costs) == ["first", "second", "total"]
    assert (costs["first"].parameters, costs["first"].trainable, costs["first"].flops) == (16, 16, 2 * 3 * 4 * 100)
    assert (costs["second"].parameters, costs["second"].trainable, costs["second"].flops) == (4, 0, 2 * 4 * 100)
    # fp32, 10 x 10: the input (3 channels) and y (4); with relu(y) (4) and the output (1); the flat one is a view
    assert (costs["first"].peak, costs["second"].peak, costs["total"].peak) == (2800, 4800, 4800)


def test_the_tool_prints_a_table_without_mmagic():
    code = "import sys, runpy; sys.argv = ['model_info.py', 'configs/demo_lightglean_x8.py']\n"
    code += "try: runpy.run_path('tools/model_info.py', run_name='__main__')\n"
    code += "except SystemExit as done: print(done.code, 'mmagic' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    for word in "LightGLEANStyleGANv2 8 -> 64", "style codes", "bank", "encoder", "decoder", "total", "252,150":
        assert word in done.stdout, done.stdout
    assert done.stdout.endswith("0 False\n")
    assert done.stderr == ""


def test_memory_of_a_real_forward():
    before, peak = peak_of_a_forward(ROOT / "configs" / "demo_lightglean_x8.py", ["model.generator.num_mlps=3"])
    assert 50e6 < before <= peak < 4e9


def test_mistakes_take_one_line_and_help_is_light():
    tool = [sys.executable, "-X", "importtime", str(ROOT / "tools" / "model_info.py")]
    done = subprocess.run([*tool, "--help"], capture_output=True, text=True, check=True)
    assert "torch" not in done.stderr and "rich" not in done.stderr
    with pytest.raises(InputError, match=r"^nowhere.py: there is no such file. Give the path of a config.$"):
        model_info("nowhere.py")
